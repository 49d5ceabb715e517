#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Eight prompts, answered as one batch, whose blocks lie on memory servers: some started by hand, and those of jobs
under mpirun.

usage: same_remote.py QUARRY MAKE_GGUF SAME_ANSWER [--all|--short] [--model FILE.gguf --text FILE]
                      [--policies quest,dense] [--prompts 8] [--tokens 200] [--steps 24]

With step.deterministic = on token ids and every bit of every row of logits must be those of a single process with all
blocks in its memory: with plan.mode = pull, with push, where lists whose rows lie at one place are attended to there,
and with auto. So they must where servers choose by the index bytes that they have (retrieval.index_at = home). Each run
is also held to what it was meant to do. --all: 1 to 3 servers, 1 and 2 copies, all modes, both ways to open the host as
a discrete device, 1 and 2 memory ranks; without it a few of these, and with --short, for slow builds, fewer. Two workers over two memory ranks answer the prompts as a list: the ids, and the bits of every step's gap between the two
best logits, must be those of a single process. Prints a table.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import dist

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(TESTS / "bench"), str(TESTS / "program")]
from same_answer import POLICIES, difference, words  # noqa: E402
from memory import NETWORK, Server, new_key  # noqa: E402
from program import ENV, FOLDER, tiny, write  # noqa: E402

LINES = ("In the beginning there was a text, and it's 42 lines long.", "Who copies a row copies its key and value?",
         "A block is full: it goes home; 128 tokens leave the device.", "Nothing is lost, nothing is said twice.")
# Neither sinks nor a window stay here, so that there are lists whose rows lie at one server.
SETTINGS = {"step.deterministic": "on", "retrieval.min_tokens": 0, "cache.sinks": 0, "cache.window": 1,
            "cache.block_tokens": 16, "model.chunk": 32, "retrieval.auto_calibrate": "off", "net.timeout_ms": 5000}
# Policies whose index bytes servers score (retrieval.index_at = home), and their codebooks: made before, or left out.
UNION = words({"retrieval.pooling": "union", "retrieval.rerank": "off"})
APART = {"a2ats": ("a2ats", [*POLICIES["a2ats"], *words({"retrieval.wrope_window": 0})]),
         "codes": ("a2ats+", ["--policy", "a2ats+", "--budget", "0.2", *UNION]),
         "keys": (None, ["--policy", "a2ats+", "--budget", "0.2", *UNION, *words({"retrieval.first_stage": "keys"})])}
LINE = "%-9s %-14s %6s %-5s %-16s %8s %9s %9s %11s  %s"


def runs(args):
    """(servers, copies, mode, device, a job?)"""
    both = ("host", "sized")
    if args.short:
        return [(1, 1, "push", "host", False), (3, 2, "auto", "sized", False), (1, 1, "pull", "host", True)]
    if not args.all:
        return [(1, 1, "push", "host", False), (1, 1, "pull", "sized", False), (2, 2, "auto", "host", False),
                (3, 1, "pull", "host", False), (3, 2, "push", "sized", False), (1, 1, "pull", "host", True),
                (2, 1, "push", "host", True)]
    servers = [(n, copies) for n in (1, 2, 3) for copies in (1, 2) if copies <= n]
    modes = ("pull", "push", "auto")
    return [(n, copies, mode, device, job) for job in (False, True) for n, copies in servers if not job or n < 3
            for mode in modes for device in both]


