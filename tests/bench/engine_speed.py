# SPDX-License-Identifier: Apache-2.0
"""Speed as a share of what fio gets from the same kind of device, and CPU time per operation.

Two devices of one kind, each written through: one for the chunk server, one for fio (io_uring,
O_DIRECT, RWF_DSYNC). A loop device costs processor time of the kernel for each request, which a
file saves. They take turns; the figures are medians of the rounds, and so are the ratios.
The load is offered through the chunk server's UNIX socket by a program that shares the processors."""
from chunkd import Chunkd, server_format
from common import fio, median_of, print_table, progress
from devices import Backing, Loop, Plain

WORKLOADS = {  # name: (kind, block, depth, wanted share of fio)
    "randwrite4k_qd32": ("randwrite", 4096, 32, 0.90),
    "randread4k_qd1": ("randread", 4096, 1, 0.90),
    "randread4k_qd32": ("randread", 4096, 32, 0.90),
    "seqwrite1m_qd8": ("seqwrite", 1 << 20, 8, 0.95),
    "seqread1m_qd8": ("seqread", 1 << 20, 8, 0.95),
}
EXTENT = 256 << 20
KEYS = ("iops", "mib_s", "mean_us", "p50_us", "p99_us", "p999_us", "cpu_us_per_io")


def options(parser):
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement, after half as much to warm up (1)")
    parser.add_argument("--device", choices=("loop", "file"), default="loop", help="kind of device (loop)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--extents", type=int, default=4, help="of 256 MiB: the working set (4)")
    parser.add_argument("--memory", default="64M", help="of the chunk server (64M)")
    parser.add_argument("--only", nargs="+", choices=tuple(WORKLOADS), default=tuple(WORKLOADS))


def by_fio(raw, args, kind, block, depth, seed):
    rw = {"seqwrite": "write", "seqread": "read"}.get(kind, kind)
    return fio(raw.path, rw, block, depth, f"--size={args.extents * EXTENT}", seconds=args.seconds,
               ramp=args.seconds / 2, seed=seed)


def by_zbs(server, args, kind, block, depth, seed):
    r = server.load(kind, block=block, depth=depth, extents=args.extents, seconds=args.seconds,
                    ramp=args.seconds / 2, seed=seed)
    r["cpu_us_per_io"] = r["server_cpu_us_per_io"]
    if "write" in kind:
        server.settled()  # what it still brings home must not disturb the other
    return r


def measure(args):
    size = args.extents * EXTENT
    out, rows = {}, []
    device = {"loop": Loop, "file": Plain}[args.device]
    with Backing(size * 3 // 2 + (256 << 20)) as a, device(a) as ours, Backing(size) as b, device(b) as raw:
        server_format(ours.path)
        with Chunkd([ours.path], memory=args.memory) as server:
            server.load("seqwrite", block="1M", depth=8, extents=args.extents, bytes=size)
            for name in args.only:
                kind, block, depth, wanted = WORKLOADS[name]
                pairs = []
                for i in range(args.rounds):
                    progress(f"{name} {i + 1}")
                    pairs.append((by_fio(raw, args, kind, block, depth, i + 1),
                                  by_zbs(server, args, kind, block, depth, i + 1)))
                peer, zbs = (median_of(side, KEYS) for side in zip(*pairs))
                ratio = median_of([{"ratio": z["iops"] / f["iops"]} for f, z in pairs], ["ratio"])["ratio"]
                out.update({f"{name}.{who}.{k}": round(r[k], 3)
                            for who, r in (("fio", peer), ("zbs", zbs)) for k in KEYS})
                out[f"{name}.ratio"] = round(ratio, 3)
                rows.append((name, *(r[k] for r in (peer, zbs) for k in ("iops", "mean_us", "p99_us", "cpu_us_per_io")),
                             ratio, f">= {wanted}", "yes" if ratio >= wanted else "NO"))
    print_table(("", *(f"{who} {what}" for who in ("fio", "zbs") for what in ("IOPS", "mean us", "p99 us", "CPU us/IO")),
                 "ratio", "wanted", "met"), rows)
    return out
