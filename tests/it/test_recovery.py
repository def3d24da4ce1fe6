#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recovery with real processes: a chunk server lost for longer than the grace period is replaced on
the others, under load; what it still has when it comes back is collected; an interrupted recovery
goes on; a server is removed for good; one in maintenance causes no recovery.

ZBS_SECONDS sets the length of the load (default 12)."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, Failed, check, main, wait_for  # noqa: E402

SECONDS = int(os.environ.get("ZBS_SECONDS", "12"))
SIZE = "512M"


def chunk_of(c, node):
    """The chunk server of a node: its number in the cluster; None if there is none any more."""
    for s in c.cli_json("chunk", "list"):
        if s["host"] == f"host-{node}":
            return s
    return None


def members(c, volume):
    """Chunk ids that hold an in-sync replica, by extent."""
    return {e["extent"]: sorted(e["in_sync"]) for e in c.cli_json("volume", "map", volume)}


def status(c):
    return c.cli_json("recovery", "status")


def whole_without(c, chunk, seconds=120):
    """All extents have three in-sync replicas, none of them there."""
    def is_so():
        m = members(c, "test/v")
        return m and all(len(v) == 3 and chunk not in v for v in m.values())
    try:
        wait_for(f"all extents are whole without chunk server {chunk}", is_so, seconds)
    except Failed as e:
        raise Failed(f"{e}: {members(c, 'test/v')} {status(c)}")


def idle(c, seconds=120):
    wait_for("nothing is recovered any more",
             lambda: status(c)["extents_degraded"] == 0 and status(c)["moving"] == 0, seconds)


def replicas_of(c, node):
    return chunk_of(c, node)["replicas"]


def stored_on(c, node):
    """Replicas that the disks of a node really hold."""
    return sum(d["extents"] for d in c.cli_json("disk", "list") if d["host"] == f"host-{node}")


def begin(c, grace="2s"):
    urls = c.export("v", size=SIZE)
    c.cli("setting", "set", "recovery.grace", grace)
    return urls


def victim(c):
    """A node other than the first (whose access server has the load) with replicas."""
    return max((n for n in range(2, c.nodes + 1)), key=lambda n: replicas_of(c, n))


def lost():
    with Cluster(nodes=4) as c:
        urls = begin(c)
        load = c.load(urls[:1], SECONDS, blocks=8192)
        wait_for("extents on all nodes", lambda: len(members(c, "test/v")) >= 2, 30)
        node = victim(c)
        chunk = chunk_of(c, node)["id"]
        c.dev("kill", str(node), "chunk")
        whole_without(c, chunk)
        result = c.load_result(load)
        v = c.verify("test/v")
        # back again: what it has is nobody's now
        c.dev("start", str(node), "chunk")
        wait_for("it is back", lambda: chunk_of(c, node)["alive"], 30)
        wait_for("its replicas are collected", lambda: stored_on(c, node) == 0, 60)
        c.verify("test/v")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s, {v['pages']} pages equal"


def interrupted():
    with Cluster(nodes=4) as c:
        urls = begin(c)
        load = c.load(urls[:1], min(SECONDS, 8), blocks=32768, reads=0)
        c.load_result(load)
        c.cli("setting", "set", "recovery.rate", "8M")
        node = victim(c)
        chunk = chunk_of(c, node)["id"]
        c.dev("kill", str(node), "chunk")
        wait_for("copying", lambda: status(c)["copied_bytes"] > (8 << 20), 60)
        left = status(c)["left_bytes"]
        # who copies dies, and so does the leader of the meta servers
        c.dev("kill", "1", "access")
        c.dev("kill", str(c.leader_node()), "meta")
        c.dev("start", "1", "access")
        c.cli("setting", "set", "recovery.rate", "default")
        whole_without(c, chunk)
        c.verify("test/v")
        return f"{left >> 20} MiB were left"


def removed():
    with Cluster(nodes=4) as c:
        urls = begin(c, "1h")
        load = c.load(urls[:1], SECONDS, blocks=8192)
        wait_for("extents on all nodes", lambda: len(members(c, "test/v")) >= 2, 30)
        node = victim(c)
        chunk = chunk_of(c, node)["id"]
        r = c.cli("chunk", "remove", f"host-{node}", ok=False)
        check(r.returncode == 2 and "--yes" in r.stderr, r.stderr)
        c.cli("chunk", "remove", f"host-{node}", "--yes", "--wait", timeout=120)
        whole_without(c, chunk, 5)
        check(chunk_of(c, node) is None, "the chunk server is still there")
        result = c.load_result(load)
        c.verify("test/v")
        return f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s"


def maintenance():
    with Cluster(nodes=4) as c:
        urls = begin(c, "1s")
        load = c.load(urls[:1], SECONDS, blocks=8192)
        wait_for("extents on all nodes", lambda: len(members(c, "test/v")) >= 2, 30)
        node = victim(c)
        chunk = chunk_of(c, node)
        c.cli("chunk", "maintenance", f"host-{node}", "on")
        c.dev("kill", str(node), "chunk")
        wait_for("its replicas are absent", lambda: c.degraded() > 0, 30)
        time.sleep(4)  # several grace periods, in which nothing may happen
        check(replicas_of(c, node) == chunk["replicas"], "its replicas were given up")
        s = status(c)
        check(s["copied_bytes"] == 0 and s["chunks"][0]["maintenance"], f"recovery status: {s}")
        c.dev("start", str(node), "chunk")
        c.wait_in_sync()
        c.cli("chunk", "maintenance", f"host-{node}", "off")
        c.load_result(load)
        check(replicas_of(c, node) == chunk["replicas"], "its replicas were moved")
        c.verify("test/v")


def balanced():
    """A node that was not used is filled from the others, until their use is about the same."""
    with Cluster(nodes=4, device_size="2G") as c:
        c.cli("chunk", "maintenance", "host-4", "on")
        urls = c.export("v", size="2G", replicas=2)
        load = c.load(urls[:1], 5, blocks=65536, depth=32, reads=0)
        c.load_result(load)
        check(replicas_of(c, 4) == 0, "replicas were placed on a server in maintenance")
        c.cli("chunk", "maintenance", "host-4", "off")
        c.cli("setting", "set", "balance.threshold", "1%")
        wait_for("replicas have moved to node 4", lambda: replicas_of(c, 4) > 0, 60)
        idle(c)
        c.verify("test/v")
        return " ".join(str(replicas_of(c, n)) for n in range(1, 5)) + " replicas"


CASES = {"lost": lost, "interrupted": interrupted, "removed": removed, "maintenance": maintenance,
         "balanced": balanced}

if __name__ == "__main__":
    sys.exit(main(CASES))
