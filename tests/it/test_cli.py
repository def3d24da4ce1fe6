#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""zbs-cli as people and scripts use it: every command with and without --json, exit codes, and what it
says when something is wrong."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, check, main, run, wait_for  # noqa: E402

OK, FAILED, USAGE, NOT_FOUND, UNREACHABLE = 0, 1, 2, 3, 4


class Cli:
    def __init__(self, c):
        self.c = c
        self.tried = 0

    def ok(self, *words, stdin=None):
        """What it prints, as text and, from a second call for reading commands, as JSON."""
        self.tried += 1
        return self.c.cli(*words, stdin=stdin).stdout

    def json(self, *words):
        self.tried += 1
        return self.c.cli_json(*words)

    def fails(self, code, says, *words, stdin=None):
        self.tried += 1
        r = self.c.cli(*words, ok=False, stdin=stdin)
        check(r.returncode == code, f"{words}: ended with {r.returncode}, not {code}: {r.stderr}")
        check(r.stdout == "", f"{words}: printed in spite of an error: {r.stdout}")
        check(re.match(r"zbs-cli: .*\n$", r.stderr) and says in r.stderr, f"{words}: '{says}' is not in: {r.stderr}")


def usage(t):
    t.fails(USAGE, "name a noun")
    t.fails(USAGE, "unknown noun 'frob'", "frob")
    t.fails(USAGE, "unknown noun 'frob'", "help", "frob")
    t.fails(USAGE, "needs a verb", "pool")
    t.fails(USAGE, "no verb 'frob'", "pool", "frob")
    t.fails(USAGE, "needs: POOL", "pool", "create")
    t.fails(USAGE, "one argument too many", "pool", "create", "a", "b")
    t.fails(USAGE, "unknown option '--frob'", "pool", "create", "a", "--frob")
    t.fails(USAGE, "--replicas needs a value", "pool", "create", "a", "--replicas")
    t.fails(USAGE, "given twice", "pool", "create", "a", "--replicas", "1", "--replicas", "2")
    t.fails(USAGE, "takes no value", "volume", "delete", "a/b", "--yes=1")
    for noun in ("cluster", "meta", "chunk", "access", "disk", "pool", "volume", "iscsi", "target"):
        check(f"zbs-cli {noun} " in t.ok("help", noun), f"no help for {noun}")
    check("exit codes" in t.ok("--help"), "help")


def pools(t):
    for name in ("one", "two words", "zwölf", "x" * 128):
        t.ok("pool", "create", name, "--replicas", "1")
    check(t.json("pool", "show", "zwölf")["name"] == "zwölf", "UTF-8")
    check("zwölf" in t.ok("pool", "list"), "UTF-8 in a table")
    check([p["name"] for p in t.json("pool", "list")] == sorted(["one", "two words", "zwölf", "x" * 128]), "pool list")
    t.fails(FAILED, "exists already", "pool", "create", "one")
    t.fails(FAILED, "empty", "pool", "create", "")
    t.fails(FAILED, "too long", "pool", "create", "x" * 129)
    t.fails(FAILED, "'/'", "pool", "create", "a/b")
    t.fails(FAILED, "control character", "pool", "create", "a\nb")
    t.fails(USAGE, "from 1 to 5", "pool", "create", "p", "--replicas", "6")
    t.fails(USAGE, "from 1 to 5", "pool", "create", "p", "--replicas", "-1")
    t.fails(FAILED, "can't be kept", "pool", "create", "p", "--replicas", "1", "--min-replicas", "2")
    t.fails(FAILED, "galaxy", "pool", "create", "p", "--failure-domain", "galaxy")
    t.fails(NOT_FOUND, "does not exist", "pool", "show", "nope")
    t.fails(NOT_FOUND, "does not exist", "pool", "delete", "nope")
    r = t.c.cli("--json", "pool", "create", "wide", "--replicas", "3")
    check("warning: 3 replicas need 3 hosts" in r.stderr and json.loads(r.stdout)["replicas"] == 3, r.stderr)
    for name in ("two words", "zwölf", "wide"):
        t.ok("pool", "delete", name)


