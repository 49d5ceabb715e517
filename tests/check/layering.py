#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom (ARCHITECTURE.md, Layers).

Refuses: an include that the layers forbid, a private header of another module, a project header
written without its folder, and a third-party header outside the one file that may use it.
"""
import pathlib
import re
import sys
import tempfile

# folder -> modules that it may include besides itself
LAYERS = {
    "runtime": set(),
    "gpu": {"runtime"},
    "net": {"runtime"},
    "retrieval": {"runtime", "gpu"},
    "offload": {"runtime", "gpu", "net", "retrieval"},
    "model": {"runtime", "gpu", "offload"},
    "serve": {"runtime", "gpu", "net", "retrieval", "offload", "model"},
}
# rooms that know little of their own module -> the headers of it that they may include
ROOMS = {
    "offload/disk": {"offload/home/store.h"},
    "offload/servers": {"offload/home/store.h", "offload/memory/remote_wire.h", "offload/layout.h"},
    "offload/memory": {"offload/offload.h", "offload/memory_probe.h", "offload/block.h", "offload/layout.h"},
}
# third-party header (regular expression) -> where it may be included (prefix of the file's path)
THIRD_PARTY = {
    r"hwloc": ["runtime/topology"],
    r"ini\.h": ["runtime/config_file."],
    r"xxhash\.h": ["runtime/checksum.", "runtime/checksum_avx2."],
    r"(oneapi/)?dnnl": ["gpu/host/onednn", "gpu/host/gemm_onednn"],
    r"cblas|openblas": ["gpu/host/openblas", "gpu/host/gemm_openblas"],
    r"cuda|cublas|nvml|nvtx": ["gpu/cuda/"],
    r"ucp/|ucs/|uct/": ["net/ucx"],
    r"mpi\.h": ["net/bootstrap_mpi."],
    r"faiss/": ["retrieval/kmeans_faiss.", "retrieval/oracle.", "retrieval/faiss_index."],
    r"liburing": ["offload/disk/disk_uring."],
    r"sodium": ["net/hello."],
    r"pcre2": ["model/pretokenize."],
    r"cjson/": ["serve/"],
    r"microhttpd": ["serve/http."],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(<|")([^>"]+)[>"]', re.M)


def problems(root):
    """Yields 'file:line: what' for each include that breaks a rule."""
    for folder in LAYERS:
        for path in sorted((root / folder).rglob("*.[ch]*")):
            text = path.read_text(errors="replace")
            name = path.relative_to(root).as_posix()
            for m in INCLUDE.finditer(text):
                why = refused(root, folder, name, m.group(1), m.group(2))
                if why:
                    line = text.count("\n", 0, m.start()) + 1
                    yield f"{name}:{line}: include of '{m.group(2)}': {why}"


def refused(root, folder, name, quote, header):
    """Why the file `name` may not include `header`; None when it may."""
    first = header.split("/")[0]
    if quote == '"' and "/" not in header:
        return "written without its folder; write the path from the repository's root"
    if first in LAYERS and (quote == '"' or (root / header).exists()):
        if quote == "<":
            return "a header of this project; use quotes"
        if first != folder and first not in LAYERS[folder]:
            return f"'{folder}' may include: {', '.join(sorted(LAYERS[folder])) or 'no module'}"
        if first != folder and header != f"{first}/{first}.h":
            return f"private to '{first}'; use '{first}/{first}.h'"
        room = name.rpartition("/")[0]
        if header.rpartition("/")[0] != room and first == folder and header not in ROOMS.get(room, {header}):
            return f"'{room}' may include of its module: {', '.join(sorted(ROOMS[room]))}"
        return None
    if quote == '"':
        return "no such module"
    for pattern, places in THIRD_PARTY.items():
        if re.match(pattern, header) and not any(name.startswith(p) for p in places):
            return f"may be used in {', '.join(places)} only"
    return None


def self_test():
    """Plants one violation of each kind; each must be found, and a clean tree must pass."""
    planted = {
        '#include "offload/offload.h"\n': "gpu",
        '#include "runtime/team_private.h"\n': "gpu",
        '#include "arena.h"\n': "runtime",
        "#include <hwloc.h>\n": "gpu",
        "#include <runtime/runtime.h>\n": "gpu",
        '  #  include "serve/serve.h"\n': "model",
        '#include "offload/cache.h"\n': "offload/disk",
    }
    clean = '#include <stdio.h>\n#include "runtime/runtime.h"\n#include "gpu/host/host.h"\n'
    for text, folder in [(clean, "gpu"), *planted.items()]:
        with tempfile.TemporaryDirectory() as tmp:
            root = pathlib.Path(tmp)
            for d in LAYERS:
                (root / d).mkdir()
            (root / "runtime/runtime.h").write_text("\n")
            (root / folder).mkdir(exist_ok=True)
            (root / folder / "x.c").write_text(text)
            found = list(problems(root))
            if bool(found) != (text != clean):
                sys.exit(f"self test: {text!r} in {folder}: found {found}")
    print(f"self test: {len(planted)} planted violations were found")


def main():
    self_test()
    found = list(problems(pathlib.Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)


main()
