#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/netns-cluster: hosts that reach each other until a cable is cut, jobs of ranks across them, and
nothing left afterwards. What needs no namespaces is tried everywhere; the rest where the kernel allows.

usage: netns.py ROOT RANKS
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import dist

ROOT, RANKS = pathlib.Path(sys.argv[1]), sys.argv[2]
SCRIPT = ROOT / "scripts/netns-cluster"
NAME = f"t{os.getpid()}"
PORT = 7077
SERVER = f"""import socket
server = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    peer, _ = server.accept()
    peer.sendall(b"hello")
    peer.close()
"""
CLIENT = f"""import socket, sys
try:
    peer = socket.create_connection((sys.argv[1], {PORT}), timeout=1)
    print(peer.recv(5).decode())
except OSError as e:
    print("no answer:", e)
"""


def cluster(*args, name=NAME, **kwargs):
    return subprocess.run([SCRIPT, "--name", name, *map(str, args)], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=60, **kwargs)


def namespaces():
    out = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return [line.split()[0] for line in out.splitlines() if line.startswith(NAME + "-")]


class Usage(unittest.TestCase):
    def refused(self, done, code, *words):
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_help_names_every_command(self):
        done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        for word in ("up", "down", "status", "exec", "run", "cut", "heal", "check", "--name"):
            self.assertIn(f"\n  {word} ", done.stdout)

    def test_what_cannot_be_meant_is_a_usage_error(self):
        self.refused(cluster(), 2, "no command")
        self.refused(cluster("upp"), 2, "'upp'")
        self.refused(cluster("down", name="a-b"), 2, "'a-b'")
        self.refused(subprocess.run([SCRIPT, "--nme", "x"], capture_output=True, text=True), 2, "'--nme'")

    def stubbed(self, uid, ip):
        """`check` where id and ip are ours."""
        with tempfile.TemporaryDirectory() as tmp:
            for tool, text in (("id", f"echo {uid}"), ("ip", ip), ("tc", "exit 0"), ("unshare", "exit 0")):
                path = pathlib.Path(tmp, tool)
                path.write_text(f"#!/bin/sh\n{text}\n")
                path.chmod(0o755)
            return cluster("check", env=dict(os.environ, PATH=f"{tmp}:{os.environ['PATH']}"))

    def test_a_user_who_is_not_root_is_told_so(self):
        self.refused(self.stubbed(1000, "exit 0"), 1, "need root")

    def test_a_kernel_that_refuses_is_told_in_its_own_words(self):
        self.refused(self.stubbed(0, "echo 'not permitted' >&2; exit 1"), 1, "refuses", "not permitted",
                     "CAP_NET_ADMIN")
        self.assertEqual(self.stubbed(0, "exit 0").returncode, 0)


