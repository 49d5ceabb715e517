/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A discrete device gives the bits of the unified one: every policy, much device memory and the
 * least that is accepted, prefill in chunks, single tokens, cuts, copies and closed sequences.
 */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { N_PREFILL = 240, N_DECODE = 40, OUT = RIG_LAYERS * RIG_OUT };

static const struct rig_options base = {.policy = "exact",
                                        .budget = "0.1",
                                        .f16 = 1,
                                        .threads = 2,
                                        .max_step_tokens = 64,
                                        .plan = QY_PLAN_PULL};

/* The least device_bytes that a cache opens with. */
static uint64_t least_bytes(const struct rig_options *options)
{
    uint64_t lo = 0; /* refused */
    uint64_t hi = (uint64_t)64 << 20;

    while (hi - lo > 4096) {
        struct rig_options o = *options;
        struct rig rig;
        struct qy_error err = {0};

        o.device_bytes = lo + (hi - lo) / 2;
        rig_prepare(&rig, &o);
        const enum qy_status st = qy_cache_open(&rig.params, &rig.cache, &err);
        if (st == QY_OK) {
            hi = o.device_bytes;
        } else {
            assert_int_equal(st, QY_ERR_NOMEM);
            assert_non_null(strstr(err.text, "cache.device_bytes"));
            lo = o.device_bytes;
            rig.cache = NULL;
        }
        rig_close(&rig);
    }
    return hi;
}

/* Single tokens of two sequences, of different lengths: of streams `stream` and the next. */
static void decode(struct rig *rig, struct qy_sequence *const *seqs, uint32_t stream, uint32_t n,
                   float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct rig_feed feeds[2] = {
            {.seq = seqs[0], .stream = stream, .n = 1, .out = out + (size_t)(2 * i) * OUT},
            {.seq = seqs[1], .stream = stream + 1, .n = 1, .out = out + (size_t)(2 * i + 1) * OUT}};

        assert_int_equal(rig_step(rig, feeds, 2), QY_OK);
    }
}

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
    decode(rig, seqs, 1, N_DECODE, at);
    at += (size_t)2 * N_DECODE * OUT;

    assert_int_equal(qy_sequence_truncate(seqs[0], 217), QY_OK);
    assert_int_equal(qy_sequence_truncate(seqs[1], 64), QY_OK);
    decode(rig, seqs, 3, 30, at);
    at += (size_t)60 * OUT;

    assert_int_equal(qy_sequence_copy(seqs[2], seqs[0]), QY_OK);
    qy_sequence_close(seqs[0]);
    seqs[0] = seqs[2];
    const struct rig_feed mixed[2] = {{.seq = seqs[0], .stream = 1, .n = 1, .out = at},
                                      {.seq = seqs[1], .stream = 2, .n = 50, .out = at + OUT}};
    assert_int_equal(rig_step(rig, mixed, 2), QY_OK);
    at += (size_t)51 * OUT;
    decode(rig, seqs, 5, 20, at);
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
    const uint64_t least = least_bytes(&o);
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
        struct rig_options o = base;

        o.policy = policies[i];
        expect_same(&o, policies[i]);
    }
}

/* Where everything fits, dense keeps it: also of copies and random rows. */
static void tier_dense_moves_nothing_where_all_fits(void **state)
{
    struct rig_options o = base;
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
        decode(&rig, seqs, 1, 1, have);
        decode(&unified, other, 1, 1, want);
        assert_memory_equal(want, have, sizeof(want));
    }
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.to_device_bytes, 0);
    rig_close(&rig);
    rig_close(&unified);
}

static void tier_large_blocks_and_f32_rows(void **state)
{
    struct rig_options o = base;
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
        struct rig_options o = base;
        struct qy_cache_stats stats;
        struct rig rig;

        o.policy = policies[i % 3];
        rig_open(&rig, &o);
        const size_t n = run(&rig, want);
        rig_close(&rig);
        o.device = "host-discrete:64M";
        o.plan = QY_PLAN_PUSH; /* which is opened without a measurement */
        o.device_bytes = least_bytes(&o);
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
        struct rig_options o = base;

        o.policy = policies[i];
        o.plan = modes[i];
        o.deterministic = 1;
        expect_same(&o, policies[i]);
    }
}

/* A step of one token of each sequence; the status of the layer that fails, or of its end. */
static enum qy_status try_step(struct rig *rig, struct qy_sequence *const *seqs, float *out)
{
    static float qkv[2 * RIG_STRIDE];
    const uint32_t streams[2] = {1, 2};
    int32_t ids[2];
    struct qy_step_slice slices[2];
    enum qy_status st;

    for (int i = 0; i < 2; i++) {
        ids[i] = rig_token(streams[i], qy_sequence_tokens(seqs[i]));
        slices[i] = (struct qy_step_slice){.seq = seqs[i], .n_tokens = 1, .ids = &ids[i]};
    }
    st = qy_step_begin(rig->cache, slices, 2, NULL);
    for (uint32_t layer = 0; st == QY_OK && layer < RIG_LAYERS; layer++) {
        const struct qy_qkv args = {.q = qkv,
                                    .k = qkv + RIG_K_AT,
                                    .v = qkv + RIG_V_AT,
                                    .stride = RIG_STRIDE,
                                    .out = out + (size_t)layer * 2 * RIG_OUT};

        for (int i = 0; i < 2; i++) {
            rig_qkv(streams[i], layer, qy_sequence_tokens(seqs[i]), qkv + i * RIG_STRIDE);
        }
        st = qy_step_attend(rig->cache, layer, &args);
    }
    if (st != QY_OK) {
        qy_step_abort(rig->cache);
        return st;
    }
    return qy_step_end(rig->cache);
}

