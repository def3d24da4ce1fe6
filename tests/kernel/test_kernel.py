#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a real kernel's initiators make of us: a Debian guest mounts file systems on volumes through two access servers
and checks all it reads while these are killed and started again. On demand: the guest's image takes two minutes to
make once and stays in /var/tmp/zbs-kernel (ZBS_KERNEL_IMAGE), and software emulation is slow."""
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "it"))
sys.path.insert(0, HERE)
from cluster import BIN, Cluster, Failed, check, main, run, wait_for  # noqa: E402
from guest import Guest, GuestFailed, image  # noqa: E402

SLOW = 400  # seconds for what takes a few on a machine that is not emulated
# A path that fails is expected to be heard of; what is above multipath is not.
FILE_SYSTEM_ERROR = "EXT4-fs error|XFS.*(error|corrupt)|Buffer I/O error|dm-[0-9]+.*error"

# One round after the other until /run/stop exists; the number of rounds is in /run/rounds. "failed" there is the end.
LOAD = """
cat >/run/load <<'END'
round=0
until [ -e /run/stop ]; do
    for folder in $*; do
        fio --name=load --directory=$folder --rw=randrw --bsrange=4k-64k --size=24M --direct=1 --ioengine=libaio \\
            --iodepth=8 --fsync=64 --verify=crc32c --verify_fatal=1 --do_verify=1 >/run/fio 2>&1 || {
            echo failed >/run/rounds; exit 1; }
    done
    round=$((round + 1)); echo $round >/run/rounds
