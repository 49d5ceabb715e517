/* SPDX-License-Identifier: Apache-2.0 */
/* What holds for the policies without an index, on every kernel set that this machine has. The
 * conformance tests drive all policies. */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <string.h>

enum { N_SEQUENCES = 3 };
static const uint32_t lengths[N_SEQUENCES] = {11, 60, 180}; /* the first: sinks and window */

/* Calls check for each policy, budget and kernel set. */
static void for_all(void (*check)(struct rig *rig, struct qy_sequence *const *seq))
{
    static const char *const policies[] = {"dense", "window", "exact"};
    static const char *const budgets[] = {"6", "0.1", "1.0", "p0.9:0.5"};
    struct qy_cpu cpu;

    qy_cpu_detect(&cpu);
    for (int level = QY_CPU_PLAIN; level <= (int)cpu.best; level++) {
        for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
            for (size_t b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++) {
                struct qy_sequence *seq[N_SEQUENCES];
                struct rig rig;

                rig_open(&rig,
                         &(struct rig_options){.policy = policies[i],
                                               .budget = budgets[b],
                                               .threads = 2,
                                               .f16 = 1,
                                               .cpu = qy_cpu_level_name((enum qy_cpu_level)level)});
                for (uint32_t s = 0; s < N_SEQUENCES; s++) {
                    seq[s] = rig_sequence(&rig);
                    rig_prefill(&rig, seq[s], s, lengths[s], 64, NULL);
                }
                check(&rig, seq);
                rig_close(&rig);
            }
        }
    }
}

static void check_batch(struct rig *rig, struct qy_sequence *const *seq)
{
    float together[N_SEQUENCES][RIG_LAYERS * RIG_OUT];
    float alone[RIG_LAYERS * RIG_OUT];
    struct rig_feed feeds[N_SEQUENCES];

    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        feeds[s] = (struct rig_feed){.seq = seq[s], .stream = s, .n = 1, .out = together[s]};
    }
    assert_int_equal(rig_step(rig, feeds, N_SEQUENCES), QY_OK);
    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        assert_int_equal(qy_sequence_truncate(seq[s], lengths[s]), QY_OK);
        feeds[s].out = alone;
        assert_int_equal(rig_step(rig, &feeds[s], 1), QY_OK);
        assert_memory_equal(alone, together[s], sizeof(alone));
    }
}

static void policy_answers_the_same_alone_and_in_a_batch(void **state)
{
    (void)state;
    for_all(check_batch);
}

static void check_short(struct rig *rig, struct qy_sequence *const *seq)
{
    float chosen[RIG_LAYERS * RIG_OUT];
    float dense[RIG_LAYERS * RIG_OUT];
    const struct rig_feed feed = {.seq = seq[0], .stream = 0, .n = 1, .out = chosen};
    const struct rig_feed again = {
        .seq = seq[0], .stream = 0, .n = 1, .mode = QY_ATTEND_DENSE, .out = dense};

    assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
    assert_int_equal(qy_sequence_truncate(seq[0], lengths[0]), QY_OK);
    assert_int_equal(rig_step(rig, &again, 1), QY_OK);
    assert_memory_equal(chosen, dense, sizeof(dense));
}

static void policy_is_dense_within_sinks_and_window(void **state)
{
    (void)state;
    for_all(check_short);
}

static void check_budget(struct rig *rig, struct qy_sequence *const *seq)
{
    float out[RIG_LAYERS * RIG_OUT];
    const struct rig_feed feed = {.seq = seq[2], .stream = 2, .n = 1, .out = out};
    const uint32_t n = lengths[2] + 1;
    const uint64_t heads = (uint64_t)RIG_LAYERS * RIG_KV_HEADS;
    struct qy_cache_stats stats;

    assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
    qy_cache_stats(rig->cache, &stats);
    assert_int_equal(stats.total_rows, heads * n);
    assert_true(stats.attended_rows >= heads * 12);
    assert_true(stats.attended_rows <= heads * n);
    if (!rig->params.policy->caps.dense) {
        assert_true(stats.attended_rows <= heads * (12 + qy_budget_tokens(&rig->params.budget, n)));
    }
    for (int i = 0; i < RIG_LAYERS * RIG_OUT; i++) {
        assert_true(isfinite(out[i]));
    }
}

static void policy_stays_within_its_budget(void **state)
{
    (void)state;
    for_all(check_budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_answers_the_same_alone_and_in_a_batch),
        cmocka_unit_test(policy_is_dense_within_sinks_and_window),
        cmocka_unit_test(policy_stays_within_its_budget),
    };
    return cmocka_run_group_tests_name("offload.policies", tests, NULL, NULL);
}
