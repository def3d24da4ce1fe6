#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an initiator is told of the room that is left on the cluster's disks."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, check, main, wait_for  # noqa: E402
from initiator import Nexus  # noqa: E402

MIB = 1 << 20
MODE_CHANGED = (0x2a, 0x01)


class Thin(Nexus):
    def field(self, at):
        return int.from_bytes(self.data[at:at + 4], "big")

    def room(self):
        """MiB that are available, and those in use; None: not known yet, or an attention came first."""
        status = self.command(bytes([0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 64, 0]), room=64)
        return (self.field(8), self.field(20)) if status == 0 and len(self.data) > 4 else None

    def threshold(self):
        check(self.command(bytes([0x1a, 8, 0x1c, 2, 64, 0]), room=64) == 0, "MODE SENSE")
        return self.field(4 + 20) if self.data[4 + 16] & 0x80 else 0


def threshold():
    with Cluster() as c:
        url = c.export("thin", replicas=2)[2]
        status = c.cli_json("cluster", "status")
        total = status["size_bytes"] // 2 // MIB
        n = Thin(url, "anna")
        wait_for("the room is known", n.room, 10)
        available, used = n.room()
        check(abs(available + used - total) <= 2, f"{available} and {used} MiB of {total}")
        check(abs(n.threshold() - total // 5) <= 2, f"a fifth of {total}: {n.threshold()}")
        percent = min(90, available * 100 // total - 1)
        c.cli("setting", "set", "space.warn", f"{percent}%")
        wait_for("the threshold is told", lambda: n.attention() == MODE_CHANGED, 10)
        check(n.attention() is None and abs(n.threshold() - total * percent // 100) <= total // 100, "and no more")
        return f"{available} MiB of {total} are free"


CASES = {"threshold": threshold}

if __name__ == "__main__":
    sys.exit(main(CASES))
