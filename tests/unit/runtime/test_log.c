/* SPDX-License-Identifier: Apache-2.0 */
/* Levels by module, parsing, and what reaches the sink. */
#include "runtime/runtime.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <string.h>

struct sink {
    int lines;
    char last[2000];
};

static void keep_line(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    struct sink *sink = ctx;

    sink->lines++;
    snprintf(sink->last, sizeof(sink->last), "%d %s %s", (int)level, module, text);
}

static void log_passes_its_level_and_above(void **state)
{
    struct sink sink = {0};
    struct qy_log log = {.ctx = &sink, .write = keep_line, .level = QY_LOG_WARN};

    (void)state;
    qy_log_write(&log, QY_LOG_INFO, "net", "no");
    assert_int_equal(sink.lines, 0);
    qy_log_write(&log, QY_LOG_WARN, "net", "rank %d", 3);
    assert_int_equal(sink.lines, 1);
    assert_string_equal(sink.last, "1 net rank 3");
    qy_log_write(&log, QY_LOG_ERROR, "gpu", "x");
    assert_int_equal(sink.lines, 2);
}

static void log_module_level_overrides(void **state)
{
    struct sink sink = {0};
    struct qy_log log = {.ctx = &sink, .write = keep_line, .level = QY_LOG_ERROR};

    (void)state;
    assert_int_equal(qy_log_parse("info,net=debug,gpu=error", &log, NULL), QY_OK);
    qy_log_write(&log, QY_LOG_DEBUG, "net", "x");
    assert_int_equal(sink.lines, 1);
    qy_log_write(&log, QY_LOG_WARN, "gpu", "x");
    assert_int_equal(sink.lines, 1);
    qy_log_write(&log, QY_LOG_INFO, "model", "x");
    assert_int_equal(sink.lines, 2);
    qy_log_write(&log, QY_LOG_DEBUG, "ne", "x"); /* a prefix of a name is another name */
    qy_log_write(&log, QY_LOG_DEBUG, "nets", "x");
    assert_int_equal(sink.lines, 2);
}

static void log_parse_without_modules_names_none(void **state)
{
    struct qy_log log = {.level = QY_LOG_ERROR, .modules = "net=debug"};

    (void)state;
    assert_int_equal(qy_log_parse("trace", &log, NULL), QY_OK);
    assert_int_equal(log.level, QY_LOG_TRACE);
    assert_null(log.modules);
    assert_int_equal(qy_log_parse("net=warn", &log, NULL), QY_OK);
    assert_int_equal(log.level, QY_LOG_TRACE);
    assert_string_equal(log.modules, "net=warn");
}

static void log_parse_refuses_and_changes_nothing(void **state)
{
    const char *const bad[] = {"",      "loud",     "info,",        "net=",        "=debug",
                               ",info", "net=loud", "info,net=xyz", "info=warn=x", "warning"};
    struct qy_log log = {.level = QY_LOG_ERROR};
    struct qy_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(qy_log_parse(bad[i], &log, &err), QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, "accepted"));
    }
    assert_int_equal(log.level, QY_LOG_ERROR);
    assert_null(log.modules);
}

static void log_long_line_is_cut(void **state)
{
    struct sink sink = {0};
    struct qy_log log = {.ctx = &sink, .write = keep_line, .level = QY_LOG_WARN};
    char big[1900];

    (void)state;
    memset(big, 'y', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    qy_log_write(&log, QY_LOG_ERROR, "m", "%s", big);
    assert_int_equal(sink.lines, 1);
    assert_int_equal(strlen(sink.last), strlen("0 m ") + 1023);
}

static void log_without_sink_is_silent(void **state)
{
    struct qy_log log = {.write = NULL, .level = QY_LOG_TRACE};

    (void)state;
    qy_log_write(NULL, QY_LOG_ERROR, "m", "x");
    qy_log_write(&log, QY_LOG_ERROR, "m", "x");
    log = qy_log_stderr(QY_LOG_INFO);
    assert_non_null(log.write);
    assert_int_equal(log.level, QY_LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_passes_its_level_and_above),
        cmocka_unit_test(log_module_level_overrides),
        cmocka_unit_test(log_parse_without_modules_names_none),
        cmocka_unit_test(log_parse_refuses_and_changes_nothing),
        cmocka_unit_test(log_long_line_is_cut),
        cmocka_unit_test(log_without_sink_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
