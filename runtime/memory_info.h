/* SPDX-License-Identifier: Apache-2.0 */
/* Private to runtime/: the reader behind qy_memory_read, with the file tree as an argument so that
 * tests can show it a made-up machine. */
#ifndef QY_RUNTIME_MEMORY_INFO_H
#define QY_RUNTIME_MEMORY_INFO_H

#include "runtime/runtime.h"

/* Reads <root>/proc and <root>/sys ("" is the real machine). What cannot be read is left at "no
 * limit" for limits and 0 for sizes; memlock and shm are always those of this process. */
void qyi_memory_read_from(const char *root, struct qy_memory_info *out);

#endif
