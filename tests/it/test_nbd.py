#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The NBD front end of a cluster, judged by third-party clients: QEMU's tools, libnbd's, fio; over a
UNIX socket and TCP, with several connections, and while a chunk server is killed."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402

MIB = 1024 * 1024


def volume(c, name, size):
    if c.cli("pool", "show", "test", ok=False).returncode:
        c.cli("pool", "create", "test", "--replicas", "3")
    c.cli("volume", "create", f"test/{name}", "--size", size)


def uri(c, name, node=1, tcp=False):
    n = c.env()["nodes"][node - 1]
    if tcp:
        return f"nbd://{n['nbd']}/test/{name}"
    return f"nbd+unix:///test/{name}?socket={n['nbd_unix']}"


def make_image(c, name, mib, stride=3):
    """A sparse file whose every stride-th MiB has data of its own."""
    path = os.path.join(c.dir, name)
    with open(path, "wb") as f:
        for i in range(0, mib, stride):
            f.seek(i * MIB)
            f.write(os.urandom(MIB))
        f.truncate(mib * MIB)
    return path


def describe():
    """Negotiation, as libnbd sees it."""
    with Cluster() as c:
        volume(c, "a", "256M")
        volume(c, "b", "1G")
        for tcp in (False, True):
            info = json.loads(run("nbdinfo", "--no-content", "--json", uri(c, "b", tcp=tcp)).stdout)
            e = info["exports"][0]
            check(e["export-size"] == 1024 * MIB and e["contexts"] == ["base:allocation"], info)
            check(info["structured"] and not info["TLS"], info)
            check(e["can_multi_conn"] and e["can_fua"] and e["can_trim"] and e["can_fast_zero"] and
                  not e["is_read_only"], info)
            sizes = [e[f"block_size_{kind}"] for kind in ("minimum", "preferred", "maximum")]
            check(sizes == [512, 4096, 32 * MIB], info)
        socket = c.env()["nodes"][0]["nbd_unix"]
        listed = json.loads(run("nbdinfo", "--no-content", "--json", "--list", f"nbd+unix:///?socket={socket}").stdout)
        names = [e["export-name"] for e in listed["exports"]]
        check(names == ["test/a", "test/b"], names)
        check(run("nbdinfo", uri(c, "none"), ok=False).returncode != 0, "an export that there is not")
        check(run("nbdinfo", "nbds" + uri(c, "a", tcp=True)[3:], ok=False).returncode != 0, "there is no TLS")
        check("hole,zero" in run("nbdinfo", "--map", uri(c, "a")).stdout, "the map of a new volume")


def qemu():
    with Cluster() as c:
        volume(c, "v", "256M")
        u = uri(c, "v")
        image = make_image(c, "image", 256)
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16", image, u)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(c, "v", node=2))
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(c, "v", node=3, tcp=True))
        back = os.path.join(c.dir, "back.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", u, back)
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, back)
        check(json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", u).stdout), "qemu-img map")
        io = run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -f -P 2 512 512",
                 "-c", "write -z 4k 8k", "-c", "write -z -u 64k 64k", "-c", "discard 128k 128k", "-c", "flush",
                 "-c", "read -P 1 0 512", "-c", "read -P 2 512 512", "-c", "read -P 1 1k 3k", "-c", "read -P 0 4k 8k",
                 "-c", "read -P 0 64k 64k", "-c", "read -P 0 128k 128k", "-c", "read -P 1 256k 768k", u)
        check("failed" not in io.stdout + io.stderr, f"{io.stdout}{io.stderr}")
        c.verify("test/v")


def libnbd():
    """nbdcopy with several connections, each way and from volume to volume."""
    with Cluster() as c:
        volume(c, "v", "256M")
        volume(c, "w", "256M")
        image, back = make_image(c, "image", 256), os.path.join(c.dir, "back")
        run("nbdcopy", "--connections=4", "--requests=64", "--flush", image, uri(c, "v"))
        run("nbdcopy", "--connections=4", uri(c, "v", node=2, tcp=True), uri(c, "w", node=3))
        run("nbdcopy", "--connections=2", uri(c, "w"), back)
        run("cmp", image, back)
        check(os.stat(back).st_blocks * 512 < 200 * MIB, "the copy is not sparse")


