# SPDX-License-Identifier: Apache-2.0
"""Which faults struck in which phases of the protocols: a table, and what was never reached.

A row is a kind of fault and whom it hit. An owner counts if it was in the phase itself; a member
(chunk server) or a meta server, while anybody was."""

FAULTS = ("crash", "power", "power-all", "pause", "suspend", "partition", "release", "coord-expire", "coord-cut",
          "disk-slow", "disk-hang", "disk-fail", "disk-lie", "bit-rot", "readdress")
OF_ACCESS = ("opening", "equalising", "growing", "removing", "joining", "repairing", "draining", "forwarding", "holding")
OF_META = ("taking-over", "resolving", "loading")
OF_CHUNK = ("replaying", "disk-draining")
PHASES = OF_ACCESS + OF_META + OF_CHUNK
WHOM = {"owner": OF_ACCESS, "member": PHASES, "leader": OF_ACCESS + OF_CHUNK + ("loading",),
        "new-leader": OF_ACCESS + OF_CHUNK, "standby": PHASES}


def table(counts):
    """{(fault, whom): {phase: n}}, only what can happen at all."""
    rows = {}
    for name, n in counts.items():
        word, *rest = name.split(" ")
        if word == "cover" and rest[0] in FAULTS and rest[2] in WHOM[rest[1]]:
            rows.setdefault((rest[0], rest[1]), {})[rest[2]] = n
    return {k: v for k, v in rows.items() if any(v.values())}


def report(counts):
    rows = table(counts)
    head = "".join(f"{p[:9]:>10}" for p in PHASES)
    lines = [f"{'what struck whom, during':27}{head}"]
    never = []
    for (fault, whom), cells in rows.items():
        lines.append(f"{fault + ' ' + whom:27}" +
                     "".join(f"{cells[p] if p in cells else '':>10}" for p in PHASES))
        missed = [p for p in PHASES if cells.get(p) == 0]
        if missed:
            never.append(f"  {fault} of {whom} while {', '.join(missed)}")
    return "\n".join(lines) + ("\nnever reached:\n" + "\n".join(never) if never else "")
