#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input from every side: garbage on every port, devices that carry something else, wrong
configuration, a full device, ZooKeeper absent at start. Each gets a clear message; nothing crashes,
hangs or loses data."""
import os
import random
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, Failed, check, main, run, wait_for  # noqa: E402


def program(name):
    return os.path.join(BIN, name)


def send_garbage(address, payload):
    """Sends, then reads until the server closes or a second passes."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as s:
        s.settimeout(1)
        try:
            s.sendall(payload)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except (socket.timeout, ConnectionError, BrokenPipeError):
            pass


def garbage_on_ports():
    rng = random.Random(7)
    with Cluster(nodes=1, device_size="3G") as c:
        urls = c.export("v", size="256M", replicas=1)
        view = c.env()
        node = view["nodes"][0]
        pids = {s: node[s]["pid"] for s in ("meta", "chunk", "access")}
        ports = [node[s]["rpc"] for s in pids] + [node["iscsi"]]
        load = c.load(urls, 6, blocks=4096, depth=4)
        frames = [b"", b"\x00" * 48, b"\xff" * 4096, b"GET / HTTP/1.0\r\n\r\n", b"\x43" + b"\x00" * 47]
        for _ in range(40):
            n = rng.choice([1, 7, 48, 64, 1000, 70000])
            frames.append(rng.randbytes(n))
        for port in ports:
            for f in frames:
                send_garbage(port, f)
        c.load_result(load)
        after = c.env()["nodes"][0]
        for s, pid in pids.items():
            check(after[s]["pid"] == pid and after[s]["state"] == "up", f"{s} did not survive")
        c.verify("test/v")
        return f"{len(frames)} times garbage on {len(ports)} ports during a verified load"


def refused(argv, words, seconds=15):
    """The program must end by itself, not by a signal, and say why."""
    try:
        r = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(argv)}: still running after {seconds} s")
    text = r.stdout + r.stderr
    check(r.returncode > 0, f"{' '.join(argv)}: ended with {r.returncode}: {text[-500:]}")
    check(any(w in text for w in words), f"{' '.join(argv)}: none of {words} in: {text[-500:]}")
    return text


def foreign_devices():
    with tempfile.TemporaryDirectory(prefix="zbs-it-", dir="/var/tmp") as d:
        path = os.path.join(d, "disk")

        def fresh(size=3 << 30):
            with open(path, "wb") as f:
                f.truncate(size)
        fmt = [program("zbs-chunkd"), "--format", path]
        fresh()
        run("mkfs.ext4", "-q", "-F", path)
        refused(fmt, ["ext4"])
        fresh()
        with open(path, "r+b") as f:
            f.write(os.urandom(1 << 20))
        refused(fmt, ["not blank", "carries", "data", "zero"])
        fresh(1 << 20)
        refused(fmt, ["small", "size", "least"])
        fresh()
        run(*fmt)
        refused(fmt, ["ZBS", "zbs", "formatted", "carries", "blank"])  # its own, too: data may be on it
        # Starting on devices that are not ours.
        conf = os.path.join(d, "chunk.conf")
        os.mkdir(os.path.join(d, "data"))
        with open(conf, "w") as f:
            f.write(f"[chunk]\nlisten = 127.0.0.1:0\ndata_dir = {d}/data\nmeta = 127.0.0.1:1\nhost = h\ndisks = {path}\n")
        start = [program("zbs-chunkd"), "--config", conf]
        fresh()
        refused(start, ["format", "superblock"])
        with open(path, "r+b") as f:
            f.write(os.urandom(4 << 20))
        refused(start, ["format", "superblock"])
        fresh()
        run("mkfs.ext4", "-q", "-F", path)
        refused(start, ["format", "superblock", "ext4"])
        os.unlink(path)
        refused(start, ["No such file"])
    return "ext4, random bytes, zeroes, too small, missing, formatted twice"


WRONG = {  # key: a value that it must refuse
    "listen": "not-an-address", "listen_unix": "no-scheme", "data_dir": "/proc/nothing/here", "meta": "x:y:z",
    "peers": "x:y:z", "host": "", "name": "a/b", "zookeeper": "zk.example.org:2181", "zk_root": "no-slash",
    "disks": "/dev/does-not-exist", "iscsi_listen": "1.2.3.4",
}


