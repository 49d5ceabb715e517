#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory servers that die, stop, come back or have no room, while the program reads and decodes. Whatever
happens: the answer of a run in memory, bit for bit, exit code 0, and a line of what happened.

usage: faults.py QUARRY MAKE_GGUF MEMORY_CLIENT [part | --random N [--seed S] [--run I]]
Prints a table. With `part` a few of its rows, for slow builds. With --random N runs instead, over three servers, one or
two of which are killed, stopped, let go on, told to end or started again, at moments that the seed draws (--run:
the I-th of them alone).

No event goes by time. The worker writes into a pipe of one page, which it finds, or makes, full, and goes on
when the test reads:
  prefill   eval ppl --count 0: its --dump is that pipe; it stops in the middle of the text
  decode    generate: stdout is that pipe; it stops before its first token
or asks for a line, which it gets then:
  idle      generate -i: between two questions
The random ones go by time, from such a point on.
"""
import argparse
import fcntl
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest

from disk import SMALL
from memory import NETWORK, Server, new_key
from program import ENV, FOLDER, QUARRY, TEXT, Case, run, tiny, write

parser = argparse.ArgumentParser()
parser.add_argument("--random", type=int, default=0)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--run", type=int)
ARGS, PART = parser.parse_known_args(sys.argv[4:])
PART = PART == ["part"]
PAGE = 4096
LIMIT = 120  # seconds: nothing takes so long, but a hang must end
TIMEOUT = 1000  # ms: net.timeout_ms, which a busy machine must keep when the worker connects
TOKENS = 470  # of the context; the tiny model's is 512


QUESTIONS = ("What is written there?", "And how long is it?")


class Worker:
    def __init__(self, point, command, prefix=()):
        self.lines, self.answer, self.heard = [], b"", threading.Condition()
        self.point, self.skip, out = point, 0, subprocess.DEVNULL
        if point != "prefill":
            self.pipe, out = os.pipe()
        else:
            path = f"{FOLDER.name}/dump"
            os.mkfifo(path)
            self.pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            command = (*command, "--dump", path)
        if point != "idle":
            fcntl.fcntl(self.pipe, 1031, PAGE)  # F_SETPIPE_SZ
        if point == "decode":
            self.skip = os.write(out, bytes(PAGE))
        self.child = subprocess.Popen([*prefix, QUARRY, *command], env=ENV, stdin=subprocess.PIPE, stdout=out,
                                      stderr=subprocess.PIPE, text=True)
        if point != "prefill":
            os.close(out)
        else:
            try:
                self.await_bytes()
            finally:
                os.unlink(path)
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        if point == "decode":
            self.wait_for("reading: ")
        elif point == "idle":
            self.say(0)
            self.wait_for(" tokens kept")

    def await_bytes(self):
        """Until the first of them: then a good part of the text was read."""
        end = time.monotonic() + LIMIT
        waiting = 0
        while waiting == 0 and self.child.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
            waiting = struct.unpack("i", fcntl.ioctl(self.pipe, termios.FIONREAD, bytes(4)))[0]
        if waiting == 0:
            self.child.kill()
            raise AssertionError("nothing was dumped: " + self.child.stderr.read())

    def listen(self):
        for line in self.child.stderr:
            with self.heard:
                self.lines.append((time.monotonic(), line.rstrip()))
                self.heard.notify_all()
        with self.heard:
            self.lines.append((time.monotonic(), ""))
            self.heard.notify_all()

    def find(self, word):
        """When a line with the word came; None."""
        return next((at for at, line in self.lines if word in line), None)

    def wait_for(self, word):
        with self.heard:
            self.heard.wait_for(lambda: self.find(word) or (self.lines and self.lines[-1][1] == ""), LIMIT)
            if not self.find(word):
                raise AssertionError(f"'{word}' is not in: {self.lines}")

    def read(self):
        os.set_blocking(self.pipe, True)
        while data := os.read(self.pipe, PAGE):
            self.answer += data

    def say(self, question):
        self.child.stdin.write(QUESTIONS[question] + "\n")
        self.child.stdin.flush()

    def go_on(self):
        if self.point == "idle":
            self.say(1)
        self.child.stdin.close()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def end(self):
        """Exit code, what it wrote, its lines."""
        try:
            code = self.child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise AssertionError(f"not done after {LIMIT} s: {self.lines}") from None
        self.reader.join(LIMIT)
        self.listener.join(LIMIT)
        self.child.stderr.close()
        os.close(self.pipe)
        return code, self.answer[self.skip:], [line for _, line in self.lines if line]


def start(*args, **kwargs):
    """A worker at its point. Again where a busy machine was too slow: what is tested is what comes after the start."""
    for _ in range(4):
        try:
            return Worker(*args, **kwargs)
        except AssertionError as e:
            if "not reached within" not in str(e):
                raise
    return Worker(*args, **kwargs)


ROWS = []  # of the table


@unittest.skipUnless(NETWORK, "this build has no network")
class Faults(Case):
    @classmethod
    def setUpClass(cls):
        base = ("-m", tiny(), "-f", write("long.txt", TEXT * 3), *SMALL, "--set", "step.deterministic=on")
        short = ("-m", tiny(), "-f", write("short.txt", TEXT[:250]), *base[4:])
        cls.commands = {"prefill": ("eval", "ppl", "--ctx", str(TOKENS), "--count", "0", *base),
                        "decode": ("generate", "--prompt-tokens", str(TOKENS - 50), "-n", "50", *base),
                        "idle": ("generate", "-i", "--ctx", str(TOKENS), "-n", "40", *short)}
        cls.least, cls.want = {}, {}
        with Server("--json") as server:
            for point, command in cls.commands.items():
                memory = (*command, *cls.memory([server], TIMEOUT, 1))
                device = cls.refusal(r"need at least .*?\((\d+) bytes", *memory, "--set", "cache.device_bytes=1")
                host = re.search(r"of a step need ([0-9.]+) KiB",
                                 run(*memory, "--set", "cache.host_bytes=1").stderr.decode()).group(1)
                cls.least[point] = ("--set", "cache.device_bytes=%d" % device, "--set",
                                    "cache.host_bytes=%d" % (float(host) * 1024 * 1.1))
                dump = f"{FOLDER.name}/want"
                done = run(*command, *(("--dump", dump) if point == "prefill" else ()),
                           stdin="\n".join(QUESTIONS) + "\n")
                assert done.returncode == 0, done.stderr
                cls.want[point] = done.stdout
                if point == "prefill":
                    with open(dump, "rb") as f:
                        cls.want[point] = f.read()
                assert cls.want[point]
            done = run(*memory, *cls.least[point], stdin="\n".join(QUESTIONS) + "\n")
            assert done.returncode == 0 and done.stdout == cls.want[point], done.stderr
            blocks = json.loads(server.end()[1])
            cls.block = blocks["blocks"]["bytes_each"]
            cls.n_blocks = TOKENS // 16

    @classmethod
    def tearDownClass(cls):
        line = "%-22s %-8s %8s %12s  %-34s %s"
        print("\n" + line % ("event", "point", "replicas", "detected ms", "outcome", "answer"))
        for row in ROWS:
            print(line % row)

    @staticmethod
    def memory(servers, timeout_ms, copies):
        return ("--set", "net.memory=" + ",".join(s.address for s in servers), "--set", "net.key_file=" +
                new_key("key"), "--set", "net.timeout_ms=%d" % timeout_ms, "--set", "net.replicas=%d" % copies)

    @staticmethod
    def refusal(pattern, *args):
        return int(re.search(pattern, run(*args).stderr.decode()).group(1))

    def run_one(self, event, point, copies):
        """One row. The second of two servers is the one that it happens to."""
        sizes = {"no room on one": ("8M", str(4 * self.block)),
                 "killed, no room": (str(self.n_blocks // 3 * self.block),) * 2,
                 "told to end, no room": (str(8 * self.block), "8M")}.get(event, ("8M", "8M"))
        drain = ("--set", "net.drain_ms=%d" % (1500 if event == "told to end, no room" else LIMIT * 1000))
        with Server("--json", size=sizes[0]) as one, Server("--json", *drain, size=sizes[1]) as other:
            worker = start(point, (*self.commands[point], *self.least[point],
                                   *self.memory((one, other), TIMEOUT, copies)))
            again, begin = None, time.monotonic()
            if event.startswith("stopped"):
                other.child.send_signal(signal.SIGSTOP)
            elif event.startswith("killed"):
                other.child.kill()
                other.child.wait()
            elif event.startswith("told to end"):
                other.child.send_signal(signal.SIGTERM)
                if point == "idle":  # while nobody asks anything
                    other.child.wait(LIMIT)
            if event == "killed, started again":
                again = Server("--json", listen=other.address)
            worker.go_on()
            if event == "stopped for a while":
                worker.wait_for(f"peer '{other.address}': lost")
                other.child.send_signal(signal.SIGCONT)
            code, answer, lines = worker.end()
            lost = worker.find(f"peer '{other.address}': lost")
            outcome = self.judge(event, copies, code, lines, other)
            if event.startswith("told to end"):
                outcome += self.handed_over(other, event, point)
            if again:
                # nobody waits for it: all may be where it stays before it is there
                outcome += "; took %d" % json.loads(again.end()[1])["calls"]["puts"]
                again.__exit__()
            if event == "no room on one":
                puts = json.loads(other.end()[1])["calls"]["puts"]
                self.assertGreater(puts, 0)
            if not event.startswith("told to end"):  # its end may be that of the worker, too
                self.assertEqual(lost is not None, event != "no room on one", lines)
        same = answer == self.want[point]
        ROWS.append((event, point, copies, "-" if lost is None else "%.0f" % ((lost - begin) * 1e3), outcome,
                     "same" if same else "-" if code else "DIFFERS"))
        self.assertEqual(same, code == 0, lines)

    def handed_over(self, server, event, point):
        server.child.wait(LIMIT)  # a second signal would end it at once
        code, out, err = server.end()
        self.assertEqual(code, 0, err)
        blocks = json.loads(out)["blocks"]
        if event == "told to end, no room":
            self.assertRegex(err, r"warn: %d blocks \(.*\) handed over; %d \(.*\) stay behind and are lost: other servers "
                                  "have no room" % (blocks["handed_over"], blocks["held"]))
            self.assertGreater(blocks["held"], 0, err)
            return "; %d of %d handed over" % (blocks["handed_over"], blocks["handed_over"] + blocks["held"])
        self.assertEqual(blocks["held"], 0, err)
        if point != "prefill":  # its last steps may be too few
            self.assertGreater(blocks["handed_over"], 0, err)
            self.assertIn("%d handed over to other servers" % blocks["handed_over"], err)
        return "%d blocks handed over" % blocks["handed_over"]

    def judge(self, event, copies, code, lines, other):
        """What the worker says of it."""
        text = "\n".join(lines)
        gone = [x for x in lines if re.search(rf"cache: warn: memory server {other.address} gone with \d+ blocks of "
                                              r"1 sequence that nobody else holds: computed again, \d+ tokens in ", x)]
        if event.endswith(", no room"):
            self.assertEqual(code, 1, text)
            self.assertEqual(len([x for x in lines if x.startswith("quarry: error: ")]), 1, text)
            self.assertRegex(text, r"\d+ more blocks of \d+ bytes are needed; \d+ of \d+ are free in host memory, "
                                   r"and 1 of 2 memory servers are there, with room for \d+")
            return "error with the numbers"
        self.assertEqual(code, 0, text)
        if copies == 1 and event in ("killed", "killed, started again", "stopped for good"):
            self.assertGreater(len(gone), 0, text)
            tokens = sum(int(re.search(r"again, (\d+) tokens", x).group(1)) for x in gone)
            return "%d tokens computed again" % tokens
        self.assertEqual(gone, [], text)
        return {"stopped for a while": "waited" if copies == 1 else "the other copy",
                "told to end": "", "no room on one": "the other server"}.get(event, "the other copy")

    def test_whatever_happens_to_a_server_the_answer_is_the_same(self):
        rows = [(event, point, copies) for event in ("killed", "killed, started again", "stopped for a while",
                                                     "stopped for good", "told to end")
                for point in ("prefill", "decode") for copies in (1, 2)]
        rows += [("killed", "idle", 1), ("killed, started again", "idle", 2), ("stopped for good", "idle", 1)]
        rows += [("told to end", "idle", 1), ("told to end, no room", "idle", 1)]
        rows += [("no room on one", "prefill", 2), ("no room on one", "decode", 2), ("killed, no room", "prefill", 1)]
        if PART:
            rows = [("killed", "prefill", 1), ("killed, started again", "decode", 1), ("stopped for good", "decode", 2),
                    ("told to end", "decode", 1), ("told to end", "idle", 1)]
        for row in rows:
            with self.subTest(row=row):
                self.run_one(*row)


# ---- random faults ------------------------------------------------------------------------------------

RANDOM_TIMEOUT = 600  # ms
SLOW = ("--set", "device.link_copy_us=20000")  # so that there is time for them
KINDS = ("killed", "killed, started again", "stopped", "stopped, let go on", "told to end")


def draw(seed, i):
    """The i-th run: its point, how many copies, and who suffers what, when, in shares of a run without: one or two
    of three servers."""
    rng = random.Random(f"{seed} {i}")
    victims = rng.sample(range(3), rng.randint(1, 2))
    faults = sorted((rng.random() * 0.8, v, rng.choice(KINDS), rng.uniform(0.05, 5 * RANDOM_TIMEOUT / 1e3))
                    for v in victims)
    return rng.choice(("prefill", "decode")), rng.choice((1, 2)), faults


class Random(Faults):
    def run_drawn(self, point, copies, faults):
        """One run; what happened in words."""
        quick = ("--json", "--set", "net.drain_ms=500")
        servers = [Server(*quick) for _ in range(3)]
        said, more = [], []
        try:
            worker = start(point, (*self.commands[point], *self.least[point], *SLOW,
                                   *self.memory(servers, RANDOM_TIMEOUT, copies)))
            begin = time.monotonic()
            worker.go_on()
            # What is let go on, or started again, is so after a while: an event of its own.
            events = faults + [(at + after, v, "again", 0) for at, v, kind, after in faults
                               if kind in ("stopped, let go on", "killed, started again")]
            for at, v, kind, _ in sorted(events):
                while time.monotonic() < begin + at and worker.child.poll() is None:
                    time.sleep(0.005)
                if worker.child.poll() is not None:
                    break
                said.append(f"{kind} {v} at {time.monotonic() - begin:.2f} s")
                self.happen(servers, v, kind, more)
            code, answer, lines = worker.end()
            self.seconds = time.monotonic() - begin
            self.assertEqual(code, 0, (said, lines))
            self.assertEqual(answer, self.want[point], (said, lines))
            again = [float(x) for x in re.findall(r"computed again, \d+ tokens in ([0-9.]+) s", "\n".join(lines))]
            self.assert_servers_end(servers, faults, said)
            return f"{', '.join(said) or 'over before anything happened'}: {len(again)} times computed again, {sum(again):.2f} s"
        finally:
            for server in servers + more:
                if server.child.poll() is None:
                    server.child.send_signal(signal.SIGCONT)
                server.__exit__()

    @staticmethod
    def happen(servers, v, kind, more):
        child = servers[v].child
        if kind.startswith("killed"):
            child.kill()
            child.wait()
        elif kind.startswith("stopped"):
            child.send_signal(signal.SIGSTOP)
        elif kind == "told to end":
            child.send_signal(signal.SIGTERM)
        elif child.poll() is None:
            child.send_signal(signal.SIGCONT)
        else:
            more.append(servers[v])
            servers[v] = Server("--json", "--set", "net.drain_ms=500", listen=servers[v].address)

    def assert_servers_end(self, servers, faults, said):
        """Those that run end well when they are told; nobody died who was not killed."""
        killed = {v for _, v, kind, _ in faults if kind.startswith("killed")}
        for v, server in enumerate(servers):
            if server.child.poll() is None:
                server.child.send_signal(signal.SIGCONT)
            code, _, err = server.end()
            self.assertIn(code, (0, -signal.SIGKILL) if v in killed else (0,), (v, said, err))

    def test_random_faults_change_no_answer(self):
        whole = {}
        for point in ("prefill", "decode"):
            self.run_drawn(point, 1, [])
            whole[point] = self.seconds
        for i in range(ARGS.random) if ARGS.run is None else [ARGS.run]:
            point, copies, faults = draw(ARGS.seed, i)
            with self.subTest(seed=ARGS.seed, run=i, point=point, copies=copies, faults=faults):
                what = self.run_drawn(point, copies, [(at * whole[point], *more) for at, *more in faults])
                print("run %2d: %s, %d cop%s: %s, in %.1f s instead of %.1f" % (
                    i, point, copies, "y" if copies == 1 else "ies", what, self.seconds, whole[point]), flush=True)

    test_whatever_happens_to_a_server_the_answer_is_the_same = None

    @classmethod
    def tearDownClass(cls):
        pass


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Random if ARGS.random else Faults)
    done = unittest.TextTestRunner().run(tests)
    sys.exit(77 if done.skipped else not done.wasSuccessful())
