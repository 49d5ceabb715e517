/* SPDX-License-Identifier: Apache-2.0 */
/* For test_memory_child.c, which knows the inside of offload/ and so not that of serve/. */
#ifndef QY_TESTS_SERVE_MEMORY_CHILD_START_H
#define QY_TESTS_SERVE_MEMORY_CHILD_START_H

#include "tests/support/test.h"

#include "serve/job/supervisor.h"

/* A supervisor of this program as a memory server with so many bytes for blocks, which goes on for two minutes
 * when it is told to end. rt, quarry: kept. */
struct qyi_supervisor *memory_child_start(const struct qy_runtime *rt, const char *quarry,
                                          uint64_t bytes, const uint8_t *key);

#endif
