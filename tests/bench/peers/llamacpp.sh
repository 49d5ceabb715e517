#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Speed beside llama.cpp: same file, same threads, interleaved runs. Sets up llama-cpp-python (built
# from source by pip, minutes) in the cache folder the first time.
#
#   tests/bench/peers/llamacpp.sh [--quarry PROGRAM] [--runs N] [--policies LIST] [CASE ...]
#
# A case is BATCHxCONTEXT or prefill; default: 1x2048 16x2048 16x8000 prefill. LIST: policies of ours
# and their options, as 'dense;a2ats+ --preset fast' (default: dense).
set -eu
cd "$(dirname "$0")/../../.."
version=0.3.36
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quarry
venv=$cache/peers/llama-cpp-python-$version
if [ ! -e "$venv/done" ]; then
    echo "setting up llama-cpp-python $version in $venv (several minutes)" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q numpy
    "$venv/bin/pip" install -q --no-binary llama-cpp-python "llama-cpp-python==$version"
    touch "$venv/done"
fi
model=$(scripts/fetch-model)
exec "$venv/bin/python" -B tests/bench/peers/llamacpp.py --model "$model" "$@"
