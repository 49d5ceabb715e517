#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Quality of the policies on real text, beside `exact` at 3 % on the same positions.

Makes four texts (the Gospel of Matthew, a Python source, two licences, a Perl source; none of them
in the calibration text of configs/codebooks), runs `quarry eval` on
each at several lengths, and prints one row per policy: KL against dense as a ratio to the
yardstick's, per text and averaged, top-1 agreement, and the share of rows attended.

  tests/bench/quality.py [--quarry PROGRAM] [--out DIR] [--ctx 4096,7680] [--count 256]
                         [--texts matthew,python,licences,perl] [--kind ppl|needle|aggregate|turns]
                         [--policies LIST|ablation] [--yardstick RUN]

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
# The stages of a2ats+, one thing changed at a time: first line the fixed budget of `fast`, codes alone.
ABLATION = ",".join("a2ats+@" + run for run in [
    "0.03/retrieval.rerank=off",
    "0.03/retrieval.rerank=keys", "0.03/retrieval.rerank=exact",
    "0.03/retrieval.rerank=keys/retrieval.overfetch=1.5",
    "0.03/retrieval.rerank=keys/retrieval.overfetch=4",
    "0.03/retrieval.first_stage=keys", "0.03/retrieval.first_stage=exact",
    "0.03/retrieval.first_stage=bands/retrieval.rerank=off",
    "0.03/retrieval.first_stage=bands/retrieval.rerank=keys",
    "0.03/retrieval.first_stage=wrope/retrieval.rerank=off",
    "0.03/retrieval.rerank=off/retrieval.pooling=max",
    "0.03/retrieval.rerank=off/retrieval.pooling=union",
    "0.03/retrieval.rerank=off/retrieval.dense_layers=2",
    "0.03/retrieval.rerank=off/cache.window=192", "0.03/retrieval.rerank=off/cache.sinks=0",
    "p0.94:0.10", "p0.94:0.05"])
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
    """Accuracy of the answers' tokens by task, over all texts and lengths, and as a share of dense's."""
    places = list(results)
    labels = [run["label"] for run in results[places[0]]]
    tasks = list(results[places[0]][0]["tasks"])
    width = max(map(len, labels)) + 1
    print(f"{'token accuracy':{width}}", *(f"{t[:14]:>14}" for t in tasks), f"{'attended':>9}")

    def total(i, task, key):
        """Of run i, over the answers of all places, weighed by their tokens."""
        parts = [results[p][i]["tasks"][task] for p in places]
        return sum(x[key] * x["tokens"] for x in parts) / max(sum(x["tokens"] for x in parts), 1)

    dense = {t: total(0, t, "dense_accuracy") for t in tasks}
    print(f"{'dense':{width}}", *(f"{dense[t]:14.3f}" for t in tasks), f"{100:8.2f}%")
    for i, label in enumerate(labels):
        got = {t: total(i, t, "accuracy") for t in tasks}
        shown = [f"{got[t]:.3f} {got[t] / dense[t] if dense[t] else math.nan:5.2f}x" for t in tasks]
        attended = mean([results[p][i]["attended"] for p in places])
        print(f"{label:{width}}", *(x.rjust(14) for x in shown), f"{100 * attended:8.2f}%")


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
    args.policies = ABLATION if args.policies == "ablation" else args.policies
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for ctx in map(int, args.ctx.split(",")):
        for text in args.texts.split(","):
            results[text, ctx] = evaluate(args, args.kind, text, ctx, folder)
    (report_ppl if args.kind == "ppl" else report_tasks)(results)


if __name__ == "__main__":
    main()
