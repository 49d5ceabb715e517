#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quarry calibrate as its user meets it, and how runs find their codebook.

usage: calibrate.py QUARRY MAKE_GGUF
Runs on the tiny random models that make_gguf writes.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

QUARRY, MAKE_GGUF = sys.argv[1:3]
TEXT = "In the beginning there was a text, and it's 42 lines long. " * 40
FOLDER = tempfile.TemporaryDirectory()
ENV = {k: v for k, v in os.environ.items() if not k.startswith("QY_")}
ENV["XDG_CACHE_HOME"] = FOLDER.name + "/cache"


def run(*args, env=None):
    return subprocess.run([QUARRY, *args], env={**ENV, **(env or {})}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)


def path(name):
    return f"{FOLDER.name}/{name}"


def tiny(name="llama_f32"):
    if not os.path.exists(path(name + ".gguf")):
        subprocess.run([MAKE_GGUF, FOLDER.name, name], check=True)
    return path(name + ".gguf")


def text():
    with open(path("text.txt"), "w") as f:
        f.write(TEXT)
    return path("text.txt")


def bytes_of(name):
    with open(name, "rb") as f:
        return f.read()


def calibrate(out, *args, **kwargs):
    return run("calibrate", "-m", tiny(), "-t", text(), "-o", out, "--tokens", "600", *args, **kwargs)


