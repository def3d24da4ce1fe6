#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The NBD front end of a cluster, judged by third-party clients: QEMU's tools, libnbd's, fio; over a
UNIX socket and TCP, with several connections, and while a chunk server is killed."""
import json
import os
import pathlib
import shutil
import socket
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


def certificates(directory, address):
    """An authority, a server's and a client's certificate of it, and a client of an authority of its own, each as
    QEMU and libnbd want them: a folder with fixed names."""
    def openssl(*words):
        run("openssl", *words)

    def make(name, who, by=None, extensions=""):
        at = os.path.join(directory, name)
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{at}-key.pem",
                "-out", f"{at}.csr", "-subj", f"/CN={who}")
        with open(f"{at}.ext", "w") as f:
            f.write(extensions)
        signer = ["-CA", f"{by}-cert.pem", "-CAkey", f"{by}-key.pem", "-CAcreateserial"] if by else \
            ["-signkey", f"{at}-key.pem"]
        openssl("x509", "-req", "-in", f"{at}.csr", "-out", f"{at}-cert.pem", "-days", "2", "-extfile", f"{at}.ext",
                *signer)
        return at

    def folder(name, ca, own=None):
        path = os.path.join(directory, name)
        os.mkdir(path)
        shutil.copy(f"{ca}-cert.pem", f"{path}/ca-cert.pem")
        for kind in ("cert", "key") if own else ():
            shutil.copy(f"{own}-{kind}.pem", f"{path}/client-{kind}.pem")
        return path
    authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
    ca, other = make("ca", "test-ca", extensions=authority), make("other", "other-ca", extensions=authority)
    server = make("server", "zbs", ca, f"subjectAltName=IP:{address.rsplit(':', 1)[0]}\nextendedKeyUsage=serverAuth\n")
    client = make("client", "client-1", ca, "extendedKeyUsage=clientAuth\n")
    foreign = make("foreign", "client-2", other, "extendedKeyUsage=clientAuth\n")
    return {"server": server, "ca": f"{ca}-cert.pem", "client": folder("of-client", ca, client),
            "foreign": folder("of-foreign", ca, foreign), "nobody": folder("of-nobody", ca),
            "mistrusting": folder("of-mistrusting", other, client)}


def tls_restart(c, certs, mode, ca):
    """The first access server anew, with TLS."""
    c.dev("term", "1", "access")
    path = os.path.join(c.cluster, "node1", "access", "access.conf")
    with open(path) as f:
        lines = [line for line in f.read().splitlines() if not line.startswith("nbd_tls")]
    lines += [f"nbd_tls = {mode}", f"nbd_tls_cert = {certs['server']}-cert.pem",
              f"nbd_tls_key = {certs['server']}-key.pem"] + ([f"nbd_tls_ca = {certs['ca']}"] if ca else [])
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    c.dev("start", "1", "access")
    host, port = c.env()["nodes"][0]["nbd"].rsplit(":", 1)
    wait_for("the access server", lambda: socket.socket().connect_ex((host, int(port))) == 0, 30)


def tls():
    """QEMU's tools and libnbd's under TLS: optional, then required with certificates of clients."""
    with Cluster() as c:
        volume(c, "v", "64M")
        volume(c, "w", "64M")
        address = c.env()["nodes"][0]["nbd"]
        host, port = address.rsplit(":", 1)
        certs = certificates(c.dir, address)
        log = pathlib.Path(c.env()["nodes"][0]["access"]["log"])
        image, back = make_image(c, "image", 64), os.path.join(c.dir, "back")

        def nbds(name, who):
            return f"nbds://{address}/test/{name}?tls-certificates={certs[who]}"

        def qemu_tool(tool, who, name, *words, ok=True):
            options = f"driver=nbd,server.type=inet,server.host={host},server.port={port},export=test/{name},tls-creds=t"
            return run(*tool, "--object", f"tls-creds-x509,id=t,endpoint=client,dir={certs[who]}", "--image-opts",
                       *words, options, ok=ok)
        check(run("nbdinfo", nbds("v", "client"), ok=False).returncode != 0, "TLS where it is off")
        tls_restart(c, certs, "allowed", ca=False)
        info = json.loads(run("nbdinfo", "--no-content", "--json", nbds("v", "nobody")).stdout)
        check(info["TLS"] and info["structured"], info)
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri(c, "v", tcp=True))
        check(run("nbdinfo", nbds("v", "mistrusting"), ok=False).returncode != 0, "a server of another authority")
        wait_for("the refusal", lambda: "during the handshake" in log.read_text(), 30)  # without a word
        tls_restart(c, certs, "required", ca=True)
        check(run("nbdinfo", uri(c, "v", tcp=True), ok=False).returncode != 0, "plain text where TLS is required")
        check(run("nbdinfo", "--list", f"nbd://{address}", ok=False).returncode != 0, "a list in plain text")
        for who in ("nobody", "foreign"):  # GnuTLS keeps a certificate to itself that we did not ask for
            check(run("nbdinfo", nbds("v", who), ok=False).returncode != 0, f"the client {who}")
        wait_for("the refusals", lambda: log.read_text().count("the peer shows no certificate") >= 2, 30)
        run("nbdcopy", "--connections=4", "--requests=64", nbds("v", "client"), nbds("w", "client"))
        run("nbdcopy", "--connections=2", nbds("w", "client"), back)
        run("cmp", image, back)
        check('client="CN=client-1"' in log.read_text(), "who the client is")
        qemu_tool(["qemu-img", "info"], "client", "v")
        check(qemu_tool(["qemu-img", "info"], "foreign", "v", ok=False).returncode != 0, "QEMU with a foreign one")
        out = qemu_tool(["qemu-io"], "client", "v", "-c", "write -P 7 1M 3M", "-c", "flush", "-c", "read -P 7 1M 3M",
                        "-c", "discard 8M 4M", "-c", "read -P 0 8M 4M")
        check("failed" not in out.stdout + out.stderr, f"{out.stdout}{out.stderr}")
        run("qemu-io", "-f", "raw", "-c", "read -P 7 1M 3M", uri(c, "v"))  # the UNIX socket stays as it is
        c.verify("test/v")


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
         "access_kill": access_kill, "access_stop": access_stop, "two_ways": two_ways, "tls": tls}

if __name__ == "__main__":
    sys.exit(main(CASES))
