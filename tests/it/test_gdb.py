#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gdb commands of tools/gdb/zbs.py: on a process, and on its core."""
import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import BIN, ROOT, Failed, check, main, run  # noqa: E402

SKIP = 77
PROGRAM = os.path.join(BIN, "tests", "tools", "sleepers")
SCRIPT = os.path.join(ROOT, "tools", "gdb", "zbs.py")


def gdb(*commands, argv):
    words = [w for c in (f"source {SCRIPT}", *commands) for w in ("-ex", c)]
    return run("gdb", "-nx", "-batch", "-ex", "set debuginfod enabled off", *words, *argv).stdout


def entry(output, name):
    """The line of a coroutine and the lines of its stack."""
    lines = output.splitlines()
    for i, line in enumerate(lines):
        words = line.split()
        if len(words) > 2 and words[0].startswith("0x") and words[1] == name:
            stack = []
            for follow in lines[i + 1:]:
                if not follow.startswith("    "):
                    break
                stack.append(follow.strip())
            return line, stack
    raise Failed(f"no coroutine {name} in:\n{output}")


def function_names(stack):
    return [re.sub(r"^#\d+ +(\w+) \(\).*", r"\1", line) for line in stack]


def in_order(wanted, names):
    rest = iter(names)
    return all(w in rest for w in wanted)


def all_are_listed(output):
    line, stack = entry(output, "patient")
    check(" main " in line and "waiting (cancel, deadline)" in line, line)
    deadline = re.search(r"\+(\d+)\.\d+ s", line)
    check(deadline and 0 < int(deadline[1]) <= 1000, line)
    check(in_order(["wait_in_the_inner", "wait_in_the_outer", "patient", "co_main"], function_names(stack)), stack)
    check(any("sleepers.c:" in s for s in stack), stack)
    line, stack = entry(output, "stubborn")
    check("waiting uninterruptibly" in line and "cancelled" in line, line)
    check(in_order(["stubborn", "co_main"], function_names(stack)), stack)
    line, stack = entry(output, "guest")
    check(" other " in line and "home main" in line, line)
    check(in_order(["wait_in_the_outer", "guest", "co_main"], function_names(stack)), stack)
    line, stack = entry(output, "main")
    check("running" in line, line)
    line, stack = entry(output, "late")
    check("ready" in line, line)
    check(re.search(r"^5 coroutine\(s\)$", output, re.M), output)


def process_and_core():
    work = tempfile.mkdtemp(prefix="zbs-it-", dir="/var/tmp")
    try:
        core = os.path.join(work, "core")
        live = gdb("handle SIGURG nostop noprint", "run", "zbs coroutines -b", f"generate-core-file {core}",
                   argv=["--args", PROGRAM])
        all_are_listed(live)
        dead = gdb("zbs coroutines -b", "zbs coroutines guest other", argv=[PROGRAM, core])
        all_are_listed(dead.split("5 coroutine(s)")[0] + "5 coroutine(s)\n")
        check(dead.rstrip().endswith("1 coroutine(s)"), dead[-500:])
        address = entry(dead, "patient")[0].split()[0]
        one = gdb("zbs backtrace 16", f"zbs backtrace {address}", argv=[PROGRAM, core])
        check("wait_in_the_inner ()" in one and "guest" not in one, one)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    if shutil.which("gdb") is None:
        print("skipped: gdb is not installed (deploy/install-deps installs it)")
        sys.exit(SKIP)
    sys.exit(main({"process_and_core": process_and_core}))
