/* SPDX-License-Identifier: Apache-2.0 */
/* What a new token attends to: the plan, and the merge of sinks, chosen ids and window. */
#include "tests/support/test.h"

#include "offload/step/selection.h"

static const struct qyi_selection_rule exact_rule = {
    .caps = {.reads_all_keys = 1}, .budget = {.tokens = 10}, .sinks = 4, .window = 16};

static void plan_follows_mode_policy_and_length(void **state)
{
    const struct qyi_selection_rule dense = {.caps = {.dense = 1}, .sinks = 4, .window = 16};
    const struct qyi_selection_rule window = {
        .caps = {.select_nothing = 1}, .sinks = 4, .window = 16};
    const struct {
        struct qyi_selection_rule rule;
        enum qy_attend_mode mode;
        uint32_t n;
        enum qyi_reach reach;
        uint32_t k;
    } cases[] = {
        {dense, QY_ATTEND_POLICY, 1000, QYI_REACH_ALL, 0},
        {window, QY_ATTEND_DENSE, 1000, QYI_REACH_ALL, 0},
        {window, QY_ATTEND_POLICY, 20, QYI_REACH_ALL, 0}, /* sinks + window */
        {window, QY_ATTEND_POLICY, 21, QYI_REACH_FRAME, 0},
        {window, QY_ATTEND_POLICY, 1, QYI_REACH_ALL, 0},
        {exact_rule, QY_ATTEND_POLICY, 1, QYI_REACH_ALL, 0},
        {exact_rule, QY_ATTEND_POLICY, 30, QYI_REACH_ALL, 0}, /* 10 candidates, 10 allowed */
        {exact_rule, QY_ATTEND_POLICY, 31, QYI_REACH_SELECT, 10},
        {exact_rule, QY_ATTEND_DENSE, 31, QYI_REACH_ALL, 0},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct qyi_selection s =
            qyi_selection_plan(&cases[i].rule, cases[i].mode, cases[i].n);

        assert_int_equal(s.reach, cases[i].reach);
        assert_int_equal(s.k, cases[i].k);
        assert_int_equal(s.n, cases[i].n);
        assert_true(s.lo <= s.hi && s.hi <= s.n);
    }
}

static void plan_new_token_is_in_the_window(void **state)
{
    struct qyi_selection_rule rule = exact_rule;
    (void)state;

    rule.sinks = 0;
    rule.window = 1;
    const struct qyi_selection s = qyi_selection_plan(&rule, QY_ATTEND_POLICY, 100);
    assert_int_equal(s.lo, 0);
    assert_int_equal(s.hi, 99);
    assert_int_equal(s.k, 10);
}

static void plan_mass_budget_chooses_even_when_the_cap_covers_all(void **state)
{
    struct qyi_selection_rule rule = exact_rule;
    (void)state;

    rule.budget = (struct qy_budget){.ratio = 1.0, .mass = 0.9};
    const struct qyi_selection s = qyi_selection_plan(&rule, QY_ATTEND_POLICY, 100);
    assert_int_equal(s.reach, QYI_REACH_SELECT);
    assert_int_equal(s.k, 80);
    rule.budget.mass = 0.0;
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 100).reach, QYI_REACH_ALL);
}

/* No plan of any length makes a longer list than the capacity. */
static void capacity_holds_every_list(void **state)
{
    static const struct qy_budget budgets[] = {{.tokens = 10},
                                               {.ratio = 0.03},
                                               {.ratio = 0.5},
                                               {.ratio = 1.0},
                                               {.ratio = 1.0, .mass = 0.9}};
    struct qyi_selection_rule rule = exact_rule;
    (void)state;

    for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        rule.budget = budgets[i];
        const uint32_t capacity = qyi_selection_capacity(&rule, 500);

        for (uint32_t n = 1; n <= 500; n++) {
            const struct qyi_selection s = qyi_selection_plan(&rule, QY_ATTEND_POLICY, n);

            if (s.reach != QYI_REACH_ALL) {
                assert_true(s.lo + s.k + (s.n - s.hi) <= capacity);
            }
        }
    }
    rule.caps = (struct qy_policy_caps){.dense = 1};
    assert_int_equal(qyi_selection_capacity(&rule, 500), 0);
    rule.caps = (struct qy_policy_caps){.select_nothing = 1};
    assert_int_equal(qyi_selection_capacity(&rule, 500), 20);
}

