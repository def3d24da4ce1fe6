#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that vanish: a thousand connections each of NFS, iSCSI and NBD, dropped at random points of what a real
client says. Descriptors and memory of the access server return to where they were, and it goes on serving."""
import concurrent.futures
import os
import random
import re
import socket
import struct
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")]
from cluster import Cluster, check, main, run, wait_for  # noqa: E402
from nfs_client import Client  # noqa: E402
from test_bad_input import Recorder  # noqa: E402

MIB = 1024 * 1024
TIMES = 1000
AT_ONCE = 32
MEMORY_MORE = 4 * MIB  # a thousand connections that each left their buffers behind would be ten times that


def drop(address, talk, rng):
    """Says the beginning of what a client says, in pieces, perhaps hears an answer, and is gone."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as s:
        s.settimeout(0.2)
        until, at = rng.randrange(len(talk) + 1), 0
        try:
            while at < until:
                more = min(until - at, rng.choice([1, 48, 1000, 20000, 200000]))
                s.sendall(talk[at:at + more])
                at += more
                if rng.random() < 0.2:
                    s.recv(rng.choice([1, 100, 65536]))
            if rng.random() < 0.3:
                s.shutdown(socket.SHUT_WR)
                s.recv(65536)
        except OSError:  # it waits for us, or has closed the connection
            pass
        if rng.random() < 0.5:  # nothing is said at the end but that all is over
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drop_many(address, talk, seed):
    rng = random.Random(seed)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda k: drop(address, talk, random.Random(k)), [rng.random() for _ in range(TIMES)]))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"RssAnon:\s+(\d+) kB", f.read())[1]) * 1024


def dropped(c, name, talk):
    """The first thousand make the server's pools as large as they get."""
    node = c.env()["nodes"][0]
    pid, address = node["access"]["pid"], node[name]
    idle = descriptors(pid)
    drop_many(address, talk, 1)
    wait_for("the end of all connections", lambda: descriptors(pid) <= idle, 60)
    before = memory(pid)
    drop_many(address, talk, 2)
    wait_for("the end of all connections", lambda: descriptors(pid) <= idle, 60)
    wait_for(f"memory as before, {before >> 20} MiB", lambda: memory(pid) < before + MEMORY_MORE, 30)
    check(c.env()["nodes"][0]["access"]["pid"] == pid, "the access server did not survive")
    return f"{2 * TIMES} connections, {len(talk)} bytes of talk, {(memory(pid) - before) / 1024:+.0f} KiB"


def cluster():
    return Cluster(nodes=1, device_size="3G")


def nfs():
    with cluster() as c:
        c.cli("pool", "create", "test", "--replicas", "1")
        c.cli("nfs", "share", "create", "files", "--pool", "test", "--client", "*,no_root_squash")
        address = c.env()["nodes"][0]["nfs"]
        recorder = Recorder(address)
        client = Client([recorder.address], "files")
        handle = client.create("f")
        for k in range(20):
            client.write(handle, k * 70000, os.urandom(1000 if k % 4 == 0 else 70000), stable=0)
            client.read(handle, 0, 100000)
        client.truncate(handle, 5000)
        client.lookup("f")
        client.close()
        said = dropped(c, "nfs", recorder.end())
        client = Client([address], "files")
        handle = client.lookup("f")
        client.write(handle, 0, b"it still serves")
        check(client.read(handle, 0, 15) == b"it still serves", "what was written")
        client.close()
        return said


def iscsi():
    with cluster() as c:
        url = c.export("v", size="256M", replicas=1)[0]
        address = c.env()["nodes"][0]["iscsi"]
        recorder = Recorder(address)
        run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "read 0 1M", "-c", "write -P 2 4096 8k",
            url.replace(address, recorder.address))
        said = dropped(c, "iscsi", recorder.end())
        run("qemu-io", "-f", "raw", "-c", "write -P 3 0 1M", "-c", "read -P 3 0 1M", url)
        c.verify("test/v")
        return said


def nbd():
    with cluster() as c:
        c.cli("pool", "create", "test", "--replicas", "1")
        c.cli("volume", "create", "test/v", "--size", "256M")
        address = c.env()["nodes"][0]["nbd"]
        recorder = Recorder(address)
        run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "read 0 1M", "-c", "write -P 2 4096 8k", "-c",
            "discard 1M 1M", f"nbd://{recorder.address}/test/v")
        said = dropped(c, "nbd", recorder.end())
        run("qemu-io", "-f", "raw", "-c", "write -P 3 0 1M", "-c", "read -P 3 0 1M", f"nbd://{address}/test/v")
        c.verify("test/v")
        return said


if __name__ == "__main__":
    sys.exit(main({"nfs": nfs, "iscsi": iscsi, "nbd": nbd}))
