/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults, assignments, which source wins, what errors say, rows and the hash. */
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/config_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    struct fixture_values values;
    struct qy_runtime_settings runtime;
    struct qy_config *config;
    struct qy_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->config = fixture_open(&f->values, &f->runtime);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    qy_config_close(f->config);
    unsetenv("QY_CACHE_BLOCK_TOKENS");
    free(f);
    return 0;
}

static void config_open_fills_the_defaults(void **state)
{
    struct fixture *f = *state;
    struct qy_config_row row;

    assert_int_equal(f->values.block_tokens, 128);
    assert_true(f->values.host_bytes == 0);
    assert_float_equal(f->values.budget, 0.25, 0);
    assert_int_equal(f->values.enable, 0);
    assert_int_equal(f->values.mode, 1);
    assert_string_equal(f->values.path, "");
    assert_int_equal(f->runtime.threads, 0);
    assert_int_equal(f->runtime.bind, QY_BIND_CORE);
    assert_string_equal(f->runtime.log, "warn");
    assert_string_equal(fixture_source(f->config, "runtime.log", &row), "default");
}

static void config_set_changes_the_value_and_its_source(void **state)
{
    struct fixture *f = *state;
    struct qy_config_row row;

    assert_int_equal(qy_config_set(f->config, " cache.block_tokens = 64 ", "--set", &f->err),
                     QY_OK);
    assert_int_equal(f->values.block_tokens, 64);
    assert_string_equal(fixture_source(f->config, "cache.block_tokens", &row), "--set");
    assert_string_equal(row.value, "64");
    assert_int_equal(qy_config_set_value(f->config, "serve.path", "a=b", "--path", &f->err), QY_OK);
    assert_string_equal(f->values.path, "a=b");
    assert_int_equal(qy_config_set(f->config, "serve.path=", "--set", &f->err), QY_OK);
    assert_string_equal(f->values.path, ""); /* the later of two of one source wins */
}

static void config_unknown_name_suggests_the_nearest(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(qy_config_set(f->config, "cache.blok_tokens=64", "--set", &f->err),
                     QY_ERR_CONFIG);
    assert_string_equal(f->err.text,
                        "setting 'cache.blok_tokens' (--set): no such setting; did "
                        "you mean 'cache.block_tokens'?");
    assert_int_equal(qy_config_set(f->config, "threads=2", "--set", &f->err), QY_ERR_CONFIG);
    assert_non_null(strstr(f->err.text, "'runtime.threads'?"));
    assert_int_equal(qy_config_set(f->config, "qqqqqqqqqq=2", "--set", &f->err), QY_ERR_CONFIG);
    assert_null(strstr(f->err.text, "did you mean"));
    assert_non_null(strstr(f->err.text, "quarry config"));
}

static void config_bad_value_says_what_is_accepted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(qy_config_set(f->config, "runtime.threads=abc", "--set", &f->err),
                     QY_ERR_CONFIG);
    assert_string_equal(f->err.text,
                        "setting 'runtime.threads' (--set): value 'abc' refused; "
                        "whole numbers 0 to 256 are accepted");
    assert_int_equal(qy_config_set(f->config, "runtime.bind=socket", "--set", &f->err),
                     QY_ERR_CONFIG);
    assert_string_equal(f->err.text,
                        "setting 'runtime.bind' (--set): value 'socket' refused; "
                        "core, numa and none are accepted");
    assert_int_equal(f->runtime.threads, 0);
    assert_int_equal(f->runtime.bind, QY_BIND_CORE);
}

