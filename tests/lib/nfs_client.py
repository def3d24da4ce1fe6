# SPDX-License-Identifier: Apache-2.0
"""A small client of NFS version 3 over TCP, for tests: a call at a time, which is sent again, under its
number, to the next server when one does not answer, as a kernel's client does when an address moves."""
import socket
import struct
import threading

PORTMAP, NFS, MOUNT, NLM, NSM = 100000, 100003, 100005, 100021, 100024
TCP, UDP = 6, 17
JUKEBOX = 10008


class Error(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class Client:
    def __init__(self, servers, share, timeout=5, host=""):
        """servers: "address:port", the one used first at the start; host: our own address."""
        self.host = host
        self.servers = list(servers)
        self.timeout = timeout
        self.xid = 1
        self.socket = None
        self.moved = 0  # connections that broke
        answer = self.call(MOUNT, 1, opaque(f"/{share}".encode()))
        self.root = take_opaque(*take_status(answer))[0]

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    # ---- calls ----

    def connect(self):
        host, port = self.servers[0].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=self.timeout, source_address=(self.host, 0))

    def receive(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def attempt(self, message):
        if not self.socket:
            self.connect()
        self.socket.sendall(struct.pack(">I", 1 << 31 | len(message)) + message)
        length = struct.unpack(">I", self.receive(4))[0] & 0x7fffffff
        return take_answer(self.xid, self.receive(length))

    def call(self, program, procedure, arguments, version=3):
        self.xid += 1
        message = call_message(self.xid, program, version, procedure, arguments)
        for _ in range(20):
            try:
                return self.attempt(message)
            except OSError:
                self.close()
                self.moved += 1
                self.servers.append(self.servers.pop(0))
        raise Error("no server answers")

    def nfs(self, procedure, arguments):
        """The results behind the status; asks again while the server can't now."""
        for _ in range(100):
            try:
                return take_status(self.call(NFS, procedure, arguments))
            except Error as e:
                if e.status != JUKEBOX:
                    raise
        raise Error("the server can't now, for long")

    # ---- procedures ----

    def create(self, name):
        data, at = self.nfs(8, opaque(self.root) + opaque(name.encode()) + struct.pack(">IIIIIII", 0, 0, 0, 0, 0, 0, 0))
        return take_opaque(data, at + 4)[0]

    def lookup(self, name):
        return take_opaque(*self.nfs(3, opaque(self.root) + opaque(name.encode())))[0]

    def write(self, handle, offset, data, stable=2):
        self.nfs(7, opaque(handle) + struct.pack(">QII", offset, len(data), stable) + opaque(data))

    def read(self, handle, offset, length):
        data, at = self.nfs(6, opaque(handle) + struct.pack(">QI", offset, length))
        at += 4 + 84 * struct.unpack_from(">I", data, at)[0]
        return take_opaque(data, at + 8)[0]

    def truncate(self, handle, size):
        self.nfs(2, opaque(handle) + struct.pack(">IIIIQIII", 0, 0, 0, 1, size, 0, 0, 0))


class DatagramClient:
    """Calls of any program over UDP, sent again until they are answered."""
    def __init__(self, server, xid=1):
        host, port = server.rsplit(":", 1)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(1)
        self.socket.connect((host, int(port)))  # an answer from another address would not come in
        self.xid = xid

    def close(self):
        self.socket.close()

    def call(self, program, version, procedure, arguments=b"", times=1):
        """times: it is sent so often at once, as a network may do it."""
        self.xid += 1
        for _ in range(20):
            for _ in range(times):
                self.socket.send(call_message(self.xid, program, version, procedure, arguments))
            try:
                while True:
                    answer = self.socket.recv(65536)
                    if struct.unpack_from(">I", answer)[0] == self.xid:  # else a former call's second answer
                        return take_answer(self.xid, answer)
            except OSError:  # nothing came, or nobody listens there yet
                pass
        raise Error("no server answers")


# ---- ONC RPC ----

def call_message(xid, program, version, procedure, arguments):
    credential = struct.pack(">IIIII", 0, 0, 0, 0, 0)
    return (struct.pack(">IIIIII", xid, 0, 2, program, version, procedure) +
            struct.pack(">II", 1, len(credential)) + credential + struct.pack(">II", 0, 0) + arguments)


def take_answer(xid, answer):
    if struct.unpack_from(">III", answer) != (xid, 1, 0) or struct.unpack_from(">I", answer, 20)[0] != 0:
        raise Error(f"an answer that is none: {answer[:24].hex()}")
    return answer[24:]


# ---- XDR ----

def opaque(data):
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def take_status(answer):
    status = struct.unpack_from(">I", answer)[0]
    if status:
        raise Error(status)
    return answer, 4


def take_opaque(data, at):
    length = struct.unpack_from(">I", data, at)[0]
    return data[at + 4:at + 4 + length], at + 4 + length


# ---- addresses ----

def forward(listen, to):
    """What comes to one address goes on to another, for as long as this process lives."""
    def pump(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def loop(server):
        while True:
            a, _ = server.accept()
            b = socket.create_connection(to)
            for pair in ((a, b), (b, a)):
                threading.Thread(target=pump, args=pair, daemon=True).start()
    threading.Thread(target=loop, args=(socket.create_server(listen),), daemon=True).start()
