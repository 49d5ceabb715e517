#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up JUnit files of ctest and prints what failed, what was skipped and why, and the counts.
usage: summary.py NAME:FILE...   the name goes before each test, such as asan
The exit status is 1 when a test failed or none ran.
"""
import sys
import xml.etree.ElementTree as ElementTree


def reason(case):
    """Why a test was skipped: the last line that it printed."""
    lines = [l.strip() for l in (case.findtext("system-out") or "").splitlines() if l.strip()]
    return lines[-1][:160] if lines else "no reason given"


def main():
    passed, failed, skipped = 0, [], []
    for argument in sys.argv[1:]:
        build, path = argument.split(":", 1)
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            name = f"{build}/{case.get('name')}"
            if case.get("status") == "run":
                passed += 1
            elif case.find("skipped") is not None and case.get("status") != "fail":
                skipped.append(f"{name}: {reason(case)}")
            else:
                failed.append(name)
    for name in failed:
        print(f"failed:  {name}")
    for line in skipped:
        print(f"skipped: {line}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed or not passed else 0)


main()
