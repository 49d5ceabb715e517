#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""generate --prompts in a single process: each answer is that of its prompt alone, in the order of the list.

usage: prompts.py QUARRY MAKE_GGUF
"""
import json
import sys
import unittest

from program import ENV, TEXT, Case, run, tiny, write

PROMPTS = ["Who was Noah?", TEXT, "Two\nlines, \"quoted\"", "  spaces  ", "{braces}"]


class Prompts(Case):
    def list(self):
        # as text where a line can say it, else as a JSON string or an object
        lines = [PROMPTS[0], PROMPTS[1], json.dumps(PROMPTS[2]), PROMPTS[3], json.dumps({"prompt": PROMPTS[4]})]
        return write("prompts.txt", "\n".join(lines) + "\n\n")

    def command(self, *more):
        return ("generate", "-m", tiny(), "-n", "6", *more)

    def test_each_answer_is_that_of_its_prompt_alone(self):
        file = ("-f", write("t.txt", TEXT))
        for more in ((), file):
            with self.subTest(more=more):
                want = [self.json(*self.command("-p", p, *more)) for p in PROMPTS]
                done = run(*self.command("--prompts", self.list(), *more, "--json"))
                self.assertEqual(done.returncode, 0, done.stderr.decode())
                have = [json.loads(line) for line in done.stdout.splitlines()]
                self.assertEqual([h["prompt"] for h in have], [1, 2, 3, 4, 5])
                for h, w in zip(have, want):
                    for key in ("tokens", "gaps", "text", "prompt_tokens", "events"):
                        self.assertEqual(h[key], w[key])
                    self.assertEqual(h["rank"], 0)
        done = run(*self.command("--prompts", self.list()))
        texts = [run(*self.command("-p", p)).stdout for p in PROMPTS]  # random words of a random model: any bytes
        self.assertEqual(done.stdout, b"".join(b"== %d of 5\n%b" % (i + 1, t) for i, t in enumerate(texts)))
        self.assertRegex(done.stderr.decode(), r"\Aanswered: 5 of 5 prompts in .* s\n\Z")

    def test_a_list_from_stdin_is_the_same(self):
        done = run(*self.command("--prompts", "-", "--json"), stdin="Who was Noah?\n")
        self.assertEqual(json.loads(done.stdout)["tokens"], self.json(*self.command("-p", PROMPTS[0]))["tokens"])

    def test_what_cannot_be_is_refused(self):
        some = ("--prompts", self.list())
        self.refused(2, r"option '--prompts': not together with -p", *self.command("-p", "a", *some))
        self.refused(2, r"option '-f -': the text is read again", *self.command("-f", "-", *some))
        self.refused(2, r"--prompts '.*bad': line 2 begins with {",
                     *self.command("--prompts", write("bad", "a\n{b\n")))
        self.refused(1, r"file '/nothere'", *self.command("--prompts", "/nothere"))
        self.refused(2, r"--ctx 40: the prompt has \d+ tokens", *self.command(*some, "--ctx", "40"))
        self.refused(2, r"job\.workers '2': this is a single process", *self.command(*some, "--workers", "2"))


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Prompts)
    sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
