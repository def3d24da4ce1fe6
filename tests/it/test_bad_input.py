#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input from every side: garbage on every port, devices that carry something else, wrong
configuration, a full device, ZooKeeper absent at start. Each gets a clear message; nothing crashes,
hangs or loses data."""
import concurrent.futures
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, Failed, check, main, run, wait_for  # noqa: E402


def program(name):
    return os.path.join(BIN, name)


def send_garbage(address, payload):
    """Sends, then reads until the server closes or a second passes. Returns whether it closed."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as s:
        s.settimeout(1)
        try:
            s.sendall(payload)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except socket.timeout:
            return False
        except OSError:  # closed on us, as it should be
            pass
    return True


class Recorder:
    """Stands between a client and a server; keeps what the client says."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.to = (host, int(port))
        self.said = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.to)
            threading.Thread(target=self.copy, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, False), daemon=True).start()

    def copy(self, source, sink, keep):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if keep:
                    self.said += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def end(self):
        self.listener.close()
        check(len(self.said) > 48, "nothing was recorded")
        return self.said


def recorded(c, node):
    """What a real RPC client and a real initiator send first."""
    rpc, iscsi = Recorder(node["meta"]["rpc"]), Recorder(node["iscsi"])
    conf = os.path.join(c.dir, "recorded.conf")
    with open(conf, "w") as f:
        f.write(f"[cluster]\nmeta = {rpc.address}\n")
    run(program("zbs-cli"), "--config", conf, "volume", "list")
    iqn = c.cli_json("iscsi", "show", "test/v")["iqn"]
    run("iscsi-inq", f"iscsi://{iscsi.address}/{iqn}/0")
    return rpc.end(), iscsi.end()


def spoiled(talk, rng):
    """Cut after every byte; each byte changed in turn; then garbage instead of the rest."""
    for n in range(len(talk)):
        yield talk[:n]
    for n in range(len(talk)):
        yield talk[:n] + bytes([talk[n] ^ (1 << rng.randrange(8))]) + talk[n + 1:]
    for n in range(0, len(talk), 16):
        yield talk[:n] + rng.randbytes(256)


def garbage_on_ports():
    rng = random.Random(7)
    with Cluster(nodes=1, device_size="3G") as c:
        urls = c.export("v", size="256M", replicas=1)
        view = c.env()
        node = view["nodes"][0]
        pids = {s: node[s]["pid"] for s in ("meta", "chunk", "access")}
        ports = [node[s]["rpc"] for s in pids] + [node["iscsi"]]
        rpc_talk, iscsi_talk = recorded(c, node)
        stop = os.path.join(c.dir, "stop")
        load = c.load(urls, 600, blocks=4096, depth=4, stop_file=stop)
        frames = [b"", b"\x00" * 48, b"\xff" * 4096, b"GET / HTTP/1.0\r\n\r\n", b"\x43" + b"\x00" * 47]
        for _ in range(40):
            n = rng.choice([1, 7, 48, 64, 1000, 70000])
            frames.append(rng.randbytes(n))
        work = []
        for port in ports:
            own = iscsi_talk if port == node["iscsi"] else rpc_talk
            other = rpc_talk if port == node["iscsi"] else iscsi_talk
            work += [(port, f) for f in [*frames, other, *spoiled(own, rng)]]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            closed = list(pool.map(lambda w: send_garbage(*w), work))
        sent, held = len(closed), closed.count(False)
        check(held < sent / 20, f"{held} of {sent} connections were kept open after their end")
        with open(stop, "w"):
            pass
        c.load_result(load)
        after = c.env()["nodes"][0]
        for s, pid in pids.items():
            check(after[s]["pid"] == pid and after[s]["state"] == "up", f"{s} did not survive")
            size = os.path.getsize(after[s]["log"])
            check(size < 4 << 20, f"{s} wrote {size} bytes to its log")
        c.verify("test/v")
        return (f"{sent} times garbage on {len(ports)} ports during a verified load, {len(rpc_talk)} and "
                f"{len(iscsi_talk)} bytes of real talk spoiled at every byte, {held} slow to close")


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


# What each setting must refuse by its form, before anything is touched. Numbers: out of range.
WRONG = {
    "name": ["", "a/b", "..", "x" * 200], "host": ["", "a/b"], "rack": ["a/b"], "zone": ["."],
    "listen": ["", "not-an-address", "1.2.3.4", "host.example.org:7100", "0.0.0.0:7100", "unix:/x", "1.2.3.4:70000"],
    "listen_unix": ["no-scheme", "unix:relative", "unix:/" + "x" * 200],
    "iscsi_listen": ["1.2.3.4", "[::1]", "portal:3260"], "iscsi_virtual": ["1.2.3.4", "[::1]", "portal:3260"],
    "nbd_listen": ["1.2.3.4", "[::1]", "portal:10809"], "nbd_listen_unix": ["no-scheme", "unix:relative"],
    "nbd_tls": ["", "on", "0", "required,allowed"], "nbd_tls_cert": ["relative", "/", "/a/../b"],
    "nbd_tls_key": ["relative", "/", "/a/../b"], "nbd_tls_ca": ["relative", "/", "/a/../b"],
    "nfs_listen": ["1.2.3.4", "[::1]", "portal:2049"], "portmap_listen": ["1.2.3.4", "[::1]", "portal:111"],
    "meta": ["", "x:y:z", "10.0.0.1:7100,,,nonsense", "10.0.0.1:0", "10.0.0.1:7100,10.0.0.1:7100"],
    "peers": ["x:y:z", "10.0.0.1:7100;10.0.0.2:7100"],
    "zookeeper": ["", "zk.example.org:2181", "10.0.0.1:2181/chroot"],
    "zk_root": ["no-slash", "/", "/a/../b", ""],
    "data_dir": ["relative", "/", ""], "disks": ["sda", "/dev/sda,/dev/sda"],
    "memory": ["1", "lots", "9999T"], "flush_delay": ["5", "1h", "0"], "merge_delay": ["5", "1h", "-1us"],
    "scrub_rate": ["", "x", "-1", "9999T"], "readahead": ["", "x", "-1", "1T"],
    "drain_rate": ["", "x", "-1", "9999T"],
}


def settings_of(name):
    """(section, all keys) that a daemon has, from its own sample."""
    text = run(program(name), "--print-config").stdout
    lines = [line.lstrip("#") for line in text.splitlines() if not line.startswith("# ")]
    section = next(line for line in lines if line.startswith("["))
    return section, [line.split(" = ")[0] for line in lines if " = " in line]


def wrong_configuration():
    tried = 0
    with Cluster(nodes=1, device_size="3G") as c:
        for service in ("meta", "chunk", "access"):
            daemon = program(f"zbs-{service}d")
            c.dev("term", "1", service)
            path = os.path.join(c.cluster, "node1", service, f"{service}.conf")
            with open(path) as f:
                lines = f.read().splitlines()
            bad = os.path.join(c.dir, "bad.conf")

            def attempt(text, *words):
                with open(bad, "wb") as f:
                    f.write(text.encode("latin-1"))
                said = refused([daemon, "--config", bad], words[:1])
                check(all(w in said for w in words), f"{words} not in: {said[-500:]}")

            def without(key):
                return [line for line in lines if line.split("=")[0].strip() != key]
            section, keys = settings_of(f"zbs-{service}d")
            for key in keys:
                for value in WRONG.get(key, ["", "x", "-1", "0", "4294967296"]):
                    text = without(key) + [f"{key} = {value}"]
                    attempt("\n".join(text) + "\n", f"bad.conf:{len(text)}: {section} {key}")
                    tried += 1
                set_already = len(without(key)) != len(lines)
                if set_already and key not in ("peers", "iscsi_listen", "disks", "data_dir", "listen_unix",
                                               "nbd_listen", "nbd_listen_unix", "nfs_listen", "portmap_listen",
                                               "nfs_client_portmap"):
                    if key != "zk_root":
                        attempt("\n".join(without(key)) + "\n", f"bad.conf: {section} {key} is required")
                    attempt("\n".join(lines + [f"{key} = x"]) + "\n", f"{section} {key} was set in line")
                    tried += 2
            attempt("\n".join(without("data_dir")) + "\ndata_dir = /proc/nothing/here\n", "/proc/nothing/here")
            attempt("\n".join(lines) + "\nno_such_key = 1\n", f"bad.conf:{len(lines) + 1}: unknown key", "no_such_key")
            attempt("[nonsense]\na = b\n", "bad.conf:2", "nonsense")
            attempt("\x00\xff garbage", "bad.conf:1")
            attempt("", "bad.conf", "required")
            attempt("\n".join(lines) + "\n" + "x" * 20000, f"bad.conf:{len(lines) + 1}", "longer")
            refused([daemon, "--config", "/does/not/exist"], ["/does/not/exist"])
            refused([daemon, "--config", c.dir], [c.dir])
            tried += 7
            if service == "meta":
                tried += wrong_relations(lambda *more: attempt("\n".join([*lines, *more]) + "\n", more[0].split()[0]))
                attempt("\n".join(without("peers")) + "\npeers = 10.9.9.9:7100\n", "peers", "10.9.9.9:7100")
            if service == "chunk":
                attempt("\n".join(without("disks")) + "\ndisks = /dev/does-not-exist\n", "/dev/does-not-exist")
                attempt("\n".join(without("disks")) + "\n", "no disk", "--format")
            if service == "access":
                tried += wrong_tls(lambda *more: attempt("\n".join([*lines, *more[:-1]]) + "\n", more[-1]), bad)
                attempt("\n".join([*without("nbd_listen"), "nbd_tls = allowed"]) + "\n", "nbd_listen is not")
            taken = c.env()["nodes"][0]["meta" if service != "meta" else "access"]["rpc"]
            if service != "meta":  # its address stands in peers, too
                attempt("\n".join(without("listen")) + f"\nlisten = {taken}\n", taken)
            c.dev("start", "1", service)
    return f"{tried} wrong configurations refused"


def wrong_relations(attempt):
    """Each value alone is allowed, but together they could stop I/O for more than three seconds, or
    make a leader lose its authority between two of its own heartbeats."""
    attempt("takeover_ms = 2500")
    attempt("authority_ms = 1500", "takeover_ms = 1500")
    attempt("session_ttl_ms = 3000")
    attempt("chunk_dead_ms = 2900")
    attempt("beat_ms = 500")
    attempt("authority_ms = 100")
    return 6


def wrong_tls(attempt, no_pem):
    """Settings of TLS that do not go together, or name files that can't be used."""
    attempt("nbd_tls = required", "nbd_tls needs nbd_tls_cert")
    attempt("nbd_tls = allowed", "nbd_tls_cert = /x", "nbd_tls needs nbd_tls_cert and nbd_tls_key")
    attempt("nbd_tls_ca = /x", "while nbd_tls is off")
    attempt("nbd_tls = required", "nbd_tls_cert = /does/not/exist", "nbd_tls_key = /x", "/does/not/exist")
    attempt("nbd_tls = required", f"nbd_tls_cert = {no_pem}", "nbd_tls_key = /x", "holds no certificate")
    return 5


