#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/quant_blocks.bin: random blocks of every tensor type and their values by the
numpy dequantization of the package `gguf` (an implementation that shares nothing with ours).

usage: make_quant_blocks.py OUT     (needs: pip install gguf numpy)

The file is a sequence of records, little endian:
    u32 type, u32 n_elems, u32 n_bytes, blocks [n_bytes], values f32 [n_elems]
Blocks are random bytes; the scales are made finite, some of them negative, subnormal or zero.
"""
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

N_ELEMS = 1024
# Byte offsets of the halves that scale a block.
SCALES = {
    T.F32: [], T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}


def halves(rng, n):
    """n finite halves: mostly of the size that weights have, some extreme."""
    out = (rng.standard_normal(n) * 0.02).astype(np.float16)
    pick = rng.integers(0, 16, n)
    out = np.where(pick == 0, np.float16(0), out)
    out = np.where(pick == 1, np.float16(6e-8) * rng.integers(1, 1000, n), out)  # subnormal
    out = np.where(pick == 2, (rng.standard_normal(n) * 3000), out)
    return out.astype(np.float16)


def blocks_of(rng, kind):
    elems, size = GGML_QUANT_SIZES[kind]
    n = N_ELEMS // elems
    if kind == T.F32:
        return rng.standard_normal(n).astype(np.float32).view(np.uint8)
    if kind == T.BF16:
        bits = rng.standard_normal(n).astype(np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16).view(np.uint8)
    data = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES[kind]:
        data[:, at:at + 2] = halves(rng, n).view(np.uint8).reshape(n, 2)
    return data.reshape(-1)


def main():
    rng = np.random.default_rng(20240501)
    with open(sys.argv[1], "wb") as out:
        for kind in SCALES:
            data = blocks_of(rng, kind)
            values = dequantize(data, kind).astype(np.float32).reshape(-1)
            assert values.size == N_ELEMS and np.isfinite(values).all(), kind
            out.write(struct.pack("<III", int(kind), values.size, data.size))
            out.write(data.tobytes())
            out.write(values.tobytes())


main()
