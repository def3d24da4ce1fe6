# SPDX-License-Identifier: Apache-2.0
"""Operations a second with one, two and four workers, on a device with artificial latency.

Two processors can't show it on a fast device: client and server share them. So each request waits
before it goes to the device (ZBS_DISK_DELAY_US, in the debug build), every worker has the same
number of operations in flight on extents of its own, and what is shown is that no worker waits for another one."""
import os

from chunkd import Chunkd, server_format
from common import ROOT, median_of, print_table, progress
from devices import Backing, Loop

WANTED = 0.9  # of n times what one worker does
KINDS = ("randwrite", "randread")
EXTENTS = 32  # hashed over the workers
SPAN = 16 << 20


def options(parser):
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--delay-us", type=int, default=5000, help="of every request (5000)")
    parser.add_argument("--depth", type=int, default=8, help="for each worker (8)")
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement (1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default=os.path.join(ROOT, "build", "debug"),
                        help="folder of a zbs-chunkd with test hooks (build/debug)")


def with_workers(loop, args, workers):
    server_format(loop.path, workers=workers)
    out = {}
    with Chunkd([loop.path], programs=args.programs, env={"ZBS_DISK_DELAY_US": str(args.delay_us)}) as server:
        server.load("seqwrite", block="256K", depth=64, extents=EXTENTS, streams=EXTENTS, span=SPAN,
                    bytes=EXTENTS * SPAN)
        for kind in KINDS:
            progress(f"{kind}, {workers} workers")
            server.settled()
            rounds = [server.load(kind, depth=args.depth, per_worker=True, extents=EXTENTS, span=SPAN, seconds=args.seconds,
                                  ramp=0.5) for _ in range(args.rounds)]
            out[kind] = median_of(rounds, ("iops", "mean_us", "server_cpu_us_per_io"))
    return out


def measure(args):
    out, rows = {}, []
    with Backing(2 * EXTENTS * SPAN + (512 << 20)) as backing, Loop(backing) as loop:
        results = {n: with_workers(loop, args, n) for n in args.workers}
    first = args.workers[0]
    for kind in KINDS:
        for n in args.workers:
            r = results[n][kind]
            share = r["iops"] / (results[first][kind]["iops"] * n / first)
            out.update({f"{kind}.w{n}.{k}": round(v, 2) for k, v in r.items()})
            out[f"{kind}.w{n}.share"] = round(share, 3)
            rows.append((f"{kind} {n}", r["iops"], r["mean_us"], r["server_cpu_us_per_io"], share, f">= {WANTED}",
                         "yes" if share >= WANTED else "NO"))
    print_table(("workers", "IOPS", "mean us", "CPU us/IO", "share of linear", "wanted", "met"), rows)
    return out
