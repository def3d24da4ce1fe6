# SPDX-License-Identifier: Apache-2.0
"""Write amplification and space: what the block layer counted, for each byte that was written.

Appends four times, each in another file (extents), writes the first anew from its beginning to its end, in
pieces that are smaller than a block, then overwrites 4 KiB at random in all of them, then writes 4 KiB at random where nothing was yet. Overwriting in a file system is in place: torn by
a crash, without checksums; that is why it can be cheaper than a journal.
The counter is read when nothing more is written: all that is journaled has come home by then.
Depth: what is in flight at once. Every write is durable before the next one starts in its place."""
import os

from chunkd import Chunkd, server_format
from common import fio, print_table, progress, run_json, tool
from devices import Backing, Loop, Mounted

APPENDS = {"append128k_qd1": (131072, 1), "append128k_qd8": (131072, 8),
           "append1m_qd1": (1 << 20, 1), "append1m_qd8": (1 << 20, 8)}
REWRITES = {"rewrite128k_qd1": (131072, 1), "rewrite64k_qd4": (65536, 4)}
OVERWRITES = {"overwrite4k_qd1": 1, "overwrite4k_qd32": 32}
SPARSE = "sparse4k_qd1"
LIMITS = {"append": 1.02, "rewrite": 1.05, "overwrite": 2.1, "sparse": 2.1}
EXTENT = 256 << 20


def options(parser):
    parser.add_argument("--extents", type=int, default=1,
                        help="of 256 MiB that each of the four appends fills; the overwrites go to all (1)")
    parser.add_argument("--overwrite-mib", type=int, default=64, help="at depth 1; four times as much at 32, a quarter where nothing was (64)")
    parser.add_argument("--memory", default="64M", help="of the chunk server (64M)")
    parser.add_argument("--journal", help="of the chunk server (its default)")
    parser.add_argument("--only", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS), help="systems (all)")


class Zbs:
    """The chunk server."""

    def __init__(self, loop, args):
        self.loop, self.args = loop, args

    def __enter__(self):
        server_format(self.loop.path, journal=self.args.journal)
        self.server = Chunkd([self.loop.path], memory=self.args.memory).__enter__()
        self.used_bytes = 0
        return self

    def __exit__(self, *error):
        self.server.__exit__(*error)

    def append(self, i, block, depth):
        n = self.args.extents
        return self.load("seqwrite", first_extent=1 + i * n, extents=n, block=block, depth=depth, bytes=n * EXTENT)

    def rewrite(self, block, depth):
        return self.append(0, block, depth)

    def overwrite(self, size, depth):
        return self.load("randwrite", extents=len(APPENDS) * self.args.extents, depth=depth, bytes=size)

    def sparse(self, size):
        return self.load("randwrite", first_extent=1 + len(APPENDS) * self.args.extents, bytes=size)

    def load(self, rw, **options):
        r = self.server.load(rw, **options)
        self.used_bytes = r["used_bytes"]
        return r

    def flush(self):
        self.loop.settled()

    def used(self):
        return self.used_bytes


class FileSystem:
    def __init__(self, kind, loop, args):
        self.mounted, self.args, self.files = Mounted(kind, loop.path), args, []
        self.loop = loop

    def __enter__(self):
        self.mounted.__enter__()
        self.empty = self.used()
        return self

    def __exit__(self, *error):
        self.mounted.__exit__(*error)

    def append(self, i, block, depth):
        self.files.append(f"{self.mounted.dir}/file{i}")
        return fio(self.files[-1], "write", block, depth, "--fallocate=none", size=self.args.extents * EXTENT)

    def rewrite(self, block, depth):
        return fio(self.files[0], "write", block, depth, size=self.args.extents * EXTENT)

    def overwrite(self, size, depth):
        return fio(":".join(self.files), "randwrite", 4096, depth, f"--io_size={size}", "--norandommap",
                   "--file_service_type=random", size=len(self.files) * self.args.extents * EXTENT)

    def sparse(self, size):
        return fio(f"{self.mounted.dir}/sparse", "randwrite", 4096, 1, "--fallocate=none", f"--io_size={size}",
                   "--norandommap", size=EXTENT)

    def flush(self):
        self.mounted.sync()
        self.loop.settled(0.3)

    def used(self):
        st = os.statvfs(self.mounted.dir)
        return (st.f_blocks - st.f_bfree) * st.f_frsize


