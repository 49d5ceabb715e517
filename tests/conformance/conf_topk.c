/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of top-k and top-p: every kernel set, exactly.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

struct ranked {
    float score;
    uint32_t place;
};

/* Best first; NaN last, ties by place. */
static int rank_compare(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    const int x_nan = isnan(x->score) != 0;
    const int y_nan = isnan(y->score) != 0;

    if (x_nan != y_nan) {
        return x_nan - y_nan;
    }
    if (!x_nan && x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->place < y->place ? -1 : x->place > y->place;
}

static int id_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Scores in rank order, to be freed. */
static struct ranked *rank(const float *scores, uint32_t n)
{
    struct ranked *all = malloc((n + 1) * sizeof(*all));

    assert_non_null(all);
    for (uint32_t i = 0; i < n; i++) {
        all[i] = (struct ranked){scores[i], i};
    }
    qsort(all, n, sizeof(*all), rank_compare);
    return all;
}

static uint32_t topk_reference(const struct qy_topk_item *item, const struct ranked *ranks,
                               uint32_t *ids)
{
    const double resident =
        item->candidate_mass == NULL ? 0.0 : 1.0 - (double)*item->candidate_mass;
    const double mass = (double)item->mass;
    double sum = resident;
    uint32_t n = 0;

    while (n < item->k && n < item->n && (mass <= 0.0 || sum < mass)) {
        const uint32_t place = ranks[n].place;

        sum += ranks[n].score > 0.0F ? (double)ranks[n].score : 0.0;
        ids[n] = item->map == NULL ? place + item->id_base : item->map[place];
        n++;
    }
    qsort(ids, n, sizeof(*ids), id_compare);
    return n;
}

static void topk_check(struct conf *c, const float *scores, const struct ranked *ranks, uint32_t n,
                       uint32_t k, float mass, const float *candidate_mass)
{
    const uint32_t room = k < n ? k : n; /* exactly: nothing may be written past the result */
    uint32_t *ids = malloc((room + 1) * sizeof(*ids));
    uint32_t *expected = malloc((room + 1) * sizeof(*expected));
    uint32_t *map = malloc((n + 1) * sizeof(*map));
    uint32_t n_ids = 12345;

    assert_true(ids != NULL && expected != NULL && map != NULL);
    for (uint32_t i = 0; i < n; i++) {
        map[i] = i * 5 + 3;
    }
    ids[room] = 54321;
    const struct qy_topk_item item = {.scores = scores,
                                      .n = n,
                                      .k = k,
                                      .mass = mass,
                                      .candidate_mass = candidate_mass,
                                      .id_base = 8,
                                      .map = k % 2 ? map : NULL,
                                      .ids = ids,
                                      .n_ids = &n_ids};
    conf_arena(c, qy_device_topk_scratch(c->dev, 1, n));
    assert_int_equal(qy_device_topk(c->dev, &item, 1, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
    assert_int_equal(n_ids, topk_reference(&item, ranks, expected));
    assert_memory_equal(ids, expected, n_ids * sizeof(*ids));
    assert_int_equal(ids[room], 54321);
    free(ids);
    free(expected);
    free(map);
}

enum { KINDS = 11 };

static float kind_of_score(int kind, uint32_t i, uint32_t n)
{
    const float x = conf_uniform(3.0F);
    const float small = (float)conf_random(5) - 2.0F;

    switch (kind) {
    case 1: /* ties, also of 0 and -0 */
        return conf_random(2) ? small : -small;
    case 2: /* many magnitudes */
        return expf(x * 10.0F) * 1e-6F;
    case 3:
        return conf_random(4) ? x : NAN;
    case 4:
        return 0.25F;
    case 5:
        return conf_random(3) ? -INFINITY : conf_random(2) ? INFINITY : x;
    case 6: /* NaN is among the best of most k */
        return conf_random(9) ? NAN : x;
    case 7:
        return (float)i - 0.5F * (float)n;
    case 8:
        return 0.5F * (float)n - (float)i;
    case 9: /* a period that an evenly spaced sample may see one side of */
        return i % 2 ? x : x + 100.0F;
    case 10: /* the best side by side */
        return i / 64 == 3 ? x + 50.0F : x;
    default:
        return x;
    }
}

/* A device of every kernel set; returns how many. */
static int open_all(struct conf all[QY_CPU_AVX512 + 1])
{
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        conf_open(&all[level], level, 2);
    }
    return (int)conf_best() + 1;
}

static void topk_matches_sorting(void **unused)
{
    static const uint32_t sizes[] = {0, 1, 2, 15, 100, 1000, 2047, 2048, 4096, 9000};
    struct conf c[QY_CPU_AVX512 + 1];
    const int n_levels = open_all(c);
    (void)unused;

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        const uint32_t n = sizes[s];
        for (int kind = 0; kind < KINDS; kind++) {
            const uint32_t ks[] = {0, 1, 2, n / 20, n / 8 + 1, n / 2, n - 1, n, n + 3};
            float *x = conf_floats(n, 3.0F);
            for (uint32_t i = 0; i < n; i++) {
                x[i] = kind_of_score(kind, i, n);
            }
            struct ranked *ranks = rank(x, n);
            for (int level = 0; level < n_levels; level++) {
                for (size_t k = 0; k < sizeof(ks) / sizeof(ks[0]); k++) {
                    topk_check(&c[level], x, ranks, n, ks[k] > n + 3 ? 0 : ks[k], 0.0F, NULL);
                }
            }
            free(ranks);
            free(x);
        }
    }
    for (int level = 0; level < n_levels; level++) {
        conf_close(&c[level]);
    }
}

static void topk_mass_takes_the_smallest_set(void **unused)
{
    enum { N = 6000 };
    struct conf c[QY_CPU_AVX512 + 1];
    const int n_levels = open_all(c);
    (void)unused;

    for (int kind = 0; kind < 4; kind++) {
        const float most = 0.9F;
        const float all = 1.0F;
        float *x = conf_floats(N, 1.0F);
        double sum = 0.0;
        for (uint32_t i = 0; i < N; i++) {
            x[i] = kind == 0   ? expf(x[i] * 8.0F)
                   : kind == 1 ? (float)(1 + conf_random(4))
                   : kind == 2 ? 1.0F
                               : expf(x[i] * 30.0F);
            sum += (double)x[i];
        }
        for (uint32_t i = 0; i < N; i++) {
            x[i] = (float)((double)x[i] / sum * (double)most);
        }
        struct ranked *ranks = rank(x, N);
        for (int level = 0; level < n_levels; level++) {
            for (float mass = 0.05F; mass < 1.2F; mass += 0.1973F) {
                topk_check(&c[level], x, ranks, N, N, mass, &most);
                topk_check(&c[level], x, ranks, N, N + 5, mass, NULL);
                topk_check(&c[level], x, ranks, N, N / 10, mass, &all);
                topk_check(&c[level], x, ranks, N, 7, mass, &most);
            }
        }
        free(ranks);
        free(x);
    }
    for (int level = 0; level < n_levels; level++) {
        conf_close(&c[level]);
    }
}

static void topk_mass_edges(void **unused)
{
    enum { N = 3000, K = 40 };
    float *x = conf_floats(N, 1.0F);
    float zeros[N] = {0};
    (void)unused;

    for (uint32_t i = 0; i < N; i++) {
        x[i] = i % 5 == 0 ? NAN : i % 5 == 1 ? -x[i] * x[i] : 1e-4F + 1e-8F * x[i];
    }
    struct ranked *ranks = rank(x, N);
    struct ranked *zero_ranks = rank(zeros, N);
    struct ranked *one = rank(x, 1);
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        const float few = 0.05F;
        const float none = 0.0F;
        uint32_t ids[K];
        uint32_t n_ids = 99;
        struct conf c;
        conf_open(&c, level, 1);
        /* what is attended anyway has the mass: nothing more is needed */
        const struct qy_topk_item reached = {.scores = x,
                                             .n = N,
                                             .k = K,
                                             .mass = 0.9F,
                                             .candidate_mass = &few,
                                             .ids = ids,
                                             .n_ids = &n_ids};
        conf_arena(&c, qy_device_topk_scratch(c.dev, 1, N));
        assert_int_equal(qy_device_topk(c.dev, &reached, 1, &c.arena), QY_OK);
        assert_int_equal(n_ids, 0);
        /* it is never reached: as many as may be */
        topk_check(&c, x, ranks, N, K, 5.0F, NULL);
        topk_check(&c, x, ranks, N, N, 5.0F, NULL);
        topk_check(&c, zeros, zero_ranks, N, K, 0.5F, NULL);
        topk_check(&c, zeros, zero_ranks, N, N, 0.5F, NULL);
        topk_check(&c, zeros, zero_ranks, N, K, 1.0F, &none);
        topk_check(&c, zeros, zero_ranks, N, K, 1.5F, &none);
        /* scores that are negative or NaN weigh nothing */
        topk_check(&c, x, ranks, N, N, 0.11F, NULL);
        topk_check(&c, x, one, 1, 1, 0.5F, NULL);
        topk_check(&c, x, one, 0, 3, 0.5F, NULL);
        conf_close(&c);
    }
    free(ranks);
    free(zero_ranks);
    free(one);
    free(x);
}

