/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The best tokens by codes in one call, on every kernel set, against softmax and pooling in f64 of
 * the scores that qy_device_code_score gives. Two tokens may change places when their shares differ
 * by rounding only.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"

enum { N_RESIDENT = 37, CLOSE = 20 /* rounding of a share, in millionths */ };

/* Pooled shares of tokens first .. first + n - 1 in f64. Freed with free(). */
static double *pooled_of(struct conf *c, const struct qy_code_topk_item *it, float scale)
{
    float *scores = calloc((size_t)it->group * it->n, sizeof(*scores));
    double *pooled = calloc(it->n, sizeof(*pooled));
    const struct qy_code_score_item item = {it->quantizer, it->q,     it->codes, it->first,
                                            it->n,         it->group, scores,    it->n};

    assert_non_null(scores);
    assert_non_null(pooled);
    conf_arena(c, qy_device_code_score_scratch(c->dev, 1, it->quantizer, it->group));
    assert_int_equal(qy_device_code_score(c->dev, &item, 1, scale, &c->arena), QY_OK);
    for (uint32_t h = 0; h < it->group; h++) {
        const float *s = scores + (size_t)h * it->n;
        const float *r = it->resident + h * it->resident_stride;
        double most = -INFINITY;
        double sum = 0.0;
        for (uint32_t i = 0; i < it->n; i++) {
            most = fmax(most, (double)s[i]);
        }
        for (uint32_t i = 0; i < it->n_resident; i++) {
            most = fmax(most, (double)r[i]);
        }
        for (uint32_t i = 0; i < it->n; i++) {
            sum += exp((double)s[i] - most);
        }
        for (uint32_t i = 0; i < it->n_resident; i++) {
            sum += exp((double)r[i] - most);
        }
        for (uint32_t i = 0; i < it->n; i++) {
            const double share = exp((double)s[i] - most) / sum;
            pooled[i] =
                it->pooling == QY_POOL_MAX ? fmax(pooled[i], share) : pooled[i] + share / it->group;
        }
    }
    free(scores);
    return pooled;
}

/* The chosen are k, ascending, and no other is larger than the least of them. */
static void check_choice(const struct qy_code_topk_item *it, const double *pooled)
{
    const uint32_t k = it->k < it->n ? it->k : it->n;
    uint8_t *taken = calloc(it->n + 1, 1);
    double least = INFINITY;

    assert_non_null(taken);
    assert_int_equal(*it->n_ids, k);
    for (uint32_t i = 0; i < k; i++) {
        assert_in_range(it->ids[i], it->first, it->first + it->n - 1);
        assert_true(i == 0 || it->ids[i] > it->ids[i - 1]);
        taken[it->ids[i] - it->first] = 1;
        least = fmin(least, pooled[it->ids[i] - it->first]);
    }
    for (uint32_t i = 0; i < it->n; i++) {
        assert_true(taken[i] || pooled[i] <= least * (1.0 + CLOSE * 1e-6) + 1e-30);
    }
    free(taken);
}