class LevelDb(FileSystem):
    """On ext4."""

    def __init__(self, loop, args):
        super().__init__("ext4", loop, args)
        self.pages = args.extents * EXTENT // 4096

    def load(self, rw, *more):
        return run_json(tool("leveldb_load"), "--dir", f"{self.mounted.dir}/db", "--rw", rw, *map(str, more),
                        timeout=1200)

    def append(self, i, block, depth):
        return self.load("seqwrite", "--block", block, "--depth", depth, "--first", i * self.pages,
                         "--pages", self.pages)

    def rewrite(self, block, depth):
        return self.append(0, block, depth)

    def overwrite(self, size, depth):
        return self.load("randwrite", "--depth", depth, "--pages", len(APPENDS) * self.pages, "--ios", size // 4096)

    def sparse(self, size):
        return self.load("randwrite", "--first", len(APPENDS) * self.pages, "--pages", EXTENT // 4096,
                         "--ios", size // 4096)


SYSTEMS = {"ext4": lambda loop, args: FileSystem("ext4", loop, args),
           "xfs": lambda loop, args: FileSystem("xfs", loop, args),
           "leveldb": LevelDb,
           "zbs": Zbs}


def one_system(name, loop, args):
    out = {}

    def measured(workload, work):
        progress(f"{name} {workload}")
        before = loop.written()
        r = work()
        system.flush()
        out[f"{workload}.wa"] = round((loop.written() - before) / r["bytes"], 4)
        out[f"{workload}.mib_s"] = round(r["mib_s"], 1)

    with SYSTEMS[name](loop, args) as system:
        empty = system.used()
        for i, (workload, (block, depth)) in enumerate(APPENDS.items()):
            measured(workload, lambda: system.append(i, block, depth))
        data = len(APPENDS) * args.extents * EXTENT
        out["append.space"] = round((system.used() - empty) / data, 4)
        for workload, (block, depth) in REWRITES.items():
            measured(workload, lambda: system.rewrite(block, depth))
        for workload, depth in OVERWRITES.items():
            size = args.overwrite_mib << 20
            measured(workload, lambda: system.overwrite(size if depth == 1 else 4 * size, depth))
        out["overwrite.space"] = round((system.used() - empty) / data, 4)
        measured(SPARSE, lambda: system.sparse(args.overwrite_mib << 18))
    return out


def table(out, systems):
    rows = []
    for w in (*APPENDS, *REWRITES, *OVERWRITES, SPARSE):
        limit = next(v for k, v in LIMITS.items() if w.startswith(k))
        met = None
        if "zbs" in systems:
            met = "yes" if out[f"zbs.{w}.wa"] <= limit else "NO"
        rows.append((w, *(out[f"{s}.{w}.{k}"] for k in ("wa", "mib_s") for s in systems), f"<= {limit}", met))
    for w in ("append", "overwrite"):
        rows.append((f"space after {w}s", *(out[f"{s}.{w}.space"] for s in systems), *[None] * len(systems), None, None))
    print_table(("bytes written per byte", *systems, *(f"{s} MiB/s" for s in systems), "zbs wanted", "met"), rows)
    print("Published elsewhere for overwriting: ext4 4.00, xfs 2.00, f2fs 2.66, btrfs 32.65.\n")


def measure(args):
    data = len(APPENDS) * args.extents * EXTENT
    out = {"working_set_mib": data >> 20, "memory": args.memory}
    with Backing(data * 2 + (256 << 20)) as backing:
        for name in args.only:
            with Loop(backing) as loop:
                out.update({f"{name}.{k}": v for k, v in one_system(name, loop, args).items()})
    table(out, args.only)
    return out