/* Without sorting: nothing left out is above the least taken, and of its equals the first are. */
static void topk_of_a_million_is_exact(void **unused)
{
    enum { N = 1 << 20 };
    float *x = malloc((size_t)N * sizeof(*x));
    uint32_t *ids = malloc((size_t)N * sizeof(*ids));
    (void)unused;

    assert_true(x != NULL && ids != NULL);
    for (uint32_t i = 0; i < N; i++) {
        x[i] = (float)conf_random(1 << 16) * 0x1p-16F; /* ties of 16 */
    }
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t k = 1000; k < N; k *= 200) {
            uint32_t n_ids = 0;
            uint32_t at = 0;
            float least = INFINITY;
            int skipped = 0;
            struct conf c;
            conf_open(&c, level, 2);
            const struct qy_topk_item item = {
                .scores = x, .n = N, .k = k, .ids = ids, .n_ids = &n_ids};
            conf_arena(&c, qy_device_topk_scratch(c.dev, 1, N));
            assert_int_equal(qy_device_topk(c.dev, &item, 1, &c.arena), QY_OK);
            assert_int_equal(n_ids, k);
            for (uint32_t i = 0; i < k; i++) {
                assert_true(ids[i] < N && (i == 0 || ids[i] > ids[i - 1]));
                least = fminf(least, x[ids[i]]);
            }
            for (uint32_t i = 0; i < N; i++) {
                const int taken = at < k && ids[at] == i;
                at += (uint32_t)taken;
                assert_true(taken ? !(skipped && x[i] == least) : x[i] <= least);
                skipped |= !taken && x[i] == least;
            }
            conf_close(&c);
        }
    }
    free(x);
    free(ids);
}

