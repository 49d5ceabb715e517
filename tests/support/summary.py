#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up reports and prints what failed, what was skipped and why, and the counts.
usage: summary.py NAME:FILE...   the name goes before each test, such as asan
A FILE.xml is a JUnit file of ctest; a FILE.txt has lines "passed|failed|skipped name: reason".
The exit status is 1 when a test failed or none ran.
"""
import sys
import xml.etree.ElementTree as ElementTree


def reason(case):
    """Why a test was skipped: the last line that it printed."""
    lines = [l.strip() for l in (case.findtext("system-out") or "").splitlines() if l.strip()]
    return lines[-1][:160] if lines else "no reason given"


def cases(path):
    """Yields (passed|failed|skipped, name, reason) of each test in a report."""
    if path.endswith(".txt"):
        for line in open(path, encoding="utf-8"):
            status, _, rest = line.strip().partition(" ")
            name, _, why = rest.partition(": ")
            yield status, name, why
        return
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.get("status") == "run":
            yield "passed", case.get("name"), ""
        elif case.find("skipped[@message='SKIP_RETURN_CODE=77']") is not None:
            yield "skipped", case.get("name"), reason(case)
        else:
            yield "failed", case.get("name"), ""


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    lines = []
    for argument in sys.argv[1:]:
        build, path = argument.split(":", 1)
        for status, name, why in cases(path):
            counts[status] += 1
            if status != "passed":
                lines.append(f"{status + ':':8} {build}/{name}{': ' + why if why else ''}")
    print("\n".join(sorted(lines)))
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    sys.exit(1 if counts["failed"] or not counts["passed"] else 0)


main()