def io(url, *commands, timeout=600):
    """qemu-io; returns what it printed. It goes on after a failed command."""
    words = [w for cmd in commands for w in ("-c", cmd)]
    r = run("qemu-io", "-f", "raw", *words, url, ok=False, timeout=timeout)
    return r.stdout + r.stderr


def works(url, *commands):
    text = io(url, *commands)
    check("rror" not in text and "failed" not in text and "No space" not in text, f"{commands}: {text[-500:]}")


def fill(nodes, replicas, size):
    """A volume larger than the devices: writes fail with a clear sense, nothing hangs, what was written
    stays and can be overwritten, other volumes are whole, deleting makes room."""
    step = 64
    with Cluster(nodes=nodes, device_size="2G") as c:
        c.cli("pool", "create", "test", "--replicas", str(replicas))
        c.cli("volume", "create", "test/big", "--size", size)
        c.cli("volume", "create", "test/small", "--size", "64M")
        urls = {v: c.cli_json("iscsi", "export", f"test/{v}")["urls"][0] for v in ("big", "small")}
        works(urls["small"], "write -P 0x11 0 16M")
        good = []
        for at in range(0, 4096, step):
            text = io(urls["big"], f"write -P 0x22 {at}M {step}M", timeout=120)
            if "rror" not in text and "failed" not in text and "No space" not in text:
                good.append(at)
            else:
                check("No space left on device" in text, f"the failure is not called one of space: {text[-500:]}")
                break
        check(0 < len(good) < 4096 // step, f"{len(good)} pieces were written")
        begin = time.monotonic()
        text = io(urls["big"], "write -P 0x22 2048M 64M", "write -P 0x22 4000M 4k", timeout=120)
        check(text.count("No space left on device") == 2, f"still full, but: {text[-500:]}")
        refused_in = time.monotonic() - begin
        works(urls["small"], "read -P 0x11 0 16M", "write -P 0x12 0 4M", "flush", "read -P 0x12 0 4M")
        works(urls["big"], f"write -P 0x23 {good[0]}M 4M", "flush", f"read -P 0x23 {good[0]}M 4M",
              *[f"read -P 0x22 {at}M {step}M" for at in good[1:]])
        for n in range(1, nodes + 1):  # a full device is one that can be started on
            c.dev("kill", str(n), "chunk")
            c.dev("start", str(n), "chunk")
        c.wait_in_sync()
        works(urls["small"], "read -P 0x12 0 4M", "read -P 0x11 4M 12M")
        v = c.cli_json("volume", "verify", "test/big", timeout=300)
        check(v["mismatches"] == 0 and v["pages"] > 0, f"volume verify: {v}")  # the last extents may lack a replica
        c.cli("iscsi", "unexport", "test/big")
        c.cli("volume", "delete", "test/big", "--yes")

        def writable():
            text = io(urls["small"], "write -P 0x33 32M 16M")
            return "rror" not in text and "failed" not in text and "No space" not in text
        wait_for("space after the deletion", writable, 60)
        works(urls["small"], "read -P 0x33 32M 16M", "read -P 0x12 0 4M", "read -P 0x11 4M 12M")
        c.wait_in_sync()
        c.verify("test/small")
        wait_for("the deleted volume's blocks to be free",
                 lambda: c.cli_json("cluster", "status")["used_bytes"] < (256 << 20) * nodes, 60)
        return (f"full after {len(good) * step} MiB, two refusals in {refused_in:.1f} s, other data whole, "
                f"usable again after a deletion")


def full_device():
    return fill(1, 1, "8G")


def full_cluster():
    return fill(3, 3, "8G")


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
        wait_for("the access server", lambda: len(c.cli_json("access", "list")) == 1, 30)
        urls = c.export("v", size="128M", replicas=1)
        c.load_result(c.load(urls, 2, blocks=1024, depth=4))
    return "services waited, said so, and went on"


CASES = {f.__name__: f for f in (garbage_on_ports, foreign_devices, wrong_configuration, full_device, full_cluster,
                                 zookeeper_absent)}

if __name__ == "__main__":
    sys.exit(main(CASES))
