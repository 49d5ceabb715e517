/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/serve/memory_child_start.h"

#include <string.h>

#include "serve/memory/memory_server.h"

static const uint64_t second_ns = 1000000000u;

struct qyi_supervisor *memory_child_start(const struct qy_runtime *rt, const char *quarry,
                                          uint64_t bytes, const uint8_t *key)
{
    struct qyi_memory_brief brief;
    struct qyi_supervisor *supervisor = NULL;
    memset(&brief, 0, sizeof brief);
    brief.bytes = sizeof brief;
    memcpy(brief.key, key, sizeof brief.key);
    brief.runtime.threads = 1;
    brief.runtime.bind = QY_BIND_NONE;
    snprintf(brief.runtime.log, sizeof brief.runtime.log, "warn");
    snprintf(brief.net.listen, sizeof brief.net.listen, "127.0.0.1:0");
    brief.net.bytes = bytes;
    brief.net.timeout_ms = 2000;
    brief.net.drain_ms = 120000;
    const struct qyi_supervisor_params params = {.rt = rt,
                                                 .program = quarry,
                                                 .name = QYI_MEMORY_CHILD_NAME,
                                                 .brief = &brief,
                                                 .brief_bytes = sizeof brief,
                                                 .listen_ns = 60 * second_ns,
                                                 .silence_ns = 10 * second_ns,
                                                 .end_ns = 30 * second_ns,
                                                 .back_off_ns = second_ns / 20,
                                                 .max_restarts = 3};
    assert_int_equal(qyi_supervisor_open(&params, qy_clock_ns(), &supervisor, NULL), QY_OK);
    return supervisor;
}
