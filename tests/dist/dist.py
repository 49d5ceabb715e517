# SPDX-License-Identifier: Apache-2.0
"""What tests under mpirun share: a job is started with the options of a clean start, ended for good at its
time limit, and afterwards nothing of it may be left: no process, nothing in /dev/shm.

A script that uses it is run by ctest as: python3 -B script.py PROGRAM...
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SHM = pathlib.Path("/dev/shm")
# As root, as in most containers, mpirun starts only when both are set; the PRTE_ names are Open MPI 5's.
ROOT = {name: "1" for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
                               "PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")}
OPTIONS = ("--oversubscribe",                # more ranks than cores
           "--bind-to", "none",              # else each rank, with all its threads, gets one core
           "--mca", "pml", "ob1")
# In shared memory, without CMA, which containers forbid: asking for it costs a warning.
VADER = ("--mca", "btl", "self,vader", "--mca", "btl_vader_single_copy_mechanism", "none")
TCP = ("--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def need_mpirun():
    """Open MPI's mpirun, or a skip: the options above are its own."""
    if not shutil.which("mpirun"):
        skip("no mpirun; scripts/setup net installs Open MPI")
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, timeout=60).stdout
    if "Open MPI" not in version:
        skip(f"mpirun is not Open MPI's: {version.splitlines()[:1]}")


def environment(tmp):
    """This process's environment without settings of ours or of a job around us."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("QY_", "OMPI_", "PMIX_", "PMI_", "SLURM_", "UCX_"))}
    env.update(ROOT, TMPDIR=tmp)
    # MPI keeps much until the process ends, below frames that have no names: leaks of ours are found by
    # the tests that run without it.
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    return env


def session(sid):
    """{pid: name} of the living processes of a session: mpirun gives every rank a process group of its own,
    but the session stays."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # it ended meanwhile
        state, _, _, its = rest.split()[:4]
        if its == str(sid) and state not in "ZX":
            found[int(stat.parent.name)] = name
    return found


def end_session(sid):
    for _ in range(20):
        pids = session(sid)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not pids:
            return
        time.sleep(0.1)


def wait_until_gone(what, seconds):
    """What what() still returns after that time; empty when it went away."""
    limit = time.monotonic() + seconds
    while (left := what()) and time.monotonic() < limit:
        time.sleep(0.05)
    return left


def await_that(what, condition, seconds=60):
    limit = time.monotonic() + seconds
    while not (got := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return got


def shared_memory():
    return {p.name for p in SHM.iterdir()} if SHM.is_dir() else set()


def held(names):
    """Which of these entries of /dev/shm a living process has open or mapped: then they are not left over,
    but of somebody else's work."""
    users = set()
    for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
            text += "".join(os.readlink(fd) for fd in (maps.parent / "fd").iterdir())
        except OSError:
            continue
        users |= {name for name in names if f"{SHM}/{name}" in text}
    return users


class Done:
    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr

    def __str__(self):
        return f"exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def run(command, timeout=60, env=None, patience=10.0, meanwhile=None):
    """Runs a command in a session of its own; meanwhile(pid, path of its stdout) is called when it was started.
    AssertionError: it did not end in time, or left something for longer than `patience`."""
    before = shared_memory()
    with tempfile.TemporaryDirectory(prefix="qy", ignore_cleanup_errors=True) as tmp, \
            open(f"{tmp}/out", "w+") as out, open(f"{tmp}/err", "w+") as err:
        # Files, not pipes: a rank that outlives mpirun would keep a pipe open.
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                               env={**environment(tmp), **(env or {})}, start_new_session=True)
        late = False
        try:
            if meanwhile:
                meanwhile(job.pid, pathlib.Path(out.name))
            code = job.wait(timeout)
        except subprocess.TimeoutExpired:
            code, late = None, True
        except BaseException:
            end_session(job.pid)
            raise
        finally:
            left = {} if late else wait_until_gone(lambda: session(job.pid), patience)
            end_session(job.pid)
            job.wait()
        done = Done(code, *(pathlib.Path(f.name).read_text(errors="replace") for f in (out, err)))
    if late:
        raise AssertionError(f"{' '.join(command)}: not done after {timeout} s\n{done}")
    if left:
        raise AssertionError(f"{' '.join(command)}: left running: {left}\n{done}")

    def leftover():
        new = shared_memory() - before
        return new - held(new) if new else new
    if names := wait_until_gone(leftover, patience):
        raise AssertionError(f"{' '.join(command)}: left in {SHM}: {names}\n{done}")
    return done


def mpirun(n, *command, transport=VADER, options=(), **kwargs):
    """Again, a few times, where mpirun itself crashed: that of Open MPI 4.1 now and then does, in its own
    PMIx_server_finalize, when a job has been aborted and all ranks are gone."""
    for _ in range(5):
        done = run(["mpirun", *OPTIONS, *transport, "-n", str(n), *options, *map(str, command)], **kwargs)
        if done.code != -signal.SIGSEGV or "PMIx_server_finalize" not in done.stderr:
            break
    return done


class Case(unittest.TestCase):
    def good(self, done):
        """Exit 0 and not a word on stderr: the start is clean."""
        self.assertEqual((done.code, done.stderr), (0, ""), str(done))
        return done.stdout
