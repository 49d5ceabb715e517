#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it costs that the KV cache lies on memory servers: decode steps beside those of a cache in this process's
memory, by context, number of servers, link, and plan.

  tests/bench/remote.py [--quarry PROGRAM] [-f TEXT] [--contexts 2000,8000] [--servers 2] [--modes local,pull,push,auto]
                        [--batch 16] [--steps 24] [--runs 5] [--policy "a2ats+ --preset fast"]
                        [--netns [--gbit 0,1,10]] [--pin] [--json FILE] [more options of bench decode]

  local           blocks stay in this process, on the same discrete device, host-discrete:auto
  pull push auto  blocks lie on servers, with that plan.mode
  unified         blocks stay in this process, and the device is the host: nothing moves at all

Without --netns servers are on this host and reached by tcp over loopback. With it each is a host of
scripts/netns-cluster (as root), and --gbit gives the rates of all links in Gbit/s, 0: not limited. --servers 1,2,3
compares their number. Without -f rows are random, of any context: speed only. --pin: one worker thread on core 0, the
servers on core 1, and so for local too, so that nobody computes with the core that moves bytes.

All points are run in turn, as often as --runs says: whatever else the machine does meanwhile falls on all of them. Each
run's line has the share of processor time that the machine's owner took meanwhile (`steal`); runs with more than a few
percent say little. The table has medians, the ratio of each rate to local's at the same context, and for auto its step
over the better of pull's and push's. Filling the servers goes over the limited link as well: 2.9 GB, the KV of
SmolLM2-135M at batch 16 and 8,000 tokens, take half a minute at 1 Gbit/s.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
REMOTE = ("pull", "push", "auto")
HERE = ("local", "unified")
TIMEOUT = 5000  # ms: net.timeout_ms, which a machine of two cores must keep while it fills servers


def numbers(text, kind=int):
    return [kind(x) for x in text.split(",")]


class Machine:
    """Processor time of this machine, in ticks."""

    def __init__(self):
        with open("/proc/stat", encoding="ascii") as f:
            ticks = [int(x) for x in f.readline().split()[1:9]]
        self.all, self.steal = sum(ticks), ticks[7]

    def steal_since(self, before):
        """In percent."""
        return 100 * (self.steal - before.steal) / max(1, self.all - before.all)


class Hosts:
    """Where worker and servers run: this host, or network namespaces, of which host 0 is the worker's."""

    def __init__(self, n, netns):
        self.n, self.netns, self.name = n, netns, f"b{os.getpid()}"
        self.cluster = [str(ROOT / "scripts/netns-cluster"), "--name", self.name]
        self.rate = None

    def __enter__(self):
        if self.netns:
            subprocess.run([*self.cluster, "check"], check=True)
            subprocess.run([*self.cluster, "up", str(self.n)], check=True)
        return self

    def __exit__(self, *unused):
        if self.netns:
            subprocess.run([*self.cluster, "down"], check=False)

    def inside(self, host):
        return [*self.cluster, "exec", str(host)] if self.netns else []

    def address(self, host):
        return f"10.77.0.{host + 1}:0" if self.netns else "127.0.0.1:0"

    def device(self):
        return ["--set", "net.device=veth0"] if self.netns else []

    def limit(self, gbit):
        """All links, both ways."""
        if not self.netns or gbit == self.rate:
            return
        for host in range(self.n):
            for namespace, device in ((f"{self.name}-{host}", "veth0"), (f"{self.name}-br", f"port{host}")):
                at = ["tc", "-n", namespace, "qdisc"]
                subprocess.run([*at, "delete", "dev", device, "root"], stderr=subprocess.DEVNULL, check=False)
                if gbit:  # the burst as scripts/netns-cluster has it, or what comes in a millisecond
                    burst = max(256, int(gbit * 125))
                    subprocess.run([*at, "add", "dev", device, "root", "tbf", "rate", f"{int(gbit * 1000)}mbit",
                                    "burst", f"{burst}kb", "latency", "20ms"], check=True)
        self.rate = gbit