done
echo "ended $round" >/run/rounds
END
echo 0 >/run/rounds; rm -f /run/stop
nohup bash /run/load FOLDERS >/dev/null 2>&1 &
"""


class Load:
    """Reads and writes in folders of the guest, verified."""

    def __init__(self, guest, *folders):
        self.guest = guest
        guest.run(LOAD.replace("FOLDERS", " ".join(folders)))

    def rounds(self):
        said = self.guest.run("cat /run/rounds").split()
        if said and said[0] == "failed":
            raise Failed(f"the load in the guest failed: {self.guest.run('cat /run/fio; dmesg | tail -30')}")
        return said

    def whole_round(self):
        """Waits until a round that began after now has ended."""
        until = int(self.rounds()[0]) + 2
        wait_for("a round of the load", lambda: int(self.rounds()[0]) >= until, SLOW)

    def end(self):
        self.guest.run("touch /run/stop")
        wait_for("the end of the load", lambda: self.rounds()[0] == "ended", SLOW)
        return int(self.rounds()[1])


def addresses(cluster):
    return [n["address"] for n in cluster.env()["nodes"]]


def start_guest(cluster, folder, disk=None):
    net = addresses(cluster)[0].rsplit(".", 1)[0]
    return Guest(f"{net}.200/24", folder, disk=disk)


def log_in(guest, portals):
    """Both paths of every volume, gathered by multipathd."""
    guest.run("""
        modprobe -a iscsi_tcp dm_multipath scsi_dh_alua
        echo InitiatorName=iqn.2026-11.io.zbs.test:guest >/etc/iscsi/initiatorname.iscsi
        sed -i 's/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 5/;
                s/^node.conn.*noop_out_interval.*/node.conn[0].timeo.noop_out_interval = 2/;
                s/^node.conn.*noop_out_timeout.*/node.conn[0].timeo.noop_out_timeout = 3/' /etc/iscsi/iscsid.conf
        printf 'defaults {\\n find_multipaths no\\n user_friendly_names yes\\n polling_interval 1\\n no_path_retry 60\\n}\\n
            blacklist {\\n devnode "^vd"\\n}\\n' >/etc/multipath.conf
        iscsid
        multipathd
    """)
    for portal in portals:
        guest.run(f"iscsiadm -m discovery -t sendtargets -p {portal} >/dev/null && iscsiadm -m node -p {portal} --login",
                  seconds=SLOW)


def maps(guest):
    return sorted(guest.run("ls /dev/mapper").split()[1:]) if "control" in guest.run("ls /dev/mapper") else []


def paths(guest, state):
    """How many paths are in that state: active, failed."""
    return guest.run("multipathd show paths raw format '%t'").split().count(state)


def path_lost_and_found(cluster, guest, load, node):
    whole = paths(guest, "active")
    cluster.dev("kill", str(node), "access")
    wait_for("the guest notices the lost path", lambda: paths(guest, "active") < whole, SLOW)
    load.whole_round()
    cluster.dev("start", str(node), "access")
    wait_for("the guest uses the path again", lambda: paths(guest, "active") == whole, SLOW)
    load.whole_round()


def iscsi():
    with Cluster(network="namespaces") as c, tempfile.TemporaryDirectory(prefix="zbs-kernel-", dir="/var/tmp") as d:
        c.export("ext4", size="1G")
        c.export("xfs", size="1G")
        with start_guest(c, d) as g:
            log_in(g, [f"{a}:3260" for a in addresses(c)[:2]])
            wait_for("two volumes with two paths each", lambda: paths(g, "active") == 4 and len(maps(g)) == 2, SLOW)
            a, b = (f"/dev/mapper/{name}" for name in maps(g))
            g.run(f"mkfs.ext4 -q {a} && mkfs.xfs -q {b} && mount {a} /mnt/a && mount {b} /mnt/b", seconds=SLOW)
            load = Load(g, "/mnt/a", "/mnt/b")
            load.whole_round()
            for node in (1, 2):
                path_lost_and_found(c, g, load, node)
            rounds = load.end()
            trimmed = g.run("rm /mnt/a/load* /mnt/b/load* && sync && fstrim -v /mnt/a && fstrim -v /mnt/b", seconds=SLOW)
            check(trimmed.count("trimmed") == 2, trimmed)
            g.run(f"umount /mnt/a /mnt/b && fsck.ext4 -fn {a} && xfs_repair -n {b}", seconds=SLOW)
            errors = g.run(f"dmesg >/run/dmesg && {{ grep -E '{FILE_SYSTEM_ERROR}' /run/dmesg; [ $? -le 1 ]; }}")
            check(not errors, f"the guest's kernel said: {errors}")
        c.wait_in_sync()
        for volume in ("test/ext4", "test/xfs"):
            c.verify(volume)
        return f"{rounds} verified rounds on ext4 and XFS, each path killed and found again"


def nbd():
    with Cluster(network="namespaces") as c, tempfile.TemporaryDirectory(prefix="zbs-kernel-", dir="/var/tmp") as d:
        c.export("v", size="512M")
        with start_guest(c, d) as g:
            address = addresses(c)[0]
            g.run(f"modprobe nbd && nbd-client {address} 10809 /dev/nbd0 -name test/v && mkfs.ext4 -q /dev/nbd0 && "
                  "mount /dev/nbd0 /mnt/a", seconds=SLOW)
            load = Load(g, "/mnt/a")
            load.whole_round()
            rounds = load.end()
            g.run("rm /mnt/a/load* && sync && fstrim -v /mnt/a && umount /mnt/a && fsck.ext4 -fn /dev/nbd0 && "
                  "nbd-client -d /dev/nbd0", seconds=SLOW)
        c.verify("test/v")
        return f"{rounds} verified rounds on ext4"


def address_move(cluster, address, node, to):
    """What keepalived does with a virtual portal (deploy/keepalived.conf): an address goes to another node."""
    def change(word, n):
        inside = ["nsenter", "-t", str(cluster.env()["nodes"][n - 1]["chunk"]["pid"]), "-n"]
        run(*inside, "ip", "addr", word, f"{address}/32", "dev", "eth0")
    if node:
        change("del", node)
    change("add", to)


def nfs():
    with Cluster(network="namespaces") as c, tempfile.TemporaryDirectory(prefix="zbs-kernel-", dir="/var/tmp") as d:
        c.cli("pool", "create", "test", "--replicas", "3")
        c.cli("nfs", "share", "create", "vms", "--pool", "test", "--client", "*,no_root_squash")
        portal = addresses(c)[0].rsplit(".", 1)[0] + ".100"
        address_move(c, portal, None, 1)
        with start_guest(c, d) as g:
            g.put(os.path.join(BIN, "tests/tools/posix_load"), "/run/posix_load")
            g.run("mount -o remount,exec /run; rpcbind -w; rpc.statd; modprobe nfs", seconds=SLOW)
            g.run(f"mount -t nfs -o vers=3,proto=tcp,mountproto=tcp,hard,timeo=50 {portal}:/vms /mnt/a && mkdir /mnt/a/load", seconds=SLOW)
            g.run("flock -n /mnt/a/lock true && exec 9>/mnt/a/lock && flock -n 9 && ! flock -n /mnt/a/other -c false", seconds=SLOW)
            for seed in (1, 2):
                g.run(f"mkdir /mnt/a/tree && /run/posix_load file /mnt/a/file 1500 {seed} && "
                      f"/run/posix_load tree /mnt/a/tree 1500 {seed} && rmdir /mnt/a/tree", seconds=SLOW)
            load = Load(g, "/mnt/a/load")
            load.whole_round()
            for node, to in ((1, 2), (2, 1)):
                c.dev("kill", str(node), "access")
                address_move(c, portal, node, to)
                load.whole_round()
                c.dev("start", str(node), "access")
            rounds = load.end()
            g.run("rm -r /mnt/a/load && sync && umount /mnt/a", seconds=SLOW)
        c.wait_in_sync()
        return f"{rounds} verified rounds, the address moved to another access server and back"


def boot():
    """From a clone of a volume that the guest's disk was copied to, while a chunk server is away."""
    with Cluster(network="namespaces") as c, tempfile.TemporaryDirectory(prefix="zbs-kernel-", dir="/var/tmp") as d:
        url = c.export("golden", size="3G")[0]
        run("qemu-img", "convert", "-n", "-O", "raw", image(), url, timeout=SLOW)
        c.cli("snapshot", "create", "test/golden@1")
        c.cli("volume", "clone", "test/golden@1", "test/vm")
        portals = c.cli_json("iscsi", "export", "test/vm")["portals"]
        with start_guest(c, d, disk=min(p["url"] for p in portals)) as g:
            g.run("sync; echo 3 >/proc/sys/vm/drop_caches")
            c.dev("kill", "1", "chunk")
            g.run("cp -rL /usr/bin /var/tmp/copy && sync && echo 3 >/proc/sys/vm/drop_caches && diff -r /usr/bin /var/tmp/copy",
                  seconds=SLOW)
            c.dev("start", "1", "chunk")
            g.run("mount -o remount,ro /", seconds=SLOW)
        c.wait_in_sync()
        c.verify("test/vm")
        check(run("qemu-img", "compare", image(), url, timeout=SLOW).returncode == 0, "the clone changed its origin")


def guarded(case):
    def run():
        try:
            return case()
        except GuestFailed as e:
            raise Failed(str(e)) from e
    return run


if __name__ == "__main__":
    sys.exit(main({name: guarded(case) for name, case in {"iscsi": iscsi, "nbd": nbd, "nfs": nfs, "boot": boot}.items()}))
