#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The one-machine cluster script: everything it starts can be killed, stopped and started by name, it
ends what it started whatever happened in between, and it says what is wrong when it cannot start."""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, ROOT, check, main, run, wait_for  # noqa: E402

TOOL = os.path.join(ROOT, "deploy", "devcluster")
SERVICES = ("meta", "chunk", "access")
SIZE = ("--device-size", "3G", "--bin", BIN, "--quiet")


def processes(directory):
    """Pids of processes with the folder in their command line; zombies have none."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
            if int(pid) != os.getpid() and any(w.startswith(directory.encode()) or b"=" + directory.encode() in w
                                               for w in words) and TOOL.encode() not in words:
                found.append(int(pid))
    return found


def loops(directory):
    r = subprocess.run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, text=True)
    return [line for line in r.stdout.splitlines() if directory in line]


def nothing_left(directory):
    wait_for("the end of all processes", lambda: not processes(directory), 20)
    check(not loops(directory), f"loop devices are left: {loops(directory)}")
    check(not os.path.exists(directory), f"{directory} is left: {os.path.exists(directory) and os.listdir(directory)}")


@contextlib.contextmanager
def folder():
    """A folder for clusters; what a failed case leaves is ended."""
    d = tempfile.mkdtemp(prefix="zbs-it-", dir="/var/tmp")
    try:
        yield d
    finally:
        for name in os.listdir(d):
            if os.path.exists(os.path.join(d, name, "cluster.json")):
                subprocess.run([TOOL, "down", "--dir", os.path.join(d, name)], capture_output=True, timeout=120)
        shutil.rmtree(d, ignore_errors=True)


def tool(*words, ok=True, env=None):
    return run(TOOL, *words, ok=ok, timeout=120, env=env)


def refused(says, *words, env=None):
    r = tool(*words, ok=False, env=env)
    check(r.returncode in (1, 2), f"{words}: ended with {r.returncode}")
    check(says in r.stderr and "Traceback" not in r.stderr, f"{words}: '{says}' is not in: {r.stderr}")


def env_of(directory):
    return json.loads(tool("env", "--dir", directory).stdout)


def everything_by_name():
    with folder() as d:
        c = os.path.join(d, "c")
        tool("up", "--nodes", "1", "--dir", c, *SIZE)
        view = env_of(c)
        check(view["config"] == view["environment"]["ZBS_CONFIG"] == os.path.join(c, "zbs.conf"), "ZBS_CONFIG")
        node = view["nodes"][0]
        check(len(view["nodes"]) == 1 and len(view["zookeeper"]["servers"]) == 1, "one of each")
        check(view["zookeeper"]["connect"] == view["zookeeper"]["servers"][0]["address"], "the connect string")
        for s in SERVICES:
            check(node[s]["rpc"].startswith(node["address"] + ":") and os.path.exists(node[s]["log"]), s)
        check(node["iscsi"].startswith(node["address"]) and os.path.exists(node["device"]), "portal, device")

        def state(who):
            v = env_of(c)
            return v["zookeeper"]["servers"][0] if who[0] == "zookeeper" else v["nodes"][0][who[1]]
        for who in (("zookeeper", "1"), *(("1", s) for s in SERVICES)):
            before = state(who)
            check(before["state"] == "up", f"{who}: {before}")
            refused("runs already", "start", *who, "--dir", c)
            tool("stop", *who, "--dir", c)
            check(state(who)["state"] == "stopped", f"{who} is not stopped")
            tool("cont", *who, "--dir", c)
            check(state(who)["state"] == "up" and state(who)["pid"] == before["pid"], f"{who} after cont")
            for how in ("kill", "term"):
                tool(how, *who, "--dir", c)
                check(state(who)["state"] == "down", f"{who} after {how}")
                refused("does not run", how, *who, "--dir", c)
                tool("start", *who, "--dir", c)
                check(state(who)["state"] == "up" and state(who)["pid"] != before["pid"], f"{who} after start")
        wait_for("the cluster", lambda: run(os.path.join(BIN, "zbs-cli"), "--config", view["config"], "cluster",
                                            "status", ok=False).returncode == 0, 60)
        check(len(tool("status", "--dir", c).stdout.splitlines()) == 4, "status")
        refused("no node '2'", "kill", "2", "meta", "--dir", c)
        refused("not a service", "kill", "1", "frob", "--dir", c)
        refused("no ZooKeeper server", "kill", "zookeeper", "2", "--dir", c)
        refused("a cluster exists", "up", "--dir", c, *SIZE)
        tool("down", "--dir", c)
        nothing_left(c)
        refused("no cluster in", "down", "--dir", c)


