#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much of movement is hidden when it takes as long as all computing: `quarry bench compare`.

  tests/bench/overlap.py [--quarry PROGRAM] -f TEXT --device host-discrete:751M [--batch 16]
                         [--context 8000] [--steps 32] [-- more options of bench compare]

A first run, on a first guess of a slow link, tells how long movement takes alone; the link of the second
is as slow as makes that the step of the unified device beside it, which only computes. (Links are slow
in steps alone; caches are filled on a fast one.) Overlap is 1 - (time that computing waited) / (time that
movement takes alone).
"""
import argparse
import json
import subprocess


def compare(args, gbps):
    command = [args.quarry, "bench", "compare", "--json", "-f", args.file, "--batch", str(args.batch), "--context",
               str(args.context), "--steps", str(args.steps), "--policy", *args.policy.split(), "--set",
               "model.compute=bf16", *args.more, "--side", "unified:", "--side",
               f"discrete: device.spec={args.device} device.link_gbps={gbps:.4f}"]
    unified, discrete = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["sides"]
    overlap = "-" if discrete["overlap"] is None else f"{discrete['overlap']:.3f}"
    print(f"link {gbps:.4f} GB/s: movement alone {discrete['movement_alone_ms']:.1f} ms, computing (unified) "
          f"{unified['step_ms']:.1f} ms, overlap {overlap}, step {discrete['of_first']:.3f} times the unified one's",
          flush=True)
    return discrete["movement_alone_ms"] / unified["step_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=32, help="turns")
    parser.add_argument("--guess", type=float, default=0.05, help="first link, GB/s")
    args, args.more = parser.parse_known_args()
    compare(args, args.guess * compare(args, args.guess))


if __name__ == "__main__":
    main()