def volumes(t):
    made = t.json("volume", "create", "one/v", "--size", "1G")
    check(made["size_bytes"] == 1 << 30 and made["pool"] == "one" and made["replicas"] == 1, f"{made}")
    t.ok("volume", "create", "one/a b", "--size", "64M")
    t.ok("volume", "create", "one/ünï", "--size", "1048577")
    check(t.json("volume", "show", "one/ünï")["size_bytes"] == (1 << 20) + 4096, "rounded up to a page")
    t.ok("volume", "create", "x" * 128 + "/" + "y" * 128, "--size", "1M")
    check(len(t.json("volume", "list")) == 4 and len(t.json("volume", "list", "one")) == 3, "volume list")
    check("ünï" in t.ok("volume", "list", "one"), "UTF-8 in a table")
    t.fails(FAILED, "exists already", "volume", "create", "one/v", "--size", "1G")
    t.fails(NOT_FOUND, "pool 'nope' does not exist", "volume", "create", "nope/v", "--size", "1G")
    t.fails(NOT_FOUND, "pool 'nope' does not exist", "volume", "list", "nope")
    t.fails(USAGE, "--size is needed", "volume", "create", "one/w")
    for name in ("v", "/v", "one/", "one/v/w", ""):
        t.fails(USAGE, "write POOL/VOLUME", "volume", "create", name, "--size", "1G")
    t.fails(USAGE, "128 bytes at most", "volume", "create", "one/" + "y" * 129, "--size", "1G")
    for size in ("", "x", "-1", "1X", "1GG", "1.5G", "99999999999999999999", "99999999T"):
        t.fails(USAGE, "is not a size", "volume", "create", "one/w", "--size", size)
    for size in ("0", "4096", "65T"):
        t.fails(FAILED, "out of range", "volume", "create", "one/w", "--size", size)
    t.fails(FAILED, "stripe size", "volume", "create", "one/w", "--size", "1G", "--stripe-size", "100K")
    r = t.c.cli("volume", "create", "one/w", "--size", "1G", "--host", "nohost")
    check("no chunk server is on host 'nohost'" in r.stderr, r.stderr)
    check(t.json("volume", "resize", "one/v", "--size", "2G")["size_bytes"] == 2 << 30, "resize")
    check(t.json("volume", "resize", "one/v", "--size", "1G")["size_bytes"] == 1 << 30, "resize of an unused tail")
    t.fails(USAGE, "--size is needed", "volume", "resize", "one/v")
    t.fails(USAGE, "nothing is to be set", "volume", "set", "one/v")
    t.fails(USAGE, "iops", "volume", "set", "one/v", "--iops", "many")
    t.fails(FAILED, "chunk servers on as many hosts", "volume", "set", "one/v", "--replicas", "5")
    limited = t.json("volume", "set", "one/v", "--iops", "500", "--bandwidth", "4M")
    check(limited["iops"] == 500 and limited["bandwidth"] == 4 << 20, f"{limited}")
    limited = t.json("volume", "set", "one/v", "--iops", "0")  # the other limit stays
    check(limited["iops"] == 0 and limited["bandwidth"] == 4 << 20, f"{limited}")
    check("4.0 MiB" in t.ok("volume", "show", "one/v"), "the limit is shown")
    check(t.json("pool", "set", "one", "--iops-burst", "7", "--iops", "70")["iops_burst"] == 7, "pool set")
    check(t.json("pool", "show", "one")["iops"] == 70, "the pool's limit is shown")
    t.ok("pool", "set", "one", "--iops", "0")
    t.ok("volume", "set", "one/v", "--bandwidth", "0")
    t.fails(NOT_FOUND, "does not exist", "volume", "move", "one/v", "nowhere")
    t.ok("volume", "rename", "one/w", "w2")
    t.fails(FAILED, "exists already", "volume", "rename", "one/w2", "v")
    t.fails(FAILED, "'/'", "volume", "rename", "one/w2", "two/w")
    for words in (("show",), ("map",), ("verify",), ("delete", "--yes"), ("resize", "--size", "1G")):
        t.fails(NOT_FOUND, "does not exist", "volume", words[0], "one/nope", *words[1:])
    check(t.json("volume", "map", "one/v") == [], "a map of nothing")
    check(t.json("volume", "verify", "one/v")["mismatches"] == 0, "verify of nothing")
    t.fails(USAGE, "--yes", "volume", "delete", "one/w2")
    check(t.json("volume", "delete", "one/w2", "--yes") == {}, "delete")
    t.fails(FAILED, "3 volumes", "pool", "delete", "one")


