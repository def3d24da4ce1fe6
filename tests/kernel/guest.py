# SPDX-License-Identifier: Apache-2.0
"""A machine with a real Debian kernel, under software emulation, in the network of the test that starts it."""
import base64
import gzip
import os
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE = os.environ.get("ZBS_KERNEL_IMAGE", "/var/tmp/zbs-kernel")
BRIDGE = "zbs0"  # of deploy/devcluster --network namespaces
BOOT_SECONDS = 400


def image():
    """Makes the guest's image if there is none; its path."""
    subprocess.run([os.path.join(HERE, "image"), IMAGE], check=True)
    return os.path.join(IMAGE, "disk.img")


class GuestFailed(Exception):
    pass


class Guest:
    """address: its own, on the bridge, "10.1.2.200/24"; disk: what it boots from (a QEMU URL), else the image, to which
    nothing is written. Started at once, used in a `with`."""

    def __init__(self, address, directory, memory="1500M", disk=None):
        disk = f"file={disk},format=raw,if=virtio,cache=none" if disk else f"file={image()},format=raw,if=virtio,snapshot=on"
        self.console = os.path.join(directory, "console.log")
        self.number = 0
        path = os.path.join(directory, "scripts")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        for words in (["tuntap", "add", "guest0", "mode", "tap"], ["link", "set", "guest0", "master", BRIDGE, "up"]):
            subprocess.run(["ip", *words], check=True)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", memory, "-nodefaults",
             "-display", "none", "-no-reboot", "-kernel", f"{IMAGE}/vmlinuz", "-initrd", f"{IMAGE}/initrd",
             "-append", "root=/dev/vda rw console=ttyS0 init=/init mitigations=off panic=-1 quiet",
             "-drive", disk,
             "-netdev", "tap,id=n,ifname=guest0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n",
             "-device", "virtio-rng-pci", "-serial", f"file:{self.console}", "-serial", f"unix:{path}"],
            stdin=subprocess.DEVNULL)
        try:
            listener.settimeout(30)
            self.channel = listener.accept()[0]
            self.pending = b""
            self._answer(0, BOOT_SECONDS)
            self.run(f"ip addr add {address} dev $(ls /sys/class/net | grep -v lo | head -1)\n"
                     "ip link set $(ls /sys/class/net | grep -v lo | head -1) up")
        except BaseException:
            self.end()
            raise
        finally:
            listener.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        self.end()

    def end(self):
        self.process.kill()
        self.process.wait()
        subprocess.run(["ip", "link", "del", "guest0"], check=False)

    def _answer(self, number, seconds):
        deadline = time.monotonic() + seconds
        while True:
            while b"\n" in self.pending:
                line, self.pending = self.pending.split(b"\n", 1)
                words = line.split()
                if len(words) >= 2 and words[0] == str(number).encode():
                    return int(words[1]), base64.b64decode(words[2] if len(words) > 2 else b"").decode(errors="replace")
            self.channel.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                more = self.channel.recv(65536)
            except TimeoutError:
                more = b""
            if not more:
                with open(self.console, errors="replace") as f:
                    raise GuestFailed(f"the guest did not answer within {seconds} s; its console ends with: "
                                      f"{f.read()[-3000:]}")
            self.pending += more

    def run(self, script, seconds=300, ok=True):
        """Runs a bash script in the guest, to its end; its output. ok: any other status than 0 is a failure."""
        self.number += 1
        self.channel.sendall(f"{self.number} {base64.b64encode(script.encode()).decode()}\n".encode())
        status, output = self._answer(self.number, seconds)
        if ok and status != 0:
            raise GuestFailed(f"in the guest: {script}\nended with {status}: {output[-3000:]}\n{self.messages()}")
        return output

    def put(self, path, to):
        """Copies a program into the guest."""
        with open(path, "rb") as f:
            coded = base64.b64encode(gzip.compress(f.read())).decode()
        self.run(f"base64 -d <<'END' | gunzip >{to}\n{coded}\nEND\nchmod +x {to}")

    def messages(self):
        """What the kernel said of late."""
        with open(self.console, errors="replace") as f:
            return f.read()[-3000:]