def fio(c, name, seconds, *more):
    argv = ["fio", "--name=v", "--ioengine=nbd", f"--uri={uri(c, name)}", "--size=128M", "--bs=4k", "--iodepth=32",
            "--rw=randwrite", "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--time_based",
            f"--runtime={seconds}", "--output-format=json", *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=c.dir)


def chunk_kill():
    """Verified load by fio, a chunk server killed under it and started again; then replicas are equal."""
    with Cluster() as c:
        volume(c, "v", "256M")
        p = fio(c, "v", int(os.environ.get("ZBS_SECONDS", "12")))
        c.loads.append(p)
        image = make_image(c, "image", 64, stride=1)
        volume(c, "w", "64M")
        c.dev("kill", "2", "chunk")
        run("nbdcopy", "--connections=4", "--flush", image, uri(c, "w"))
        c.dev("start", "2", "chunk")
        out, err = p.communicate(timeout=120)
        check(p.returncode == 0, f"fio: {out[-2000:]}{err[-2000:]}")
        job = json.loads(out[out.index("{"):])["jobs"][0]
        check(job["error"] == 0 and job["write"]["total_ios"] > 0 and job["read"]["total_ios"] > 0, job)
        c.wait_in_sync()
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(c, "w", node=3))
        c.verify("test/w")
        v = c.verify("test/v")
        return (f"{job['write']['total_ios']} writes, {job['read']['total_ios']} verified, "
                f"{v['pages']} pages equal")


def reconnect(fault):
    """A copy over one access server, to which something happens: QEMU connects again and sends again."""
    with Cluster() as c:
        volume(c, "v", "256M")
        image = make_image(c, "image", 256, stride=1)
        socket = c.env()["nodes"][0]["nbd_unix"]
        target = (f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={socket},"
                  "file.export=test/v,file.reconnect-delay=60")
        p = subprocess.Popen(["qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", "-r", "24M", image,
                              target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        c.loads.append(p)
        wait_for("the first extent", lambda: c.cli_json("volume", "show", "test/v")["extents"] > 0, 30)
        check(p.poll() is None, "the copy was over before the fault")
        fault(c)
        out, _ = p.communicate(timeout=120)
        check(p.returncode == 0, f"qemu-img: {out}")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(c, "v", node=2))
        c.verify("test/v")


def access_kill():
    def fault(c):
        c.dev("kill", "1", "access")
        c.dev("start", "1", "access")
    reconnect(fault)


def access_stop():
    """Stopped until its session is over: what its connections hold must not be executed any more."""
    def fault(c):
        c.dev("stop", "1", "access")
        wait_for("the end of the session", lambda: len(c.cli_json("access", "list")) == 2, 30)
        c.dev("cont", "1", "access")
        log = pathlib.Path(c.env()["nodes"][0]["access"]["log"])
        wait_for("the end of the connections", lambda: "stream.drop server=nbd" in log.read_text(), 30)
    reconnect(fault)


def two_ways():
    """One volume over NBD and iSCSI at once: each sees what the other wrote."""
    with Cluster() as c:
        url = c.export("v", size="64M")[0]
        image = make_image(c, "image", 64)
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, url)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(c, "v", node=2))
        run("qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", uri(c, "v"))
        out = run("qemu-io", "-f", "raw", "-c", "read -P 9 1M 1M", url).stdout
        check("failed" not in out, out)


CASES = {"describe": describe, "qemu": qemu, "libnbd": libnbd, "chunk_kill": chunk_kill,
         "access_kill": access_kill, "access_stop": access_stop, "two_ways": two_ways}

if __name__ == "__main__":
    sys.exit(main(CASES))
