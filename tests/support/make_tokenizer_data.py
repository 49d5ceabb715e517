#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer: what llama.cpp does with tricky texts.

usage: make_tokenizer_data.py OUT TINY_SPM.gguf [VOCAB_FOLDER]
needs the packages gguf and llama-cpp-python.

splits.txt: "<pre-tokenizer> <word>|<word>|...": how each one cuts a text. The words come from
vocabularies made for the purpose, in which any two neighbours inside a word merge, so that each
word ends up as one token. spm.txt: "<text> <id> <id> ..." under the tiny SentencePiece vocabulary
of tests/support/make_gguf_vocab.c. Bytes other than printable ASCII, and the separators, are \\xNN.
VOCAB_FOLDER keeps the vocabularies.
"""
import os
import sys
import tempfile

from gguf import GGUFWriter
from llama_cpp import Llama

PRES = ["smollm", "gpt-2", "llama-bpe", "qwen2", "default"]
SPLIT_TEXTS = [
    "I'm you're it's we've he'll I'd can't",
    "I'M YOU'RE IT'S WE'VE HE'LL I'D CAN'T",
    "'tis 'Twas rock'n'roll O'Neil's'S",
    "’s don’t",
    "1 12 123 1234 12345 1,234.56 3rd x86",
    "²½Ⅷ٣४ 99½",
    "a  b   c    d",
    "  lead", "trail  ", "trail\n", "\n", " ", "   ", "\t", "\ta", "a\tb\t\tc",
    "a\r\nb\r\n\r\nc\rd", "x \n y\n\n  z \n", "end.\n\n\n", "end. \n \n ", "!\n\n?\n",
    "a\u00a0b\u00a0\u00a0c", "a\u3000b", "a\u2028b\u2029c", "a\u180eb", "a\u200bb", "\ufeffBOM",
    "中文字符 和 English混合", "日本語テキスト。テスト！", "한국어 문장입니다.",
    "🙂 👨‍👩‍👧 🇩🇪🇫🇷", "a🙂b 🙂🙂",
    "e\u0301te\u0301 cafe\u0301", "नमस्ते दुनिया", "שָׁלוֹם עולם", "سلام ١٢٣",
    "$5.00 + 3 = <8> ~ ^ | `x`", "a_b-c/d\\e", "...---!!!", "#define X(a) (a)*2;",
    "x=1;y= 2 ;  z", "<|im_start|>user", "https://a.b/c?d=1&e=%20", "\x01\x02\x7f", "ſK'ſ",
    "A1b2C3", "ªº \u02b0\u02b1", "𝒜𝓑 𐍈",
]
SPM_TEXTS = [
    "the end of the foo", " the end", "  the  end ", "caf\u00e9s and THE 2024 \u00e9\u00e9s", "isn't it?",
    "The sun\nand the\n\nrain\r\n\tx", "1234520", "中文 🙂", "<tool>the<tool> and", "a<tool> b", "<0x41>",
    "\u00a0x", "e\u0301", "ththethethe", "aaaaaaaaaaaaaaaa", "foofofoofo", " ", "    ", "\n",
]


def byte_chars():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


CHARS = byte_chars()


def mapped(data):
    return "".join(CHARS[b] for b in data)


def escaped(data):
    return "".join(chr(b) if 32 < b < 127 and chr(b) not in "\\|" else f"\\x{b:02x}" for b in data)


def write_vocab(path, pre, texts):
    """Every part of a text is a token; any two parts that together are a part merge."""
    tokens = dict.fromkeys(CHARS[b] for b in range(256))
    merges = {}
    for text in texts:
        data = text.encode()
        for n in range(2, 24):
            for i in range(len(data) - n + 1):
                part = data[i : i + n]
                tokens[mapped(part)] = None
                for cut in range(1, n):
                    merges[f"{mapped(part[:cut])} {mapped(part[cut:])}"] = None
    w = GGUFWriter(path, "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(list(tokens))
    w.add_token_types([1] * len(tokens))
    w.add_token_merges(list(merges))
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def open_vocab(path):
    return Llama(path, vocab_only=True, verbose=False)


def main():
    out, spm = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as scratch:
        folder = sys.argv[3] if len(sys.argv) > 3 else scratch
        with open(f"{out}/splits.txt", "w", encoding="ascii") as f:
            for pre in PRES:
                path = os.path.join(folder, f"split-{pre}.gguf")
                write_vocab(path, pre, SPLIT_TEXTS)
                llm = open_vocab(path)
                for text in SPLIT_TEXTS:
                    ids = llm.tokenize(text.encode(), add_bos=False, special=False)
                    words = [llm.detokenize([i]) for i in ids]
                    assert b"".join(words) == text.encode(), (pre, text)
                    f.write(pre + " " + "|".join(escaped(x) for x in words) + "\n")
    llm = open_vocab(spm)
    with open(f"{out}/spm.txt", "w", encoding="ascii") as f:
        for text in SPM_TEXTS:
            ids = llm.tokenize(text.encode(), add_bos=False, special=False)
            f.write(escaped(text.encode()) + " " + " ".join(map(str, ids)) + "\n")


main()
