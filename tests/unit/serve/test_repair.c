/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage of sealed blocks while the program decodes: it is found, what it touched is computed again
 * from its token ids, and the answer is the one of a run without damage, bit for bit.
 */
#include "tests/unit/serve/bed.h"

#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"

enum { N_PREFILL = 150, N_BEFORE = 60, N_AFTER = 20 };

/* Prefill and decode of two sequences; `damage` strikes in the middle. Logits of the steps after it. */
static void run(const char *const *more, void (*damage)(struct bed *bed), struct heard *heard,
                float **logits, size_t *n_floats)
{
    static const uint32_t streams[2] = {1, 2};
    struct bed bed;
    struct qy_error err = {0};

    bed_open(&bed, 2, more);
    bed.app.rt.log.write = bed_hear;
    bed.app.rt.log.ctx = heard;
    *n_floats = (size_t)2 * bed.n_vocab;
    *logits = malloc(N_AFTER * *n_floats * sizeof(float));
    assert_non_null(*logits);
    bed_prefill(&bed, bed.seqs[0], 1, N_PREFILL);
    bed_prefill(&bed, bed.seqs[1], 2, N_PREFILL / 2);
    for (uint32_t i = 0; i < N_BEFORE + N_AFTER; i++) {
        if (i == N_BEFORE && damage) {
            damage(&bed);
        }
        if (bed_step(&bed, bed.seqs, 2, streams, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
        if (i >= N_BEFORE) {
            memcpy(*logits + (i - N_BEFORE) * *n_floats, bed.engine.logits,
                   *n_floats * sizeof(float));
        }
    }
    assert_int_equal(qy_sequence_tokens(bed.seqs[0]), N_PREFILL + N_BEFORE + N_AFTER);
    for (int i = 0; i < 2; i++) {
        if (qy_sequence_verify(bed.seqs[i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    bed_close(&bed);
}

static void flip(struct qy_sequence *seq, uint32_t block, uint32_t layer, uint32_t head)
{
    const struct qyi_layout *l = &seq->cache->layout;

    if (seq->cache->tier.present) { /* blocks may still be on their way home */
        assert_int_equal(qyi_tier_settle(seq, 1), QY_OK);
    }
    assert_true(block < seq->n_sealed);
    seq->homes[block][qyi_layout_slab_at(l, layer, head) + 77] ^= 64;
}

/* In the prompt of one, and behind it; and among the other's decoded tokens. */
static void damage_rows(struct bed *bed)
{
    flip(bed->seqs[0], 4, 1, 0);
    flip(bed->seqs[0], 2, 1, 1);
    flip(bed->seqs[1], 3, 0, 1);
}

static void damage_index(struct bed *bed)
{
    const struct qyi_layout *l = &bed->engine.cache->layout;

    bed->seqs[0]->homes[1][qyi_layout_index_at(l, 1, 1) + 3] ^= 1;
}

static void expect_mended(const char *const *settings, void (*damage)(struct bed *bed),
                          uint32_t n_warnings, const char *warning)
{
    struct heard quiet = {0};
    struct heard heard = {0};
    float *want;
    float *have;
    size_t n;

    run(settings, NULL, &quiet, &want, &n);
    assert_int_equal(quiet.n, 0);
    run(settings, damage, &heard, &have, &n);
    assert_int_equal(heard.n, n_warnings);
    assert_non_null(strstr(heard.text, warning));
    assert_memory_equal(want, have, N_AFTER * n * sizeof(float));
    free(want);
    free(have);
}

#define POLICY(name) "--policy", name, "--budget", "24", "--set", "cache.verify_steps=1"
#define DISCRETE "--device", "host-discrete:8M", "--set", "plan.mode=pull"

static void damage_is_mended_on_a_unified_device(void **state)
{
    static const char *const dense[] = {"--policy", "dense", "--set", "cache.verify_steps=1", NULL};
    static const char *const exact[] = {POLICY("exact"), NULL};
    static const char *const quest[] = {POLICY("quest"), NULL};
    (void)state;

    expect_mended(dense, damage_rows, 2, "sequence 1 block 3: checksum of layer 0 KV head 1");
    expect_mended(exact, damage_rows, 2, "recompute the sequence: done, tokens 96 to 134");
    expect_mended(quest, damage_index, 1, "sequence 0 block 1: checksum of the index of layer 1");
}

static void damage_is_mended_on_a_discrete_device(void **state)
{
    static const char *const exact[] = {POLICY("exact"), DISCRETE, NULL};
    static const char *const quest[] = {POLICY("quest"), DISCRETE, "--set",
                                        "cache.device_bytes=1500K", NULL};
    (void)state;

    expect_mended(exact, damage_rows, 2, "sequence 1 block 3: checksum of layer 0 KV head 1");
    expect_mended(quest, damage_rows, 2, "sequence 1 block 3: checksum of layer 0 KV head 1");
    expect_mended(quest, damage_index, 1, "sequence 0 block 1: checksum of the index of layer 1");
}

/* Token ids that were changed are no ground to compute from: one clear error. */
static void damaged_token_ids_are_an_error(void **state)
{
    static const char *const more[] = {POLICY("exact"), NULL};
    static const uint32_t streams[1] = {1};
    struct qy_error err = {0};
    struct bed bed;
    (void)state;

    bed_open(&bed, 1, more);
    bed_prefill(&bed, bed.seqs[0], 1, N_PREFILL);
    bed.seqs[0]->ids[40] ^= 1;
    assert_int_equal(bed_step(&bed, bed.seqs, 1, streams, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "sequence 0 block 1: its footer does not match"));
    assert_int_equal(qy_sequence_tokens(bed.seqs[0]), N_PREFILL);
    bed_close(&bed);
}

/* Random rows come from no ids. */
static void random_rows_are_not_computed_again(void **state)
{
    static const char *const more[] = {POLICY("exact"), NULL};
    static const uint32_t streams[1] = {1};
    struct qy_error err = {0};
    struct bed bed;
    (void)state;

    bed_open(&bed, 1, more);
    assert_int_equal(qy_sequence_fill_random(bed.seqs[0], 100, 1), QY_OK);
    flip(bed.seqs[0], 2, 0, 0);
    assert_int_equal(bed_step(&bed, bed.seqs, 1, streams, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "sequence 0 block 2: checksum of layer 0 KV head 0"));
    assert_non_null(strstr(err.text, "must come from token ids"));
    assert_int_equal(qy_sequence_tokens(bed.seqs[0]), 100);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_mended_on_a_unified_device),
        cmocka_unit_test(damage_is_mended_on_a_discrete_device),
        cmocka_unit_test(damaged_token_ids_are_an_error),
        cmocka_unit_test(random_rows_are_not_computed_again),
    };
    return cmocka_run_group_tests_name("serve.repair", tests, NULL, NULL);
}
