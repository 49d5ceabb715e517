/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace as a file that Perfetto and chrome://tracing open: a process per group of lanes, a thread
 * per lane, spans by their beginning, the longer first where two begin together, so that what lies
 * inside comes behind what it lies in.
 * Source: "Trace Event Format", Google: complete events (ph "X"), times in microseconds; metadata
 * events (ph "M") give the names.
 */
#include "runtime/trace_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *group_name(enum qy_trace_group group)
{
    switch (group) {
    case QY_TRACE_STEPS:
        return "steps";
    case QY_TRACE_THREADS:
        return "threads";
    case QY_TRACE_MICRO_BATCHES:
        return "micro-batches";
    case QY_TRACE_STREAMS:
        return "streams";
    case QY_TRACE_LINKS:
        return "links";
    }
    return "?";
}

static int by_time(const void *a, const void *b)
{
    const struct qyi_trace_record *x = *(const struct qyi_trace_record *const *)a;
    const struct qyi_trace_record *y = *(const struct qyi_trace_record *const *)b;

    if (x->begin_ns != y->begin_ns) {
        return x->begin_ns < y->begin_ns ? -1 : 1;
    }
    return (x->end_ns < y->end_ns) - (x->end_ns > y->end_ns);
}

/* The first begin of all: times in the file count from it, so that a double holds them. */
static uint64_t find_start(const struct qy_trace *trace)
{
    uint64_t start = UINT64_MAX;

    for (const struct qy_trace_lane *lane = trace->first; lane != NULL; lane = lane->next) {
        for (uint32_t i = 0; i < qyi_trace_count(lane); i++) {
            const uint64_t begin = lane->records[i].begin_ns;

            start = begin < start ? begin : start;
        }
    }
    return start;
}

static void write_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            fputc('\\', file);
        }
        fputc((unsigned char)*p < ' ' ? ' ' : *p, file);
    }
    fputc('"', file);
}

static void write_number(FILE *file, double value)
{
    if (!isfinite(value)) {
        fputs("null", file);
    } else if (value > -9e15 && value < 9e15 && value == (double)(int64_t)value) {
        fprintf(file, "%.0f", value);
    } else {
        fprintf(file, "%.9g", value);
    }
}

/* Nanoseconds as microseconds, exact. */
static void write_time(FILE *file, const char *key, uint64_t ns)
{
    fprintf(file, "\"%s\":%" PRIu64 ".%03u,", key, ns / 1000, (unsigned)(ns % 1000));
}

static void write_name(FILE *file, const char *what, int process, uint32_t number, const char *name)
{
    fprintf(file,
            "{\"name\":\"%s_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%u,\"args\":{\"name\":", what,
            process, number);
    write_text(file, name);
    fprintf(file,
            "}},\n{\"name\":\"%s_sort_index\",\"ph\":\"M\",\"pid\":%d,\"tid\":%u,\"args\":"
            "{\"sort_index\":%u}}",
            what, process, number, strcmp(what, "process") == 0 ? (uint32_t)process : number);
}

static void write_record(FILE *file, const struct qyi_trace_record *r, int process, uint32_t number,
                         uint64_t start)
{
    fputs(",\n{\"name\":", file);
    write_text(file, r->name);
    fprintf(file, ",\"ph\":\"X\",\"pid\":%d,\"tid\":%u,", process, number);
    write_time(file, "ts", r->begin_ns - start);
    write_time(file, "dur", r->end_ns - r->begin_ns);
    fputs("\"args\":{", file);
    for (int i = 0; r->keys != NULL && i < QY_TRACE_VALUES && r->keys[i] != NULL; i++) {
        fputs(i > 0 ? "," : "", file);
        write_text(file, r->keys[i]);
        fputc(':', file);
        write_number(file, r->values[i]);
    }
    fputs("}}", file);
}

/* Lanes that recorded nothing are left out. sorted: room for a lane's records. */
static void write_lanes(FILE *file, const struct qy_trace *trace,
                        const struct qyi_trace_record **sorted)
{
    const uint64_t start = find_start(trace);
    const char *separator = "\n";
    uint32_t number = 1; /* 0 is the idle thread of a machine */

    for (const struct qy_trace_lane *lane = trace->first; lane != NULL; lane = lane->next) {
        const int process = 1 + (int)lane->group;
        const uint32_t n = qyi_trace_count(lane);

        if (n == 0) {
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            sorted[i] = &lane->records[i];
        }
        qsort(sorted, n, sizeof(*sorted), by_time);
        fputs(separator, file);
        write_name(file, "process", process, number, group_name(lane->group));
        fputs(",\n", file);
        write_name(file, "thread", process, number, lane->name);
        for (uint32_t i = 0; i < n; i++) {
            write_record(file, sorted[i], process, number, start);
        }
        separator = ",\n";
        number++;
    }
}

enum qy_status qy_trace_write(const struct qy_trace *trace, const char *path, struct qy_error *err)
{
    const struct qyi_trace_record **sorted =
        trace->mem.alloc(trace->mem.ctx, trace->capacity * sizeof(*sorted), 64);
    FILE *file;
    int failed;

    if (sorted == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "trace file '%s': no memory to sort %u records",
                            path, trace->capacity);
    }
    file = fopen(path, "we");
    if (file == NULL) {
        qy_free(&trace->mem, (void *)sorted);
        return qy_error_set(err, QY_ERR_NOT_FOUND, "trace file '%s': cannot be written (%s)", path,
                            strerror(errno));
    }
    fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[", file);
    write_lanes(file, trace, sorted);
    fputs("\n]}\n", file);
    qy_free(&trace->mem, (void *)sorted);
    failed = ferror(file);
    if ((fclose(file) != 0) | failed) {
        return qy_error_set(err, QY_ERR_NOT_FOUND, "trace file '%s': not written whole (%s)", path,
                            strerror(errno));
    }
    return QY_OK;
}