def pages(t):
    """More volumes than the leader lists at once."""
    t.ok("pool", "create", "many", "--replicas", "1")
    names = [f"many/v{i}" for i in range(8)]
    for name in names:
        t.ok("volume", "create", name, "--size", "1M")
    for i in range(250):
        t.ok("snapshot", "create", f"{names[0]}@s{i}", *names[1:])
    listed = [v["name"] for v in t.json("volume", "list", "many")]
    check(len(listed) == 2008 and listed == sorted(listed), f"{len(listed)} volumes are listed")
    check(len(t.json("snapshot", "list", "many")) == 2000, "snapshot list")
    check(len(t.json("snapshot", "list", "many/v3")) == 250, "snapshot list of a volume")


def exports(t):
    first = t.json("iscsi", "export", "one/v")
    check(first == t.json("iscsi", "export", "one/v"), "a second export of the same volume is not the first")
    check(first == t.json("iscsi", "show", "one/v") and first["iqn"].endswith(":one.v"), f"{first}")
    check(len(first["urls"]) == 1 and first["urls"][0] == first["portals"][0]["url"], f"{first}")
    check(first["urls"][0] in t.ok("iscsi", "show", "one/v"), "the table")
    check("Vendor:ZBS" in run("iscsi-inq", first["urls"][0]).stdout, "an initiator gets there")
    iqns = {t.json("iscsi", "export", v)["iqn"] for v in ("one/a b", "one/ünï", "x" * 128 + "/" + "y" * 128)}
    check(len(iqns) == 3 and all(re.fullmatch(r"[a-z0-9.:-]{1,223}", i) for i in iqns), f"{iqns}")
    t.fails(FAILED, "end the export first", "volume", "delete", "one/v", "--yes")
    t.fails(FAILED, "is LUN 0 of", "iscsi", "export", "one/v", "--lun", "5")
    t.fails(FAILED, "target set", "iscsi", "export", "one/v", "--initiator", "iqn.2024-01.example:a")
    t.fails(NOT_FOUND, "does not exist", "iscsi", "export", "one/nope")
    t.fails(NOT_FOUND, "does not exist", "iscsi", "unexport", "one/nope")
    t.fails(FAILED, "not an iSCSI name", "iscsi", "export", "one/v", "--target", "no iqn")
    t.fails(USAGE, "from 0 to 255", "iscsi", "export", "one/v", "--lun", "256")
    shared = "iqn.2024-01.example:shared"
    t.ok("iscsi", "export", "one/v", "--target", shared, "--lun", "7")
    t.fails(FAILED, "LUN 7 already", "iscsi", "export", "one/a b", "--target", shared, "--lun", "7")
    t.ok("iscsi", "unexport", "one/a b")
    t.fails(NOT_FOUND, "is not exported", "iscsi", "unexport", "one/a b")
    t.fails(NOT_FOUND, "is not exported", "iscsi", "show", "one/a b")
    r = t.c.cli("iscsi", "unexport", "one/v")
    check(f"target delete {shared}" in r.stderr, f"nothing about the empty target: {r.stderr}")
    t.ok("volume", "delete", "one/v", "--yes")


