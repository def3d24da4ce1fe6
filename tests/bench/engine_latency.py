# SPDX-License-Identifier: Apache-2.0
"""Latency of 4 KiB random writes over time: at an even rate, then as fast as they go.

First fio on the same device at the same rate, for what device and machine do. Then a run from an
empty journal, over several extents, during which a scrub, a second device with a drain of the first
to it, and a snapshot (a child of every extent, in whose place it is written) come at even shares of
three quarters of the time; the rest is unthrottled, so that the journal becomes full. At the even
rate a latency counts from the time at which the write was due, so a stall shows in all writes that
it delayed. Draws a picture (--plot), writes the table beside it (.txt), and the windows to a CSV
file in build/."""
import csv
import os
import statistics

from chunkd import Chunkd, server_format
from common import ROOT, fio, progress, run, run_json, table_text
from devices import Backing, Loop

PLOT = os.path.join(ROOT, "build", "bench_engine_latency.png")
CSV = os.path.join(ROOT, "build", "bench_engine_latency.csv")
CLIFF = 1.5  # the worst window's p99, as a multiple of the p99 of the median window before any event
EVENTS = ("scrub", "drain", "snapshot")
UNTHROTTLED = 0.75  # from this share of the time on


def options(parser):
    parser.add_argument("--seconds", type=float, default=20, help="of the whole run (20; 600 for the plot)")
    parser.add_argument("--rate", type=int, default=4000, help="writes a second in the first phase (4000)")
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--extents", type=int, default=4, help="of 256 MiB (4)")
    parser.add_argument("--journal", help="its size (the chunk server's default)")
    parser.add_argument("--memory", default="64M", help="of the chunk server (64M)")
    parser.add_argument("--window", type=float, help="seconds (a 200th of the run, 0.25 at least)")
    parser.add_argument("--events", nargs="*", choices=EVENTS, default=EVENTS, help="which (all)")
    parser.add_argument("--scrub-rate", default="64M", help="bytes a second (64M)")
    parser.add_argument("--plot", default=PLOT, help="the picture's file")


def schedule(args, devices):
    """What chunk_load does and when: (second, name of the period that begins, event)."""
    end = args.seconds * UNTHROTTLED
    step = end / (len(args.events) + 1)
    what = {"scrub": [f"scrub={args.scrub_rate}"], "drain": [f"add={devices[1]}", f"drain={devices[0]}"],
            "snapshot": ["children"]}
    ordered = [name for name in EVENTS if name in args.events]
    return [((i + 1) * step, name, what[name]) for i, name in enumerate(ordered)] + [(end, "unthrottled", ["rate=0"])]


def load(server, args, events):
    progress(f"{args.seconds:g} s of load")
    argv = server.load_argv("randwrite", depth=args.depth, extents=args.extents, seconds=args.seconds,
                            rate=args.rate, window=args.window, csv=CSV)
    for at, _, calls in events:
        for i, call in enumerate(calls):
            # a drain needs its target: devices are added a little earlier
            argv += ["--at", f"{at - 0.1 * (len(calls) - 1 - i):.3f}:{call}"]
    return run_json(*argv, timeout=args.seconds + 120)


def windows_read(args):
    with open(CSV) as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    return [{**w, "iops": w["ops"] / args.window} for w in rows]


def plot(args, events, took):
    marks = "".join(f'set arrow from {at}, graph 0 to {at}, graph 1 nohead dt 2\n'
                    f'set label "{name}" at {at}, graph 0.97 offset 0.5,0\n' for at, name, _ in events)
    marks += "".join(f'set object rectangle from {t["began_s"]}, graph 0 to {t.get("ended_s", args.seconds)}, graph 1 '
                     'fillcolor rgb "#eeeeee" fillstyle solid noborder behind\n'
                     for t in took if t["name"] in ("scrub", "drain") and "began_s" in t)
    run("gnuplot", stdin=f"""set terminal pngcairo size 1400,900
set output "{args.plot}"
set datafile separator ","
set key below
set xrange [0:{args.seconds}]
set multiplot layout 2,1
{marks}set title "4 KiB random writes, depth {args.depth}, {args.rate} a second, then unthrottled"
set ylabel "latency (us)"
set logscale y
plot "{CSV}" using 1:4 with lines lw 2 title "p50", "" using 1:5 with lines lw 2 title "p99", \
"" using 1:6 with lines lw 1 title "p99.9"
unset label
unset title
unset logscale y
set yrange [0:*]
set ylabel "writes a second"
set xlabel "seconds"
plot "{CSV}" using 1:($2/{args.window}) with lines lw 2 notitle
unset multiplot
""")


