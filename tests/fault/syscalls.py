#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which system calls decode steps on a discrete device make, by strace between two markers.

usage: syscalls.py STEPS_TO_TRACE

Allowed: futex, of threads of the team and of a stream's engine that sleep and are woken; sched_yield, of
both while they spin, and of OpenMP under the dense library; clock_gettime where the kernel's vdso does not
answer it; restart_syscall, of a futex that strace interrupted. Everything else is refused: no memory,
no files, no threads. Exit 77 when strace is missing or may not trace.
"""
import collections
import re
import shutil
import subprocess
import sys

ALLOWED = {"futex", "sched_yield", "clock_gettime", "restart_syscall"}
CALL = re.compile(r"^(?:\[pid +\d+\] +|\d+ +)?(?:<\.\.\. )?(\w+)")


def called(lines):
    """Calls between the markers. None: the markers are not there."""
    counts, inside, seen = collections.Counter(), False, 0
    for line in lines:
        mark = re.search(r"lseek\(-1, 100([12]),", line)
        if mark:
            inside, seen = mark.group(1) == "1", seen + 1
            continue
        found = CALL.match(line)
        if inside and found and "resumed>" not in line and found.group(1) not in ("strace",):
            counts[found.group(1)] += 1
    return counts if seen == 2 else None


def self_test():
    lines = ["7 mmap(NULL, 5) = 0", "7 lseek(-1, 1001, SEEK_SET) = -1 EBADF", "8 futex(0x1, 2 <unfinished ...>",
             "7 write(2, \"x\", 1) = 1", "8 <... futex resumed>) = 0", "7 lseek(-1, 1002, SEEK_SET) = -1",
             "7 munmap(0x1, 5) = 0"]
    assert called(lines) == {"futex": 1, "write": 1}, called(lines)
    assert called(lines[:3]) is None


def main():
    self_test()
    if not shutil.which("strace"):
        print("skipped: strace is not installed")
        return 77
    try:
        if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, timeout=60).returncode:
            raise OSError
    except (OSError, subprocess.TimeoutExpired):
        print("skipped: strace may not trace here (ptrace is refused)")
        return 77
    bad = 0
    for what in ("cache", "model"):
        for plan in ("pull", "push"):
            done = subprocess.run(["strace", "-f", "-q", "-o", "/dev/stderr", sys.argv[1], what, plan],
                                  capture_output=True, text=True, errors="replace", timeout=500)
            counts = called(done.stderr.splitlines())
            if done.returncode != 0 or counts is None:
                print(f"{what}, {plan}: failed\n{done.stdout}{done.stderr[-2000:]}")
                return 1
            others = {k: n for k, n in counts.items() if k not in ALLOWED}
            print(f"{what}, {plan}: 100 steps: {dict(counts)}" + (f"; not allowed: {others}" if others else ""))
            bad += bool(others)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
