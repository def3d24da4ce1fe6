#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Persistent reservations over the access servers of a cluster: valid on every path at once, kept when
access servers and the leading meta server die."""
import os
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402
from initiator import Nexus  # noqa: E402

CONFLICT = 0x18
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS, WRITE_EXCLUSIVE_REGISTRANTS = 1, 3, 5


class Reserver(Nexus):
    """A nexus that reserves."""

    def reserve_out(self, action, key, action_key, kind=0):
        parameters = struct.pack(">QQIB3x", key, action_key, 0, 1)
        return self.command(bytes([0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0]), parameters)

    def keys(self):
        check(self.command(bytes([0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0]), room=256) == 0, "READ KEYS")
        return [int.from_bytes(self.data[i:i + 8], "big") for i in range(8, len(self.data), 8)]


def reservations():
    with Cluster() as c:
        urls = c.export("shared")
        a, b = Reserver(urls[0], "anna"), Reserver(urls[1], "bert")
        check(b.write() == 0, "nothing is reserved yet")
        start = time.monotonic()
        check(a.reserve_out(0, 0, 0xA) == 0, "REGISTER")
        check(a.reserve_out(1, 0xA, 0, WRITE_EXCLUSIVE_REGISTRANTS) == 0, "RESERVE")
        took = (time.monotonic() - start) / 2
        check(b.write() == CONFLICT, "the other path did not know of the reservation")
        check(a.write() == 0, "the holder may write")

        c.dev("kill", "1", "access")
        check(b.write() == CONFLICT, "the reservation died with its access server")
        c.dev("kill", str(c.leader_node()), "meta")
        wait_for("a new leader", lambda: b.keys() == [0xA] and b.write() == CONFLICT, 20)
        a = Reserver(urls[2], "anna")
        check(a.write() == CONFLICT, "through another target port it is another nexus")
        wait_for("the third access server registers",
                 lambda: a.reserve_out(0, 0, 0xC) == 0 and sorted(a.keys()) == [0xA, 0xC], 30)
        check(a.write() == 0, "a registrant may write")
        check(b.reserve_out(6, 0, 0xB) == 0 and b.reserve_out(4, 0xB, 0xC, 5) == 0, "PREEMPT of a registration")
        check(a.command(bytes(6)) == 2 and a.write() == CONFLICT, "the preempted nexus is told and shut out")
        check(b.reserve_out(3, 0xB, 0) == 0 and a.command(bytes(6)) != 0x18 and a.write() == 0, "CLEAR")
        return f"a change took {took * 1000:.0f} ms"


def io(uri, command):
    """What qemu-io says of one command, over a connection of its own."""
    r = run("qemu-io", "-f", "raw", "-c", command, uri, ok=False)
    return r.stdout + r.stderr


def nbd():
    """NBD clients can't register: what an initiator reserves shuts them out, on every access server, also those
    that are connected."""
    with Cluster() as c:
        a = Reserver(c.export("shared")[0], "anna")
        uris = [f"nbd+unix:///test/shared?socket={n['nbd_unix']}" for n in c.env()["nodes"]]
        connected = subprocess.Popen(["qemu-io", "-f", "raw", uris[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)
        try:
            connected.stdin.write("write 0 4096\n")
            connected.stdin.flush()
            while "wrote 4096/4096" not in (line := connected.stdout.readline()):
                check(line, "the client that stays connected ended")
            check(a.reserve_out(0, 0, 0xA) == 0 and a.reserve_out(1, 0xA, 0, WRITE_EXCLUSIVE) == 0, "RESERVE")
            said = connected.communicate("write 0 4096\nread 0 4096\nquit\n", timeout=30)[0]
            check("Operation not permitted" in said and "read 4096/4096" in said, f"a connected client: {said}")
        finally:
            connected.kill()
            connected.wait()
        for uri in uris:
            for command in ("write 0 4096", "write -z 0 4096", "discard 0 4096"):
                check("Operation not permitted" in io(uri, command), f"{command} while it is reserved")
            check("read 4096/4096" in io(uri, "read 0 4096"), "write exclusive lets others read")
        check(a.write() == 0, "the holder may write")
        check(a.reserve_out(2, 0xA, 0, WRITE_EXCLUSIVE) == 0 and a.reserve_out(1, 0xA, 0, EXCLUSIVE_ACCESS) == 0, "type")
        for uri in uris:
            check("Operation not permitted" in io(uri, "read 0 4096"), "exclusive access lets nobody read")
        check(a.reserve_out(3, 0xA, 0) == 0, "CLEAR")
        for uri in uris:
            check("wrote 4096/4096" in io(uri, "write 0 4096"), "nothing is reserved any more")
        return "write exclusive, exclusive access, cleared"


def administrator():
    """What the command line shows of sessions and reservations, and the end of one whose holder does not end it."""
    with Cluster() as c:
        urls = c.export("shared")
        a, b = Reserver(urls[0], "anna"), Reserver(urls[1], "bert")
        check(a.reserve_out(0, 0, 0xA) == 0 and a.reserve_out(1, 0xA, 0, WRITE_EXCLUSIVE) == 0, "RESERVE")
        check(a.write() == 0 and b.write() == CONFLICT, "one holds it")
        sessions = {s["initiator"].split(":")[1]: s for s in c.cli_json("iscsi", "sessions")}
        check(sessions["anna"]["access"] == "access-1" and sessions["bert"]["access"] == "access-2", f"{sessions}")
        check(sessions["anna"]["writes"] == 1 and sessions["anna"]["write_bytes"] == 512, f"{sessions['anna']}")
        check("INITIATOR" in c.cli("iscsi", "sessions").stdout, "a table")
        shown = c.cli_json("reservation", "show", "test/shared")
        check(shown["type"] == "write exclusive" and len(shown["initiators"]) == 1, f"{shown}")
        check(shown["initiators"][0]["key"] == "0xa" and shown["initiators"][0]["holder"], f"{shown}")
        check("write exclusive" in c.cli("reservation", "show", "test/shared").stdout, "a table")
        check(c.cli("reservation", "clear", "test/shared", ok=False).returncode == 2, "not without --yes")
        check(c.cli("reservation", "show", "test/none", ok=False).returncode == 3, "no such volume")
        c.cli("reservation", "clear", "test/shared", "--yes")
        wait_for("others write again", lambda: b.write() == 0, 5)
        wait_for("the former holder is told", lambda: a.attention() == (0x2a, 0x03), 5)
        check(a.keys() == [] and c.cli_json("reservation", "show", "test/shared")["type"] == "none", "nothing is left")
        c.cli("reservation", "clear", "test/shared", "--yes")
        return ""


CASES = {"reservations": reservations, "nbd": nbd, "administrator": administrator}

if __name__ == "__main__":
    sys.exit(main(CASES))
