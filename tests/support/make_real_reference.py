#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cuts the reference values of the real model down to what tests/unit/model/test_reference.c reads.

usage: make_real_reference.py FOLDER OUT
FOLDER holds tokens{1,2}.npy, logprobs{1,2}_f32.npy and logits{1,2}_f32.npz ("first": positions 0-7,
"last": 8 rows from last_pos0): an evaluation of SmolLM2-135M-Instruct.Q4_1.gguf with its weights
dequantized to f32, KV in f32 and flash attention off.

OUT/text{1,2}.bin, little endian: u32 n, u32 rows, u32 columns; u16 ids[n]; f32 logprobs[n];
u32 positions[rows]; u32 sampled ids [columns]; f32 logits[rows][columns]. The sampled columns are
192 drawn ids and the 8 most likely of each row, so that both the bulk and the top are compared.
"""
import sys

import numpy as np

folder, out = sys.argv[1:3]
for text in "12":
    ids = np.load(f"{folder}/tokens{text}.npy")
    logprobs = np.load(f"{folder}/logprobs{text}_f32.npy")
    z = np.load(f"{folder}/logits{text}_f32.npz")
    last = int(z["last_pos0"])
    positions = np.concatenate([np.arange(8), np.arange(last, last + 8)]).astype("<u4")
    logits = np.concatenate([z["first"], z["last"]])
    drawn = np.random.default_rng(1).choice(logits.shape[1], 192, replace=False)
    top = np.argsort(-logits, axis=1)[:, :8].ravel()
    columns = np.unique(np.concatenate([drawn, top])).astype("<u4")
    with open(f"{out}/text{text}.bin", "wb") as f:
        f.write(np.array([len(ids), len(positions), len(columns)], "<u4").tobytes())
        f.write(ids.astype("<u2").tobytes())
        f.write(logprobs.astype("<f4").tobytes())
        f.write(positions.tobytes() + columns.tobytes())
        f.write(logits[:, columns].astype("<f4").tobytes())
