#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All processes of the cluster killed at once in the middle of writes, again and again: it comes
back by itself, its processes started in any order; every acknowledged byte is there; the replicas
are equal. ZBS_ROUNDS sets how often (default 3; 100 for the full run)."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, wait_for  # noqa: E402

ROUNDS = int(os.environ.get("ZBS_ROUNDS", "3"))


def everything(c):
    view = c.env()
    names = [["zookeeper", str(z["number"])] for z in view["zookeeper"]["servers"]]
    pids = [z["pid"] for z in view["zookeeper"]["servers"]]
    for n in view["nodes"]:
        for s in ("meta", "chunk", "access"):
            names.append([str(n["number"]), s])
            pids.append(n[s]["pid"])
    return names, pids


def kill_all():
    rng = random.Random(int(os.environ.get("ZBS_SEED", "1")))
    with Cluster() as c:
        urls = c.export("v", size="512M")
        stop = os.path.join(c.dir, "stop")
        load = c.load(urls[:1], 24 * 3600, blocks=8192, stop_file=stop)
        longest_back = 0.0
        for _ in range(ROUNDS):
            time.sleep(rng.uniform(0.2, 2.5))  # the random moment is the test
            names, pids = everything(c)
            for p in pids:
                os.kill(p, 9)
            wait_for("all processes gone", lambda: all(x["state"] == "down" for x in c.env()["zookeeper"]["servers"]), 30)
            rng.shuffle(names)
            for n in names:
                c.dev("start", *n)
            begin = time.monotonic()
            wait_for("an answer from the cluster",
                     lambda: c.cli("--json", "cluster", "status", ok=False).returncode == 0, 60)
            c.wait_in_sync()
            longest_back = max(longest_back, time.monotonic() - begin)
            check(load.poll() is None, f"the load ended early with {load.returncode}")
        with open(stop, "w"):
            pass
        result = c.load_result(load)
        c.wait_in_sync()
        c.verify("test/v")
        return (f"{ROUNDS} rounds, {result['writes']} writes, longest pause {result['longest_pause_s']:.1f} s, "
                f"in-sync at most {longest_back:.1f} s after the start")


CASES = {"kill_all": kill_all}

if __name__ == "__main__":
    sys.exit(main(CASES))
