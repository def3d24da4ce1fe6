#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the daemons tell the service manager (Type=notify): STATUS and READY at start, WATCHDOG while
the loop runs, STOPPING at SIGTERM, the reason when they fail, and that one which waits for others
counts as started."""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, Cluster, Failed, check, main  # noqa: E402

WATCHDOG_US = 600000


class Manager:
    """Stands in for systemd for one daemon."""

    def __init__(self, argv, log):
        self.dir = tempfile.mkdtemp(prefix="zbs-it-")
        path = os.path.join(self.dir, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(0.2)
        env = dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC=str(WATCHDOG_US))
        env.pop("WATCHDOG_PID", None)
        self.log = open(log, "ab")
        self.process = subprocess.Popen(argv, env=env, stdout=self.log, stderr=self.log, start_new_session=True)
        self.said = []

    def listen(self):
        """One more message, if there is one soon."""
        with contextlib.suppress(socket.timeout):
            for line in self.socket.recv(65536).decode().splitlines():
                self.said.append(line)

    def wait(self, what, seconds=30):
        """Until a line that begins with `what` has come; returns it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.said:
                if line.startswith(what):
                    return line
            self.listen()
        raise Failed(f"no {what} within {seconds} s, only {sorted(set(self.said))}")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.socket.close()
        self.log.close()
        os.unlink(os.path.join(self.dir, "notify"))
        os.rmdir(self.dir)


def parts(c, service):
    directory = os.path.join(c.cluster, "node1", service)
    return ([os.path.join(BIN, f"zbs-{service}d"), "--config", os.path.join(directory, f"{service}.conf")],
            os.path.join(directory, "log"))


def life():
    """Each daemon through a whole life, while the rest of the cluster runs."""
    with Cluster(nodes=1, device_size="3G") as c:
        for service in ("meta", "chunk", "access"):
            c.dev("term", "1", service)
            m = Manager(*parts(c, service))
            try:
                m.wait("STATUS=starting")
                m.wait("READY=1")
                status = m.wait("STATUS=serving at ")
                check(c.env()["nodes"][0][service]["rpc"] in status, status)
                before = m.said.count("WATCHDOG=1")
                deadline = time.monotonic() + 20
                while m.said.count("WATCHDOG=1") < before + 3:
                    check(time.monotonic() < deadline, f"{service} does not feed the watchdog")
                    m.listen()
                m.process.send_signal(signal.SIGTERM)
                m.wait("STOPPING=1")
                check(m.process.wait(timeout=30) == 0, f"{service} ended with {m.process.returncode}")
            finally:
                m.end()
            c.dev("start", "1", service)
    return "three daemons"


def failure():
    with Cluster(nodes=1, device_size="3G") as c:
        c.dev("term", "1", "chunk")
        argv, log = parts(c, "chunk")
        wrong = os.path.join(c.dir, "wrong.conf")
        with open(argv[2]) as f:
            text = f.read()
        with open(wrong, "w") as f:
            f.write(text.replace("host = ", "host = a/"))
        for conf, words in ((wrong, ["wrong.conf:", "host"]), (argv[2], ["superblock"])):
            if conf == argv[2]:
                device = c.env()["nodes"][0]["device"]
                size = os.path.getsize(device)
                for length in (0, size):  # both copies of the superblock are gone
                    os.truncate(device, length)
            m = Manager([argv[0], "--config", conf], log)
            try:
                status = m.wait("STATUS=failed")
                check(all(w in status for w in words), status)
                check(m.process.wait(timeout=30) == 1, f"it ended with {m.process.returncode}")
                check("READY=1" not in m.said, "it said that it was ready")
            finally:
                m.end()
    return "wrong setting, wrong disk"


def patience():
    """A meta server without ZooKeeper is up, from the service manager's point of view."""
    with Cluster(nodes=1, device_size="3G") as c:
        c.dev("term", "1", "meta")
        c.dev("kill", "zookeeper", "1")
        m = Manager(*parts(c, "meta"))
        try:
            m.wait("STATUS=waiting", seconds=40)
            check("READY=1" in m.said, f"{m.said}")
            c.dev("start", "zookeeper", "1")
            m.wait("STATUS=serving at ")
            m.process.send_signal(signal.SIGTERM)
            m.wait("STOPPING=1")
            check(m.process.wait(timeout=30) == 0, f"meta ended with {m.process.returncode}")
        finally:
            m.end()
    return "ready while waiting for ZooKeeper, serving later"


CASES = {f.__name__: f for f in (life, failure, patience)}

if __name__ == "__main__":
    sys.exit(main(CASES))
