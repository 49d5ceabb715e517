#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A context whose KV is several times what the worker has: one worker with 64 MB for KV and two memory ranks, in one
# job under mpirun, answer a question about a long text. The same in a single process is the measure.
#
#   examples/remote_memory/run.sh [-f TEXT] [-p QUESTION] [--tokens 7600] [--kill] [...]
#
# Prints the answer, where its bytes live and what moved. With --kill one memory server is killed in the middle of
# the answer. Exit code 0: both answers are the same. Other options: remote.py --help.
set -eu
file=
case ${1:-} in
-f) file=$(realpath "$2"); shift 2 ;;
esac
cd "$(dirname "$0")/../.."
if [ ! -x build/release/quarry ]; then
    echo "remote_memory: build/release/quarry is missing; run: scripts/demo" >&2
    exit 1
fi
if ! command -v mpirun >/dev/null; then
    echo "remote_memory: mpirun is missing; run: scripts/setup net, and then scripts/demo" >&2
    exit 1
fi
if [ -z "$file" ]; then
    if ! command -v bible >/dev/null; then
        echo "remote_memory: the default text needs the package bible-kjv; give another: run.sh -f TEXT" >&2
        exit 1
    fi
    file=build/remote_memory.txt
    bible -f gen1:1-50:26 </dev/null | cut -d' ' -f2- >"$file"
fi
exec python3 -B examples/remote_memory/remote.py --model "$(scripts/fetch-model)" -f "$file" "$@"