def targets(t):
    secret = os.path.join(t.c.dir, "secret")
    iqn = "iqn.2024-01.example:t"
    t.fails(FAILED, "not an iSCSI name", "target", "create", "iqn.x")
    t.fails(USAGE, "go together", "target", "create", iqn, "--chap-user", "bob")
    t.fails(USAGE, "No such file", "target", "create", iqn, "--chap-user", "bob", "--chap-secret-file", secret)
    with open(secret, "w") as f:
        f.write("short\n")
    t.fails(USAGE, "12 to 255", "target", "create", iqn, "--chap-user", "bob", "--chap-secret-file", secret)
    t.ok("target", "create", iqn, "--chap-user", "bob", "--chap-secret-file", "-", stdin="long-enough-1\n")
    t.fails(FAILED, "exists already", "target", "create", iqn)
    row = [x for x in t.json("target", "list") if x["iqn"] == iqn][0]
    check(row["chap_user"] == "bob" and "long-enough-1" not in json.dumps(t.json("target", "list")), f"{row}")
    t.ok("target", "set", iqn, "--initiator", "iqn.2024-01.example:a", "--initiator", "iqn.2024-01.example:b")
    row = [x for x in t.json("target", "list") if x["iqn"] == iqn][0]
    check(row["chap_user"] == "" and len(row["initiators"]) == 2, f"{row}")
    t.fails(NOT_FOUND, "does not exist", "target", "set", "iqn.2024-01.example:nope")
    t.ok("iscsi", "export", "one/a b", "--target", iqn)
    t.fails(USAGE, "--yes", "target", "delete", iqn)
    check(t.json("target", "delete", iqn, "--yes") == {}, "target delete")
    t.fails(NOT_FOUND, "does not exist", "target", "delete", iqn)


def servers(t):
    status = t.json("cluster", "status")
    check(len(status["metas"]) == len(status["chunks"]) == len(status["accesses"]) == 1, f"{status}")
    for noun, key in (("meta", "metas"), ("chunk", "chunks"), ("access", "accesses")):
        check([x.get("name", x["host"] if "host" in x else 0) for x in t.json(noun, "list")] ==
              [x.get("name", x["host"] if "host" in x else 0) for x in status[key]], noun)
        check(len(t.ok(noun, "list").splitlines()) == 2, f"{noun} list")
    check("cluster" in t.ok("cluster", "status") and len(status["cluster_id"]) == 36, "cluster status")
    cache = t.json("chunk", "cache", "host-1")
    check(cache["chunk"] == 1 and cache["hits"] >= 0 and "read cache" in t.ok("chunk", "cache", "1"), f"{cache}")
    t.fails(NOT_FOUND, "no chunk server '9'", "chunk", "cache", "9")


def disks(t):
    image, foreign = os.path.join(t.c.dir, "image"), os.path.join(t.c.dir, "foreign")
    for path in (image, foreign):
        with open(path, "wb") as f:
            f.truncate(3 << 30)
    run("mkfs.ext4", "-q", "-F", foreign)
    t.fails(NOT_FOUND, "no chunk server 'nohost'", "disk", "add", "nohost", image)
    t.fails(NOT_FOUND, "No such file", "disk", "add", "host-1", "/does/not/exist")
    t.fails(USAGE, "absolute path", "disk", "add", "host-1", "image")
    t.fails(FAILED, "ext4; --force", "disk", "add", "host-1", foreign)
    t.ok("disk", "add", "host-1", image)
    check(image in [d["path"] for d in t.json("disk", "list")], "an added disk is not listed")
    t.fails(FAILED, "in use", "disk", "add", "host-1", image)
    check(t.json("disk", "add", "host-1", foreign, "--force")[0]["path"] == foreign, "disk add --force")
    t.c.dev("kill", "1", "chunk")
    t.c.dev("start", "1", "chunk")
    check(len(t.json("disk", "list")) == 3 and foreign in t.ok("disk", "list"), "added disks after a restart")
    disk_leaves(t, image)


