/* SPDX-License-Identifier: Apache-2.0 */
/* Policy a2ats as published. Keys that are words of the codebook score exactly what a key at the
 * far distance would: the identity of rotations, R_i q . R_j k = R_(i-j) q . k. */
#include "tests/unit/retrieval/token_bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct bed *a2ats_open(uint32_t threads, float noise)
{
    static const uint32_t lengths[BED_TEXTS] = {500, 800, 137, 38, 333};
    struct bed *bed = bed_new(threads);

    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        bed_text(bed, i, lengths[i], noise);
    }
    bed->settings.wrope_window = BED_WINDOW;
    return bed;
}

static void ask_all(struct bed *bed, uint32_t k)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        bed_item(bed, i, i / BED_KV, i % BED_KV, k);
    }
}

/* What eq. 11 and 12 give for a token. */
static double published_score(const struct bed *bed, uint32_t at, uint32_t g, uint32_t token)
{
    const uint32_t distance = bed->items[at].n - 1 - token;

    return distance < (uint32_t)bed->settings.wrope_window
               ? bed_score(bed, at, g, token)
               : bed_score_at(bed, at, g, token, (double)bed->settings.wrope_distance);
}

/* The ids are each head's best k by the published score; equal scores are taken in any order. */
static void expect_published(const struct bed *bed, uint32_t at)
{
    const struct qy_select_item *it = &bed->items[at];

    assert_in_range(bed->n_ids[at], it->k, BED_GROUP * it->k);
    for (uint32_t t = it->lo; t < it->hi; t++) {
        int must = 0;
        int may = 0;

        for (uint32_t g = 0; g < BED_GROUP; g++) {
            const double s = published_score(bed, at, g, t);
            uint32_t not_less = 0;
            uint32_t more = 0;

            for (uint32_t i = it->lo; i < it->hi; i++) {
                const double other = published_score(bed, at, g, i);

                not_less += i != t && other > s - 1e-4;
                more += other > s + 1e-4;
            }
            must |= not_less < it->k;
            may |= more < it->k;
        }
        assert_true(!must || bed_has(bed, at, t));
        assert_true(may || !bed_has(bed, at, t));
    }
}

static void a2ats_takes_each_heads_best_at_the_far_distance(void **state)
{
    static const int64_t distances[] = {2048, 100, 0};
    struct bed *bed = a2ats_open(2, 0.0F);
    (void)state;

    for (uint32_t d = 0; d < 3; d++) {
        bed->settings.wrope_distance = distances[d];
        bed_policy(bed, "a2ats", 0);
        ask_all(bed, 15);
        bed_select(bed, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            expect_published(bed, i);
        }
    }
    bed_free(bed);
}

static void a2ats_nearer_than_its_window_a_key_scores_at_its_place(void **state)
{
    struct bed *bed = a2ats_open(1, 0.0F);
    (void)state;

    bed->settings.wrope_window = 3 * BED_WINDOW;
    bed_policy(bed, "a2ats", 0);
    ask_all(bed, 15);
    bed_select(bed, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        expect_published(bed, i);
    }
    bed_free(bed);
}

static void a2ats_budget_of_everything_gives_everything(void **state)
{
    struct bed *bed = a2ats_open(2, 0.1F);
    (void)state;

    for (int pooling = QY_POOLED_SUM; pooling <= QY_POOLED_AUTO; pooling++) {
        bed->settings.pooling = pooling;
        bed_policy(bed, "a2ats", 0);
        ask_all(bed, BED_MAX_N);
        bed_select(bed, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            assert_int_equal(bed->n_ids[i], bed->items[i].hi - bed->items[i].lo);
        }
    }
    bed_free(bed);
}

static void a2ats_pooling_gives_one_budget_per_kv_head(void **state)
{
    struct bed *bed = a2ats_open(1, 0.1F);
    (void)state;

    for (int pooling = QY_POOLED_SUM; pooling <= QY_POOLED_MAX; pooling++) {
        bed->settings.pooling = pooling;
        bed_policy(bed, "a2ats", 0);
        ask_all(bed, 15);
        bed_select(bed, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            assert_int_equal(bed->n_ids[i], bed->items[i].k);
        }
    }
    bed_free(bed);
}

