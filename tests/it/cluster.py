# SPDX-License-Identifier: Apache-2.0
"""What integration tests share: a cluster of real processes in a folder of its own, its tools, a
verified load through a real initiator. Everything started is ended by pid when the test ends."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("ZBS_BIN", os.path.join(ROOT, "build", "release"))


class Failed(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


def run(*argv, timeout=120, ok=True, env=None, stdin=None):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, input=stdin,
                       env=dict(os.environ, **(env or {})))
    if ok and r.returncode != 0:
        raise Failed(f"{' '.join(argv)} ended with {r.returncode}:\n{r.stdout[-2000:]}{r.stderr[-2000:]}")
    return r


def wait_for(what, predicate, seconds):
    """Polls, bounded; the condition decides, not the clock."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if predicate():
            return
        time.sleep(0.05)
    raise Failed(f"not within {seconds} s: {what}")


def own_network():
    """Runs this program again in a network of its own, which a cluster's nodes can be cut off from."""
    if "ZBS_OWN_NETWORK" not in os.environ:
        os.environ["ZBS_OWN_NETWORK"] = "1"
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$0" "$@"', sys.executable,
                              *sys.argv])


class Cluster:
    def __init__(self, nodes=3, device_size="6G", devices="file", zookeeper=0, prewrite=False,
                 network="loopback"):
        self.options = ["--nodes", str(nodes), "--device-size", device_size, "--devices", devices, "--quiet",
                        "--network", network]
        if zookeeper:
            self.options += ["--zookeeper", str(zookeeper)]
        if prewrite:
            self.options += ["--prewrite"]
        self.nodes = nodes
        self.loads = []

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="zbs-it-", dir="/var/tmp")
        self.cluster = os.path.join(self.dir, "cluster")
        try:
            run(os.path.join(ROOT, "deploy", "devcluster"), "up", "--dir", self.cluster, "--bin", BIN,
                *self.options, timeout=180)
        except BaseException:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        self.config = os.path.join(self.cluster, "zbs.conf")
        return self

    def __exit__(self, kind, value, tb):
        for load in self.loads:
            if load.poll() is None:
                load.kill()
                load.wait()
        if kind and os.environ.get("ZBS_KEEP_FAILED"):
            print(f"kept for inspection: {self.cluster}", file=sys.stderr)
            return
        try:
            self.dev("down", timeout=300)  # it deletes large files, which may take long under load
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def dev(self, *words, timeout=60):
        return run(os.path.join(ROOT, "deploy", "devcluster"), *words, "--dir", self.cluster, timeout=timeout)

    def env(self):
        return json.loads(self.dev("env").stdout)

    def cli(self, *words, ok=True, timeout=120, stdin=None):
        return run(os.path.join(BIN, "zbs-cli"), "--config", self.config, *words, ok=ok, timeout=timeout, stdin=stdin)

    def cli_json(self, *words, timeout=120):
        return json.loads(self.cli("--json", *words, timeout=timeout).stdout)

    def export(self, name, size="1G", replicas=3, pool="test"):
        """Creates pool and volume if they are missing; returns the URLs, node 1's first."""
        if self.cli("pool", "show", pool, ok=False).returncode:
            self.cli("pool", "create", pool, "--replicas", str(replicas))
        self.cli("volume", "create", f"{pool}/{name}", "--size", size)
        exported = self.cli_json("iscsi", "export", f"{pool}/{name}")
        portals = sorted(exported["portals"], key=lambda p: p["host"])
        return [p["url"] for p in portals]

    def leader_node(self):
        """The node whose meta server leads."""
        metas = self.cli_json("meta", "list")
        for m in metas:
            if m["leader"]:
                return int(m["name"].rsplit("-", 1)[1])
        raise Failed("no meta leader")

    def zookeeper_leader(self):
        for z in self.env()["zookeeper"]["servers"]:
            host, port = z["address"].rsplit(":", 1)
            try:
                import socket
                with socket.create_connection((host, int(port)), timeout=2) as s:
                    s.sendall(b"srvr")
                    text = b""
                    while True:
                        more = s.recv(4096)
                        if not more:
                            break
                        text += more
                if b"Mode: leader" in text or b"Mode: standalone" in text:
                    return z["number"]
            except OSError:
                continue
        raise Failed("no ZooKeeper leader")

    def load(self, urls, seconds, blocks=16384, depth=16, seed=1, reads=40, stall=5, stop_file=None, first=0, check=True):
        argv = [os.path.join(BIN, "tests/tools/iscsi_load"), "--seconds", str(seconds), "--blocks", str(blocks),
                "--depth", str(depth), "--seed", str(seed), "--reads", str(reads), "--stall", str(stall),
                "--first", str(first)]
        for u in urls:
            argv += ["--url", u]
        if stop_file:
            argv += ["--stop-file", stop_file]
        if not check:
            argv += ["--no-final-check"]
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.loads.append(p)
        line = p.stdout.readline()
        if line.strip() != "started":
            raise Failed(f"the load did not start: {line}{p.stderr.read()}")
        return p

    def load_result(self, p, timeout=300):
        try:
            out, err = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            raise Failed(f"the load has not ended after {timeout} s")
        try:
            result = json.loads(out.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise Failed(f"the load ended with {p.returncode} and said: {out}{err}")
        if p.returncode or result["errors"] or result["mismatches"]:
            raise Failed(f"the load found faults: {result} {err[-1500:]}")
        return result

    def degraded(self):
        s = self.cli_json("cluster", "status")
        return s["extents_degraded"]

    def wait_in_sync(self, seconds=120):
        def healthy():
            r = self.cli("--json", "cluster", "status", ok=False)
            return r.returncode == 0 and json.loads(r.stdout)["extents_degraded"] == 0
        try:
            wait_for("all replicas in-sync again", healthy, seconds)
        except Failed as e:
            shown = [self.cli(*words, ok=False).stdout for words in (("recovery", "status"), ("disk", "list"))]
            raise Failed("\n".join([str(e), *shown]))

    def verify(self, volume):
        r = self.cli("--json", "volume", "verify", volume, ok=False, timeout=600)
        check(r.returncode == 0, f"volume verify {volume}: {r.stdout[-1500:]} {r.stderr[-1500:]}")
        v = json.loads(r.stdout)
        check(v["mismatches"] == 0 and v["incomplete"] == 0, f"volume verify {volume}: {v}")
        return v


def main(cases):
    """Runs the named cases (all by default), prints one line each and the closing line. In a network of
    its own: nothing else on the machine has its ports, and what it does reaches nobody."""
    own_network()
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or list(cases)
    passed = failed = 0
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    for name in names:
        begin = time.monotonic()
        try:
            note = cases[name]()
            passed += 1
            print(f"ok   {name} ({time.monotonic() - begin:.0f} s){': ' + note if note else ''}", flush=True)
        except (Failed, subprocess.TimeoutExpired) as e:
            failed += 1
            print(f"FAIL {name} ({time.monotonic() - begin:.0f} s): {e}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
