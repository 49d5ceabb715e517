#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The ranks of a job under mpirun: what they exchange, what happens when one does not come, hangs or dies,
with which code the job ends, and that nothing of it is left.

usage: ranks.py RANKS
"""
import os
import signal
import sys
import unittest

import dist

RANKS = sys.argv.pop(1)


class Harness(unittest.TestCase):
    """dist.py finds what it is there to find."""

    def caught(self, words, script, **kwargs):
        with self.assertRaisesRegex(AssertionError, words):
            dist.run(["sh", "-c", script], patience=0.3, **kwargs)

    def test_what_goes_wrong_is_found(self):
        name = f"qy-test-{os.getpid()}"
        self.caught("not done after", "sleep 1000", timeout=0.5)
        self.caught("left running: .*sleep", "sleep 1000 & exit 0")
        try:
            self.caught(f"left in /dev/shm: .*{name}", f"echo x >/dev/shm/{name}")
        finally:
            os.unlink(f"/dev/shm/{name}")
        self.assertEqual(dist.run(["sh", "-c", "echo a; echo b >&2; exit 3"]).code, 3)


class Ranks(dist.Case):
    def test_a_process_without_a_launcher_is_refused(self):
        done = dist.run([RANKS, "exchange", "1", "8"])
        self.assertEqual(done.code, 99, str(done))
        self.assertIn("no launcher started this process", done.stderr)

    def test_bytes_are_exchanged_among_one_to_six_ranks(self):
        for n in range(1, 7):
            with self.subTest(n=n):
                out = self.good(dist.mpirun(n, RANKS, "exchange", 3, 1, 7, 8, 64, 4096))
                self.assertEqual(sorted(out.splitlines()), [f"rank {i} of {n}: done" for i in range(n)])

    def test_bytes_are_exchanged_over_tcp(self):
        self.good(dist.mpirun(3, RANKS, "exchange", 2, 64, 300000, transport=dist.TCP))

    def test_different_sizes_are_told_to_all(self):
        out = self.good(dist.mpirun(3, RANKS, "sizes"))
        self.assertEqual(out.count("done"), 3)

    def test_a_process_joins_once(self):
        self.assertEqual(self.good(dist.mpirun(2, RANKS, "twice")).count("done"), 2)

    def test_the_exit_code_of_a_rank_is_the_jobs(self):
        self.assertEqual(self.good(dist.mpirun(2, RANKS, "code", 1, 0)), "")
        done = dist.mpirun(2, RANKS, "code", 1, 6)
        self.assertEqual(done.code, 6, str(done))

    def test_a_rank_that_does_not_come_times_out_and_abort_ends_the_job_with_its_code(self):
        for transport in (dist.VADER, dist.TCP):
            for absent in (0, 2):
                with self.subTest(transport=transport[2], absent=absent):
                    done = dist.mpirun(3, RANKS, "absent", absent, 300, 7, transport=transport)
                    self.assertEqual(done.code, 7, str(done))
                    self.assertEqual(done.stdout.count("timed out"), 2, str(done))

    def test_a_barrier_that_was_begun_stays_pending_without_a_rank(self):
        done = dist.mpirun(3, RANKS, "begun", 1, 300, 5)
        self.assertEqual(done.code, 5, str(done))
        self.assertIn("left alone", done.stdout, str(done))
        self.assertIn("a barrier was begun before it, and is not over", done.stderr, str(done))

    def test_a_close_without_a_rank_ends_the_job_and_not_with_0(self):
        # A rank that asks for 0 then would lie: mpirun makes it 1.
        for how in ("asleep", "stopped"):
            for code, want in ((5, 5), (0, 1)):
                with self.subTest(how=how, code=code):
                    done = dist.mpirun(3, RANKS, "stuck", 1, how, 300, code)
                    self.assertEqual(done.code, want, str(done))
                    self.assertIn("left alone", done.stdout, str(done))
                    self.assertIn("leaves without the others: barrier of 3 ranks: not all came within 300 ms",
                                  done.stderr, str(done))

    def test_a_rank_that_never_joins_ends_the_job(self):
        for how in ("asleep", "leaves"):
            with self.subTest(how=how):
                done = dist.mpirun(3, RANKS, "late", 2, how, 2000)
                self.assertEqual(done.code, 1, str(done))
                ours = "MPI_Init: the other ranks of the job did not come within 2000 ms"
                # of a rank that ends mpirun may know first, and ends the others itself
                its = "exiting improperly" if how == "leaves" else ours
                self.assertTrue(ours in done.stderr or its in done.stderr, str(done))

    def test_a_rank_that_hangs_on_its_way_out_ends_the_job(self):
        done = dist.mpirun(3, RANKS, "finalize", 1, 1000)
        self.assertEqual(done.code, 1, str(done))
        self.assertIn("MPI_Finalize: the other ranks of the job did not leave within 1000 ms", done.stderr,
                      str(done))

    def test_a_rank_that_is_killed_ends_the_job(self):
        done = dist.mpirun(3, RANKS, "dies", 1, int(signal.SIGKILL))
        self.assertEqual(done.code, 128 + signal.SIGKILL, str(done))

    def test_a_launcher_that_is_told_to_stop_takes_its_ranks_along(self):
        # Once: mpirun takes a second signal as an order to leave its ranks alone.
        done = dist.run(["timeout", "--foreground", "--signal=TERM", "3", "mpirun", *dist.OPTIONS, *dist.VADER,
                         "-n", "3", RANKS, "late", "0", "asleep", "60000"])
        self.assertNotEqual(done.code, 0, str(done))

    def test_a_launcher_that_is_killed_leaves_no_rank_and_with_tcp_no_shared_memory(self):
        done = dist.run(["timeout", "--foreground", "--signal=KILL", "3", "mpirun", *dist.OPTIONS, *dist.TCP,
                         "-n", "3", RANKS, "absent", "0", "60000", "7"])
        self.assertNotEqual(done.code, 0, str(done))


if __name__ == "__main__":
    dist.need_mpirun()
    unittest.main(verbosity=2)