static void call(struct conf *c, const struct qy_code_topk_item *items, uint32_t n, float scale)
{
    uint32_t max_n = 0;

    for (uint32_t i = 0; i < n; i++) {
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    conf_arena(c,
               qy_device_code_topk_scratch(c->dev, n, max_n, items[0].quantizer, items[0].group));
    assert_int_equal(qy_device_code_topk(c->dev, items, n, scale, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
}

static void one(struct conf *c, const struct conf_quantizer *z, const struct conf_codes *s,
                uint32_t group, uint32_t first, uint32_t n, uint32_t k, float scale)
{
    float *queries = conf_floats((size_t)group * z->q.d, 2.0F);
    float *resident = conf_floats((size_t)group * N_RESIDENT, 3.0F);
    uint32_t *ids = malloc((k + 1) * sizeof(*ids));
    uint32_t n_ids = 77;
    const struct qy_code_topk_item item = {.quantizer = &z->q,
                                           .q = queries,
                                           .codes = s->slab,
                                           .first = first,
                                           .n = n,
                                           .group = group,
                                           .k = k,
                                           .resident = resident,
                                           .resident_stride = N_RESIDENT,
                                           .n_resident = n % 2 ? N_RESIDENT : 0,
                                           .pooling = k % 2 ? QY_POOL_MAX : QY_POOL_MEAN,
                                           .ids = ids,
                                           .n_ids = &n_ids};

    assert_non_null(ids);
    call(c, &item, 1, scale);
    double *pooled = pooled_of(c, &item, scale);
    check_choice(&item, pooled);
    free(pooled);
    free(ids);
    free(resident);
    free(queries);
}

static void chooses_what_the_three_calls_do(void **unused)
{
    static const uint32_t groups[] = {3, 1, 4, 8, 2, 7};
    static const uint32_t ranges[][3] = {{0, 333, 20},  {4, 5996, 190},  {31, 2500, 75},
                                         {128, 128, 5}, {5, 2100, 1999}, {127, 2, 1},
                                         {200, 4001, 1}};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct conf c;
            conf_open(&c, level, threads);
            for (uint32_t i = 0, n = 0; i < CONF_SHAPES; i++) {
                if (conf_shapes[i][2] != 4) {
                    continue;
                }
                for (uint32_t shift = 3 + n % 2; shift <= 12; shift += 4, n++) {
                    struct conf_quantizer z;
                    struct conf_codes s;
                    const uint32_t *r = ranges[n % 7];
                    conf_quantizer_open(&z, conf_shapes[i][0], conf_shapes[i][1], 4, 16, 0);
                    conf_codes_fill(&c, &z, &s, shift, 6000);
                    one(&c, &z, &s, groups[n % 6], r[0], r[1], r[2], n % 2 ? 0.02F : 0.3F);
                    conf_codes_close(&s);
                    conf_quantizer_close(&z);
                }
            }
            conf_close(&c);
        }
    }
}

/* Threads that share an item of short slabs keep to their own ranges. */
static void ranges_of_short_slabs_do_not_overlap(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t shift = 3; shift <= 4; shift++) {
            struct conf c;
            struct conf_quantizer z;
            struct conf_codes s;

            conf_open(&c, level, 2);
            conf_quantizer_open(&z, 64, 64, 4, 16, 0);
            conf_codes_fill(&c, &z, &s, shift, 2200);
            for (int repeat = 0; repeat < 8; repeat++) {
                one(&c, &z, &s, 3, 5, 2100, 1999, 0.3F);
            }
            conf_codes_close(&s);
            conf_quantizer_close(&z);
            conf_close(&c);
        }
    }
}

/* The places that a sample looks at hold all of the best, or none of them. */
static void misleading_samples_do_not_matter(void **unused)
{
    enum { N = 8192, D = 64, EVERY = N / 512, K = 700 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t flip = 0; flip < 2; flip++) {
            struct conf c;
            struct conf_quantizer z;
            struct conf_codes s;
            float q[D];
            static float keys[N * D];
            static uint32_t ids[K];
            uint32_t n_ids;
            conf_open(&c, level, 1);
            conf_quantizer_open(&z, D, 16, 4, 16, 0);
            z.q.order = NULL;
            float *noise = conf_floats((size_t)N * D, 0.2F);
            for (uint32_t e = 0; e < D; e++) {
                q[e] = conf_uniform(1.0F);
            }
            for (uint32_t i = 0; i < N; i++) {
                for (uint32_t e = 0; e < D; e++) {
                    const int seen = (i % EVERY == 0) != (int)flip;
                    keys[i * D + e] = noise[i * D + e] + (seen ? q[e] : 0.0F);
                }
            }
            conf_codes_open(&s, &z.q, 7, N);
            conf_encode(&c, &z.q, keys, D, &s, 0, N);
            const struct qy_code_topk_item item = {.quantizer = &z.q,
                                                   .q = q,
                                                   .codes = s.slab,
                                                   .n = N,
                                                   .group = 1,
                                                   .k = K,
                                                   .ids = ids,
                                                   .n_ids = &n_ids};
            call(&c, &item, 1, 1.0F);
            double *pooled = pooled_of(&c, &item, 1.0F);
            check_choice(&item, pooled);
            free(pooled);
            free(noise);
            conf_codes_close(&s);
            conf_quantizer_close(&z);
            conf_close(&c);
        }
    }
}

