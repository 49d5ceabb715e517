/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every policy keeps to, driven as a program drives it: through the cache. Each selection is
 * checked on its way (policy_rig.c): ids ascending, in reach, no more than the budget; asked for
 * all tokens, a policy gives all of them.
 */
#include "tests/conformance/policy_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 264, MORE = 12 };

static float *outputs(const struct prig *rig)
{
    float *out = calloc((size_t)PRIG_LAYERS * rig->out * PRIG_MAX_FEEDS, sizeof(*out));

    assert_non_null(out);
    return out;
}

static void assert_same(const struct prig *rig, const float *a, const float *b)
{
    assert_memory_equal(a, b, (size_t)PRIG_LAYERS * rig->out * sizeof(*a));
}

static double largest_difference(const struct prig *rig, const float *a, const float *b)
{
    double most = 0.0;

    for (size_t i = 0; i < (size_t)PRIG_LAYERS * rig->out; i++) {
        const double diff = fabs((double)a[i] - (double)b[i]);

        most = diff > most || isnan(diff) ? diff : most;
    }
    return most;
}

/* ---- ids, budgets, short contexts ------------------------------------------------------------- */

static void check_decode(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    assert_true(prig_open(&rig, &o));
    struct qy_sequence *seq = prig_sequence(&rig);
    float *out = outputs(&rig);
    for (uint32_t i = 0; i < 3; i++) { /* from nothing: 0, 1, 2 tokens */
        prig_next(&rig, seq, 1, out);
    }
    prig_fill(&rig, seq, 1, 65, 65); /* the window is full: a few tokens beside it */
    for (uint32_t i = 0; i < MORE; i++) {
        prig_next(&rig, seq, 1, out);
    }
    prig_fill(&rig, seq, 1, N, 128);
    for (uint32_t i = 0; i < MORE; i++) {
        prig_next(&rig, seq, 1, out);
    }
    assert_int_equal(rig.selects > 0, policy_case_selects(c));
    free(out);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void policy_decode_chooses_valid_ids(void **state)
{
    (void)state;
    policy_cases_run(check_decode);
}

/* A budget of all tokens answers as dense attention does. */
static void check_whole(const struct policy_case *c)
{
    struct prig_options o = policy_case_options(c);
    struct prig rig;

    if (strcmp(c->policy, "window") == 0) {
        return; /* takes no budget */
    }
    o.budget = "500";
    assert_true(prig_open(&rig, &o));
    struct qy_sequence *seq = prig_sequence(&rig);
    float *out = outputs(&rig);
    float *dense = outputs(&rig);
    const struct prig_feed feed = {.seq = seq, .stream = 2, .n = 1, .mode = QY_ATTEND_DENSE};

    prig_fill(&rig, seq, 2, N, N);
    prig_next(&rig, seq, 2, out);
    assert_int_equal(qy_sequence_truncate(seq, N), QY_OK);
    assert_int_equal(prig_step(&rig, &feed, 1, dense), QY_OK);
    assert_true(largest_difference(&rig, out, dense) < 1e-5);
    free(dense);
    free(out);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void policy_budget_of_all_is_dense(void **state)
{
    (void)state;
    policy_cases_run(check_whole);
}

/* ---- the index does not depend on how the tokens came ------------------------------------------ */

static void check_chunks(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    if (!policy_case_shareable(c)) {
        return; /* learnt when it is first needed: see the next cases */
    }
    assert_true(prig_open(&rig, &o));
    struct qy_sequence *bulk = prig_sequence(&rig);
    struct qy_sequence *chunks = prig_sequence(&rig);
    struct qy_sequence *single = prig_sequence(&rig);
    float *a = outputs(&rig);
    float *b = outputs(&rig);

    prig_fill(&rig, bulk, 3, N, N);
    prig_fill(&rig, chunks, 3, N, 37);
    prig_fill(&rig, single, 3, N, 1);
    for (uint32_t i = 0; i < 3; i++) {
        prig_next(&rig, bulk, 3, a);
        prig_next(&rig, chunks, 3, b);
        assert_same(&rig, a, b);
        prig_next(&rig, single, 3, b);
        assert_same(&rig, a, b);
    }
    free(b);
    free(a);
    qy_sequence_close(single);
    qy_sequence_close(chunks);
    qy_sequence_close(bulk);
    prig_close(&rig);
}

static void policy_index_of_one_by_one_is_that_of_a_chunk(void **state)
{
    (void)state;
    policy_cases_run(check_chunks);
}

static void check_truncate(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    assert_true(prig_open(&rig, &o));
    struct qy_sequence *cut = prig_sequence(&rig);
    struct qy_sequence *fresh = prig_sequence(&rig);
    float *a = outputs(&rig);
    float *b = outputs(&rig);

    prig_fill(&rig, cut, 4, 150, 64);
    prig_fill(&rig, cut, 5, N - 150, 64); /* these go, and others come */
    prig_next(&rig, cut, 5, a);
    prig_next(&rig, cut, 5, a);
    assert_int_equal(qy_sequence_truncate(cut, 150), QY_OK);
    prig_fill(&rig, cut, 4, N - 150, 64);
    prig_fill(&rig, fresh, 4, N, 64);
    for (uint32_t i = 0; i < 3; i++) {
        prig_next(&rig, cut, 4, a);
        prig_next(&rig, fresh, 4, b);
        assert_same(&rig, a, b);
    }
    free(b);
    free(a);
    qy_sequence_close(fresh);
    qy_sequence_close(cut);
    prig_close(&rig);
}

static void policy_truncated_and_refilled_is_as_fresh(void **state)
{
    (void)state;
    policy_cases_run(check_truncate);
}

/* A slot that is used again knows nothing of its last sequence. */
static void check_reopen(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    assert_true(prig_open(&rig, &o));
    float *a = outputs(&rig);
    float *b = outputs(&rig);
    struct qy_sequence *seq = prig_sequence(&rig);

    prig_fill(&rig, seq, 6, N, N);
    prig_next(&rig, seq, 6, a);
    qy_sequence_close(seq);
    seq = prig_sequence(&rig);
    prig_fill(&rig, seq, 7, N, N);
    prig_next(&rig, seq, 7, a);
    qy_sequence_close(seq);
    prig_close(&rig);

    assert_true(prig_open(&rig, &o));
    seq = prig_sequence(&rig);
    prig_fill(&rig, seq, 7, N, N);
    prig_next(&rig, seq, 7, b);
    assert_same(&rig, a, b);
    free(b);
    free(a);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void policy_slot_used_again_is_as_new(void **state)
{
    (void)state;
    policy_cases_run(check_reopen);
}

/* ---- sequences do not see each other ------------------------------------------------------------ */

static void check_copy(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    assert_true(prig_open(&rig, &o));
    struct qy_sequence *src = prig_sequence(&rig);
    struct qy_sequence *dst = prig_sequence(&rig);
    float *a = outputs(&rig);
    float *b = outputs(&rig);

    prig_fill(&rig, src, 8, N, 100);
    assert_int_equal(qy_sequence_copy(dst, src), QY_OK);
    for (uint32_t i = 0; i < 3; i++) {
        prig_next(&rig, src, 8, a);
        prig_next(&rig, dst, 8, b);
        assert_same(&rig, a, b);
    }
    free(b);
    free(a);
    qy_sequence_close(dst);
    qy_sequence_close(src);
    prig_close(&rig);
}

static void policy_copy_answers_as_its_source(void **state)
{
    (void)state;
    policy_cases_run(check_copy);
}

static void check_batch(const struct policy_case *c)
{
    const struct prig_options o = policy_case_options(c);
    struct prig rig;

    assert_true(prig_open(&rig, &o));
    struct qy_sequence *x = prig_sequence(&rig);
    struct qy_sequence *y = prig_sequence(&rig);
    float *both = outputs(&rig);
    float *a = outputs(&rig);
    float *b = outputs(&rig);

    prig_fill(&rig, x, 9, N, N);
    prig_fill(&rig, y, 10, N / 2, N);
    const struct prig_feed feeds[2] = {{.seq = x, .stream = 9, .n = 1},
                                       {.seq = y, .stream = 10, .n = 1}};
    assert_int_equal(prig_step(&rig, feeds, 2, both), QY_OK);
    assert_int_equal(qy_sequence_truncate(x, N), QY_OK);
    assert_int_equal(qy_sequence_truncate(y, N / 2), QY_OK);
    prig_next(&rig, x, 9, a);
    prig_next(&rig, y, 10, b);
    for (uint32_t layer = 0; layer < PRIG_LAYERS; layer++) {
        const float *row = both + (size_t)layer * 2 * rig.out;

        assert_memory_equal(row, a + (size_t)layer * rig.out, rig.out * sizeof(*row));
        assert_memory_equal(row + rig.out, b + (size_t)layer * rig.out, rig.out * sizeof(*row));
    }
    free(b);
    free(a);
    free(both);
    qy_sequence_close(y);
    qy_sequence_close(x);
    prig_close(&rig);
}

static void policy_batch_answers_as_each_alone(void **state)
{
    (void)state;
    policy_cases_run(check_batch);
}

/* ---- pooling ------------------------------------------------------------------------------------ */

static int asked_pooling;

static void set_pooling(struct qy_retrieval_settings *settings)
{
    settings->pooling = asked_pooling;
}

static void policy_pools_by_max_and_union(void **state)
{
    static const char *const names[] = {"exact", "quest", "pq", "faiss:Flat"};
    static const int poolings[] = {QY_POOLED_MAX, QY_POOLED_UNION};

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        const struct prig_options o = {.policy = names[i / 2],
                                       .budget = i / 2 == 1 ? "40" : "9",
                                       .d = 64,
                                       .group = 4,
                                       .block_tokens = 32,
                                       .level = QY_CPU_PLAIN,
                                       .set = set_pooling};
        struct prig rig;

        asked_pooling = poolings[i % 2];
        if (!prig_open(&rig, &o)) {
            continue; /* no FAISS: named by the other cases */
        }
        struct qy_sequence *seq = prig_sequence(&rig);
        float *out = outputs(&rig);
        prig_fill(&rig, seq, 11, N, N);
        for (uint32_t t = 0; t < 3; t++) {
            prig_next(&rig, seq, 11, out);
        }
        assert_true(rig.selects > 0);
        free(out);
        qy_sequence_close(seq);
        prig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_decode_chooses_valid_ids),
        cmocka_unit_test(policy_budget_of_all_is_dense),
        cmocka_unit_test(policy_index_of_one_by_one_is_that_of_a_chunk),
        cmocka_unit_test(policy_truncated_and_refilled_is_as_fresh),
        cmocka_unit_test(policy_slot_used_again_is_as_new),
        cmocka_unit_test(policy_copy_answers_as_its_source),
        cmocka_unit_test(policy_batch_answers_as_each_alone),
        cmocka_unit_test(policy_pools_by_max_and_union),
    };
    return cmocka_run_group_tests_name("retrieval.policies", tests, NULL, NULL);
}
