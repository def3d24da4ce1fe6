#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Journals of one device on another: formatting, fsck, a cluster whose disk has them there, and what is
refused while it has."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, check, main, run, wait_for  # noqa: E402

SIZE = 2 << 30


def loop(folder, name):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.truncate(SIZE)
    return run("losetup", "--find", "--show", path).stdout.strip()


def program(code, name, *words):
    r = run(os.path.join(BIN, name), *words, ok=False)
    check(r.returncode == code, f"{name} {' '.join(words)}: {r.returncode}, not {code}: {r.stdout}{r.stderr}")
    return r.stdout + r.stderr


def formatting():
    with tempfile.TemporaryDirectory(prefix="zbs-it-", dir="/var/tmp") as d:
        devices = [loop(d, name) for name in ("fast", "slow", "other")]
        fast, slow, other = devices
        try:
            program(0, "zbs-chunkd", "--format", fast, "--workers", "2", "--journal", "64M", "--guest-rings", "1")
            said = program(0, "zbs-chunkd", "--format", slow, "--journal-on", fast)
            check(f"its journals are on {fast}" in said and "2 worker(s)" in said, said)
            check("are taken" in program(1, "zbs-chunkd", "--format", other, "--journal-on", fast), "a second one")
            check("--guest-rings" in program(1, "zbs-chunkd", "--format", other, "--journal-on", slow), "no host")
            program(0, "zbs-chunkd", "--format", slow, "--journal-on", fast, "--force")  # takes the same place
            check("--journal" in program(8, "zbs-fsck", slow), "fsck does not say what it needs")
            check(f"{slow}: clean" in program(0, "zbs-fsck", "--data", "--journal", fast, slow), "not clean")
            check(f"{fast}: clean" in program(0, "zbs-fsck", "--data", fast), "not clean")
            # The place goes to another device: the former one's journals are not its own any more.
            program(0, "zbs-chunkd", "--format", fast, "--workers", "2", "--guest-rings", "1", "--force")
            check("not on" in program(8, "zbs-fsck", "--journal", fast, slow), "a host that was formatted anew")
        finally:
            for device in devices:
                run("losetup", "--detach", device)


def cluster():
    with tempfile.TemporaryDirectory(prefix="zbs-it-", dir="/var/tmp") as d, Cluster() as c:
        fast, slow = loop(d, "fast"), loop(d, "slow")
        try:
            urls = c.export("v", size="4G")
            former = c.env()["nodes"][0]["device"]

            def disk(path):
                return next(x for x in c.cli_json("disk", "list") if x["path"] == path)

            chunk = str(disk(former)["chunk"])
            c.cli("disk", "add", chunk, fast, "--guest-rings", "1")
            c.cli("disk", "add", chunk, slow, "--journal-on", fast)

            check(disk(slow)["journal"] == fast and disk(fast)["journal"] == fast, c.cli("disk", "list").stdout)
            c.cli("disk", "drain", chunk, former)
            wait_for("the former disk is empty", lambda: disk(former)["state"] == "drained", 120)
            r = c.cli("disk", "drain", chunk, fast, ok=False)
            check(r.returncode != 0 and slow in r.stderr, r.stderr)
            r = c.cli("disk", "remove", chunk, fast, ok=False)
            check(r.returncode != 0 and slow in r.stderr, r.stderr)
            run("qemu-io", "-f", "raw", "-t", "none", "-c", "write -P 7 0 64M", urls[0])
            for i in range(64):
                run("qemu-io", "-f", "raw", "-t", "none", "-c", f"write -P 9 {i << 26} 4k", urls[0])
            wait_for("the disk list knows", lambda: disk(slow)["extents"] > 0, 30)
            c.dev("kill", "1", "chunk")
            wait_for("the chunk server is gone", lambda: c.env()["nodes"][0]["chunk"]["state"] == "down", 60)
            for words in ([fast], ["--journal", fast, slow]):
                program(0, "zbs-fsck", "--data", *words)
            c.dev("start", "1", "chunk")
            c.wait_in_sync()
            c.verify("test/v")
            check(disk(slow)["state"] == "healthy", c.cli("disk", "list").stdout)
        finally:
            c.dev("kill", "1", "chunk")
            for device in (fast, slow):
                run("losetup", "--detach", device)


CASES = {"formatting": formatting, "cluster": cluster}

if __name__ == "__main__":
    sys.exit(main(CASES))
