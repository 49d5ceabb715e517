#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several workers in one job: they answer a list of prompts as a single process does, in its order; they are
refused where they differ; and a worker that fails or dies is named with its prompts.

usage: workers.py QUARRY MAKE_GGUF
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import unittest

import dist
from job import CONFIG, LONG, MEMORY, QUARRY, ROOT, SMALL, TEXT, model, path

PROMPTS = [f"{i}. {TEXT}" + "Once more, from the top. " * (i * 3 % 7) for i in range(7)]


def listed(*more, prompts=None, n=24):
    """generate over the list, or over the named file."""
    if not prompts:
        prompts = path("prompts.jsonl", "".join(json.dumps(p) + "\n" for p in PROMPTS))
    return (QUARRY, "generate", "-m", model(), "--prompts", prompts, "--json", "-n", n, *SMALL, *more)


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def server():
    """Settings that name a memory server started by hand."""
    key = path("key")
    if not os.path.exists(key):
        subprocess.run([QUARRY, "memory", "--new-key", key], check=True, stderr=subprocess.DEVNULL)
    child = subprocess.Popen([QUARRY, "memory", "--listen", "127.0.0.1:0", "--bytes", "64M", "--key-file", key],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"listens at (\S+), ", child.stderr.readline()).group(1)
        yield ("--set", f"net.memory={address}", "--set", f"net.key_file={key}", "--set", "cache.host_bytes=200K")
    finally:
        child.terminate()
        child.communicate(timeout=60)


