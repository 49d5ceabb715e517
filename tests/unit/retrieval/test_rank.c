/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of token policies: pooling, two stages, unions, masses, batches. The coarse stage here
 * is the truth with an error that is known. */
#include "tests/unit/retrieval/token_bed.h"

#include "retrieval/rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double error_of(uint32_t token, uint32_t g)
{
    return (double)((token * 2654435761U + g * 40503U) >> 16 & 1023) / 1024.0;
}

struct coarse {
    const struct bed *bed;
    uint32_t spans; /* that it was asked for */
};

static enum qy_status coarse_score(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                   uint32_t n, struct qy_arena *arena)
{
    struct coarse *ctx = rank->ctx;
    (void)arena;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = (uint32_t)(spans[i].item - ctx->bed->items);

        assert_null(spans[i].ids);
        for (uint32_t g = 0; g < BED_GROUP; g++) {
            for (uint32_t t = 0; t < spans[i].n; t++) {
                const uint32_t token = spans[i].first + t;

                spans[i].scores[g * spans[i].stride + t] =
                    (float)(bed_score(ctx->bed, at, g, token) + error_of(token, g));
            }
        }
    }
    ctx->spans += n;
    return QY_OK;
}

static const struct qyi_rank_stage stage_coarse = {.score = coarse_score};

static struct bed *texts_open(uint32_t threads)
{
    static const uint32_t lengths[BED_TEXTS] = {500, 800, 137, 64, 333};
    struct bed *bed = bed_new(threads);

    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        bed_text(bed, i, lengths[i], 0.2F);
    }
    return bed;
}

/* All texts and KV heads, k each. */
static void ask_all(struct bed *bed, uint32_t k)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        bed_item(bed, i, i / BED_KV, i % BED_KV, k);
    }
}

static void rank_run(struct bed *bed, const struct qyi_rank *rank, uint32_t n_items)
{
    struct qy_arena *arena = bed_arena(bed, qyi_rank_scratch(rank, n_items, BED_MAX_N));

    assert_int_equal(qyi_rank_select(rank, bed->items, n_items, arena), QY_OK);
    assert_int_equal(arena->used, 0);
}

/* Every chosen token's value is at least every other candidate's. */
static void expect_best(const struct bed *bed, uint32_t at, const double *value,
                        const uint8_t *candidate)
{
    const struct qy_select_item *it = &bed->items[at];
    double least = INFINITY;

    for (uint32_t i = 0; i < bed->n_ids[at]; i++) {
        assert_in_range(bed->ids[at][i], it->lo, it->hi - 1);
        assert_true(i == 0 || bed->ids[at][i] > bed->ids[at][i - 1]);
        assert_true(!candidate || candidate[bed->ids[at][i]]);
        least = fmin(least, value[bed->ids[at][i]]);
    }
    for (uint32_t t = it->lo; t < it->hi; t++) {
        if ((!candidate || candidate[t]) && !bed_has(bed, at, t)) {
            assert_true(value[t] <= least * (1.0 + 1e-4));
        }
    }
}

static void rank_pools_by_sum_or_by_largest(void **state)
{
    struct bed *bed = texts_open(1);
    (void)state;

    for (int largest = 0; largest < 2; largest++) {
        const struct qyi_rank rank = {.params = &bed->params,
                                      .first = &qyi_stage_exact,
                                      .pooling = largest ? QY_POOLED_MAX : QY_POOLED_SUM};

        ask_all(bed, 20);
        rank_run(bed, &rank, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            double pooled[BED_MAX_N];

            bed_pool(bed, i, largest, pooled);
            assert_int_equal(bed->n_ids[i], bed->items[i].k);
            expect_best(bed, i, pooled, NULL);
        }
    }
    bed_free(bed);
}

