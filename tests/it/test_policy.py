#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Policies with real processes: leases that follow the I/O, limits, replicas, sizes and pools that change under load."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, wait_for  # noqa: E402


def owners(c, volume):
    return {x["owner"] for x in c.cli_json("volume", "map", volume)}


def lease_follows():
    """Load through one portal, then through another: the leases move, and no I/O fails."""
    with Cluster(device_size="2G") as c:
        urls = c.export("v", size="256M")
        c.load_result(c.load(urls[:1], 3, blocks=8192))
        check(owners(c, "test/v") == {"access-1"}, f"owners {owners(c, 'test/v')}")
        end = os.path.join(c.dir, "end")
        load = c.load(urls[1:2], 90, blocks=8192, first=8192, stop_file=end)
        wait_for("the leases to be the second server's", lambda: owners(c, "test/v") == {"access-2"}, 60)
        open(end, "w").close()
        result = c.load_result(load)
        c.verify("test/v")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s"


def rate(c, urls, seconds, blocks=8192, first=0, depth=16):
    """4 KiB operations per second, all that was done by the end of the load's time."""
    loads = [c.load([u], seconds, blocks=blocks, first=first + i * blocks, depth=depth, seed=i + 1, check=False)
             for i, u in enumerate(urls)]
    results = [c.load_result(x) for x in loads]
    return sum(r["writes"] + r["reads"] for r in results) / seconds


def limits():
    """One portal, then three: the limit holds for all together; without it nothing is slowed down."""
    with Cluster(device_size="2G") as c:
        urls = c.export("v", size="1G")
        free = rate(c, urls[:1], 3)
        c.cli("volume", "set", "test/v", "--iops", "400", "--iops-burst", "20")
        check(c.cli_json("volume", "show", "test/v")["iops"] == 400, "the limit is not shown")
        time.sleep(1)  # it reaches the access servers with their next renewal
        one = rate(c, urls[:1], 5, first=8192)
        three = rate(c, urls, 6, first=16384)
        check(380 <= one <= 420, f"{one:.0f} a second instead of 400")
        check(370 <= three <= 430, f"{three:.0f} a second instead of 400 by three servers")
        c.cli("volume", "set", "test/v", "--iops", "0")
        c.cli("pool", "set", "test", "--bandwidth", "2M", "--bandwidth-burst", "512K")
        time.sleep(1)
        pool = rate(c, urls[:1], 8, first=65536)
        check(470 <= pool <= 545, f"{pool:.0f} a second instead of 512")
        return f"{free:.0f}/s free, {one:.0f} of 400, {three:.0f} by three servers, pool {pool:.0f} of 512"


def replicas():
    """Up and down under load: the extents follow, and no I/O fails."""
    with Cluster(device_size="2G") as c:
        urls = c.export("v", size="256M", replicas=2)
        load = c.load(urls[:1], 25, blocks=8192)
        c.cli("volume", "set", "test/v", "--replicas", "3")
        wait_for("three replicas", lambda: in_sync(c, "test/v") == {3}, 12)
        check(c.cli("volume", "set", "test/v", "--replicas", "4", ok=False).returncode != 0, "four of three hosts")
        c.cli("volume", "set", "test/v", "--replicas", "1", "--min-replicas", "1")
        wait_for("one replica", lambda: in_sync(c, "test/v") == {1}, 20)
        result = c.load_result(load)
        c.verify("test/v")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s"


def in_sync(c, volume):
    return {len(x["in_sync"]) + len(x["absent"]) for x in c.cli_json("volume", "map", volume)}


def sizes_and_pools():
    """A volume in use becomes larger, smaller, and goes to another pool."""
    with Cluster(device_size="2G") as c:
        urls = c.export("v", size="4G")
        load = c.load(urls[:1], 8, blocks=8192)  # all in the first stripe group
        c.cli("volume", "resize", "test/v", "--size", "6G")
        c.cli("volume", "resize", "test/v", "--size", "2G")
        check(c.cli_json("volume", "show", "test/v")["size_bytes"] == 2 << 30, "the size is not shown")
        c.cli("pool", "create", "other", "--replicas", "3")
        c.cli("volume", "move", "test/v", "other")
        check(c.cli("volume", "show", "test/v", ok=False).returncode != 0, "it is in the former pool still")
        result = c.load_result(load)
        c.verify("other/v")
        c.load_result(c.load(urls[:1], 2, blocks=8192, first=(1 << 30) // 4096))
        refused = c.cli("volume", "resize", "other/v", "--size", "1G", ok=False)
        check(refused.returncode != 0 and "--yes" in refused.stderr, f"data would be lost: {refused.stderr}")
        c.cli("volume", "resize", "other/v", "--size", "1G", "--yes")
        check(len(c.cli_json("volume", "map", "other/v")) == 4, "extents beyond the end")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s"


CASES = {f.__name__: f for f in (lease_follows, limits, replicas, sizes_and_pools)}

if __name__ == "__main__":
    sys.exit(main(CASES))
