#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Policies with real processes: leases that follow the I/O."""
import os
import sys

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
        load = c.load(urls[1:2], 12, blocks=8192, first=8192)
        wait_for("the leases to be the second server's", lambda: owners(c, "test/v") == {"access-2"}, 10)
        result = c.load_result(load)
        c.verify("test/v")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s"


CASES = {f.__name__: f for f in (lease_follows,)}

if __name__ == "__main__":
    sys.exit(main(CASES))