class Cluster(dist.Case):
    @classmethod
    def setUpClass(cls):
        cls.up(3)

    @classmethod
    def tearDownClass(cls):
        cluster("down")

    @classmethod
    def up(cls, *args):
        done = cluster("up", *args)
        if done.returncode or done.stdout or done.stderr:
            raise AssertionError(f"up {args}: exit {done.returncode}: {done.stdout}{done.stderr}")

    def done(self, *args, **kwargs):
        done = cluster(*args, **kwargs)
        self.assertEqual((done.returncode, done.stderr), (0, ""), args)
        return done.stdout

    def job(self, per_host, *command):
        return dist.run([str(SCRIPT), "--name", NAME, "run", str(per_host), *map(str, command)], timeout=90)

    def ask(self, of, to):
        return self.done("exec", of, sys.executable, "-c", CLIENT, f"10.77.0.{to + 1}").strip()

    def test_status_has_a_line_per_host(self):
        self.assertEqual(self.done("status").splitlines(),
                         [f"{i} {NAME}-{i} 10.77.0.{i + 1} up unlimited" for i in range(3)])

    def test_a_cut_host_is_not_reached_until_it_is_healed(self):
        server = subprocess.Popen([SCRIPT, "--name", NAME, "exec", "1", sys.executable, "-u", "-c", SERVER],
                                  stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(server.stdout.readline(), "ready\n")
            self.assertEqual(self.ask(0, 1), "hello")
            for _ in range(2):  # a second time changes nothing
                self.assertEqual(self.done("cut", 1), "")
            self.assertIn(f"1 {NAME}-1 10.77.0.2 cut unlimited", self.done("status"))
            self.assertIn("no answer", self.ask(0, 1))
            self.assertIn("no answer", self.ask(1, 2))
            for _ in range(2):
                self.assertEqual(self.done("heal", 1), "")
            limit = time.monotonic() + 30
            while (answer := self.ask(0, 1)) != "hello" and time.monotonic() < limit:
                time.sleep(0.2)
            self.assertEqual(answer, "hello")
        finally:
            server.kill()
            server.communicate()

    def test_ranks_exchange_bytes_across_the_hosts(self):
        for per_host in (1, 2):
            with self.subTest(per_host=per_host):
                out = self.good(self.job(per_host, RANKS, "exchange", 2, 64, 100000))
                self.assertEqual(sorted(out.splitlines()),
                                 [f"rank {i} of {3 * per_host}: done" for i in range(3 * per_host)])
        self.good(self.job(1, "-x", "LANG=C", "--", RANKS, "exchange", 1, 64))

    def test_a_job_across_the_hosts_ends_as_on_one(self):
        for command, code, words in ((("absent", 1, 300, 7), 7, "timed out"),
                                     (("stuck", 2, "asleep", 300, 5), 5, "left alone"),
                                     (("dies", 1, int(signal.SIGKILL)), 128 + signal.SIGKILL, "")):
            with self.subTest(command=command):
                done = self.job(1, RANKS, *command)
                self.assertEqual(done.code, code, str(done))
                self.assertIn(words, done.stdout)

    def test_hosts_that_are_not_there_are_refused(self):
        for command in ("exec", "cut", "heal"):
            done = cluster(command, 3, "true")
            self.assertEqual(done.returncode, 1)
            self.assertIn("hosts 0 to 2", done.stderr)
        self.assertEqual(cluster("exec", "x", "true").returncode, 2)
        self.assertEqual(cluster("exec", 0, "sh", "-c", "exit 9").returncode, 9)

    def test_a_host_has_its_own_name_and_no_device_of_the_machine(self):
        self.assertEqual(self.done("exec", 2, "hostname"), f"{NAME}-2\n")
        self.assertEqual(sorted(self.done("exec", 2, "ls", "/sys/class/net").split()), ["lo", "veth0"])
        self.assertNotEqual(os.uname().nodename, f"{NAME}-2")


class Life(dist.Case):
    """From up to down, each time anew."""

    def tearDown(self):
        cluster("down")

    def test_up_again_replaces_and_down_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as tmp:
            env = dict(os.environ, XDG_RUNTIME_DIR=tmp)
            for count in (3, 2):
                self.assertEqual(cluster("up", count, env=env).returncode, 0)
                self.assertEqual(len(namespaces()), count + 1)
            sleeper = subprocess.Popen([SCRIPT, "--name", NAME, "exec", "1", "sleep", "1000"], env=env)
            self.assertEqual(dist.wait_until_gone(lambda: not self.pids(1), 10), False)
            for _ in range(2):
                done = cluster("down", env=env)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
            self.assertEqual(sleeper.wait(10), -signal.SIGTERM)
            self.assertEqual((namespaces(), os.listdir(tmp)), ([], []))
            done = cluster("status", env=env)
            self.assertEqual(done.returncode, 1)
            self.assertIn("not up", done.stderr)

    def pids(self, host):
        return subprocess.run(["ip", "netns", "pids", f"{NAME}-{host}"], capture_output=True).stdout

    def test_a_rate_limits_both_ways_of_every_link(self):
        self.assertEqual(cluster("up", 2, "20mbit").returncode, 0)
        for namespace, device in ((f"{NAME}-1", "veth0"), (f"{NAME}-br", "port1")):
            out = subprocess.run(["tc", "-n", namespace, "qdisc", "show", "dev", device], check=True,
                                 capture_output=True, text=True).stdout
            self.assertRegex(out, "tbf .*rate 20Mbit")
        self.assertEqual(cluster("status").stdout.splitlines()[1], f"1 {NAME}-1 10.77.0.2 up 20mbit")

    def test_up_that_fails_leaves_nothing(self):
        done = cluster("up", 2, "fast")
        self.assertEqual(done.returncode, 1)
        self.assertIn("'fast'", done.stderr)
        self.assertEqual(namespaces(), [])
        self.assertEqual(cluster("up", 0).returncode, 2)


def tests(*classes):
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    done = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(load(c) for c in classes))
    if not done.wasSuccessful():
        sys.exit(1)


if __name__ == "__main__":
    tests(Usage)
    able = cluster("check")
    if able.returncode:
        dist.skip(able.stderr.strip())
    tests(Life)
    dist.need_mpirun()
    tests(Cluster)