class Workers(dist.Case):
    @classmethod
    def setUpClass(cls):
        cls.alone = objects(dist.run([*map(str, listed())]))
        assert len(cls.alone) == len(PROMPTS)

    def same(self, done, workers):
        """All answers of a single process, each by the worker whose turn it was, and the one line of a list."""
        self.assertEqual(done.code, 0, str(done))
        have = objects(done)
        self.assertEqual([h["prompt"] for h in have], list(range(1, len(PROMPTS) + 1)), str(done))
        self.assertEqual([h["rank"] for h in have], [i % workers for i in range(len(PROMPTS))])
        for h, a in zip(have, self.alone):
            self.assertEqual((h["tokens"], h["gaps"]), (a["tokens"], a["gaps"]), str(done))
            self.assertGreater(h["kv_bytes"]["remote"], 0)
        self.assertRegex(done.stderr, r"\Aanswered: 7 of 7 prompts in .* s\n\Z")
        return have

    def test_answers_are_those_of_a_single_process_in_its_order(self):
        for workers, memory, transport, settings in (
                (2, 1, dist.VADER, MEMORY),
                (2, 2, dist.TCP, ("--config", CONFIG, "--set", "cache.host_bytes=200K"))):
            with self.subTest(memory=memory):
                done = dist.mpirun(workers + memory, *listed("--workers", workers, *settings), transport=transport)
                for h in self.same(done, workers):
                    self.assertEqual([s["name"] for s in h["servers"]],
                                     [f"rank {workers + i}" for i in range(memory)])

    def test_all_ranks_may_work_with_servers_that_were_started_by_hand(self):
        with server() as memory:
            self.same(dist.mpirun(3, *listed("--workers", 3, *memory)), 3)

    def test_workers_on_several_hosts_find_each_other(self):
        cluster = [ROOT / "scripts/netns-cluster", "--name", f"w{os.getpid()}"]
        able = subprocess.run([*cluster, "check"], capture_output=True, text=True)
        if able.returncode:
            self.skipTest(able.stderr.strip())
        try:
            subprocess.run([*cluster, "up", "3"], check=True)
            self.same(dist.run([*map(str, (*cluster, "run", 1, *listed("--workers", 2, *MEMORY)))], timeout=90), 2)
        finally:
            subprocess.run([*cluster, "down"], check=True)

    def refused(self, code, pattern, done):
        """One error for all ranks, before any work."""
        self.assertEqual((done.code, done.stdout), (code, ""), str(done))
        self.assertEqual(done.stderr.count("quarry: error: "), 1, str(done))
        self.assertRegex(done.stderr, "quarry: error: " + pattern)

    def test_workers_that_differ_are_refused_by_name(self):
        other = shutil.copy(model(), path("other.gguf"))
        with open(other, "ab") as file:
            file.write(b"\0")
        two = ("--workers", 2, *MEMORY)
        for what, second in (("model file", listed(*two, "-m", other)),
                             (r"list of prompts \(--prompts\)", listed(*two, prompts=path("p", "only one\n"))),
                             (r"options \(-n, .*\)", listed(*two, n=23))):
            with self.subTest(what=what):
                self.refused(2, rf"job: the {what} of rank 1 differs from rank 0's",
                             dist.mpirun(1, *listed(*two), ":", "-n", 1, *second, ":", "-n", 1, *listed(*two)))

    def test_what_cannot_be_is_said_once(self):
        text = path("t.txt", TEXT)
        for pattern, command in (
                (r"job\.workers '3': of 3 ranks at least one keeps blocks", listed("--workers", 3, *MEMORY)),
                (r"job\.workers '2': several workers answer the prompts of",
                 (QUARRY, "generate", "-m", model(), "-f", text, "--workers", 2, *SMALL, *MEMORY)),
                (r"net\.memory 'a:1'", listed("--workers", 2, *MEMORY, "--set", "net.memory=a:1")),
                (r"--prompts '/nothere': cannot be read", listed("--workers", 2, *MEMORY, prompts="/nothere"))):
            with self.subTest(pattern=pattern):
                done = dist.mpirun(3, *command)
                self.refused(1 if "nothere" in pattern else 2, "(rank 0 and 1 more of 3: )?" + pattern, done)

    def test_a_worker_that_fails_is_named_with_its_prompts(self):
        prompts = path("long.jsonl", "".join(json.dumps(p) + "\n" for p in ("a", TEXT * 3, "b", "c")))
        done = dist.mpirun(3, *listed("--workers", 2, "--ctx", 300, *MEMORY, prompts=prompts))
        self.assertEqual(done.code, 2, str(done))
        self.assertEqual([("error" in o, o["prompt"], o["rank"]) for o in objects(done)],
                         [(False, 1, 0), (True, 2, 1), (False, 3, 0), (True, 4, 1)])
        self.assertEqual(done.stderr.count("quarry: error: "), 1, str(done))
        self.assertRegex(done.stderr, r"2 of 4 prompts have no answer: 2, 4 \(rank 1: --ctx 300: the prompt has")

    def test_a_worker_that_dies_is_named_and_finished_answers_come_out(self):
        def kill_worker(sid, out):
            dist.await_that("an answer", lambda: b"\n" in out.read_bytes())
            for pid in dist.session(sid):
                if b"OMPI_COMM_WORLD_RANK=1\0" in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        done = dist.mpirun(3, *listed("--workers", 2, *MEMORY, *LONG), meanwhile=kill_worker, timeout=120)
        self.assertEqual(done.code, 128 + signal.SIGKILL, str(done))
        found = re.search(r"error: \d of 7 prompts have no answer: ([\d, ]+) \(rank 1: gone: ", done.stderr)
        self.assertIsNotNone(found, str(done))
        missing = {int(n) for n in found.group(1).split(",")}
        self.assertIn(6, missing)
        # mpirun may tear the last line off that it was given before it ended rank 0
        have = [json.loads(line) for line in done.stdout.splitlines(keepends=True) if line.endswith("\n")]
        self.assertEqual([o["prompt"] for o in have], list(range(1, len(have) + 1)), str(done))
        self.assertGreaterEqual(len(have), 1)
        for o in have:
            self.assertEqual("error" in o and o["rank"] == 1, o["prompt"] in missing, str(done))


if __name__ == "__main__":
    dist.need_mpirun()
    unittest.main(argv=sys.argv[:1], verbosity=2)