def wrong_configuration():
    tried = 0
    with Cluster(nodes=1, device_size="3G") as c:
        for service, name in (("meta", "zbs-metad"), ("chunk", "zbs-chunkd"), ("access", "zbs-accessd")):
            c.dev("term", "1", service)
            path = os.path.join(c.cluster, "node1", service, f"{service}.conf")
            with open(path) as f:
                lines = f.read().splitlines()
            keys = [line.split("=")[0].strip() for line in lines if "=" in line]
            bad = os.path.join(c.dir, "bad.conf")

            def attempt(text, words):
                with open(bad, "w") as f:
                    f.write(text)
                refused([program(name), "--config", bad], words)
            for key in keys:
                changed = [f"{key} = {WRONG[key]}" if line.split("=")[0].strip() == key else line for line in lines]
                attempt("\n".join(changed) + "\n", [key, WRONG[key] or key])
                tried += 1
            attempt("\n".join(lines) + "\nno_such_key = 1\n", ["no_such_key"])
            attempt("[nonsense]\na = b\n", ["nonsense", "bad.conf"])
            attempt("\x00\xff garbage", ["bad.conf"])
            refused([program(name), "--config", "/does/not/exist"], ["/does/not/exist"])
            tried += 4
    return f"{tried} wrong configurations refused"


def full_device():
    """A volume larger than the device: writes fail with a clear sense, data survives, deletes work."""
    with Cluster(nodes=1, device_size="2G") as c:
        c.cli("pool", "create", "test", "--replicas", "1")
        c.cli("volume", "create", "test/big", "--size", "8G")
        c.cli("volume", "create", "test/small", "--size", "64M")
        urls = {v: c.cli_json("iscsi", "export", f"test/{v}")["urls"][0] for v in ("big", "small")}
        io = ["qemu-io", "-f", "raw"]
        run(*io, "-c", "write -P 0x11 0 16M", urls["small"])
        r = run(*io, *[w for i in range(0, 8192, 64) for w in ("-c", f"write -P 0x22 {i}M 64M")], urls["big"], ok=False,
                timeout=600)
        check("No space left" in r.stdout + r.stderr or "error" in (r.stdout + r.stderr).lower(), "no error when full")
        out = run(*io, "-c", "read -P 0x11 0 16M", urls["small"]).stdout
        check("Pattern verification failed" not in out, "data of another volume changed on a full device")
        c.cli("iscsi", "unexport", "test/big")
        c.cli("volume", "delete", "test/big", "--yes")

        def writable():
            r = run(*io, "-c", "write -P 0x33 32M 16M", urls["small"], ok=False)
            return r.returncode == 0 and "rror" not in r.stdout + r.stderr
        wait_for("space after the deletion", writable, 60)
        run(*io, "-c", "read -P 0x33 32M 16M", "-c", "read -P 0x11 0 16M", urls["small"])
    return "full, other data intact, usable again after a deletion"


def zookeeper_absent():
    with Cluster(nodes=1, device_size="3G") as c:
        for s in ("access", "chunk", "meta"):
            c.dev("term", "1", s)
        c.dev("kill", "zookeeper", "1")
        for s in ("access", "chunk", "meta"):
            c.dev("start", "1", s)
        log = c.env()["nodes"][0]["meta"]["log"]

        def said():
            with open(log, errors="replace") as f:
                text = f.read()
            return "zookeeper" in text.lower().split("stopp")[-1]
        wait_for("a message about ZooKeeper in meta's log", said, 20)
        r = c.cli("cluster", "status", ok=False)
        check(r.returncode == 4, f"zbs-cli without a leader: exit {r.returncode}: {r.stderr}")
        check(all(c.env()["nodes"][0][s]["state"] == "up" for s in ("meta", "chunk", "access")), "a service gave up")
        c.dev("start", "zookeeper", "1")
        wait_for("the cluster by itself", lambda: c.cli("cluster", "status", ok=False).returncode == 0, 30)
        urls = c.export("v", size="128M", replicas=1)
        c.load_result(c.load(urls, 2, blocks=1024, depth=4))
    return "services waited, said so, and went on"


CASES = {f.__name__: f for f in (garbage_on_ports, foreign_devices, wrong_configuration, full_device, zookeeper_absent)}

if __name__ == "__main__":
    sys.exit(main(CASES))