class Bench:
    def __init__(self, args, hosts, folder):
        self.args, self.hosts, self.key = args, hosts, f"{folder}/key"
        self.pin = (["taskset", "-c", "0"], ["taskset", "-c", "1"]) if args.pin else ([], [])
        subprocess.run([args.quarry, "memory", "--new-key", self.key], stderr=subprocess.DEVNULL, check=True)

    def command(self, context, mode, addresses, steps):
        a = self.args
        command = [*self.hosts.inside(0), *self.pin[0], a.quarry, "bench", "decode", "--json", "--batch",
                   str(a.batch), "--context", str(context), "--steps", str(steps), "--policy", *a.policy.split(),
                   "--device", "host" if mode == "unified" else "host-discrete:auto"]
        command += ["-f", a.file, "--set", "model.compute=bf16"] if a.file else []
        command += ["--threads", "1"] if a.pin else []
        if mode in REMOTE:
            command += ["--set", "net.memory=" + ",".join(addresses), "--set", "net.key_file=" + self.key, "--set",
                        f"net.timeout_ms={TIMEOUT}", "--set", f"plan.mode={mode}", *self.hosts.device()]
        return [*command, *a.more]

    def run(self, context, mode, addresses, steps):
        """What it says, and the steal; again where a busy machine was too slow to connect. None: it failed."""
        for _ in range(3):
            before = Machine()
            done = subprocess.run(self.command(context, mode, addresses, steps), capture_output=True, text=True)
            if done.returncode == 0:
                return json.loads(done.stdout), Machine().steal_since(before)
            if "not reached within" not in done.stderr:
                break
        print(f"context {context}, {mode}: exit code {done.returncode}: {done.stderr.strip()}", file=sys.stderr)
        return None, 0.0

    def kv_bytes(self, context):
        """Of all sequences, as a run of one step in this process has them."""
        out, _ = self.run(context, "local", [], 1)
        if out is None:
            sys.exit(1)
        return out["kv_bytes"]["host"]

    @contextlib.contextmanager
    def servers(self, n, bytes_each):
        """n of them, by their addresses."""
        children, addresses = [], []
        try:
            for i in range(n):
                host = i + 1
                child = subprocess.Popen(
                    [*self.hosts.inside(host), *self.pin[1], self.args.quarry, "memory", "--listen",
                     self.hosts.address(host), "--bytes", str(bytes_each), "--key-file", self.key, "--threads",
                     str(self.args.server_threads), "--set", "runtime.bind=none", "--set",
                     f"net.timeout_ms={TIMEOUT}", "--set", "net.drain_ms=0", "--set", "runtime.log=warn"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                children.append(child)
                addresses.append(self.listens(child))
            yield addresses
        finally:
            for child in children:
                child.terminate()
            for child in children:
                try:
                    child.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.communicate()

    @staticmethod
    def listens(child):
        said = []
        for line in child.stderr:
            said.append(line)
            found = re.search(r"listens at (\S+), ", line)
            if found:
                return found[1]
        sys.exit(f"remote.py: a server does not listen: {''.join(said)}")


def points(args):
    """(servers, Gbit/s, mode), local ones once."""
    found = [(0, 0.0, mode) for mode in args.modes if mode in HERE]
    return found + [(n, gbit, mode) for n in args.servers for gbit in args.gbit for mode in args.modes
                    if mode in REMOTE]


def measure(args, bench, context, results):
    bytes_each = int(bench.kv_bytes(context) * 1.25) + (256 << 20)
    with bench.servers(max(args.servers), bytes_each) as addresses:
        for i in range(args.runs):
            for n, gbit, mode in points(args):
                if mode in REMOTE:
                    bench.hosts.limit(gbit)
                out, steal = bench.run(context, mode, addresses[:n], args.steps)
                if out is None:
                    continue
                results.setdefault((context, n, gbit, mode), []).append({**out, "steal": steal})
                print(f"run {i + 1}: context {context}, {n} servers, {gbit:g} Gbit/s, {mode}: "
                      f"{out['step_ms']:.2f} ms, steal {steal:.1f} %", file=sys.stderr)


def middle(runs, value):
    found = [x for x in map(value, runs) if x is not None]
    return statistics.median(found) if found else None


def shown(value, form):
    return "-" if value is None else form % value


LINE = "%8s %7s %6s %-8s %9s %9s %10s %8s %7s %6s %8s %7s %5s"


def table(args, results):
    print(LINE % ("context", "servers", "Gbit/s", "mode", "step ms", "spread", "tokens/s", "of local", "overlap",
                  "found", "net MB/s", "steal %", "runs"))
    for context in args.contexts:
        steps = {}
        local = middle(results.get((context, 0, 0.0, "local"), []), lambda r: r["tokens_per_s"])
        for n, gbit, mode in points(args):
            runs = results.get((context, n, gbit, mode), [])
            if not runs:
                print(LINE % (context, n, f"{gbit:g}", mode, *["-"] * 8, 0))
                continue
            step = middle(runs, lambda r: r["step_ms"])
            rate = middle(runs, lambda r: r["tokens_per_s"])
            steps[n, gbit, mode] = step
            moved = middle(runs, lambda r: r["bytes"]["net"] / args.steps / r["step_ms"] / 1e3)
            idle = mode in REMOTE and not all(r["kv_bytes"]["remote"] for r in runs)
            print(LINE % (context, n or "-", f"{gbit:g}" if n and gbit else "-", mode + "*" * idle, "%.2f" % step,
                          "%.2f" % statistics.pstdev([r["step_ms"] for r in runs]), "%.1f" % rate,
                          shown(rate / local if local else None, "%.2f"),
                          shown(middle(runs, lambda r: r["overlap"]), "%.2f"),
                          shown(middle(runs, lambda r: r["hit_rate"]), "%.3f"),
                          "%.1f" % moved if n else "-", "%.1f" % max(r["steal"] for r in runs), len(runs)))
        for n in args.servers:
            for gbit in args.gbit:
                auto, *others = (steps.get((n, gbit, mode)) for mode in ("auto", "pull", "push"))
                if auto and all(others):
                    print(f"{context:8} {n:7} {gbit or '-':>6} auto / the better of pull and push: "
                          f"{auto / min(others):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file")
    parser.add_argument("--contexts", type=numbers, default="2000,8000")
    parser.add_argument("--servers", type=numbers, default="2")
    parser.add_argument("--modes", type=lambda text: text.split(","), default="local,pull,push,auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--netns", action="store_true")
    parser.add_argument("--gbit", type=lambda text: numbers(text, float), default="0")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--server-threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write every run there")
    args, args.more = parser.parse_known_args()
    unknown = set(args.modes) - set(REMOTE + HERE)
    if unknown or min(args.servers) < 1 or (any(args.gbit) and not args.netns):
        parser.error(f"modes {', '.join(unknown)}: not known" if unknown else
                     "--servers: 1 or more" if min(args.servers) < 1 else "--gbit: links are limited with --netns alone")
    results = {}
    try:
        with tempfile.TemporaryDirectory() as folder, Hosts(max(args.servers) + 1, args.netns) as hosts:
            bench = Bench(args, hosts, folder)
            for context in args.contexts:
                measure(args, bench, context, results)
    except KeyboardInterrupt:
        print("interrupted: medians of what was run", file=sys.stderr)
    print(f"batch {args.batch}, policy {args.policy}, {args.steps} steps a run, in turns"
          + (", worker and servers on a core each" if args.pin else "")
          + (", over network namespaces" if args.netns else ", over loopback"))
    table(args, results)
    if any(not r["kv_bytes"]["remote"] for (_, n, _, _), runs in results.items() for r in runs if n):
        print("* all blocks fitted into this process's frames: nothing lay on the servers")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump([{"context": c, "servers": n, "gbit": g, "mode": m, "runs": runs}
                       for (c, n, g, m), runs in results.items()], file)


if __name__ == "__main__":
    main()
