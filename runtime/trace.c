/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished spans in one ring per lane. A lane has one writer at a time; opening lanes and writing
 * the file (trace_write.c) is the owner's. Nothing here samples or aggregates.
 */
#include "runtime/trace_internal.h"

#include <stdio.h>
#include <string.h>

static enum qy_status add_lane(struct qy_trace *trace, enum qy_trace_group group, const char *name,
                               struct qy_trace_lane **out, struct qy_error *err)
{
    struct qy_trace_lane *lane = qy_alloc_zero(&trace->mem, sizeof(*lane));

    if (lane != NULL) { /* not zeroed: a lane that records little takes few pages */
        lane->records =
            trace->mem.alloc(trace->mem.ctx, (size_t)trace->capacity * sizeof(*lane->records), 64);
    }
    if (lane == NULL || lane->records == NULL) {
        qy_free(&trace->mem, lane);
        return qy_error_set(err, QY_ERR_NOMEM, "trace: lane '%s': no memory for %u records", name,
                            trace->capacity);
    }
    lane->capacity = trace->capacity;
    lane->is_open = 1;
    lane->group = group;
    snprintf(lane->name, sizeof(lane->name), "%s", name);
    *trace->last = lane;
    trace->last = &lane->next;
    *out = lane;
    return QY_OK;
}

enum qy_status qy_trace_open(const struct qy_allocator *mem, uint32_t n_threads,
                             uint32_t records_per_lane, struct qy_trace **out, struct qy_error *err)
{
    struct qy_trace *trace;
    enum qy_status st = QY_OK;
    size_t bytes;

    if (n_threads == 0 || records_per_lane == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "trace of %u threads and %u records: both must be above 0", n_threads,
                            records_per_lane);
    }
    if (__builtin_mul_overflow((size_t)n_threads * records_per_lane,
                               sizeof(struct qyi_trace_record), &bytes)) {
        return qy_error_set(err, QY_ERR_NOMEM, "trace of %u threads: no memory for %u records each",
                            n_threads, records_per_lane);
    }
    trace = qy_alloc_zero(mem, sizeof(*trace));
    if (trace == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "trace: no memory for its handle");
    }
    *trace = (struct qy_trace){
        .mem = *mem, .last = &trace->first, .n_threads = n_threads, .capacity = records_per_lane};
    trace->threads = qy_alloc_zero(mem, n_threads * sizeof(*trace->threads));
    if (trace->threads == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "trace of %u threads: no memory", n_threads);
    }
    for (uint32_t i = 0; st == QY_OK && i < n_threads; i++) {
        char name[QYI_TRACE_NAME_BYTES];

        snprintf(name, sizeof(name), "thread %u", i);
        st = add_lane(trace, QY_TRACE_THREADS, name, &trace->threads[i], err);
    }
    if (st != QY_OK) {
        qy_trace_close(trace);
        return st;
    }
    *out = trace;
    return QY_OK;
}

void qy_trace_close(struct qy_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    struct qy_allocator mem = trace->mem;

    while (trace->first != NULL) {
        struct qy_trace_lane *lane = trace->first;

        trace->first = lane->next;
        qy_free(&mem, lane->records);
        qy_free(&mem, lane);
    }
    qy_free(&mem, trace->threads);
    qy_free(&mem, trace);
}

struct qy_trace_lane *qy_trace_thread(const struct qy_trace *trace, uint32_t thread)
{
    return trace != NULL && thread < trace->n_threads ? trace->threads[thread] : NULL;
}

enum qy_status qy_trace_lane_open(struct qy_trace *trace, enum qy_trace_group group,
                                  const char *name, struct qy_trace_lane **out,
                                  struct qy_error *err)
{
    *out = NULL;
    if (trace == NULL) {
        return QY_OK;
    }
    for (struct qy_trace_lane *lane = trace->first; lane != NULL; lane = lane->next) {
        if (!lane->is_open && lane->group == group && strcmp(lane->name, name) == 0) {
            lane->is_open = 1;
            *out = lane;
            return QY_OK;
        }
    }
    return add_lane(trace, group, name, out, err);
}

void qy_trace_lane_close(struct qy_trace_lane *lane)
{
    if (lane != NULL) {
        lane->is_open = 0;
    }
}

void qy_trace_span(struct qy_trace_lane *lane, const char *name, uint64_t begin_ns, uint64_t end_ns,
                   const char *const *keys, const double *values)
{
    if (lane == NULL) {
        return;
    }
    struct qyi_trace_record *record = &lane->records[lane->n_written % lane->capacity];

    record->name = name;
    record->keys = keys;
    record->begin_ns = begin_ns;
    record->end_ns = end_ns > begin_ns ? end_ns : begin_ns;
    for (int i = 0; keys != NULL && i < QY_TRACE_VALUES && keys[i] != NULL; i++) {
        record->values[i] = values[i];
    }
    lane->n_written++;
}
