#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program as its user meets it: commands, output, exit codes, errors.

usage: program.py QUARRY MAKE_GGUF [real]
Runs on the tiny random models that make_gguf writes; with `real` the cases that need the real model
(exit 77 when it is not there).
"""
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

QUARRY, MAKE_GGUF = sys.argv[1:3]
REAL = sys.argv[3:] == ["real"]
TEXT = "In the beginning there was a text, and it's 42 lines long. " * 8
CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
MODEL = os.environ.get("QY_TEST_MODEL") or CACHE + "/quarry/SmolLM2-135M-Instruct.Q4_1.gguf"
ENV = {k: v for k, v in os.environ.items() if not k.startswith("QY_")}
FOLDER = tempfile.TemporaryDirectory()


def run(*args, stdin="", env=None, timeout=240):
    return subprocess.run([QUARRY, *args], input=stdin.encode(), env={**ENV, **(env or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)


def tiny(name="llama_f32"):
    path = f"{FOLDER.name}/{name}.gguf"
    if not os.path.exists(path):
        subprocess.run([MAKE_GGUF, FOLDER.name, name], check=True)
    return path


def write(name, data):
    path = f"{FOLDER.name}/{name}"
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


class Case(unittest.TestCase):
    def json(self, *args, **kwargs):
        done = run(*args, "--json", **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return json.loads(done.stdout)

    def refused(self, code, pattern, *args, **kwargs):
        """One clear error: the exit code, one line on stderr, nothing on stdout."""
        done = run(*args, **kwargs)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, code, text)
        lines = [x for x in text.splitlines() if x.startswith("quarry: error: ")]
        self.assertEqual(len(lines), 1, text)
        self.assertRegex(lines[0], pattern)
        self.assertEqual(done.stdout, b"")


class Generate(Case):
    def test_json_has_the_keys_that_scripts_rely_on(self):
        out = self.json("generate", "-m", tiny(), "-p", TEXT, "-n", "7")
        for key in ("tokens", "gaps", "text", "prompt_tokens", "kv_bytes", "attended", "prefill_tps",
                    "decode_tps", "events"):
            self.assertIn(key, out)
        self.assertEqual(set(out["kv_bytes"]), {"device", "host", "index", "remote", "disk"})
        self.assertEqual(len(out["tokens"]), len(out["gaps"]))
        self.assertLessEqual(len(out["tokens"]), 7)
        self.assertEqual(out["attended"], 1.0)

    def test_file_prompt_and_stdin_are_the_same_text(self):
        a = self.json("generate", "-m", tiny(), "-p", TEXT, "-n", "5")
        b = self.json("generate", "-m", tiny(), "-f", write("t.txt", TEXT), "-n", "5")
        c = self.json("generate", "-m", tiny(), "-f", "-", "-n", "5", stdin=TEXT)
        self.assertEqual(a["tokens"], b["tokens"])
        self.assertEqual(a["tokens"], c["tokens"])

    def test_full_budget_is_dense_and_a_small_one_reads_less(self):
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "6", "--set", "cache.window=16",
                "--set", "cache.sinks=4")
        dense = self.json(*base)
        full = self.json(*base, "--policy", "exact", "--budget", "1.0")
        small = self.json(*base, "--policy", "exact", "--budget", "8")
        window = self.json(*base, "--policy", "window")
        self.assertEqual(dense["tokens"], full["tokens"])
        self.assertEqual(full["attended"], 1.0)
        self.assertLess(small["attended"], 0.5)
        self.assertLess(window["attended"], small["attended"])
        self.assertLess(window["read_bytes"], dense["read_bytes"])

    def test_a_seed_repeats_and_another_differs(self):
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "24", "--temp", "5")
        a, b, c = (self.json(*base, "--seed", s)["tokens"] for s in ("1", "1", "2"))
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)

    def test_kernel_sets_and_chunks_agree(self):
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "6", "--set", "cache.row_type=f32")
        whole = self.json(*base)["tokens"]
        self.assertEqual(self.json(*base, env={"QY_CPU": "plain"})["tokens"], whole)
        for chunk in ("1", "7"):
            self.assertEqual(self.json(*base, "--set", "model.chunk=" + chunk)["tokens"], whole)
        self.assertEqual(self.json(*base, "--set", "step.deterministic=on")["tokens"], whole)

    def test_compare_answers_twice(self):
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "6", "--compare")
        out = self.json(*base, "--policy", "exact", "--budget", "1.0")
        self.assertEqual(out["tokens"], out["dense"]["tokens"])
        done = run(*base, "--policy", "window")
        self.assertEqual(done.returncode, 0)
        for word in (b"dense", b"window", b"tokens attended", b"KV bytes read", b"summary"):
            self.assertIn(word, done.stdout)

    def test_text_goes_to_stdout_and_the_summary_to_stderr(self):
        done = run("generate", "-m", tiny(), "-p", TEXT, "-n", "4")
        self.assertEqual(done.returncode, 0)
        self.assertNotIn(b"summary", done.stdout)
        for word in (b"reading: ", b"summary", b"KV ", b"attended"):
            self.assertIn(word, done.stderr)
        self.assertNotIn(b"\r", done.stderr)

    def test_no_tokens_asked_for_is_fine(self):
        self.assertEqual(self.json("generate", "-m", tiny(), "-p", TEXT, "-n", "0")["tokens"], [])

    def test_an_interrupt_ends_with_the_summary(self):
        child = subprocess.Popen([QUARRY, "generate", "-m", tiny(), "-p", TEXT, "-n", "200000",
                                  "--temp", "9"], env=ENV, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        child.stdout.read(8)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130)
        self.assertIn(b"summary (interrupted)", err)

    def test_a_reader_that_left_ends_it(self):
        child = subprocess.Popen([QUARRY, "generate", "-m", tiny(), "-p", TEXT, "-n", "200000",
                                  "--temp", "9"], env=ENV, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
        child.stdout.read(1)
        child.stdout.close()
        err = child.stderr.read()
        self.assertEqual(child.wait(timeout=60), 1)
        self.assertIn(b"stdout: writing failed", err)

    def test_a_trace_is_a_json_file(self):
        path = FOLDER.name + "/trace.json"
        self.json("generate", "-m", tiny(), "-p", TEXT, "-n", "3", "--trace", path)
        with open(path) as f:
            events = json.load(f)["traceEvents"]
        self.assertTrue({"qkv", "mlp"} <= {e["name"] for e in events})

    def test_requests_that_cannot_fit_are_refused_before_work(self):
        self.refused(1, r"cache\.host_bytes.*", "generate", "-m", tiny(), "-p", TEXT, "-n", "4",
                     "--set", "cache.host_bytes=64K")
        self.refused(2, r"--ctx 20: the prompt has \d+ tokens", "generate", "-m", tiny(), "-p", TEXT,
                     "--ctx", "20")


class Errors(Case):
    def test_usage(self):
        for pattern, args in (
                (r"'generat'.*did you mean 'generate'", ["generat"]),
                (r"'--buget'.*did you mean '--budget'", ["generate", "--buget", "3"]),
                (r"'-n': needs a value", ["generate", "-p", "x", "-n"]),
                (r"'-n': value 'x' refused", ["generate", "-p", "x", "-n", "x"]),
                (r"'-n': value '-3' refused", ["generate", "-p", "x", "-n", "-3"]),
                (r"'--json': takes no value", ["generate", "--json=1"]),
                (r"word 'extra'", ["generate", "extra"]),
                (r"nothing to read", ["generate", "-m", tiny()]),
                (r"eval 'foo': no such kind", ["eval", "foo"]),
                (r"'--set': 'x' refused", ["generate", "--set", "x"]),
                (r"did you mean 'cache.block_tokens'",
                 ["generate", "-p", "x", "--set", "cache.blok_tokens=1"]),
                (r"budget '7\.5'", ["generate", "-p", "x", "--budget", "7.5"]),
                (r"budget 'nan'", ["generate", "-p", "x", "--budget", "nan"]),
                (r"policy 'exakt'.*dense, window, exact", ["generate", "-p", "x", "--policy", "exakt"]),
                (r"sampling\.temperature.*nan", ["generate", "-p", "x", "--temp", "nan"]),
                (r"runtime\.cpu", ["doctor", "--set", "runtime.cpu=sse"])):
            with self.subTest(args=args):
                self.refused(2, pattern, *args)

    def test_environment_and_files(self):
        self.refused(2, r"QY_CACHE_BLOK_TOKENS", "config", env={"QY_CACHE_BLOK_TOKENS": "1"})
        path = write("bad.conf", "cache.window = 32\ncache.blok_tokens = 1\n")
        self.refused(2, r"bad\.conf:2.*did you mean 'cache\.block_tokens'", "config", "--config", path)
        self.refused(2, r"nothere\.conf", "config", "--config", "/nothere.conf")

    def test_settings_merge_in_order(self):
        path = write("good.conf", "[cache]\nwindow = 32\nsinks = 3\nblock_tokens = 64\n")
        rows = self.json("config", "--config", path, "--set", "cache.sinks=5",
                         env={"QY_CACHE_SINKS": "4", "QY_CACHE_WINDOW": "40"})["settings"]
        got = {r["name"]: (r["value"], r["source"]) for r in rows}
        self.assertEqual(got["cache.sinks"][0], "5")
        self.assertEqual(got["cache.window"][0], "40")
        self.assertEqual(got["cache.block_tokens"][0], "64")
        self.assertIn("good.conf:4", got["cache.block_tokens"][1])
        self.assertEqual(got["cache.row_type"], ("f16", "default"))

    def test_files_that_are_no_models(self):
        with open(tiny(), "rb") as f:
            data = f.read()
        self.refused(1, r"/nothere\.gguf", "generate", "-p", "x", "-m", "/nothere.gguf")
        self.refused(1, r"cut\.gguf", "generate", "-p", "x", "-m", write("cut.gguf", data[:-100]))
        self.refused(1, r"head\.gguf", "generate", "-p", "x", "-m", write("head.gguf", data[:100]))
        self.refused(1, r"empty\.gguf", "generate", "-p", "x", "-m", write("empty.gguf", b""))
        self.refused(1, r"text\.gguf", "generate", "-p", "x", "-m", write("text.gguf", b"hello" * 99))
        mamba = data.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
                             b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba")
        self.assertNotEqual(mamba, data)
        self.refused(1, r"'mamba'.*llama, qwen2, qwen3", "generate", "-p", "x", "-m",
                     write("mamba.gguf", mamba))

    def test_weights_that_are_not_finite_are_one_clear_error(self):
        with open(tiny(), "rb") as f:
            data = f.read()
        nan = struct.pack("<f", float("nan"))
        half = len(data) // 2 // 4 * 4  # in the middle of the tensors
        spoilt = write("nan.gguf", data[:half] + nan * ((len(data) - half) // 4))
        self.refused(1, r"not finite|not a number", "generate", "-p", TEXT, "-n", "3", "-m", spoilt)

    def test_texts_that_cannot_be_read(self):
        self.refused(1, r"file '/nothere'", "generate", "-m", tiny(), "-f", "/nothere")
        self.refused(1, r"it is a directory", "generate", "-m", tiny(), "-f", FOLDER.name)
        self.refused(2, r"has \d+ tokens; --start, --ctx and --count need", "eval", "ppl", "-m", tiny(),
                     "-f", write("short.txt", "hello"), "--ctx", "100")


class Others(Case):
    def test_tokenize_prints_ids(self):
        lines = run("tokenize", "-m", tiny(), "-p", "hello").stdout.split()
        ids = self.json("tokenize", "-m", tiny(), "-p", "hello")["tokens"]
        self.assertEqual([int(x) for x in lines], ids)
        few = self.json("tokenize", "-m", tiny(), "-p", TEXT, "--prompt-tokens", "9")["tokens"]
        self.assertEqual(len(few), 9)

    def test_eval_ppl(self):
        path = write("t.txt", TEXT)
        base = ("eval", "ppl", "-m", tiny(), "-f", path, "--set", "cache.window=8",
                "--set", "cache.row_type=f32")
        plain = self.json(*base, "--ctx", "80", "--count", "0", "--from", "8", "--policy", "exact")
        self.assertEqual((plain["positions"], plain["policy"]), (72, "dense"))
        same = self.json(*base, "--ctx", "80", "--count", "12", "--policy", "exact", "--budget", "1.0")
        for key in ("positions", "ppl", "nll", "dense_ppl", "kl", "top1", "attended", "recall", "mass"):
            self.assertIn(key, same)
        self.assertLess(same["kl"], 1e-4)
        self.assertEqual(same["top1"], 1.0)
        self.assertIsNone(same["recall"])
        bad = self.json(*base, "--ctx", "80", "--count", "12", "--policy", "window")
        self.assertGreater(bad["kl"], same["kl"])

    def test_eval_dump_adds_up(self):
        path, dump = write("t.txt", TEXT), FOLDER.name + "/dump.tsv"
        out = self.json("eval", "ppl", "-m", tiny(), "-f", path, "--ctx", "60", "--count", "5",
                        "--dump", dump)
        with open(dump) as f:
            rows = [line.split("\t") for line in f]
        self.assertEqual(len(rows), 5)
        self.assertAlmostEqual(-sum(float(r[3]) for r in rows) / 5, out["nll"], places=4)

    def test_doctor_help_version(self):
        out = self.json("doctor")
        for key in ("cpu", "kernels", "libraries", "device", "ranks", "links", "warnings"):
            self.assertIn(key, out)
        self.assertIn(b"quarry", run("--version").stdout)
        shown = run("eval", "ppl", "--policy", "help")
        self.assertEqual(shown.returncode, 0)
        self.assertRegex(shown.stdout, rb"(?m)^  exact ")
        for command in ("generate", "tokenize", "eval", "bench", "memory", "doctor", "config"):
            shown = run("help", command)
            self.assertEqual(shown.returncode, 0)
            self.assertEqual(shown.stdout, run(command, "--help").stdout)
        self.assertIn(b".TH QUARRY", run("help", "--man").stdout)
        shell = run("help", "--completion", "bash").stdout
        subprocess.run(["bash", "-n"], input=shell, check=True)


class Eval(Case):
    """Every kind of eval; the tiny models know nothing, so only what holds for any model is asked."""
    LONG = "".join(f"Line {i} of a long text says that {i * 7 % 97} is not {i * 13 % 89}. "
                   for i in range(400))

    def base(self, kind, *more, ctx="700"):
        return ("eval", kind, "-m", tiny(), "-f", write("long.txt", self.LONG), "--ctx", ctx,
                "--set", "cache.row_type=f32", "--set", "cache.window=16",
                "--set", "retrieval.min_tokens=0", *more)

    def test_questions_are_answered_as_dense_does_at_full_budget(self):
        for kind, count, tasks in (("needle", "3", {"needle", "copy"}),
                                   ("aggregate", "1", {"common", "frequent", "variables"}),
                                   ("turns", "3", {"context", "told", "turn 1", "turn 2", "turn 3"})):
            with self.subTest(kind=kind):
                full, window = self.json(*self.base(kind, ctx="1400"), "--count", count,
                                         "--policies", "exact@1.0,window")["runs"]
                for key in ("cases", "accuracy", "dense_accuracy", "attended", "attended_sparse"):
                    self.assertIn(key, full)
                self.assertEqual(set(full["tasks"]), tasks)
                self.assertEqual(full["accuracy"], full["dense_accuracy"])
                self.assertAlmostEqual(full["log_prob"], full["dense_log_prob"], places=4)
                self.assertEqual(full["attended"], 1.0)
                self.assertLess(window["attended"], 0.1)
                self.assertEqual(window["dense_log_prob"], full["dense_log_prob"])
                self.assertNotEqual(window["log_prob"], full["log_prob"])
                self.assertEqual(window["cases"], full["cases"])

    def test_a_seed_draws_the_task(self):
        base = self.base("needle", "--task", "copy", "--count", "2")
        a, b, c = (self.json(*base, "--seed", s)["dense_log_prob"] for s in ("1", "1", "2"))
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)

    def test_recall_is_told_by_layer(self):
        exact, window = self.json(*self.base("recall", "--count", "4"), "--policies",
                                  "exact@16,window")["runs"]
        self.assertGreater(exact["recall"], 0.99)
        self.assertTrue(0 < exact["mass"] <= 1)
        self.assertEqual(window["recall"] or 0, 0)
        layers = exact["audit"]["layers"]
        self.assertEqual([x["layer"] for x in layers], list(range(len(layers))))
        self.assertTrue(all(x["samples"] > 0 for x in layers))
        audited = self.json(*self.base("ppl", "--count", "4"), "--policy", "exact", "--budget", "16",
                            "--audit", "1")
        self.assertAlmostEqual(audited["recall"], exact["recall"], places=2)

    def test_several_policies_and_budgets_make_one_table(self):
        args = (*self.base("ppl", "--count", "6"), "--policies",
                "exact,exact@1.0/cache.window=8,window", "--budgets", "8,0.1")
        runs = self.json(*args)["runs"]
        self.assertEqual([r["label"] for r in runs],
                         ["exact@8", "exact@0.1", "exact@1.0/cache.window=8", "window"])
        self.assertEqual(runs[0]["kl_to_first"], 1.0)
        self.assertEqual(len({r["dense_ppl"] for r in runs}), 1)
        self.assertLess(runs[2]["kl"], 1e-4)
        self.assertLess(runs[0]["attended"], runs[1]["attended"])
        shown = run(*args)
        self.assertEqual(shown.returncode, 0)
        self.assertEqual(len(shown.stdout.splitlines()), 5)
        path = write("curve.json", json.dumps({"runs": runs}))
        plot = os.path.join(os.path.dirname(__file__), "../../scripts/plot")
        subprocess.run([sys.executable, plot, "-o", FOLDER.name + "/c.dat", path], check=True)
        with open(FOLDER.name + "/c.dat") as f:
            points = [x.split() for x in f if x.strip() and x[0] != "#"]
        self.assertEqual(len(points), 4)
        self.assertAlmostEqual(float(points[0][1]), runs[0]["kl"], places=5)

    def test_refused(self):
        long = write("long.txt", self.LONG)
        for pattern, args in (
                (r"a text \(-f FILE\)", ["ppl", "--ctx", "50"]),
                (r"--ctx N of at least 2", ["aggregate"]),
                (r"file 'long|has \d+ tokens", ["needle", "-f", long, "--ctx", "99999"]),
                (r"'--ctx': 60 tokens are too few", ["needle", "-f", long, "--ctx", "60"]),
                (r"'--task': 'x' refused", ["needle", "-f", long, "--ctx", "700", "--task", "x"]),
                (r"'--count': 99 turns", ["turns", "-f", long, "--ctx", "700", "--count", "99"]),
                (r"policy 'exakt'", ["ppl", "-f", long, "--ctx", "60", "--policies", "window,exakt"]),
                (r"budget '7\.5'", ["ppl", "-f", long, "--ctx", "60", "--policies", "exact@7.5"]),
                (r"retrieval\.nothing", ["ppl", "-f", long, "--ctx", "60", "--policies",
                                         "exact@0.1/nothing=1"])):
            with self.subTest(args=args):
                self.refused(2, pattern, "eval", args[0], "-m", tiny(), *args[1:])

    def test_an_interrupt_ends_with_what_is_there(self):
        child = subprocess.Popen([QUARRY, *self.base("ppl", "--count", "1500", "--json", ctx="4000")],
                                 env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stderr.readline()  # the context was read
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130)
        self.assertTrue(json.loads(out)["interrupted"])


class Real(Case):
    def test_chat_answers_and_a_conversation_keeps_its_context(self):
        out = self.json("generate", "--chat", "-p", "What is the capital of France?", "-n", "24")
        self.assertIn("Paris", out["text"])
        done = run("generate", "-i", "--ctx", "600", "-n", "24", "--set", "model.chunk=64",
                   stdin="My name is Ada.\nWhat is the capital of France?\n")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn(b"Paris", done.stdout)
        kept = [int(x) for x in re.findall(rb"\[(\d+) tokens kept", done.stderr)]
        self.assertEqual(len(kept), 2)
        self.assertGreater(kept[1], kept[0] + 10)

    def test_a_control_token_in_user_text_is_text(self):
        plain = self.json("tokenize", "-p", "<|im_end|>")["tokens"]
        control = self.json("tokenize", "-p", "<|im_end|>", "--special")["tokens"]
        self.assertGreater(len(plain), 1)
        self.assertEqual(control, [2])

    def test_needles_are_found_by_exact_and_not_by_the_window(self):
        text = write("acts.txt", "And it came to pass in those days that they went up into the hills. "
                     "The people of the valley kept their sheep, and no man asked them why. " * 60)
        exact, window = self.json("eval", "needle", "-f", text, "--ctx", "768", "--count", "4", "--set",
                                  "retrieval.min_tokens=0", "--policies", "exact@0.1,window")["runs"]
        self.assertGreater(exact["dense_accuracy"], 0.4)
        self.assertGreater(exact["accuracy"], 0.8 * exact["dense_accuracy"])
        self.assertLess(window["accuracy"], 0.5 * exact["accuracy"])

    def test_bench_kernels_names_each_with_its_ceiling(self):
        rows = self.json("bench", "kernels")["results"]
        self.assertGreater(len(rows), 8)
        for row in rows:
            self.assertLessEqual({"name", "p50_ns", "bytes", "gbps", "ceiling_gbps"}, set(row))
            self.assertGreater(row["p50_ns"], 0)

    def test_a_full_context_is_one_clear_error(self):
        done = run("generate", "-i", "--ctx", "64", "-n", "24", stdin="word " * 100 + "\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"context full", done.stderr)


if __name__ == "__main__":
    if REAL and not os.path.exists(MODEL):
        print("skipped: the real model is not there; scripts/fetch-model gets it")
        sys.exit(77)
    ENV["QY_MODEL_FILE"] = MODEL if REAL else ""
    cases = [Real] if REAL else [Generate, Errors, Others, Eval]
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    result = unittest.TextTestRunner().run(unittest.TestSuite(load(c) for c in cases))
    sys.exit(not result.wasSuccessful())
