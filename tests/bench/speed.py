#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Decode rates of policies beside dense: same text, same threads, runs interleaved, medians.

  tests/bench/speed.py [--quarry PROGRAM] [-f TEXT] [--batch 16] [--context 8000] [--runs 5]
                       [--policies "dense;a2ats+ --preset fast;..."]

A policy is a name and options of `quarry bench decode`; the first is what the others are compared
with. Prints tokens per second, the ratio, and where the step's time goes. The text is prefilled in
bf16 to save time (decode does not use it) unless QY_CPU asks for less than the machine has.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

POLICIES = ";".join(["dense", "a2ats+ --preset fast", "a2ats+ --preset faithful"])


def bench(args, policy):
    command = [args.quarry, "bench", "decode", "--batch", str(args.batch), "--context",
               str(args.context), "--steps", str(args.steps), "--json", "--policy", *policy.split(),
               *args.more]
    if args.file:
        command += ["-f", args.file]
        command += [] if "QY_CPU" in os.environ else ["--set", "model.compute=bf16"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--policies", default=POLICIES)
    args, args.more = parser.parse_known_args()
    policies = [p.strip() for p in args.policies.split(";")]
    results = {p: [] for p in policies}
    for i in range(args.runs):
        for policy in policies:
            results[policy].append(bench(args, policy))
            rate = results[policy][-1]["tokens_per_s"]
            print(f"run {i + 1}: {policy}: {rate:.1f} tokens/s", file=sys.stderr)
    first = statistics.median(r["tokens_per_s"] for r in results[policies[0]])
    print(f"batch {args.batch}, context {args.context}, {results[policies[0]][0]['kernels']}")
    print(f"{'policy':32} {'tokens/s':>9} {'ratio':>6} {'attended':>9}  ms per step")
    for policy in policies:
        runs = results[policy]
        rate = statistics.median(r["tokens_per_s"] for r in runs)
        stages = {name: statistics.median(r["stages_ms"][name] for r in runs)
                  for name in runs[0]["stages_ms"]}
        shown = " ".join(f"{k} {v:.1f}" for k, v in stages.items() if v >= 0.05)
        print(f"{policy:32} {rate:9.1f} {rate / first:6.2f} {100 * runs[0]['attended']:8.2f}%  {shown}")


if __name__ == "__main__":
    main()
