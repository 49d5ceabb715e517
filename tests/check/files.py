#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files beside the program agree with it: settings files are accepted as they stand, and the man
page and the completion, which the program writes, name its commands and are well-formed.
usage: files.py ROOT QUARRY
"""
import os
import pathlib
import shutil
import subprocess
import sys

ROOT, QUARRY = sys.argv[1:3]


def quarry(*args):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QY_")}
    done = subprocess.run([QUARRY, *map(str, args)], capture_output=True, text=True, timeout=100,
                          env=clean)
    if done.returncode:
        sys.exit(f"quarry {' '.join(map(str, args))}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def main():
    files = sorted(pathlib.Path(ROOT, "configs").glob("*.conf"))
    for path in files:
        if str(path) not in quarry("config", "--config", path):
            sys.exit(f"{path}: no setting is said to come from it")

    man, script = quarry("help", "--man"), quarry("help", "--completion", "bash")
    for word in ("generate", "tokenize", "eval", "bench", "doctor", "config", "memory", "policy", "budget"):
        if word not in man or word not in script:
            sys.exit(f"'{word}' is missing in the man page or the completion")
    if ".TH " not in man:
        sys.exit("the man page has no title line (.TH)")
    if shutil.which("man"):
        lint = subprocess.run(["man", "--warnings", "-l", "-"], input=man, text=True,
                              capture_output=True, env=dict(os.environ, MANWIDTH="80", LC_ALL="C.UTF-8"))
        if lint.returncode or lint.stderr.strip():
            sys.exit(f"man --warnings: {lint.stderr}")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"bash -n: {done.stderr}")
    print(f"{len(files)} settings files, man page and completion are right")
    sys.exit(0 if files else 1)


main()
