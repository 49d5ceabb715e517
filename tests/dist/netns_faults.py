#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links that are cut, slow or bad, and hosts that vanish, while the program reads and decodes with two memory
servers, each on a host of its own (scripts/netns-cluster). Whatever happens: the answer of a run in memory, bit for
bit, and exit code 0.

usage: netns_faults.py QUARRY MAKE_GGUF MEMORY_CLIENT [--all]
Prints a table. Without --all three of its rows. `detected` is from the event to the line that says so; `silent` is what
that line says itself: how long the worker had heard nothing. Points and how they are held: tests/program/faults.py.
"""

import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

import dist

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT / "tests/program")]
import faults  # noqa: E402
from disk import SMALL  # noqa: E402
from memory import NETWORK, Server  # noqa: E402
from program import ENV, QUARRY, TEXT, tiny, write  # noqa: E402

ALL = "--all" in sys.argv[4:]
NAME = f"f{os.getpid()}"
CLUSTER = [str(ROOT / "scripts/netns-cluster"), "--name", NAME]
TIMEOUT = faults.TIMEOUT
LINE = "%-34s %-8s %6s %11s %9s  %-44s %s"
ROWS = []
LATE = "link cut, back when it is given up"
# What a bad cable does to all that the second server's host sends and receives. A round trip takes some 0.08 ms.
BAD = {"4 ms later, over ten times": ("--delay-ms", "2"), "5 % of frames lost": ("--lose", "0.05"),
       "10 % of frames twice": ("--repeat", "0.1")}


def cluster(*args):
    done = subprocess.run([*CLUSTER, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60)
    if done.returncode:
        raise AssertionError(f"netns-cluster {args}: {done.stderr}")


def inside(host):
    """Words in front of a command that is to run there; its process is the command's own."""
    return (*CLUSTER, "exec", str(host))


def bridge(*words):
    """ip, in the namespace of the hosts' bridge."""
    subprocess.run(["ip", "-n", f"{NAME}-br", *words], check=True)


class BadWire:
    """In the place of host 2's cable; a plain one again at the end."""

    def __init__(self, how):
        bridge("link", "add", "wire", "type", "veth", "peer", "name", "wire-br")
        for device in ("wire", "wire-br"):
            bridge("link", "set", device, "up")
        bridge("link", "set", "wire-br", "master", "br0")
        self.child = subprocess.Popen(["ip", "netns", "exec", f"{NAME}-br", sys.executable, "-B",
                                       str(ROOT / "tests/dist/bad_wire.py"), "port2", "wire", *how],
                                      stdout=subprocess.PIPE, text=True)
        if self.child.stdout.readline() != "ready\n":
            raise AssertionError("the bad wire is not there")
        bridge("link", "set", "port2", "nomaster")

    def end(self):
        self.child.kill()
        self.child.communicate()
        bridge("link", "set", "port2", "master", "br0")
        bridge("link", "delete", "wire")


