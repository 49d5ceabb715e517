#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A discrete device as the program's user meets it: the same answers, bounded memory, clear errors.

usage: discrete.py QUARRY MAKE_GGUF
"""
import pathlib
import subprocess
import sys
import tempfile
import unittest

from program import ENV, QUARRY, TEXT, Case, tiny, write

SMALL = ("--set", "retrieval.min_tokens=0", "--set", "cache.sinks=4", "--set", "cache.window=16", "--set",
         "cache.block_tokens=32", "--set", "model.chunk=64")


class Discrete(Case):
    def generate(self, *more):
        return self.json("generate", "-m", tiny(), "-f", write("t.txt", TEXT), "-n", "24", "--ctx", "600",
                         *SMALL, *more)

    def test_answers_are_those_of_the_unified_device(self):
        for policy in (("dense",), ("exact", "--budget", "24"), ("quest", "--budget", "24")):
            with self.subTest(policy=policy):
                want = self.generate("--policy", *policy)
                have = self.generate("--policy", *policy, "--device", "host-discrete:8M")
                self.assertEqual(have["tokens"], want["tokens"])
                self.assertEqual(want["bytes"], {"h2d": 0, "d2h": 0, "net": 0, "disk": 0})
                self.assertIsNone(want["hit_rate"])
                self.assertLessEqual(have["device_reserved_bytes"], 8 << 20)
                if policy != ("dense",):
                    self.assertGreater(have["bytes"]["h2d"], 0)
                    self.assertTrue(0 <= have["hit_rate"] <= 1)

    def test_a_device_too_small_is_refused_with_the_numbers(self):
        self.refused(1, r"cache.device_bytes '100.0 KiB': .* need at least .* raise it", "generate", "-m",
                     tiny(), "-f", write("t.txt", TEXT), "--policy", "exact", "--budget", "24",
                     "--device", "host-discrete:100K", *SMALL)

    def test_a_push_may_be_deterministic(self):
        base = ("--policy", "exact", "--budget", "24", "--set", "step.deterministic=on")
        want = self.generate(*base)["tokens"]
        for mode in ("pull", "push", "auto"):
            have = self.generate(*base, "--device", "host-discrete:8M", "--set", "plan.mode=" + mode)
            self.assertEqual(have["tokens"], want)
            self.assertGreater(have["rows_pushed"] + have["rows_pulled"], 0)
            if mode != "auto":
                self.assertEqual(have["rows_pushed"] > 0, mode == "push")

    def test_example_offload_batch(self):
        script = pathlib.Path(__file__).parents[2] / "examples/offload_batch/batches.py"
        out = subprocess.run(
            [sys.executable, "-B", script, "--quarry", QUARRY, "--model", tiny(), "-f", write("t.txt", TEXT), "--policy",
             "exact --budget 24", "--holds", "2", "--device-bytes", "6000000", "--context", "300", "--steps", "2", "--most", "4", "--links", "4",
             "--out", tempfile.mkdtemp(), "--warm-up", "2", *SMALL], capture_output=True, text=True, env=ENV)
        self.assertEqual(out.returncode, 0, out.stderr)
        self.assertRegex(out.stdout, r"dense +2 .*\n(.*\n)*exact --budget 24 +4 ")
        self.assertRegex(out.stdout, r"at its best batch, \d: [0-9.]+, [0-9.]+ times: what capacity adds")
        self.assertRegex(out.stdout, r"link of [0-9.]+ GB/s, 1/4 of device memory:")

    def test_bench_compare_runs_sides_in_turns(self):
        base = ("bench", "compare", "-m", tiny(), "-f", write("t.txt", TEXT), "--batch", "2", "--context", "300",
                "--steps", "6", "--warm-up", "3", "--policy", "exact", "--budget", "24", *SMALL)
        device = "device.spec=host-discrete:16M "
        out = self.json(*base, "--side", "all here: device.spec=host", "--side", f"pull: {device} plan.mode=pull",
                        "--side", f"push:{device} plan.mode=push")
        here, pull, push = out["sides"]
        self.assertEqual([side["name"] for side in out["sides"]], ["all here", "pull", "push"])
        self.assertEqual(out["turns"], 6)
        self.assertEqual(here["of_first"], 1)
        self.assertEqual(here["rows_pulled"] + here["rows_pushed"] + here["movement_alone_ms"], 0)
        self.assertEqual(pull["rows_pushed"], 0)
        self.assertGreater(pull["rows_pulled"], 0)
        self.assertEqual(push["rows_pulled"], 0)
        self.assertGreater(push["rows_pushed"], 0)
        self.refused(2, r"bench compare: 1 times --side; 2 to 8 are accepted", *base, "--side", "a: plan.mode=pull")
        self.refused(2, r"option '--side': 'plan.mode=pull' refused; a name, a colon", *base, "--side", "a:",
                     "--side", "plan.mode=pull")
        self.refused(2, r"plan.mod", *base, "--side", "a:", "--side", "b: plan.mod=pull")

    def test_rows_pulled_ahead_change_no_answer(self):
        base = ("--policy", "exact", "--budget", "24", "--device", "host-discrete:8M", "--set", "plan.mode=pull")
        want = self.generate(*base)
        self.assertEqual(want["rows_prefetched"], 0)
        self.assertIsNone(want["guess_recall"])
        for prefetch in ("previous", "speculate"):
            have = self.generate(*base, "--set", "step.prefetch=" + prefetch)
            self.assertEqual(have["tokens"], want["tokens"])
            self.assertTrue(0 < have["guess_recall"] <= 1)
            self.assertLessEqual(have["rows_prefetched_used"], have["rows_prefetched"])
        self.assertGreater(have["rows_prefetched"], 0)

    def test_bench_decode_tells_what_moved(self):
        base = ("bench", "decode", "-m", tiny(), "-f", write("t.txt", TEXT), "--batch", "4", "--context",
                "300", "--steps", "4", "--policy", "exact", "--budget", "24", "--device",
                "host-discrete:16M", *SMALL)
        for n in ("1", "2", "auto"):
            out = self.json(*base, "--set", "step.micro_batches=" + n, "--link-gbps", "1")
            self.assertGreater(out["bytes"]["h2d"], 0)
            self.assertTrue(0 < out["hit_rate"] < 1)
            self.assertTrue(out["overlap"] is None or out["overlap"] <= 1)
            self.assertGreater(out["movement_alone_ms"], 0)
            self.assertEqual(out["rows_pushed"], 0)
        out = self.json(*base, "--set", "plan.mode=push")
        self.assertEqual(out["rows_pulled"], 0)
        self.assertGreater(out["rows_pushed"], 0)
        out = self.json(*base, "--set", "plan.mode=auto")
        self.assertGreater(out["rows_pulled"] + out["rows_pushed"], 0)


    def test_rows_at_home_may_be_coded(self):
        base = ("--policy", "exact", "--budget", "24", "--device", "host-discrete:8M")
        plain = self.generate(*base)
        self.assertEqual(plain["home_codec"], "f16")
        self.assertEqual(plain["home_token_bytes"], plain["token_bytes"])
        for codec in ("4bit", "kvtuner", "8bit+0:f16"):
            have = self.generate(*base, "--set", "cache.home_codec=" + codec)
            self.assertEqual(have["home_codec"], codec)
            self.assertLess(have["home_token_bytes"], plain["home_token_bytes"])
            self.assertLess(have["bytes"]["d2h"], plain["bytes"]["d2h"])
            self.assertEqual(len(have["tokens"]), len(plain["tokens"]))
        out = self.json("eval", "ppl", "-m", tiny(), "-f", write("t.txt", TEXT), "--ctx", "200", "--count",
                        "8", *base, "--set", "cache.home_codec=k8v4", *SMALL)
        self.assertEqual(out["home_codec"], "k8v4")
        self.assertLess(out["home_token_bytes"], out["token_bytes"])
        self.refused(2, r"'cache.home_codec': '9bit' is no form; accepted are f16, 8bit", "generate", "-m",
                     tiny(), "-f", write("t.txt", TEXT), *base, "--set", "cache.home_codec=9bit", *SMALL)
        self.refused(2, r"'cache.home_codec': '4bit'; device .* or open a discrete device", "generate",
                     "-m", tiny(), "-f", write("t.txt", TEXT), "--set", "cache.home_codec=4bit", *SMALL)


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Discrete)
    sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
