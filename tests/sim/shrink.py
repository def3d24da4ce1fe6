# SPDX-License-Identifier: Apache-2.0
"""From a seed that fails to a short scenario that fails: events are dropped, then noise, drift,
clients and disks, then time; each candidate is tried with a few seeds of the world, since what is dropped
changes the course of everything after it. Any failure counts, also another than the first."""
import concurrent.futures
import os
import re
import subprocess
import tempfile
import time

import batch

TRIES = 3  # seeds of the world for each candidate
NO_DRIFT = "0 0 0"
LARGE_DISK_MIB = 4096
FIELDS = ("seed", "span", "clients", "replicas", "disks", "disk_mib", "noise", "drift")


class Scenario:
    def __init__(self, text):
        self.events, self.fields = [], {}
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            if word == "event":
                self.events.append(rest)
            elif word in FIELDS:
                self.fields[word] = rest

    def text(self):
        return "".join(f"{k} {self.fields[k]}".rstrip() + "\n" for k in FIELDS) + \
            "".join(f"event {e}\n" for e in self.events)

    def but(self, events=None, **fields):
        s = Scenario("")
        s.events = list(self.events if events is None else events)
        s.fields = {**self.fields, **{k: str(v) for k, v in fields.items()}}
        return s

    def number(self, name):
        return int(self.fields[name])


class Shrinker:
    def __init__(self, mode, words, seconds):
        self.mode, self.words, self.until, self.runs = mode, list(words), time.monotonic() + seconds, 0
        self.pool = concurrent.futures.ThreadPoolExecutor(batch.JOBS)

    def failure(self, scenario):
        """What goes wrong; None if nothing does."""
        if time.monotonic() > self.until:
            return None
        self.runs += 1
        with tempfile.NamedTemporaryFile("w", suffix=".scenario") as f:
            f.write(scenario.text())
            f.flush()
            try:
                rc, text = batch.sim(self.mode, "--scenario", f.name, *self.words, timeout=120)
            except subprocess.TimeoutExpired:
                return "it takes longer than two minutes"
        found = re.findall(r"^seed \d+ failed: (.*)$", text, re.M) or re.findall(r"^assertion failed: .*$", text, re.M)
        if found:
            return found[0]
        return None if rc == 0 or self.words else f"ended with {rc}"

    def first(self, candidates):
        """The first candidate that fails, with some seed of the world."""
        tries = [c.but(seed=c.number("seed") + 1000003 * k) for c in candidates for k in range(TRIES)]
        for s, why in zip(tries, self.pool.map(self.failure, tries)):
            if why:
                return s
        return None

    def shorter(self, scenario, candidates):
        found = self.first(candidates) if candidates and time.monotonic() < self.until else None
        return (found, True) if found else (scenario, False)

    def drop_events(self, s):
        size = max(1, len(s.events) // 2)
        while s.events and time.monotonic() < self.until:
            cuts = [s.but(events=s.events[:i] + s.events[i + size:]) for i in range(0, len(s.events), size)]
            s, ok = self.shorter(s, cuts)
            if not ok:
                if size == 1:
                    break
                size = max(1, size // 2)
            size = max(1, min(size, len(s.events)))
        return s

    def drop_rest(self, s):
        for noise in s.fields["noise"].split():
            s, _ = self.shorter(s, [s.but(noise=" ".join(n for n in s.fields["noise"].split() if n != noise))])
        if s.fields["drift"] != NO_DRIFT:
            s, _ = self.shorter(s, [s.but(drift=NO_DRIFT)])
        if s.number("disk_mib") != LARGE_DISK_MIB:
            s, _ = self.shorter(s, [s.but(disk_mib=LARGE_DISK_MIB)])
        for name in ("clients", "disks"):
            if s.number(name) > 1:
                s, _ = self.shorter(s, [s.but(**{name: 1})])
        return s

    def cut_time(self, s):
        ok = True
        while ok and s.number("span") > 500:
            last = max([int(e.split()[0]) for e in s.events] + [0])
            spans = [last + (s.number("span") - last) // 2]
            s, ok = self.shorter(s, [s.but(span=v) for v in spans if v < s.number("span") - 50])
        for move in (4, 2):  # begin sooner
            times = [int(e.split()[0]) for e in s.events]
            by = min(times) * (move - 1) // move if times else 0
            if by > 100:
                moved = [f"{int(e.split()[0]) - by} {e.split(' ', 1)[1]}" for e in s.events]
                s, _ = self.shorter(s, [s.but(events=moved, span=max(s.number("span") - by, 500))])
        return s

    def cut_end(self, s):
        """The end, events and all: halves first, then less."""
        for keep in (0.4, 0.6, 0.8):
            span = int(s.number("span") * keep)
            events = [e for e in s.events if int(e.split()[0]) < span]
            s, _ = self.shorter(s, [s.but(events=events, span=span)])
        return s

    def run(self, s):
        s = self.cut_end(s)
        s = self.drop_events(s)
        s = self.drop_rest(s)
        s = self.cut_time(s)
        return self.drop_events(s)


def story(mode, path, words, why):
    """The log of all servers and the events, without what only repeats."""
    sector = re.search(r"sector (\d+)", why or "")
    watch = ["--watch", sector.group(1)] if sector else []
    r = subprocess.run([batch.binary(mode), "--scenario", path, *words, *watch], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, env={**os.environ, "ZBS_SIM_LOG": "1"})
    lines = [re.sub(r"^(\S+?)(\d{6}) (\S+?)@\S+ (INFO|WARN|ERROR) zbs\[[^]]*\] ", r"\1 \3 ", line)
             for line in r.stdout.decode(errors="replace").splitlines() if not re.search(r" rpc\.", line)]
    return lines


def shrink(mode, seed, words=(), seconds=120):
    words = list(words)
    rc, text = batch.sim(mode, "--from", seed, "--print")
    s, shrinker = Scenario(text), Shrinker(mode, words, seconds)
    shrinker.until += 60  # the whole one may take a while, too
    why = shrinker.failure(s)
    shrinker.until -= 60
    if not why:
        print(f"seed {seed} does not fail")
        return 1
    print(f"seed {seed}: {why}\n{len(s.events)} events", flush=True)
    s = shrinker.run(s)
    shrinker.until = time.monotonic() + 60
    why = shrinker.failure(s)
    os.makedirs(f"{batch.ROOT}/build/scenarios", exist_ok=True)
    path = f"{batch.ROOT}/build/scenarios/seed-{seed}" + "".join(f"-{w}" for w in words if w[0] != "-")
    with open(path, "w") as f:
        f.write(s.text())
    lines = story(mode, path, words, why)
    print("\n".join(lines[-400:]))
    print(f"\n{len(s.events)} events are left after {shrinker.runs} runs: {why}\n{s.text()}"
          f"again: {os.path.relpath(batch.binary(mode))} --scenario {os.path.relpath(path)} {' '.join(words)}")
    return 0