/* Shared out over the team or whole on one thread: the same choice. */
static void items_and_threads_do_not_change_the_choice(void **unused)
{
    enum { ITEMS = 9, N = 3000, GROUP = 3, K = 100 };
    static uint32_t ids[2][ITEMS][K];
    static uint32_t counts[2][ITEMS];
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_quantizer z;
        struct conf_codes s;
        struct qy_code_topk_item items[ITEMS];
        float *queries = conf_floats((size_t)ITEMS * GROUP * 64, 1.0F);
        float *resident = conf_floats((size_t)GROUP * N_RESIDENT, 1.0F);
        struct conf c[2];
        conf_open(&c[0], level, 1);
        conf_open(&c[1], level, 2);
        conf_quantizer_open(&z, 64, 16, 4, 16, 0);
        conf_codes_fill(&c[0], &z, &s, 7, N);
        for (uint32_t t = 0; t < 2; t++) {
            for (uint32_t i = 0; i < ITEMS; i++) {
                items[i] = (struct qy_code_topk_item){.quantizer = &z.q,
                                                      .q = queries + (size_t)i * GROUP * 64,
                                                      .codes = s.slab,
                                                      .first = 4,
                                                      .n = i == 7 ? 0 : N - 4 - 100 * i,
                                                      .group = GROUP,
                                                      .k = i == 5 ? 0 : K,
                                                      .resident = resident,
                                                      .resident_stride = N_RESIDENT,
                                                      .n_resident = N_RESIDENT,
                                                      .ids = ids[t][i],
                                                      .n_ids = &counts[t][i]};
            }
            if (t == 0) {
                call(&c[0], items, ITEMS, 0.2F);
            } else { /* three at a time: fewer than two per thread */
                for (uint32_t i = 0; i < ITEMS; i += 3) {
                    call(&c[1], items + i, 3, 0.2F);
                }
            }
        }
        for (uint32_t i = 0; i < ITEMS; i++) {
            assert_int_equal(counts[0][i], i == 5 || i == 7 ? 0 : K);
        }
        assert_memory_equal(ids[0], ids[1], sizeof(ids[0]));
        free(queries);
        free(resident);
        conf_codes_close(&s);
        conf_quantizer_close(&z);
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

/* Equal scores: the first; a head that is no number counts for nothing; k of all and more. */
static void odd_queries_and_budgets_are_defined(void **unused)
{
    enum { N = 2600, D = 64, K = 40 };
    static uint32_t ids[2][N];
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_quantizer z;
        struct conf_codes s;
        uint32_t n_ids[2];
        float *q = conf_floats((size_t)3 * D, 1.0F);
        const float resident[3] = {NAN, INFINITY, -INFINITY};
        conf_open(&c, level, 2);
        conf_quantizer_open(&z, D, 16, 4, 16, 0);
        conf_codes_fill(&c, &z, &s, 7, N);
        struct qy_code_topk_item item = {.quantizer = &z.q,
                                         .q = q,
                                         .codes = s.slab,
                                         .n = N,
                                         .group = 1,
                                         .k = K,
                                         .resident = resident,
                                         .resident_stride = 1,
                                         .n_resident = 0,
                                         .ids = ids[0],
                                         .n_ids = &n_ids[0]};
        call(&c, &item, 1, 1.0F);
        assert_int_equal(n_ids[0], K);
        for (uint32_t e = 0; e < D; e++) { /* heads 1 and 2 count for nothing */
            q[D + e] = NAN;
            q[2 * D + e] = INFINITY;
        }
        item.group = 3;
        item.ids = ids[1];
        item.n_ids = &n_ids[1];
        call(&c, &item, 1, 1.0F);
        assert_int_equal(n_ids[1], K);
        assert_memory_equal(ids[0], ids[1], K * sizeof(ids[0][0]));
        item.n_resident = 1; /* no number, the largest, the least */
        call(&c, &item, 1, 1.0F);
        assert_int_equal(n_ids[1], K);
        for (uint32_t e = 0; e < 3 * D; e++) {
            q[e] = 0.0F;
        }
        call(&c, &item, 1, 1.0F);
        for (uint32_t i = 0; i < K; i++) {
            assert_int_equal(ids[1][i], i);
        }
        item.k = N + 1;
        call(&c, &item, 1, 1.0F);
        assert_int_equal(n_ids[1], N);
        assert_int_equal(ids[1][N - 1], N - 1);
        conf_arena(&c, 64);
        assert_int_equal(qy_device_code_topk(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
        assert_int_equal(qy_device_code_topk(c.dev, &item, 0, 1.0F, &c.arena), QY_OK);
        item.group = 65;
        assert_int_equal(qy_device_code_topk(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_INVALID);
        free(q);
        conf_codes_close(&s);
        conf_quantizer_close(&z);
        conf_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses_what_the_three_calls_do),
        cmocka_unit_test(ranges_of_short_slabs_do_not_overlap),
        cmocka_unit_test(misleading_samples_do_not_matter),
        cmocka_unit_test(items_and_threads_do_not_change_the_choice),
        cmocka_unit_test(odd_queries_and_budgets_are_defined),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
