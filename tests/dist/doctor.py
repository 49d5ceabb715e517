#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quarry doctor under mpirun: every rank reaches every other, or the pair is named; what differs is told.

usage: doctor.py QUARRY
"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

import dist

QUARRY = sys.argv[1]
ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = f"d{os.getpid()}"
CLUSTER = [str(ROOT / "scripts/netns-cluster"), "--name", NAME]
QUICK = ("--set", "retrieval.min_tokens=0", "--set", "net.timeout_ms=500")
PAIRS = {(a, b) for a in range(3) for b in range(3) if a != b}


def only_on(rank, *words):
    """doctor with more words on one rank."""
    return ("sh", "-c", 'test "$OMPI_COMM_WORLD_RANK" != %d || set -- "$@" %s; exec %s doctor "$@"' % (
        rank, " ".join(words), QUARRY), "doctor", *QUICK)


class Doctor(dist.Case):
    def report(self, done, code):
        self.assertEqual(done.code, code, str(done))
        out = json.loads(done.stdout)
        self.assertEqual([r["rank"] for r in out["ranks"]], [0, 1, 2])
        links = {(x["from"], x["to"]): x for x in out["links"]}
        self.assertEqual(set(links), PAIRS)
        for link in links.values():
            if link["reachable"]:
                self.assertGreater(link["round_trip_us"], 0)
                self.assertGreater(link["gbps"], 0)
        return out, {pair for pair, link in links.items() if not link["reachable"]}, "\n".join(out["warnings"])

    def test_every_pair_is_measured(self):
        done = dist.mpirun(3, QUARRY, "doctor", "--json", *QUICK)
        out, unreached, _ = self.report(done, 0)
        self.assertEqual((unreached, done.stderr), (set(), ""))
        for rank in out["ranks"]:
            self.assertRegex(rank["address"], r"\A127\.0\.0\.1:[0-9]+\Z")
            self.assertEqual((rank["same_program"], rank["same_settings"], rank["error"]), (True, True, ""))
            self.assertGreater(rank["usable_bytes"], 0)
        done = dist.mpirun(2, QUARRY, "doctor", *QUICK)
        self.assertRegex(done.stdout, r"(?m)^ranks +2 on 1 host, 2 links tried in [0-9.]+ s$")
        self.assertRegex(done.stdout, r"(?m)^  us +to 0 +to 1\n  from 0 +- +[0-9.]+\n  from 1 +[0-9.]+ +-$")
        self.assertRegex(done.stdout, r"(?m)^  MB/s +to 0 +to 1\n  from 0 +- +[0-9]+\n  from 1 +[0-9]+ +-$")

    def test_a_rank_without_network_and_settings_that_differ_are_named(self):
        more = ("--set", "net.listen=192.0.2.1:0", "--set", "cache.window=32")
        _, unreached, warnings = self.report(dist.mpirun(3, *only_on(2, *more), "--json"), 1)
        self.assertEqual(unreached, {pair for pair in PAIRS if 2 in pair})
        self.assertRegex(warnings, r"(?m)^rank 2 on host '[^']+' has no network: .*192\.0\.2\.1")
        self.assertRegex(warnings, r"cache\.window: '64' on rank 0, '32' on rank 2;")
        done = dist.mpirun(3, *only_on(1, "--set", "cache.windo=3"))
        self.assertEqual((done.code, done.stdout, done.stderr.count("quarry: error: ")), (2, "", 1), str(done))
        self.assertIn("quarry: error: rank 1: setting 'cache.windo'", done.stderr)

    def test_hosts_that_are_not_reached_are_named_with_what_to_check(self):
        able = subprocess.run([*CLUSTER, "check"], capture_output=True, text=True)
        if able.returncode:
            self.skipTest(able.stderr.strip())
        try:
            subprocess.run([*CLUSTER, "up", "3"], check=True)
            done = dist.run([*CLUSTER, "run", "1", QUARRY, "doctor", "--json", *QUICK], timeout=90)
            out, unreached, _ = self.report(done, 0)
            self.assertEqual(unreached, set())
            self.assertEqual([(r["host"], r["address"].split(":")[0]) for r in out["ranks"]],
                             [(f"{NAME}-{i}", f"10.77.0.{i + 1}") for i in range(3)])
            # Rank 1 listens where its own host alone finds it.
            here = only_on(1, "--set", "net.listen=127.0.0.1:0")
            done = dist.run([*CLUSTER, "run", "1", *here, "--json"], timeout=90)
            _, unreached, warnings = self.report(done, 1)
            self.assertEqual(unreached, {(0, 1), (2, 1)})
            self.assertRegex(warnings, rf"(?m)^no rank reaches rank 1 on host '{NAME}-1': peer 'rank 1' at "
                                       r"127\.0\.0\.1:\d+: not reached .*net\.device.*UCX_NET_DEVICES.*firewall")
        finally:
            subprocess.run([*CLUSTER, "down"], check=True)


if __name__ == "__main__":
    dist.need_mpirun()
    unittest.main(argv=sys.argv[:1], verbosity=2)
