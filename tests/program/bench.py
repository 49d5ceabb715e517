#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quarry bench as its user meets it; figures are looked at for what must hold on any machine.

usage: bench.py QUARRY MAKE_GGUF
"""
import sys
import unittest

from program import ENV, TEXT, Case, tiny, write


class Bench(Case):
    def test_bench_decode(self):
        out = self.json("bench", "decode", "-m", tiny(), "--batch", "3", "--context", "200", "--steps",
                        "4", "--policy", "exact", "--budget", "16")
        for key in ("tokens_per_s", "step_ms", "stages_ms", "bytes", "hit_rate", "overlap", "batch",
                    "context", "policy", "attended"):
            self.assertIn(key, out)
        self.assertGreater(out["tokens_per_s"], 0)

    def test_bench_decode_of_a_shape_needs_no_model(self):
        base = ("bench", "decode", "--shape", "smollm2-135m", "--context", "600", "--steps", "3")
        out = self.json(*base, "--policy", "exact", "--budget", "32", "--batch", "2", "--layers", "2")
        self.assertEqual((out["n_layers"], out["kv_heads"], out["batch"]), (2, 3, 2))
        self.assertGreater(out["ratio"], 0)
        self.assertLess(out["attended"], 0.3)
        self.assertEqual(set(out["stages_ms"]), set(out["dense_stages_ms"]))
        self.assertIsNone(out["overlap"])  # nothing moves
        self.assertIsNone(out["hit_rate"])
        self.refused(2, r"'--shape': 'x' refused", "bench", "decode", "--shape", "x")
        self.refused(2, r"refused; the KV heads divide", *base, "--kv-heads", "2")
        self.refused(2, r"'--query-drift': '1.5' refused", *base, "--query-drift", "1.5")

    def test_a_shape_says_what_the_model_says(self):
        more = ("--context", "600", "--steps", "3", "--policy", "exact", "--budget", "32", "--device",
                "host-discrete:64M")
        model = self.json("bench", "decode", "-m", tiny(), *more)
        shape = self.json("bench", "decode", "--shape", "smollm2-135m", *more)
        of_a_model = {"prompt_tokens", "events"}  # and none of a file
        self.assertLessEqual(set(model) - of_a_model, set(shape))
        self.assertLessEqual(set(shape["stages_ms"]), set(model["stages_ms"]))

    def test_a_shape_on_a_discrete_device_gives_the_answer_of_a_unified_one(self):
        base = ("bench", "decode", "--shape", "llama3-8b", "--context", "1000", "--steps", "6", "--batch", "3",
                "--layers", "2", "--budget", "64", "--warm-up", "2")
        for policy in ("exact", "a2ats+", "window", "dense"):
            whole = self.json(*base, "--policy", policy)
            for more in ((), ("--set", "step.micro_batches=2")):
                with self.subTest(policy=policy, more=more):
                    out = self.json(*base, "--policy", policy, "--device", "host-discrete:64M", *more)
                    self.assertEqual(out["checksum"], whole["checksum"])
                    self.assertIsNone(out["ratio"])
                    self.assertGreater(out["device_reserved_bytes"], 0)

    def test_queries_that_stay_find_their_rows(self):
        base = ("bench", "decode", "--shape", "smollm2-135m", "--context", "2000", "--steps", "4", "--policy",
                "exact", "--budget", "64", "--device", "host-discrete:16M")
        rates = [self.json(*base, "--query-drift", drift)["hit_rate"] for drift in ("0.01", "0.3")]
        self.assertGreater(rates[0], rates[1])

    def test_a_slower_link_moves_the_same_bytes(self):
        base = ("bench", "decode", "--shape", "smollm2-135m", "--context", "3000", "--steps", "3", "--policy",
                "exact", "--budget", "256", "--batch", "2", "--query-drift", "1", "--warm-up", "1",
                "--device", "host-discrete:64M", "--set", "step.micro_batches=2")
        fast, slow = self.json(*base), self.json(*base, "--link-gbps", "0.01")
        self.assertGreater(fast["bytes"]["h2d"], 0)
        for key in ("bytes", "rows_pulled", "hit_rate", "checksum"):
            self.assertEqual(fast[key], slow[key])
        # the link's own time at 10 MB/s, a share of which later steps need no more
        self.assertGreater(slow["movement_alone_ms"], 1e3 * slow["bytes"]["h2d"] / 3 / 1e7 / 10)
        self.assertGreater(slow["stages_ms"]["wait"], 0)
        self.assertIsNotNone(slow["overlap"])
        self.assertLessEqual(slow["overlap"], 1)

    def test_a_device_that_is_too_small_is_told_what_is_needed(self):
        self.refused(1, r"'4.0 MiB': 2 sequences of \d+ tokens need at least [0-9.]+ MiB \(\d+ bytes: rows", "bench",
                     "decode", "--shape", "llama3-8b", "--batch", "2", "--context", "4000", "--policy", "exact",
                     "--budget", "256", "--device", "host-discrete:4M")

    def test_bench_link_measures_both_ways_and_obeys_the_link(self):
        for more in (("--device", "host"),
                     ("--device", "host-discrete:64M", "--link-gbps", "2", "--set", "device.link_copy_us=100")):
            with self.subTest(more=more):
                out = self.json("bench", "link", *more)
                rows = {row["name"]: row for row in out["results"]}
                self.assertEqual(len(rows), 16)
                self.assertLessEqual({"to device, 230 rows of 256 B", "to home, 230 rows of 256 B",
                                      "to device, 16.0 MiB", "to home, 4.0 KiB"}, set(rows))
                for row in rows.values():
                    for key in ("p50_ns", "bytes", "gbps", "ceiling_gbps", "memcpy_gbps", "memcpy_team_gbps"):
                        self.assertGreater(row[key], 0)
                    if out["link_gbps"] > 0:
                        self.assertIn("discrete", out["device"])
                        self.assertGreaterEqual(row["p50_ns"], 100e3 + row["bytes"] / 2)
                        self.assertLessEqual(row["ceiling_gbps"], 2)

    def test_a_discrete_device_needs_its_size(self):
        self.refused(2, r"'host-discrete': no size; host-discrete:<bytes> is accepted", "bench", "link",
                     "--device", "host-discrete")
        self.refused(2, r"'host-discrete:0'", "bench", "link", "--device", "host-discrete:0")
        self.refused(2, r"'host-discrete:1M' has 1.0 MiB", "bench", "link", "--device", "host-discrete:1M")
        self.refused(2, r"device.link_gbps", "bench", "link", "--link-gbps", "-1")

    def test_bench_residency(self):
        path = write("t.txt", TEXT)
        base = ("bench", "residency", "-m", tiny(), "--context", "300", "--set", "retrieval.min_tokens=0",
                "--set", "cache.sinks=4", "--set", "cache.window=16")
        out = self.json(*base, "-f", path, "--steps", "8", "--policy", "exact", "--budget", "24")
        self.assertEqual(out["steps"], 8)
        self.assertEqual([r["eviction"] for r in out["results"]], ["lru"] * 5 + ["lfu"] * 5 + ["clock"] * 5)
        for rows in (out["results"][i:i + 5] for i in (0, 5, 10)):
            self.assertEqual([r["capacity"] for r in rows], [1, 1.5, 2, 3, 4])
            for row in rows:
                self.assertTrue(0 < row["hit_rate"] < 1)  # the new row is never there
                self.assertLessEqual(row["chosen_hit_rate"], 1)
                self.assertGreater(row["find_ns"], 0)
            self.assertGreaterEqual(rows[4]["hit_rate"], rows[0]["hit_rate"])
        self.refused(2, r"needs -f FILE", *base)
        self.refused(2, r"attended to all rows", *base, "-f", path, "--steps", "8", "--policy", "dense")


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Bench)
    sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
