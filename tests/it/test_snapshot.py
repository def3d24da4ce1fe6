#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots, clones and rollbacks with real processes, through zbs-cli and under load."""
import hashlib
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402


def extents(c):
    return c.cli_json("cluster", "status")["extents"]


def names(rows):
    return [r["name"] for r in rows]


def commands():
    """What zbs-cli does and refuses, as text and as JSON."""
    with Cluster(device_size="1G") as c:
        c.cli("pool", "create", "p", "--replicas", "3")
        for v in ("a", "b"):
            c.cli("volume", "create", f"p/{v}", "--size", "1G")
        made = c.cli_json("snapshot", "create", "p/a@one", "p/b")
        check(names(made) == ["a@one", "b@one"], f"{made}")
        check(made[0]["created"].endswith("Z") and made[0]["snapshot"], f"{made[0]}")
        c.cli("snapshot", "create", "p/a@two")
        check(names(c.cli_json("snapshot", "list")) == ["a@one", "a@two", "b@one"], "snapshot list")
        check(names(c.cli_json("snapshot", "list", "p/a")) == ["a@one", "a@two"], "snapshot list of a volume")
        check("a@one" in c.cli("snapshot", "list", "p").stdout, "the table")
        check(c.cli_json("snapshot", "show", "p/b@one")["size_bytes"] == 1 << 30, "snapshot show")
        check("a@two" in names(c.cli_json("volume", "list", "p")), "volume list shows snapshots")
        check(c.cli("snapshot", "create", "p/a@two", ok=False).returncode == 1, "twice")
        check(c.cli("snapshot", "create", "p/a", ok=False).returncode == 2, "no name")
        check(c.cli("snapshot", "create", "p/none@x", ok=False).returncode == 3, "no volume")
        check(c.cli("volume", "create", "p/x@y", "--size", "1G", ok=False).returncode == 1, "'@' in a volume's name")
        check(c.cli("volume", "resize", "p/a@two", "--size", "2G", ok=False).returncode == 1, "a snapshot grew")
        check(c.cli("snapshot", "rollback", "p/a@one", ok=False).returncode == 2, "rollback without --yes")
        check(c.cli("snapshot", "delete", "p/a@one", ok=False).returncode == 2, "delete without --yes")
        clone = c.cli_json("volume", "clone", "p/a@one", "p/c")
        check(not clone["snapshot"] and clone["origin_id"] == made[0]["id"], f"{clone}")
        c.cli("snapshot", "rollback", "p/a@one", "--yes")
        c.cli("volume", "rename", "p/a", "z")
        check(names(c.cli_json("snapshot", "list", "p/z")) == ["z@one", "z@two"], "renamed with their volume")
        c.cli("volume", "delete", "p/z", "--yes")
        check(names(c.cli_json("snapshot", "list", "p")) == ["b@one", "z@one", "z@two"], "they outlive their volume")
        for s in ("p/z@two", "p/b@one", "p/z@one"):
            c.cli("snapshot", "delete", s, "--yes")
        check(c.cli_json("snapshot", "list") == [], "all are gone")
        return "names, lists, refusals"


def under_load():
    """Snapshots while a volume is written: no error, short pauses; all go in any order, and so does their space."""
    with Cluster(device_size="3G") as c:
        urls = c.export("v", size="512M")
        load = c.load(urls[:1], 12, blocks=65536)
        times = []
        for i in range(4):
            time.sleep(1.5)
            begin = time.monotonic()
            c.cli("snapshot", "create", f"test/v@s{i}", timeout=30)
            times.append(time.monotonic() - begin)
        result = c.load_result(load)
        c.verify("test/v")
        c.cli("volume", "clone", "test/v@s1", "test/clone")
        check(extents(c) > c.cli_json("volume", "show", "test/v")["extents"], "nothing was written since a snapshot")
        target = c.cli_json("volume", "show", "test/v")
        check(c.cli("snapshot", "rollback", "test/v@s0", "--yes", ok=False).returncode == 1, "an exported one")
        for s in ("s2", "s0", "s3", "s1"):
            c.cli("snapshot", "delete", f"test/v@{s}", "--yes")
        c.cli("volume", "delete", "test/clone", "--yes")
        wait_for("only the volume's extents", lambda: extents(c) == target["extents"], 20)
        c.verify("test/v")
        return (f"{result['writes']} writes, longest pause {result['longest_pause_s']:.2f} s, "
                f"snapshots in {max(times):.2f} s at most")


def uri(c, name, node=1):
    return f"nbd+unix:///test/{name}?socket={c.env()['nodes'][node - 1]['nbd_unix']}"


def content(c, name, node=1):
    """Its hash, read through NBD."""
    with tempfile.NamedTemporaryFile() as f:
        run("nbdcopy", uri(c, name, node), f.name)
        return hashlib.sha256(f.read()).hexdigest()


def contents():
    """A snapshot keeps its content whatever is written to its volume and its clones, also when these go; a
    rollback brings it back."""
    with Cluster(device_size="2G") as c:
        urls = c.export("v", size="64M")
        c.load_result(c.load(urls[:1], 2, blocks=8192))
        c.cli("snapshot", "create", "test/v@s")
        first = content(c, "v@s")
        check(first == content(c, "v"), "the snapshot is not what the volume was")
        c.load_result(c.load(urls[1:2], 2, blocks=8192, first=8192))
        check(content(c, "v", 2) != first, "nothing was written")
        check(content(c, "v@s", 2) == first, "the snapshot changed with its volume")
        c.cli("volume", "clone", "test/v@s", "test/c")
        check(content(c, "c") == first, "the clone is not the snapshot")
        run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 3M", uri(c, "c"))
        check(content(c, "c") != first and content(c, "v@s", 3) == first, "the snapshot changed with its clone")
        check(run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 3M", uri(c, "v@s"), ok=False).returncode != 0,
              "a snapshot was written to")
        c.cli("iscsi", "unexport", "test/v")
        c.cli("snapshot", "rollback", "test/v@s", "--yes")
        check(content(c, "v") == first and content(c, "v", 2) == first, "the rollback")
        for v in ("v", "c", "v@s"):
            verified, shown = c.verify(f"test/{v}"), c.cli_json("volume", "show", f"test/{v}")
            check(verified["extents"] == shown["extents"], f"each extent once, whoever looks: {verified}, {shown}")
        for v in ("v", "c"):
            c.cli("volume", "delete", f"test/{v}", "--yes")
        check(content(c, "v@s", 2) == first, "the snapshot went with its volume")
        c.cli("snapshot", "delete", "test/v@s", "--yes")
        wait_for("no extents", lambda: extents(c) == 0, 20)
        return "snapshot, clone, rollback"


CASES = {f.__name__: f for f in (commands, contents, under_load)}

if __name__ == "__main__":
    sys.exit(main(CASES))
