#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One short generate under valgrind, with a tiny model: no bad access, no lost memory.
usage: valgrind.py ROOT QUARRY MAKE_GGUF
"""
import os
import shutil
import subprocess
import sys
import tempfile

MODEL = "llama_q4_1"


def main():
    root, quarry, make_gguf = sys.argv[1:4]
    if not shutil.which("valgrind"):
        print("skipped: no valgrind; scripts/setup test installs it")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([make_gguf, tmp, MODEL], check=True)
        done = subprocess.run(
            ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full",
             "--errors-for-leak-kinds=definite,indirect", f"--suppressions={root}/tests/check/valgrind.supp",
             quarry, "generate", "-m", f"{tmp}/{MODEL}.gguf", "-p", "a short text to read", "-n", "4",
             "--policy", "exact", "--budget", "0.5", "--set", "cache.window=4", "--set", "cache.sinks=2",
             "--threads", "2", "--json"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=580,
            env=dict(os.environ, OMP_NUM_THREADS="1"))
        print(done.stdout[-2000:], done.stderr[-6000:])
        if done.returncode or '"tokens"' not in done.stdout:
            sys.exit(f"valgrind: exit {done.returncode}")


main()