class Calibrate(unittest.TestCase):
    def done(self, process):
        self.assertEqual(process.returncode, 0, process.stderr.decode())
        return process

    def refused(self, process, code, pattern):
        errors = [x for x in process.stderr.decode().splitlines() if x.startswith("quarry: error: ")]
        self.assertEqual(process.returncode, code, process.stderr.decode())
        self.assertEqual(len(errors), 1, process.stderr.decode())
        self.assertRegex(errors[0], pattern)

    def test_a_seed_repeats_whatever_the_threads_and_another_differs(self):
        a, b, c = path("a.qcb"), path("b.qcb"), path("c.qcb")
        self.done(calibrate(a, "--threads", "1"))
        self.done(calibrate(b, "--threads", "3"))
        self.done(calibrate(c, "--seed", "7"))
        self.assertEqual(bytes_of(a), bytes_of(b))
        self.assertNotEqual(bytes_of(a), bytes_of(c))

    def test_json_says_what_was_made(self):
        for policy in ("a2ats+", "a2ats"):
            out = path("j.qcb")
            got = json.loads(self.done(calibrate(out, "--policy", policy, "--words", "64",
                                                 "--json")).stdout)
            self.assertEqual(got["policy"], policy)
            self.assertEqual(got["file"], out)
            self.assertEqual(got["bytes"], os.path.getsize(out))
            self.assertGreater(got["tokens"], 300)
            self.assertTrue(0 < got["distortion"] < 1, got)
            self.assertFalse(os.path.exists(out + ".part"))

    def test_layers_that_agree_are_written_as_settings(self):
        out = path("reuse.conf")
        small = ("--set", "cache.window=16", "--set", "cache.sinks=4", "--set", "retrieval.min_tokens=0")
        made = ("calibrate", "--reuse", "-m", tiny(), "-t", text(), "-o", out, "--tokens", "400", "--set", "retrieval.budget=24",
                *small)
        got = json.loads(self.done(run(*made, "--overlap", "0.05", "--json")).stdout)
        self.assertRegex(got["reuse_layers"], r"^\d+:\d+(,\d+:\d+)*$")
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "4", "--policy", "exact", "--budget", "24", "--json", *small)
        self.done(run(*base, "--config", out))
        rows = json.loads(self.done(run("config", "--config", out, "--json")).stdout)["settings"]
        self.assertIn(got["reuse_layers"], [r["value"] for r in rows if r["name"] == "retrieval.reuse_layers"])
        self.refused(run(*made, "--overlap", "2"), 2, "--overlap '2'")
        self.refused(run(*made[:4]), 2, "needs a text")
        self.refused(run(*made, "--tokens", "40000"), 2, "has [0-9]+ tokens")

    def test_a_named_codebook_is_used_and_another_model_refused_by_name(self):
        out = path("n.qcb")
        self.done(calibrate(out))
        base = ("generate", "-p", TEXT, "-n", "4", "--policy", "a2ats+", "--codebook", out, "--set",
                "cache.window=16", "--set", "cache.sinks=4", "--json")
        got = json.loads(self.done(run(*base, "-m", tiny(), "--budget", "1.0")).stdout)
        self.assertEqual(len(got["tokens"]) > 0, True)
        self.refused(run(*base, "-m", tiny("llama_f16")), 2, "codebook of model")

    def test_the_codebook_of_another_policy_is_refused(self):
        out = path("k.qcb")
        self.done(calibrate(out))
        self.refused(run("generate", "-m", tiny(), "-p", TEXT, "-n", "2", "--policy", "a2ats",
                         "--codebook", out), 2, "kind 'pq4'.*'vq'")

    def test_without_a_codebook_one_is_made_once_or_the_command_is_named(self):
        env = {"XDG_CACHE_HOME": path("fresh")}
        base = ("generate", "-m", tiny(), "-p", TEXT, "-n", "2", "--policy", "a2ats+")
        self.refused(run(*base, "--set", "retrieval.auto_calibrate=off", env=env), 1,
                     "quarry calibrate -m .* --policy a2ats[+]")
        first = self.done(run(*base, env=env)).stderr.decode()
        self.assertIn("learning one", first)
        self.assertEqual(len(os.listdir(path("fresh/quarry/codebooks"))), 1)
        again = self.done(run(*base, "--set", "retrieval.auto_calibrate=off", env=env))
        self.assertNotIn("learning one", again.stderr.decode())

    def interrupt(self, ask, out):
        """Ctrl-C once the text is read: exit code and stderr."""
        process = subprocess.Popen([QUARRY, *ask, out], env=ENV, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with process.stderr:
            for line in process.stderr:
                if line.startswith("reading"):
                    process.send_signal(signal.SIGINT)
                    break
            rest = process.stderr.read()
        return process.wait(300), rest

    def test_an_interrupt_is_gone_on_from(self):
        out, whole = path("i.qcb"), path("w.qcb")
        code, iterations = 0, 100
        while code == 0 and iterations < 100000:  # a fast machine may be done before the signal
            iterations *= 3
            ask = ("calibrate", "-m", tiny(), "-t", text(), "--tokens", "600", "--threads", "1",
                   "--policy", "a2ats", "--words", "64", "--iterations", str(iterations), "-o")
            if os.path.exists(out):
                os.remove(out)
            code, rest = self.interrupt(ask, out)
        self.assertEqual(code, 1, rest)
        self.assertRegex(rest, r"interrupted; \d+ of \d+ tables are kept in '.*[.]part'")
        self.assertFalse(os.path.exists(out))
        again = self.done(run(*ask, out)).stderr.decode()
        self.assertIn("going on with", again)
        self.assertFalse(os.path.exists(out + ".part"))
        self.done(run(*ask, whole))
        self.assertEqual(bytes_of(out), bytes_of(whole))

    def test_what_is_asked_for_wrongly_is_named(self):
        out = path("x.qcb")
        self.refused(calibrate(out, "--policy", "exact"), 2, "needs no codebook")
        self.refused(calibrate(out, "--quality", "best"), 2, "low, default and high")
        self.refused(calibrate(out, "--metric", "near"), 2, "query-avg")
        self.refused(calibrate(out, "--metric", "query"), 2, "not of this kind")
        self.refused(calibrate(out, "--sub-vectors", "7"), 1, "7 sub-vectors")
        self.refused(run("calibrate", "-m", tiny(), "-t", path("none.txt"), "-o", out), 1,
                     "none.txt")
        self.refused(calibrate(path("none/x.qcb")), 1, "cannot be written")
        self.assertFalse(os.path.exists(out))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
