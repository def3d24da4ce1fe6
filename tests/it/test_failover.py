#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loss of single processes under a verified load through iSCSI: no error reaches the client, all
acknowledged writes are there, the replicas come back in-sync by themselves and are equal.

ZBS_SECONDS sets the length of the load in each case (default 12; 60 for the full run)."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main  # noqa: E402

SECONDS = int(os.environ.get("ZBS_SECONDS", "12"))


def case(fault, repair=None, urls_wanted=1, network="loopback"):
    """Load, fault after a quarter of the time, repair after three quarters."""
    with Cluster(network=network) as c:
        urls = c.export("v", size="512M")
        load = c.load(urls[:urls_wanted], SECONDS, blocks=8192)
        time.sleep(SECONDS / 4)  # the load runs: this is its length, not a synchronisation
        undo = fault(c)
        time.sleep(SECONDS / 2)
        if repair:
            repair(c, undo)
        result = c.load_result(load)
        c.wait_in_sync()
        v = c.verify("test/v")
        check(result["writes"] > 0, "nothing was written")
        return (f"{result['writes']} writes, {result['reads']} reads, longest pause {result['longest_pause_s']:.2f} s, "
                f"{v['pages']} pages equal")


def chunk_kill():
    def fault(c):
        c.dev("kill", "2", "chunk")
    return case(fault, lambda c, u: c.dev("start", "2", "chunk"))


def local_chunk_kill():
    def fault(c):
        c.dev("kill", "1", "chunk")
    return case(fault, lambda c, u: c.dev("start", "1", "chunk"))


def meta_leader_kill():
    def fault(c):
        n = c.leader_node()
        c.dev("kill", str(n), "meta")
        return n
    return case(fault, lambda c, n: c.dev("start", str(n), "meta"))


def zookeeper_leader_kill():
    def fault(c):
        k = c.zookeeper_leader()
        c.dev("kill", "zookeeper", str(k))
        return k
    return case(fault, lambda c, k: c.dev("start", "zookeeper", str(k)))


def chunk_stop():
    def fault(c):
        c.dev("stop", "3", "chunk")
    return case(fault, lambda c, u: c.dev("cont", "3", "chunk"))


def host_stop():
    """Chunk, meta leader and ZooKeeper leader at once, as far as they are on one host."""
    def fault(c):
        n, k = c.leader_node(), c.zookeeper_leader()
        c.dev("stop", str(n), "chunk")
        c.dev("stop", str(n), "meta")
        c.dev("stop", "zookeeper", str(k))
        return n, k

    def repair(c, what):
        n, k = what
        c.dev("cont", "zookeeper", str(k))
        c.dev("cont", str(n), "meta")
        c.dev("cont", str(n), "chunk")
    return case(fault, repair)


def access_kill():
    def fault(c):
        c.dev("kill", "1", "access")
    return case(fault, lambda c, u: c.dev("start", "1", "access"), urls_wanted=2)


def host_cut():
    """A host without the client loses its network, with the meta leader if that is on such a host."""
    def fault(c):
        leader = c.leader_node()
        victim = str(leader if leader != 1 else 2)
        c.dev("cut", victim)
        return victim
    return case(fault, lambda c, victim: c.dev("heal", victim), network="namespaces")


CASES = {f.__name__: f for f in (chunk_kill, local_chunk_kill, meta_leader_kill, zookeeper_leader_kill, chunk_stop,
                                 host_stop, access_kill, host_cut)}

if __name__ == "__main__":
    sys.exit(main(CASES))
