#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Snapshots exported, imported and continued through pipes, between real processes: while initiators write
to the source and read the copy, with servers killed midway, and with streams that are damaged or break off."""
import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, check, main, run, wait_for  # noqa: E402

MIB = 1024 * 1024


def uri(c, name, node=1):
    n = c.env()["nodes"][node - 1]
    return f"nbd+unix:///test/{name}?socket={n['nbd_unix']}"


def cli_argv(c, *words):
    return [os.path.join(BIN, "zbs-cli"), "--json", "--config", c.config, *words]


def export(c, path, name, *options):
    """What zbs-cli says of the stream in the file."""
    with open(path, "wb") as f:
        r = subprocess.run(cli_argv(c, "snapshot", "export", name, *options), stdout=f, stderr=subprocess.PIPE,
                           text=True, timeout=120)
    check(r.returncode == 0, f"export of {name}: {r.stderr}")
    return json.loads(r.stderr)


def import_file(c, path, name, ok=True):
    with open(path, "rb") as f:
        r = subprocess.run(cli_argv(c, "snapshot", "import", name), stdin=f, capture_output=True, text=True,
                           timeout=180)
    check((r.returncode == 0) == ok, f"import of {name} ended with {r.returncode}: {r.stdout}{r.stderr}")
    return json.loads(r.stdout) if ok else r.stderr


def pipe(c, source, target, *options):
    """export | import, as over ssh."""
    out = subprocess.Popen(cli_argv(c, "snapshot", "export", source, *options), stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
    r = subprocess.run(cli_argv(c, "snapshot", "import", target), stdin=out.stdout, capture_output=True, text=True,
                       timeout=180)
    out.stdout.close()
    check(out.wait(timeout=60) == 0 and r.returncode == 0, f"{source} to {target}: {r.stderr}")
    return json.loads(r.stdout)


def same(a, b):
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", a, b)


def qemu_io(u, *commands, ok=True):
    argv = ["qemu-io", "-f", "raw"]
    for command in commands:
        argv += ["-c", command]
    r = run(*argv, u, ok=False)
    good = r.returncode == 0 and "failed" not in r.stdout + r.stderr
    check(good == ok, f"qemu-io {commands}: {r.stdout}{r.stderr}")


def has_snapshot(c, name):
    return c.cli("snapshot", "show", name, ok=False).returncode == 0


def chain():
    """A copy follows its source from snapshot to snapshot while an initiator writes; only changes are sent."""
    with Cluster() as c:
        urls = c.export("v", size="128M")
        load = c.load(urls[:1], 8, blocks=8192, depth=8)
        sizes = []
        for i in range(4):
            time.sleep(1)
            c.cli("snapshot", "create", f"test/v@s{i}")
            since = ["--since", f"test/v@s{i - 1}"] if i else []
            sizes.append(pipe(c, f"test/v@s{i}", "test/copy", *since)["data_bytes"])
            same(uri(c, f"v@s{i}", node=2), uri(c, f"copy@s{i}", node=3))
        c.load_result(load)
        qemu_io(uri(c, "v"), "write -P 5 8M 64k", "discard 16M 1M", "flush")
        c.cli("snapshot", "create", "test/v@a")
        qemu_io(uri(c, "v"), "write -P 6 8M 4k", "discard 32M 2M", "write -z 40M 4k", "flush")
        c.cli("snapshot", "create", "test/v@b")
        small = export(c, os.path.join(c.dir, "small"), "test/v@b", "--since", "test/v@a")
        check(small["data_bytes"] <= MIB, f"little was changed: {small}")  # with what was in the journal then
        pipe(c, "test/v@a", "test/copy", "--since", "test/v@s3")
        import_file(c, os.path.join(c.dir, "small"), "test/copy")
        for s in ("a", "b", "s0", "s3"):
            same(uri(c, f"v@{s}"), uri(c, f"copy@{s}", node=2))
        qemu_io(uri(c, "copy", node=3), "write -P 9 0 1M", "read -P 9 0 1M", "read -P 6 8M 4k", "read -P 5 8196k 60k")
        for name in ("v", "copy", "copy@s1"):
            c.verify(f"test/{name}")
        return f"streams of {[s // MIB for s in sizes]} MiB, and {small['data_bytes'] // 1024} KiB"


def broken():
    """Streams that are cut, changed or do not fit leave no snapshot; the right one still works afterwards."""
    with Cluster() as c:
        c.cli("pool", "create", "test", "--replicas", "3")
        c.cli("volume", "create", "test/v", "--size", "64M")
        qemu_io(uri(c, "v"), "write -P 1 0 8M", "flush")
        c.cli("snapshot", "create", "test/v@a")
        qemu_io(uri(c, "v"), "write -P 2 4M 8M", "flush")
        c.cli("snapshot", "create", "test/v@b")
        full, more, bad = (os.path.join(c.dir, n) for n in ("full", "more", "bad"))
        export(c, full, "test/v@a")
        export(c, more, "test/v@b", "--since", "test/v@a")
        rnd = random.Random(1)
        for path, name, snap in ((full, "test/copy", "a"), (more, "test/copy", "b")):
            data = open(path, "rb").read()
            for k in range(6):
                cut = data[:rnd.randrange(len(data))] if k < 3 else bytearray(data)
                if k >= 3:
                    cut[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)
                with open(bad, "wb") as f:
                    f.write(cut)
                said = import_file(c, bad, name, ok=False)
                check("stream" in said, f"no good error: {said}")
                check(not has_snapshot(c, f"{name}@{snap}"), f"{name}@{snap} exists")
            import_file(c, path, name)
            same(uri(c, f"v@{snap}"), uri(c, f"copy@{snap}", node=2))
        check("newer" in import_file(c, more, "test/copy@again", ok=False), "twice the same difference")
        check("exists" in import_file(c, full, "test/copy@x", ok=False), "a full stream onto a volume")
        import_file(c, full, "test/other")
        qemu_io(uri(c, "other"), "write -P 3 20M 4k", "flush")
        check("changed" in import_file(c, more, "test/other", ok=False), "onto a volume that was written to")
        c.cli("snapshot", "rollback", "test/other@a", "--yes")
        import_file(c, more, "test/other")
        same(uri(c, "v@b"), uri(c, "other"))
        r = c.cli("snapshot", "export", "test/v@none", ok=False)
        check(r.returncode == 3, f"an unknown snapshot: {r.returncode} {r.stderr}")
        for name in ("v", "copy", "other"):
            for s in ("a", "b"):
                c.cli("snapshot", "delete", f"test/{name}@{s}", "--yes")
            c.cli("volume", "delete", f"test/{name}", "--yes")
        wait_for("all space is free again", lambda: c.cli_json("cluster", "status")["used_bytes"] == 0, 60)


def kill():
    """The importer is killed, then access servers and a chunk server while it runs: nothing half is left."""
    with Cluster() as c:
        c.cli("pool", "create", "test", "--replicas", "3")
        c.cli("volume", "create", "test/v", "--size", "512M")
        qemu_io(uri(c, "v"), *[f"write -P {i + 1} {i * 32}M 32M" for i in range(12)], "flush")
        c.cli("snapshot", "create", "test/v@a")
        stream = os.path.join(c.dir, "stream")
        export(c, stream, "test/v@a")
        with open(stream, "rb") as f:
            p = subprocess.Popen(cli_argv(c, "snapshot", "import", "test/copy"), stdin=f, stdout=subprocess.DEVNULL)
            wait_for("the import has begun", lambda: c.cli("volume", "show", "test/copy", ok=False).returncode == 0, 30)
            p.kill()
            p.wait()
        if not has_snapshot(c, "test/copy@a"):
            qemu_io(uri(c, "copy"), "write -P 1 0 4k", ok=False)
            shown = c.cli_json("volume", "show", "test/copy")
            check(shown["importing"], f"a half volume is not marked: {shown}")
            with open(stream, "rb") as f:
                p = subprocess.Popen(cli_argv(c, "snapshot", "import", "test/copy"), stdin=f,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for node, role in ((1, "access"), (2, "chunk"), (3, "access")):
                    time.sleep(0.2)
                    c.dev("kill", str(node), role)
                    time.sleep(0.2)
                    c.dev("start", str(node), role)
                err = p.communicate(timeout=120)[1]
            check(p.returncode == 0, f"the import failed: {err}")
        same(uri(c, "v@a", node=2), uri(c, "copy@a", node=2))
        c.wait_in_sync()
        c.verify("test/copy")


if __name__ == "__main__":
    sys.exit(main({"chain": chain, "broken": broken, "kill": kill}))
