#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The iSCSI front end alone, over memory, judged by third-party initiators: libiscsi's suite (with
two paths to the unit), its tools, qemu's block driver; CHAP, header digests, access lists."""
import os
import re
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, ROOT, check, main, run  # noqa: E402

TARGET = os.path.join(BIN, "tests/tools/iscsi_memory_target")
IQN = "iqn.2024-01.example:memory"


class Target:
    """A running iscsi_memory_target on a free port."""

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen([TARGET, *self.options], stdout=subprocess.PIPE, stderr=self.log,
                                        text=True)
        self.url = self.process.stdout.readline().strip()
        check(self.url.startswith("iscsi://"), "the target did not start")
        self.portal = self.url.split("/")[2]
        return self

    def __exit__(self, kind, value, tb):
        self.process.send_signal(signal.SIGTERM)
        try:
            rc = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            rc = "none"
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        if kind is None:
            check(rc == 0, f"the target ended with {rc}:\n{text[-2000:]}")


def suite():
    with Target("-l", "2", "-r") as t:
        r = run(os.path.join(ROOT, "tests/it/libiscsi_suite"), t.url, t.url, "--read-only", t.url[:-1] + "1",
                ok=False, timeout=900)
        closing = re.findall(r"^\d+ passed, \d+ failed.*$", r.stdout, re.M)
        check(r.returncode == 0, f"{r.stdout[-3000:]}{r.stderr[-1000:]}")
        return closing[-1]


def digests():
    with Target() as t:
        for family in ("Read16", "Write16", "iSCSIdatasn", "iSCSIResiduals"):
            r = run("iscsi-test-cu", "-t", f"ALL.{family}", "-d", t.url + "?header_digest=crc32c")
            check(re.search(r"^ +tests +\d+ +\d+ +\d+ +0 ", r.stdout, re.M), r.stdout[-2000:])


def chap():
    with Target("-u", "alice:correct-horse-9") as t:
        good = f"iscsi://alice%correct-horse-9@{t.portal}/{IQN}/0"
        bad = f"iscsi://alice%wrong-horse-1234@{t.portal}/{IQN}/0"
        check("Vendor:ZBS" in run("iscsi-inq", good).stdout, "login with the right secret")
        for url in (bad, t.url):
            r = run("iscsi-inq", url, ok=False)
            check("Authentication failure" in r.stdout + r.stderr, f"{url}: {r.stdout}{r.stderr}")
    with Target("-i", "iqn.2024-01.example:only") as t:
        r = run("iscsi-inq", t.url, ok=False)
        check("Authorization failure" in r.stdout + r.stderr, f"{r.stdout}{r.stderr}")
        run("iscsi-inq", "-i", "iqn.2024-01.example:only", t.url)


def discovery():
    with Target("-l", "5") as t:
        r = run("iscsi-ls", "-s", f"iscsi://{t.portal}")
        check(not re.search(rf"Portal:{re.escape(t.portal)},1\s", r.stdout), "group tags are made of addresses")
        check(f"Target:{IQN} Portal:{t.portal}," in r.stdout, r.stdout)
        check(len(re.findall(r"^Lun:\d", r.stdout, re.M)) == 5, r.stdout)


def qemu():
    with Target() as t, tempfile.TemporaryDirectory() as d:
        a, b = os.path.join(d, "a"), os.path.join(d, "b")
        with open(a, "wb") as f:
            f.write(os.urandom(32 << 20))
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", a, t.url)
        r = run("qemu-img", "compare", "-f", "raw", "-F", "raw", a, t.url, ok=False)
        check(r.returncode in (0, 1) and "Content mismatch" not in r.stdout, r.stdout)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", t.url, b)
        check(open(a, "rb").read() == open(b, "rb").read(32 << 20), "bytes read back")
        r = run("qemu-io", "-f", "raw", "-c", "write -P 7 0 4M", "-c", "write -z 1M 1M",
                "-c", "discard 2M 1M", "-c", "read -P 7 0 1M", "-c", "read -P 0 1M 2M",
                "-c", "read -P 7 3M 1M", "-c", "aio_write -P 3 100M 16M", "-c", "aio_flush",
                "-c", "read -P 3 100M 16M", "-c", "flush", t.url)
        check("failed" not in r.stdout, r.stdout)


def garbage():
    """Streams that are no iSCSI at all, and ones cut off, leave the portal as it was."""
    import random
    import socket

    rng = random.Random(1)
    with Target() as t:
        host, port = t.portal.split(":")
        for n in range(300):
            with socket.create_connection((host, int(port)), timeout=10) as s:
                data = rng.randbytes(rng.randrange(0, 4096))
                if n % 3 == 0:  # a login request of random content
                    text = rng.randbytes(rng.randrange(0, 300))
                    head = bytearray(48)
                    head[0], head[1] = 0x43, rng.randrange(256)
                    head[5:8] = len(text).to_bytes(3, "big")
                    data = bytes(head) + text + b"\0" * (-len(text) % 4)
                try:
                    s.sendall(data)
                except ConnectionError:
                    pass
        check("Vendor:ZBS" in run("iscsi-inq", t.url).stdout, "a good initiator is served")


CASES = {"suite": suite, "digests": digests, "chap": chap, "discovery": discovery, "qemu": qemu,
         "garbage": garbage}

if __name__ == "__main__":
    sys.exit(main(CASES))
