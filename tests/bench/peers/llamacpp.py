#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Decode and prefill rates of quarry and llama.cpp, interleaved; see llamacpp.sh.

llama.cpp: f16 KV, a real copy of the KV for each sequence (kv_unified off), one new token per sequence
and step, no sampling, flash attention off and on: the better one counts. Where its AMX kernels die
with SIGILL (gcc 12 drops the stores into the tile configuration), they are switched off
(use_extra_bufts = false); that is said.
"""
import argparse
import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import llama_cpp
import numpy as np

STEPS = 6


class Peer:
    """One context of llama.cpp with `batch` sequences of `context` tokens."""

    def __init__(self, args, batch, context, flash, extra):
        quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        self.quiet = quiet(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, None)
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = extra
        self.model = llama_cpp.llama_model_load_from_file(args.model.encode(), params)
        c = llama_cpp.llama_context_default_params()
        c.n_ctx = batch * ((context + 128 + 255) // 256 * 256)
        c.n_batch = c.n_ubatch = 512
        c.n_seq_max = batch
        c.kv_unified = False
        c.n_threads = c.n_threads_batch = args.threads
        c.flash_attn_type = 1 if flash else 0
        self.ctx = llama_cpp.llama_init_from_model(self.model, c)
        self.batch, self.context, self.at = batch, context, context
        self.tokens = llama_cpp.llama_batch_init(512, 0, 1)
        started = time.perf_counter()
        for first in range(0, context, 512):
            n = min(512, context - first)
            for i in range(n):
                self.put(i, args.ids[first + i], first + i, 0, False)
            self.run(n)
        self.prefill = context / (time.perf_counter() - started)
        memory = llama_cpp.llama_get_memory(self.ctx)
        for s in range(1, batch):
            llama_cpp.llama_memory_seq_cp(memory, 0, s, -1, -1)
        self.steps(2)

    def put(self, i, token, position, sequence, logits):
        t = self.tokens
        t.token[i], t.pos[i], t.n_seq_id[i] = int(token), position, 1
        t.seq_id[i][0], t.logits[i] = sequence, logits

    def run(self, n):
        self.tokens.n_tokens = n
        if llama_cpp.llama_decode(self.ctx, self.tokens) != 0:
            raise RuntimeError("llama_decode failed")

    def steps(self, n):
        """Median tokens per second of n steps."""
        times = []
        for _ in range(n):
            for s in range(self.batch):
                self.put(s, 100 + s + self.at, self.at, s, True)
            started = time.perf_counter()
            self.run(self.batch)
            llama_cpp.llama_synchronize(self.ctx)
            times.append(time.perf_counter() - started)
            self.at += 1
        return self.batch / statistics.median(times)

    def close(self):
        llama_cpp.llama_batch_free(self.tokens)
        llama_cpp.llama_free(self.ctx)
        llama_cpp.llama_model_free(self.model)


def amx_dies(args):
    """A 512-token prompt in a child: does the build's AMX path end it with SIGILL?"""
    code = subprocess.run([sys.executable, __file__, "--probe", "--model", args.model],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    return code == -signal.SIGILL


def quarry(args, *more):
    out = subprocess.run([args.quarry, "bench", "decode", "-m", args.model, "--threads",
                          str(args.threads), "--json", *map(str, more)],
                         check=True, stdout=subprocess.PIPE)
    return json.loads(out.stdout)


def compare(args, name, batch, context):
    """Interleaved runs; prints the medians and the median of the ratios, a line per policy."""
    best = None
    for flash in (False, True):
        peer = Peer(args, batch, context, flash, args.extra)
        theirs, ours = [], {policy: [] for policy in args.policies.split(";")}
        for _ in range(args.runs):
            theirs.append(peer.steps(STEPS))
            for policy, rates in ours.items():
                rates.append(quarry(args, "--batch", batch, "--context", context, "--steps", STEPS,
                                    "--policy", *policy.split())["tokens_per_s"])
        peer.close()
        if best is None or statistics.median(theirs) > statistics.median(best[0]):
            best = (theirs, ours, flash)
        if flash is False and batch > 1:
            print(f"  {name}: flash attention off {statistics.median(theirs):.1f} tokens/s", flush=True)
    theirs, ours, flash = best
    for policy, rates in ours.items():
        ratio = statistics.median(a / b for a, b in zip(rates, theirs))
        print(f"{name:10} quarry {policy} {statistics.median(rates):8.1f} tokens/s   llama.cpp "
              f"{statistics.median(theirs):8.1f} (flash attention {'on' if flash else 'off'}"
              f"{'' if args.extra else ', AMX kernels off'})   ratio {ratio:.2f}"
              f"   median of {args.runs} interleaved runs", flush=True)


def prefill_rate(args, flash):
    peer = Peer(args, 1, 2048, flash, args.extra)
    rate = peer.prefill
    peer.close()
    return rate


def compare_prefill(args):
    ours = []
    theirs = {False: [], True: []}
    text = tempfile.NamedTemporaryFile("w", suffix=".txt")
    text.write("A text of which only the length counts, for the time does not depend on words. " * 200)
    text.flush()
    for _ in range(args.runs):
        for flash in theirs:
            theirs[flash].append(prefill_rate(args, flash))
        ours.append(quarry(args, "-f", text.name, "--batch", 1, "--context", 2048, "--steps", 1)
                    ["prefill_tps"])
    flash = max(theirs, key=lambda f: statistics.median(theirs[f]))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs[flash]))
    print(f"{'prefill':10} quarry {statistics.median(ours):8.1f} tokens/s   llama.cpp "
          f"{statistics.median(theirs[flash]):8.1f} (flash attention {'on' if flash else 'off'}"
          f"{'' if args.extra else ', AMX kernels off'})   ratio {ratio:.2f}   2,048 tokens, median of "
          f"{args.runs} interleaved runs", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--policies", default="dense",
                        help="policies of ours and their options: 'dense;a2ats+ --preset fast'")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("cases", nargs="*", default=["1x2048", "16x2048", "16x8000", "prefill"])
    args = parser.parse_args()
    args.ids = np.random.default_rng(1).integers(100, 40000, 100000)
    if args.probe:
        Peer(args, 1, 1024, False, True).close()
        return
    args.extra = not amx_dies(args)
    if not args.extra:
        print("llama.cpp's AMX kernels end with SIGILL in this build: measured without them. With the\n"
              "compiler barrier that cures it, a Sapphire Rapids with 2 threads gave 437 tokens/s of\n"
              "prefill and, at batch 16, 86.8 and 31.5 tokens/s at contexts of 2,048 and 8,000.")
    for case in args.cases:
        if case == "prefill":
            compare_prefill(args)
            continue
        batch, context = map(int, case.split("x"))
        compare(args, case, batch, context)


main()
