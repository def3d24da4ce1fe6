#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shares as an administrator sees them: zbs-cli nfs, with and without --json, and the volumes of files by
their paths."""
import os
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")]
from cluster import Cluster, check, main, run  # noqa: E402
from nfs_client import Client  # noqa: E402
from test_cli import FAILED, NOT_FOUND, USAGE, Cli  # noqa: E402

SMALL, LARGE = 1000, 3 << 20


def shares(t):
    t.ok("pool", "create", "p", "--replicas", "1")
    made = t.json("nfs", "share", "create", "docs", "--pool", "p", "--client", "10.0.0.0/8,ro,all_squash",
                  "--client", "*,no_root_squash")
    check(made["pool"] == "p" and made["inodes"] == 1 and made["anonymous_uid"] == 65534, f"{made}")
    check(made["clients"] == ["10.0.0.0/8,ro,all_squash", "*,no_root_squash"], f"{made}")
    check("docs" in t.ok("nfs", "share", "list") and "*,no_root_squash" in t.ok("nfs", "share", "show", "docs"), "text")
    changed = t.json("nfs", "share", "set", "docs", "--anonymous-uid", "7")
    check(changed["clients"] == made["clients"] and changed["anonymous_uid"] == 7, f"only what is given: {changed}")
    check(t.json("nfs", "share", "set", "docs", "--no-clients")["clients"] == [], "nobody")
    check(t.json("nfs", "share", "set", "docs", "--client", "*,rw,no_root_squash")["clients"] == ["*,no_root_squash"],
          "clients are replaced")
    t.fails(FAILED, "exists already", "nfs", "share", "create", "docs", "--pool", "p")
    t.fails(NOT_FOUND, "does not exist", "nfs", "share", "create", "x", "--pool", "nope")
    t.fails(USAGE, "--pool", "nfs", "share", "create", "x")
    t.fails(USAGE, "'maybe' is none of", "nfs", "share", "create", "x", "--pool", "p", "--client", "*,maybe")
    t.fails(USAGE, "--owner takes", "nfs", "share", "create", "x", "--pool", "p", "--owner", "me")
    t.fails(USAGE, "octal", "nfs", "share", "create", "x", "--pool", "p", "--mode", "0999")
    t.fails(FAILED, "not a network", "nfs", "share", "create", "x", "--pool", "p", "--client", "a b")
    t.fails(NOT_FOUND, "does not exist", "nfs", "share", "show", "nope")
    t.fails(NOT_FOUND, "does not exist", "nfs", "share", "delete", "nope")
    t.fails(USAGE, "no verb 'share'", "nfs", "share")
    r = t.c.cli("nfs", "share", "create", "idle", "--pool", "p", "--owner", "5:6", "--mode", "01777")
    check("nobody may mount it" in r.stderr, r.stderr)
    t.ok("nfs", "share", "delete", "idle")
    t.fails(FAILED, "has share 'docs'", "pool", "delete", "p")


def files(t):
    """Files that a client of NFS has made."""
    node = t.c.env()["nodes"][0]
    port = node["nfs"].rsplit(":", 1)[1]
    for name, size in (("small", SMALL), ("large@home", LARGE)):
        path = os.path.join(t.c.dir, name)
        with open(path, "wb") as f:
            f.write(os.urandom(size))
        run("nfs-cp", path, f"nfs://{node['address']}/docs/{name}?nfsport={port}&mountport={port}")
    rows = {r["name"]: r for r in t.json("nfs", "ls", "/docs")}
    check(rows["small"]["size"] == SMALL and "volume" not in rows["small"], f"{rows}")
    check(rows["large@home"]["size"] == LARGE and rows["large@home"]["mode"][0] == "-", f"{rows}")
    check("large@home" in t.ok("nfs", "ls", "/docs"), "ls as text")
    check(t.json("nfs", "ls", "/docs/small")[0]["inode"] == rows["small"]["inode"], "ls of a file")
    t.fails(NOT_FOUND, "not in a share", "nfs", "ls", "/nope")
    t.fails(NOT_FOUND, "there is no 'nope'", "nfs", "ls", "/docs/nope")
    t.fails(FAILED, "has 2 files", "nfs", "share", "delete", "docs")
    check(t.json("nfs", "locks") == [], "locks")
    t.ok("nfs", "locks", "--clear", "some-client")
    check(t.json("nfs", "clients") == [], "nobody is connected")
    client = Client([node["nfs"]], "docs")
    connected = t.json("nfs", "clients")
    check(len(connected) == 1 and connected[0]["access"] == "access-1" and connected[0]["calls"] == 1, f"{connected}")
    client.close()
    return rows["large@home"]


def volumes(t, row):
    """Each file is a volume, by its path."""
    path = "nfs:/docs/large@home"
    v = t.json("volume", "show", path)
    check(v["id"] == row["volume"] and v["inode_id"] == row["inode"] and v["name"].startswith("file-"), f"{v}")
    t.fails(NOT_FOUND, "has no volume", "volume", "show", "nfs:/docs/small")
    t.fails(NOT_FOUND, "there is no 'nope'", "volume", "show", "nfs:/docs/nope")
    for words, says in ((("delete", path, "--yes"), "deleted"), (("rename", path, "mine"), "renamed"),
                        (("resize", path, "--size", "1M", "--yes"), "made smaller")):
        t.fails(FAILED, f"of file /docs/large@home: it can't be {says}", "volume", *words)
    t.ok("snapshot", "create", f"{path}@early")
    check(len(t.json("snapshot", "list", path)) == 1, "the file's snapshots")
    t.ok("volume", "clone", f"{path}@early", "p/copy")
    check(t.json("volume", "show", "p/copy")["size_bytes"] == v["size_bytes"], "a clone")
    t.ok("volume", "set", path, "--iops", "1000")
    check(t.json("volume", "show", path)["iops"] == 1000, "a limit")
    t.ok("volume", "verify", path)


def administration():
    with Cluster(nodes=1, device_size="3G") as c:
        t = Cli(c)
        shares(t)
        volumes(t, files(t))
        return f"{t.tried} calls"


CASES = {"administration": administration}

if __name__ == "__main__":
    sys.exit(main(CASES))