static void config_assignment_without_a_name_is_refused(void **state)
{
    static const char *const bad[] = {"cache.block_tokens", "", "=3", " = 3"};
    struct fixture *f = *state;
    char big[2000] = "serve.path=";

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(qy_config_set(f->config, bad[i], "--set", &f->err), QY_ERR_CONFIG);
        assert_non_null(strstr(f->err.text, "section.name=value"));
    }
    memset(big + strlen(big), 'x', 1500);
    assert_int_equal(qy_config_set(f->config, big, "--set", &f->err), QY_ERR_CONFIG);
    memset(big, 'x', 1500);
    assert_int_equal(qy_config_set(f->config, big, "--set", &f->err), QY_ERR_CONFIG);
    assert_string_equal(f->values.path, "");
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Every order of the three calls ends with the command line's value. */
static void config_source_order_does_not_depend_on_calls(void **state)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    struct fixture *f = *state;
    char path[] = P_tmpdir "/qy_test_config_XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    write_file(path, "cache.block_tokens = 11\ncache.budget = 0.5\nserve.mode = slow\n");
    setenv("QY_CACHE_BLOCK_TOKENS", "22", 1);
    setenv("QY_CACHE_BUDGET", "0.75", 1);
    for (int o = 0; o < 6; o++) {
        qy_config_close(f->config);
        f->config = fixture_open(&f->values, &f->runtime);
        for (int i = 0; i < 3; i++) {
            enum qy_status st =
                orders[o][i] == 0 ? qy_config_read_file(f->config, path, &f->err)
                : orders[o][i] == 1
                    ? qy_config_read_env(f->config, &f->err)
                    : qy_config_set(f->config, "cache.block_tokens=33", "--set", &f->err);
            assert_int_equal(st, QY_OK);
        }
        assert_int_equal(f->values.block_tokens, 33);
        assert_float_equal(f->values.budget, 0.75, 0);
        assert_int_equal(f->values.mode, 0);
    }
    unsetenv("QY_CACHE_BUDGET");
    unlink(path);
}

static void config_weaker_source_is_still_checked(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(qy_config_set(f->config, "cache.block_tokens=33", "--set", &f->err), QY_OK);
    setenv("QY_CACHE_BLOCK_TOKENS", "many", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_ERR_CONFIG);
    assert_non_null(strstr(f->err.text, "QY_CACHE_BLOCK_TOKENS"));
    assert_int_equal(f->values.block_tokens, 33);
}

static void config_rows_come_in_table_order(void **state)
{
    struct fixture *f = *state;
    struct qy_config_row row;
    size_t n = FIXTURE_ROWS + qy_runtime_setting_count;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(qy_config_row_at(f->config, i, &row), 1);
        assert_ptr_equal(row.setting, i < FIXTURE_ROWS
                                          ? &fixture_rows[i]
                                          : &qy_runtime_setting_rows[i - FIXTURE_ROWS]);
    }
    assert_int_equal(qy_config_row_at(f->config, n, &row), 0);
    assert_int_equal(qy_config_row_at(f->config, SIZE_MAX, &row), 0);
    qy_config_row_at(f->config, 1, &row);
    assert_string_equal(row.value, "auto");
}

static void config_hash_follows_the_values(void **state)
{
    struct fixture *f = *state;
    uint64_t before = qy_config_hash(f->config), changed;

    assert_int_equal(qy_config_set(f->config, "serve.mode=faster", "--set", &f->err), QY_OK);
    changed = qy_config_hash(f->config);
    assert_true(changed != before);
    assert_int_equal(qy_config_set(f->config, "serve.mode=fast", "--set", &f->err), QY_OK);
    assert_true(qy_config_hash(f->config) == before); /* the source does not count */
}

static void config_table_with_a_bad_default_is_invalid(void **state)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_setting row = fixture_rows[0];
    struct fixture_values values;
    struct qy_setting_table table = {.rows = &row, .n_rows = 1, .values = &values};
    struct qy_config *config = NULL;

    (void)state;
    row.initial = "0";
    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_ERR_INVALID);
    assert_null(config);
    qy_config_close(NULL);
}

static void config_open_survives_each_failing_allocation(void **state)
{
    struct fixture_values values;
    struct qy_setting_table table = {
        .rows = fixture_rows, .n_rows = FIXTURE_ROWS, .values = &values};
    long n = 0;

    (void)state;
    for (;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_config *config = NULL;

        if (qy_config_open(&mem, &table, 1, &config, NULL) == QY_OK) {
            qy_config_close(config);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_null(config);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(config_open_fills_the_defaults),
        CASE(config_set_changes_the_value_and_its_source),
        CASE(config_unknown_name_suggests_the_nearest),
        CASE(config_bad_value_says_what_is_accepted),
        CASE(config_assignment_without_a_name_is_refused),
        CASE(config_source_order_does_not_depend_on_calls),
        CASE(config_weaker_source_is_still_checked),
        CASE(config_rows_come_in_table_order),
        CASE(config_hash_follows_the_values),
        cmocka_unit_test(config_table_with_a_bad_default_is_invalid),
        cmocka_unit_test(config_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
