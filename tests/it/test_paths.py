#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which of its paths an initiator is told to use, by all access servers alike."""
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, wait_for  # noqa: E402
from initiator import Nexus  # noqa: E402

OPTIMIZED, NON_OPTIMIZED, PREFERRED = 0, 1, 0x80
STATE_CHANGED = (0x2a, 0x06)


class Path(Nexus):
    """A nexus that knows asymmetric access."""

    def own_group(self):
        check(self.command(bytes([0x12, 1, 0x83, 1, 0, 0]), room=256) == 0, "INQUIRY, page 83h")
        at = 4
        while at < len(self.data):
            if self.data[at + 1] & 0x3f == 0x15:  # target port group
                return int.from_bytes(self.data[at + 6:at + 8], "big")
            at += 4 + self.data[at + 3]
        return None

    def groups(self):
        """{group: state} as REPORT TARGET PORT GROUPS has it."""
        cdb = bytes([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
        check(self.command(cdb, room=256) == 0, "REPORT TARGET PORT GROUPS")
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
            check(p.groups() == states(own, own[1], own[1]), f"the path at home is the one: {p.groups()} of {own}")
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


CASES = {"asymmetric": asymmetric}

if __name__ == "__main__":
    sys.exit(main(CASES))
