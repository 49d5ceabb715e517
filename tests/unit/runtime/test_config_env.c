/* SPDX-License-Identifier: Apache-2.0 */
/* Settings from the environment. */
#include "tests/support/test.h"
#include "tests/unit/runtime/config_fixture.h"

#include <stdlib.h>
#include <string.h>

struct fixture {
    struct fixture_values values;
    struct qy_runtime_settings runtime;
    struct qy_config *config;
    struct qy_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    /* whatever started the test must not matter */
    unsetenv("QY_CPU");
    unsetenv("QY_LOG");
    f->config = fixture_open(&f->values, &f->runtime);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {
        "QY_CACHE_BLOCK_TOKENS", "QY_LOG",           "QY_RUNTIME_LOG",          "QY_CPU",
        "QY_RUNTIME_THREDS",     "QY_TEST_ANYTHING", "QY_SOMETHING_QUITE_ELSE", "QY_SERVE_PATH"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unsetenv(names[i]);
    }
    qy_config_close(f->config);
    free(f);
    return 0;
}

static void env_sets_by_full_and_short_name(void **state)
{
    struct fixture *f = *state;
    struct qy_config_row row;

    setenv("QY_CACHE_BLOCK_TOKENS", "512", 1);
    setenv("QY_CPU", "plain", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_OK);
    assert_int_equal(f->values.block_tokens, 512);
    assert_int_equal(f->runtime.cpu, 3);
    assert_string_equal(fixture_source(f->config, "runtime.cpu", &row), "QY_CPU");
    assert_string_equal(fixture_source(f->config, "cache.block_tokens", &row),
                        "QY_CACHE_BLOCK_TOKENS");
}

static void env_full_name_wins_over_the_short_one(void **state)
{
    struct fixture *f = *state;

    setenv("QY_RUNTIME_LOG", "info", 1);
    setenv("QY_LOG", "debug", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_OK);
    assert_string_equal(f->runtime.log, "info");
    unsetenv("QY_RUNTIME_LOG");
    setenv("QY_RUNTIME_LOG", "trace", 1); /* now after QY_LOG in the environment */
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_OK);
    assert_string_equal(f->runtime.log, "trace");
}

static void env_unknown_variable_is_an_error_with_the_nearest(void **state)
{
    struct fixture *f = *state;

    setenv("QY_RUNTIME_THREDS", "2", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_ERR_CONFIG);
    assert_string_equal(f->err.text,
                        "environment variable 'QY_RUNTIME_THREDS': no such setting; "
                        "did you mean 'QY_RUNTIME_THREADS'?");
    unsetenv("QY_RUNTIME_THREDS");
    setenv("QY_SOMETHING_QUITE_ELSE", "2", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_ERR_CONFIG);
    assert_non_null(strstr(f->err.text, "QY_SOMETHING_QUITE_ELSE"));
    assert_null(strstr(f->err.text, "did you mean"));
}

static void env_bad_value_names_the_variable(void **state)
{
    struct fixture *f = *state;

    setenv("QY_CPU", "mmx", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_ERR_CONFIG);
    assert_string_equal(f->err.text,
                        "setting 'runtime.cpu' (QY_CPU): value 'mmx' refused; auto, "
                        "avx512, avx2 and plain are accepted");
}

static void env_of_tests_and_empty_variables_are_passed_over(void **state)
{
    struct fixture *f = *state;

    setenv("QY_TEST_ANYTHING", "1", 1);
    setenv("QY_CPU", "", 1);
    assert_int_equal(qy_config_read_env(f->config, &f->err), QY_OK);
    assert_int_equal(f->runtime.cpu, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(env_sets_by_full_and_short_name),
        CASE(env_full_name_wins_over_the_short_one),
        CASE(env_unknown_variable_is_an_error_with_the_nearest),
        CASE(env_bad_value_names_the_variable),
        CASE(env_of_tests_and_empty_variables_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
