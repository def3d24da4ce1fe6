#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""zbs-fsck on real devices: clean whatever way a chunk server ended; kept off what is in use and what
is not ours; data that went bad is named; what it says and how it ends."""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, check, main, run, wait_for  # noqa: E402
from test_scrub import BAD, PATTERN, rot  # noqa: E402

CLEAN, REPAIRED, LEFT, FAILED, USAGE = 0, 1, 4, 8, 16
ROUNDS = int(os.environ.get("ZBS_ROUNDS", "3"))


def fsck(code, *words, timeout=300):
    """Runs it, expects the exit code, returns what it said."""
    r = run(os.path.join(BIN, "zbs-fsck"), *words, ok=False, timeout=timeout)
    check(r.returncode == code, f"zbs-fsck {' '.join(words)}: {r.returncode}, not {code}: {r.stdout}{r.stderr}")
    return r.stdout + r.stderr


def chunk_state(c):
    return c.env()["nodes"][0]["chunk"]["state"]


def end_chunk(c, how):
    c.dev(how, "1", "chunk")
    wait_for("the chunk server is gone", lambda: chunk_state(c) == "down", 60)


def ended_chunk_server(devices):
    with Cluster(devices=devices) as c:
        urls = c.export("v", size="512M")
        device = c.env()["nodes"][0]["device"]
        stop = os.path.join(c.dir, "stop")
        load = c.load(urls[1:2], 24 * 3600, blocks=8192, stop_file=stop)
        for i in range(ROUNDS):
            time.sleep(0.5 + 0.4 * i)  # under load; the moment is the test
            said = fsck(FAILED, device)
            check("in use" in said, said)
            said = fsck(FAILED, "--repair", device)
            check("in use" in said, said)
            end_chunk(c, "term" if i == 1 else "kill")
            said = fsck(CLEAN, "--data", device)
            check(f"{device}: clean" in said and "extents" in said and "journal" in said, said)
            check(fsck(CLEAN, "--quiet", device) == f"{device}: clean\n", "--quiet says more")
            c.dev("start", "1", "chunk")
            c.wait_in_sync()
            check(load.poll() is None, f"the load ended early with {load.returncode}")
        with open(stop, "w"):
            pass
        result = c.load_result(load)
        c.wait_in_sync()
        c.verify("test/v")
        return f"{ROUNDS} times, {result['writes']} writes"


def files():
    return ended_chunk_server("file")


def loops():
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        return "skipped: no loop devices here"
    return ended_chunk_server("loop")


def bad_data():
    with Cluster(nodes=1) as c:
        url = c.export("v", size="256M", replicas=1)[0]
        run("qemu-io", "-f", "raw", "-t", "none", "-c", f"write -P {PATTERN} 0 16M", url)
        device = c.env()["nodes"][0]["device"]
        end_chunk(c, "term")
        check("all of them read" in fsck(CLEAN, "--data", device), "--data does not say that it read")
        check(rot(device) == BAD, "the pattern is not on the device")
        fsck(CLEAN, device)
        for words in (["--data"], ["--data", "--repair"]):
            said = fsck(LEFT, *words, device)
            bad = [line for line in said.splitlines() if line.startswith("found: extent ") and " page " in line]
            check(len(bad) == BAD and f"{BAD} findings, {BAD} left" in said, said)


def superblock():
    with Cluster(nodes=1) as c:
        c.export("v", size="256M", replicas=1)
        device = c.env()["nodes"][0]["device"]
        end_chunk(c, "kill")
        for at in (0, os.path.getsize(device) - 4096):
            with open(device, "r+b") as f:
                f.seek(at)
                f.write(bytes(4096))
            said = fsck(LEFT, device)
            check(("first copy" if at == 0 else "second copy") in said and "--repair" in said, said)
            check("all repaired" in fsck(REPAIRED, "--repair", device), "not repaired")
            fsck(CLEAN, device)
        c.dev("start", "1", "chunk")
        c.verify("test/v")


def workers():
    """Each worker's part is checked for itself; what is wrong with one is said of that one."""
    with tempfile.TemporaryDirectory(prefix="zbs-it-", dir="/var/tmp") as d:
        path = os.path.join(d, "disk")
        with open(path, "wb") as f:
            f.truncate(1 << 30)
        run(os.path.join(BIN, "zbs-chunkd"), "--format", path, "--workers", "3")
        said = fsck(CLEAN, "--data", path)
        check(all(f"worker {w}: 0 extents" in said for w in range(3)), said)
        with open(path, "r+b") as f:
            f.seek(160)
            region = int.from_bytes(f.read(16)[8:], "little")
            f.seek((1 << 20) + region)  # the anchors of worker 1
            f.write(bytes(8192))
        for words in ([path], ["--repair", path]):
            said = fsck(LEFT, *words)
            check("worker 1: journal: neither anchor is valid" in said and "1 findings, 1 left" in said, said)
            check("worker 2: 0 extents" in said and "replicas anew" in said, said)


def not_ours():
    with tempfile.TemporaryDirectory(prefix="zbs-it-", dir="/var/tmp") as d:
        path = os.path.join(d, "disk")
        with open(path, "wb") as f:
            f.truncate(1 << 30)
        for words in ([path], ["--repair", path]):
            said = fsck(FAILED, *words)
            check("no ZBS superblock" in said and path in said, said)
        run("mkfs.ext4", "-q", "-F", path)
        for words in ([path], ["--repair", path]):
            said = fsck(FAILED, *words)
            check("ext4" in said and "nothing was changed" in said, said)
        run("e2fsck", "-fn", path)
        check("No such file" in fsck(FAILED, os.path.join(d, "absent")), "an absent device")
        check("neither" in fsck(FAILED, d), "a folder")


def usage():
    said = fsck(CLEAN, "--help")
    for word in ("usage: zbs-fsck", "--data", "--repair", "--quiet", "EXIT", "EXAMPLE"):
        check(word.lower() in said.lower(), f"{word} is not in: {said}")
    for words in ([], ["--no-such"], ["a", "b"]):
        check("usage" in fsck(USAGE, *words), "no usage")


CASES = {f.__name__: f for f in (files, loops, bad_data, superblock, workers, not_ours, usage)}

if __name__ == "__main__":
    sys.exit(main(CASES))
