/* SPDX-License-Identifier: Apache-2.0 */
/* Values by type: what is taken, what is refused, and that the written form reads back the same. */
#include "tests/support/test.h"
#include "tests/unit/runtime/config_fixture.h"

#include <stdio.h>
#include <string.h>

struct fixture {
    struct fixture_values values;
    struct qy_runtime_settings runtime;
    struct qy_config *config;
};

static enum qy_status set(struct fixture *f, const char *name, const char *value)
{
    return qy_config_set_value(f->config, name, value, "--set", NULL);
}

static void check_refused(const char *name, const char *const *bad, size_t n)
{
    struct fixture f;
    struct fixture_values before;

    f.config = fixture_open(&f.values, &f.runtime);
    memcpy(&before, &f.values, sizeof(before)); /* padding and all */
    for (size_t i = 0; i < n; i++) {
        if (set(&f, name, bad[i]) != QY_ERR_CONFIG) {
            fail_msg("'%s' took '%s'", name, bad[i]);
        }
        assert_memory_equal(&f.values, &before, sizeof(before));
    }
    qy_config_close(f.config);
}

#define REFUSED(name, ...)                                                                         \
    do {                                                                                           \
        const char *const bad[] = {__VA_ARGS__};                                                   \
        check_refused(name, bad, sizeof(bad) / sizeof(bad[0]));                                    \
    } while (0)

static void value_int_out_of_range_or_form_is_refused(void **state)
{
    (void)state;
    REFUSED("cache.block_tokens", "0", "4097", "-1", "", " 5", "5 ", "+5", "5x", "0x10", "1e2",
            "1.0", "99999999999999999999", "-99999999999999999999", "auto", "nan", "-");
}

static void value_real_not_finite_or_out_of_range_is_refused(void **state)
{
    (void)state;
    REFUSED("cache.budget", "nan", "-nan", "NAN", "inf", "-inf", "1e999", "1.0001", "-0.1", "",
            " 0.5", "0.5 ", "half", "0.5.1", "auto");
}

static void value_size_out_of_range_or_form_is_refused(void **state)
{
    (void)state;
    REFUSED("cache.host_bytes", "0", "1023K", "1048575", "1025G", "2T", "-1M", "", "M", "1X", "1KB",
            "1M ", "1.5", "nan", "99999999999999999999", "20000000T");
}

static void value_bool_and_choice_take_their_words_only(void **state)
{
    (void)state;
    REFUSED("serve.enable", "1", "true", "ON", "", "o", "on|off");
    REFUSED("serve.mode", "", "fas", "fasterer", "slow|fast", "|", "1");
}

static void value_text_takes_255_bytes(void **state)
{
    struct fixture f;
    char text[300];

    (void)state;
    f.config = fixture_open(&f.values, &f.runtime);
    memset(text, 'p', sizeof(text));
    text[255] = '\0';
    assert_int_equal(set(&f, "serve.path", text), QY_OK);
    assert_string_equal(f.values.path, text);
    text[255] = 'p';
    text[256] = '\0';
    assert_int_equal(set(&f, "serve.path", text), QY_ERR_CONFIG);
    assert_int_equal(set(&f, "serve.path", "s"), QY_OK);
    for (size_t i = 1; i < sizeof(f.values.path); i++) {
        assert_int_equal(f.values.path[i], 0); /* nothing of the longer text stays */
    }
    qy_config_close(f.config);
}

static void value_edges_of_a_range_are_taken(void **state)
{
    struct fixture f;

    (void)state;
    f.config = fixture_open(&f.values, &f.runtime);
    assert_int_equal(set(&f, "cache.block_tokens", "1"), QY_OK);
    assert_int_equal(set(&f, "cache.block_tokens", "4096"), QY_OK);
    assert_int_equal(set(&f, "cache.budget", "0"), QY_OK);
    assert_int_equal(set(&f, "cache.budget", "1"), QY_OK);
    assert_int_equal(set(&f, "cache.host_bytes", "1M"), QY_OK);
    assert_int_equal(set(&f, "cache.host_bytes", "1T"), QY_OK);
    assert_true(f.values.host_bytes == (uint64_t)1 << 40);
    assert_int_equal(set(&f, "cache.host_bytes", "auto"), QY_OK);
    assert_true(f.values.host_bytes == 0);
    qy_config_close(f.config);
}

/* What a row prints can be written into a file and means the same. */
static void value_written_form_reads_back(void **state)
{
    static const struct {
        const char *name, *value, *written;
    } cases[] = {
        {"cache.block_tokens", "007", "7"},
        {"cache.host_bytes", "1536K", "1536K"},
        {"cache.host_bytes", "1.5G", "1536M"},
        {"cache.host_bytes", "1048577", "1048577"},
        {"cache.host_bytes", "2048m", "2G"},
        {"cache.host_bytes", "auto", "auto"},
        {"cache.budget", "0.1", "0.1"},
        {"cache.budget", "1e-3", "0.001"},
        {"cache.budget", "0.30000000000000004", "0.30000000000000004"},
        {"serve.enable", "on", "on"},
        {"serve.mode", "faster", "faster"},
        {"serve.path", "/x y", "/x y"},
    };
    struct fixture f;

    (void)state;
    f.config = fixture_open(&f.values, &f.runtime);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_config_row row;
        struct fixture_values before;

        assert_int_equal(set(&f, cases[i].name, cases[i].value), QY_OK);
        fixture_source(f.config, cases[i].name, &row);
        assert_string_equal(row.value, cases[i].written);
        memcpy(&before, &f.values, sizeof(before)); /* padding and all */
        assert_int_equal(set(&f, cases[i].name, row.value), QY_OK);
        assert_memory_equal(&f.values, &before, sizeof(before));
    }
    qy_config_close(f.config);
}

static void value_accepted_text_names_range_and_auto(void **state)
{
    struct fixture f;
    struct qy_error err;

    (void)state;
    f.config = fixture_open(&f.values, &f.runtime);
    assert_int_equal(qy_config_set_value(f.config, "cache.host_bytes", "x", "--set", &err),
                     QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "sizes 1M to 1T"));
    assert_non_null(strstr(err.text, "'auto'"));
    assert_int_equal(qy_config_set_value(f.config, "serve.enable", "x", "--set", &err),
                     QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "on and off are accepted"));
    qy_config_close(f.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(value_int_out_of_range_or_form_is_refused),
        cmocka_unit_test(value_real_not_finite_or_out_of_range_is_refused),
        cmocka_unit_test(value_size_out_of_range_or_form_is_refused),
        cmocka_unit_test(value_bool_and_choice_take_their_words_only),
        cmocka_unit_test(value_text_takes_255_bytes),
        cmocka_unit_test(value_edges_of_a_range_are_taken),
        cmocka_unit_test(value_written_form_reads_back),
        cmocka_unit_test(value_accepted_text_names_range_and_auto),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
