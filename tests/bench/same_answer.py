#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same answer: prompts of real text, answered greedily as one batch with step.deterministic = on.

Each policy answers on the unified device, then on a discrete one with memory for everything, with a
tenth of that and with the least that is accepted, with 1, 2 and 3 micro-batches, pulling, pushing and
as the plan likes, and with whatever prefetch and disk this build has. Token ids and every bit of every
row of logits must be those of the unified device. Prints a table; exit status 1 when one differs.

  tests/bench/same_answer.py [--build build/release] [-m MODEL.gguf] [-f TEXT] [--prompts 8]
                             [--tokens 512] [--steps 32] [--policies dense,exact,...] [--short]

TEXT is by default the Gospel of Matthew of the program `bible`. --short: one of each kind of variant.
A policy without its codebook is left out, with the reason.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

POLICIES = {
    "dense": ["--policy", "dense"],
    "window": ["--policy", "window"],
    "exact": ["--policy", "exact", "--budget", "0.1"],
    "quest": ["--policy", "quest", "--budget", "0.1"],
    "pq": ["--policy", "pq", "--budget", "0.1"],
    "clusters": ["--policy", "clusters", "--budget", "0.1"],
    "a2ats": ["--policy", "a2ats", "--budget", "0.1"],
    "fast": ["--policy", "a2ats+", "--preset", "fast"],
    "faithful": ["--policy", "a2ats+", "--preset", "faithful"],
}
BASE = {"step.deterministic": "on", "retrieval.min_tokens": "0", "cache.sinks": "4", "cache.window": "16",
        "cache.block_tokens": "32", "retrieval.auto_calibrate": "off"}
DEVICE = ["--device", "host-discrete:64G"]


def words(settings):
    return [w for name, value in settings.items() for w in ("--set", f"{name}={value}")]


class Driver:
    def __init__(self, args, text):
        self.args, self.text = args, text
        self.known = subprocess.run([args.quarry, "config"], capture_output=True, text=True).stdout

    def knows(self, setting):
        return re.search(rf"^\s*{re.escape(setting)}\b", self.known, re.M) is not None

    def run(self, more, settings):
        """The answer, or (None, the error's text)."""
        a = self.args
        model = ["-m", a.model] if a.model else []
        done = subprocess.run([a.driver, self.text, str(a.prompts), str(a.tokens), str(a.steps), *model, *more,
                               *words({**BASE, **settings})], capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout), ""
        return None, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]

    def least(self, policy):
        """The least cache.device_bytes, by the number in the error of a smaller one; and the answer with it."""
        _, why = self.run(policy + DEVICE, {"cache.device_bytes": 1024})
        need = re.search(r"need at least .*?\((\d+) bytes", why)
        if not need:
            return 1024, None, why
        given = int(need.group(1))
        return given, *self.run(policy + DEVICE, {"cache.device_bytes": given})


def variants(driver, full, least, short):
    """(name, settings) of what is compared with the unified device."""
    tenth = max(full // 10, least)
    sizes = {"all": full, "10%": tenth, "least": least}
    for size, given in sizes.items():
        for n in (1, 2, 3):
            if not short or n == (2 if size == "least" else 3):
                yield f"{size} mb{n}", {"cache.device_bytes": given, "step.micro_batches": n}
    for plan in ("push", "auto"):
        for n in (2,) if short else (1, 2, 3):
            yield f"least {plan} mb{n}", {"cache.device_bytes": least, "plan.mode": plan, "step.micro_batches": n}
    if driver.knows("step.prefetch"):
        for what in ("off", "previous", "speculate"):
            yield f"10% prefetch={what}", {"cache.device_bytes": tenth, "step.prefetch": what}
    if driver.knows("cache.disk_bytes"):
        yield "10% disk", {"cache.device_bytes": tenth, "cache.disk_bytes": "256M",
                           "cache.host_bytes": driver.args.disk_host}


def difference(want, have):
    """Where two answers part, or None."""
    for key in ("ids", "sums"):
        for p, (a, b) in enumerate(zip(want[key], have[key])):
            for s, (x, y) in enumerate(zip(a, b)):
                if x != y:
                    return f"prompt {p}, step {s}: {'id' if key == 'ids' else 'logits'} {y}, unified {x}"
    return None


def compare(driver, name, policy, short):
    """Prints the rows of a policy; returns how many differ."""
    want, why = driver.run(policy, {})
    if want is None:
        missing = "codebook" in why
        print(f"{name:10} left out: {why}" if missing else f"{name:10} FAILED on the unified device: {why}", flush=True)
        return not missing
    full, why = driver.run(policy + DEVICE, {"plan.mode": "pull", "step.micro_batches": 1})
    least, _, _ = driver.least(policy + ["--set", "plan.mode=pull", "--set", "step.micro_batches=1"])
    if full is None:
        print(f"{name:10} FAILED on a discrete device: {why}", flush=True)
        return 1
    wrong, seen = 0, []
    for label, settings in variants(driver, full["device_reserved_bytes"], least, short):
        have, why = driver.run(policy + DEVICE, {"plan.mode": "pull", **settings})
        if have is None and "need at least" in why:
            # what pushes keep, or a prefetch, takes room too: the least of this variant
            others = {k: v for k, v in settings.items() if k != "cache.device_bytes"}
            _, have, why = driver.least(policy + words({"plan.mode": "pull", **others}))
        if have is None and "disk" in label and "disk" in why:
            print(f"{name:10} {label} left out: {why}", flush=True)
            continue
        text = why if have is None else difference(want, have)
        wrong += text is not None
        rate = "" if have is None or have.get("hit_rate") is None else f" {100 * have['hit_rate']:.0f}%"
        seen.append(f"{label}{rate}")
        if text is not None:
            print(f"{name:10} {label}: {text}", flush=True)
    print(f"{name:10} {len(seen) - wrong} of {len(seen)} the same as unified: {'; '.join(seen)}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--quarry")
    parser.add_argument("--driver")
    parser.add_argument("-m", dest="model")
    parser.add_argument("-f", dest="file")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--disk-host", default="auto", help="cache.host_bytes of the variant with a disk")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    args.quarry = args.quarry or args.build + "/quarry"
    args.driver = args.driver or args.build + "/tests/same_answer"
    unknown = [p for p in args.policies.split(",") if p not in POLICIES]
    if unknown:
        parser.error(f"--policies '{unknown[0]}': accepted are {', '.join(POLICIES)}")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        text = args.file
        if not text:
            sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
            import quality
            text = folder + "/matthew.txt"
            pathlib.Path(text).write_text(quality.TEXTS["matthew"]())
        driver = Driver(args, text)
        print(f"{args.prompts} prompts of about {args.tokens} tokens, {args.steps} steps; beside each variant the "
              "share of rows that were on the device")
        for name in args.policies.split(","):
            wrong += compare(driver, name, POLICIES[name], args.short)
    print("all the same" if not wrong else f"{wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
