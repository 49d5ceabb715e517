#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each public header compiles alone as C11 and as C++17, with all warnings as errors, in every
compiler that this machine has.
usage: headers.py ROOT
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

MODULES = ["runtime", "gpu", "net", "retrieval", "offload", "model"]
# No -Wshadow: in C++ it objects to a function that has its struct's name, as in POSIX's stat.
FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
COMPILERS = [("gcc", "c11", "c"), ("clang", "c11", "c"), ("g++", "c++17", "c++"),
             ("clang++", "c++17", "c++")]


def problem(compiler, standard, language, root, header):
    """The compiler's words when `header` does not stand alone, else an empty string."""
    text = f'#include "{header}"\n#include "{header}"\nint qy_use;\n'
    run = subprocess.run([compiler, "-x", language, f"-std={standard}", *FLAGS, "-I", str(root), "-"],
                         input=text, capture_output=True, text=True)
    return f"{header} with {compiler} -std={standard}:\n{run.stderr}" if run.returncode else ""


def self_test(present):
    planted = [
        "size_t f(void);\n",                         # needs stddef.h
        "static inline int f(int a[static 1]) { return a[0]; }\n",  # not C++
        "#include <stdatomic.h>\nextern _Atomic int n;\n",          # not C++17
    ]
    with tempfile.TemporaryDirectory() as tmp:
        for text in planted:
            (pathlib.Path(tmp) / "x.h").write_text(text)
            if not any(problem(*c, tmp, "x.h") for c in present):
                sys.exit(f"self test: not found: {text!r}")
    print(f"self test: {len(planted)} planted violations were found")


def main():
    root = pathlib.Path(sys.argv[1])
    present = [c for c in COMPILERS if shutil.which(c[0])]
    if not any(c[2] == "c++" for c in present):
        print("skipped: no C++ compiler; install g++")
        sys.exit(77)
    self_test(present)
    headers = [f"{m}/{m}.h" for m in MODULES if (root / m / f"{m}.h").exists()]
    found = [p for h in headers for c in present if (p := problem(*c, root, h))]
    print("\n".join(found))
    print(f"{len(headers)} headers tried with {', '.join(c[0] for c in present)}")
    sys.exit(1 if found or not headers else 0)


main()
