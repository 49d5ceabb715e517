#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much of movement is hidden when it takes as long as all computing.

  tests/bench/overlap.py [--quarry PROGRAM] -f TEXT --device host-discrete:751M [--batch 16]
                         [--context 8000] [--runs 5] [-- more options of bench decode]

First the link (in steps; the cache is filled on a fast one) is made as slow as that needs: from the time that movement takes alone in a run on a
first guess. Then --runs runs on that link, each a measurement of its own. Prints every run, and the
medians. Overlap is 1 - (time that computing waited) / (time that movement takes alone).
"""
import argparse
import json
import statistics
import subprocess


def bench(args, gbps, steps):
    command = [args.quarry, "bench", "decode", "--json", "-f", args.file, "--batch", str(args.batch), "--context",
               str(args.context), "--steps", str(steps), "--policy", *args.policy.split(), "--device",
               args.device, "--link-gbps", f"{gbps:.4f}", "--set", "model.compute=bf16", *args.more]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def compute_ms(out):
    """Of a step, without the time it waited for rows."""
    return sum(out["stages_ms"][name] for name in out["stages_ms"] if name not in ("kv", "wait"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--guess", type=float, default=0.1, help="first link, GB/s")
    args, args.more = parser.parse_known_args()

    tries = [bench(args, args.guess, args.steps // 2) for _ in range(3)]
    gbps = args.guess * statistics.median(out["movement_alone_ms"] / compute_ms(out) for out in tries)
    print(f"link {gbps:.4f} GB/s: movement alone is to take as long as computing")
    runs = []
    for i in range(args.runs):
        out = bench(args, gbps, args.steps)
        runs.append((out["movement_alone_ms"], compute_ms(out), out["overlap"], out["step_ms"]))
        print("run %d: movement alone %.1f ms, computing %.1f ms, overlap %.3f, step %.1f ms" % (i + 1, *runs[-1]),
              flush=True)
    print("median: movement alone %.1f ms, computing %.1f ms, overlap %.3f, step %.1f ms" %
          tuple(statistics.median(column) for column in zip(*runs)))


if __name__ == "__main__":
    main()
