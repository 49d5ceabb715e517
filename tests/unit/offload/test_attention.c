/* SPDX-License-Identifier: Apache-2.0 */
/* Attention through the cache against the reference in double precision. */
#include "tests/unit/offload/rig.h"

#include <stdlib.h>
#include <string.h>

enum { N = 300 };
#define F32_BOUND 1e-5 /* rows in f32: rounding of sums of a few hundred terms */
#define F16_BOUND 2e-3 /* rows in f16: values up to 1.5 are off by up to 2^-11   */

/* Output of the last layer, tokens 0 .. n - 1, against the reference over all tokens before. */
static void expect_dense(const float *out, uint32_t stream, uint32_t n, enum qy_rope_pairs pairs,
                         double bound)
{
    struct rig_reference ref;
    double want[RIG_GROUP * RIG_D];

    rig_reference_open(&ref, stream, RIG_LAYERS - 1, n, pairs);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
            rig_reference_attend(&ref, t, h, NULL, 0, want);
            const double d =
                rig_difference(out + (size_t)t * RIG_OUT + (size_t)h * RIG_GROUP * RIG_D, want,
                               (size_t)RIG_GROUP * RIG_D);
            if (!(d <= bound)) {
                fail_msg("token %u head %u: off by %g", t, h, d);
            }
        }
    }
    rig_reference_close(&ref);
}

static void attention_any_chunk_and_block_equals_the_reference(void **state)
{
    static const uint32_t blocks[] = {16, 128};
    static const uint32_t chunks[] = {1, 7, 512};
    float *out = malloc((size_t)N * RIG_OUT * sizeof(float));
    (void)state;

    assert_non_null(out);
    for (int b = 0; b < 2; b++) {
        for (int c = 0; c < 3; c++) {
            const struct rig_options options = {.block_tokens = blocks[b],
                                                .threads = 2,
                                                .pairs =
                                                    c == 1 ? QY_ROPE_HALVES : QY_ROPE_ADJACENT};
            struct rig rig;

            rig_open(&rig, &options);
            rig_prefill(&rig, rig_sequence(&rig), 1, N, chunks[c], out);
            expect_dense(out, 1, N, options.pairs, F32_BOUND);
            rig_close(&rig);
        }
    }
    free(out);
}

static void attention_f16_rows_stay_near_the_reference(void **state)
{
    const struct rig_options options = {.f16 = 1};
    float *out = malloc((size_t)N * RIG_OUT * sizeof(float));
    struct rig rig;
    (void)state;

    assert_non_null(out);
    rig_open(&rig, &options);
    rig_prefill(&rig, rig_sequence(&rig), 2, N, 64, out);
    expect_dense(out, 2, N, options.pairs, F16_BOUND);
    rig_close(&rig);
    free(out);
}

/* One new token after n of a stream; out [RIG_LAYERS][RIG_OUT]. */
static void decode_one(struct rig *rig, struct qy_sequence *seq, uint32_t stream,
                       enum qy_attend_mode mode, float *out)
{
    const struct rig_feed feed = {.seq = seq, .stream = stream, .n = 1, .mode = mode, .out = out};

    assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
}

/* Four lengths in one step, one of them in prefill, equal each alone, bit for bit. */
static void attention_batch_equals_each_alone(void **state)
{
    static const uint32_t lengths[4] = {5, 40, 130, 200};
    static const uint32_t adds[4] = {1, 1, 6, 1};
    const struct rig_options options = {
        .policy = "exact", .budget = "9", .threads = 2, .max_step_tokens = 64};
    float *together[4];
    float *alone = malloc(sizeof(float) * RIG_LAYERS * 6 * RIG_OUT);
    struct rig_feed feeds[4];
    struct rig rig;
    (void)state;

    assert_non_null(alone);
    rig_open(&rig, &options);
    for (uint32_t i = 0; i < 4; i++) {
        together[i] = malloc(sizeof(float) * RIG_LAYERS * 6 * RIG_OUT);
        assert_non_null(together[i]);
        feeds[i] = (struct rig_feed){
            .seq = rig_sequence(&rig), .stream = i, .n = adds[i], .out = together[i]};
        rig_prefill(&rig, feeds[i].seq, i, lengths[i], 50, NULL);
    }
    assert_int_equal(rig_step(&rig, feeds, 4), QY_OK);
    for (uint32_t i = 0; i < 4; i++) {
        struct rig_feed feed = feeds[i];

        assert_int_equal(qy_sequence_tokens(feed.seq), lengths[i] + adds[i]);
        assert_int_equal(qy_sequence_truncate(feed.seq, lengths[i]), QY_OK);
        feed.out = alone;
        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        assert_memory_equal(alone, together[i], sizeof(float) * RIG_LAYERS * adds[i] * RIG_OUT);
        free(together[i]);
    }
    rig_close(&rig);
    free(alone);
}

/* Ids by the oracle: sinks, the k best of the candidates, window. Returns their number. */
static uint32_t oracle_ids(const struct rig_reference *ref, uint32_t token, uint32_t h,
                           uint32_t sinks, uint32_t window, uint32_t k, uint32_t *ids)
{
    double pooled[N];
    uint32_t n = 0;

    rig_reference_pool(ref, token, h, pooled);
    for (uint32_t t = 0; t <= token; t++) {
        uint32_t above = 0;

        for (uint32_t i = sinks; i < token + 1 - window; i++) {
            above += pooled[i] > pooled[t];
        }
        if (t < sinks || t >= token + 1 - window || above < k) {
            ids[n++] = t;
        }
    }
    return n;
}

