#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Quality of the policies on real text, beside `exact` at 3 % on the same positions.

Makes four texts (the Gospel of Matthew, a Python source, two licences, a Perl source; none of them
in the calibration text of configs/codebooks), runs `quarry eval` on
each at several lengths, and prints one row per policy: KL against dense as a ratio to the
yardstick's, per text and averaged, top-1 agreement, and the share of rows attended.

  tests/bench/quality.py [--quarry PROGRAM] [--out DIR] [--ctx 4096,7680] [--count 256]
                         [--texts matthew,python,licences,perl] [--kind ppl|needle|aggregate|turns]
                         [--policies LIST] [--yardstick RUN]

Results are kept in DIR as JSON, one file per (kind, text, length): what is there is not run again.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys

YARDSTICK = "exact@0.03/cache.window=64"
POLICIES = ",".join([
    "a2ats+/preset=faithful", "a2ats+/preset=fast", "a2ats@0.03", "a2ats@0.015", "quest@0.03",
    "pq@0.03", "clusters@0.03", "window@0.03/cache.window=192"])
LICENCES = pathlib.Path("/usr/share/common-licenses")
PERL = "/usr/share/perl/5.36.0/perl5db.pl"


def kjv(book, last):
    """A book of the King James Bible, without verse numbers, a paragraph per chapter."""
    lines = subprocess.run(["bible", "-f", f"{book}1:1-{last}"], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, check=True).stdout.splitlines()
    text, chapter = [], None
    for line in lines:
        place, _, words = line.partition(" ")
        at = place.split(":")[0]
        if chapter not in (None, at):
            text.append("\n\n")
        elif chapter is not None:
            text.append(" ")
        text.append(words.strip())
        chapter = at
    return "".join(text) + "\n"


def licences():
    return "\n\n".join((LICENCES / name).read_text() for name in ("GPL-3", "GFDL-1.3"))


TEXTS = {
    "matthew": lambda: kjv("mat", "28:20"),
    "python": lambda: pathlib.Path(argparse.__file__).read_text(),
    "licences": licences,
    "perl": lambda: pathlib.Path(PERL).read_text(errors="replace"),
}


def make_text(name, folder):
    path = folder / f"{name}.txt"
    if not path.exists():
        path.write_text(TEXTS[name]())
    return path


def evaluate(args, kind, text, ctx, folder):
    out = folder / f"{kind}-{text}-{ctx}.json"
    if not out.exists():
        command = [args.quarry, "eval", kind, "-f", str(make_text(text, folder)), "--ctx", str(ctx),
                   "--count", str(args.count), "--policies", f"{args.yardstick},{args.policies}",
                   "--json", *args.more]
        print("running", " ".join(command), file=sys.stderr)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        out.write_bytes(done.stdout)
    result = json.loads(out.read_text())
    return result.get("runs", [result])


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else math.nan


def report_ppl(results):
    """results: {(text, ctx): [run]}; run 0 is the yardstick."""
    places = list(results)
    labels = [run["label"] for run in results[places[0]]]
    width = max(map(len, labels)) + 1
    print(f"{'KL / yardstick':{width}}", *(f"{t[:8]}-{n}"[:14].rjust(14) for t, n in places),
          f"{'mean':>6} {'worst':>6} {'top-1':>6} {'attended':>8} {'sparse':>7}")
    for i, label in enumerate(labels):
        runs = [results[p][i] for p in places]
        ratios = [r["kl"] / results[p][0]["kl"] for r, p in zip(runs, places)]
        shown = [f"{r['kl']:.4f} {x:5.2f}x" for r, x in zip(runs, ratios)]
        print(f"{label:{width}}", *(s.rjust(14) for s in shown),
              f"{mean(ratios):6.2f} {max(ratios):6.2f} {100 * mean([r['top1'] for r in runs]):6.1f} "
              f"{100 * mean([r['attended'] for r in runs]):7.2f}% "
              f"{100 * mean([r.get('attended_sparse') for r in runs]):6.2f}%")


def report_tasks(results):
    places = list(results)
    labels = [run["label"] for run in results[places[0]]]
    width = max(map(len, labels)) + 1
    print(f"{'token accuracy':{width}}", *(f"{t[:8]}-{n}".rjust(14) for t, n in places),
          f"{'mean':>6} {'/dense':>6} {'attended':>8}")
    dense = mean([results[p][0]["dense_accuracy"] for p in places])
    print(f"{'dense':{width}}", *(f"{results[p][0]['dense_accuracy']:14.3f}" for p in places),
          f"{dense:6.3f} {1:6.2f} {100:7.2f}%")
    for i, label in enumerate(labels):
        runs = [results[p][i] for p in places]
        got = mean([r["accuracy"] for r in runs])
        print(f"{label:{width}}", *(f"{r['accuracy']:14.3f}" for r in runs),
              f"{got:6.3f} {got / dense if dense else math.nan:6.2f} "
              f"{100 * mean([r['attended'] for r in runs]):7.2f}%")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quarry", default="build/release/quarry")
    parser.add_argument("--out", default="build/quality")
    parser.add_argument("--ctx", default="4096,7680")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--texts", default=",".join(TEXTS))
    parser.add_argument("--kind", default="ppl")
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--yardstick", default=YARDSTICK)
    args, args.more = parser.parse_known_args()
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for ctx in map(int, args.ctx.split(",")):
        for text in args.texts.split(","):
            results[text, ctx] = evaluate(args, args.kind, text, ctx, folder)
    (report_ppl if args.kind == "ppl" else report_tasks)(results)


if __name__ == "__main__":
    main()