def summary(windows, before):
    """before: the p99 that the worst window is compared with; None: the median of these."""
    p99 = [w["p99_us"] for w in windows if w["ops"]]
    before = before or statistics.median(p99)
    return {"p50_us": statistics.median(w["p50_us"] for w in windows), "p99_us": statistics.median(p99),
            "p99_worst_us": max(p99), "p99_ratio": round(statistics.median(p99) / before, 2),
            "cliff": round(max(p99) / before, 2), "p999_us": statistics.median(w["p999_us"] for w in windows),
            "p999_worst_us": max(w["p999_us"] for w in windows), "max_us": max(w["max_us"] for w in windows),
            "iops": statistics.mean(w["iops"] for w in windows), "iops_least": min(w["iops"] for w in windows),
            "silent_windows": sum(not w["ops"] for w in windows)}


def bare(args, loop):
    """The same rate on the bare device, in windows of one second."""
    progress("the bare device")
    found = [fio(loop.path, "randwrite", 4096, args.depth, f"--rate_iops={args.rate}", "--rate_process=linear",
                 f"--randseed={i}", seconds=1, ramp=0.2) for i in range(5)]
    return [{**w, "ops": w["iops"], "max_us": w["p999_us"]} for w in found]


def periods(args, events, windows):
    """(name, its windows, the p99 to compare with); a window belongs to the period that it begins in."""
    begins = [(0, "before")] + [(at, name) for at, name, _ in events] + [(args.seconds, None)]
    before = None
    for (begin, name), (end, _) in zip(begins, begins[1:]):
        own = [w for w in windows if begin <= w["seconds"] < end]
        if not own:
            raise RuntimeError(f"no window in the period '{name}': --seconds or --window")
        yield name, own, None if name == "unthrottled" else before
        if before is None:
            before = statistics.median(w["p99_us"] for w in own)


def table(args, out, raw, events, windows):
    s = summary(raw, None)
    rows = [("bare device", *s.values(), None, None)]
    for name, own, before in periods(args, events, windows):
        s = summary(own, before)
        out.update({f"{name}.{k}": v for k, v in s.items()})
        rows.append((name, *s.values(), f"<= {CLIFF}", "yes" if s["cliff"] <= CLIFF else "NO"))
    return table_text(("period", *s, "cliff wanted", "met"), rows)


def report(args, text, took, stalls):
    lines = [text]
    for t in took:
        if t["name"] != "rate" and "began_s" in t:
            end = f"{t['ended_s'] - t['began_s']:.2f} s" if "ended_s" in t else "did not end"
            lines.append(f"{t['name']} at {t['began_s']:.1f} s: {end}")
    lines += [f"a loop was held for {ms} ms: {line}" for ms, line in stalls[:5]]
    lines.append(f"{len(stalls)} stalls of loops in the server's log")
    whole = "\n".join(lines) + "\n"
    print(whole)
    path = os.path.splitext(args.plot)[0] + ".txt"
    with open(path, "w") as f:
        f.write(f"tests/bench/engine latency --seconds {args.seconds:g} --rate {args.rate} --depth {args.depth} "
                f"--extents {args.extents} --plot {os.path.relpath(args.plot, ROOT)}\n\n{whole}")
    print(f"plot: {os.path.relpath(args.plot, ROOT)}, {os.path.relpath(path, ROOT)}\n")


def measure(args):
    args.window = args.window or max(args.seconds / 200, 0.25)
    size = args.extents << 28
    out = {}
    # room for the children, who write everything anew in the end
    with Backing(size * 5 // 2 + (256 << 20)) as a, Loop(a) as first, \
            Backing(size * 5 // 2 + (256 << 20)) as b, Loop(b) as second:
        raw = bare(args, first)
        out.update({f"bare.{k}": v for k, v in summary(raw, None).items()})
        events = schedule(args, (first.path, second.path))
        server_format(first.path, journal=args.journal)
        with Chunkd([first.path], memory=args.memory) as server:
            server.load("seqwrite", block="1M", depth=8, extents=args.extents, bytes=size)
            server.settled()
            took = load(server, args, events)["events"]
            windows = windows_read(args)
            plot(args, events, took)
            stalls = server.stalls()
    report(args, table(args, out, raw, events, windows), took, stalls)
    return out