static void topk_many_items_match_on_every_thread_count(void **unused)
{
    enum { ITEMS = 9, N = 3000, K = 150 };
    float *x = conf_floats(ITEMS * N, 1.0F);
    uint32_t *expected = malloc(K * sizeof(*expected));
    (void)unused;

    assert_non_null(expected);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        static uint32_t ids[ITEMS][K];
        uint32_t n_ids[ITEMS];
        struct qy_topk_item items[ITEMS];
        struct conf c;
        conf_open(&c, conf_best(), threads);
        for (uint32_t i = 0; i < ITEMS; i++) {
            items[i] = (struct qy_topk_item){.scores = x + i * N,
                                             .n = N - i,
                                             .k = K,
                                             .id_base = i,
                                             .ids = ids[i],
                                             .n_ids = &n_ids[i]};
        }
        conf_arena(&c, qy_device_topk_scratch(c.dev, ITEMS, N));
        assert_int_equal(qy_device_topk(c.dev, items, ITEMS, &c.arena), QY_OK);
        for (uint32_t i = 0; i < ITEMS; i++) {
            struct ranked *ranks = rank(items[i].scores, items[i].n);
            assert_int_equal(n_ids[i], topk_reference(&items[i], ranks, expected));
            assert_memory_equal(ids[i], expected, sizeof(ids[i]));
            free(ranks);
        }
        conf_arena(&c, 1000);
        assert_int_equal(qy_device_topk(c.dev, items, ITEMS, &c.arena), QY_ERR_NOMEM);
        conf_close(&c);
    }
    free(x);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_matches_sorting),
        cmocka_unit_test(topk_mass_takes_the_smallest_set),
        cmocka_unit_test(topk_mass_edges),
        cmocka_unit_test(topk_of_a_million_is_exact),
        cmocka_unit_test(topk_many_items_match_on_every_thread_count),
    };
    return cmocka_run_group_tests_name("conf.gpu.topk", tests, NULL, NULL);
}
