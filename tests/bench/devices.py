# SPDX-License-Identifier: Apache-2.0
"""Loop devices with direct I/O over files that were written through, what the block layer counted
on them, and file systems on them."""
import os
import subprocess
import tempfile
import time

from common import prewritten, progress, run, unchanged

DIR = "/var/tmp"


class Backing:
    """A file of `size` bytes that several devices use in turn: writing it through is what takes time."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        fd, self.path = tempfile.mkstemp(prefix="zbs-bench-", dir=DIR)
        os.close(fd)
        progress(f"writing {self.size >> 20} MiB through")
        try:
            prewritten(self.path, self.size)
        except BaseException:
            os.unlink(self.path)
            raise
        return self

    def __exit__(self, kind, value, tb):
        os.unlink(self.path)


class Plain:
    """The file itself as a device."""

    def __init__(self, backing):
        self.path = backing.path

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        pass


class Loop:
    def __init__(self, backing):
        self.backing = backing

    def __enter__(self):
        self.path = run("losetup", "--find", "--show", "--direct-io=on", self.backing.path).strip()
        self.stat = f"/sys/block/{os.path.basename(self.path)}/stat"
        return self

    def __exit__(self, kind, value, tb):
        # whatever used it may have closed it only this moment
        for _ in range(100):
            if subprocess.run(["losetup", "-d", self.path], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.path} is still in use")

    def written(self):
        """Bytes written since the device exists."""
        with open(self.stat) as f:
            return int(f.read().split()[6]) * 512

    def settled(self, seconds=2.5):
        """Waits until nothing has been written for so long."""
        unchanged(self.written, f"bytes written to {self.path}", seconds)


class Mounted:
    """A new file system with the defaults of its mkfs, but nothing left for later."""

    def __init__(self, kind, device):
        self.kind, self.device = kind, device

    def __enter__(self):
        words = {"ext4": ("-F", "-Enodiscard,lazy_itable_init=0,lazy_journal_init=0"), "xfs": ("-f", "-K")}
        run(f"mkfs.{self.kind}", "-q", *words[self.kind], self.device)
        self.dir = tempfile.mkdtemp(prefix="zbs-bench-", dir=DIR)
        try:
            run("mount", self.device, self.dir)
        except BaseException:
            os.rmdir(self.dir)
            raise
        return self

    def sync(self):
        run("sync", "-f", self.dir)

    def __exit__(self, kind, value, tb):
        run("umount", self.dir)
        os.rmdir(self.dir)
