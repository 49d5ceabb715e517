#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quarry bench net and what quarry doctor tells of the network, as their user meets them.

usage: net.py QUARRY MAKE_GGUF MEMORY_CLIENT
"""
import os
import stat
import sys
import unittest

from memory import NETWORK, Server, new_key
from program import ENV, FOLDER, Case, run, write

# Small blocks: 16 of 32 tokens, two layers of small rows.
SMALL = ("bench", "net", "--steps", "1", "--context", "512", "--layers", "2", "--set", "cache.block_tokens=32",
         "--heads", "3", "--head-dim", "16")
# Both ends of what is not there: the one that asks gives a line as ucx_perftest does.
PERFTEST = """#!/bin/sh
case "$*" in
-h) exit 0 ;;
127.0.0.1*) [ "$UCX_TLS" = tcp,self ] && echo "iterations,50.0_percentile_lat,..." &&
    echo "  50,10.000,11.000,12.000,100.00,1000.00,9,9" ;;
esac
"""


def empty_path(program=None):
    """A PATH with nothing in it, or this program as ucx_perftest, and what that needs."""
    folder = f"{FOLDER.name}/path{program is not None}"
    os.makedirs(folder, exist_ok=True)
    if program:
        with open(f"{folder}/ucx_perftest", "w") as f:
            f.write(program)
        os.chmod(f"{folder}/ucx_perftest", stat.S_IRWXU)
        folder += ":/usr/bin:/bin"
    return {"PATH": folder}


@unittest.skipUnless(NETWORK, "this build has no network")
class Bench(Case):
    def test_a_server_of_its_own_is_measured_where_there_is_none(self):
        out = self.json(*SMALL, env=empty_path())
        self.assertTrue(out["own_server"])
        self.assertIn("not installed", out["no_perftest"])
        self.assertEqual((out["row_bytes"], out["tokens"]), (64, 512))
        server, = out["servers"]
        rows = {(r["kind"], r["rows"], r["at_once"]): r for r in server["results"]}
        blocks = [(kind, None, n) for kind in ("put", "read") for n in (1, 2, 4)]
        lists = [(kind, rows, n) for kind in ("pull", "push") for rows in (256, 512, 1024) for n in (1, 2, 4, 8)]
        self.assertEqual(set(rows), {("state", None, 1), *blocks, *lists})
        for key, row in rows.items():
            with self.subTest(key=key):
                self.assertEqual((row["runs"], row["questions"]), (7, 7 * row["at_once"]))
                self.assertGreater(row["us"], 0)
                self.assertGreaterEqual(row["p99_us"], row["p50_us"])
                self.assertIsNone(row["perftest_share"])
                self.assertAlmostEqual(row["check_share"], row["check_us"] / row["us"])
                if key[0] in ("read", "pull") and row["bytes"] >= 1 << 14: # smaller ones are sampled
                    self.assertGreater(row["check_us"], 0)
                if key[0] != "state":
                    self.assertGreater(row["here_us"], 0)
                    self.assertAlmostEqual(row["gbps"], row["bytes"] / row["us"] / 1e3, delta=row["gbps"] / 100)
                    self.assertEqual(row["bytes"], key[1] * 64 if key[1] else out["block_bytes"])

    def test_servers_of_net_memory_are_measured_beside_ucx_perftest(self):
        with Server() as server:
            memory = ("--set", "net.memory=" + server.address, "--set", "net.key_file=" + new_key("key"))
            out = self.json(*SMALL, *memory, env=empty_path(PERFTEST))
            self.assertFalse(out["own_server"])
            self.assertIsNone(out["no_perftest"])
            self.assertEqual(out["servers"][0]["address"], server.address)
            for row in out["servers"][0]["results"]:
                if row["kind"] == "state":
                    self.assertEqual(row["perftest_us"], 20)  # two ways
                elif row["kind"] != "push":
                    self.assertAlmostEqual(row["perftest_gbps"], 1000 * 2**20 / 1e9)
                    self.assertAlmostEqual(row["perftest_share"], row["gbps"] / row["perftest_gbps"])
            shown = run(*SMALL, *memory, env=empty_path())
            self.assertEqual(shown.returncode, 0, shown.stderr)
            self.assertRegex(shown.stdout, rb"\Aagainst the memory servers of net.memory, over tcp,self\n")
            self.assertRegex(shown.stdout, rb"(?m)^pull 1024 rows +8 +[0-9.]+")
            code, _, err = server.end()
            self.assertEqual(code, 0, err)
            self.assertIn("0 blocks", err)  # they were given back

    def test_what_cannot_be_measured_is_refused(self):
        self.refused(2, r"'--context': '255' refused.*at least 8", *SMALL[:5], "255", *SMALL[6:])
        self.refused(2, r"'--head-dim': '512' refused.*up to 256", *SMALL, "--head-dim", "512")
        self.refused(2, r"'--shape': 'x' refused", *SMALL, "--shape", "x")
        self.refused(2, r"'--steps': '0' refused", "bench", "net", "--steps", "0")
        with Server(size="256K") as server:
            here = ("--set", "net.memory=" + server.address)
            self.refused(2, r"net.key_file ''", *SMALL, *here)
            self.refused(1, r"refused: .*give both the same key", *SMALL, *here, "--set",
                         "net.key_file=" + new_key("other"))
            self.refused(1, r"127.0.0.1:1': not reached within 600 ms.*is it running there", *SMALL, "--set",
                         "net.memory=127.0.0.1:1", "--set", "net.timeout_ms=200", "--set",
                         "net.key_file=" + new_key("key"))
            self.refused(2, r"turned down a block that was put: full", *SMALL, *here, "--set",
                         "net.key_file=" + new_key("key"), "--layers", "8")


class Doctor(Case):
    def network(self, *more, env=None):
        out = self.json("doctor", *more, env=env)
        return out["network"], "\n".join(out["warnings"])

    @unittest.skipIf(NETWORK, "this build has a network")
    def test_a_build_without_network_says_so(self):
        network, _ = self.network()
        self.assertIsNone(network["ucx"])
        self.assertEqual((network["transports"], network["settings"]), ([], []))

    @unittest.skipUnless(NETWORK, "this build has no network")
    def test_the_network_and_each_server_are_told_with_what_to_do(self):
        with Server() as server, Server(key=new_key("other")) as other:
            memory = ("--set", f"net.memory={server.address},{other.address},127.0.0.1:1", "--set",
                      "net.key_file=" + new_key("key"))
            network, warnings = self.network(*memory, env={"UCX_TLS": "tcp", "QY_NET_DEVICE": "lo"})
            self.assertRegex(network["ucx"], r"\A1\.[0-9]+")
            self.assertIn({"name": "tcp", "device": "lo", "network": True}, network["transports"])
            settings = {s["name"]: s for s in network["settings"]}
            self.assertEqual((settings["UCX_TLS"]["value"], settings["UCX_TLS"]["by_user"]), ("tcp", True))
            self.assertEqual(settings["UCX_NET_DEVICES"]["value"], "lo")
            self.assertEqual([s["reachable"] for s in network["servers"]], [True, False, False])
            there = network["servers"][0]
            self.assertEqual((there["address"], there["bytes"], there["draining"]), (server.address, 8 << 20, False))
            self.assertGreater(there["protocol"], 0)
            self.assertGreater(there["round_trip_us"], 0)
            self.assertRegex(warnings, other.address + "[^\n]*give both the same key")
            self.assertRegex(warnings, "127.0.0.1:1': [^\n]*is it running there")
            shown = run("doctor", *memory[2:], "--set", "net.memory=" + server.address).stdout.decode()
            self.assertRegex(shown, r"(?m)^network +UCX 1\.[0-9.]+; to other hosts: tcp \(.*lo")
            self.assertRegex(shown, rf"(?m)^memory server  {server.address}: protocol [0-9]+, round trip [0-9.]+ us, "
                                    r"8.0 MiB for blocks, no worker has been there yet")


if __name__ == "__main__":
    ENV["QY_MODEL_FILE"] = ""
    unittest.main(argv=sys.argv[:1])
