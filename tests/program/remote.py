#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Blocks on memory servers as the program's user meets them: the text of a cache in memory, clear errors.

usage: remote.py QUARRY MAKE_GGUF MEMORY_CLIENT
"""
import json
import pathlib
import sys
import unittest

from disk import SMALL, Disk
from memory import NETWORK, Server, new_key
from program import ENV, FOLDER, TEXT, Case, tiny, write


@unittest.skipUnless(NETWORK, "this build has no network")
class Remote(Case):
    def command(self, *more):
        return ("generate", "-m", tiny(), "-f", write("t.txt", TEXT), "-n", "24", "--ctx", "600", *SMALL, *more)

    def memory(self, *servers, key=None):
        return ("--set", "net.memory=" + ",".join(s.address for s in servers), "--set",
                "net.key_file=" + (key or new_key("key")))

    least = Disk.least

    def test_the_text_is_that_of_a_cache_in_memory(self):
        for policy in (("--policy", "dense"), ("--policy", "quest", "--budget", "24")):
            want = self.json(*self.command(*policy))
            self.assertEqual(want["kv_bytes"]["remote"], 0)
            for n in (1, 2):
                with self.subTest(policy=policy, copies=n), Server() as one, Server() as other:
                    memory = (*policy, *self.memory(one, other), "--set", "net.replicas=%d" % n)
                    host = self.least("cache.host_bytes", "of a step need", *memory)
                    have = self.json(*self.command(*memory), "--set", host)
                    self.assertEqual(have["tokens"], want["tokens"])
                    self.assertGreater(have["kv_bytes"]["remote"], 0)
                    self.assertLess(have["kv_bytes"]["host"], want["kv_bytes"]["host"])
                    self.assertEqual(have["remote"]["failed_writes"], 0)
                    self.assertEqual(have["bytes"]["net"],
                                     have["remote"]["written_bytes"] + have["remote"]["read_bytes"])
                    checks = have["remote"]["checks"]
                    self.assertGreater(checks["bytes"], 0)
                    self.assertGreater(checks["ms_per_step"], 0)
                    self.assertGreater(checks["share_of_step"], 0)
                    self.assertEqual((checks["damaged"], checks["asked_again"]), (0, 0))
                    self.assertLessEqual(have["peak_bytes"]["host"], int(host.split("=")[1]))
                    self.assertEqual((have["remote"]["moved_blocks"], have["remote"]["copied_blocks"]), (0, 0))
                    self.assertEqual([s["name"] for s in have["servers"]], [one.address, other.address])
                    for server in have["servers"]:
                        self.assertEqual(server["state"], "up")
                        self.assertGreater(server["bytes"], 0)
                        self.assertGreater(server["sent_bytes"], server["bytes"])
                        self.assertEqual(server["timeouts"] + server["again"], 0)
                    for server in (one, other):
                        code, _, err = server.end()
                        self.assertEqual(code, 0, err)
                        self.assertIn("2 peers came", err)

    def test_plans_know_what_servers_cost(self):
        policy = ("--policy", "quest", "--budget", "24")
        want = self.json(*self.command(*policy))
        with Server() as one, Server() as other:
            memory = (*policy, *self.memory(one, other))
            host = self.least("cache.host_bytes", "of a step need", *memory)
            have = self.json(*self.command(*memory), "--set", host, "--set", "plan.mode=auto")
            self.assertEqual(have["tokens"], want["tokens"])
            self.assertGreater(have["plan"]["far_row_ns"], 0)

    def test_the_host_is_opened_as_a_device_of_the_size_that_it_needs(self):
        policy = ("--policy", "quest", "--budget", "24")
        want = self.json(*self.command(*policy))
        with Server() as one, Server() as other:
            memory = (*policy, *self.memory(one, other), "--device", "host")
            host = self.least("cache.host_bytes", "of a step need", *memory)
            have = self.json(*self.command(*memory), "--set", host)
            self.assertEqual(have["tokens"], want["tokens"])
            self.assertRegex(have["device"], "^host, discrete ")
            self.assertGreater(have["kv_bytes"]["remote"], 0)
            self.assertLess(have["device_reserved_bytes"], want["device_reserved_bytes"])
            self.assertGreater(have["remote"]["rows_pulled"], 0)
            self.assertEqual((have["remote"]["rows_pushed"], have["remote"]["pushed_bytes"]), (0, 0))
            self.assertIsNone(have["remote"]["prefill"])
            trace = FOLDER.name + "/trace.json"
            have = self.json(*self.command(*memory), "--set", host, "--set", "plan.mode=push", "--trace", trace)
            remote = have["remote"]
            self.assertGreater(remote["prefill"]["pushed"], 0)
            self.assertGreater(remote["prefill"]["pushed_bytes"], 4 * remote["prefill"]["rows_pushed"])
            self.assertEqual((remote["prefill"]["failed"], remote["prefill"]["byte_ns"]), (0, None))
            spans = [e for e in json.loads(pathlib.Path(trace).read_text())["traceEvents"] if e["name"] == "plan chunk"]
            self.assertEqual(sum(e["args"]["pushed"] for e in spans), remote["prefill"]["pushed"])
            self.assertGreater(remote["rows_pushed"], 0)
            self.assertGreater(remote["pushed_bytes"], 4 * remote["rows_pushed"])
            self.assertEqual(have["bytes"]["net"], remote["written_bytes"] + remote["read_bytes"] +
                             remote["pushed_bytes"])

    def test_what_cannot_be_is_refused(self):
        with Server() as server:
            memory = self.memory(server)
            self.refused(2, r"memory servers: bench decode --shape keeps its rows in this process", "bench",
                         "decode", "--shape", "smollm2-135m", "--context", "64", *memory)
            self.refused(2, r"policy 'exact' reads keys or values to choose", *self.command("--policy", "exact"),
                         *memory)
            self.refused(2, r"net.replicas '2': net.memory names 1 servers", *self.command(), *memory, "--set",
                         "net.replicas=2")
            self.refused(2, r"net.key_file ''", *self.command(), "--set", "net.memory=" + server.address)
            self.refused(2, r"net.memory '127.0.0.1:1,,': 1 to \d+ of host:port", *self.command(), *memory,
                         "--set", "net.memory=127.0.0.1:1,,")
            self.refused(1, r"127", *self.command(), *self.memory(server, key=new_key("other")), "--set",
                         "net.timeout_ms=200")
            self.assertEqual(server.end()[0], 0)


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Remote)
    done = unittest.TextTestRunner().run(tests)
    sys.exit(77 if done.skipped else not done.wasSuccessful())