static void rank_rerank_takes_the_best_of_the_candidates(void **state)
{
    struct bed *bed = texts_open(2);
    struct coarse coarse = {bed, 0};
    const struct qyi_rank first = {
        .params = &bed->params, .ctx = &coarse, .first = &stage_coarse, .pooling = QY_POOLED_SUM};
    struct qyi_rank both = first;
    uint8_t candidate[BED_MAX_ITEMS][BED_MAX_N] = {{0}};
    (void)state;

    both.rerank = &qyi_stage_exact;
    both.overfetch = 2.5;
    ask_all(bed, 25); /* the candidates of k = 10, or all of a short text */
    rank_run(bed, &first, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        for (uint32_t j = 0; j < bed->n_ids[i]; j++) {
            candidate[i][bed->ids[i][j]] = 1;
        }
    }
    ask_all(bed, 10);
    rank_run(bed, &both, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        const struct qy_select_item *it = &bed->items[i];
        double pooled[BED_MAX_N] = {0};

        for (uint32_t g = 0; g < BED_GROUP; g++) {
            double sum = 0.0;

            for (uint32_t t = 0; t < it->n; t++) {
                const int seen = t < it->lo || t >= it->hi || candidate[i][t];

                sum += seen ? exp(bed_score(bed, i, g, t)) : 0.0;
            }
            for (uint32_t t = it->lo; t < it->hi; t++) {
                pooled[t] += exp(bed_score(bed, i, g, t)) / sum;
            }
        }
        assert_int_equal(bed->n_ids[i], it->k);
        expect_best(bed, i, pooled, candidate[i]);
    }
    bed_free(bed);
}

static void rank_rerank_of_everything_equals_the_second_stage_alone(void **state)
{
    struct bed *bed = texts_open(2);
    struct coarse coarse = {bed, 0};
    const struct qyi_rank alone = {
        .params = &bed->params, .first = &qyi_stage_exact, .pooling = QY_POOLED_SUM};
    const struct qyi_rank both = {.params = &bed->params,
                                  .ctx = &coarse,
                                  .first = &stage_coarse,
                                  .rerank = &qyi_stage_exact,
                                  .overfetch = 1e9,
                                  .pooling = QY_POOLED_SUM};
    uint32_t want[BED_MAX_ITEMS][30];
    (void)state;

    ask_all(bed, 30);
    rank_run(bed, &alone, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        memcpy(want[i], bed->ids[i], bed->n_ids[i] * sizeof(uint32_t));
    }
    ask_all(bed, 30);
    rank_run(bed, &both, BED_MAX_ITEMS);
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        assert_int_equal(bed->n_ids[i], bed->items[i].k);
        assert_memory_equal(want[i], bed->ids[i], bed->n_ids[i] * sizeof(uint32_t));
    }
    assert_int_equal(coarse.spans, 0); /* there was nothing to find out */
    bed_free(bed);
}

/* Each head's best are in the union, and nothing else. */
static void expect_union(const struct bed *bed, uint32_t at, uint32_t k)
{
    const struct qy_select_item *it = &bed->items[at];
    const uint32_t range = it->hi - it->lo;
    uint32_t n_best = 0;

    k = k < range ? k : range;
    assert_in_range(bed->n_ids[at], k, BED_GROUP * k);
    for (uint32_t t = it->lo; t < it->hi; t++) {
        int is_best = 0;
        int is_near = 0; /* within rounding of a head's cut */

        for (uint32_t g = 0; g < BED_GROUP; g++) {
            const double s = bed_score(bed, at, g, t);
            uint32_t better = 0;
            uint32_t much_better = 0;

            for (uint32_t i = it->lo; i < it->hi; i++) {
                const double other = bed_score(bed, at, g, i);

                better += other > s - 1e-5 && i != t;
                much_better += other > s + 1e-5;
            }
            is_best |= better < k;
            is_near |= much_better < k;
        }
        assert_true(!is_best || bed_has(bed, at, t));
        assert_true(is_near || !bed_has(bed, at, t));
        n_best += (uint32_t)is_best;
    }
    assert_true(n_best >= k);
}