/* Encoded at append or in bulk, asked in this order or that, together or alone: the same ids. */
static void a2ats_ids_depend_on_the_item_alone(void **state)
{
    static const uint32_t steps[] = {0, 1, 7, 100};
    struct bed *bed = a2ats_open(2, 0.3F);
    uint32_t want[BED_MAX_ITEMS][45];
    uint32_t n_want[BED_MAX_ITEMS];
    (void)state;

    for (uint32_t s = 0; s < 4; s++) {
        bed_policy(bed, "a2ats", steps[s]);
        ask_all(bed, 15);
        bed_select(bed, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            if (s == 0) {
                n_want[i] = bed->n_ids[i];
                memcpy(want[i], bed->ids[i], n_want[i] * sizeof(uint32_t));
            }
            assert_int_equal(bed->n_ids[i], n_want[i]);
            assert_memory_equal(bed->ids[i], want[i], n_want[i] * sizeof(uint32_t));
        }
    }
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) { /* in reverse */
        const uint32_t from = BED_MAX_ITEMS - 1 - i;

        bed_item(bed, i, from / BED_KV, from % BED_KV, 15);
    }
    bed_select(bed, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        const uint32_t from = BED_MAX_ITEMS - 1 - i;

        assert_memory_equal(bed->ids[i], want[from], n_want[from] * sizeof(uint32_t));
        bed_item(bed, 0, from / BED_KV, from % BED_KV, 15);
        bed_select(bed, 1);
        assert_memory_equal(bed->ids[0], want[from], n_want[from] * sizeof(uint32_t));
        bed_item(bed, 0, BED_TEXTS - 1, 1, 15);
    }
    bed_free(bed);
}

/* A slot that holds a longer or another text than in the step before. */
static void a2ats_turns_follow_the_text(void **state)
{
    static const uint32_t lengths[] = {200, 201, 90, 200, 90};
    struct bed *bed = a2ats_open(1, 0.0F);
    (void)state;

    bed->settings.wrope_distance = 300;
    bed_policy(bed, "a2ats", 0);
    for (uint32_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct qy_policy *kept = bed->policy;

        /* text 0 is cut or grows in the same slot of the same open policy */
        bed_text(bed, 0, lengths[i], 0.0F);
        bed_append(bed, 0, 0, lengths[i]);
        assert_ptr_equal(kept, bed->policy);
        bed_item(bed, 0, 0, 0, 12);
        bed_select(bed, 1);
        expect_published(bed, 0);
    }
    bed_free(bed);
}

static void a2ats_open_refuses_what_it_cannot_use(void **state)
{
    struct bed *bed = a2ats_open(1, 0.0F);
    const struct qy_policy_ops *ops = qy_policy_find("a2ats");
    struct qy_policy *policy = NULL;
    struct qy_error err = {QY_OK, ""};
    (void)state;

    bed->params.codebook = NULL;
    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "no codebook"));

    bed_policy(bed, "a2ats+", 0); /* leaves a codebook of product codes */
    assert_int_equal(ops->open(&bed->params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "the codebook is of"));

    bed_policy(bed, "a2ats", 0);
    struct qy_policy_params params = bed->params;
    params.n_layers = 2;
    assert_int_equal(ops->open(&params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "1 layers"));
    params = bed->params;
    params.argument = "64";
    assert_int_equal(ops->open(&params, &policy, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "takes no argument"));
    assert_null(policy);
    bed_free(bed);
}

static void a2ats_table_says_what_is_published(void **state)
{
    const struct qy_policy_ops *ops = qy_policy_find("a2ats");
    const struct qy_retrieval_settings settings = {.budget = "auto"};
    (void)state;

    assert_int_equal(ops->codebook(&settings), QY_CODEBOOK_VQ);
    assert_string_equal(ops->budget(&settings), "0.03");
    assert_true(ops->caps.per_head);
    assert_true(ops->caps.index_shareable);
    assert_int_equal(ops->caps.append_form, QY_KEYS_BEFORE_ROPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a2ats_takes_each_heads_best_at_the_far_distance),
        cmocka_unit_test(a2ats_nearer_than_its_window_a_key_scores_at_its_place),
        cmocka_unit_test(a2ats_budget_of_everything_gives_everything),
        cmocka_unit_test(a2ats_pooling_gives_one_budget_per_kv_head),
        cmocka_unit_test(a2ats_ids_depend_on_the_item_alone),
        cmocka_unit_test(a2ats_turns_follow_the_text),
        cmocka_unit_test(a2ats_open_refuses_what_it_cannot_use),
        cmocka_unit_test(a2ats_table_says_what_is_published),
    };
    return cmocka_run_group_tests_name("retrieval.a2ats", tests, NULL, NULL);
}
