#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is plan.mode = auto as fast as the better of pull and push? `quarry bench compare` at each point.

  tests/bench/plans.py [--quarry PROGRAM] -f TEXT [--context 8000] [--links 1,8,32] [--budgets 0.01,0.03]
                       [--batches 4,16] [--device BYTES per sequence] [-- more options of bench compare]

A mode's time is its median turn by turn, relative to pull's (of_first).
"""
import argparse
import itertools
import json
import subprocess


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--context", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=32, help="turns")
    parser.add_argument("--links", default="1,8,32", help="GB/s")
    parser.add_argument("--budgets", default="0.01,0.03")
    parser.add_argument("--batches", default="4,16")
    parser.add_argument("--device", type=int, default=47 << 20, help="bytes of device memory per sequence")
    args, more = parser.parse_known_args()

    print(f"{'GB/s':>5} {'budget':>6} {'batch':>5} {'pull ms':>8} {'push':>6} {'auto':>6} "
          f"{'found':>6} {'pushed':>6}  auto / better")
    worst = 0.0
    for batch, budget, link in itertools.product(*(x.split(",") for x in (args.batches, args.budgets, args.links))):
        command = [args.quarry, "bench", "compare", "--json", "-f", args.file, "--batch", batch, "--context",
                   str(args.context), "--steps", str(args.steps), "--policy", *args.policy.split(), "--budget",
                   budget, "--link-gbps", link, "--device", f"host-discrete:{args.device * int(batch)}", "--set",
                   "model.compute=bf16", *more]
        for mode in ("pull", "push", "auto"):
            command += ["--side", f"{mode}: plan.mode={mode}"]
        pull, push, auto = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["sides"]
        missed = auto["rows_pulled"] + auto["rows_pushed"]
        ratio = auto["of_first"] / min(1, push["of_first"])
        print(f"{link:>5} {budget:>6} {batch:>5} {pull['step_ms']:8.2f} {push['of_first']:6.3f} {auto['of_first']:6.3f} "
              f"{100 * auto['hit_rate']:5.1f}% {100 * auto['rows_pushed'] / missed if missed else 0:5.1f}%  {ratio:.3f}",
              flush=True)
        worst = max(worst, ratio)
    print(f"at worst auto takes {worst:.3f} times as long as the better of the others")


if __name__ == "__main__":
    main()