class Matrix:
    def __init__(self, args):
        self.args = args
        real = args.model is not None
        text = args.text or write("text.txt", " ".join(f"{LINES[i * 7 % 4]} {i * i}" for i in range(90)))
        self.size, self.device = ("512M", "host-discrete:256M") if real else ("8M", "host-discrete:8M")
        self.text = text
        self.base = (args.programs[2], text, str(args.prompts), str(args.tokens), str(args.steps), "-m",
                     args.model or tiny(), *words(SETTINGS))
        self.wrong = 0

    def answer(self, command, ranks=0):
        """What the driver prints, and why there is nothing."""
        if ranks:
            done = dist.mpirun(ranks + 1, *command, timeout=600)
            code, out, err = done.code, done.stdout, done.stderr
        else:
            done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=600)
            code, out, err = done.returncode, done.stdout, done.stderr
        return (json.loads(out), None) if code == 0 and not err else (None, f"exit code {code}: {err.strip()}")

    @staticmethod
    def judge(have, n, copies, mode, policy):
        """What did not happen that was to be tried."""
        remote, servers = have["remote"], have["servers"]
        if not have["device"].startswith("host, discrete"):
            return f"the device is {have['device']}"
        if have["kv_bytes"]["remote"] == 0 or len(servers) != n or not all(s["blocks"] for s in servers):
            return "a server has no block"
        if sum(s["puts"] for s in servers) < copies * remote["writes"] or remote["failed_writes"]:
            return "copies are missing"
        if any(s["timeouts"] or s["again"] for s in servers):
            return "questions were asked again"
        if mode == "pull" and remote["rows_pushed"]:
            return "rows were pushed"
        if (policy in APART) != (remote["scores"] > 0):
            return f"servers were asked for scores {remote['scores']} times"
        # a union of single tokens lies at several servers, where there are any
        pushes = mode == "push" and (policy not in APART or n == 1)
        if policy != "dense" and (not remote["rows_pulled"] or pushes and not remote["rows_pushed"]):
            return f"{remote['rows_pulled']} rows pulled, {remote['rows_pushed']} pushed"
        return None

    def one(self, policy, want, servers, run):
        n, copies, mode, device, job = run
        device = device if device == "host" else self.device
        settings = {"plan.mode": mode, "net.replicas": copies}
        if policy in APART:
            settings["retrieval.index_at"] = "home"
        if job:
            settings["net.bytes"] = self.size
        else:
            settings["net.memory"] = ",".join(s.address for s in servers[:n])
            settings["net.key_file"] = new_key("key")
        command = (*self.base, *self.options(policy), "--device", device, *words(settings))
        have, why = self.answer(command, n if job else 0)
        why = why or difference(want, have) or self.judge(have, n, copies, mode, policy)
        self.wrong += why is not None
        remote = have["remote"] if have else {}
        print(LINE % (policy, "%d %s" % (n, "ranks" if job else "servers"), copies, mode, device,
                      remote.get("writes", "-"), remote.get("rows_pulled", "-"), remote.get("rows_pushed", "-"),
                      remote.get("read_bytes", "-"), why or "same"), flush=True)

    def lists(self, policy):
        """Two workers and two memory ranks, pulling and pushing; not one batch, but prompt after prompt."""
        prompts = write("prompts.jsonl", "".join(
            json.dumps(" ".join(f"{LINES[(i + p) % 4]} {i * p}" for i in range(self.args.tokens // 20))) + "\n"
            for p in range(self.args.prompts)))
        base = (self.args.programs[0], "generate", "--json", "--prompts", prompts, "-n", str(self.args.steps), "-m",
                self.args.model or tiny(), *self.options(policy), *words(SETTINGS))
        want, why = self.lines(base)
        for mode in ("pull", "push"):
            job = {"plan.mode": mode, "job.workers": 2, "net.bytes": self.size}
            if policy in APART:
                job["retrieval.index_at"] = "home"
            have, other = self.lines((*base, *words(job)), 4)
            why = why or other
            if not why and [(h["tokens"], h["gaps"]) for h in have] != [(w["tokens"], w["gaps"]) for w in want]:
                why = "answers differ"
            if not why and [h["rank"] for h in have] != [i % 2 for i in range(len(want))]:
                why = "prompts are not dealt out in turn"
            if not why and not all(h["kv_bytes"]["remote"] for h in have):
                why = "a worker has no block on a memory rank"
            self.wrong += why is not None
            sums = [sum(h["remote"][key] for h in have or ()) for key in ("writes", "rows_pulled", "rows_pushed",
                                                                         "read_bytes")]
            print(LINE % (policy, "2 workers + 2", 1, mode, "host", *sums, why or "same"), flush=True)

    def lines(self, command, ranks=0):
        """The objects of a list's answers, and why there are none."""
        done = dist.mpirun(ranks, *command, timeout=600) if ranks else dist.run([*command], timeout=600)
        if done.code or len(done.stderr.splitlines()) != 1:
            return None, f"exit code {done.code}: {done.stderr.strip()}"
        return [json.loads(line) for line in done.stdout.splitlines()], None

    @staticmethod
    def options(policy):
        return APART[policy][1] if policy in APART else POLICIES[policy]

    def calibrate(self, policy):
        """Without FAISS there is no codebook, and the policy is left out."""
        words_of = ("--words", "64") if policy == "a2ats" else ()
        subprocess.run((self.args.programs[0], "calibrate", "-m", self.args.model or tiny(), "-t", self.text, "--tokens",
                        "600", "--policy", policy, *words_of), env=ENV, capture_output=True, timeout=600, check=False)

    def policy(self, name):
        if name in APART and APART[name][0] and not self.args.model:
            self.calibrate(APART[name][0])
        want, why = self.answer((*self.base, *self.options(name)))
        if want is None and "codebook" in why:
            print(f"{name:9} left out: {why}", flush=True)
            return
        if want is None:
            print(f"{name:9} FAILED in memory: {why}", flush=True)
            self.wrong += 1
            return
        more = ("--set", "net.timeout_ms=5000")
        with Server(*more, size=self.size) as a, Server(*more, size=self.size) as b, \
                Server(*more, size=self.size) as c:
            for run in runs(self.args):
                self.one(name, want, (a, b, c), run)
        if not self.args.short:
            self.lists(name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs=3, metavar="QUARRY MAKE_GGUF SAME_ANSWER")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--text")
    parser.add_argument("--policies")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--steps", type=int, default=24)
    args = parser.parse_args()
    if not NETWORK:
        dist.skip("this build has no network")
    dist.need_mpirun()
    ENV["QY_MODEL_FILE"] = ""
    if not args.model:
        ENV["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"] = FOLDER.name  # codebooks, of jobs too
    print(f"{args.prompts} prompts of about {args.tokens} tokens, {args.steps} steps: ids and logits beside those of a "
          "single process")
    print(LINE % ("policy", "blocks on", "copies", "mode", "device", "blocks", "pulled", "pushed", "bytes read", ""))
    matrix = Matrix(args)
    names = "quest,dense,a2ats,codes,keys" if args.all else "quest,keys" if args.short else "quest,a2ats,keys"
    for name in (args.policies or names).split(","):
        matrix.policy(name)
    print("all the same" if not matrix.wrong else f"{matrix.wrong} FAILED")
    return 1 if matrix.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
