#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Thick volumes with real processes and disks that become full: an NBD client's writes to one never lack space."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402

MIB = 1024 * 1024
BLOCK = MIB // 4  # space is given out in pieces of this size
THICK = 256 * MIB  # one extent


def write(c, volume, blocks, node=1):
    """A page of each of the blocks; how many were written, the others for want of space."""
    u = f"nbd+unix:///test/{volume}?socket={c.env()['nodes'][node - 1]['nbd_unix']}"
    commands = "".join(f"aio_write -P {1 + n % 255} {n * BLOCK} 4k\n" for n in blocks) + "aio_flush\n"
    r = run("qemu-io", "-f", "raw", u, stdin=commands, ok=False, timeout=600)
    out = r.stdout + r.stderr
    good, full = out.count("wrote 4096/4096"), out.count("No space left on device")
    check(good + full == len(blocks), f"{good} written, {full} without space of {len(blocks)}: {out[-500:]}")
    return good


def verify_content(c, volume, blocks, node=2):
    u = f"nbd+unix:///test/{volume}?socket={c.env()['nodes'][node - 1]['nbd_unix']}"
    commands = "".join(f"read -P {1 + n % 255} {n * BLOCK} 4k\n" for n in blocks)
    out = run("qemu-io", "-f", "raw", u, stdin=commands, timeout=600).stdout
    check("verification" not in out and out.count("read 4096/4096") == len(blocks), out[-500:])


def reserved(c):
    return sum(d["reserved_bytes"] for d in c.cli_json("disk", "list"))


def provisioned(c, volume, how):
    v = c.cli_json("volume", "show", volume)
    check(v["provisioning"] == how, f"{volume} is {v['provisioning']}, not {how}")
    return v["provisioned"]


def full():
    """Disks are filled by a thin volume; the thick one keeps taking writes, servers are killed; thin again, it gives space back."""
    with Cluster(device_size="1G") as c:
        blocks = range(THICK // BLOCK)
        quarter = len(blocks) // 4
        everywhere = range(1024 * MIB // BLOCK)  # more than there is room for
        c.cli("pool", "create", "test", "--replicas", "3")
        c.cli("volume", "create", "test/thin", "--size", "1G")
        c.cli("volume", "create", "test/thick", "--size", str(THICK), "--stripes", "1", "--thick")
        wait_for("the thick volume has its promises", lambda: provisioned(c, "test/thick", "thick"), 60)
        wait_for("disks tell what is promised", lambda: reserved(c) == 3 * THICK, 30)
        check("thick" in c.cli("volume", "list").stdout, "not in the list")
        write(c, "thin", everywhere)
        check(write(c, "thick", blocks[:quarter]) == quarter, "no space")
        for node in (1, 2, 3):
            c.dev("kill", str(node), "chunk")
            c.dev("start", str(node), "chunk")
        c.dev("kill", str(c.leader_node()), "meta")
        c.wait_in_sync()
        check(write(c, "thick", blocks[quarter:3 * quarter], node=3) == 2 * quarter, "no space after restarts")
        verify_content(c, "thick", blocks[:3 * quarter])
        wait_for("promises become blocks", lambda: reserved(c) == 3 * THICK // 4, 30)
        before = write(c, "thin", everywhere)
        check(before < len(everywhere), "the disks are not full")
        c.cli("volume", "set", "test/thick", "--provisioning", "thin")
        wait_for("the promises are taken back", lambda: provisioned(c, "test/thick", "thin"), 60)
        wait_for("disks tell that", lambda: reserved(c) == 0, 30)
        after = write(c, "thin", everywhere)
        check(after >= before + quarter // 2, f"{before} blocks of the thin volume before, {after} after that")
        verify_content(c, "thick", blocks[:3 * quarter])
        c.verify("test/thick")
        return f"{after - before} blocks came back"


def options():
    """What the tool accepts, and what a volume without room for its promises shows."""
    with Cluster(device_size="1536M") as c:
        c.cli("pool", "create", "test", "--replicas", "3")
        c.cli("volume", "create", "test/v", "--size", "8G")
        check(c.cli("volume", "set", "test/v", "--provisioning", "fat", ok=False).returncode == 2, "'fat'")
        c.cli("snapshot", "create", "test/v@s")
        check(c.cli("volume", "set", "test/v@s", "--provisioning", "thick", ok=False).returncode == 1, "a snapshot")
        c.cli("volume", "set", "test/v", "--provisioning", "thick")
        wait_for("there is no room", lambda: c.cli_json("volume", "show", "test/v")["no_space"], 60)
        shown = c.cli("volume", "show", "test/v").stdout
        check("no disk has room for the next" in shown, shown)
        check(write(c, "v", range(8)) == 8, "a volume without all promises takes writes")
        c.cli("volume", "set", "test/v", "--provisioning", "thin")
        wait_for("it is thin", lambda: provisioned(c, "test/v", "thin"), 60)
        wait_for("nothing is promised", lambda: reserved(c) == 0, 30)


if __name__ == "__main__":
    sys.exit(main({"full": full, "options": options}))
