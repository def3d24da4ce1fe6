#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pages that go bad on a device are found by the scrubber and written anew by the extent's owner,
from another replica, without an operator."""
import mmap
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402

PATTERN, BAD = 0x5A, 3


def rot(path):
    """Flips a bit in some pages of the pattern, from the end, where the blocks are; returns how many."""
    page = bytes([PATTERN]) * 4096
    hit = 0
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        at = m.rfind(page)
        while at >= 0 and hit < BAD:
            m[at + 100] ^= 1
            hit += 1
            at = m.rfind(page, 0, at - (1 << 20))
        m.flush()
        os.fsync(f.fileno())
    return hit


def repaired():
    with Cluster() as c:
        url = c.export("v", size="256M")[0]
        run("qemu-io", "-f", "raw", "-t", "none", "-c", f"write -P {PATTERN} 0 16M", url)
        view = c.env()["nodes"][0]
        check(rot(view["device"]) == BAD, "the pattern is not on the device")

        # by host: chunk servers are numbered in the order in which they registered
        def state():
            return c.cli_json("chunk", "scrub", "host-1")

        c.cli("chunk", "scrub", "host-1", "--start", "--rate", "1G")
        wait_for("the end of a round", lambda: state()["rounds"] >= 1, 60)
        check(state()["corrupt"] == BAD, f"found: {state()}")
        wait_for("all pages are repaired", lambda: state()["unrepaired"] == 0, 60)
        c.verify("test/v")
        rounds = state()["rounds"]
        c.cli("chunk", "scrub", "host-1", "--start", "--rate", "1G")
        wait_for("the end of another round", lambda: state()["rounds"] > rounds, 60)
        check(state()["corrupt"] == 0, f"found again: {state()}")
        run("qemu-io", "-f", "raw", "-c", f"read -P {PATTERN} 0 16M", url)
        r = c.cli("chunk", "scrub", "9", ok=False)
        check(r.returncode == 3 and "no chunk server '9'" in r.stderr, r.stderr)


CASES = {"repaired": repaired}

if __name__ == "__main__":
    sys.exit(main(CASES))
