/* SPDX-License-Identifier: Apache-2.0 */
/* Policy a2ats+: each first stage and rerank alone, against the keys themselves. */
#include "tests/unit/retrieval/token_bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int stage;
    double recall; /* at least, without a rerank; chance is .1 */
} stages[] = {
    {QY_STAGE1_PQ4, 0.4},  {QY_STAGE1_BANDS, 0.4}, {QY_STAGE1_WROPE, 0.0},
    {QY_STAGE1_KEYS, 0.8}, {QY_STAGE1_EXACT, 1.0},
};
enum { N_STAGES = sizeof(stages) / sizeof(stages[0]) };

static struct bed *plus_open(uint32_t threads)
{
    static const uint32_t lengths[BED_TEXTS] = {500, 800, 137, 38, 333};
    struct bed *bed = bed_new(threads);

    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        bed_text(bed, i, lengths[i], 0.2F);
    }
    return bed;
}

/* A tenth of each text. */
static void ask_all(struct bed *bed)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        bed_item(bed, i, i / BED_KV, i % BED_KV, bed->texts[i / BED_KV].n / 10);
    }
}

static void choose(struct bed *bed, int stage, int rerank, double overfetch)
{
    bed->settings.first_stage = stage;
    bed->settings.rerank = rerank;
    bed->settings.overfetch = overfetch;
    bed_policy(bed, "a2ats+", 0);
}

struct answer {
    uint32_t ids[BED_MAX_ITEMS][BED_MAX_N], n_ids[BED_MAX_ITEMS];
};

static void keep(const struct bed *bed, struct answer *answer)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        answer->n_ids[i] = bed->n_ids[i];
        memcpy(answer->ids[i], bed->ids[i], bed->n_ids[i] * sizeof(uint32_t));
    }
}

static void expect_same(const struct bed *bed, const struct answer *answer)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        assert_int_equal(bed->n_ids[i], answer->n_ids[i]);
        assert_memory_equal(bed->ids[i], answer->ids[i], bed->n_ids[i] * sizeof(uint32_t));
    }
}

/* Mean over the items that have something to choose. */
static double mean_recall(const struct bed *bed)
{
    double sum = 0.0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        if (bed->items[i].k > 0) {
            sum += bed_recall(bed, i);
            n++;
        }
    }
    return sum / n;
}

static void plus_stages_find_the_best_tokens(void **state)
{
    struct bed *bed = plus_open(2);
    (void)state;

    for (uint32_t s = 0; s < N_STAGES; s++) {
        choose(bed, stages[s].stage, QY_RERANK_OFF, 0.0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            assert_int_equal(bed->n_ids[i], bed->items[i].k);
        }
        const double alone = mean_recall(bed);
        if (alone < stages[s].recall) {
            fail_msg("stage %d: recall %.3f", stages[s].stage, alone);
        }
        choose(bed, stages[s].stage, QY_RERANK_EXACT, 3.0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        assert_true(mean_recall(bed) > alone || stages[s].stage == QY_STAGE1_EXACT);
    }
    bed_free(bed);
}

static void plus_exact_is_policy_exact(void **state)
{
    struct bed *bed = plus_open(2);
    struct answer *want = calloc(1, sizeof(*want));
    (void)state;

    assert_non_null(want);
    bed->mass = 0.7F;
    bed_policy(bed, "exact", 0);
    ask_all(bed);
    bed_select(bed, BED_MAX_ITEMS);
    keep(bed, want);
    choose(bed, QY_STAGE1_EXACT, QY_RERANK_AUTO, 0.0);
    ask_all(bed);
    bed_select(bed, BED_MAX_ITEMS);
    expect_same(bed, want);
    for (uint32_t s = 0; s < N_STAGES; s++) { /* candidates are all tokens */
        choose(bed, stages[s].stage, QY_RERANK_EXACT, 64.0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        expect_same(bed, want);
    }
    free(want);
    bed_free(bed);
}

static void plus_budget_of_everything_gives_everything(void **state)
{
    struct bed *bed = plus_open(1);
    (void)state;

    for (uint32_t s = 0; s < N_STAGES; s++) {
        for (int rerank = QY_RERANK_OFF; rerank <= QY_RERANK_EXACT; rerank++) {
            choose(bed, stages[s].stage, rerank, 0.0);
            for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
                bed_item(bed, i, i / BED_KV, i % BED_KV, BED_MAX_N);
            }
            bed_select(bed, BED_MAX_ITEMS);
            for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
                assert_int_equal(bed->n_ids[i], bed->items[i].hi - bed->items[i].lo);
            }
        }
    }
    bed_free(bed);
}

