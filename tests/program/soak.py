#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Workers whose sequences come and go, for a while, over three memory servers: every answer has the bits of a single
process, nothing goes wrong, and nothing grows or stays.

usage: soak.py QUARRY MAKE_GGUF SOAK [--seconds 10] [--seed 1]

Two workers stay (one pulls; one pushes and has two copies of each block), short ones come and go beside them, and
some of those are killed. A line ten times, or once a minute. At the end: no block on a server, nothing in /dev/shm.
"""
import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "dist"))
import dist  # noqa: E402
from memory import NETWORK, Server, new_key  # noqa: E402
from program import ENV, run, tiny, write  # noqa: E402

SOAK = sys.argv[3]
LINES = ("In the beginning there was a text, and it's 42 lines long.", "Who copies a row copies its key and value?",
         "A block is full: it goes home; 128 tokens leave the device.", "Nothing is lost, nothing is said twice.")
SETTINGS = ("step.deterministic=on", "retrieval.min_tokens=0", "cache.block_tokens=16", "model.chunk=32",
            "cache.sinks=0", "cache.window=1")  # what is full lies on servers, so that lists can be pushed whole
TIMEOUT = 1500  # ms: net.timeout_ms, which a busy machine must keep
# More processes than cores: nobody waits by looking.
QUIET = ("runtime.threads=1", "runtime.spin_us=0", "net.spin_us=0", f"net.timeout_ms={TIMEOUT}")
GRACE = 4 * TIMEOUT / 1e3  # s: how long a server keeps blocks of somebody who is away
# What may be added to a process after the first third of the time. A worker's memory is taken when it opens, and
# touched by then; a server's pools of messages grow by some 3 MiB in all, with the peers that were there at once.
WORKER_GROWTH, SERVER_GROWTH = 1 << 20, 4 << 20


class Wrong(Exception):
    pass


def resident(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) << 10


class LongServer(Server):
    """One that says more than a pipe holds."""

    def __init__(self, *more):
        super().__init__(*more)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.child.stderr), daemon=True)
        self.reader.start()

    def end(self, number=signal.SIGTERM):
        self.child.send_signal(number)
        out = self.child.stdout.read()
        code = self.child.wait(60)
        self.reader.join(60)
        return code, out, "".join(self.lines)


class Worker:
    """The driver, and a check of each answer as it comes."""

    def __init__(self, soak, seed, answers, *more):
        self.want, self.n, self.wrong, self.end_object = soak.want, 0, [], None
        self.err = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen([SOAK, soak.text, str(seed), str(answers), *soak.base, *more], env=ENV, text=True,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.err)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "answer":
                question, _, have = rest.partition(" ")
                if self.want is not None and have and self.want[question] != have:
                    self.wrong.append(line)
                self.n += 1
            elif line.endswith("}\n"):
                self.end_object = json.loads(line)

    def end(self, number=None):
        """Of one that was not killed: exit code 0, and not a word on stderr."""
        if number:
            self.child.send_signal(number)
        code = self.child.wait(120)
        self.reader.join(60)
        self.child.stdout.close()
        self.err.seek(0)
        said = self.err.read()
        self.err.close()
        if self.wrong:
            raise Wrong(f"another answer than a single process's: {self.wrong[:3]}")
        if number != signal.SIGKILL and (code or said or not self.end_object):
            raise Wrong(f"exit code {code}: {said}")
        return self.end_object


class Soak:
    def __init__(self, args, servers):
        self.args, self.servers, self.random = args, servers, random.Random(args.seed)
        self.text = write("soak.txt", " ".join(f"{LINES[i * 7 % 4]} {i * i}" for i in range(90)))
        sets = (*SETTINGS, *QUIET)
        self.base = ("-m", tiny(), "--policy", "quest", "--budget", "0.1", *(w for s in sets for w in ("--set", s)))
        self.want = None
        alone = subprocess.run([SOAK, self.text, "0", "0", *self.base], env=ENV, stdout=subprocess.PIPE, text=True,
                               check=True).stdout
        self.want = dict(line.split()[1:] for line in alone.splitlines() if line.startswith("answer "))
        self.short, self.deaths, self.shorts, self.short_answers = None, None, 0, 0
        self.killed, self.net = 0, 0
        self.memory = ("--set", "net.memory=" + ",".join(s.address for s in servers), "--set",
                       "net.key_file=" + new_key("key"))

    def worker(self, seed, answers, mode, copies):
        return Worker(self, seed, answers, "--device", "host", *self.memory, "--set", f"plan.mode={mode}", "--set",
                      f"net.replicas={copies}")

    def held(self):
        """(blocks held, blocks in all, sessions) of each server, as it says itself."""
        done = run("doctor", "--json", *self.memory)
        servers = json.loads(done.stdout)["network"]["servers"]
        if not all(s["reachable"] for s in servers):
            raise Wrong(f"servers are away: {servers}")
        return [(s["blocks"] - s["free_blocks"], s["blocks"], s["sessions"]) for s in servers]

    def come_and_go(self):
        """The worker that stays only for a few answers."""
        if self.short is None:
            answers = self.random.randint(3, 20)
            self.short = self.worker(self.random.randint(1, 1 << 30), answers,
                                     self.random.choice(("pull", "push", "auto")), self.random.choice((1, 2)))
            self.deaths = self.random.randint(1, answers) if self.shorts % 4 == 1 else None
            return
        if self.deaths is not None and self.short.n >= self.deaths and self.short.child.poll() is None:
            self.short.end(signal.SIGKILL)
            self.killed += 1
        elif self.short.child.poll() is not None:
            self.short.end()
        else:
            return
        self.shorts += 1
        self.short_answers += self.short.n
        self.short = None

    def leave_nothing(self, before):
        """No session, no block, nothing in shared memory: at once, but for what those who were killed had."""
        limit = time.monotonic() + GRACE + 30
        held = self.held()
        while any(used or sessions for used, _, sessions in held):
            if time.monotonic() > limit:
                raise Wrong(f"blocks held, blocks, sessions of the servers when all workers are gone: {held}")
            time.sleep(0.5)
            held = self.held()
        for server in self.servers:
            code, out, err = server.end()
            blocks = json.loads(out)["blocks"]
            if code or "error" in err or blocks["held"]:
                raise Wrong(f"a server ended with {code}: {out}{err}")
        left = dist.wait_until_gone(lambda: (new := dist.shared_memory() - before) - dist.held(new), 10)
        if left:
            raise Wrong(f"left in /dev/shm: {left}")
        return held

    def run(self):
        seconds = self.args.seconds
        before = dist.shared_memory()
        stay = [self.worker(2 * self.args.seed + 1, 0, "pull", 1), self.worker(2 * self.args.seed + 2, 0, "push", 2)]
        everybody = stay + self.servers
        begin, every, rows = time.monotonic(), min(60.0, seconds / 10), []
        print("%8s %9s %7s %7s %13s %13s   %-20s %-20s" % (
            "seconds", "answers", "shorts", "killed", "worker 1, KiB", "worker 2, KiB", "servers, KiB", "blocks held"))
        try:
            while (now := time.monotonic() - begin) < seconds:
                self.come_and_go()
                for w in stay:
                    if w.child.poll() is not None or w.wrong:
                        w.end()
                        raise Wrong("a worker ended by itself")
                if now >= every * (len(rows) + 1):
                    rows.append([resident(x.child.pid) for x in everybody])
                    print("%8.0f %9d %7d %7d %13d %13d   %-20s %-20s" % (
                        now, self.short_answers + sum(w.n for w in stay), self.shorts, self.killed,
                        *(x >> 10 for x in rows[-1][:2]), " ".join("%d" % (x >> 10) for x in rows[-1][2:]),
                        " ".join("%d" % used for used, _, _ in self.held())), flush=True)
                time.sleep(0.02)
            if self.short:
                self.short.end()
            ends = [w.end(signal.SIGTERM) for w in stay]
        finally:
            for w in (*stay, *((self.short,) if self.short else ())):
                if w.child.poll() is None:
                    w.child.kill()
                    w.child.wait()
        held = self.leave_nothing(before)
        self.judge(stay, ends, rows, held)

    def judge(self, stay, ends, rows, held):
        for w, end in zip(stay, ends):
            remote = end["remote"]
            tried = w.n and end["copies"] and remote["writes"] and remote["rows_pulled"]
            if not tried or remote["failed_writes"] or end["events"]:
                raise Wrong(f"not what was to be tried: {end}")
        if not ends[1]["remote"]["rows_pushed"] or ends[0]["remote"]["rows_pushed"]:
            raise Wrong("the wrong worker pushed")
        third = len(rows) // 3
        growth = [rows[-1][i] - rows[third][i] for i in range(len(rows[0]))]
        leaks = [WORKER_GROWTH * 3 // 2 // w.n for w in stay] + [SERVER_GROWTH * 3 // 2 // sum(w.n for w in stay)]
        print("growth after the first third: %s KiB; a leak of %d or %d bytes an answer in a worker, of %d in a "
              "server, would be refused" % (" ".join("%d" % (x >> 10) for x in growth), *leaks))
        if max(growth[:2]) > WORKER_GROWTH or max(growth[2:]) > SERVER_GROWTH:
            raise Wrong(f"memory grows: {growth} bytes of two workers and the servers")
        print("%d answers of the two that stayed, %d of %d that came and went, of which %d were killed: all as of a "
              "single process; servers hold %s blocks" % (sum(w.n for w in stay), self.short_answers, self.shorts,
                                                         self.killed, " ".join("%d of %d" % x[:2] for x in held)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", nargs=3, metavar="QUARRY MAKE_GGUF SOAK")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not NETWORK:
        print("skipped: this build has no network")
        return 77
    ENV["QY_MODEL_FILE"] = ""
    servers = []
    try:
        for _ in range(3):
            servers.append(LongServer("--json", *(w for s in QUIET for w in ("--set", s))))
        Soak(args, servers).run()
    except Wrong as wrong:
        print(f"FAILED: {wrong}")
        return 1
    finally:
        for server in servers:
            server.__exit__()
    return 0


if __name__ == "__main__":
    sys.exit(main())
