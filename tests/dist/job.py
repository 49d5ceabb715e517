#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A job of one worker and memory ranks: the answer of a single process, one clear error where ranks differ, and
an end without leftovers whatever dies.

usage: job.py QUARRY MAKE_GGUF
"""
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

import dist

QUARRY, MAKE_GGUF = sys.argv[1:3]
FOLDER = tempfile.TemporaryDirectory()
TEXT = "In the beginning there was a text, and it's 42 lines long. " * 8
CHILD = b"quarry-memory-server"
ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/three_ranks.conf"
# Rows in memory ranks, as far as that goes.
SMALL = ("--set", "retrieval.min_tokens=0", "--set", "cache.sinks=4", "--set", "cache.window=16", "--set",
         "cache.block_tokens=16", "--set", "model.chunk=32", "--set", "step.deterministic=on", "--policy", "quest",
         "--budget", "24", "--device", "host-discrete:8M")
MEMORY = ("--set", "net.bytes=64M", "--set", "cache.host_bytes=200K")

# An answer of some hundred tokens, slowed down to some seconds.
LONG = ("--temp", "9", "-n", "2000", "--set", "device.link_copy_us=2000")


def path(name, text=None):
    file = pathlib.Path(FOLDER.name, name)
    if text is not None:
        file.write_text(text)
    return str(file)


def model():
    file = path("llama_f32.gguf")
    if not os.path.exists(file):
        subprocess.run([MAKE_GGUF, FOLDER.name, "llama_f32"], check=True)
    return file


def generate(*more, text=None, n=24):
    return (QUARRY, "generate", "-m", model(), "-f", text or path("t.txt", TEXT), "-n", n, *SMALL, *more)


@functools.cache
def long_alone():
    """What a single process says to LONG."""
    return dist.run([*map(str, generate(*LONG))], timeout=200)


def children(sid):
    """The memory servers of a session."""
    found = set()
    for pid in dist.session(sid):
        try:
            if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() == CHILD + b"\0":
                found.add(pid)
        except OSError:
            pass  # it ended meanwhile
    return found


def worker(sid):
    names = {pid: pathlib.Path(f"/proc/{pid}/environ").read_bytes() for pid in dist.session(sid)}
    found = [pid for pid, env in names.items() if b"OMPI_COMM_WORLD_RANK=0\0" in env]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} workers")
    return found[0]


class Job(dist.Case):
    @classmethod
    def setUpClass(cls):
        cls.alone = json.loads(dist.run([*map(str, generate("--json"))]).stdout)

    def same(self, done):
        """The answer of a single process, and nothing on stderr but the progress and what supervisors say."""
        self.assertEqual(done.code, 0, str(done))
        out = json.loads(done.stdout)
        self.assertEqual(out["tokens"], self.alone["tokens"], str(done))
        return out

    def refused(self, code, pattern, done):
        """One error, of one rank, whose exit code is the job's."""
        self.assertEqual((done.code, done.stdout), (code, ""), str(done))
        self.assertEqual(done.stderr.count("quarry: error: "), 1, str(done))
        self.assertRegex(done.stderr, "quarry: error: " + pattern)

    def test_the_answer_is_that_of_a_single_process(self):
        file = ("--config", CONFIG, "--set", "cache.host_bytes=200K")
        for n, transport, settings in ((2, dist.VADER, MEMORY), (3, dist.TCP, file)):
            with self.subTest(n=n):
                done = dist.mpirun(n, *generate("--json", *settings), transport=transport)
                out = self.same(done)
                self.assertGreater(out["kv_bytes"]["remote"], 0)
                self.assertLess(out["kv_bytes"]["host"], self.alone["kv_bytes"]["host"])
                self.assertRegex(done.stderr, r"\Areading: .*\n\Z")

    def test_one_rank_is_a_single_process(self):
        done = dist.mpirun(1, *generate("--json", "--set", "net.bytes=0"))
        self.assertEqual(self.same(done)["kv_bytes"]["remote"], 0)

    def test_what_is_wrong_is_said_once(self):
        for pattern, more in ((r"option '--windo'", (*MEMORY, "--windo", 3)),
                              (r"rank 1 and 1 more of 3: net\.bytes '0'", ()),
                              (r"net\.memory 'a:1'", (*MEMORY, "--set", "net.memory=a:1"))):
            with self.subTest(pattern=pattern):
                self.refused(2, pattern, dist.mpirun(3, *generate(*more)))
        self.refused(1, r"file '/nothere'", dist.mpirun(2, *generate(*MEMORY, text="/nothere")))

    def test_ranks_that_differ_are_refused_by_name(self):
        first = (*generate(*MEMORY), ":", "-n", 1)
        self.refused(2, r"cache\.window: '16' on rank 0, '32' on rank 1;",
                     dist.mpirun(1, *first, *generate(*MEMORY, "--set", "cache.window=32")))
        self.refused(2, r"rank 1: setting 'cache\.windo'",
                     dist.mpirun(1, *first, *generate(*MEMORY, "--set", "cache.windo=32")))
        self.refused(2, r"rank 1: quarry-memory-server: net\.bytes '4096\.0 TiB': this machine",
                     dist.mpirun(1, *first, *generate(*MEMORY, "--set", "net.bytes=4096T")))
        self.refused(2, r"job: rank 1 was started for 'quarry eval ppl'",
                     dist.mpirun(1, *first, QUARRY, "eval", "ppl", *SMALL, *MEMORY))
        # What may differ: a memory rank has no model, other threads, and memory of its own size.
        own = ("--set", "net.bytes=32M", "--set", "runtime.threads=1", "-m", "/nothere")
        self.same(dist.mpirun(1, *generate("--json", *MEMORY), ":", "-n", 1,
                              *generate("--json", *MEMORY, *own)))

    def test_a_server_that_dies_unused_is_started_again_where_it_was(self):
        fifo = path("fifo")
        os.mkfifo(fifo)

        def kill_one(sid, _):
            def reader():  # the worker asks for its text when all servers listen
                try:
                    return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    return None
            text = dist.await_that("the worker reads", reader)
            before = children(sid)
            self.assertEqual(len(before), 2)
            os.kill(min(before), signal.SIGKILL)
            dist.await_that("a new server", lambda: len(children(sid)) == 2 and min(before) not in children(sid))
            os.write(text, TEXT.encode())
            os.close(text)
        done = dist.mpirun(3, *generate("--json", *MEMORY, text=fifo), meanwhile=kill_one)
        self.same(done)
        self.assertRegex(done.stderr, r"rank \d supervisor: warn: .*ended by signal 9; starting it again")

    def long_run(self, meanwhile, timeout=20):
        """A run that is in the middle of its answer when meanwhile(sid) is called, and has so long to end then."""
        def when_it_answers(sid, out):
            dist.await_that("an answer", lambda: out.stat().st_size > 0)
            meanwhile(sid)
        return dist.mpirun(3, *generate(*MEMORY, *LONG), meanwhile=when_it_answers, timeout=timeout)

    def test_a_server_that_dies_in_use_changes_nothing(self):
        alone = long_alone()
        done = self.long_run(lambda sid: os.kill(min(children(sid)), signal.SIGKILL), timeout=200)
        self.assertEqual((done.code, done.stdout), (0, alone.stdout), str(done))
        self.assertIn("ended by signal 9; starting it again", done.stderr)
        self.assertRegex(done.stderr, "memory server rank . gone with .* computed again")

    def test_a_server_that_hangs_changes_nothing(self):
        """It is let go on as soon as it is missed; or it is killed by its rank, while the worker waits, and a new one
        takes blocks."""
        alone = long_alone()
        for hangs in (False, True):
            def stop_one(sid, out):
                dist.await_that("an answer", lambda: out.stat().st_size > 0)
                before, first = children(sid), worker(sid)
                os.kill(min(before), signal.SIGSTOP)
                dist.await_that("a lost server", lambda: ": lost: " in (out.parent / "err").read_text())
                if not hangs:
                    os.kill(min(before), signal.SIGCONT)
                    return
                os.kill(first, signal.SIGSTOP)
                try:
                    dist.await_that("a new server", lambda: len(children(sid)) == 2 and min(before) not in children(sid))
                finally:
                    os.kill(first, signal.SIGCONT)
            with self.subTest(hangs=hangs):
                done = dist.mpirun(3, *generate(*MEMORY, *LONG, "--set", "net.timeout_ms=500"), meanwhile=stop_one,
                                   timeout=200)
                self.assertEqual((done.code, done.stdout), (0, alone.stdout), str(done))
                self.assertEqual("ms and was killed; starting it again" in done.stderr, hangs, str(done))
                self.assertEqual("computed again" in done.stderr, hangs, str(done))

    def test_a_launcher_that_is_told_to_stop_takes_all_along(self):
        done = self.long_run(lambda sid: os.kill(sid, signal.SIGTERM))
        self.assertNotEqual(done.code, 0, str(done))

    def test_a_worker_that_is_killed_ends_the_job(self):
        def kill_worker(sid):
            os.kill(worker(sid), signal.SIGKILL)
        done = self.long_run(kill_worker)
        self.assertEqual(done.code, 128 + signal.SIGKILL, str(done))

    def test_ranks_on_several_hosts_find_each_other(self):
        cluster = [ROOT / "scripts/netns-cluster", "--name", f"j{os.getpid()}"]
        able = subprocess.run([*cluster, "check"], capture_output=True, text=True)
        if able.returncode:
            self.skipTest(able.stderr.strip())
        try:
            subprocess.run([*cluster, "up", "3"], check=True)
            out = self.same(dist.run([*map(str, (*cluster, "run", 1, *generate("--json", *MEMORY)))], timeout=90))
            self.assertGreater(out["kv_bytes"]["remote"], 0)
        finally:
            subprocess.run([*cluster, "down"], check=True)


if __name__ == "__main__":
    dist.need_mpirun()
    unittest.main(argv=sys.argv[:1], verbosity=2)
