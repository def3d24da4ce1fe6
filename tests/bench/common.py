# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: programs and their results, processes' CPU time and memory, files that
were written through, fio, the JSON file of figures."""
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("ZBS_BIN", os.path.join(ROOT, "build", "release"))

BLOCK_WORKLOADS = {  # name: (direction, block, depth)
    "randwrite4k_qd1": ("randwrite", 4096, 1),
    "randwrite4k_qd32": ("randwrite", 4096, 32),
    "randread4k_qd1": ("randread", 4096, 1),
    "randread4k_qd32": ("randread", 4096, 32),
    "seqwrite128k_qd8": ("seqwrite", 131072, 8),
    "seqread128k_qd8": ("seqread", 131072, 8),
}
FIO_RW = {"seqwrite": "write", "seqread": "read"}


def tool(name):
    return os.path.join(BIN, "tests", "tools", name)


def progress(text):
    print(f"  {text} …", file=sys.stderr, flush=True)


def run(*argv, timeout=120, stdin=None):
    """Its standard output; an error names the command and what it said."""
    r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, input=stdin)
    if r.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {r.returncode}:\n{r.stdout[-1000:]}{r.stderr[-1000:]}")
    return r.stdout


def run_json(*argv, timeout=120):
    return json.loads(run(*argv, timeout=timeout))


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def metered(pids, seconds, measure):
    """What measure() returns, with "cpu": seconds of CPU that the processes used in `seconds` of its time (the
    ramp's CPU belongs to the ramp's operations)."""
    before, begin = cpu_seconds(pids), time.monotonic()
    r = measure()
    r["cpu"] = (cpu_seconds(pids) - before) * seconds / (time.monotonic() - begin)
    return r


def server_pids(nodes):
    """Of a cluster's nodes (Cluster.env): all but ZooKeeper."""
    return [n[s]["pid"] for n in nodes for s in ("meta", "chunk", "access")]


def memory_mib(pid, kind="Pss"):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith(kind + ":"):
                return int(line.split()[1]) / 1024
    return 0


def unchanged(counter, what, seconds, limit=120):
    """Waits until a counter has kept its value for so long."""
    deadline = time.monotonic() + limit
    since, last = time.monotonic(), counter()
    while time.monotonic() - since < seconds:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: still growing after {limit} s")
        time.sleep(0.1)
        now = counter()
        if now != last:
            since, last = time.monotonic(), now


def prewritten(path, size):
    """A file every byte of which has been written, with O_DIRECT so that no cache is filled."""
    run("dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={size >> 20}", "oflag=direct", "conv=fsync",
        "status=none", timeout=600)
    return path


def fio(path, rw, block, depth, *options, seconds=None, ramp=1, size=None, seed=1, timeout=600):
    """One job on one file or device, durable writes, or on an NBD export by its URI: iops, mib_s, mean_us,
    p50_us, p99_us, p999_us, bytes, cpu_us_per_io. Ends after `seconds` (and `ramp` more to warm up) or after
    `size` bytes."""
    where = (["--ioengine=nbd", f"--uri={path}"] if path.startswith("nbd") else
             [f"--filename={path}", "--ioengine=io_uring", "--direct=1", *(["--sync=dsync"] if "write" in rw else [])])
    ends = ([f"--size={size}"] if size else
            ["--time_based", f"--runtime={seconds}", f"--ramp_time={int(ramp * 1000)}ms"])
    said = run("fio", "--name=x", *where, f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", *ends,
               "--randrepeat=0", f"--randseed={seed}", "--percentile_list=50:99:99.9",
               "--output-format=json", *options, timeout=timeout)
    whole = json.loads(said[said.index("{"):])["jobs"][0]  # an engine may say something before
    job = whole["write" if "write" in rw else "read"]
    lat = job["clat_ns"] if "percentile" in job["clat_ns"] else job["lat_ns"]
    percentile = lat.get("percentile", {})
    cpu = (whole["usr_cpu"] + whole["sys_cpu"]) / 100  # seconds of CPU a second
    return {"iops": job["iops"], "mib_s": job["bw_bytes"] / 2**20, "mean_us": lat["mean"] / 1000,
            "p50_us": percentile.get("50.000000", 0) / 1000, "p99_us": percentile.get("99.000000", 0) / 1000,
            "p999_us": percentile.get("99.900000", 0) / 1000, "bytes": job["io_bytes"],
            "iops_per_cpu_s": job["iops"] / cpu if cpu else 0,
            "cpu_us_per_io": cpu * 1e6 / job["iops"] if job["iops"] else 0}


def median_of(results, keys):
    return {k: statistics.median(r[k] for r in results) for k in keys}


def merged(name, figures):
    """With what build/NAME has of an earlier run and this one did not measure anew."""
    path = os.path.join(ROOT, "build", name)
    if not os.path.exists(path):
        return figures
    with open(path) as f:
        return {**json.load(f), **figures}


def save(name, figures):
    """Writes build/NAME; returns its path."""
    path = os.path.join(ROOT, "build", name)
    with open(path, "w") as f:
        json.dump(figures, f, indent=1, sort_keys=True)
    return path


def table_text(head, rows):
    """head: names; rows: tuples of text or numbers, the first column to the left."""
    def text(v):
        if isinstance(v, float):
            return f"{v:.2f}" if abs(v) < 100 else f"{v:.0f}"
        return "-" if v is None else str(v)
    cells = [[text(v) for v in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) + "\n"
                   for row in cells)


def print_table(head, rows):
    print(table_text(head, rows), flush=True)