static void rank_union_has_each_heads_best(void **state)
{
    struct bed *bed = texts_open(2);
    struct qyi_rank rank = {
        .params = &bed->params, .first = &qyi_stage_exact, .pooling = QY_POOLED_UNION};
    (void)state;

    bed->mass = 0.5F; /* knows no mass */
    for (rank.per_head = 0; rank.per_head < 2; rank.per_head++) {
        ask_all(bed, 12);
        rank_run(bed, &rank, BED_MAX_ITEMS);
        for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
            expect_union(bed, i, rank.per_head ? 12 : 4);
        }
    }
    rank.per_head = 0;
    rank.rerank = &qyi_stage_exact;
    rank.overfetch = 8.0;
    ask_all(bed, 12); /* 96 candidates by sum have each head's best 4 here */
    rank_run(bed, &rank, 1);
    assert_in_range(bed->n_ids[0], 4, 12);
    bed_free(bed);
}

static void rank_mass_counts_on_trusted_scores_only(void **state)
{
    struct bed *bed = texts_open(1);
    struct coarse coarse = {bed, 0};
    struct qyi_rank rank = {
        .params = &bed->params, .ctx = &coarse, .first = &stage_coarse, .pooling = QY_POOLED_SUM};
    (void)state;

    bed->mass = 0.6F;
    bed_item(bed, 0, 0, 0, 300);
    rank_run(bed, &rank, 1);
    assert_int_equal(bed->n_ids[0], 300);

    rank.rerank = &qyi_stage_exact;
    rank.overfetch = 1.5;
    rank_run(bed, &rank, 1);
    assert_in_range(bed->n_ids[0], 1, 299);

    rank.first = &qyi_stage_exact;
    rank.rerank = NULL;
    rank_run(bed, &rank, 1);
    assert_in_range(bed->n_ids[0], 1, 299);
    double pooled[BED_MAX_N];
    double have = 0.0;
    double least = 1.0;
    bed_pool(bed, 0, 0, pooled);
    for (uint32_t t = 0; t < bed->items[0].n; t++) {
        const int chosen = bed_has(bed, 0, t);

        have += chosen || t < bed->items[0].lo || t >= bed->items[0].hi ? pooled[t] : 0.0;
        least = chosen ? fmin(least, pooled[t]) : least;
    }
    assert_true(have >= 0.6 - 1e-4 && have - least < 0.6 + 1e-4);
    bed_free(bed);
}

/* More items than one batch holds, of all lengths, as each alone; the scratch is exact. */
static void rank_batches_equal_each_item_alone(void **state)
{
    enum { ITEMS = 400, K = 5 };
    struct bed *bed = texts_open(2);
    struct qy_select_item *items = calloc(ITEMS, sizeof(*items));
    uint32_t(*ids)[BED_GROUP * K] = calloc(ITEMS, sizeof(*ids));
    uint32_t *n_ids = calloc(ITEMS, sizeof(*n_ids));
    (void)state;

    assert_true(items && ids && n_ids);
    for (int pooling = QY_POOLED_SUM; pooling <= QY_POOLED_UNION; pooling++) {
        const struct qyi_rank rank = {.params = &bed->params,
                                      .first = &qyi_stage_exact,
                                      .rerank = pooling == QY_POOLED_MAX ? NULL : &qyi_stage_exact,
                                      .overfetch = 3.0,
                                      .pooling = (enum qy_pool_choice)pooling,
                                      .per_head = 1};

        ask_all(bed, K);
        for (uint32_t i = 0; i < ITEMS; i++) {
            items[i] = bed->items[i % 7 == 0 ? i % BED_MAX_ITEMS : 2 + i % 2];
            items[i].ids = ids[i];
            items[i].n_ids = &n_ids[i];
        }
        struct qy_arena *arena = bed_arena(bed, qyi_rank_scratch(&rank, ITEMS, BED_MAX_N));
        assert_int_equal(qyi_rank_select(&rank, items, ITEMS, arena), QY_OK);
        assert_true(arena->high_water > (size_t)1 << 20); /* it did fill a batch */
        for (uint32_t i = 0; i < ITEMS; i++) {
            const uint32_t at = i % 7 == 0 ? i % BED_MAX_ITEMS : 2 + i % 2;
            struct qy_select_item alone = bed->items[at];

            arena = bed_arena(bed, qyi_rank_scratch(&rank, 1, alone.n));
            assert_int_equal(qyi_rank_select(&rank, &alone, 1, arena), QY_OK);
            assert_int_equal(n_ids[i], bed->n_ids[at]);
            assert_memory_equal(ids[i], bed->ids[at], n_ids[i] * sizeof(uint32_t));
        }
    }
    free(n_ids);
    free(ids);
    free(items);
    bed_free(bed);
}

