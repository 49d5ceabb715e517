/* SPDX-License-Identifier: Apache-2.0 */
/* The audit of what was chosen, through the cache: masses, recalls, and which share is looked at. */
#include "tests/unit/offload/probe.h"

#include <math.h>

enum { N = 150, STREAM = 4 };
#define BOUND 1e-5 /* rows in f32: rounding of sums of a few hundred terms */

/* One token after N of the stream; out [RIG_LAYERS][RIG_OUT]. */
static void decode_one(struct rig *rig, struct qy_sequence *seq, enum qy_attend_mode mode,
                       float *out)
{
    const struct rig_feed feed = {.seq = seq, .stream = STREAM, .n = 1, .mode = mode, .out = out};

    assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
}

static struct qy_sequence *open_and_prefill(struct rig *rig, const struct rig_options *options)
{
    rig_open(rig, options);
    struct qy_sequence *seq = rig_sequence(rig);
    rig_prefill(rig, seq, STREAM, N, N, NULL);
    return seq;
}

/* Sums of one decode step of a policy, of every layer, audited at this rate. */
static void audited(const char *policy, const char *budget, double rate,
                    struct qy_audit_sums sums[RIG_LAYERS])
{
    struct qy_retrieval_settings settings = probe_settings();
    float out[RIG_LAYERS * RIG_OUT];
    struct qy_cache_stats stats;
    struct rig rig;

    settings.audit_rate = rate;
    struct qy_sequence *seq = open_and_prefill(
        &rig, &(struct rig_options){
                  .policy = policy, .budget = budget, .threads = 2, .retrieval = &settings});
    decode_one(&rig, seq, QY_ATTEND_DENSE, out); /* not looked at */
    assert_int_equal(qy_sequence_truncate(seq, N), QY_OK);
    qy_cache_stats(rig.cache, &stats);
    decode_one(&rig, seq, QY_ATTEND_POLICY, out);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        qy_cache_audit(rig.cache, layer, &sums[layer]);
    }
    struct qy_audit_sums past;
    qy_cache_audit(rig.cache, RIG_LAYERS, &past);
    assert_int_equal(past.n, 0);
    qy_cache_stats_reset(rig.cache);
    qy_cache_audit(rig.cache, 0, &past);
    assert_int_equal(past.n, 0);
    rig_close(&rig);
}

/* Mass of sinks, window and the k best candidates of a layer, summed over the KV heads. */
static double reference_mass(uint32_t layer, uint32_t k)
{
    struct rig_reference ref;
    double sum = 0.0;

    rig_reference_open(&ref, STREAM, layer, N + 1, QY_ROPE_ADJACENT);
    for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
        double pooled[N + 1];

        rig_reference_pool(&ref, N, h, pooled);
        for (uint32_t t = 0; t <= N; t++) {
            uint32_t above = 0;

            for (uint32_t i = 4; i < N + 1 - 8; i++) {
                above += pooled[i] > pooled[t];
            }
            sum += t < 4 || t >= N + 1 - 8 || above < k ? pooled[t] : 0.0;
        }
    }
    rig_reference_close(&ref);
    return sum;
}

static void audit_knows_the_mass_and_the_recall(void **state)
{
    static const struct {
        const char *policy, *budget;
        uint32_t k;
        double recall;
    } cases[] = {{"exact", "9", 9, 1.0}, {"exact", "0.2", 31, 1.0}, {"window", "1.0", 0, 0.0}};
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_audit_sums sums[RIG_LAYERS];

        audited(cases[i].policy, cases[i].budget, 1.0, sums);
        for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
            assert_int_equal(sums[layer].n, RIG_KV_HEADS);
            assert_float_equal(sums[layer].recall, RIG_KV_HEADS * cases[i].recall, 1e-12);
            assert_float_equal(sums[layer].mass, reference_mass(layer, cases[i].k), BOUND);
            assert_true(sums[layer].mass < RIG_KV_HEADS);
        }
    }
}

/* The first 10 candidates are not the best 10: the recall is that of the reference. */
static void audit_sees_a_poor_choice(void **state)
{
    struct qy_retrieval_settings settings = probe_settings();
    struct qy_policy_ops ops = probe_ops();
    float out[RIG_LAYERS * RIG_OUT];
    struct qy_audit_sums sums;
    double recall = 0.0;
    struct rig_reference ref;
    struct rig rig;
    (void)state;

    settings.audit_rate = 1.0;
    settings.dense_layers = 1;
    struct qy_sequence *seq = open_and_prefill(
        &rig, &(struct rig_options){.ops = &ops, .budget = "10", .retrieval = &settings});
    decode_one(&rig, seq, QY_ATTEND_POLICY, out);
    qy_cache_audit(rig.cache, 0, &sums);
    assert_int_equal(sums.n, 0); /* it attends to all */
    qy_cache_audit(rig.cache, 1, &sums);
    assert_int_equal(sums.n, RIG_KV_HEADS);
    rig_reference_open(&ref, STREAM, 1, N + 1, QY_ROPE_ADJACENT);
    for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
        double pooled[N + 1];

        rig_reference_pool(&ref, N, h, pooled);
        for (uint32_t t = 4; t < 14; t++) {
            uint32_t above = 0;

            for (uint32_t i = 4; i < N + 1 - 8; i++) {
                above += pooled[i] > pooled[t];
            }
            recall += above < 10 ? 0.1 : 0.0;
        }
    }
    rig_reference_close(&ref);
    assert_float_equal(sums.recall, recall, 1e-9);
    assert_true(sums.recall < RIG_KV_HEADS);
    rig_close(&rig);
}

/* A share of many selections, the same ones in every run. */
static void audit_rate_is_a_share_and_repeats(void **state)
{
    struct qy_audit_sums runs[2][RIG_LAYERS];
    struct qy_retrieval_settings settings = probe_settings();
    (void)state;

    settings.audit_rate = 0.25;
    for (int run = 0; run < 2; run++) {
        struct rig rig;
        struct qy_sequence *seq = open_and_prefill(
            &rig, &(struct rig_options){.policy = "exact", .budget = "9", .retrieval = &settings});

        for (int i = 0; i < 200; i++) {
            const struct rig_feed feed = {.seq = seq, .stream = STREAM, .n = 1};

            assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        }
        for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
            qy_cache_audit(rig.cache, layer, &runs[run][layer]);
        }
        rig_close(&rig);
    }
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        assert_in_range(runs[0][layer].n, 60, 140); /* 400 selections: 100 +- 4.6 deviations */
        assert_int_equal(runs[0][layer].n, runs[1][layer].n);
        assert_true(runs[0][layer].mass == runs[1][layer].mass);
    }
    settings.audit_rate = NAN;
    struct rig rig;
    rig_prepare(&rig, &(struct rig_options){.policy = "exact", .retrieval = &settings});
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_ERR_CONFIG);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(audit_knows_the_mass_and_the_recall),
        cmocka_unit_test(audit_sees_a_poor_choice),
        cmocka_unit_test(audit_rate_is_a_share_and_repeats),
    };
    return cmocka_run_group_tests_name("offload.audit", tests, NULL, NULL);
}
