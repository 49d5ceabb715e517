/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A discrete device gives the bits of the unified one: every policy, much device memory and the
 * least that is accepted, prefill in chunks, single tokens, cuts, copies and closed sequences.
 */
#include "tests/unit/offload/tier_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { N_PREFILL = 240, N_DECODE = 40, OUT = RIG_LAYERS * RIG_OUT };

/* Prefill, decode, a cut, more decode, a copy, a closed sequence, and a step that mixes both kinds.
 * Returns the floats written to out. */
static size_t run(struct rig *rig, float *out)
{
    struct qy_sequence *seqs[3] = {rig_sequence(rig), rig_sequence(rig), rig_sequence(rig)};
    struct qy_error err = {0};
    float *at = out;

    rig_prefill(rig, seqs[0], 1, N_PREFILL, 64, at);
    at += (size_t)N_PREFILL * RIG_OUT;
    rig_prefill(rig, seqs[1], 2, 37, 64, at);
    at += (size_t)37 * RIG_OUT;
    tier_decode(rig, seqs, 1, N_DECODE, at);
    at += (size_t)2 * N_DECODE * OUT;

    assert_int_equal(qy_sequence_truncate(seqs[0], 217), QY_OK);
    assert_int_equal(qy_sequence_truncate(seqs[1], 64), QY_OK);
    tier_decode(rig, seqs, 3, 30, at);
    at += (size_t)60 * OUT;

    assert_int_equal(qy_sequence_copy(seqs[2], seqs[0]), QY_OK);
    qy_sequence_close(seqs[0]);
    seqs[0] = seqs[2];
    const struct rig_feed mixed[2] = {{.seq = seqs[0], .stream = 1, .n = 1, .out = at},
                                      {.seq = seqs[1], .stream = 2, .n = 50, .out = at + OUT}};
    assert_int_equal(rig_step(rig, mixed, 2), QY_OK);
    at += (size_t)51 * OUT;
    tier_decode(rig, seqs, 5, 20, at);
    at += (size_t)40 * OUT;
    for (int i = 0; i < 2; i++) {
        if (qy_sequence_verify(seqs[i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    return (size_t)(at - out);
}

enum { MOST = (N_PREFILL + 37) * RIG_OUT + (2 * N_DECODE + 60 + 51 + 40) * OUT };

/* Layers and plans add up to the whole. */
static void expect_sums(const struct qy_cache *cache, const struct qy_cache_stats *stats)
{
    struct qy_layer_stats sum = {0};
    struct qy_cache_plan plan;

    for (uint32_t l = 0; l < cache->layout.n_layers; l++) {
        struct qy_layer_stats one;

        qy_cache_layer_stats(cache, l, &one);
        assert_int_equal(one.rows_asked, one.rows_found + one.rows_pulled + one.rows_pushed);
        assert_int_equal(one.pulled_bytes, one.rows_pulled * cache->layout.row_bytes);
        sum.rows_asked += one.rows_asked;
        sum.rows_found += one.rows_found;
        sum.rows_pulled += one.rows_pulled;
    }
    assert_int_equal(sum.rows_asked, stats->rows_asked);
    assert_int_equal(sum.rows_found, stats->rows_found);
    assert_int_equal(sum.rows_pulled, stats->rows_pulled);
    qy_cache_plan(cache, &plan);
    assert_int_equal(plan.mode, cache->params.settings.plan_mode);
    assert_int_equal(plan.rows_pulled, stats->rows_pulled);
    assert_int_equal(plan.rows_pushed, stats->rows_pushed);
    assert_int_equal(plan.plans > 0, stats->rows_asked > 0);
    assert_true(plan.items_pulled + plan.items_pushed <= plan.items);
    assert_int_equal(plan.measured, plan.mode == QY_PLAN_AUTO && stats->rows_asked > 0);
    assert_int_equal(plan.measured, plan.reuse > 0);
}

static void expect_same(const struct rig_options *options, const char *what)
{
    float *want = malloc(MOST * sizeof(float));
    float *have = malloc(MOST * sizeof(float));
    struct rig_options o = *options;
    struct rig rig;

    assert_true(want && have);
    rig_open(&rig, &o);
    const size_t n = run(&rig, want);
    rig_close(&rig);
    o.device = "host-discrete:64M";
    const uint64_t least = tier_least_bytes(&o);
    const uint64_t sizes[3] = {least, least + least / 3, 0};
    for (int i = 0; i < 3; i++) {
        struct qy_cache_stats stats;

        o.device_bytes = sizes[i];
        o.micro_batches = (uint32_t)i + 1;
        rig_open(&rig, &o);
        assert_int_equal(run(&rig, have), n);
        qy_cache_stats(rig.cache, &stats);
        if (sizes[i] > 0 && stats.device_reserved_bytes > sizes[i]) {
            fail_msg("%s: %llu bytes taken, %llu given", what,
                     (unsigned long long)stats.device_reserved_bytes, (unsigned long long)sizes[i]);
        }
        assert_true(stats.to_host_bytes > 0);
        if (rig.cache->tier.residency) {
            assert_true(stats.rows_found <= stats.rows_asked && stats.rows_asked > 0);
            assert_true(qyi_residency_sound(rig.cache->tier.residency));
        }
        expect_sums(rig.cache, &stats);
        rig_close(&rig);
        for (size_t f = 0; f < n; f++) {
            if (memcmp(&want[f], &have[f], sizeof(float)) != 0) {
                fail_msg("%s, %llu bytes: float %zu is %g, on the unified device %g", what,
                         (unsigned long long)sizes[i], f, (double)have[f], (double)want[f]);
            }
        }
    }
    free(want);
    free(have);
}

static void tier_every_policy_gives_the_bits_of_the_unified_device(void **state)
{
    static const char *const policies[] = {"dense", "window", "exact", "quest", "pq", "clusters"};
    (void)state;

    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        struct rig_options o = tier_base;

        o.policy = policies[i];
        expect_same(&o, policies[i]);
    }
}

/* Where everything fits, dense keeps it: also of copies and random rows. */
static void tier_dense_moves_nothing_where_all_fits(void **state)
{
    struct rig_options o = tier_base;
    struct rig rig;
    struct rig unified;
    float want[2 * OUT];
    float have[2 * OUT];
    struct qy_sequence *seqs[2];
    struct qy_sequence *other[2];
    struct qy_cache_stats stats;
    (void)state;

    o.policy = "dense";
    rig_open(&unified, &o);
    o.device = "host-discrete:64M";
    rig_open(&rig, &o);
    for (int i = 0; i < 2; i++) {
        struct rig *r = i == 0 ? &rig : &unified;
        struct qy_sequence **s = i == 0 ? seqs : other;

        s[0] = rig_sequence(r);
        s[1] = rig_sequence(r);
        assert_int_equal(qy_sequence_fill_random(s[0], 64, 1), QY_OK);
        assert_int_equal(qy_sequence_fill_random(s[0], 200, 2), QY_OK);
        assert_int_equal(qy_sequence_copy(s[1], s[0]), QY_OK);
        assert_int_equal(qy_sequence_truncate(s[1], 150), QY_OK);
    }
    qy_cache_stats_reset(rig.cache);
    for (int i = 0; i < 30; i++) {
        tier_decode(&rig, seqs, 1, 1, have);
        tier_decode(&unified, other, 1, 1, want);
        assert_memory_equal(want, have, sizeof(want));
    }
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.to_device_bytes, 0);
    rig_close(&rig);
    rig_close(&unified);
}

static void tier_large_blocks_and_f32_rows(void **state)
{
    struct rig_options o = tier_base;
    (void)state;

    o.block_tokens = 128;
    expect_same(&o, "blocks of 128");
    o.f16 = 0;
    o.block_tokens = 32;
    o.window = 40;
    expect_same(&o, "f32 rows");
}

/* Partials made at the home and merged: the same answer but for rounding. */
static void tier_pushes_give_the_same_answer(void **state)
{
    static const char *const policies[] = {"exact", "window", "quest"};
    static const enum qy_plan_mode modes[] = {QY_PLAN_PUSH, QY_PLAN_AUTO};
    float *want = malloc(MOST * sizeof(float));
    float *have = malloc(MOST * sizeof(float));
    (void)state;

    assert_true(want && have);
    for (int i = 0; i < 6; i++) {
        struct rig_options o = tier_base;
        struct qy_cache_stats stats;
        struct rig rig;

        o.policy = policies[i % 3];
        rig_open(&rig, &o);
        const size_t n = run(&rig, want);
        rig_close(&rig);
        o.device = "host-discrete:64M";
        o.plan = QY_PLAN_PUSH; /* which is opened without a measurement */
        o.device_bytes = tier_least_bytes(&o);
        o.plan = modes[i / 3];
        o.micro_batches = (uint32_t)i % 3 + 1;
        rig_open(&rig, &o);
        assert_int_equal(run(&rig, have), n);
        qy_cache_stats(rig.cache, &stats);
        assert_int_equal(stats.rows_asked,
                         stats.rows_found + stats.rows_pulled + stats.rows_pushed);
        expect_sums(rig.cache, &stats);
        if (o.plan == QY_PLAN_PUSH) {
            assert_int_equal(stats.rows_pulled, 0);
            assert_true(stats.rows_pushed > 0);
        }
        rig_close(&rig);
        for (size_t f = 0; f < n; f++) {
            if (!(fabsf(want[f] - have[f]) < 2e-5F)) {
                fail_msg("%s, plan %d: float %zu is %g, on the unified device %g", o.policy,
                         (int)o.plan, f, (double)have[f], (double)want[f]);
            }
        }
    }
    free(want);
    free(have);
}

/* Lists are cut at the open block there, and merged the same way whoever attends to a part. */
static void tier_pushes_of_a_deterministic_device_give_the_same_bits(void **state)
{
    static const char *const policies[] = {"exact", "quest", "clusters", "window"};
    static const enum qy_plan_mode modes[] = {QY_PLAN_PUSH, QY_PLAN_PULL, QY_PLAN_AUTO,
                                              QY_PLAN_PUSH};
    (void)state;

    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        struct rig_options o = tier_base;

        o.policy = policies[i];
        o.plan = modes[i];
        o.deterministic = 1;
        expect_same(&o, policies[i]);
    }
}

static void tier_halves_of_a_layer_come_in_order(void **state)
{
    struct rig_options o = tier_base;
    static float qkv[2 * RIG_STRIDE];
    static float out[2 * RIG_OUT];
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    const int32_t id = 5;
    struct rig rig;
    (void)state;

    o.device = "host-discrete:64M";
    o.micro_batches = 2;
    rig_open(&rig, &o);
    const struct qy_step_slice slices[2] = {{.seq = rig_sequence(&rig), .n_tokens = 1, .ids = &id},
                                            {.seq = rig_sequence(&rig), .n_tokens = 1, .ids = &id}};
    struct qy_cache *cache = rig.cache;

    assert_int_equal(qy_step_micro_batches(cache), 0);
    assert_int_equal(qy_step_begin(cache, slices, 2, NULL), QY_OK);
    assert_int_equal(qy_step_micro_batches(cache), 2);
    assert_int_equal(qy_step_rows(cache, 1).first, 1);
    assert_int_equal(qy_step_rows(cache, 1).n, 1);
    assert_int_equal(qy_step_attend_finish(cache, 0, 0, &args), QY_ERR_INVALID);
    assert_int_equal(qy_step_attend_start(cache, 2, 0, &args), QY_ERR_INVALID);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(qy_step_attend_start(cache, i, layer, &args), QY_OK);
            assert_int_equal(qy_step_attend_start(cache, i, layer, &args), QY_ERR_INVALID);
        }
        assert_int_equal(qy_step_end(cache), QY_ERR_INVALID);
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(qy_step_attend_finish(cache, i, layer, &args), QY_OK);
            assert_int_equal(qy_step_attend_finish(cache, i, layer, &args), QY_ERR_INVALID);
        }
    }
    assert_int_equal(qy_step_end(cache), QY_OK);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tier_every_policy_gives_the_bits_of_the_unified_device),
        cmocka_unit_test(tier_dense_moves_nothing_where_all_fits),
        cmocka_unit_test(tier_large_blocks_and_f32_rows),
        cmocka_unit_test(tier_pushes_give_the_same_answer),
        cmocka_unit_test(tier_pushes_of_a_deterministic_device_give_the_same_bits),
        cmocka_unit_test(tier_halves_of_a_layer_come_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