/* Two caches in step; pulls of the second fail or stall now and then. A step that fails says so and
 * leaves nothing behind: done again, it gives the bits of the first cache. */
static void tier_faults_of_a_pull_fail_one_step_only(void **state)
{
    static const enum qy_stream_fault faults[2] = {QY_STREAM_FAULT_ERROR, QY_STREAM_FAULT_STALL};
    static const enum qy_status expected[2] = {QY_ERR_DEVICE, QY_ERR_TIMEOUT};
    float want[RIG_LAYERS * 2 * RIG_OUT];
    float have[RIG_LAYERS * 2 * RIG_OUT];
    struct rig_options o = base;
    struct rig good;
    struct rig bad;
    struct qy_sequence *seqs[2][2];
    int failed = 0;
    (void)state;

    rig_open(&good, &o);
    o.device = "host-discrete:64M";
    o.device_bytes = least_bytes(&o);
    o.copy_timeout_ms = 1000; /* far above what a busy machine pauses for */
    o.micro_batches = 2;
    rig_open(&bad, &o);
    for (int i = 0; i < 2; i++) {
        struct rig *rig = i == 0 ? &good : &bad;

        seqs[i][0] = rig_sequence(rig);
        seqs[i][1] = rig_sequence(rig);
        rig_prefill(rig, seqs[i][0], 1, 250, 64, NULL);
        rig_prefill(rig, seqs[i][1], 2, 200, 64, NULL);
    }
    for (int i = 0; i < 40; i++) {
        const int kind = i / 5 % 2;

        assert_int_equal(try_step(&good, seqs[0], want), QY_OK);
        if (i % 5 == 4) {
            assert_int_equal(qy_stream_inject(bad.cache->tier.in, faults[kind], (uint32_t)i % 2),
                             QY_OK);
        }
        enum qy_status st = try_step(&bad, seqs[1], have);
        if (st != QY_OK) {
            assert_int_equal(st, expected[kind]);
            failed++;
            st = try_step(&bad, seqs[1], have);
        }
        assert_int_equal(st, QY_OK);
        assert_int_equal(qy_stream_inject(bad.cache->tier.in, QY_STREAM_FAULT_NONE, 0), QY_OK);
        assert_true(qyi_residency_sound(bad.cache->tier.residency));
        assert_memory_equal(want, have, sizeof(want));
    }
    assert_true(failed >= 4);
    rig_close(&good);
    rig_close(&bad);
}

/* Copies home fail and stall: no token is lost, and in the end every block is home and sealed. */
static void tier_blocks_that_do_not_get_home_are_sent_again(void **state)
{
    float want[RIG_LAYERS * 2 * RIG_OUT];
    float have[RIG_LAYERS * 2 * RIG_OUT];
    struct rig_options o = base;
    struct rig good;
    struct rig bad;
    struct qy_sequence *seqs[2][2];
    struct qy_cache_stats stats;
    struct qy_error err = {0};
    (void)state;

    rig_open(&good, &o);
    o.device = "host-discrete:64M";
    o.copy_timeout_ms = 1000; /* far above what a busy machine pauses for */
    rig_open(&bad, &o);
    for (int i = 0; i < 2; i++) {
        struct rig *rig = i == 0 ? &good : &bad;

        seqs[i][0] = rig_sequence(rig);
        seqs[i][1] = rig_sequence(rig);
        rig_prefill(rig, seqs[i][0], 1, 50, 64, NULL);
        rig_prefill(rig, seqs[i][1], 2, 20, 64, NULL);
    }
    for (int i = 0; i < 120; i++) {
        const enum qy_stream_fault fault = i < 60 ? QY_STREAM_FAULT_ERROR : QY_STREAM_FAULT_STALL;

        if (i % 20 == 10) {
            assert_int_equal(qy_stream_inject(bad.cache->tier.out, fault, 0), QY_OK);
        }
        assert_int_equal(try_step(&good, seqs[0], want), QY_OK);
        enum qy_status st = try_step(&bad, seqs[1], have);
        if (st != QY_OK) { /* no device block was free, and the way home was blocked */
            st = try_step(&bad, seqs[1], have);
        }
        assert_int_equal(st, QY_OK);
        assert_memory_equal(want, have, sizeof(want));
    }
    qy_cache_stats(bad.cache, &stats);
    assert_true(stats.copy_failures >= 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(qyi_tier_settle(seqs[1][i], 1), QY_OK);
        assert_int_equal(seqs[1][i]->n_sealed, qy_sequence_tokens(seqs[1][i]) / 16);
        if (qy_sequence_verify(seqs[1][i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    rig_close(&good);
    rig_close(&bad);
}

static void tier_halves_of_a_layer_come_in_order(void **state)
{
    struct rig_options o = base;
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
        cmocka_unit_test(tier_faults_of_a_pull_fail_one_step_only),
        cmocka_unit_test(tier_blocks_that_do_not_get_home_are_sent_again),
        cmocka_unit_test(tier_halves_of_a_layer_come_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
