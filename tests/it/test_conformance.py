#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libiscsi's conformance suite against a volume of a three-node cluster, through two of its access servers: the second
path is another server's, and then they are exchanged."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import ROOT, Cluster, check, main, run  # noqa: E402


def libiscsi():
    with Cluster() as c:
        urls = c.export("suite", size="1G")
        r = run(os.path.join(ROOT, "tests/it/libiscsi_suite"), urls[0], urls[1], ok=False, timeout=1150)
        print(r.stdout, flush=True)
        closing = re.findall(r"^\d+ passed, \d+ failed.*$", r.stdout, re.M)
        check(r.returncode == 0, f"the suite: {r.stderr[-1000:]}")
        c.verify("test/suite")
        return closing[-1] if closing else ""


CASES = {"libiscsi": libiscsi}

if __name__ == "__main__":
    sys.exit(main(CASES))
