#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same device memory, dense against offloaded, growing batch, until each can go no further. The
# device is this machine opened as a discrete one: memory of its own in name, bounded, every copy real.
#
#   examples/offload_batch/run.sh [-f TEXT] [--holds 4] [--context 8000] [--out build/offload_batch] [...]
#
# Prints a table and writes throughput over batch as a picture. Other options: batches.py --help.
set -eu
file=
case ${1:-} in
-f) file=$(realpath "$2"); shift 2 ;;
esac
cd "$(dirname "$0")/../.."
if [ ! -x build/release/quarry ]; then
    echo "offload_batch: build/release/quarry is missing; run: scripts/demo" >&2
    exit 1
fi
if [ -z "$file" ]; then
    if ! command -v bible >/dev/null; then
        echo "offload_batch: the default text needs the package bible-kjv; give another: run.sh -f TEXT" >&2
        exit 1
    fi
    file=build/offload_batch.txt
    bible -f gen1:1-50:26 </dev/null | cut -d' ' -f2- >"$file"
fi
exec python3 -B examples/offload_batch/batches.py --model "$(scripts/fetch-model)" -f "$file" "$@"
