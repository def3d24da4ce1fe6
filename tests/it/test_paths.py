#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which of its paths an initiator is told to use, by all access servers alike, and where its logins are sent."""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, run, wait_for  # noqa: E402
from initiator import Moved, Nexus  # noqa: E402

OPTIMIZED, NON_OPTIMIZED, PREFERRED = 0, 1, 0x80
STATE_CHANGED = (0x2a, 0x06)


class Path(Nexus):
    """A nexus that knows asymmetric access."""

    wants_paths = True

    def own_group(self):
        check(self.command(bytes([0x12, 1, 0x83, 1, 0, 0]), room=256) == 0, "INQUIRY, page 83h")
        at = 4
        while at < len(self.data):
            if self.data[at + 1] & 0x3f == 0x15:  # target port group
                return int.from_bytes(self.data[at + 6:at + 8], "big")
            at += 4 + self.data[at + 3]
        return None

    def groups(self):
        """{group: state} as REPORT TARGET PORT GROUPS has it; None: there is an attention first."""
        cdb = bytes([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        if self.command(cdb, room=256) != 0:
            return None
        return {int.from_bytes(self.data[at + 2:at + 4], "big"): self.data[at] for at in range(4, len(self.data), 12)}

    def optimize(self, group):
        cdb = bytes([0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0])
        check(self.command(cdb, struct.pack(">4xBxH", OPTIMIZED, group)) == 0, "SET TARGET PORT GROUPS")


def states(groups, optimized, preferred):
    return {g: (OPTIMIZED if g == optimized else NON_OPTIMIZED) | (PREFERRED if g == preferred else 0) for g in groups}


def asymmetric():
    """An initiator on node 2: its paths, seen from all of them."""
    with Cluster() as c:
        urls = c.export("paths")
        hosts = [u.split("/")[2].rsplit(":", 1)[0] for u in urls]
        paths = [Path(u, f"path{i}", hosts[1]) for i, u in enumerate(urls)]
        own = [p.own_group() for p in paths]
        for p in paths:
            wait_for("the path at home is the one, of all", lambda: p.groups() == states(own, own[1], own[1]), 20)
        for p in paths:
            p.attention()  # of an access server that this one had not known yet
        paths[2].optimize(own[0])
        check(paths[2].attention() is None, "who changes it knows")
        for p in paths[:2]:
            check(p.attention() == STATE_CHANGED, "the others are told")
        for p in paths:
            check(p.groups() == states(own, own[0], own[1]), f"it was chosen everywhere: {p.groups()} of {own}")
            check(p.write() == 0, "every path can be written through")
        c.dev("kill", "1", "access")
        for p in paths[1:]:
            wait_for("the loss of the chosen path is told", lambda: p.attention() == STATE_CHANGED, 20)
            check(p.groups() == states(own[1:], own[1], own[1]), f"home again: {p.groups()} of {own}")
        paths[2].optimize(own[2])
        check(paths[1].attention() == STATE_CHANGED, "told again")
        return f"groups {own}"


def sent_to(url, name, source=""):
    """Where a login is sent; "": nowhere."""
    try:
        Nexus(url, name, source).socket.close()
        return ""
    except Moved as to:
        return str(to)


def add_virtual(c, node, portal):
    with open(os.path.join(c.cluster, f"node{node}", "access", "access.conf"), "a") as f:
        f.write(f"iscsi_virtual = {portal}\n")
    c.dev("term", str(node), "access")
    c.dev("start", str(node), "access")


def redirect():
    """Logins are sent to the initiator's own host, and on from the virtual portal, which node 1 has."""
    with Cluster() as c:
        urls = c.export("paths")
        portals = [u.split("/")[2] for u in urls]
        home = portals[1].rsplit(":", 1)[0]
        virtual = portals[0].replace(":3260", ":3261")
        add_virtual(c, 1, virtual)
        url = urls[0].replace(portals[0], virtual)
        wait_for("node 1 serves again", lambda: run("iscsi-inq", url, ok=False).returncode == 0, 20)
        check(sent_to(urls[0], "anna", home) == "", "nobody is sent anywhere unless it is switched on")
        c.cli("setting", "set", "iscsi.redirect", "1")
        wait_for("sent home", lambda: sent_to(urls[0], "bert", home) == portals[1], 5)
        check(sent_to(urls[1], "bert", home) == "", "there it stays")
        check(sent_to(urls[2], "carl", home) == portals[1], "from everywhere")
        check(sent_to(urls[2], "carl", home) == "", "who is back at once stays")
        check("ZBS" in run("iscsi-inq", url).stdout, "libiscsi follows from the virtual portal")
        check(virtual in run("iscsi-ls", f"iscsi://{virtual}").stdout, "which discovery there shows")
        c.dev("kill", "2", "access")
        wait_for("its home is gone", lambda: sent_to(urls[2], f"d{os.urandom(2).hex()}", home) == "", 20)
        c.dev("start", "2", "access")
        wait_for("its home is back", lambda: sent_to(urls[2], f"e{os.urandom(2).hex()}", home) == portals[1], 20)
        return ""


def serving(c):
    """Access servers that the load is logged in at."""
    r = c.cli("--json", "iscsi", "sessions", ok=False)
    return [s["access"] for s in json.loads(r.stdout)] if r.returncode == 0 else None


class LoadAtHome:
    """A load whose home is node 2, through libiscsi and the virtual portal, which node 1 has."""

    def __init__(self, c):
        urls = c.export("paths")
        portals = [u.split("/")[2] for u in urls]
        virtual = portals[0].replace(":3260", ":3261")
        add_virtual(c, 1, virtual)
        c.cli("setting", "set", "iscsi.redirect", "1")
        c.cli("setting", "set", "iscsi.return", "3s")
        hosts = [p.rsplit(":", 1)[0] for p in portals]
        for at in urls[1:]:  # and node 1 below: each has to know of the setting
            wait_for("logins are sent on", lambda: sent_to(at, f"d{os.urandom(2).hex()}", hosts[0]) == portals[0], 20)
        # libiscsi can't be told which address to come from
        run("ip", "route", "replace", "local", "127.0.0.0/8", "dev", "lo", "src", hosts[1], "table", "local")
        url = urls[0].replace(portals[0], virtual)
        wait_for("sent home", lambda: sent_to(url, f"e{os.urandom(2).hex()}") == portals[1], 20)
        self.cluster, self.stop = c, os.path.join(c.dir, "stop")
        self.load = c.load([url], 300, stop_file=self.stop)
        self.is_home("it begins at home")

    def is_home(self, what):
        wait_for(what, lambda: serving(self.cluster) == ["access-2"], 30)

    def is_elsewhere(self, what):
        wait_for(what, lambda: serving(self.cluster) in (["access-1"], ["access-3"]), 30)
        with open(os.path.join(self.cluster.cluster, "node2", "access", "log")) as f:
            own = [line.split()[3] for line in f if "initiator=iqn.2026-11.io.zbs.test:load " in line]
        check("iscsi.session" in own and "iscsi.closed" not in own, f"{what}, by a logout, not cut off: {own}")

    def end(self):
        with open(self.stop, "w"):
            pass
        r = self.cluster.load_result(self.load)
        return f"{r['reads'] + r['writes']} commands, at {r['reconnects'] + 1} servers in turn, no error"


def home():
    """It returns by itself once its home is well again, and leaves when that stops in order."""
    with Cluster() as c:
        load = LoadAtHome(c)
        c.dev("kill", "2", "access")
        load.is_elsewhere("another serves it")
        c.dev("start", "2", "access")
        load.is_home("home again")
        c.dev("term", "2", "access")
        load.is_elsewhere("its home is left")
        return load.end()


def maintenance():
    """It leaves a host that goes into maintenance, though the access server there runs on, and comes back after it."""
    with Cluster() as c:
        load = LoadAtHome(c)
        c.cli("chunk", "maintenance", "host-2", "on")
        load.is_elsewhere("its home is left")
        c.cli("chunk", "maintenance", "host-2", "off")
        load.is_home("home again")
        return load.end()


CASES = {"asymmetric": asymmetric, "redirect": redirect, "home": home, "maintenance": maintenance}

if __name__ == "__main__":
    sys.exit(main(CASES))
