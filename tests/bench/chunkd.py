# SPDX-License-Identifier: Apache-2.0
"""A chunk server alone, on devices of its own, and load on it without meta and access servers."""
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from common import BIN, run, run_json, tool, unchanged

NOBODY = "127.0.0.1:9"  # no meta server there: the chunk server serves without one


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def server_format(device, workers=1, journal=None):
    run(os.path.join(BIN, "zbs-chunkd"), "--format", device, "--workers", str(workers), "--force",
        *(["--journal", journal] if journal else []))


class Chunkd:
    """A running chunk server; start() again after stop() opens the same devices."""

    def __init__(self, devices, memory="64M", programs=BIN, env=None):
        self.program = os.path.join(programs, "zbs-chunkd")
        self.dir = tempfile.mkdtemp(prefix="zbs-chunkd-", dir="/var/tmp")
        self.addr = f"unix:{self.dir}/socket"
        self.env = dict(os.environ, **(env or {}))
        self.process = None
        self.seeds = itertools.count(1)
        self.settings = {"listen": f"127.0.0.1:{free_port()}", "listen_unix": self.addr, "data_dir": f"{self.dir}/data",
                         "meta": NOBODY, "host": "bench", "disks": ",".join(devices), "memory": memory}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, tb):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def pid(self):
        return self.process.pid

    def start(self, timeout=60):
        """Seconds until it says that it serves."""
        config = f"{self.dir}/chunk.conf"
        with open(config, "w") as f:
            f.write("[chunk]\n" + "".join(f"{k} = {v}\n" for k, v in self.settings.items()))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, open(f"{self.dir}/log", "a") as log:
            notify = f"{self.dir}/notify"
            if os.path.exists(notify):
                os.unlink(notify)
            s.bind(notify)
            s.settimeout(timeout)
            begin = time.monotonic()
            self.process = subprocess.Popen([self.program, "--config", config], stderr=log,
                                            env=dict(self.env, NOTIFY_SOCKET=notify))
            while True:
                text = s.recv(4096).decode()
                if "READY=1" in text:
                    return time.monotonic() - begin
                if "failed" in text:
                    raise RuntimeError(f"zbs-chunkd: {text}")

    def stop(self):
        """As the service manager does it; what is only in the journal stays there."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RuntimeError("zbs-chunkd did not end within 60 s")
        self.process = None

    def written(self):
        with open(f"/proc/{self.pid}/io") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("write_bytes"))

    def settled(self, seconds=1.5):
        """Waits until what is journaled has come home."""
        unchanged(self.written, "bytes written by zbs-chunkd", seconds)

    def stalls(self):
        """What its watchdog logged, longest first: (milliseconds, text)."""
        with open(f"{self.dir}/log") as f:
            found = re.findall(r"loop\.stall (.*held_ms=(\d+).*)", f.read())
        return sorted(((int(ms), text) for text, ms in found), reverse=True)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def load_argv(self, rw, **options):
        """Options of chunk_load by name; True for a flag. Without a seed, each load has addresses of its own: what
        the one before it brought into caches must not serve it."""
        argv = [tool("chunk_load"), "--addr", self.addr, "--rw", rw, "--pid", str(self.pid)]
        options.setdefault("seed", next(self.seeds))
        for k, v in options.items():
            if v is None:
                continue
            argv.append("--" + k.replace("_", "-"))
            if v is not True:
                argv.append(str(v))
        return argv

    def load(self, rw, timeout=600, **options):
        return run_json(*self.load_argv(rw, **options), timeout=timeout)
