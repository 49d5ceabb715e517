#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quarry memory as its user meets it: keys, who may connect, how it ends, clear errors.

usage: memory.py QUARRY MAKE_GGUF MEMORY_CLIENT
"""
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

CLIENT = sys.argv[3]
from program import ENV, Case, run  # noqa: E402  (reads sys.argv too)

FOLDER = tempfile.TemporaryDirectory()


def new_key(name):
    path = f"{FOLDER.name}/{name}"
    if not os.path.exists(path):
        assert run("memory", "--new-key", path).returncode == 0
    return path


def command(*more, key=None, listen="127.0.0.1:0", size="8M"):
    return ("memory", "--listen", listen, "--bytes", size, "--key-file", key or new_key("key"), *more)


# An address that no machine has: what is missing first is said.
NETWORK = b"has no UCX" not in run(*command(listen="192.0.2.1:0")).stderr


class Server:
    """Runs until the end of the `with`, by SIGTERM where it still runs. prefix: words that start a program elsewhere."""

    def __init__(self, *more, prefix=(), **kwargs):
        self.child = subprocess.Popen([*prefix, sys.argv[1], *command(*more, **kwargs)], env=ENV, text=True,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines = [self.child.stderr.readline()]
        found = re.search(r"listens at (\S+), ", self.lines[0])
        self.address = found and found.group(1)

    def __enter__(self):
        return self

    def wait_for(self, word):
        while word not in self.lines[-1]:
            self.lines.append(self.child.stderr.readline())
            if self.lines[-1] == "":
                raise AssertionError(f"'{word}' is not in: {self.lines}")

    def end(self, number=signal.SIGTERM):
        """Exit code, stdout, stderr."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        out, err = self.child.communicate(timeout=60)
        return self.child.returncode, out, "".join(self.lines) + err

    def __exit__(self, *unused):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.child.stderr.close()


def client(address, key, *more):
    return subprocess.Popen([CLIENT, address, key, *more], env=ENV, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


class Keys(Case):
    def test_a_new_key_is_its_owners_alone(self):
        path = f"{FOLDER.name}/fresh"
        done = run("memory", "--new-key", path)
        self.assertEqual((done.returncode, done.stdout), (0, b""))
        with open(path) as f:
            key = f.read()
        self.assertRegex(key, r"\A[0-9a-f]{64}\n\Z")
        self.assertNotIn(key[:8].encode(), done.stderr)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.refused(2, "fresh.*File exists", "memory", "--new-key", path)

    def test_a_key_file_that_cannot_be_used_is_refused(self):
        path = f"{FOLDER.name}/open"
        with open(path, "w") as f:
            f.write("0" * 64)
        os.chmod(path, 0o644)
        self.refused(2, r"open': its mode is 0644.*chmod 600", *command(key=path))
        os.chmod(path, 0o600)
        with open(path, "w") as f:
            f.write("0" * 62)
        self.refused(2, r"open': holds something else than 64 hex digits", *command(key=path))
        self.refused(2, r"/nothere': cannot be read: No such file", *command(key="/nothere"))
        self.refused(2, r"net\.key_file.*--new-key", "memory", "--listen", "127.0.0.1:0", "--bytes", "8M")


class Errors(Case):
    def test_what_cannot_be_is_refused_before_anything_is_taken(self):
        key = ("--key-file", new_key("key"))
        self.refused(2, r"net\.listen.*--listen", "memory", "--bytes", "8M", *key)
        self.refused(2, r"net\.bytes '0'.*--bytes 8G", "memory", "--listen", "127.0.0.1:0", *key)
        self.refused(2, r"net\.bytes '4096.0 TiB': this machine", *command(size="4096T"))
        self.refused(2, r"net\.bytes.*'x'", *command(size="x"))
        self.refused(2, r"word 'more'", *command("more"))

    @unittest.skipUnless(NETWORK, "this build has no network")
    def test_addresses_that_cannot_be_are_refused(self):
        for listen in ("here", "127.0.0.1:port", "127.0.0.1:70000", "192.0.2.1:0"):
            with self.subTest(listen=listen):
                done = run(*command(listen=listen))
                self.assertIn(done.returncode, (1, 2))
                self.assertIn(listen.split(":")[0].encode(), done.stderr)
                self.assertEqual(done.stderr.count(b"quarry: error: "), 1)

    @unittest.skipIf(NETWORK, "this build has a network")
    def test_a_build_without_network_says_so(self):
        self.refused(1, "UCX", *command())


@unittest.skipUnless(NETWORK, "this build has no network")
class Serves(Case):
    def test_who_knows_the_key_joins_and_nobody_else(self):
        with Server("--json") as server:
            self.assertIsNotNone(server.address, server.lines)
            with client(server.address, new_key("key")) as good:
                out, err = good.communicate(timeout=60)
            self.assertEqual(good.returncode, 0, out + err)
            server.wait_for("left")
            with client(server.address, new_key("other")) as bad:
                out, err = bad.communicate(timeout=60)
            self.assertEqual(bad.returncode, 3, out + err)
            code, out, err = server.end()
            self.assertEqual(code, 0, err)
            self.assertIn("0 blocks (0 bytes) of 0 sessions, 0 handed over to other servers; 1 peers came", err)
            status = json.loads(out)
            self.assertEqual(status["bytes"], 8 << 20)
            self.assertEqual(status["address"], server.address)
            self.assertEqual(status["peers"], {"joined": 1, "left": 1})
            self.assertGreater(status["checks"]["bytes"], 0)
            self.assertEqual(status["checks"]["damaged"], 0)

    def test_signals_end_it_while_somebody_is_connected(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number), Server() as server:
                with client(server.address, new_key("key"), "hold") as peer:
                    self.assertRegex(peer.stdout.readline(), "^up [0-9a-f]{16}$")
                    server.wait_for("joined")
                    code, out, err = server.end(number)
                    self.assertEqual((code, out), (0, ""), err)
                    self.assertEqual(peer.stdout.readline(), "lost\n")
                    self.assertEqual(peer.wait(timeout=60), 0)

    def test_a_port_in_use_is_one_clear_error_and_free_afterwards(self):
        with Server() as server:
            self.refused(1, r"in use", *command(listen=server.address))
            server.end()
        with Server(listen=server.address) as again:
            self.assertEqual(again.address, server.address)
            self.assertEqual(again.end()[0], 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
