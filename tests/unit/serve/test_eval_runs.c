/* SPDX-License-Identifier: Apache-2.0 */
/* What quarry eval runs, and how it draws. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

static void draws_stay_below_and_shuffles_keep_all(void **state)
{
    (void)state;
    struct qyi_eval_random random = {42};
    uint32_t items[100], seen[100] = {0}, moved = 0;
    for (uint32_t i = 0; i < 100; i++) {
        items[i] = i;
        assert_true(qyi_eval_draw(&random, i + 1) <= i);
    }
    assert_int_equal(qyi_eval_draw(&random, 0), 0);
    qyi_eval_shuffle(&random, items, 100);
    for (uint32_t i = 0; i < 100; i++) {
        seen[items[i]]++;
        moved += items[i] != i;
    }
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(seen[i], 1);
    }
    assert_true(moved > 80);
    qyi_eval_shuffle(&random, items, 0);
}

static void runs_are_read_from_lists(void **state)
{
    (void)state;
    struct qy_retrieval_settings settings = {.policy = "exact", .budget = "auto"};
    struct qyi_eval_runs *runs = calloc(1, sizeof *runs);
    struct qy_error err;
    assert_non_null(runs);
    assert_int_equal(qyi_eval_runs_parse(NULL, NULL, &settings, runs, &err), QY_OK);
    assert_int_equal(runs->n, 1);
    assert_string_equal(runs->run[0].policy, "exact");
    assert_string_equal(runs->run[0].budget, "auto");

    assert_int_equal(qyi_eval_runs_parse("exact@0.03/cache.window=64/preset=fast,window,exact",
                                         NULL, &settings, runs, &err),
                     QY_OK);
    assert_int_equal(runs->n, 3);
    assert_string_equal(runs->run[0].budget, "0.03");
    assert_int_equal(runs->run[0].n_sets, 2);
    assert_string_equal(runs->run[0].sets[0], "cache.window=64");
    assert_string_equal(runs->run[0].sets[1], "retrieval.preset=fast");
    assert_string_equal(runs->run[1].policy, "window");
    assert_string_equal(runs->run[2].budget, "auto");

    assert_int_equal(qyi_eval_runs_parse("exact,window,exact@16/codebook=/a/b.qcb/rerank=off",
                                         "0.01,p0.9:0.2", &settings, runs, &err),
                     QY_OK);
    assert_int_equal(runs->n, 4); /* exact twice, window once, exact@16 once */
    assert_string_equal(runs->run[0].label, "exact@0.01");
    assert_string_equal(runs->run[1].budget, "p0.9:0.2");
    assert_string_equal(runs->run[2].policy, "window");
    assert_string_equal(runs->run[3].budget, "16");
    assert_string_equal(runs->run[3].sets[0], "retrieval.codebook=/a/b.qcb");
    assert_string_equal(runs->run[3].sets[1], "retrieval.rerank=off");

    assert_int_equal(qyi_eval_runs_parse("faiss:IVF64,Flat@p0.9:0.2,faiss:Flat,exact", NULL,
                                         &settings, runs, &err),
                     QY_OK);
    assert_int_equal(runs->n, 3);
    assert_string_equal(runs->run[0].policy, "faiss:IVF64,Flat");
    assert_string_equal(runs->run[0].budget, "p0.9:0.2");
    assert_string_equal(runs->run[1].policy, "faiss:Flat");

    static const char *const bad[] = {
        "", "exakt", "exact@7.5", "exact/", "exact/cache.window", "window,", ",window"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(qyi_eval_runs_parse(bad[i], NULL, &settings, runs, &err), QY_ERR_CONFIG);
    }
    assert_int_equal(qyi_eval_runs_parse("exact", "0.1,x", &settings, runs, &err), QY_ERR_CONFIG);
    char many[8 * (QYI_EVAL_MAX_RUNS + 1)] = "window";
    for (int i = 0; i < QYI_EVAL_MAX_RUNS; i++) {
        strcat(many, ",window");
    }
    assert_int_equal(qyi_eval_runs_parse(many, NULL, &settings, runs, &err), QY_ERR_CONFIG);
    free(runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_stay_below_and_shuffles_keep_all),
        cmocka_unit_test(runs_are_read_from_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
