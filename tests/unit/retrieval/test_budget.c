/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets: what is read, what is refused, and how many tokens they allow. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <string.h>

static void budget_accepted_text_is_read(void **state)
{
    static const struct {
        const char *text;
        struct qy_budget want;
    } cases[] = {
        {"0.03", {.ratio = 0.03}},
        {"1.0", {.ratio = 1.0}},
        {"1", {.ratio = 1.0}},
        {".5", {.ratio = 0.5}},
        {"2048", {.tokens = 2048}},
        {"2", {.tokens = 2}},
        {"p0.95:0.10", {.ratio = 0.10, .mass = 0.95}},
        {"p0.9:512", {.tokens = 512, .mass = 0.9}},
        {"p1.0:1.0", {.ratio = 1.0, .mass = 1.0}},
        {"p0.94~4096:0.10", {.ratio = 0.10, .mass = 0.94, .mass_at = 4096}},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_budget got = {0};
        struct qy_error err = {0};

        assert_int_equal(qy_budget_parse(cases[i].text, &got, &err), QY_OK);
        assert_float_equal(got.ratio, cases[i].want.ratio, 1e-12);
        assert_float_equal(got.mass, cases[i].want.mass, 1e-12);
        assert_int_equal(got.tokens, cases[i].want.tokens);
        assert_int_equal(got.mass_at, cases[i].want.mass_at);
    }
}

static void budget_refused_text_is_named_and_nothing_is_written(void **state)
{
    static const char *const bad[] = {"",           "0",           "0.0",
                                      "-1",         "-0.1",        "nan",
                                      "inf",        "1.5",         "2.0",
                                      "0x10",       "1e3",         "5%",
                                      "0.1 ",       " 0.1",        "0.1.2",
                                      "p",          "p0.95",       "p:",
                                      "p0.95:",     "p:0.1",       "p0:0.1",
                                      "p1.2:0.1",   "p0.9:0",      "p0.9:1.5",
                                      "p0.95:p0.1", "99999999999", "12345678901234567890",
                                      ".",          "auto",        "p0.9~:0.1",
                                      "p0.9~0:0.1", "p0.9~1.5:.1", "p0.9~4096"};
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct qy_budget got = {.ratio = 7.0};
        struct qy_error err = {0};

        assert_int_equal(qy_budget_parse(bad[i], &got, &err), QY_ERR_CONFIG);
        assert_int_equal(err.status, QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, "accepted"));
        assert_non_null(strstr(err.text, bad[i]));
        assert_float_equal(got.ratio, 7.0, 0.0);
        assert_int_equal(qy_budget_parse(bad[i], &got, NULL), QY_ERR_CONFIG);
    }
}

static void budget_tokens_round_up_and_stay_within_n(void **state)
{
    static const struct {
        struct qy_budget budget;
        uint32_t n, want;
    } cases[] = {
        {{.ratio = 0.03}, 1000, 30},
        {{.ratio = 0.03}, 1001, 31},
        {{.ratio = 0.1}, 30, 3},
        {{.ratio = 0.1}, 31, 4},
        {{.ratio = 0.7}, 10, 7},
        {{.ratio = 1.0}, 12345, 12345},
        {{.ratio = 0.001}, 5, 1},
        {{.ratio = 0.5}, 0, 0},
        {{.tokens = 2048}, 100, 100},
        {{.tokens = 64}, 100, 64},
        {{.ratio = 0.1, .mass = 0.9}, 50, 5},
        {{.ratio = 1.0}, UINT32_MAX, UINT32_MAX},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(qy_budget_tokens(&cases[i].budget, cases[i].n), cases[i].want);
    }
}

static void budget_mass_left_out_shrinks_with_the_length(void **state)
{
    const struct qy_budget fixed = {.ratio = 0.1, .mass = 0.94};
    const struct qy_budget scaled = {.ratio = 0.1, .mass = 0.94, .mass_at = 4096};
    const struct qy_budget none = {.ratio = 0.1, .mass_at = 4096};
    (void)state;

    assert_float_equal(qy_budget_mass(&fixed, 100000), 0.94, 1e-12);
    assert_float_equal(qy_budget_mass(&none, 100000), 0.0, 0.0);
    assert_float_equal(qy_budget_mass(&scaled, 4096), 0.94, 1e-12);
    assert_float_equal(qy_budget_mass(&scaled, 4 * 4096), 0.985, 1e-12);
    assert_float_equal(qy_budget_mass(&scaled, 1024), 0.94, 1e-12);
    assert_float_equal(qy_budget_mass(&scaled, 0), 0.94, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget_accepted_text_is_read),
        cmocka_unit_test(budget_refused_text_is_named_and_nothing_is_written),
        cmocka_unit_test(budget_tokens_round_up_and_stay_within_n),
        cmocka_unit_test(budget_mass_left_out_shrinks_with_the_length),
    };
    return cmocka_run_group_tests_name("retrieval.budget", tests, NULL, NULL);
}
