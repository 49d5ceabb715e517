/* SPDX-License-Identifier: Apache-2.0 */
/* From what length on choosing pays: the rule, and the trial at open. */
#include "tests/unit/offload/probe.h"

#include "offload/cost.h"

static const struct qyi_selection_rule three_percent = {
    .budget = {.ratio = 0.03}, .group = 3, .sinks = 8, .window = 64};

static uint32_t least(double select_ns, double token_ns, double row_ns, double gather_ns,
                      uint32_t max_tokens)
{
    const struct qy_cache_cost cost = {.select_ns = select_ns,
                                       .select_token_ns = token_ns,
                                       .attend_row_ns = row_ns,
                                       .gather_row_ns = gather_ns};

    return qyi_cost_min_tokens(&cost, &three_percent, max_tokens);
}

static void length_follows_the_rates(void **state)
{
    (void)state;
    assert_int_equal(least(0, 0, 10, 10, 8192), 0);         /* a choice costs nothing          */
    assert_int_equal(least(10000, 1, 10, 20, 8192), 2048);  /* 1024: 13.1 us against 10.2      */
    assert_int_equal(least(10000, 11, 10, 20, 8192), 4096); /* a token costs more than its row */
    assert_int_equal(least(1e9, 1, 10, 20, 8192), 4096);    /* long contexts are chosen from   */
    assert_int_equal(least(10000, 1, 10, 20, 1024), 4096);
}

static void budget_that_covers_all_is_never_chosen_from(void **state)
{
    const struct qy_cache_cost cost = {.attend_row_ns = 10};
    struct qyi_selection_rule rule = three_percent;
    (void)state;

    rule.budget = (struct qy_budget){.ratio = 1.0};
    assert_int_equal(qyi_cost_min_tokens(&cost, &rule, 8192), 4096);
}

static struct qy_cache_cost cost_of(const struct qy_policy_ops *ops, int64_t min_tokens,
                                    uint32_t max_tokens)
{
    struct qy_retrieval_settings settings = probe_settings();
    struct qy_cache_cost cost;
    struct rig rig;

    settings.min_tokens = min_tokens;
    rig_open(&rig, &(struct rig_options){.ops = ops,
                                         .budget = "0.03",
                                         .retrieval = &settings,
                                         .max_tokens = max_tokens,
                                         .max_sequences = 2});
    qy_cache_cost(rig.cache, &cost);
    rig_close(&rig);
    return cost;
}

static void trial_runs_only_where_asked_for(void **state)
{
    struct qy_policy_ops ops = *qy_policy_find("exact");
    (void)state;

    struct qy_cache_cost cost = cost_of(&ops, -1, 2048);
    assert_false(cost.measured);
    assert_int_equal(cost.min_tokens, 0);
    ops.caps.skip_short = 1;
    cost = cost_of(&ops, -1, 2048);
    assert_true(cost.measured);
    assert_true(cost.attend_row_ns > 0.0 && cost.gather_row_ns > 0.0);
    assert_true(cost.select_ns + 2048 * cost.select_token_ns > 0.0);
    cost = cost_of(&ops, 100, 2048);
    assert_false(cost.measured);
    assert_int_equal(cost.min_tokens, 100);
    cost = cost_of(&ops, -1, 300); /* too short for a trial: all of it is attended */
    assert_false(cost.measured);
    assert_int_equal(cost.min_tokens, 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(length_follows_the_rates),
        cmocka_unit_test(budget_that_covers_all_is_never_chosen_from),
        cmocka_unit_test(trial_runs_only_where_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
