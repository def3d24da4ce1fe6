# SPDX-License-Identifier: Apache-2.0
"""A small server of ONC RPC over TCP and UDP, for what an NFS server asks of its clients."""
import socket
import struct
import threading

from nfs_client import NLM, PORTMAP, TCP, UDP, opaque, take_opaque


class Service:
    """procedures: {(program, procedure): results(arguments, the caller's host)}; None: no answer."""
    def __init__(self, host, port, procedures, protocols=(TCP, UDP)):
        self.procedures = procedures
        self.stream = self.datagram = None
        self.threads = []
        if TCP in protocols:
            self.stream = socket.create_server((host, port))
            port = self.stream.getsockname()[1]
            self.start(self.accept)
        if UDP in protocols:
            self.datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.datagram.bind((host, port))
            port = self.datagram.getsockname()[1]
            self.start(self.receive)
        self.port = port

    def start(self, what):
        self.threads.append(threading.Thread(target=what, daemon=True))
        self.threads[-1].start()

    def close(self):
        for s in (self.stream, self.datagram):
            try:
                if s:
                    s.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
            except OSError:
                pass
        for t in self.threads:
            t.join()
        for s in (self.stream, self.datagram):
            if s:
                s.close()

    def answer(self, message, peer):
        xid, _, _, program, _, procedure = struct.unpack_from(">IIIIII", message)
        at = 24
        for _ in ("credential", "verifier"):
            _, at = take_opaque(message, at + 4)
            at += -at % 4
        results = self.procedures[program, procedure](message[at:], peer[0])
        return None if results is None else struct.pack(">IIIIII", xid, 1, 0, 0, 0, 0) + results

    def accept(self):
        try:
            while True:
                s, peer = self.stream.accept()
                threading.Thread(target=self.serve, args=(s, peer), daemon=True).start()
        except OSError:
            pass

    def serve(self, s, peer):
        try:
            with s, s.makefile("rb") as stream:
                while len(mark := stream.read(4)) == 4:
                    results = self.answer(stream.read(struct.unpack(">I", mark)[0] & 0x7fffffff), peer)
                    if results is not None:
                        s.sendall(struct.pack(">I", 1 << 31 | len(results)) + results)
        except OSError:  # it did not wait for the answer
            pass

    def receive(self):
        try:
            while True:
                message, peer = self.datagram.recvfrom(65536)
                if not message:  # it was closed
                    return
                results = self.answer(message, peer)
                if results is not None:
                    self.datagram.sendto(results, peer)
        except OSError:
            pass


class LockClient:
    """The portmapper and the lock manager of an NFS client, which is called when a lock is there."""
    def __init__(self, host, portmap_port, protocols=(TCP, UDP)):
        self.status = 0     # what it answers
        self.granted = []   # (caller's host, exclusive, handle, svid, offset, length)
        self.protocols = protocols
        self.manager = Service(host, 0, {(NLM, 5): self.on_granted}, protocols)
        self.portmap = Service(host, portmap_port, {(PORTMAP, 3): self.on_getport})

    def close(self):
        self.manager.close()
        self.portmap.close()

    def on_getport(self, arguments, _):
        program, version, protocol, _ = struct.unpack(">IIII", arguments)
        there = (program, version) == (NLM, 4) and protocol in self.protocols
        return struct.pack(">I", self.manager.port if there else 0)

    def on_granted(self, arguments, peer):
        cookie, at = take_opaque(arguments, 0)
        at += -at % 4
        exclusive = struct.unpack_from(">I", arguments, at)[0]
        _, at = take_opaque(arguments, at + 4)
        handle, at = take_opaque(arguments, at + -at % 4)
        _, at = take_opaque(arguments, at + -at % 4)
        self.granted.append((peer, exclusive, handle, *struct.unpack_from(">IQQ", arguments, at + -at % 4)))
        return None if self.status is None else opaque(cookie) + struct.pack(">I", self.status)
