#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots, clones and rollbacks of a cluster of real processes, seen through NBD and iSCSI: while clients
write, with servers killed, deleted in every order."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402

MIB = 1024 * 1024


def uri(c, name, node=1):
    n = c.env()["nodes"][node - 1]
    return f"nbd+unix:///test/{name}?socket={n['nbd_unix']}"


def make_volume(c, name, size):
    if c.cli("pool", "show", "test", ok=False).returncode:
        c.cli("pool", "create", "test", "--replicas", "3")
    c.cli("volume", "create", f"test/{name}", "--size", size)


def image(c, name, mib):
    path = os.path.join(c.dir, name)
    with open(path, "wb") as f:
        for i in range(0, mib, 3):
            f.seek(i * MIB)
            f.write(os.urandom(MIB))
        f.truncate(mib * MIB)
    return path


def put(c, path, name, node=1):
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", path, uri(c, name, node))


def get(c, name, path, node=1):
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri(c, name, node), path)
    return path


def same(path, u):
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", path, u)


def qemu_io(u, *commands, ok=True):
    argv = ["qemu-io", "-f", "raw"]
    for command in commands:
        argv += ["-c", command]
    r = run(*argv, u, ok=False)
    good = r.returncode == 0 and "failed" not in r.stdout + r.stderr and "verification" not in r.stdout
    check(good == ok, f"qemu-io {commands}: {r.stdout}{r.stderr}")


def space_is_back(c):
    wait_for("all space is free again", lambda: c.cli_json("cluster", "status")["used_bytes"] == 0, 60)


def clone():
    """What is written to a volume and to a clone is seen in neither the snapshot nor the other."""
    with Cluster() as c:
        make_volume(c, "v", "192M")
        v = image(c, "v.img", 192)
        put(c, v, "v")
        c.cli("snapshot", "create", "test/v@s")
        same(v, uri(c, "v@s", node=2))
        c.cli("volume", "clone", "test/v@s", "test/c")
        w = image(c, "w.img", 192)
        put(c, w, "v", node=1)
        qemu_io(uri(c, "c", node=3), "write -P 7 1M 2M", "write -z 6M 1M", "flush")
        same(v, uri(c, "v@s", node=3))
        same(w, uri(c, "v", node=2))
        qemu_io(uri(c, "c", node=1), "read -P 7 1M 2M", "read -P 0 6M 1M")
        qemu_io(uri(c, "v@s"), "write -P 1 0 4k", ok=False)
        same(v, uri(c, "v@s"))
        for name in ("v", "c", "v@s"):
            c.verify(f"test/{name}")
        c.cli("snapshot", "rollback", "test/v@s", "--yes")
        same(v, uri(c, "v", node=2))
        c.cli("snapshot", "delete", "test/v@s", "--yes")
        qemu_io(uri(c, "v", node=2), "write -P 9 0 1M", "read -P 9 0 1M")
        qemu_io(uri(c, "c", node=2), "write -P 8 0 1M", "read -P 8 0 1M", "read -P 7 1M 2M")
        c.cli("volume", "delete", "test/v", "--yes")
        qemu_io(uri(c, "c", node=3), "read -P 8 0 1M", "read -P 7 1M 2M", "read -P 0 6M 1M")
        c.verify("test/c")
        c.cli("volume", "delete", "test/c", "--yes")
        space_is_back(c)


def load():
    """Snapshots while a client writes and checks: no pause to speak of, and none of them ever changes."""
    with Cluster() as c:
        urls = c.export("v", size="128M")
        p = c.load(urls[:1], 8, blocks=16384, depth=16)
        took, kept = [], []
        for i in range(3):
            time.sleep(1)
            begin = time.monotonic()
            c.cli("snapshot", "create", f"test/v@s{i}")
            took.append(time.monotonic() - begin)
            kept.append(get(c, f"v@s{i}", os.path.join(c.dir, f"s{i}.img"), node=2))
        result = c.load_result(p)
        for i, path in enumerate(kept):
            same(path, uri(c, f"v@s{i}", node=3))
        c.verify("test/v")
        left = [1, 0, 2]
        while left:
            c.cli("snapshot", "delete", f"test/v@s{left.pop(0)}", "--yes")
            for i in left:
                same(kept[i], uri(c, f"v@s{i}", node=1))
        c.verify("test/v")
        longest = max(took)
        check(longest < 5, f"a snapshot took {longest:.1f} s")
        return f"snapshots took at most {longest * 1000:.0f} ms; the load: {result}"


def flatten():
    """A clone gets blocks of its own while an initiator uses it and servers die; then its origin's space comes back."""
    with Cluster() as c:
        make_volume(c, "v", "192M")
        v = image(c, "v.img", 192)
        put(c, v, "v")
        c.cli("snapshot", "create", "test/v@s")
        c.cli("volume", "clone", "test/v@s", "test/c")
        qemu_io(uri(c, "c", node=2), "write -P 7 100M 2M", "flush")
        kept = get(c, "c", os.path.join(c.dir, "c.img"))
        own = c.cli_json("cluster", "status")["used_bytes"]
        c.cli("setting", "set", "recovery.rate", "8M")
        check(c.cli_json("volume", "flatten", "test/c")["flattening"], "it has not begun")
        qemu_io(uri(c, "c", node=3), "write -P 8 1M 1M", "flush")
        qemu_io(kept, "write -P 8 1M 1M")
        for node, role in ((2, "access"), (c.leader_node(), "meta"), (1, "chunk")):
            c.dev("kill", str(node), role)
            same(kept, uri(c, "c", node=3))
            c.dev("start", str(node), role)
        c.cli("setting", "set", "recovery.rate", "200M")
        c.cli("volume", "flatten", "test/c", "--watch")
        c.wait_in_sync()
        same(kept, uri(c, "c", node=1))
        same(v, uri(c, "v@s", node=2))
        c.verify("test/c")
        both = c.cli_json("cluster", "status")["used_bytes"]
        c.cli("volume", "delete", "test/v", "--yes")
        c.cli("snapshot", "delete", "test/v@s", "--yes")
        data = 64 * MIB * 3  # of the volume: every third MiB, three times
        wait_for("the origin's space is free",
                 lambda: c.cli_json("cluster", "status")["used_bytes"] <= both - data, 60)
        same(kept, uri(c, "c", node=2))
        check(c.cli("volume", "flatten", "test/none", ok=False).returncode == 3, "no such volume")
        return f"{own // MIB} MiB with shared blocks, {both // MIB} MiB without"


def kill():
    """A chunk server dies and returns: what is shared is read meanwhile, and complete again afterwards."""
    with Cluster() as c:
        make_volume(c, "v", "128M")
        v = image(c, "v.img", 128)
        put(c, v, "v")
        c.cli("snapshot", "create", "test/v@s")
        c.dev("kill", "2", "chunk")
        w = image(c, "w.img", 128)
        put(c, w, "v", node=3)
        same(v, uri(c, "v@s", node=2))
        c.dev("start", "2", "chunk")
        c.wait_in_sync()
        same(v, uri(c, "v@s", node=1))
        same(w, uri(c, "v", node=2))
        c.verify("test/v")
        c.verify("test/v@s")


if __name__ == "__main__":
    sys.exit(main({"clone": clone, "load": load, "flatten": flatten, "kill": kill}))
