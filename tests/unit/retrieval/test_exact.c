/* SPDX-License-Identifier: Apache-2.0 */
/* Policy exact against an oracle in double precision: scores, softmax over all tokens, mean over
 * the group, the best k of the candidates. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 16, GROUP = 3, KV_HEADS = 2, MAX_N = 700, MAX_ITEMS = 9, SHIFT = 5, MAX_BLOCKS = 32 };

struct bed {
    struct qy_runtime rt;
    struct qy_device *dev;
    uint8_t *blocks[MAX_ITEMS][MAX_BLOCKS];
    float q[MAX_ITEMS][GROUP * D];
    struct qy_select_item items[MAX_ITEMS];
    uint32_t ids[MAX_ITEMS][MAX_N], n_ids[MAX_ITEMS];
    struct qy_arena arena;
};

static float random_value(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(*state >> 8) * 0x1p-23F - 1.0F;
}

static void bed_open(struct bed *bed, uint32_t threads)
{
    const struct qy_device_params params = {.spec = "host", .max_m = 1};
    struct qy_error err = {0};
    uint32_t seed = 11;

    memset(bed, 0, sizeof(*bed));
    bed->rt.mem = qy_allocator_system();
    qy_cpu_detect(&bed->rt.cpu);
    if (threads > 1) {
        const struct qy_team_params team = {.n_threads = threads};

        assert_int_equal(qy_team_open(&bed->rt.mem, &team, &bed->rt.team, &err), QY_OK);
    }
    assert_int_equal(qy_device_open(&bed->rt, &params, &bed->dev, &err), QY_OK);
    for (int i = 0; i < MAX_ITEMS; i++) {
        for (int b = 0; b < MAX_BLOCKS; b++) {
            float *rows = malloc(((size_t)1 << SHIFT) * 2 * D * sizeof(float));

            assert_non_null(rows);
            for (size_t j = 0; j < ((size_t)1 << SHIFT) * 2 * D; j++) {
                rows[j] = 2.0F * random_value(&seed);
            }
            bed->blocks[i][b] = (uint8_t *)rows;
        }
        for (int j = 0; j < GROUP * D; j++) {
            bed->q[i][j] = 2.0F * random_value(&seed);
        }
    }
}

static void bed_close(struct bed *bed)
{
    for (int i = 0; i < MAX_ITEMS; i++) {
        for (int b = 0; b < MAX_BLOCKS; b++) {
            free(bed->blocks[i][b]);
        }
    }
    qy_device_close(bed->dev);
    qy_team_close(bed->rt.team);
    free(bed->arena.base);
}

static void bed_select(struct bed *bed, uint32_t n_items, double mass)
{
    const struct qy_policy_ops *ops = qy_policy_find("exact");
    const struct qy_policy_params params = {.rt = &bed->rt,
                                            .dev = bed->dev,
                                            .n_layers = 1,
                                            .n_heads = GROUP * KV_HEADS,
                                            .n_kv_heads = KV_HEADS,
                                            .head_dim = D,
                                            .max_sequences = MAX_ITEMS,
                                            .max_tokens = MAX_N,
                                            .scale = 0.25F};
    struct qy_policy *policy = NULL;

    for (uint32_t i = 0; i < n_items; i++) {
        bed->items[i].mass = (float)mass;
    }
    assert_int_equal(ops->open(&params, &policy, NULL), QY_OK);
    const size_t bytes = ops->scratch(policy, n_items, MAX_N);
    free(bed->arena.base);
    qy_arena_init(&bed->arena, malloc(bytes), bytes);
    assert_int_equal(ops->select(policy, bed->items, n_items, &bed->arena), QY_OK);
    assert_int_equal(bed->arena.used, 0);
    ops->close(policy);
}

static void set_item(struct bed *bed, uint32_t i, uint32_t n, uint32_t lo, uint32_t hi, uint32_t k)
{
    bed->items[i] = (struct qy_select_item){
        .q = bed->q[i],
        .rows = {.blocks = bed->blocks[i], .shift = SHIFT, .d = D, .type = QY_ROW_F32},
        .group = GROUP,
        .n = n,
        .lo = lo,
        .hi = hi,
        .k = k,
        .ids = bed->ids[i],
        .n_ids = &bed->n_ids[i]};
    memset(bed->ids[i], 0xff, sizeof(bed->ids[i]));
}

/* pooled [n]: mean over the group of the softmax over all n tokens. */
static void oracle_pool(const struct qy_select_item *it, double *pooled)
{
    memset(pooled, 0, it->n * sizeof(*pooled));
    for (uint32_t g = 0; g < it->group; g++) {
        double scores[MAX_N];
        double sum = 0.0;

        for (uint32_t t = 0; t < it->n; t++) {
            const float *k = (const float *)(const void *)qy_row_at(&it->rows, t);

            scores[t] = 0.0;
            for (uint32_t j = 0; j < D; j++) {
                scores[t] += (double)it->q[g * D + j] * k[j];
            }
            scores[t] = exp(0.25 * scores[t]);
            sum += scores[t];
        }
        for (uint32_t t = 0; t < it->n; t++) {
            pooled[t] += scores[t] / sum / it->group;
        }
    }
}

