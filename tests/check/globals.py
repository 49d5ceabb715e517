#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No writable static data in any library: everything hangs off a handle that is passed in. And no
library ends the process, prints to stdout or reads the environment behind its user's back.

Reads `size -A` of each archive: .data, .bss and their thread-local kin must be empty. Tables that
are const but hold pointers land in .data.rel.ro, which the loader makes read-only: allowed.
Reads `nm -u` for the functions.
usage: globals.py COMPILER ARCHIVE...
"""
import pathlib
import re
import subprocess
import sys
import tempfile

FORBIDDEN = {"exit", "_exit", "_Exit", "quick_exit", "abort", "printf", "vprintf", "puts", "putchar",
             "__printf_chk", "__vprintf_chk", "getenv", "secure_getenv", "setenv", "environ"}
ALLOWED = {("config_env.c.o", "environ"),  # settings
           ("environ.c.o", "environ"),     # what launchers and transports say
           # A job is ended on demand, or because a call of MPI can be left in no other way.
           ("bootstrap_mpi.c.o", "_exit"), ("without_mpi.c.o", "_exit"), ("guard.c.o", "_exit")}
WRITABLE = re.compile(r"^\.(data|bss|tdata|tbss|ldata|lbss)(\.(?!rel\.ro).*)?$")


def problems(archive):
    out = subprocess.run(["size", "-A", archive], check=True, capture_output=True, text=True).stdout
    member = "?"
    for line in out.splitlines():
        words = line.split()
        if re.search(r":\s*$|\(ex ", line) and words:
            member = words[0]
        elif len(words) >= 2 and WRITABLE.match(words[0]) and int(words[1]) > 0:
            yield f"{pathlib.Path(archive).name}({member}): {words[1]} bytes of writable data in {words[0]}"


def calls(archive):
    out = subprocess.run(["nm", "-u", archive], check=True, capture_output=True, text=True).stdout
    member = "?"
    for line in out.splitlines():
        words = line.split()
        if line.endswith(":"):
            member = line[:-1]
        elif words and words[-1] in FORBIDDEN and (member, words[-1]) not in ALLOWED:
            yield f"{pathlib.Path(archive).name}({member}): calls {words[-1]}"


def compile_archive(compiler, folder, text):
    source, obj, lib = (pathlib.Path(folder) / n for n in ("x.c", "x.o", "libx.a"))
    source.write_text(text)
    subprocess.run([compiler, "-O1", "-fPIC", "-c", source, "-o", obj], check=True)
    lib.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", lib, obj], check=True)
    return lib


def self_test(compiler):
    cases = [
        ("static const int a[] = {1, 2};\nint f(int i);\nint f(int i) { return a[i]; }\n", 0),
        ("int f(void);\nstruct t { int (*f)(void); };\nextern const struct t t;\n"
         "const struct t t = {f};\n", 0),
        ("static int n;\nint f(void);\nint f(void) { return n++; }\n", 1),
        ("int table[2] = {1, 2};\n", 1),
        ("_Thread_local int t = 1;\n", 1),
        ("#include <stdlib.h>\nvoid f(void);\nvoid f(void) { exit(1); }\n", 1),
        ("#include <stdlib.h>\nchar *f(void);\nchar *f(void) { return getenv(\"X\"); }\n", 1),
    ]
    with tempfile.TemporaryDirectory() as tmp:
        for text, expected in cases:
            archive = compile_archive(compiler, tmp, text)
            found = [*problems(archive), *calls(archive)]
            if len(found) != expected:
                sys.exit(f"self test: expected {expected} in {text!r}, found {found}")
    print("self test: 5 planted violations were found")


def main():
    self_test(sys.argv[1])
    found = [p for archive in sys.argv[2:] for p in [*problems(archive), *calls(archive)]]
    print("\n".join(found))
    print(f"{len(sys.argv) - 2} archives read")
    sys.exit(1 if found or len(sys.argv) < 3 else 0)


main()