def disk_leaves(t, path):
    """A disk is drained over a restart, and removed for good."""
    def disk():
        return next((d for d in t.json("disk", "list") if d["path"] == path), None)

    t.fails(USAGE, "absolute path", "disk", "drain", "host-1", "image")
    t.fails(NOT_FOUND, "no disk of this server", "disk", "drain", "host-1", "/does/not/exist")
    t.fails(NOT_FOUND, "no disk of this server", "disk", "remove", "host-1", "/does/not/exist")
    check(t.json("disk", "drain", "host-1", path)["path"] == path, "disk drain")
    wait_for("the drain", lambda: disk()["state"] == "drained", 60)
    check(disk()["extents"] == 0 and disk()["used_bytes"] == 0, f"a drained disk: {disk()}")
    t.c.dev("kill", "1", "chunk")
    t.c.dev("start", "1", "chunk")
    wait_for("the drained disk", lambda: disk() and disk()["state"] == "drained", 60)
    t.ok("disk", "drain", "host-1", path, "--cancel")
    wait_for("the cancelled drain", lambda: disk()["state"] == "healthy", 10)
    check(t.json("disk", "remove", "host-1", path)["configured"] is False, "disk remove")
    wait_for("its end", lambda: disk() is None, 10)
    t.c.dev("kill", "1", "chunk")
    t.c.dev("start", "1", "chunk")
    check(disk() is None, "a removed disk after a restart")


def everything():
    with Cluster(nodes=1, device_size="3G") as c:
        t = Cli(c)
        for part in (usage, pools, volumes, pages, exports, targets, servers, disks):
            part(t)
        return f"{t.tried} calls"


def configuration():
    """How it finds the cluster, and what it says when it does not."""
    with Cluster(nodes=1, device_size="3G") as c:
        tool = os.path.join(BIN, "zbs-cli")
        run(tool, "cluster", "status", env={"ZBS_CONFIG": c.config})
        run(tool, "cluster", "status", f"--config={c.config}", env={"ZBS_CONFIG": "/does/not/exist"})

        def wrong(text, says, code=USAGE):
            path = os.path.join(c.dir, "wrong.conf")
            with open(path, "w") as f:
                f.write(text)
            r = run(tool, "--config", path, "pool", "list", ok=False)
            check(r.returncode == code and says in r.stderr, f"{text}: {r.returncode} {r.stderr}")
        wrong("", "[cluster] meta is required, for example")
        wrong("[cluster]\nmeta = host:1\n", "wrong.conf:2: [cluster] meta")
        wrong("[cluster]\nmeta = 127.0.0.1\n", "no port")
        wrong("[cluster]\nmata = 127.0.0.1:1\n", "unknown key")
        wrong("[cluster]\nmeta = 127.0.0.1:1\n", "no answer from a meta leader", UNREACHABLE)
        r = run(tool, "--config", "/does/not/exist", "pool", "list", ok=False)
        check(r.returncode == USAGE and "/does/not/exist" in r.stderr and "ZBS_CONFIG" in r.stderr, r.stderr)
        r = run(tool, "pool", "list", "--config", ok=False)
        check(r.returncode == USAGE and "needs a file" in r.stderr, r.stderr)
        c.dev("term", "1", "access")
        c.cli("pool", "create", "p", "--replicas", "1")
        c.cli("volume", "create", "p/v", "--size", "1G")
        r = c.cli("--json", "iscsi", "export", "p/v")
        check(json.loads(r.stdout)["urls"] == [] and "no access server" in r.stderr, f"{r.stdout} {r.stderr}")
        c.dev("start", "1", "access")
        c.dev("stop", "1", "chunk")
        r = c.cli("disk", "add", "host-1", "/x", ok=False)
        c.dev("cont", "1", "chunk")
        check(r.returncode in (NOT_FOUND, UNREACHABLE), f"a stopped chunk server: {r.returncode} {r.stderr}")


CASES = {"everything": everything, "configuration": configuration}

if __name__ == "__main__":
    sys.exit(main(CASES))
