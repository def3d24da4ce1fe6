# SPDX-License-Identifier: Apache-2.0
"""Latency of 4 KiB random writes over time: at an even rate, then as fast as they go.

First fio on the same device at the same rate, for what device and machine do. Then from an empty
journal to a full one, over several extents. At the even rate a latency counts from the time at
which the write was due, so a stall shows in all writes that it delayed. Draws
build/bench_engine_latency.png from two CSV files beside it. Events are commands that run at given
seconds of the first phase; ZBS_CHUNK is the chunk server's address in their environment:
  --event 20:drain='zbs-cli … disk drain …'"""
import csv
import os
import statistics
import subprocess
import time

from chunkd import Chunkd, server_format
from common import ROOT, fio, print_table, progress, run
from devices import Backing, Loop

PLOT = os.path.join(ROOT, "build", "bench_engine_latency.png")
CLIFF = 1.5  # the worst window's p99, as a multiple of the median one's


def event(text):
    at, rest = text.split(":", 1)
    name, command = rest.split("=", 1)
    return float(at), name, command


def options(parser):
    parser.add_argument("--seconds", type=int, default=20, help="of each of the two phases (20; 600 for the plot)")
    parser.add_argument("--rate", type=int, default=4000, help="writes a second in the first phase (4000)")
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--extents", type=int, default=4, help="of 256 MiB (4)")
    parser.add_argument("--journal", help="its size (the chunk server's default)")
    parser.add_argument("--memory", default="64M", help="of the chunk server (64M)")
    parser.add_argument("--window", type=float, default=1, help="seconds (1)")
    parser.add_argument("--event", type=event, action="append", default=[], metavar="SECOND:NAME=COMMAND")
    parser.add_argument("--plot", default=PLOT, help="the picture's file")


def phase(server, args, name, path, **options):
    """Runs the load and the events; the windows."""
    progress(f"{name}, {args.seconds} s")
    begin = time.monotonic()
    pending = sorted(args.event) if name == "even" else []
    load = subprocess.Popen(server.load_argv("randwrite", depth=args.depth, extents=args.extents, seconds=args.seconds,
                                             window=args.window, csv=path, **options), stdout=subprocess.DEVNULL)
    running = []
    try:
        for at, _, command in pending:
            time.sleep(max(0, begin + at - time.monotonic()))
            running.append(subprocess.Popen(command, shell=True, env=dict(os.environ, ZBS_CHUNK=server.addr)))
        if load.wait(timeout=args.seconds + 60):
            raise RuntimeError(f"the load ended with {load.returncode}")
    finally:
        for p in (load, *running):
            if p.poll() is None:
                p.kill()
                p.wait()
    with open(path) as f:
        windows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    return [{**w, "iops": w["ops"] / args.window} for w in windows]


def plot(args, files):
    arrows = "".join(f'set arrow from {at}, graph 0 to {at}, graph 1 nohead dt 2\n'
                     f'set label "{name}" at {at}, graph 0.95 offset 0.5,0\n' for at, name, _ in args.event)
    panes = []
    for title, path, marks in (("%d writes a second" % args.rate, files[0], arrows), ("unthrottled", files[1], "")):
        panes.append(f"""unset arrow
unset label
{marks}set title "4 KiB random writes, {title}, depth {args.depth}"
set ylabel "latency (us)"
set y2label "writes a second"
plot "{path}" using 1:4 with lines lw 2 title "p50", "" using 1:5 with lines lw 2 title "p99", \
"" using 1:6 with lines lw 1 title "p99.9", "" using 1:($2/{args.window}) axes x1y2 with lines dt 3 title "writes a second"
""")
    script = f"""set terminal pngcairo size 1200,900
set output "{args.plot}"
set datafile separator ","
set key outside
set logscale y
set xlabel "seconds"
set ytics nomirror
set y2tics
set y2range [0:*]
set multiplot layout 2,1
{"".join(panes)}unset multiplot
"""
    run("gnuplot", stdin=script)


def summary(windows):
    p99 = [w["p99_us"] for w in windows if w["ops"]]
    typical = statistics.median(p99)
    return {"p50_us": statistics.median(w["p50_us"] for w in windows), "p99_us": typical,
            "p99_worst_us": max(p99), "cliff": round(max(p99) / typical, 2),
            "p999_worst_us": max(w["p999_us"] for w in windows), "max_us": max(w["max_us"] for w in windows),
            "iops": statistics.mean(w["iops"] for w in windows), "iops_least": min(w["iops"] for w in windows),
            "silent_windows": sum(not w["ops"] for w in windows)}


def bare(args, loop):
    """The same rate on the bare device, in windows of one second."""
    progress("the bare device")
    return [fio(loop.path, "randwrite", 4096, args.depth, f"--rate_iops={args.rate}", "--rate_process=linear",
                f"--randseed={i}", seconds=1, ramp=0.2) for i in range(5)]


def measure(args):
    size = args.extents << 28
    out, rows = {}, []
    with Backing(size * 3 // 2 + (256 << 20)) as backing, Loop(backing) as loop:
        windows = [{**w, "ops": w["iops"], "max_us": w["p999_us"]} for w in bare(args, loop)]
        s = summary(windows)
        out.update({f"bare.{k}": v for k, v in s.items()})
        rows.append(("bare device", *s.values(), None, None))
        server_format(loop.path, journal=args.journal)
        with Chunkd([loop.path], memory=args.memory) as server:
            server.load("seqwrite", block="1M", depth=8, extents=args.extents, bytes=size)
            files = [f"{os.path.splitext(args.plot)[0]}_{name}.csv" for name in ("even", "unthrottled")]
            for name, path, more in (("even", files[0], {"rate": args.rate}), ("unthrottled", files[1], {})):
                server.settled()
                s = summary(phase(server, args, name, path, **more))
                out.update({f"{name}.{k}": v for k, v in s.items()})
                rows.append((name, *s.values(), f"<= {CLIFF}", "yes" if s["cliff"] <= CLIFF else "NO"))
            plot(args, files)
            stalls = server.stalls()
    print_table(("windows", *s, "cliff wanted", "met"), rows)
    for held_ms, line in stalls[:5]:
        print(f"a loop was held for {held_ms} ms: {line}")
    print(f"{len(stalls)} such stalls in the server's log")
    print(f"plot: {os.path.relpath(args.plot, ROOT)}\n")
    return out
