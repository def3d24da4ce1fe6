# SPDX-License-Identifier: Apache-2.0
"""Memory after the start, and how long the start takes, with little and with much data.

The device is a sparse file, so its size costs nothing; the data that it holds does. A start after
a stop in good order, and one after kill -9 in the middle of writing, which replays the journal."""
import os
import tempfile

from chunkd import Chunkd, server_format
from common import memory_mib, print_table, progress, run
from devices import DIR

EXTENT_MIB = 256


def sizes(text):
    return [int(n) for n in text.split(",")]


def options(parser):
    parser.add_argument("--device", default="64G", help="the sparse file's size (64G)")
    parser.add_argument("--data-mib", type=sizes, default=[0, 256, 1024, 2048], metavar="MIB,…",
                        help="held when it starts, ascending (0,256,1024,2048)")
    parser.add_argument("--memory", default="1G", help="of the chunk server (1G)")


def start(server, out, rows, name, data):
    seconds = server.start()
    figures = {"start_s": round(seconds, 4), "rss_mib": round(memory_mib(server.pid, "Rss"), 1),
               "pss_mib": round(memory_mib(server.pid), 1)}
    out.update({f"{name}.{k}": v for k, v in figures.items()})
    rows.append((name, data, *figures.values()))


def measure(args):
    out, rows, held = {}, [], 0
    fd, path = tempfile.mkstemp(prefix="zbs-bench-", dir=DIR)
    os.close(fd)
    try:
        run("truncate", "-s", args.device, path)
        server_format(path)
        with Chunkd([path], memory=args.memory) as server:
            for mib in args.data_mib:
                progress(f"{mib} MiB of data")
                if mib > held:
                    server.load("seqwrite", block="1M", depth=8, bytes=f"{mib - held}M",
                                first_extent=1 + held // EXTENT_MIB, extents=-(-(mib - held) // EXTENT_MIB))
                    held = mib
                server.stop()
                start(server, out, rows, f"data_{mib}m", mib)
            if held:
                progress("killed while writing")
                server.load("randwrite", depth=32, seconds=2, extents=held // EXTENT_MIB)
                server.kill()
                start(server, out, rows, "killed", held)
    finally:
        os.unlink(path)
    print_table(("", "data MiB", "start s", "RSS MiB", "PSS MiB"), rows)
    return out
