#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an NFS client needs beside NFS: the portmapper, MOUNT, locks (NLM) and restarts of clients (NSM), over UDP;
locks that are waited for, which the server grants by calling its client."""
import os
import struct
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")]
from cluster import Cluster, check, main, wait_for  # noqa: E402
from nfs_client import MOUNT, NFS, NLM, NSM, PORTMAP, TCP, UDP, Client, DatagramClient, Error, opaque, take_opaque  # noqa: E402,E501
from onc_service import LockClient  # noqa: E402

NLM_TEST, NLM_LOCK, NLM_CANCEL, NLM_UNLOCK = 1, 2, 3, 4
GRANTED, DENIED, BLOCKED = 0, 1, 3


def share(c):
    c.cli("pool", "create", "test", "--replicas", "3")
    c.cli("nfs", "share", "create", "files", "--pool", "test", "--client", "*,no_root_squash")


def lock_of(name, handle, svid, offset, length):
    return opaque(name) + opaque(handle) + opaque(b"owner %d" % svid) + struct.pack(">IQQ", svid, offset, length)


def lock_arguments(lock, block=False, exclusive=True):
    return opaque(b"cookie") + struct.pack(">II", block, exclusive) + lock + struct.pack(">II", 0, 1)


def take_lock_status(answer):
    cookie, at = take_opaque(answer, 0)
    check(cookie == b"cookie", answer)
    return struct.unpack_from(">I", answer, (at + 3) & ~3)[0]


# ---- UDP ----

def port_of(portmap, program, version, protocol):
    return struct.unpack(">I", portmap.call(PORTMAP, 2, 3, struct.pack(">IIII", program, version, protocol, 0)))[0]


def udp():
    with Cluster() as c:
        share(c)
        node = c.env()["nodes"][0]
        host, port = node["nfs"].rsplit(":", 1)
        tcp = Client([node["nfs"]], "files")
        handle = tcp.create("f")

        portmap = DatagramClient(node["portmap"])
        for program, version in ((MOUNT, 3), (NLM, 4), (NSM, 1)):
            for protocol in (TCP, UDP):
                check(port_of(portmap, program, version, protocol) == int(port), (program, protocol))
        check(port_of(portmap, NFS, 3, TCP) == int(port) and port_of(portmap, NFS, 3, UDP) == 0, "ports of NFS")

        client = DatagramClient(f"{host}:{port}")
        root, _ = take_opaque(client.call(MOUNT, 3, 1, opaque(b"/files")), 4)
        check(root == tcp.root, "the root's handle")
        try:
            client.call(NFS, 3, 0)
            check(False, "NFS over UDP")
        except Error:
            pass

        def ask(procedure, lock, times=1):
            arguments = lock_arguments(lock) if procedure == NLM_LOCK else opaque(b"cookie") + lock
            return take_lock_status(client.call(NLM, 4, procedure, arguments, times))
        mine, other = lock_of(b"one", handle, 1, 0, 100), lock_of(b"two", handle, 2, 50, 100)
        check(ask(NLM_LOCK, mine, times=3) == GRANTED, "a lock")
        check(ask(NLM_LOCK, other) == DENIED, "a lock that another has")
        check(ask(NLM_UNLOCK, mine, times=3) == GRANTED, "an unlock")
        check(ask(NLM_LOCK, other) == GRANTED, "a lock that nobody has")
        client.call(NSM, 1, 6, opaque(b"two") + struct.pack(">I", 3))  # as sm-notify does
        check(ask(NLM_LOCK, mine) == GRANTED, "a lock of a client that has restarted")
        for k in (client, portmap, tcp):
            k.close()


# ---- locks that are waited for ----

HOSTS = "127.31.41.1", "127.31.41.2"  # of the clients


class Locker(Client):
    def ask(self, procedure, lock, block=False):
        arguments = opaque(b"cookie") + lock
        if procedure == NLM_LOCK:
            arguments = lock_arguments(lock, block)
        elif procedure == NLM_CANCEL:
            arguments = opaque(b"cookie") + struct.pack(">II", 1, 1) + lock
        return take_lock_status(self.call(NLM, procedure, arguments, version=4))


def waits_and_gets(one, two, handle, services):
    """The first client has the lock, the second waits for it and is called."""
    mine, other = lock_of(b"one", handle, 1, 0, 100), lock_of(b"two", handle, 2, 50, 2**64 - 1)
    before = len(services.granted)
    check(one.ask(NLM_LOCK, mine) == GRANTED, "a lock")
    check(two.ask(NLM_LOCK, other, block=True) == BLOCKED, "a lock that another has")
    time.sleep(1)  # nothing may happen meanwhile
    check(len(services.granted) == before, "granted although another has it")
    check(one.ask(NLM_UNLOCK, mine) == GRANTED, "an unlock")
    wait_for("the call to the client", lambda: len(services.granted) == before + 1, 5)
    host, exclusive, got, svid, offset, length = services.granted[-1]
    check((exclusive, got, svid, offset, length) == (1, handle, 2, 50, 2**64 - 1), services.granted[-1])
    check(host == two.servers[0].rsplit(":", 1)[0], f"called from {host}, not from where it has asked")
    return mine, other


def granted():
    with Cluster() as c:
        share(c)
        nodes = c.env()["nodes"]
        port = int(nodes[0]["portmap"].rsplit(":", 1)[1])
        one, two = (Locker([n["nfs"]], "files", host=h) for n, h in zip(nodes, HOSTS))
        handle = one.create("f")
        for protocols in (TCP, UDP), (TCP,), (UDP,):
            services = LockClient(HOSTS[1], port, protocols)
            mine, other = waits_and_gets(one, two, handle, services)
            check(one.ask(NLM_LOCK, mine) == DENIED, "the second client has it")
            check(two.ask(NLM_UNLOCK, other) == GRANTED, "an unlock")

            for answer in (DENIED, None):  # it does not want it; it does not answer
                services.status = answer
                mine, other = waits_and_gets(one, two, handle, services)
                wait_for("the lock is free", lambda: one.ask(NLM_LOCK, mine) == GRANTED, 10)
                check(two.ask(NLM_LOCK, other, block=True) == BLOCKED, "a lock that another has")
                check(two.ask(NLM_CANCEL, other) == GRANTED, "a cancel")
                calls = len(services.granted)
                check(one.ask(NLM_UNLOCK, mine) == GRANTED, "an unlock")
                time.sleep(2)
                check(len(services.granted) == calls, "granted although it was cancelled")
            services.close()
        one.close()
        two.close()


if __name__ == "__main__":
    sys.exit(main({"udp": udp, "granted": granted}))
