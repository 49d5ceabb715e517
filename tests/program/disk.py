#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The disk tier as the program's user meets it: the text of a cache in memory, nothing left behind, clear
errors.

usage: disk.py QUARRY MAKE_GGUF
"""
import os
import re
import sys
import tempfile
import unittest

from program import ENV, TEXT, Case, run, tiny, write

SMALL = ("--set", "retrieval.min_tokens=0", "--set", "cache.sinks=4", "--set", "cache.window=16", "--set",
         "cache.block_tokens=16", "--set", "model.chunk=32", "--device", "host-discrete:8M")
UNIT = {"KiB": 1 << 10, "MiB": 1 << 20}


class Disk(Case):
    def command(self, *more):
        return ("generate", "-m", tiny(), "-f", write("t.txt", TEXT), "-n", "24", "--ctx", "600", *SMALL, *more)

    def disk(self, folder, *more):
        return ("--set", "cache.disk_bytes=4M", "--set", "cache.disk_path=" + folder, *more)

    def least(self, setting, pattern, *args):
        """The least that a setting accepts, and a little more, as the refusal of less says."""
        done = run(*self.command(*args), "--set", setting + "=1")
        self.assertEqual(done.returncode, 1)
        size, unit = re.search(setting + " '1 bytes': .*" + pattern + r" ([0-9.]+) (\w+)",
                               done.stderr.decode()).groups()
        return "%s=%d" % (setting, float(size) * UNIT[unit] * 1.1)

    def test_the_text_is_that_of_a_cache_in_memory(self):
        for policy in (("--policy", "dense"), ("--policy", "quest", "--budget", "24")):
            with self.subTest(policy=policy), tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                want = self.json(*self.command(*policy))
                self.assertIsNone(want["disk"])
                disk = self.disk(folder, *policy)
                host = self.least("cache.host_bytes", "of a step need", *disk)
                device = self.least("cache.device_bytes", "need at least", *policy)
                for engine in ("auto", "threads"):
                    have = self.json(*self.command(*disk), "--set", host, "--set", device, "--set",
                                     "cache.disk_engine=" + engine)
                    self.assertEqual(have["tokens"], want["tokens"])
                    self.assertGreater(have["kv_bytes"]["disk"], 0)
                    self.assertLess(have["kv_bytes"]["host"], want["kv_bytes"]["host"])
                    self.assertGreater(have["disk"]["written_bytes"], 0)
                    self.assertGreater(have["disk"]["read_bytes"], 0)
                    self.assertEqual(have["disk"]["failed_writes"], 0)
                    self.assertEqual(have["bytes"]["disk"],
                                     have["disk"]["written_bytes"] + have["disk"]["read_bytes"])
                    self.assertEqual(os.listdir(folder), [])
                self.assertEqual(have["disk"]["engine"], "threads")

    def test_what_cannot_be_is_refused(self):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            disk = self.disk(folder)
            self.refused(2, r"cache.disk_bytes: this device shares the host's memory", *self.command(), *disk,
                         "--device", "host")
            self.refused(2, r"policy 'exact' reads keys or values to choose", *self.command("--policy", "exact"),
                         *disk)
            self.refused(2, r"cache.disk_path '.*/none': no file can be made there", *self.command(),
                         *self.disk(folder + "/none"), "--set", "cache.host_bytes=200K")


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Disk)
    sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
