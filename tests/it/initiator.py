# SPDX-License-Identifier: Apache-2.0
"""An iSCSI initiator of a few lines, for tests that need sessions with names, portals or commands of their own."""
import socket
import struct

from cluster import check


STATE_CHANGED = b"\x2a\x06"  # ASYMMETRIC ACCESS STATE CHANGED


class Moved(Exception):
    """The login was sent on to this address."""


class Nexus:
    """One session: a command at a time, immediate data only."""

    wants_paths = False  # does the test look at attentions of asymmetric access? Else the command is repeated

    def __init__(self, url, name, source=""):
        """source: address that the initiator has; any, if it is empty."""
        portal, self.iqn = url.split("/")[2:4]
        host, port = portal.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=60, source_address=(source, 0))
        self.number, self.status_number = 1, 0
        keys = [f"InitiatorName=iqn.2024-01.example:{name}", "SessionType=Normal", f"TargetName={self.iqn}",
                "HeaderDigest=None", "DataDigest=None", "InitialR2T=No", "ImmediateData=Yes"]
        text = "".join(k + "\0" for k in keys).encode()
        bhs = struct.pack(">BBBBI6sHIHHII16x", 0x43, 0x87, 0, 0, len(text), b"\x80" + name.encode()[:5].ljust(5), 0, 1,
                          0, 0, self.number, 0)
        answer, said = self.exchange(bhs, text)
        if answer[36:38] == b"\1\1":
            raise Moved(said.split(b"TargetAddress=")[1].split(b"\0")[0].decode())
        check(answer[0] == 0x23 and answer[36] == 0, f"login of {name}: {answer[36:38].hex()}")
        while self.attention() is not None:
            pass

    def receive(self, n):
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            if not piece:
                raise ConnectionError("the target closed the connection")
            data += piece
        return data

    def exchange(self, bhs, data=b""):
        self.socket.sendall(bhs + data + bytes(-len(data) % 4))
        answer = self.receive(48)
        length = int.from_bytes(answer[5:8], "big")
        body = self.receive(length + -length % 4)[:length]
        self.status_number = int.from_bytes(answer[24:28], "big") + 1
        return answer, body

    def command(self, cdb, out=b"", room=0):
        """Status; what was read is in self.data. Access servers may come to know each other at any time."""
        status = self.once(cdb, out, room)
        while status == 2 and self.data[14:16] == STATE_CHANGED and not self.wants_paths:
            status = self.once(cdb, out, room)
        return status

    def once(self, cdb, out, room):
        flags = 0x81 | (0x20 if out else 0) | (0x40 if room else 0)
        bhs = struct.pack(">BBHI8sIIII16s", 0x01, flags, 0, len(out), bytes(8), self.number, len(out) or room, self.number,
                          self.status_number, cdb.ljust(16, b"\0"))
        self.number += 1
        answer, self.data = self.exchange(bhs, out)
        if answer[0] == 0x25 and not answer[1] & 1:  # the status comes by itself
            answer = self.receive(48)
        return answer[3]

    def attention(self):
        """Additional sense code and qualifier of the unit attention that is reported next; None: there is none."""
        if self.command(bytes(6)) != 2:
            return None
        return self.data[2 + 12], self.data[2 + 13]

    def write(self):
        return self.command(bytes([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]), bytes(512))
