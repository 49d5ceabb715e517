#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Size budgets and first lines: files up to 450 lines, functions up to 80, an SPDX line on top."""
import pathlib
import re
import sys
import tempfile

FOLDERS = ["runtime", "gpu", "net", "retrieval", "offload", "model", "serve", "tests", "examples",
           "scripts", "cmake", ".ci"]
CODE = {".c", ".h", ".cu", ".cpp"}
SCRIPTS = {".py", ".sh", ".cmake", ""}
MAX_FILE, MAX_FUNCTION = 450, 80


def files(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "data" not in path.parts and "__pycache__" not in path.parts:
                yield path


def functions(lines):
    """Yields (first line, lines) of each body that opens with a brace in column one."""
    start = None
    for i, line in enumerate(lines):
        if line.startswith("{"):
            start = i
        elif line.startswith("}") and start is not None:
            yield start, i - start + 1
            start = None


def problems(root):
    for path in files(root):
        if path.suffix not in CODE | SCRIPTS and path.name != "CMakeLists.txt":
            continue
        lines = path.read_text(errors="replace").split("\n")
        name = path.relative_to(root).as_posix()
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:2]):
            yield f"{name}:1: no SPDX line; start with SPDX-License-Identifier: Apache-2.0"
        if len(lines) - 1 > MAX_FILE:
            yield f"{name}: {len(lines) - 1} lines; at most {MAX_FILE}; split it by topic"
        if path.suffix in CODE:
            for start, length in functions(lines):
                if length > MAX_FUNCTION:
                    yield f"{name}:{start + 1}: a function of {length} lines; at most {MAX_FUNCTION}"
            for i, line in enumerate(lines):
                if re.search(r"[ \t]$", line):
                    yield f"{name}:{i + 1}: white space at the end of the line"


def self_test():
    spdx = "/* SPDX-License-Identifier: Apache-2.0 */\n"
    cases = [
        (spdx + "int f(void)\n{\n    return 0;\n}\n", 0),
        ("int f(void);\n", 1),
        (spdx + "\n" * MAX_FILE, 1),
        (spdx + "int f(void)\n{\n" + "    f();\n" * MAX_FUNCTION + "}\n", 1),
        (spdx + "int a; \n", 1),
    ]
    for text, expected in cases:
        with tempfile.TemporaryDirectory() as tmp:
            (pathlib.Path(tmp) / "gpu").mkdir()
            (pathlib.Path(tmp) / "gpu/x.c").write_text(text)
            found = list(problems(pathlib.Path(tmp)))
            if len(found) != expected:
                sys.exit(f"self test: expected {expected}, found {found}")
    print(f"self test: {len(cases) - 1} planted violations were found")


def main():
    self_test()
    found = list(problems(pathlib.Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)


main()
