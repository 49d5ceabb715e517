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
        self.assertEqual((out["layers"], out["kv_heads"], out["batch"]), (2, 3, 2))
        self.assertGreater(out["ratio"], 0)
        self.assertLess(out["attended"], 0.3)
        self.assertEqual(set(out["stages_ms"]), set(out["dense_stages_ms"]))
        self.refused(2, r"'--shape': 'x' refused", "bench", "decode", "--shape", "x")
        self.refused(2, r"refused; the KV heads divide", *base, "--kv-heads", "2")

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
