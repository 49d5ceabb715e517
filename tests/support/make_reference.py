#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tiny/<name>.bin: what llama.cpp answers for the tiny models.

    make_reference.py MAKE_GGUF OUT_FOLDER [NAME...]

MAKE_GGUF is the built program tests/support/make_gguf. Needs the PyPI packages numpy, gguf
(0.19.0) and llama-cpp-python (0.3.36). Each model is turned into its f32 form (every tensor
dequantized by the package gguf, which is not our code) and evaluated with flash attention off and
K and V kept in f32, on one thread. The format of the result is told in tiny_reference.c.

The tests do not need this script: its output is in the repository. Run it again when the table in
tiny_models.c changes.
"""
import os
import struct
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

N_PROMPT = 24     # ids of the prompt
N_POSITIONS = 6   # the last ones, whose logits are kept


def f32_form(source, target):
    """The same file with every tensor in f32; the metadata is copied byte for byte."""
    reader = gguf.GGUFReader(source)
    with open(source, "rb") as file:
        head = file.read(reader.tensors[0].field.offset)
    table, data = b"", b""
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4").tobytes()
        name = tensor.name.encode()
        dims = [int(n) for n in tensor.shape]
        table += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(dims))
        table += struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", 0, len(data))
        data += values + bytes(-len(values) % 32)
    with open(target, "wb") as file:
        file.write(head + table + bytes(-len(head + table) % 32) + data)


def answer(path, text, chat):
    llm = llama_cpp.Llama(path, n_ctx=256, n_batch=256, n_ubatch=256, logits_all=True,
                          flash_attn=False, type_k=0, type_v=0, n_threads=1, n_threads_batch=1,
                          n_gpu_layers=0, verbose=bool(os.environ.get("VERBOSE")))
    text_ids = llm.tokenize(text, add_bos=False, special=False)
    chat_ids = llm.tokenize(chat, add_bos=True, special=True)
    ids = text_ids[:N_PROMPT]
    assert len(ids) == N_PROMPT
    llm.eval(ids)
    logits = np.array(llm.scores[N_PROMPT - N_POSITIONS:N_PROMPT], dtype="<f4")
    assert np.isfinite(logits).all()
    return text_ids, chat_ids, ids, logits


def main():
    make_gguf, out = sys.argv[1:3]
    run = lambda *args: subprocess.run([make_gguf, *args], check=True, capture_output=True).stdout
    names = sys.argv[3:] or run("--list").decode().split()
    text, chat = run("--text"), run("--chat")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            run(folder, name)
            f32_form(f"{folder}/{name}.gguf", f"{folder}/f32.gguf")
            text_ids, chat_ids, ids, logits = answer(f"{folder}/f32.gguf", text, chat)
            with open(os.path.join(out, name + ".bin"), "wb") as file:
                file.write(b"QYTR" + struct.pack("<7I", 1, len(text_ids), len(chat_ids), len(ids),
                                                 N_PROMPT - N_POSITIONS, *logits.shape))
                for part in text_ids, chat_ids, ids:
                    file.write(np.array(part, dtype="<i4").tobytes())
                file.write(logits.tobytes())
            print(f"{name}: {len(text_ids)} + {len(chat_ids)} ids, logits {logits.shape}, "
                  f"largest {np.abs(logits).max():.3f}")


if __name__ == "__main__":
    main()