static void rank_small_and_odd_items(void **state)
{
    struct bed *bed = texts_open(1);
    struct coarse coarse = {bed, 0};
    struct qyi_rank rank = {.params = &bed->params,
                            .ctx = &coarse,
                            .first = &stage_coarse,
                            .rerank = &qyi_stage_exact,
                            .overfetch = 2.0,
                            .pooling = QY_POOLED_SUM};
    (void)state;

    for (; rank.pooling <= QY_POOLED_UNION; rank.pooling++) {
        bed_text(bed, 1, 1, 0.0F);                          /* one token            */
        bed_text(bed, 2, BED_SINKS + BED_WINDOW, 0.0F);     /* nothing to choose    */
        bed_text(bed, 3, BED_SINKS + BED_WINDOW + 1, 0.0F); /* one token to choose  */
        for (uint32_t i = 0; i < 4; i++) {
            bed_item(bed, i, i, 0, 3);
        }
        bed->items[0].k = 0;
        rank_run(bed, &rank, 4);
        assert_int_equal(bed->n_ids[0], 0);
        assert_int_equal(bed->n_ids[1], 0);
        assert_int_equal(bed->n_ids[2], 0);
        assert_int_equal(bed->n_ids[3], rank.pooling == QY_POOLED_UNION ? 0 : 1);
        assert_true(bed->n_ids[3] == 0 || bed->ids[3][0] == BED_SINKS);
    }
    rank.pooling = QY_POOLED_SUM;
    rank.rerank = NULL;
    rank.first = &qyi_stage_exact;
    for (uint32_t j = 0; j < BED_D; j++) {
        bed->texts[0].q[j] = NAN; /* one head of the group */
    }
    bed_item(bed, 0, 0, 0, 10);
    rank_run(bed, &rank, 1);
    assert_int_equal(bed->n_ids[0], 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_in_range(bed->ids[0][i], bed->items[0].lo, bed->items[0].hi - 1);
    }
    bed_free(bed);
}

static void rank_arena_too_small_is_refused(void **state)
{
    struct bed *bed = texts_open(1);
    const struct qyi_rank rank = {.params = &bed->params,
                                  .first = &qyi_stage_exact,
                                  .rerank = &qyi_stage_exact,
                                  .overfetch = 2.0,
                                  .pooling = QY_POOLED_SUM};
    (void)state;

    ask_all(bed, 10);
    for (size_t bytes = 64; bytes < 32768; bytes *= 2) {
        struct qy_arena *arena = bed_arena(bed, bytes);

        assert_int_equal(qyi_rank_select(&rank, bed->items, 4, arena), QY_ERR_NOMEM);
        assert_int_equal(arena->used, 0);
    }
    bed_free(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_pools_by_sum_or_by_largest),
        cmocka_unit_test(rank_rerank_takes_the_best_of_the_candidates),
        cmocka_unit_test(rank_rerank_of_everything_equals_the_second_stage_alone),
        cmocka_unit_test(rank_union_has_each_heads_best),
        cmocka_unit_test(rank_mass_counts_on_trusted_scores_only),
        cmocka_unit_test(rank_batches_equal_each_item_alone),
        cmocka_unit_test(rank_small_and_odd_items),
        cmocka_unit_test(rank_arena_too_small_is_refused),
    };
    return cmocka_run_group_tests_name("retrieval.rank", tests, NULL, NULL);
}
