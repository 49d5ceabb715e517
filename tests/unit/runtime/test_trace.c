/* SPDX-License-Identifier: Apache-2.0 */
/* What the trace file holds: the newest spans of each ring, oldest first, in microseconds. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include <cjson/cJSON.h>
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
    char path[] = P_tmpdir "/qy_test_trace_XXXXXX", *text = calloc(1, 1 << 16);
    int fd = mkstemp(path);
    cJSON *document;
    FILE *file;

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(qy_trace_write(trace, path, NULL), QY_OK);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    unlink(path);
    document = cJSON_Parse(text);
    free(text);
    assert_non_null(document);
    return document;
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static void trace_writes_complete_events(void **state)
{
    struct qy_trace *trace = open_trace(2, 8);
    const cJSON *events, *event, *args;
    cJSON *document;

    (void)state;
    qy_trace_span(trace, 1, "attend", 5000000001500, 5000000004750, 12, 99);
    qy_trace_span(trace, 0, "a \"b\" \\ \n c", 5000000001000, 5000000001000, 0, 0);
    document = write_and_parse(trace);
    events = cJSON_GetObjectItemCaseSensitive(document, "traceEvents");
    assert_int_equal(cJSON_GetArraySize(events), 2);
    event = cJSON_GetArrayItem(events, 0);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(event, "name")->valuestring,
                        "a \"b\" \\   c");
    assert_float_equal(number(event, "ts"), 0, 1e-9);
    event = cJSON_GetArrayItem(events, 1);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(event, "name")->valuestring, "attend");
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(event, "ph")->valuestring, "X");
    assert_float_equal(number(event, "ts"), 0.5, 1e-9); /* after the first span began */
    assert_float_equal(number(event, "dur"), 3.25, 1e-9);
    assert_int_equal((int)number(event, "tid"), 1);
    args = cJSON_GetObjectItemCaseSensitive(event, "args");
    assert_int_equal((int)number(args, "layer"), 12);
    assert_int_equal((int)number(args, "value"), 99);
    cJSON_Delete(document);
    qy_trace_close(trace);
}

static void trace_ring_keeps_the_newest(void **state)
{
    struct qy_trace *trace = open_trace(1, 4);
    const cJSON *events;
    cJSON *document;

    (void)state;
    for (uint32_t i = 0; i < 11; i++) {
        qy_trace_span(trace, 0, "step", 1000 * (uint64_t)i, 1000 * (uint64_t)i + 500, 0, i);
    }
    document = write_and_parse(trace);
    events = cJSON_GetObjectItemCaseSensitive(document, "traceEvents");
    assert_int_equal(cJSON_GetArraySize(events), 4);
    for (int i = 0; i < 4; i++) {
        const cJSON *args = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(events, i), "args");

        assert_int_equal((int)number(args, "value"), 7 + i);
    }
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
    cJSON *document;

    (void)state;
    qy_trace_span(NULL, 0, "x", 0, 1, 0, 0);
    qy_trace_span(trace, 1, "x", 0, 1, 0, 0);
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
    qy_trace_span(trace, 0, "x", 0, 1, 0, 0);
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

        if (qy_trace_open(&mem, 2, 16, &trace, NULL) == QY_OK) {
            qy_trace_close(trace);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_null(trace);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trace_writes_complete_events),
        cmocka_unit_test(trace_ring_keeps_the_newest),
        cmocka_unit_test(trace_empty_is_a_valid_file),
        cmocka_unit_test(trace_null_and_foreign_thread_record_nothing),
        cmocka_unit_test(trace_file_that_cannot_be_written_is_an_error),
        cmocka_unit_test(trace_of_nothing_is_refused),
        cmocka_unit_test(trace_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
