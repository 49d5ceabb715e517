/* SPDX-License-Identifier: Apache-2.0 */
/* Forms of a settings file, and the file and line that errors name. */
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
    char path[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int fd;

    strcpy(f->path, P_tmpdir "/qy_test_file_XXXXXX");
    fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    f->config = fixture_open(&f->values, &f->runtime);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    qy_config_close(f->config);
    unlink(f->path);
    free(f);
    return 0;
}

static enum qy_status read_bytes(struct fixture *f, const char *text, size_t n)
{
    FILE *file = fopen(f->path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return qy_config_read_file(f->config, f->path, &f->err);
}

static enum qy_status read_text(struct fixture *f, const char *text)
{
    return read_bytes(f, text, strlen(text));
}

/* The error names the file and this line. */
static void assert_line(const struct fixture *f, int line)
{
    char where[128];

    snprintf(where, sizeof(where), "%s:%d", f->path, line);
    if (strstr(f->err.text, where) == NULL) {
        fail_msg("'%s' does not name '%s'", f->err.text, where);
    }
}

static void file_full_names_and_headers_both_work(void **state)
{
    struct fixture *f = *state;
    struct qy_config_row row;
    char want[128];

    assert_int_equal(read_text(f,
                               "# a comment\n"
                               "; another\n"
                               "\n"
                               "cache.block_tokens = 16\n"
                               "[cache]\n"
                               "host_bytes=2M   # two\n"
                               "cache.budget = 0.5 ; half\n"
                               "runtime.threads = 3\n"
                               "[serve]\r\n"
                               "    enable = on\r\n"
                               "\tpath = /a#b;c d\n"
                               "mode = slow"),
                     QY_OK);
    assert_int_equal(f->values.block_tokens, 16);
    assert_true(f->values.host_bytes == 2 << 20);
    assert_float_equal(f->values.budget, 0.5, 0);
    assert_int_equal(f->runtime.threads, 3);
    assert_int_equal(f->values.enable, 1);
    assert_string_equal(f->values.path, "/a#b;c d");
    assert_int_equal(f->values.mode, 0);
    fixture_source(f->config, "serve.path", &row);
    snprintf(want, sizeof(want), "file %s:11", f->path);
    assert_string_equal(row.source, want);
}

static void file_unknown_key_names_line_and_nearest(void **state)
{
    struct fixture *f = *state;
    char want[256];

    assert_int_equal(read_text(f, "\n# x\ncache.blok_tokens = 3\n"), QY_ERR_CONFIG);
    snprintf(want, sizeof(want),
             "setting 'cache.blok_tokens' (file %s:3): no such setting; did you mean "
             "'cache.block_tokens'?",
             f->path);
    assert_string_equal(f->err.text, want);
    assert_int_equal(read_text(f, "[cache]\nblok_tokens = 3\n"), QY_ERR_CONFIG);
    assert_line(f, 2);
    assert_non_null(strstr(f->err.text, "did you mean 'cache.block_tokens'"));
}

static void file_bad_value_names_the_line(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_text(f, "cache.budget = 0.5\ncache.budget = nan\n"), QY_ERR_CONFIG);
    assert_line(f, 2);
    assert_non_null(strstr(f->err.text, "'nan' refused; numbers 0 to 1 are accepted"));
}

static void file_line_that_is_no_setting_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_text(f, "cache.budget = 0.5\nwhat is this\n"), QY_ERR_CONFIG);
    assert_line(f, 2);
    assert_int_equal(read_text(f, "\n\n[cache\nbudget = 1\n"), QY_ERR_CONFIG);
    assert_line(f, 3);
    /* the first of two errors, of whichever kind, is the one named */
    assert_int_equal(read_text(f, "garbage\ncache.budget = 9\n"), QY_ERR_CONFIG);
    assert_line(f, 1);
    assert_int_equal(read_text(f, "cache.budget = 9\ngarbage\n"), QY_ERR_CONFIG);
    assert_line(f, 1);
    assert_int_equal(read_text(f, "= 3\n"), QY_ERR_CONFIG);
    assert_line(f, 1);
}

static void file_indented_line_is_a_line_of_its_own(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_text(f, "serve.path = /x\n   cache.block_tokens = 7\n"), QY_OK);
    assert_string_equal(f->values.path, "/x");
    assert_int_equal(f->values.block_tokens, 7);
}

static void file_too_long_a_line_is_refused(void **state)
{
    struct fixture *f = *state;
    char text[5000] = "cache.budget = 0.5\nserve.path = ";

    memset(text + strlen(text), 'x', 4000);
    assert_int_equal(read_text(f, text), QY_ERR_CONFIG);
    assert_line(f, 2);
    assert_non_null(strstr(f->err.text, "too long"));
    assert_string_equal(f->values.path, "");
    memset(text, '#', 4000); /* a long comment is no harm */
    strcpy(text + 4000, "\ncache.block_tokens = 9\n");
    assert_int_equal(read_text(f, text), QY_OK);
    assert_int_equal(f->values.block_tokens, 9);
}

static void file_with_a_zero_byte_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_bytes(f, "cache.budget = 0.5\ncache.budget\0 = 1\n", 36), QY_ERR_CONFIG);
    assert_line(f, 2);
}

static void file_with_a_byte_order_mark_is_read(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_text(f,
                               "\xef\xbb\xbf"
                               "cache.block_tokens = 5\n"),
                     QY_OK);
    assert_int_equal(f->values.block_tokens, 5);
}

static void file_that_is_not_there_or_no_file_is_an_error(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(qy_config_read_file(f->config, "/no/such.conf", &f->err), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(f->err.text, "'/no/such.conf'"));
    assert_int_equal(qy_config_read_file(f->config, P_tmpdir, &f->err), QY_ERR_NOT_FOUND);
    assert_int_equal(read_text(f, ""), QY_OK);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(file_full_names_and_headers_both_work),
        CASE(file_unknown_key_names_line_and_nearest),
        CASE(file_bad_value_names_the_line),
        CASE(file_line_that_is_no_setting_is_refused),
        CASE(file_indented_line_is_a_line_of_its_own),
        CASE(file_too_long_a_line_is_refused),
        CASE(file_with_a_zero_byte_is_refused),
        CASE(file_with_a_byte_order_mark_is_read),
        CASE(file_that_is_not_there_or_no_file_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
