#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The short form of tests/bench/same_answer.py, with the codebooks that it needs made first.

usage: same_answer.py QUARRY MAKE_GGUF SAME_ANSWER
"""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES = ["In the beginning there was a text, and it's 42 lines long.", "Who copies a row copies its key and value?",
         "A block is full: it goes home; 128 tokens leave the device.", "Nothing is lost, nothing is said twice."]


def main():
    quarry, make_gguf, driver = sys.argv[1:4]
    env = {k: v for k, v in os.environ.items() if not k.startswith("QY_")}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([make_gguf, folder, "llama_f32"], check=True)
        text = pathlib.Path(folder, "text.txt")
        text.write_text(" ".join(f"{LINES[i * 7 % 4]} {i * i}" for i in range(90)))
        env["XDG_CACHE_HOME"] = folder
        model = folder + "/llama_f32.gguf"
        for policy in (("a2ats", "--words", "64"), ("a2ats+",)):  # without FAISS these are left out
            subprocess.run([quarry, "calibrate", "-m", model, "-t", str(text), "--tokens", "600", "--policy",
                            *policy], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        command = [sys.executable, "-B", str(ROOT / "tests/bench/same_answer.py"), "--quarry", quarry, "--driver",
                   driver, "-m", model, "-f", str(text), "--prompts", "2", "--tokens", "200", "--steps", "12",
                   "--short"]
        return subprocess.run(command, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
