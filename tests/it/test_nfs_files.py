#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files served by NFS, judged by third-party clients (libnfs, QEMU through it) and by a client that goes
on through another access server when one is killed."""
import os
import pathlib
import random
import subprocess
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")]
from cluster import Cluster, check, main, run  # noqa: E402
from nfs_client import Client, forward  # noqa: E402

MIB = 1024 * 1024


def share(c):
    c.cli("pool", "create", "test", "--replicas", "3")
    c.cli("nfs", "share", "create", "files", "--pool", "test", "--client", "*,no_root_squash")


def nodes(c):
    return c.env()["nodes"]


def url(c, path, node=1):
    """For libnfs, which is told the ports."""
    host, port = nodes(c)[node - 1]["nfs"].rsplit(":", 1)
    return f"nfs://{host}/files/{path}?nfsport={port}&mountport={port}"


# ---- small and large files, through all access servers ----

def copies():
    sizes = [0, 1, 1000, 4096, 4097, 100000, 8 * MIB + 777]
    with Cluster() as c:
        share(c)
        for size in sizes:
            data = os.urandom(size)
            pathlib.Path(c.dir, "local").write_bytes(data)
            run("nfs-cp", os.path.join(c.dir, "local"), url(c, f"f{size}", node=1 + size % 3))
            for node in (1, 2, 3):
                r = subprocess.run(["nfs-cat", url(c, f"f{size}", node)], capture_output=True, timeout=60)
                check(r.returncode == 0 and r.stdout == data, f"{size} bytes through node {node}: {r.stderr[-500:]}")
        volumes = [v["name"] for v in c.cli_json("volume", "list")]
        check(len(volumes) == sum(size > 4096 for size in sizes), f"volumes of large files only: {volumes}")
        listed = run("nfs-ls", url(c, "", 2)).stdout
        check(all(f" f{size}\n" in listed for size in sizes), listed)


# ---- QEMU, which asks the portmapper at its own port ----

def qemu():
    with Cluster() as c:
        share(c)
        for n in nodes(c):
            host, port = n["portmap"].rsplit(":", 1)
            forward((host, 111), (host, int(port)))

        def disk(name, node=1):
            return f"nfs://{nodes(c)[node - 1]['address']}/files/{name}"

        image = os.path.join(c.dir, "image")
        with open(image, "wb") as f:
            for i in range(0, 96, 3):
                f.seek(i * MIB)
                f.write(os.urandom(MIB))
            f.truncate(96 * MIB)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-W", "-m", "16", image, disk("image"))
        for node in (1, 2, 3):
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, disk("image", node))
        run("qemu-img", "create", "-f", "raw", disk("empty"), "64M")
        io = run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -P 2 512 512",
                 "-c", "write -P 3 1234567 8191", "-c", "flush", "-c", "read -P 1 0 512", "-c", "read -P 2 512 512",
                 "-c", "read -P 3 1234567 8191", "-c", "read -P 0 2M 1M", "-c", "read -P 0 63M 1M", disk("empty"))
        check("failed" not in io.stdout + io.stderr, f"{io.stdout}{io.stderr}")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, disk("image.qcow2", node=2))
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, disk("image.qcow2", node=3))


# ---- an access server is killed ----

def change(rng, client, handle, model):
    """A random write, or a truncation, done to the file and to the model of it."""
    if rng.random() < 0.1:
        size = rng.choice([0, 100, 5000, len(model) // 2])
        client.truncate(handle, size)
        del model[size:]
        model.extend(bytes(size - len(model)))
        return
    offset = rng.randrange(0, rng.choice([4000, 2 * MIB]))
    data = rng.randbytes(rng.choice([1, 700, 4096, 70000]))
    client.write(handle, offset, data, stable=rng.choice([0, 2]))
    model.extend(bytes(max(0, offset - len(model))))
    model[offset:offset + len(data)] = data


def content(client, handle):
    data = b""
    while more := client.read(handle, len(data), MIB):
        data += more
    return data


def failover():
    rng = random.Random(1)
    with Cluster() as c:
        share(c)
        servers = [n["nfs"] for n in nodes(c)]
        client = Client(servers, "files")
        handles = [client.create(f"f{k}") for k in range(4)]
        models = [bytearray() for _ in handles]
        for k in range(600):
            if k in (150, 300, 450):
                c.dev("kill", str(servers.index(client.servers[0]) + 1), "access")
            if k in (250, 400):
                c.dev("start", str(1 + (k == 400)), "access")
            which = rng.randrange(len(handles))
            change(rng, client, handles[which], models[which])
        check(client.moved >= 3, "the client was not moved")
        other = Client(client.servers, "files")
        for k, model in enumerate(models):
            for viewer in (client, other):
                check(content(viewer, viewer.lookup(f"f{k}")) == model, f"file {k} has other bytes")
        client.close()
        other.close()


if __name__ == "__main__":
    sys.exit(main({"copies": copies, "qemu": qemu, "failover": failover}))