static void expect_selected(const float *out, uint32_t token, uint32_t k)
{
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        struct rig_reference ref;

        rig_reference_open(&ref, 3, layer, token + 1, QY_ROPE_ADJACENT);
        for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
            double want[RIG_GROUP * RIG_D];
            uint32_t ids[N];
            const uint32_t n = oracle_ids(&ref, token, h, 4, 8, k, ids);

            assert_int_equal(n, 12 + k);
            rig_reference_attend(&ref, token, h, ids, n, want);
            assert_true(
                rig_difference(out + ((size_t)layer * RIG_HEADS + (size_t)h * RIG_GROUP) * RIG_D,
                               want, (size_t)RIG_GROUP * RIG_D) <= F32_BOUND);
        }
        rig_reference_close(&ref);
    }
}

static void attention_exact_and_window_equal_the_oracle(void **state)
{
    static const struct {
        const char *policy, *budget;
        uint32_t k;
    } cases[] = {{"exact", "7", 7}, {"exact", "0.1", 21}, {"window", "1.0", 0}};
    float out[RIG_LAYERS * RIG_OUT];
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rig_options options = {
            .policy = cases[i].policy, .budget = cases[i].budget, .threads = 2};
        struct rig rig;

        rig_open(&rig, &options);
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, 3, 205, 64, NULL);
        decode_one(&rig, seq, 3, QY_ATTEND_POLICY, out);
        expect_selected(out, 205, cases[i].k);
        rig_close(&rig);
    }
}

/* The whole budget is dense's answer: without a list (1.0), and through scores, choice and list
 * when only the mass could bound it. */
static void attention_exact_with_the_whole_budget_is_dense(void **state)
{
    static const struct {
        const char *budget;
        double bound;
    } cases[] = {{"1.0", 0.0}, {"p1.0:1.0", F32_BOUND}};
    float got[RIG_LAYERS * RIG_OUT];
    float dense[RIG_LAYERS * RIG_OUT];
    (void)state;

    for (int i = 0; i < 2; i++) {
        const struct rig_options options = {.policy = "exact", .budget = cases[i].budget};
        struct qy_cache_stats stats;
        struct rig rig;

        rig_open(&rig, &options);
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, 4, 250, 64, NULL);
        decode_one(&rig, seq, 4, QY_ATTEND_DENSE, dense);
        assert_int_equal(qy_sequence_truncate(seq, 250), QY_OK);
        decode_one(&rig, seq, 4, QY_ATTEND_POLICY, got);
        for (int j = 0; j < RIG_LAYERS * RIG_OUT; j++) {
            assert_float_equal(got[j], dense[j], cases[i].bound);
        }
        qy_cache_stats(rig.cache, &stats);
        assert_true(stats.attended_rows >= stats.total_rows * 95 / 100);
        rig_close(&rig);
    }
}

static void stats_count_policy_slices_exactly(void **state)
{
    const struct rig_options options = {.policy = "exact", .budget = "10", .f16 = 1};
    const uint64_t row = qy_row_bytes(QY_ROW_F16, RIG_D);
    const uint64_t heads = (uint64_t)RIG_LAYERS * RIG_KV_HEADS;
    struct qy_cache_stats s;
    struct rig rig;
    float out[RIG_LAYERS * RIG_OUT];
    (void)state;

    rig_open(&rig, &options);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 3, 100, 64, NULL);
    decode_one(&rig, seq, 3, QY_ATTEND_DENSE, out);
    qy_cache_stats(rig.cache, &s);
    assert_int_equal(s.total_rows, 0); /* neither prefill nor dense slices count */
    decode_one(&rig, seq, 3, QY_ATTEND_POLICY, out);
    qy_cache_stats(rig.cache, &s);
    assert_int_equal(s.total_rows, heads * 102);
    assert_int_equal(s.attended_rows, heads * 22);
    assert_int_equal(s.read_bytes, heads * (22 * row + 102 * row / 2));
    assert_int_equal(s.dense_read_bytes, heads * 102 * row);
    assert_true(s.stage_ns[QY_STAGE_APPEND] > 0 && s.stage_ns[QY_STAGE_ATTEND] > 0);
    assert_int_equal(s.blocks_used, 7);
    assert_int_equal(s.host_bytes, qy_cache_bytes_for(rig.cache, 102));
    assert_int_equal(s.sequences, 1);
    assert_string_equal(qy_stage_name(QY_STAGE_SELECT), "select");
    qy_cache_stats_reset(rig.cache);
    qy_cache_stats(rig.cache, &s);
    assert_int_equal(s.total_rows + s.attended_rows + s.read_bytes + s.stage_ns[0], 0);
    assert_int_equal(s.blocks_used, 7);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_any_chunk_and_block_equals_the_reference),
        cmocka_unit_test(attention_f16_rows_stay_near_the_reference),
        cmocka_unit_test(attention_batch_equals_each_alone),
        cmocka_unit_test(attention_exact_and_window_equal_the_oracle),
        cmocka_unit_test(attention_exact_with_the_whole_budget_is_dense),
        cmocka_unit_test(stats_count_policy_slices_exactly),
    };
    return cmocka_run_group_tests_name("offload.attention", tests, NULL, NULL);
}
