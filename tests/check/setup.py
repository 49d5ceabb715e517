#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/setup where something is missing: it is told of, never installed by --check or without
root, and found when it lies in a prefix. A recording apt-get in PATH shows what would be run.
usage: setup.py ROOT
"""
import os
import pathlib
import subprocess
import sys
import tempfile


def run(root, tmp, args, **env):
    bin_ = pathlib.Path(tmp) / "bin"
    bin_.mkdir(exist_ok=True)
    stubs = {
        "apt-get": f"#!/bin/sh\necho \"$@\" >>'{tmp}/apt'\n",
        "id": f"#!/bin/sh\necho {env.pop('uid', '1000')}\n",
        # Answers only for .pc files in PKG_CONFIG_PATH: this machine's own libraries do not count.
        "pkg-config": "#!/bin/sh\nIFS=:\nfor d in $PKG_CONFIG_PATH; do case $d in /usr/*) ;; *)"
                      " [ -e \"$d/$2.pc\" ] && exit 0 ;; esac; done; exit 1\n",
    }
    for name, text in stubs.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if k not in ("CMAKE_PREFIX_PATH", "PKG_CONFIG_PATH")}
    done = subprocess.run([f"{root}/scripts/setup", *args], capture_output=True, text=True, timeout=100,
                          env=dict(clean, PATH=f"{bin_}:{os.environ['PATH']}",
                                   XDG_CACHE_HOME=f"{tmp}/cache", **env))
    apt = pathlib.Path(tmp) / "apt"
    return done.returncode, done.stdout + done.stderr, apt.read_text() if apt.exists() else ""


def expect(condition, *what):
    if not condition:
        raise AssertionError(what)


def check_lists_packages_and_changes_nothing(root, tmp):
    code, text, apt = run(root, tmp, ["--check", "libs"], uid="0")
    expect(code == 1 and apt == "", code, apt)
    for word in ("libhwloc-dev", "hwloc-devel", "libcjson-dev", "cjson-devel"):
        expect(word in text, word, text)
    expect(not (pathlib.Path(tmp) / "cache").exists())


def without_root_it_tells_what_to_run(root, tmp):
    code, text, apt = run(root, tmp, ["libs"])
    expect(code == 1 and apt == "", code, apt)
    expect("apt-get install" in text and "libpcre2-dev" in text, text)


def root_installs_only_what_is_missing(root, tmp):
    code, text, apt = run(root, tmp, ["libs", "build"], uid="0")
    expect("install -y" in apt and "libinih-dev" in apt and "cmake" not in apt, apt)
    expect(code == 1, code)  # the stub installed nothing, and that is noticed


def prefix_counts(root, tmp):
    prefix = pathlib.Path(tmp) / "prefix"
    (prefix / "lib/pkgconfig").mkdir(parents=True)
    for name in ("hwloc", "inih", "libxxhash", "liburing", "libsodium", "libpcre2-8", "libcjson"):
        (prefix / f"lib/pkgconfig/{name}.pc").write_text("Name: x\n")
    for env in ({"CMAKE_PREFIX_PATH": str(prefix)},
                {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}):
        code, text, apt = run(root, tmp, ["libs"], uid="0", **env)
        expect(code == 0 and apt == "", code, text, apt)


def optional_groups_are_told_of_and_never_fail(root, tmp):
    code, text, _ = run(root, tmp, ["--check", "net"])
    expect(code == 0 and "missing (optional): UCX" in text and "libopenmpi-dev" in text, code, text)
    _, text, _ = run(root, tmp, ["--check"])
    expect("missing (optional): Open MPI" in text, text)  # the group is among the default ones


def unknown_group_is_a_usage_error(root, tmp):
    code, text, _ = run(root, tmp, ["lbis"])
    expect(code == 2 and "'lbis'" in text, code, text)


def main():
    failed = 0
    for case in (check_lists_packages_and_changes_nothing, without_root_it_tells_what_to_run,
                 root_installs_only_what_is_missing, prefix_counts,
                 optional_groups_are_told_of_and_never_fail, unknown_group_is_a_usage_error):
        with tempfile.TemporaryDirectory() as tmp:
            try:
                case(sys.argv[1], tmp)
                print(f"ok {case.__name__}")
            except AssertionError as e:
                failed += 1
                print(f"FAILED {case.__name__}: {e}")
    sys.exit(1 if failed else 0)


main()