/* A budget per query head: the lists of all heads together, but no more than there are. */
static void per_head_lists_are_longer_and_have_room(void **state)
{
    struct qyi_selection_rule rule = exact_rule;
    (void)state;

    rule.caps.per_head = 1;
    rule.group = 3;
    struct qyi_selection s = qyi_selection_plan(&rule, QY_ATTEND_POLICY, 200);
    assert_int_equal(s.k, 10);
    assert_int_equal(s.most, 30);
    s = qyi_selection_plan(&rule, QY_ATTEND_POLICY, 45); /* 25 candidates */
    assert_int_equal(s.most, 25);
    assert_int_equal(qyi_selection_capacity(&rule, 200), 20 + 30);
    assert_int_equal(qyi_selection_capacity(&rule, 45), 20 + 30); /* room for equal ids */
    rule.group = UINT32_MAX;
    assert_int_equal(qyi_selection_capacity(&rule, 200), UINT32_MAX);
    rule.caps.per_head = 0;
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 200).most, 10);
}

static void plan_short_sequences_attend_to_all(void **state)
{
    struct qyi_selection_rule rule = exact_rule;
    (void)state;

    rule.min_tokens = 100;
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 99).reach, QYI_REACH_ALL);
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 100).reach, QYI_REACH_SELECT);
    rule.caps = (struct qy_policy_caps){.select_nothing = 1};
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 99).reach, QYI_REACH_ALL);
    assert_int_equal(qyi_selection_plan(&rule, QY_ATTEND_POLICY, 100).reach, QYI_REACH_FRAME);
}

static void merge_gives_sinks_chosen_and_window_in_order(void **state)
{
    const struct qyi_selection s = {
        .reach = QYI_REACH_SELECT, .n = 20, .lo = 2, .hi = 17, .k = 4, .most = 4};
    uint32_t ids[16] = {99, 99, 2, 5, 16};
    static const uint32_t want[] = {0, 1, 2, 5, 16, 17, 18, 19};
    static const uint32_t frame[] = {0, 1, 17, 18, 19};
    (void)state;

    assert_int_equal(qyi_selection_merge(&s, 3, ids), 8);
    assert_memory_equal(ids, want, sizeof(want));
    assert_int_equal(qyi_selection_merge(&s, 0, ids), 5);
    assert_memory_equal(ids, frame, sizeof(frame));
}

static void merge_refuses_what_is_no_list(void **state)
{
    static const struct {
        uint32_t n;
        uint32_t chosen[5];
    } bad[] = {
        {2, {5, 5}},          {2, {6, 5}}, {1, {1}}, {1, {17}}, {3, {3, 4, UINT32_MAX}},
        {5, {2, 3, 4, 5, 6}},
    };
    const struct qyi_selection s = {
        .reach = QYI_REACH_SELECT, .n = 20, .lo = 2, .hi = 17, .k = 4, .most = 4};
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint32_t ids[16] = {0};

        for (uint32_t j = 0; j < bad[i].n; j++) {
            ids[2 + j] = bad[i].chosen[j];
        }
        assert_int_equal(qyi_selection_merge(&s, bad[i].n, ids), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_follows_mode_policy_and_length),
        cmocka_unit_test(plan_new_token_is_in_the_window),
        cmocka_unit_test(plan_mass_budget_chooses_even_when_the_cap_covers_all),
        cmocka_unit_test(capacity_holds_every_list),
        cmocka_unit_test(per_head_lists_are_longer_and_have_room),
        cmocka_unit_test(plan_short_sequences_attend_to_all),
        cmocka_unit_test(merge_gives_sinks_chosen_and_window_in_order),
        cmocka_unit_test(merge_refuses_what_is_no_list),
    };
    return cmocka_run_group_tests_name("offload.selection", tests, NULL, NULL);
}
