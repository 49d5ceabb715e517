#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where the time of a step goes as the context grows: attention of one layer of a model's shape, random
rows, a fixed budget of tokens; on the unified device, and on a discrete one that holds just what steps
need. Points are run in turn, as often as --runs says; the table has medians.

  tests/bench/long_context.py [--quarry PROGRAM] [--contexts 32768,131072,1048576] [--budget 2048]
                              [--policies "a2ats+ --preset fast;a2ats+ --preset faithful"] [--runs 5]

A policy is a name and options of `quarry bench decode`. Stages are in ms of a step; `x N` tells how much
a stage grew from the first context to the last, beside how much the context did. The shape llama3-8b
takes 4 KiB of host memory per token and layer, and as much as 88 bytes per token and KV head of index,
once on the host and once on a discrete device: 5.6 GiB for 1,048,576 tokens.
"""
import argparse
import json
import re
import statistics
import subprocess
import sys

POLICIES = "a2ats+ --preset fast;a2ats+ --preset faithful"
STAGES = ("append", "encode", "select", "fetch", "push", "wait", "attend", "seal")


def call(args, context, policy, device):
    command = [args.quarry, "bench", "decode", "--json", "--shape", args.shape, "--layers", str(args.layers),
               "--batch", str(args.batch), "--context", str(context), "--steps", str(args.steps),
               "--budget", str(args.budget), "--device", device, "--policy", *policy.split(), *args.more]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def bench(args, context, policy, device):
    done = call(args, context, policy, device)
    if done.returncode != 0:
        sys.exit(f"long_context.py: context {context}, policy {policy}, device {device}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def smallest(args, context, policy):
    """The device that holds just what steps need, as the refusal of one of 1 MiB tells."""
    done = call(args, context, policy, "host-discrete:1M")
    need = re.search(r"need at least ([0-9.]+) (KiB|MiB|GiB)", done.stderr)
    if not need:
        sys.exit(f"long_context.py: context {context}: no size in: {done.stderr.strip()}")
    unit = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[need[2]]
    return f"host-discrete:{int((float(need[1]) + 0.1) * unit) + 1}"  # the text is rounded


def middle(runs, value):
    return statistics.median(value(run) for run in runs)


def table(args, policy, name, points):
    print(f"\n{policy}, budget {args.budget}, {name}: ms per step")
    print(f"{'context':>10} {'device':>9} {'hits':>5} {'step':>9} " + " ".join(f"{s:>8}" for s in STAGES)
          + f" {'dense':>9}")
    rows = []
    for context in args.contexts:
        runs = points[context, policy, name]
        rows.append({s: middle(runs, lambda r, s=s: r["stages_ms"][s]) for s in STAGES})
        hits = "-" if runs[0]["hit_rate"] is None else f"{middle(runs, lambda r: r['hit_rate']):.2f}"
        dense = "-" if runs[0]["dense_step_ms"] is None else f"{middle(runs, lambda r: r['dense_step_ms']):.2f}"
        device = runs[0]["device_reserved_bytes"] / (1 << 20)
        print(f"{context:10} {f'{device:.0f} MiB' if device else '-':>9} {hits:>5} "
              f"{middle(runs, lambda r: r['step_ms']):9.3f} "
              + " ".join(f"{rows[-1][s]:8.3f}" for s in STAGES) + f" {dense:>9}")
    if len(rows) > 1:  # a stage of a hundredth of a millisecond has no growth to tell
        growth = [f"{rows[-1][s] / rows[0][s]:.1f}" if rows[0][s] >= 0.01 else "-" for s in STAGES]
        print(f"{'x %.1f' % (args.contexts[-1] / args.contexts[0]):>10} {'':>9} {'':>5} {'':>9} "
              + " ".join(f"{g:>8}" for g in growth))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("--shape", default="llama3-8b")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--contexts", default="32768,131072,1048576")
    parser.add_argument("--budget", default="2048")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    args, args.more = parser.parse_known_args()
    args.contexts = sorted(int(c) for c in args.contexts.split(","))
    policies = [p.strip() for p in args.policies.split(";")]
    keys = [(c, p, d) for c in args.contexts for p in policies for d in ("unified", "discrete")]
    devices = {(c, p): smallest(args, c, p) for c in args.contexts for p in policies}
    points = {key: [] for key in keys}
    for i in range(args.runs):
        for context, policy, name in keys:
            device = "host" if name == "unified" else devices[context, policy]
            out = bench(args, context, policy, device)
            points[context, policy, name].append(out)
            print(f"run {i + 1}: {context} {policy} {device}: {out['step_ms']:.3f} ms", file=sys.stderr)
    first = points[keys[0]][0]
    print(f"{args.layers} x {args.shape}, batch {args.batch}, {first['kernels']}, medians of {args.runs} runs of "
          f"{args.steps} steps; {first['query_drift']} of a query is new at each step")
    for policy in policies:
        for name in ("unified", "discrete"):
            table(args, policy, name, points)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump([{"context": c, "policy": p, "device": d, "runs": points[c, p, d]} for c, p, d in keys], file)


if __name__ == "__main__":
    main()
