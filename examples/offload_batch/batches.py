#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Decode rates of growing batches on a device of fixed memory; see run.sh.

Device memory is the least in which --holds sequences fit dense. Each run is a median of --steps steps
of `quarry bench decode` on a text's own continuation; every sequence has rows of its own. Then the
policy once more with the link slowed down to the --links-th part of what device memory reads (PCIe 5
is about 1/60 of HBM3). Dense moves nothing while its sequences fit, whatever the link.
"""
import argparse
import json
import pathlib
import subprocess
import sys

DENSE = "dense"


def bench(args, policy, batch, device, steps=None, gbps=0):
    """The result, or the error's text where it does not fit."""
    command = [args.quarry, "bench", "decode", "--json", "-m", args.model, "-f", args.file, "--batch",
               str(batch), "--context", str(args.context), "--steps", str(steps or args.steps),
               "--policy", *policy.split(), "--device", device, *args.more]
    if gbps > 0:
        command += ["--link-gbps", f"{gbps:.4f}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = done.stderr.strip().splitlines()[-1]
    if "need at least" not in last and "cache.host_bytes" not in last:
        sys.exit(f"offload_batch: {' '.join(command)}\n{last}")
    return last


def device_bytes(args):
    """The least device memory, in steps of a few hundredths, in which dense moves no rows at decode."""
    one = bench(args, DENSE, 1, "host", 1)["kv_bytes"]["host"]
    for percent in (100, 102, 104, 106, 108, 110, 115, 120, 130, 140, 160, 180, 200, 300, 500, 900):
        size = args.holds * one * percent // 100
        out = bench(args, DENSE, args.holds, f"host-discrete:{size}", 1)
        if not isinstance(out, str) and out["bytes"]["h2d"] == 0:
            return size
    sys.exit("offload_batch: dense always moves rows; is --context too short?")


def link_gbps(args):
    """What the link moves unthrottled: its largest copy to the device."""
    command = [args.quarry, "bench", "link", "--json", "--device", "host-discrete:256M"]
    out = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return max(r["gbps"] for r in out["results"] if r["name"].startswith("to device"))


def batches(args, policy, size, gbps=0):
    """[(batch, median result)] of growing batches until one does not fit."""
    rows, batch = [], 1 if policy == DENSE else args.holds
    while batch <= args.most:
        runs = [bench(args, policy, batch, f"host-discrete:{size}", gbps=gbps) for _ in range(args.runs)]
        if isinstance(runs[0], str):
            print(f"{policy:24} {batch:5}   does not fit: {runs[0].split(': ', 2)[-1]}", flush=True)
            break
        out = sorted(runs, key=lambda r: r["tokens_per_s"])[len(runs) // 2]
        rows.append((batch, out))
        hits = "-" if out["hit_rate"] is None else f"{100 * out['hit_rate']:.1f} %"
        moved = out["bytes"]["h2d"] / args.steps / 1e6
        print(f"{policy:24} {batch:5} {out['tokens_per_s']:9.1f} {out['step_ms']:9.1f} {hits:>8} "
              f"{moved:9.1f} {out['device_reserved_bytes'] / 2**20:9.0f}", flush=True)
        if policy == DENSE and out["bytes"]["h2d"] > 0 and batch > args.holds:
            break  # rows stream through the device from here on
        if policy != DENSE:
            batch *= 2
        else:
            batch = batch + 1 if batch >= args.holds else min(2 * batch, args.holds)
    return rows


def plot(args, series):
    """All results in one file, and the picture that scripts/plot draws of it."""
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    data = out / "batches.json"
    data.write_text(json.dumps({"runs": [dict(result, label=name) for name, rows in series.items()
                                         for _, result in rows]}) + "\n")
    script = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "plot"
    done = subprocess.run([script, "--kind", "batches", "-o", out / "batches.svg", "--title",
                           f"{args.context} tokens each, device memory for {args.holds} dense", data])
    picture = f"{out}/batches.svg, " if done.returncode == 0 else ""
    print(f"written: {picture}{data}")


def slow_links(args, size, dense, gbps, series):
    """The policy on slower links; each becomes a series."""
    memory = dense["ceiling_gbps"]
    print(f"device memory reads {memory:.1f} GB/s; the link moves {gbps:.1f}, 1/{memory / gbps:.1f} of it")
    for part in (int(p) for p in args.links.split(",") if p):
        print(f"link of {memory / part:.3f} GB/s, 1/{part} of device memory:")
        name = f"{args.policy}, link 1/{part}"
        series[name] = batches(args, args.policy, size, memory / part)
        batch, out = max(series[name], key=lambda r: r[1]["tokens_per_s"])
        print(f"best batch {batch}: {out['tokens_per_s']:.1f} tokens/s, "
              f"{out['tokens_per_s'] / dense['tokens_per_s']:.2f} times dense at its best", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("--model", required=True)
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--holds", type=int, default=4, help="sequences that fit dense")
    parser.add_argument("--most", type=int, default=64, help="largest batch")
    parser.add_argument("--context", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--links", default="16,64", help="parts of the device memory's rate; empty: none")
    parser.add_argument("--device-bytes", type=int, default=0, help="instead of what --holds says")
    parser.add_argument("--out", default="build/offload_batch")
    args, args.more = parser.parse_known_args()

    size = args.device_bytes or device_bytes(args)
    print(f"device memory {size / 2**20:.0f} MiB: holds {args.holds} sequences of {args.context} tokens dense; "
          "a CPU plays the device")
    print(f"{'policy':24} {'batch':>5} {'tokens/s':>9} {'ms/step':>9} {'found':>8} {'MB moved':>9} {'MiB used':>9}")
    series = {policy: batches(args, policy, size) for policy in (DENSE, args.policy)}
    best = {p: max(rows, key=lambda r: r[1]["tokens_per_s"]) for p, rows in series.items() if rows}
    if len(best) == 2:
        dense_batch, dense = best[DENSE]
        same = dict(series[args.policy]).get(dense_batch)
        batch, sparse = best[args.policy]
        print(f"dense at its best batch, {dense_batch}: {dense['tokens_per_s']:.1f} tokens/s")
        if same:
            print(f"{args.policy} at that batch: {same['tokens_per_s']:.1f}, "
                  f"{same['tokens_per_s'] / dense['tokens_per_s']:.2f} times: what selection gives")
        print(f"{args.policy} at its best batch, {batch}: {sparse['tokens_per_s']:.1f}, "
              f"{sparse['tokens_per_s'] / dense['tokens_per_s']:.2f} times: what capacity adds")
        slow_links(args, size, dense, link_gbps(args), series)
    plot(args, series)


if __name__ == "__main__":
    main()
