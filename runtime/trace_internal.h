/* SPDX-License-Identifier: Apache-2.0 */
/* What trace.c records and trace_write.c writes. */
#ifndef QYI_RUNTIME_TRACE_INTERNAL_H
#define QYI_RUNTIME_TRACE_INTERNAL_H

#include "runtime/runtime.h"

enum { QYI_TRACE_NAME_BYTES = 48 };

struct qyi_trace_record {
    const char *name;
    const char *const *keys; /* of values, NULL after the last; NULL: none */
    uint64_t begin_ns, end_ns;
    double values[QY_TRACE_VALUES];
};

struct qy_trace_lane {
    uint64_t n_written;
    struct qyi_trace_record *records; /* [capacity] a ring */
    uint32_t capacity;
    int is_open; /* somebody writes */
    enum qy_trace_group group;
    char name[QYI_TRACE_NAME_BYTES];
    struct qy_trace_lane *next; /* in the order of opening */
};

struct qy_trace {
    struct qy_allocator mem;
    struct qy_trace_lane *first, **last;
    struct qy_trace_lane **threads; /* [n_threads] of the list */
    uint32_t n_threads, capacity;
};

/* Records that the ring still has. */
static inline uint32_t qyi_trace_count(const struct qy_trace_lane *lane)
{
    return lane->n_written < lane->capacity ? (uint32_t)lane->n_written : lane->capacity;
}

#endif
