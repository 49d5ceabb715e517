/* SPDX-License-Identifier: Apache-2.0 */
/* See tier_rig.h. */
#include "tests/unit/offload/tier_rig.h"

#include <string.h>

const struct rig_options tier_base = {.policy = "exact",
                                      .budget = "0.1",
                                      .f16 = 1,
                                      .threads = 2,
                                      .max_step_tokens = 64,
                                      .plan = QY_PLAN_PULL};

uint64_t tier_least_bytes(const struct rig_options *options)
{
    uint64_t lo = 0; /* refused */
    uint64_t hi = (uint64_t)64 << 20;
    struct rig rig;

    rig_prepare(&rig, options);
    while (hi - lo > 4096) {
        struct qy_error err = {0};

        rig.params.settings.device_bytes = lo + (hi - lo) / 2;
        if (qy_cache_open(&rig.params, &rig.cache, &err) == QY_OK) {
            hi = rig.params.settings.device_bytes;
            qy_cache_close(rig.cache);
        } else {
            assert_int_equal(err.status, QY_ERR_NOMEM);
            assert_non_null(strstr(err.text, "cache.device_bytes"));
            lo = rig.params.settings.device_bytes;
        }
        rig.cache = NULL;
    }
    rig_close(&rig);
    return hi;
}

void tier_pair_open(struct tier_pair *pair, const struct rig_options *options, const uint32_t n[2])
{
    struct rig_options unified = *options;

    unified.device = NULL;
    unified.micro_batches = 0;
    rig_open(&pair->good, &unified);
    rig_open(&pair->bad, options);
    for (uint32_t i = 0; i < 2; i++) {
        struct rig *rig = i == 0 ? &pair->good : &pair->bad;

        for (uint32_t s = 0; s < 2; s++) {
            pair->seqs[i][s] = rig_sequence(rig);
            rig_prefill(rig, pair->seqs[i][s], s + 1, n[s], 64, NULL);
        }
    }
}

void tier_pair_close(struct tier_pair *pair)
{
    rig_close(&pair->good);
    rig_close(&pair->bad);
}

enum qy_status tier_try_step(struct rig *rig, struct qy_sequence *const *seqs,
                             float out[TIER_STEP_FLOATS])
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

void tier_decode(struct rig *rig, struct qy_sequence *const *seqs, uint32_t stream, uint32_t n,
                 float *out)
{
    enum { OUT = RIG_LAYERS * RIG_OUT };

    for (uint32_t i = 0; i < n; i++) {
        const struct rig_feed feeds[2] = {
            {.seq = seqs[0], .stream = stream, .n = 1, .out = out + (size_t)(2 * i) * OUT},
            {.seq = seqs[1], .stream = stream + 1, .n = 1, .out = out + (size_t)(2 * i + 1) * OUT}};

        assert_int_equal(rig_step(rig, feeds, 2), QY_OK);
    }
}
