#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is installed can be used: DESTDIR install, moved elsewhere, then examples/consumer built
against it through find_package and through pkg-config, and run. The SONAME is read back.
usage: consumer.py SOURCE BUILD CMAKE GENERATOR CC [SANITIZER_FLAG]
"""
import os
import pathlib
import subprocess
import sys
import tempfile


def run(*command, **env):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                          env=dict(os.environ, **env))
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    source, build, cmake, generator, cc = sys.argv[1:6]
    sanitizer = "".join(sys.argv[6:])
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        run(cmake, "--install", build, "--prefix", "/opt/somewhere", DESTDIR=str(tmp / "stage"))
        prefix = tmp / "moved"
        (tmp / "stage/opt/somewhere").rename(prefix)

        library = next(prefix.rglob("libquarry.so"))
        soname = [w for w in run("readelf", "-d", library).split() if w.startswith("[libquarry")]
        if soname != ["[libquarry.so.0.1]"]:
            sys.exit(f"SONAME: {soname}")
        for header in prefix.rglob("*.h"):
            if header.relative_to(prefix).parts[:2] != ("include", "quarry"):
                sys.exit(f"installed outside include/quarry: {header}")

        run(cmake, "-G", generator, "-S", f"{source}/examples/consumer", "-B", tmp / "c",
            f"-DCMAKE_PREFIX_PATH={prefix}",
            f"-DCMAKE_C_COMPILER={cc}", f"-DCMAKE_C_FLAGS={sanitizer}")
        run(cmake, "--build", tmp / "c")
        print("find_package:", run(tmp / "c/consumer").strip())

        pkg = {"PKG_CONFIG_PATH": str(library.parent / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "quarry", **pkg).split()
        run(cc, "-std=c11", *sanitizer.split(), f"{source}/examples/consumer/consumer.c", *flags, "-lm",
            "-o", tmp / "consumer")
        print("pkg-config:", run(tmp / "consumer", LD_LIBRARY_PATH=str(library.parent)).strip())
        if run("pkg-config", "--modversion", "quarry", **pkg).strip() != "0.1.0":
            sys.exit("pkg-config: wrong version")


main()
