#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it costs that the KV cache lies on memory servers: decode steps beside those of a cache in this process's
memory, by context, number of servers, link, and plan.

  tests/bench/remote.py [--quarry PROGRAM] [-f TEXT] [--contexts 2000,8000] [--servers 2] [--modes local,pull,push,auto]
                        [--batch 16] [--steps 32] [--policy "a2ats+ --preset fast"]
                        [--netns [--gbit 0,1,10]] [--pin] [--json FILE] [more options of bench compare]

  local           blocks stay in this process, on the same discrete device (--device, 47 MiB for each sequence)
  pull push auto  blocks lie on servers, with that plan.mode
  unified         blocks stay in this process, and the device is the host: nothing moves at all

Without --netns servers are on this host and reached by tcp over loopback. With it each is a host of
scripts/netns-cluster (as root), and --gbit gives the rates of all links in Gbit/s, 0: not limited. Servers are filled over
the limited link as well. --servers 1,2,3 compares their number. Without -f rows are random, of any context: speed only.
--pin: one worker thread on core 0, the servers on core 1, and so for local too, so that nobody computes with the core
that moves bytes.

A point is one run of `quarry bench compare`: its modes take turns step by step. Ratios to local's step are medians of
the turns'; for auto there is its ratio to the better of pull and push. `steal` is the share of processor time that the
machine's owner took meanwhile.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
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

    def side(self, mode, addresses):
        if mode == "unified":
            return "unified: device.spec=host"
        device = f"{mode}: device.spec=host-discrete:{self.args.device * self.args.batch}"
        if mode in HERE:
            return device
        words = [device, "net.memory=" + ",".join(addresses), "net.key_file=" + self.key, f"net.timeout_ms={TIMEOUT}",
                 f"plan.mode={mode}", *(["net.device=veth0"] if self.hosts.netns else [])]
        return " ".join(words)

    def command(self, context, addresses):
        a = self.args
        command = [*self.hosts.inside(0), *self.pin[0], a.quarry, "bench", "compare", "--json", "--batch", str(a.batch),
                   "--context", str(context), "--steps", str(a.steps), "--policy", *a.policy.split()]
        command += ["-f", a.file, "--set", "model.compute=bf16"] if a.file else []
        command += ["--threads", "1"] if a.pin else []
        for mode in a.modes:
            command += ["--side", self.side(mode, addresses)]
        return [*command, *a.more]

    def run(self, context, addresses):
        """Its sides, and the steal; exits where it fails."""
        before = Machine()
        done = subprocess.run(self.command(context, addresses), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"context {context}: exit code {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)["sides"], Machine().steal_since(before)

    @contextlib.contextmanager
    def servers(self, n):
        """n of them, by their addresses."""
        children, addresses = [], []
        try:
            for i in range(n):
                host = i + 1
                child = subprocess.Popen(
                    [*self.hosts.inside(host), *self.pin[1], self.args.quarry, "memory", "--listen",
                     self.hosts.address(host), "--bytes", self.args.server_bytes, "--key-file", self.key, "--threads",
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


LINE = "%8s %7s %6s %-8s %9s %8s %10s %9s %8s %7s %8s %7s"


def shown(value, form):
    return "-" if value is None else form % value


def show(context, n, gbit, sides, steal):
    """The lines of one point."""
    by = {side["name"]: side for side in sides}
    for name, side in by.items():
        away = name in REMOTE
        print(LINE % (context, n if away else "-", f"{gbit:g}" if away and gbit else "-",
                      name + "*" * (away and not side["remote_kv_bytes"]), "%.2f" % side["step_ms"],
                      "%.2f" % side["step_spread_ms"], "%.1f" % side["tokens_per_s"], "%.3f" % side["of_first"],
                      shown(side["overlap"], "%.2f"), "%.3f" % side["hit_rate"],
                      "%.2f" % side["remote_mb"] if away else "-", "%.1f" % steal), flush=True)
    if all(mode in by for mode in REMOTE):
        better = min(by["pull"]["of_first"], by["push"]["of_first"])
        print(f"         auto over the better of pull and push: {by['auto']['of_first'] / better:.3f}", flush=True)


def measure(args, bench, results):
    for context in args.contexts:
        for n in args.servers:
            for gbit in args.gbit:
                bench.hosts.limit(gbit)
                with bench.servers(n) as addresses:
                    sides, steal = bench.run(context, addresses)
                results.append({"context": context, "servers": n, "gbit": gbit, "steal": steal, "sides": sides})
                show(context, n, gbit, sides, steal)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("-f", "--file")
    parser.add_argument("--contexts", type=numbers, default="2000,8000")
    parser.add_argument("--servers", type=numbers, default="2")
    parser.add_argument("--modes", type=lambda text: text.split(","), default="local,pull,push,auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32, help="turns")
    parser.add_argument("--device", type=int, default=47 << 20, help="bytes of device memory per sequence")
    parser.add_argument("--server-bytes", default="10G", help="of each")
    parser.add_argument("--policy", default="a2ats+ --preset fast")
    parser.add_argument("--netns", action="store_true")
    parser.add_argument("--gbit", type=lambda text: numbers(text, float), default="0")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--server-threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write every point there")
    args, args.more = parser.parse_known_args()
    unknown = set(args.modes) - set(REMOTE + HERE)
    if unknown or min(args.servers) < 1 or (any(args.gbit) and not args.netns):
        parser.error(f"modes {', '.join(unknown)}: not known" if unknown else
                     "--servers: 1 or more" if min(args.servers) < 1 else "--gbit: links are limited with --netns alone")
    results = []
    print(f"batch {args.batch}, policy {args.policy}, {args.steps} turns of one step each"
          + (", worker and servers on a core each" if args.pin else "")
          + (", over network namespaces" if args.netns else ", over loopback")
          + f"; ratios to {args.modes[0]}'s step; *: nothing lay on the servers")
    print(LINE % ("context", "servers", "Gbit/s", "mode", "step ms", "spread", "tokens/s", "of first", "overlap", "found",
                  "net MB", "steal %"), flush=True)
    with tempfile.TemporaryDirectory() as folder, Hosts(max(args.servers) + 1, args.netns) as hosts:
        measure(args, Bench(args, hosts, folder), results)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