/* How many candidates rank above token t. */
static uint32_t oracle_rank(const struct qy_select_item *it, const double *pooled, uint32_t t)
{
    uint32_t rank = 0;

    for (uint32_t i = it->lo; i < it->hi; i++) {
        rank += pooled[i] > pooled[t] || (pooled[i] == pooled[t] && i < t);
    }
    return rank;
}

static void expect_best(const struct bed *bed, uint32_t i, uint32_t n_want)
{
    const struct qy_select_item *it = &bed->items[i];
    double pooled[MAX_N];

    oracle_pool(it, pooled);
    assert_int_equal(bed->n_ids[i], n_want);
    for (uint32_t j = 0; j < n_want; j++) {
        assert_in_range(bed->ids[i][j], it->lo, it->hi - 1);
        assert_true(j == 0 || bed->ids[i][j] > bed->ids[i][j - 1]);
        assert_true(oracle_rank(it, pooled, bed->ids[i][j]) < n_want);
    }
}

static void exact_small_k_gives_the_best_of_the_candidates(void **state)
{
    struct bed bed;
    (void)state;

    bed_open(&bed, 1);
    set_item(&bed, 0, 300, 8, 236, 9);
    set_item(&bed, 1, 77, 0, 76, 5);
    set_item(&bed, 2, 40, 8, 9, 1);
    bed_select(&bed, 3, 0.0);
    expect_best(&bed, 0, 9);
    expect_best(&bed, 1, 5);
    expect_best(&bed, 2, 1);
    bed_close(&bed);
}

static void exact_full_k_gives_every_candidate(void **state)
{
    struct bed bed;
    (void)state;

    bed_open(&bed, 2);
    set_item(&bed, 0, 500, 8, 436, 428);
    bed_select(&bed, 1, 0.0);
    assert_int_equal(bed.n_ids[0], 428);
    for (uint32_t i = 0; i < 428; i++) {
        assert_int_equal(bed.ids[0][i], 8 + i);
    }
    bed_close(&bed);
}

static void exact_items_of_different_lengths_equal_each_alone(void **state)
{
    struct bed bed;
    uint32_t together[MAX_ITEMS][64];
    (void)state;

    bed_open(&bed, 2);
    for (uint32_t i = 0; i < MAX_ITEMS; i++) {
        set_item(&bed, i, 100 + 70 * i, 4, 80 + 70 * i, 20 + i);
    }
    bed_select(&bed, MAX_ITEMS, 0.0);
    for (uint32_t i = 0; i < MAX_ITEMS; i++) {
        expect_best(&bed, i, 20 + i);
        memcpy(together[i], bed.ids[i], sizeof(together[i]));
    }
    for (uint32_t i = 0; i < MAX_ITEMS; i++) {
        bed.items[0] = bed.items[i];
        bed_select(&bed, 1, 0.0);
        assert_memory_equal(bed.items[0].ids, together[i], (20 + i) * sizeof(uint32_t));
    }
    bed_close(&bed);
}

/* Candidates are taken, best first, until what is always attended and they have the mass. */
static void exact_mass_budget_stops_when_the_mass_is_reached(void **state)
{
    struct bed bed;
    double pooled[MAX_N];
    double total = 0.0;
    double taken = 0.0;
    double least = 1.0;
    (void)state;

    bed_open(&bed, 1);
    set_item(&bed, 0, 400, 8, 336, 328);
    bed_select(&bed, 1, 0.8);
    const uint32_t n = bed.n_ids[0];
    assert_in_range(n, 2, 200);
    expect_best(&bed, 0, n);

    oracle_pool(&bed.items[0], pooled);
    for (uint32_t t = 0; t < 400; t++) {
        total += t < 8 || t >= 336 ? pooled[t] : 0.0;
    }
    for (uint32_t i = 0; i < n; i++) {
        taken += pooled[bed.ids[0][i]];
        least = fmin(least, pooled[bed.ids[0][i]]);
    }
    assert_true(total + taken >= 0.8 - 1e-4);
    assert_true(total + taken - least < 0.8 + 1e-4);

    set_item(&bed, 0, 400, 8, 336, 3); /* the cap comes first */
    bed_select(&bed, 1, 0.8);
    expect_best(&bed, 0, 3);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_small_k_gives_the_best_of_the_candidates),
        cmocka_unit_test(exact_full_k_gives_every_candidate),
        cmocka_unit_test(exact_items_of_different_lengths_equal_each_alone),
        cmocka_unit_test(exact_mass_budget_stops_when_the_mass_is_reached),
    };
    return cmocka_run_group_tests_name("retrieval.exact", tests, NULL, NULL);
}
