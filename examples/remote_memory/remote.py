#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A question about a long text, answered twice: by a single process that holds the whole KV cache, and by a job of
one worker with little memory for KV and two memory ranks that hold it; see run.sh.

With --kill one of the two memory servers is killed as soon as the text is read and the answer has begun. Its
supervisor starts it again, empty; what it held is computed again from the text.
"""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
# A start without warnings, also with more ranks than cores; as root Open MPI wants to be told twice.
MPIRUN = ("mpirun --oversubscribe --bind-to none --mca pml ob1 --mca btl self,vader,tcp "
          "--mca btl_vader_single_copy_mechanism none -n 3").split()
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
SERVER = b"quarry-memory-server\0"


def servers(session):
    """Memory servers of the job that leads this session."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            its = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if its == session and (folder / "cmdline").read_bytes() == SERVER:
                found.append(int(folder.name))
        except (OSError, ValueError):
            pass  # it ended meanwhile
    return sorted(found)


def kill_one(job, log):
    """Kills one server when the worker has said that it read the text."""
    while job.poll() is None and b"reading: " not in pathlib.Path(log).read_bytes():
        time.sleep(0.05)
    time.sleep(0.3)
    for pid in servers(job.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
        print(f"killed memory server {pid} in the middle of the answer")


def answer(args, launcher, *more, kill=False):
    """One run: its JSON and what it said. The whole job ends with this process."""
    command = [*launcher, args.quarry, "generate", "--json", "-m", args.model, "-f", args.file, "--prompt-tokens",
               str(args.tokens), "--chat", "-p", args.question, "-n", str(args.n), "--policy", "a2ats+", "--preset",
               "fast", "--set", f"model.chunk={args.chunk}", *more, *args.more]
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as log:
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True,
                               env={**ROOT, **os.environ})
        try:
            if kill:
                kill_one(job, log.name)
            code = job.wait()
        except BaseException:
            job.terminate()  # mpirun takes its ranks along
            job.wait()
            raise
        said = pathlib.Path(log.name).read_text(errors="replace")
        if code != 0:
            sys.exit(f"remote_memory: {' '.join(command)}: exit {code}\n{said}")
        return json.loads(pathlib.Path(out.name).read_text()), said


def size(n):
    return f"{n / MIB:.1f} MiB"


def table(alone, job):
    both = (alone, job)
    rows = [("KV on the worker: host", *(size(r["kv_bytes"]["host"]) for r in both)),
            ("KV on the worker: device", *(size(r["kv_bytes"]["device"]) for r in both)),
            ("index, on the worker", *(size(r["kv_bytes"]["index"]) for r in both)),
            ("KV on memory ranks", *(size(r["kv_bytes"]["remote"]) for r in both)),
            ("over the network since it was read", *(size(r["bytes"]["net"]) for r in both)),
            ("rows found on the device", *("-" if r["hit_rate"] is None else f"{100 * r['hit_rate']:.1f} %"
                                           for r in both)),
            ("prefill tokens/s", *(f"{r['prefill_tps']:.0f}" for r in both)),
            ("decode tokens/s", *(f"{r['decode_tps']:.1f}" for r in both))]
    print(f"\n{'':36} {'single process':>16} {'1 + 2 ranks':>16}")
    for row in rows:
        print("{:36} {:>16} {:>16}".format(*row))
    for s in job["servers"]:
        print(f"{s['name']}: {s['state']}, holds {s['blocks']} blocks, {size(s['bytes'])}; in all "
              f"{size(s['sent_bytes'])} went there and {size(s['received_bytes'])} came from it, in "
              f"{s['questions']} questions")


def compare(alone, job):
    a, b = alone["tokens"], job["tokens"]
    if a == b:
        print(f"the answers are the same, {len(a)} tokens")
        return 0
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    gap = alone["gaps"][at] if at < len(alone["gaps"]) else 0.0
    print(f"the answers part at token {at} (gap between the first and second choice there: {gap:.2f})")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("--model", required=True)
    parser.add_argument("-f", "--file", required=True)
    parser.add_argument("-p", "--question", default="Who was Noah and what did he do?")
    parser.add_argument("--tokens", type=int, default=7600, help="of the text")
    parser.add_argument("-n", type=int, default=48, help="tokens of the answer")
    parser.add_argument("--chunk", type=int, default=256, help="tokens of one prefill step")
    parser.add_argument("--device-bytes", type=int, default=44 * MIB, help="of the worker, for KV and index")
    parser.add_argument("--host-bytes", type=int, default=20 * MIB, help="of the worker, for KV")
    parser.add_argument("--net-bytes", type=int, default=512 * MIB, help="of each memory rank")
    parser.add_argument("--kill", action="store_true", help="one server dies")
    args, args.more = parser.parse_known_args()

    print(f"single process: the whole KV of {args.tokens} tokens and more on the host", flush=True)
    alone, _ = answer(args, [])
    own = args.device_bytes + args.host_bytes
    print(f"one worker with {size(own)} for KV, two memory ranks with {size(args.net_bytes)} each", flush=True)
    job, said = answer(args, MPIRUN, "--config", "configs/three_ranks.conf", "--set", f"net.bytes={args.net_bytes}",
                       "--device", f"host-discrete:{args.device_bytes}", "--set",
                       f"cache.host_bytes={args.host_bytes}", kill=args.kill)
    print("\n".join(line for line in said.splitlines() if ": warn: " in line))
    for event in job["events"]:
        print("event:", json.dumps(event))
    print(f"\n{job['text'].strip()}")
    table(alone, job)
    kv = alone["kv_bytes"]["host"]
    print(f"the KV of this context takes {size(kv)}, {kv / own:.1f} times what the worker has for it")
    return compare(alone, job)


if __name__ == "__main__":
    sys.exit(main())