class NetnsFaults(faults.Faults):
    test_whatever_happens_to_a_server_the_answer_is_the_same = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cluster("up", 3)
        cls.addClassCleanup(cluster, "down")

    @classmethod
    def tearDownClass(cls):
        print("\n" + LINE % ("event", "point", "copies", "detected ms", "silent ms", "outcome", "answer"))
        for row in ROWS:
            print(LINE % row)

    @classmethod
    def server(cls, host):
        return Server("--json", prefix=inside(host), listen=f"10.77.0.{host + 1}:0", size="8M")

    def happens(self, event, worker, name):
        """Does it to host 2, lets the worker go on, and takes it back where it ends."""
        begin = time.monotonic()
        if event in BAD:
            self.wire = BadWire(BAD[event])
        elif event == "host gone":
            bridge("link", "delete", "port2")
            subprocess.run(["ip", "netns", "delete", f"{NAME}-2"], check=True)
        else:
            cluster("cut", 2)
        worker.go_on()
        if event == "link cut for half a timeout":
            time.sleep(TIMEOUT / 2e3)
        elif event == "link cut, back when that is known":
            worker.wait_for(f"peer '{name}': lost")
        elif event == LATE:
            worker.wait_for("computed again")
        if event.startswith("link cut") and event != "link cut for good":
            cluster("heal", 2)
        return begin

    def mend(self, event):
        if event in BAD:
            self.wire.end()
        elif event == "host gone":
            cluster("up", 3)
        else:
            cluster("heal", 2)

    def run_one(self, event, point, copies):
        """One row; host 0 works, and it happens to host 2."""
        with self.server(1) as one, self.server(2) as other:
            worker = faults.start(point, (*self.commands[point], *self.least[point], "--set", "net.device=veth0",
                                          *(faults.SLOW if event == LATE else ()),  # so that it still runs then
                                          *self.memory((one, other), TIMEOUT, copies)), prefix=inside(0))
            try:
                begin = self.happens(event, worker, other.address)
                code, answer, lines = worker.end()
            finally:
                self.mend(event)
        lost = worker.find(f"peer '{other.address}': lost")
        silent = re.search(rf"peer '{other.address}': lost: .*, (\d+) ms after it was last heard", "\n".join(lines))
        outcome = self.judge_link(event, copies, code, lines, lost)
        same = answer == self.want[point]
        ROWS.append((event, point, copies, "-" if lost is None else "%.0f" % ((lost - begin) * 1e3),
                     silent.group(1) if silent else "-", outcome, "same" if same else "DIFFERS"))
        self.assertTrue(same, lines)

    def judge_link(self, event, copies, code, lines, lost):
        text = "\n".join(lines)
        again = [(int(n), float(s)) for n, s in re.findall(r"computed again, (\d+) tokens in ([0-9.]+) s", text)]
        self.assertEqual(code, 0, text)
        if event in ("link cut for good", LATE, "host gone"):
            self.assertIsNotNone(lost, text)
            if copies == 1:
                self.assertGreater(len(again), 0, text)
                return "%d tokens computed again in %.2f s" % tuple(map(sum, zip(*again)))
            self.assertEqual(again, [], text)
            return "the other copy"
        self.assertEqual(again, [], text)
        if event == "link cut, back when that is known":
            self.assertIsNotNone(lost, text)
        return "nothing" if lost is None else "waited" if copies == 1 else "the other copy"

    def test_whatever_happens_to_a_link_the_answer_is_the_same(self):
        cuts = ("link cut for half a timeout", "link cut, back when that is known",
                LATE, "link cut for good", "host gone")
        rows = [("link cut, back when that is known", "prefill", 1), ("link cut for good", "decode", 1)]
        if ALL:
            rows = [(event, point, copies) for event in cuts for point in ("prefill", "decode", "idle")
                    for copies in ((1, 2) if event != LATE else (1,))]
            rows += [(event, point, 1) for event in BAD for point in ("prefill", "decode", "idle")]
        else:
            rows.append(("10 % of frames twice", "decode", 1))
        for row in rows:
            with self.subTest(row=row):
                self.run_one(*row)

    @unittest.skipUnless(ALL, "with --all")
    def test_a_job_survives_a_link_that_comes_back(self):
        """Rank 2's host loses its link in the middle of an answer, and has it back when that is known."""
        command = ("generate", "-m", tiny(), "-f", write("job.txt", TEXT), "--temp", "9", "-n", "2000", *SMALL, "--policy",
                   "quest", "--budget", "24", "--set", "step.deterministic=on", "--set", "device.link_copy_us=2000")
        want = dist.run([QUARRY, *command]).stdout
        here = ("--set", "net.bytes=8M", "--set", "cache.host_bytes=200K", "--set", f"net.timeout_ms={TIMEOUT}")
        begin = []

        def cut(_, out):
            err = pathlib.Path(out.parent, "err")
            dist.await_that("an answer", lambda: out.stat().st_size > 0)
            begin.append(time.monotonic())
            cluster("cut", 2)
            try:
                dist.await_that("a lost server", lambda: ": lost: " in err.read_text())
                begin.append(time.monotonic())
            finally:
                cluster("heal", 2)
        done = dist.run([*CLUSTER, "run", "1", QUARRY, *command, *here], timeout=120, meanwhile=cut)
        silent = re.search(r"lost: .*, (\d+) ms after it was last heard", done.stderr)
        same = done.stdout == want
        ROWS.append(("job: cut, back when that is known", "decode", 1, "%.0f" % ((begin[1] - begin[0]) * 1e3),
                     silent.group(1), "waited", "same" if same else "DIFFERS"))
        self.assertEqual((done.code, same), (0, True), str(done))
        self.assertNotIn("computed again", done.stderr)


if __name__ == "__main__":
    if not NETWORK:
        dist.skip("this build has no network")
    able = subprocess.run([*CLUSTER, "check"], capture_output=True, text=True)
    if able.returncode:
        dist.skip(able.stderr.strip())
    if ALL:
        dist.need_mpirun()
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(NetnsFaults)
    sys.exit(not unittest.TextTestRunner(verbosity=2 if ALL else 1).run(tests).wasSuccessful())
