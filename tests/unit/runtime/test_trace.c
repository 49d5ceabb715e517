/* SPDX-License-Identifier: Apache-2.0 */
/* What the trace file holds: lanes with names, the newest spans of each, in microseconds. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct qy_trace *open_trace(uint32_t n_threads, uint32_t records)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_trace *trace = NULL;

    assert_int_equal(qy_trace_open(&mem, n_threads, records, &trace, NULL), QY_OK);
    return trace;
}

/* Writes the trace to a file and reads it back as JSON; the caller deletes the document. */
static cJSON *write_and_parse(const struct qy_trace *trace)
{
    char path[] = P_tmpdir "/qy_test_trace_XXXXXX", *content = calloc(1, 1 << 16);
    int fd = mkstemp(path);
    cJSON *document;
    FILE *file;

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(qy_trace_write(trace, path, NULL), QY_OK);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(content, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    unlink(path);
    document = cJSON_Parse(content);
    free(content);
    assert_non_null(document);
    return document;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static void span(struct qy_trace_lane *lane, const char *name, uint64_t begin_ns, uint64_t end_ns,
                 double value)
{
    static const char *const keys[] = {"value", NULL};

    qy_trace_span(lane, name, begin_ns, end_ns, keys, &value);
}

/* Event i of a kind, "X" for spans. */
static const cJSON *event_at(const cJSON *document, const char *phase, int i)
{
    const cJSON *event;

    cJSON_ArrayForEach(event, cJSON_GetObjectItemCaseSensitive(document, "traceEvents"))
    {
        if (strcmp(cJSON_GetObjectItemCaseSensitive(event, "ph")->valuestring, phase) == 0 &&
            i-- == 0) {
            return event;
        }
    }
    return NULL;
}

static const char *text(const cJSON *object, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static const cJSON *args_of(const cJSON *event)
{
    return cJSON_GetObjectItemCaseSensitive(event, "args");
}

static void trace_writes_complete_events(void **state)
{
    static const char *const keys[] = {"layer", "ns", "none", NULL};
    struct qy_trace *trace = open_trace(2, 8);
    const cJSON *event;
    cJSON *document;

    (void)state;
    qy_trace_span(qy_trace_thread(trace, 1), "attend", 5000000001500, 5000000004750, keys,
                  (const double[]){12, 0.125, NAN});
    qy_trace_span(qy_trace_thread(trace, 0), "a \"b\" \\ \n c", 5000000001000, 5000000001000, NULL,
                  NULL);
    document = write_and_parse(trace);
    event = event_at(document, "X", 0);
    assert_string_equal(text(event, "name"), "a \"b\" \\   c");
    assert_float_equal(number(event, "ts"), 0, 1e-9);
    assert_int_equal(cJSON_GetArraySize(args_of(event)), 0);
    event = event_at(document, "X", 1);
    assert_string_equal(text(event, "name"), "attend");
    assert_float_equal(number(event, "ts"), 0.5, 1e-9); /* after the first span began */
    assert_float_equal(number(event, "dur"), 3.25, 1e-9);
    assert_int_equal((int)number(args_of(event), "layer"), 12);
    assert_float_equal(number(args_of(event), "ns"), 0.125, 1e-12);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(args_of(event), "none")));
    assert_null(event_at(document, "X", 2));
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_lanes_have_names_and_places(void **state)
{
    struct qy_trace *trace = open_trace(2, 8);
    struct qy_trace_lane *in = NULL;
    struct qy_trace_lane *again = NULL;
    struct qy_trace_lane *silent = NULL;
    const cJSON *event;
    cJSON *document;
    int n = 0;

    (void)state;
    assert_int_equal(qy_trace_lane_open(trace, QY_TRACE_STREAMS, "in", &in, NULL), QY_OK);
    assert_int_equal(qy_trace_lane_open(trace, QY_TRACE_STREAMS, "in", &again, NULL), QY_OK);
    assert_ptr_not_equal(in, again); /* two writers: two lanes */
    assert_int_equal(qy_trace_lane_open(trace, QY_TRACE_LINKS, "silent", &silent, NULL), QY_OK);
    span(in, "first", 10, 20, 1);
    span(again, "other", 12, 22, 2);
    qy_trace_lane_close(in);
    assert_int_equal(qy_trace_lane_open(trace, QY_TRACE_STREAMS, "in", &again, NULL), QY_OK);
    assert_ptr_equal(in, again); /* goes on */
    span(again, "second", 30, 40, 3);
    document = write_and_parse(trace);
    cJSON_ArrayForEach(event, cJSON_GetObjectItemCaseSensitive(document, "traceEvents"))
    {
        const char *name = text(event, "name");

        assert_true(number(event, "pid") >= 1 && number(event, "tid") >= 1);
        if (strcmp(name, "process_name") == 0) {
            assert_string_equal(text(args_of(event), "name"), "streams");
        } else if (strcmp(name, "thread_name") == 0) {
            assert_string_equal(text(args_of(event), "name"), "in");
            n++;
        }
    }
    assert_int_equal(n, 2); /* what recorded nothing is not there */
    assert_int_equal((int)number(event_at(document, "X", 0), "tid"),
                     (int)number(event_at(document, "X", 1), "tid"));
    assert_string_equal(text(event_at(document, "X", 1), "name"), "second");
    assert_int_not_equal((int)number(event_at(document, "X", 1), "tid"),
                         (int)number(event_at(document, "X", 2), "tid"));
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_spans_are_written_outer_first(void **state)
{
    struct qy_trace *trace = open_trace(1, 8);
    struct qy_trace_lane *lane = qy_trace_thread(trace, 0);
    cJSON *document;

    (void)state;
    span(lane, "inner", 10, 20, 0); /* an inner span ends, and so is recorded, first */
    span(lane, "outer", 10, 30, 0);
    span(lane, "next", 30, 31, 0);
    document = write_and_parse(trace);
    assert_string_equal(text(event_at(document, "X", 0), "name"), "outer");
    assert_string_equal(text(event_at(document, "X", 1), "name"), "inner");
    assert_string_equal(text(event_at(document, "X", 2), "name"), "next");
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_ring_keeps_the_newest(void **state)
{
    struct qy_trace *trace = open_trace(1, 4);
    cJSON *document;

    (void)state;
    for (uint32_t i = 0; i < 11; i++) {
        span(qy_trace_thread(trace, 0), "step", 1000 * (uint64_t)i, 1000 * (uint64_t)i + 500, i);
    }
    document = write_and_parse(trace);
    for (int i = 0; i < 4; i++) {
        assert_int_equal((int)number(args_of(event_at(document, "X", i)), "value"), 7 + i);
    }
    assert_null(event_at(document, "X", 4));
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_empty_is_a_valid_file(void **state)
{
    struct qy_trace *trace = open_trace(3, 4);
    cJSON *document = write_and_parse(trace);

    (void)state;
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(document, "traceEvents")),
                     0);
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_null_and_foreign_thread_record_nothing(void **state)
{
    struct qy_trace *trace = open_trace(1, 4);
    struct qy_trace_lane *lane = qy_trace_thread(trace, 0);
    cJSON *document;

    (void)state;
    assert_null(qy_trace_thread(NULL, 0));
    assert_null(qy_trace_thread(trace, 1));
    assert_int_equal(qy_trace_lane_open(NULL, QY_TRACE_STEPS, "x", &lane, NULL), QY_OK);
    assert_null(lane);
    span(lane, "x", 0, 1, 0);
    qy_trace_lane_close(lane);
    document = write_and_parse(trace);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(document, "traceEvents")),
                     0);
    cJSON_Delete(document);
    qy_trace_close(trace);
    qy_trace_close(NULL);
}

static void trace_file_that_cannot_be_written_is_an_error(void **state)
{
    struct qy_trace *trace = open_trace(1, 4);
    struct qy_error err;

    (void)state;
    assert_int_equal(qy_trace_write(trace, "/no/such/folder/t.json", &err), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/no/such/folder/t.json"));
    span(qy_trace_thread(trace, 0), "x", 0, 1, 0);
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(qy_trace_write(trace, "/dev/full", &err), QY_ERR_NOT_FOUND);
    }
    qy_trace_close(trace);
}

static void trace_of_nothing_is_refused(void **state)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_trace *trace = NULL;

    (void)state;
    assert_int_equal(qy_trace_open(&mem, 0, 4, &trace, NULL), QY_ERR_INVALID);
    assert_int_equal(qy_trace_open(&mem, 4, 0, &trace, NULL), QY_ERR_INVALID);
    assert_int_equal(qy_trace_open(&mem, UINT32_MAX, UINT32_MAX, &trace, NULL), QY_ERR_NOMEM);
    assert_null(trace);
}

static void trace_open_survives_each_failing_allocation(void **state)
{
    long n = 0;

    (void)state;
    for (;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_trace *trace = NULL;
        struct qy_trace_lane *lane = NULL;
        enum qy_status st = qy_trace_open(&mem, 2, 16, &trace, NULL);

        if (st == QY_OK) {
            st = qy_trace_lane_open(trace, QY_TRACE_STEPS, "steps", &lane, NULL);
            assert_true((st == QY_OK) == (lane != NULL));
        }
        qy_trace_close(trace);
        assert_int_equal(f.live, 0);
        if (st == QY_OK) {
            break;
        }
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trace_writes_complete_events),
        cmocka_unit_test(trace_lanes_have_names_and_places),
        cmocka_unit_test(trace_spans_are_written_outer_first),
        cmocka_unit_test(trace_ring_keeps_the_newest),
        cmocka_unit_test(trace_empty_is_a_valid_file),
        cmocka_unit_test(trace_null_and_foreign_thread_record_nothing),
        cmocka_unit_test(trace_file_that_cannot_be_written_is_an_error),
        cmocka_unit_test(trace_of_nothing_is_refused),
        cmocka_unit_test(trace_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
