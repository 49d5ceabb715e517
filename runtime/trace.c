/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished spans in one ring per thread, written as a Chrome trace. A ring has one writer; writing
 * the file is for a moment when no thread records. Nothing here samples or aggregates.
 * Source: "Trace Event Format", Google, complete events (ph "X"), times in microseconds.
 */
#include "runtime/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct record {
    const char *name;
    uint64_t begin_ns, end_ns;
    uint32_t layer, value;
};

struct ring {
    _Alignas(64) uint64_t n_written; /* its own line: neighbours' writes do not slow us down */
    struct record *records;          /* [capacity]                                           */
};

struct qy_trace {
    struct qy_allocator mem;
    struct record *records; /* of all rings */
    struct ring *rings;
    uint32_t n_threads, capacity;
};

enum qy_status qy_trace_open(const struct qy_allocator *mem, uint32_t n_threads,
                             uint32_t records_per_thread, struct qy_trace **out,
                             struct qy_error *err)
{
    struct qy_trace *trace;
    size_t bytes;

    if (n_threads == 0 || records_per_thread == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "trace of %u threads and %u records: both must be above 0", n_threads,
                            records_per_thread);
    }
    trace = qy_alloc_zero(mem, sizeof(*trace));
    if (trace == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "trace: no memory for its handle");
    }
    trace->mem = *mem;
    trace->n_threads = n_threads;
    trace->capacity = records_per_thread;
    if (!__builtin_mul_overflow((size_t)n_threads * records_per_thread, sizeof(struct record),
                                &bytes)) {
        trace->records = qy_alloc_zero(mem, bytes);
        trace->rings = qy_alloc_zero(mem, n_threads * sizeof(*trace->rings));
    }
    if (trace->records == NULL || trace->rings == NULL) {
        qy_trace_close(trace);
        return qy_error_set(err, QY_ERR_NOMEM, "trace of %u threads: no memory for %u records each",
                            n_threads, records_per_thread);
    }
    for (uint32_t i = 0; i < n_threads; i++) {
        trace->rings[i].records = trace->records + (size_t)i * records_per_thread;
    }
    *out = trace;
    return QY_OK;
}

void qy_trace_close(struct qy_trace *trace)
{
    if (trace != NULL) {
        struct qy_allocator mem = trace->mem;

        qy_free(&mem, trace->rings);
        qy_free(&mem, trace->records);
        qy_free(&mem, trace);
    }
}

void qy_trace_span(struct qy_trace *trace, uint32_t thread, const char *name, uint64_t begin_ns,
                   uint64_t end_ns, uint32_t layer, uint32_t value)
{
    struct ring *ring;

    if (trace == NULL || thread >= trace->n_threads) {
        return;
    }
    ring = &trace->rings[thread];
    ring->records[ring->n_written % trace->capacity] = (struct record){
        .name = name, .begin_ns = begin_ns, .end_ns = end_ns, .layer = layer, .value = value};
    ring->n_written++;
}

/* Records that the ring still has, and the place of the oldest. */
static uint32_t ring_span(const struct qy_trace *trace, const struct ring *ring, uint64_t *first)
{
    if (ring->n_written <= trace->capacity) {
        *first = 0;
        return (uint32_t)ring->n_written;
    }
    *first = ring->n_written % trace->capacity;
    return trace->capacity;
}

/* The first begin of all: times in the file count from it, so that a double holds them. */
static uint64_t find_start(const struct qy_trace *trace)
{
    uint64_t start = UINT64_MAX;

    for (uint32_t t = 0; t < trace->n_threads; t++) {
        uint64_t first;
        uint32_t n = ring_span(trace, &trace->rings[t], &first);

        for (uint32_t i = 0; i < n; i++) {
            uint64_t begin = trace->rings[t].records[i].begin_ns;

            start = begin < start ? begin : start;
        }
    }
    return start;
}

static void write_name(FILE *file, const char *name)
{
    for (const char *p = name; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            fputc('\\', file);
        }
        fputc((unsigned char)*p < ' ' ? ' ' : *p, file);
    }
}

/* Nanoseconds as microseconds, exact. */
static void write_time(FILE *file, const char *key, uint64_t ns)
{
    fprintf(file, "\"%s\":%" PRIu64 ".%03u,", key, ns / 1000, (unsigned)(ns % 1000));
}

static void write_record(FILE *file, const struct record *r, uint32_t thread, uint64_t start)
{
    fputs("{\"name\":\"", file);
    write_name(file, r->name);
    fprintf(file, "\",\"ph\":\"X\",\"pid\":0,\"tid\":%u,", thread);
    write_time(file, "ts", r->begin_ns - start);
    write_time(file, "dur", r->end_ns > r->begin_ns ? r->end_ns - r->begin_ns : 0);
    fprintf(file, "\"args\":{\"layer\":%u,\"value\":%u}}", r->layer, r->value);
}

enum qy_status qy_trace_write(const struct qy_trace *trace, const char *path, struct qy_error *err)
{
    uint64_t start = find_start(trace);
    const char *separator = "\n";
    FILE *file = fopen(path, "we");
    int failed;

    if (file == NULL) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "trace file '%s': cannot be written (%s)", path,
                            strerror(errno));
    }
    fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", file);
    for (uint32_t t = 0; t < trace->n_threads; t++) {
        uint64_t first;
        uint32_t n = ring_span(trace, &trace->rings[t], &first);

        for (uint32_t i = 0; i < n; i++) {
            fputs(separator, file);
            write_record(file, &trace->rings[t].records[(first + i) % trace->capacity], t, start);
            separator = ",\n";
        }
    }
    fputs("\n]}\n", file);
    failed = ferror(file);
    if ((fclose(file) != 0) | failed) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "trace file '%s': not written whole (%s)", path,
                            strerror(errno));
    }
    return QY_OK;
}