def several_at_once():
    with folder() as d:
        a, b = os.path.join(d, "a"), os.path.join(d, "b")
        starts = [subprocess.Popen([TOOL, "up", "--nodes", "1", "--dir", x, *more, *SIZE], stderr=subprocess.PIPE)
                  for x, more in ((a, ()), (b, ("--zookeeper", "3")))]
        for p in starts:
            _, err = p.communicate(timeout=150)
            check(p.returncode == 0, f"up: {err.decode()}")
        va, vb = env_of(a), env_of(b)
        check(va["nodes"][0]["address"] != vb["nodes"][0]["address"], "the same address")
        check(len(vb["zookeeper"]["servers"]) == 3 and vb["zookeeper"]["connect"].count(",") == 2, "--zookeeper 3")
        ids = {json.loads(run(os.path.join(BIN, "zbs-cli"), "--config", v["config"], "--json", "cluster",
                              "status").stdout)["cluster_id"] for v in (va, vb)}
        check(len(ids) == 2, "they are one cluster")
        tool("down", "--dir", a)
        nothing_left(a)
        check(all(n["state"] == "up" for n in env_of(b)["zookeeper"]["servers"]), "the other one was hit")
        tool("down", "--dir", b)
        nothing_left(b)


def have_loops():
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


def loop_devices():
    """And after the worst: some processes stopped, the others killed without the script."""
    if not have_loops():
        return "skipped: no loop devices here"
    with folder() as d:
        c = os.path.join(d, "c")
        tool("up", "--nodes", "2", "--dir", c, "--devices", "loop", *SIZE)
        view = env_of(c)
        check(len(loops(c)) == 2 and view["nodes"][0]["device"].startswith("/dev/loop"), f"{loops(c)}")
        for s in SERVICES:
            tool("stop", "1", s, "--dir", c)
        tool("stop", "zookeeper", "1", "--dir", c)
        for s in SERVICES:
            os.kill(view["nodes"][1][s]["pid"], signal.SIGKILL)
        tool("down", "--dir", c)
        nothing_left(c)
        tool("up", "--nodes", "1", "--dir", c, "--devices", "loop", *SIZE)
        for pid in processes(c):
            os.kill(pid, signal.SIGKILL)
        tool("down", "--dir", c)
        nothing_left(c)


def cannot_start():
    with folder() as d:
        c = os.path.join(d, "c")
        refused("--nodes", "up", "--nodes", "0", "--dir", c, *SIZE)
        refused("--zookeeper", "up", "--zookeeper", "9", "--dir", c, *SIZE)
        refused("is not a size", "up", "--dir", c, "--device-size", "big", "--bin", BIN)
        refused("at least 1G", "up", "--dir", c, "--device-size", "1M", "--bin", BIN)
        refused("zbs-metad not found", "up", "--dir", c, "--bin", d)
        bare = os.path.join(d, "path")
        os.mkdir(bare)
        for name in ("python3", "env"):
            os.symlink(shutil.which(name), os.path.join(bare, name))
        refused("java", "up", "--dir", c, *SIZE, env={"PATH": bare})
        full = os.path.join(d, "full")
        os.mkdir(full)
        with open(os.path.join(full, "mine"), "w"):
            pass
        refused("not empty", "up", "--dir", full, *SIZE)
        check(os.listdir(full) == ["mine"], f"it changed somebody's folder: {os.listdir(full)}")
        refused("Not a directory", "up", "--dir", os.path.join(full, "mine", "c"), *SIZE)
        with socket.socket() as s:  # as a daemon of the machine might
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wait_for("port 7200 is free on all addresses", lambda: bound(s, ("0.0.0.0", 7200)), 300)
            s.listen(1)
            refused("port 7200", "up", "--nodes", "1", "--dir", c, *SIZE)
        nothing_left(c)
        broken = os.path.join(d, "bin")
        os.mkdir(broken)
        for name in ("zbs-metad", "zbs-chunkd", "zbs-cli"):
            os.symlink(os.path.join(BIN, name), os.path.join(broken, name))
        with open(os.path.join(broken, "zbs-accessd"), "w") as f:
            f.write("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        os.chmod(f.name, 0o755)
        refused("it is broken", "up", "--nodes", "1", "--dir", c, "--device-size", "3G", "--bin", broken)
        nothing_left(c)


def bound(s, address):
    """Another cluster of this machine may have the port for a while."""
    try:
        s.bind(address)
    except OSError:
        return False
    return True


def interrupted():
    """Signals at any stage of `up`; after SIGKILL, `down` finds what it left."""
    extra = ("--devices", "loop") if have_loops() else ()
    tried = 0
    with folder() as d:
        c = os.path.join(d, "c")
        stages = {"folder": "cluster.json", "zookeeper": "zk1/log", "device": "node1/chunk/disk.img",
                  "daemons": "node1/meta/log", "last": "node1/access/log"}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            for stage, path in stages.items():
                p = subprocess.Popen([TOOL, "up", "--nodes", "1", "--dir", c, *extra, *SIZE], stderr=subprocess.PIPE,
                                     start_new_session=True)
                wait_for(f"stage {stage}", lambda q=path: os.path.exists(os.path.join(c, q)), 60)
                p.send_signal(number)
                _, err = p.communicate(timeout=60)
                check("Traceback" not in err.decode(), err.decode())
                if number == signal.SIGKILL:
                    tool("down", "--dir", c)
                else:
                    check(p.returncode == 128 + number, f"{stage}: ended with {p.returncode}: {err.decode()}")
                nothing_left(c)
                tried += 1
    return f"{tried} times"


CASES = {f.__name__: f for f in (everything_by_name, several_at_once, loop_devices, cannot_start, interrupted)}

if __name__ == "__main__":
    sys.exit(main(CASES))
