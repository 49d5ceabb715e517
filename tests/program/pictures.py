#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Traces, reports and pictures: what they hold, not how long anything took.

usage: pictures.py QUARRY MAKE_GGUF
"""
import collections
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
import xml.etree.ElementTree

from program import ENV, FOLDER, TEXT, Case, tiny, write

PLOT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "plot"
BENCH = ("bench", "decode", "-m", tiny(), "-f", write("t.txt", TEXT), "--batch", "4", "--context", "300",
         "--steps", "4", "--warm-up", "1", "--policy", "exact", "--budget", "24", "--device",
         "host-discrete:16M", "--link-gbps", "0.01", "--set", "retrieval.min_tokens=0", "--set",
         "cache.sinks=4", "--set", "cache.window=16", "--set", "cache.block_tokens=32", "--set",
         "model.chunk=64", "--set", "step.micro_batches=2")


def plot(*args):
    return subprocess.run([PLOT, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Page(html.parser.HTMLParser):
    """What a page asks for from elsewhere, and whether its tags are closed."""
    def __init__(self):
        super().__init__()
        self.open, self.asked, self.svgs = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        self.asked += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


class Pictures(Case):
    def trace(self, *more):
        path = f"{FOLDER.name}/trace.json"
        out = self.json(*BENCH, *more, "--trace", path)
        lanes, names = collections.defaultdict(list), {}
        for e in json.loads(pathlib.Path(path).read_text())["traceEvents"]:
            if e["ph"] == "M":
                if e["name"].endswith("_name"):
                    key = e["pid"] if e["name"] == "process_name" else (e["pid"], e["tid"])
                    names[key] = e["args"]["name"]
                continue
            self.assertEqual(e["ph"], "X")
            begin = round(e["ts"] * 1000)
            lanes[names[e["pid"]], names[e["pid"], e["tid"]]].append(
                (begin, begin + round(e["dur"] * 1000), e["name"], e["args"]))
        return out, lanes

    def test_a_trace_has_lanes_that_viewers_can_nest(self):
        _, lanes = self.trace("--set", "plan.mode=auto")
        self.assertLessEqual({("steps", "steps"), ("threads", "thread 0"), ("micro-batches", "micro-batch 0"),
                              ("micro-batches", "micro-batch 1"), ("streams", "to device"),
                              ("streams", "to host"), ("links", "to device")}, set(lanes))
        for lane, spans in lanes.items():
            ends = []
            self.assertEqual([s[0] for s in spans], sorted(s[0] for s in spans), lane)
            for begin, end, name, _ in spans:
                while ends and ends[-1] <= begin:
                    ends.pop()
                self.assertTrue(not ends or end <= ends[-1], f"{lane}: {name} leaves what it is in")
                ends.append(end)
        for i in (0, 1):
            spans = lanes["micro-batches", f"micro-batch {i}"]
            self.assertLessEqual({"append", "select", "fetch", "push", "wait", "attend", "plan"},
                                 {s[2] for s in spans})
            self.assertTrue(all("layer" in s[3] for s in spans))
        plans = [s[3] for s in lanes["micro-batches", "micro-batch 0"] if s[2] == "plan"]
        for key in ("items", "rows_missed", "row_bytes", "n_pull", "n_push", "pull_ns", "push_ns", "reuse"):
            self.assertTrue(all(isinstance(p[key], (int, float)) for p in plans), key)
        self.assertTrue(any(p["rows_missed"] > 0 and p["n_pull"] + p["n_push"] > 0 for p in plans))
        for begin, end, name, args in lanes["links", "to device"]:
            self.assertGreaterEqual(end - begin, args["bytes"] * 100 - 1)  # ns, at 0.01 GB/s

    def test_rows_move_while_another_micro_batch_computes(self):
        _, lanes = self.trace("--set", "plan.mode=pull")
        steps = [s for s in lanes["steps", "steps"] if s[3]["micro_batches"] == 2]
        self.assertGreaterEqual(len(steps), 4)
        moves = [s for s in lanes["streams", "to device"] if s[2] == "gather" and s[3]["rows"] > 0
                 and any(b <= s[0] and s[1] <= e for b, e, _, _ in steps)]
        computes = [s for s in lanes["threads", "thread 0"] if s[2] in ("qkv", "mlp", "project", "select")]
        hidden = [m for m in moves if any(c[0] < m[1] and c[1] > m[0] for c in computes)]
        self.assertGreater(len(hidden), 0)
        plans = [s[3] for s in lanes["micro-batches", "micro-batch 1"] if s[2] == "plan"]
        self.assertTrue(plans and all(p["pull_ns"] is None and p["n_push"] == 0 for p in plans))

    def test_results_tell_plans_layers_and_steps(self):
        for mode in ("auto", "pull", "push"):
            out = self.json(*BENCH, "--set", "plan.mode=" + mode)
            plan = out["plan"]
            self.assertEqual(plan["mode"], mode)
            self.assertEqual((plan["rows_pulled"], plan["rows_pushed"]), (out["rows_pulled"], out["rows_pushed"]))
            self.assertGreater(plan["items_pulled"] + plan["items_pushed"], 0)
            for key in ("link_byte_ns", "link_copy_ns", "link_row_ns", "push_ns", "push_row_ns", "pull_row_ns",
                        "reuse", "pulls_estimated_ns", "pushes_estimated_ns"):
                self.assertEqual(plan[key] is None, mode != "auto", key)
            for key in ("rows_pulled", "rows_pushed"):
                self.assertEqual(sum(row[key] for row in out["layers"]), out[key])
            asked, found = (sum(row[key] for row in out["layers"]) for key in ("rows_asked", "rows_found"))
            self.assertAlmostEqual(found / asked, out["hit_rate"])
            self.assertEqual(len(out["steps"]), 4)
            for key in ("h2d", "d2h"):
                self.assertEqual(sum(row[key] for row in out["steps"]), out["bytes"][key])
            self.assertTrue(all(row["ms"] > 0 and 0 <= row["hit_rate"] <= 1 for row in out["steps"]))
        out = self.json("bench", "decode", "-m", tiny(), "--context", "64", "--steps", "2")
        self.assertEqual((out["plan"], out["layers"]), (None, []))
        self.assertEqual([row["hit_rate"] for row in out["steps"]], [None, None])
        out = self.json("generate", "-m", tiny(), "-f", write("t.txt", TEXT), "-n", "4", "--policy", "exact",
                        "--budget", "24", "--device", "host-discrete:16M", *BENCH[BENCH.index("--set"):],
                        "--set", "plan.mode=auto")
        self.assertEqual(out["plan"]["mode"], "auto")
        self.assertGreater(len(out["layers"]), 0)

    @unittest.skipIf(shutil.which("gnuplot") is None, "no gnuplot")
    def test_a_report_is_whole(self):
        folder = pathlib.Path(FOLDER.name) / "report"
        for batch in ("2", "4"):
            out = self.json(*BENCH, "--batch", batch, "--report", str(folder))
        self.assertEqual({p.name for p in folder.iterdir()},
                         {"bench.json", "trace.json", "step.svg", "steps.svg", "batches.svg", "index.html",
                          "batch-2-exact.json", "batch-4-exact.json"})
        self.assertEqual(json.loads((folder / "bench.json").read_text()), out)
        for name in ("step", "steps", "batches"):
            root = xml.etree.ElementTree.parse(folder / f"{name}.svg").getroot()
            self.assertTrue(root.tag.endswith("svg"))
        text = (folder / "index.html").read_text()
        page = Page()
        page.feed(text)
        self.assertEqual((page.open, page.asked, page.svgs), ([], [], 3))
        cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", text))
        wanted = [out["tokens_per_s"], out["step_ms"], out["hit_rate"], out["bytes"]["h2d"],
                  *(ms for stage, ms in out["stages_ms"].items() if stage != "kv"),
                  *(row["rows_asked"] for row in out["layers"])]
        shown = {float(c) for c in cells if re.fullmatch(r"[-+.e0-9]+", c)}
        for value in wanted:
            self.assertIn(value, shown)

    def test_a_report_is_refused_before_the_run(self):
        path = str(pathlib.Path(FOLDER.name) / "none")
        tools = pathlib.Path(FOLDER.name) / "tools"
        tools.mkdir()
        (tools / "python3").symlink_to(sys.executable)
        self.refused(2, r"'--report': .*gnuplot: not there; install gnuplot", *BENCH, "--report", path,
                     env={"PATH": str(tools)})
        self.refused(2, r"'--report': not with --shape", "bench", "decode", "--shape", "llama3-8b", "--report",
                     path)
        self.refused(2, r"'--report': bench decode has one", "bench", "link", "--report", path)
        self.refused(2, r"'--report': folder '/no/such/place' cannot be made", *BENCH, "--report",
                     "/no/such/place")

    def test_plot_draws_tables_and_refuses_what_it_cannot(self):
        result = write("run.json", json.dumps(self.json(*BENCH, "--trace", f"{FOLDER.name}/plot.json")))
        out = f"{FOLDER.name}/out.dat"
        for more, first, n in (((f"{FOLDER.name}/plot.json",), "# begin_ms end_ms lane stage layer", 20),
                               ((result,), "# step hit_rate_percent", 5),
                               (("--kind", "batches", result), "# exact: batch tokens_per_s", 2)):
            done = plot("-o", out, *more)
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = pathlib.Path(out).read_text().splitlines()
            self.assertTrue(lines[0].startswith(first), lines[0])
            self.assertGreaterEqual(len(lines), n)
        for pattern, more in ((r"no such|No such", ("nothing.json",)),
                              (r"'--step': '99' refused; 1 to ", ("--step", "99", f"{FOLDER.name}/plot.json")),
                              (r"no trace; give what", ("--kind", "timeline", result)),
                              (r"one is accepted", ("--kind", "steps", result, result)),
                              (r"no 'steps' in it", ("--kind", "steps", write("x.json", "{}"))),
                              (r"none has 'batch'", ("--kind", "batches", write("x.json", "{}"))),
                              (r"no JSON object", (write("y.json", "[]"),))):
            done = plot("-o", out, *more)
            self.assertNotEqual(done.returncode, 0)
            self.assertRegex(done.stderr, pattern)
            self.assertEqual(len(done.stderr.splitlines()), 1)


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Pictures)
    sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