/* Token by token, in pieces or at once: bands and wrope turn keys back on the way. */
static void plus_appended_equals_bulk(void **state)
{
    static const uint32_t steps[] = {1, 30, 300};
    struct bed *bed = plus_open(2);
    struct answer *want = calloc(1, sizeof(*want));
    (void)state;

    assert_non_null(want);
    for (uint32_t s = 0; s < N_STAGES; s++) {
        choose(bed, stages[s].stage, QY_RERANK_KEYS4, 2.0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        keep(bed, want);
        for (uint32_t i = 0; i < 3; i++) {
            bed_policy(bed, "a2ats+", steps[i]);
            ask_all(bed);
            bed_select(bed, BED_MAX_ITEMS);
            expect_same(bed, want);
        }
    }
    free(want);
    bed_free(bed);
}

/* One far distance and one budget per KV head: a2ats with its pooling changed. The codes of keys
 * that were turned forth and back are the same. */
static void plus_wrope_is_a2ats_pooled(void **state)
{
    struct bed *bed = plus_open(1);
    struct answer *want = calloc(1, sizeof(*want));
    (void)state;

    assert_non_null(want);
    for (int pooling = QY_POOLED_SUM; pooling <= QY_POOLED_MAX; pooling++) {
        bed->settings.pooling = pooling;
        bed_policy(bed, "a2ats", 0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        keep(bed, want);
        choose(bed, QY_STAGE1_WROPE, QY_RERANK_OFF, 0.0);
        ask_all(bed);
        bed_select(bed, BED_MAX_ITEMS);
        expect_same(bed, want);
    }
    free(want);
    bed_free(bed);
}

static void plus_presets_choose_budget_codebook_and_index(void **state)
{
    struct bed *bed = plus_open(1);
    const struct qy_policy_ops *ops = qy_policy_find("a2ats+");
    struct qy_retrieval_settings *set = &bed->settings;
    (void)state;

    assert_string_equal(ops->budget(set), "p0.94~4096:0.10");
    assert_int_equal(ops->codebook(set), QY_CODEBOOK_PQ4);
    assert_int_equal(ops->dense_layers(set), 0);
    bed_policy(bed, "a2ats+", 0);
    const size_t faithful = bed->slab_bytes;
    assert_true(faithful >= qy_key4_slab_bytes(BED_D, 1 << BED_SHIFT));

    set->preset = QY_PRESET_FAST;
    assert_string_equal(ops->budget(set), "0.032");
    bed_policy(bed, "a2ats+", 0);
    assert_true(bed->slab_bytes < faithful);
    assert_true(bed->slab_bytes >= BED_D / 8U << BED_SHIFT); /* 4 bits per 4 elements */

    set->preset = QY_PRESET_FAITHFUL;
    set->rerank = QY_RERANK_OFF; /* no mass without good scores */
    assert_string_equal(ops->budget(set), "0.032");
    set->first_stage = QY_STAGE1_BANDS;
    assert_int_equal(ops->codebook(set), QY_CODEBOOK_VQ);
    set->first_stage = QY_STAGE1_WROPE;
    assert_int_equal(ops->codebook(set), QY_CODEBOOK_VQ);
    set->first_stage = QY_STAGE1_EXACT;
    assert_int_equal(ops->codebook(set), QY_CODEBOOK_NONE);
    bed_policy(bed, "a2ats+", 0);
    assert_int_equal(bed->slab_bytes, 0);
    set->first_stage = QY_STAGE1_KEYS;
    assert_int_equal(ops->codebook(set), QY_CODEBOOK_NONE);
    assert_string_equal(ops->budget(set), "p0.94~4096:0.10");
    bed_free(bed);
}

/* The estimate leaves the choice as it is, and writes only where there is room for it. */
static void plus_estimate_is_of_what_was_not_chosen(void **state)
{
    enum { N = 3 };
    static float out[BED_GROUP * BED_D];
    struct bed *bed = plus_open(1);
    struct answer *want = calloc(1, sizeof(*want));
    (void)state;

    assert_non_null(want);
    bed_policy(bed, "a2ats+", 0);
    const size_t bytes = bed->slab_bytes;
    ask_all(bed);
    bed_select(bed, BED_MAX_ITEMS);
    keep(bed, want);
    bed->settings.estimate = 32;
    bed_policy(bed, "a2ats+", 0);
    assert_int_equal(bed->slab_bytes, bytes);
    ask_all(bed);
    float lse[BED_GROUP] = {NAN, NAN, NAN};
    bed->items[N].part_out = out;
    bed->items[N].part_lse = lse;
    bed_select(bed, BED_MAX_ITEMS);
    expect_same(bed, want);
    for (uint32_t g = 0; g < BED_GROUP; g++) {
        assert_true(isfinite(lse[g]));
    }
    bed_item(bed, 0, N / BED_KV, N % BED_KV, BED_MAX_N); /* all: nothing is left */
    bed->items[0].part_out = out;
    bed->items[0].part_lse = lse;
    bed_select(bed, 1);
    for (uint32_t g = 0; g < BED_GROUP; g++) {
        assert_true(lse[g] == -INFINITY);
    }
    free(want);
    bed_free(bed);
}

static void plus_mass_counts_after_a_rerank(void **state)
{
    struct bed *bed = plus_open(1);
    (void)state;

    bed->mass = 0.4F;
    bed_policy(bed, "a2ats+", 0); /* faithful */
    bed_item(bed, 0, 1, 0, 300);
    bed_select(bed, 1);
    assert_in_range(bed->n_ids[0], 1, 299);
    bed->settings.preset = QY_PRESET_FAST;
    bed_policy(bed, "a2ats+", 0);
    bed_select(bed, 1);
    assert_int_equal(bed->n_ids[0], 300);
    bed_free(bed);
}

static void plus_small_texts_and_values_that_are_no_numbers(void **state)
{
    struct bed *bed = plus_open(1);
    (void)state;

    bed_text(bed, 0, 1, 0.0F);
    bed_text(bed, 1, BED_SINKS + BED_WINDOW + 1, 0.0F);
    bed_text(bed, 2, 200, 0.0F);
    bed->texts[2].k[50][0][3] = NAN;
    bed->texts[2].k[60][0][4] = INFINITY;
    bed_text(bed, 3, 200, 0.0F);
    bed->texts[3].q[5] = NAN;
    for (uint32_t s = 0; s < N_STAGES; s++) {
        for (int rerank = QY_RERANK_OFF; rerank <= QY_RERANK_EXACT; rerank++) {
            choose(bed, stages[s].stage, rerank, 0.0);
            for (uint32_t i = 0; i < 5; i++) {
                bed_item(bed, i, i, 0, i == 4 ? 0 : 20);
            }
            bed_select(bed, 5);
            assert_int_equal(bed->n_ids[0], 0);
            assert_int_equal(bed->n_ids[1], 1);
            assert_int_equal(bed->n_ids[2], 20);
            assert_int_equal(bed->n_ids[3], 20);
            assert_int_equal(bed->n_ids[4], 0); /* budget 0 */
        }
    }
    bed_free(bed);
}

static void plus_open_refuses_what_it_cannot_use(void **state)
{
    struct bed *bed = plus_open(1);
    const struct qy_policy_ops *ops = qy_policy_find("a2ats+");
    struct qy_policy *policy = NULL;
    struct qy_error err = {QY_OK, ""};
    (void)state;

    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "policy 'a2ats+': no codebook"));
    bed_policy(bed, "a2ats", 0); /* leaves a codebook of codes before RoPE */
    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "the codebook is of"));
    bed->params.argument = "fast";
    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "takes no argument"));
    bed->params.argument = "";
    bed->settings.estimate = 32;
    bed->settings.first_stage = QY_STAGE1_KEYS;
    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "only retrieval.first_stage 'pq' is accepted"));
    assert_null(policy);
    bed_free(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plus_stages_find_the_best_tokens),
        cmocka_unit_test(plus_exact_is_policy_exact),
        cmocka_unit_test(plus_budget_of_everything_gives_everything),
        cmocka_unit_test(plus_appended_equals_bulk),
        cmocka_unit_test(plus_wrope_is_a2ats_pooled),
        cmocka_unit_test(plus_presets_choose_budget_codebook_and_index),
        cmocka_unit_test(plus_estimate_is_of_what_was_not_chosen),
        cmocka_unit_test(plus_mass_counts_after_a_rerank),
        cmocka_unit_test(plus_small_texts_and_values_that_are_no_numbers),
        cmocka_unit_test(plus_open_refuses_what_it_cannot_use),
    };
    return cmocka_run_group_tests_name("retrieval.a2ats_plus", tests, NULL, NULL);
}
