#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an administrator gets: the sample configuration says what the programs say about themselves,
`make install` puts everything into place, the units are valid."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, ROOT, check, main, run  # noqa: E402

DAEMONS = ("zbs-metad", "zbs-chunkd", "zbs-accessd")
SAMPLES = {**{d: f"{d[4:]}.conf" for d in DAEMONS}, "zbs-cli": "zbs.conf"}


def program(name):
    return os.path.join(BIN, name)


def samples():
    for name, sample in SAMPLES.items():
        path = os.path.join(ROOT, "deploy/conf", sample)
        with open(path) as f:
            text = f.read()
        printed = run(program(name), "--print-config").stdout
        check(printed == text, f"deploy/conf/{sample} is not what '{name} --print-config' prints: write it again")
    for name in DAEMONS:
        run(program(name), "--config", os.path.join(ROOT, "deploy/conf", SAMPLES[name]), "--check")
        usage = run(program(name), "--help").stdout
        check("--print-config" in usage and "data_dir" in usage, usage)
    check(len(glob.glob(os.path.join(ROOT, "deploy/conf/*"))) == len(SAMPLES), "a sample that no program has")
    return f"{len(SAMPLES)} files"


def settings_can_be_set():
    """Every setting of a sample, commented out or not, is accepted with the value it shows."""
    tried = 0
    with tempfile.TemporaryDirectory(prefix="zbs-it-") as d:
        for name in DAEMONS:
            with open(os.path.join(ROOT, "deploy/conf", SAMPLES[name])) as f:
                lines = f.read().splitlines()
            lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines]
            path = os.path.join(d, "all.conf")
            with open(path, "w") as f:
                f.write("\n".join(lines) + "\n")
            run(program(name), "--config", path, "--check")
            tried += sum(1 for line in lines if "=" in line and not line.startswith("#"))
    return f"{tried} settings"


def install():
    with tempfile.TemporaryDirectory(prefix="zbs-it-") as d:
        make = ["make", "-C", ROOT, "install", f"DESTDIR={d}", "PREFIX=/usr"]
        run(*make, timeout=1200)
        expected = [f"usr/sbin/{n}" for n in (*DAEMONS, "zbs-fsck")] + ["usr/bin/zbs-cli", "usr/bin/zbs-bench"]
        for path in expected:
            check(os.access(os.path.join(d, path), os.X_OK), f"{path} is not installed")
        for sample in SAMPLES.values():
            check(os.path.exists(os.path.join(d, "etc/zbs", sample)), f"{sample} is not installed")
        own = os.path.join(d, "etc/zbs/zbs.conf")
        with open(own, "w") as f:
            f.write("[cluster]\nmeta = 10.1.1.1:7100\n")
        r = run(*make, timeout=1200)
        with open(own) as f:
            check("10.1.1.1" in f.read(), "a second 'make install' replaced the configuration")
        check("zbs.conf" in r.stdout, "it does not say that it kept the configuration")
        units = sorted(glob.glob(os.path.join(d, "usr/lib/systemd/system/*.service")))
        check(len(units) == len(DAEMONS), f"units: {units}")
        for unit in units:
            with open(unit) as f:
                text = f.read()
            check("@" not in text, f"{unit}: a placeholder is left")
            binary = text.split("ExecStart=")[1].split()[0]
            check(os.path.exists(d + binary), f"{unit} starts {binary}, which is not installed")
        note = verify_units(units, d)
    return note


def verify_units(units, root):
    """systemd's own judgement. It looks for the programs on this machine: that they are missing here
    is none of the units' faults."""
    if not shutil.which("systemd-analyze"):
        return "installed; no systemd-analyze here to judge the units"
    r = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)
    lines = [line for line in (r.stdout + r.stderr).splitlines()
             if line.strip() and ("zbs-" in line) and "is not executable" not in line
             and "Failed to create" not in line]
    check(not lines, "systemd-analyze verify: " + "; ".join(lines))
    return "installed, units verified"


CASES = {f.__name__: f for f in (samples, settings_can_be_set, install)}

if __name__ == "__main__":
    sys.exit(main(CASES))
