# SPDX-License-Identifier: Apache-2.0
"""Seeds of the simulator on all cores: one process for each batch of seeds, totals of them all."""
import concurrent.futures
import os
import re
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBS = os.cpu_count() or 1
BATCH = 8


def binary(mode):
    return f"{ROOT}/build/{mode}/zbs-sim"


def sim(mode, *words, timeout=3000):
    r = subprocess.run([binary(mode), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=timeout)
    return r.returncode, r.stdout.decode(errors="replace")


class Batch:
    """Runs seeds [start, start + seeds); counts[name] are the totals of all processes."""

    def __init__(self, mode, start, seeds, words=()):
        self.mode, self.start, self.seeds, self.words = mode, start, seeds, words
        self.passed, self.failures, self.counts = 0, {}, {}
        self.lock, self.begin, self.shown = threading.Lock(), time.monotonic(), 0

    def count(self, name, n):
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + n

    def piece(self, first, count):
        """A process that dies takes only its present seed along; the rest goes on in another one."""
        while count > 0:
            rc, text = sim(self.mode, "--from", first, "--seeds", count, "--batch", *self.words)
            done = re.findall(r"^seed (\d+) (passed|failed)(?:: (.*))?$", text, re.M)
            for seed, how, why in done:
                if how == "passed":
                    self.count_passed()
                else:
                    self.fail(int(seed), why)
            for name, n in re.findall(r"^count (.*) (\d+)$", text, re.M):
                self.count(name, int(n))
            first, count = first + len(done), count - len(done)
            if count > 0:
                why = re.findall(r"^(assertion failed: .*|.*AddressSanitizer.*|.*runtime error.*)$", text, re.M)
                self.fail(first, f"ended with {rc}: {why[0] if why else text[-2000:]}")
                first, count = first + 1, count - 1

    def count_passed(self):
        with self.lock:
            self.passed += 1
            self.progress()

    def fail(self, seed, why):
        with self.lock:
            self.failures[seed] = why
            self.clear()
            print(f"seed {seed} failed: {why}\n  again: tests/sim/run --mode {self.mode} --seed {seed}   "
                  f"shorter: tests/sim/run --mode {self.mode} --shrink {seed}", flush=True)

    def clear(self):
        if sys.stdout.isatty():
            print("\r\033[K", end="")

    def progress(self):
        """One line on a terminal, redrawn at most once a second."""
        now = time.monotonic()
        if sys.stdout.isatty() and now - self.shown >= 1:
            done = self.passed + len(self.failures)
            print(f"\r\033[K{done} of {self.seeds} seeds, {len(self.failures)} failed, "
                  f"{60 * done / (now - self.begin):.0f} a minute", end="", flush=True)
            self.shown = now

    def run(self):
        end = self.start + self.seeds
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            for f in [pool.submit(self.piece, s, min(BATCH, end - s)) for s in range(self.start, end, BATCH)]:
                f.result()
        self.clear()
        return self

    def minute_rate(self):
        return 60 * self.seeds / max(time.monotonic() - self.begin, 0.001)
