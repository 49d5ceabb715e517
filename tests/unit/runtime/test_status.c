/* SPDX-License-Identifier: Apache-2.0 */
/* Names of statuses and how error text is written, wrapped and cut. */
#include "runtime/runtime.h"
#include "tests/support/test.h"

#include <string.h>

static void status_names_are_their_spelling(void **state)
{
    (void)state;
    assert_string_equal(qy_status_name(QY_OK), "QY_OK");
    assert_string_equal(qy_status_name(QY_AGAIN), "QY_AGAIN");
    assert_string_equal(qy_status_name(QY_ERR_NOMEM), "QY_ERR_NOMEM");
    assert_string_equal(qy_status_name(QY_ERR_CORRUPT), "QY_ERR_CORRUPT");
    assert_string_equal(qy_status_name((enum qy_status)99), "unknown status");
}

static void error_set_keeps_status_and_text(void **state)
{
    struct qy_error err;

    (void)state;
    assert_int_equal(qy_error_set(&err, QY_ERR_PEER, "rank %d", 5), QY_ERR_PEER);
    assert_int_equal(err.status, QY_ERR_PEER);
    assert_string_equal(err.text, "rank 5");
}

static void error_without_place_returns_status(void **state)
{
    (void)state;
    assert_int_equal(qy_error_set(NULL, QY_ERR_DEVICE, "x"), QY_ERR_DEVICE);
    assert_int_equal(qy_error_wrap(NULL, QY_ERR_DEVICE, "x"), QY_ERR_DEVICE);
}

static void error_wrap_puts_prefix_before_text(void **state)
{
    struct qy_error err;

    (void)state;
    qy_error_set(&err, QY_ERR_CORRUPT, "bad magic");
    assert_int_equal(qy_error_wrap(&err, QY_ERR_CORRUPT, "file '%s'", "a.gguf"), QY_ERR_CORRUPT);
    assert_string_equal(err.text, "file 'a.gguf': bad magic");
}

static void error_may_quote_its_own_text(void **state)
{
    struct qy_error err;

    (void)state;
    qy_error_set(&err, QY_ERR_CORRUPT, "inner");
    qy_error_set(&err, QY_ERR_PEER, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
}

static void error_text_too_long_is_cut(void **state)
{
    struct qy_error err;
    char big[2000];

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    qy_error_set(&err, QY_ERR_PEER, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    qy_error_wrap(&err, QY_ERR_PEER, "%s", "prefix");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "prefix: xxx", 11);
    qy_error_wrap(&err, QY_ERR_PEER, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_names_are_their_spelling),
        cmocka_unit_test(error_set_keeps_status_and_text),
        cmocka_unit_test(error_without_place_returns_status),
        cmocka_unit_test(error_wrap_puts_prefix_before_text),
        cmocka_unit_test(error_may_quote_its_own_text),
        cmocka_unit_test(error_text_too_long_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
