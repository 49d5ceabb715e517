/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of score and pool: every kernel set against f64.
 * Tolerance: NMSE 1e-10 of scores; 2e-5 of each pooled probability's size, 1e-12 absolute.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

/* ---- score --------------------------------------------------------------------------------- */

/* Rows first .. n - 1, or every third or so by ids; heads lie `gap` floats further apart than needed. */
static void score_one(struct conf *c, const struct conf_rows *r, uint32_t group, uint32_t first,
                      int with_ids, uint32_t gap)
{
    const uint32_t d = r->rows.d;
    const uint32_t n = with_ids ? (r->n - first) / 3 : r->n - first;
    const size_t stride = n + (size_t)gap;
    float *q = conf_floats((size_t)group * d, 2.0F);
    float *scores = conf_floats(group * stride, 1.0F);
    double *expected = malloc((n + 1) * sizeof(*expected));
    uint32_t *ids = malloc((n + 1) * sizeof(*ids));

    assert_true(expected != NULL && ids != NULL);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = first + i * 3 + conf_random(3);
    }
    for (size_t i = 0; i < group * stride; i++) {
        scores[i] = 77.0F;
    }
    const struct qy_score_item item = {.q = q,
                                       .rows = r->rows,
                                       .ids = with_ids ? ids : NULL,
                                       .first = first,
                                       .n = n,
                                       .group = group,
                                       .scores = scores,
                                       .stride = gap == 0 ? 0 : stride};
    assert_int_equal(qy_device_score(c->dev, &item, 1, 0.3F), QY_OK);
    for (uint32_t h = 0; h < group; h++) {
        for (uint32_t t = 0; t < n; t++) {
            const uint32_t row = with_ids ? ids[t] : first + t;
            expected[t] = (double)0.3F * conf_dot(r, row, q + (size_t)h * d);
        }
        assert_true(conf_nmse(scores + h * stride, expected, n) <= 1e-10);
        for (size_t i = n; i < stride; i++) {
            assert_true(scores[h * stride + i] == 77.0F);
        }
    }
    free(q);
    free(scores);
    free(expected);
    free(ids);
}

static void score_every_shape_matches_reference(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 96, 128, 256, 6, 10};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t i = 0; i < sizeof(sizes_d) / sizeof(sizes_d[0]); i++) {
            struct conf_rows r[2];
            conf_rows_open(&r[0], QY_ROW_F16, sizes_d[i], 4, 300, 2.0F);
            conf_rows_open(&r[1], QY_ROW_F32, sizes_d[i], 7, 133, 2.0F);
            for (uint32_t group = 1; group <= 8; group++) {
                score_one(&c, &r[0], group, 17, 0, group % 2 * 5);
                score_one(&c, &r[1], group, 0, 0, 0);
                score_one(&c, &r[0], group, 2, 1, group % 2 * 3);
                score_one(&c, &r[1], group, 0, 1, 0);
            }
            score_one(&c, &r[0], 1, 300, 0, 2);
            score_one(&c, &r[0], 2, 299, 0, 0);
            score_one(&c, &r[0], 2, 299, 1, 1); /* no id at all */
            conf_rows_close(&r[0]);
            conf_rows_close(&r[1]);
        }
        conf_close(&c);
    }
}

static void score_bits_do_not_depend_on_threads(void **unused)
{
    enum { N = 2000, D = 64, GROUP = 3 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static float scores[2][3][GROUP * N];
        uint32_t ids[N];
        struct conf_rows r;
        float *q = conf_floats(GROUP * D, 1.0F);
        conf_rows_open(&r, QY_ROW_F16, D, 7, N, 1.0F);
        for (uint32_t i = 0; i < N; i++) {
            ids[i] = i;
        }
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct conf c;
            float(*out)[GROUP * N] = scores[threads > 1];
            conf_open(&c, level, threads);
            const struct qy_score_item items[3] = {{q, r.rows, NULL, 0, N, GROUP, out[0], 0},
                                                   {q, r.rows, NULL, 1, N - 1, GROUP, out[1], 0},
                                                   {q, r.rows, ids, 0, N, GROUP, out[2], 0}};
            assert_int_equal(qy_device_score(c.dev, items, 3, 1.0F), QY_OK);
            assert_memory_equal(out, scores[0], sizeof(scores[0]));
            assert_memory_equal(out[0], out[2], sizeof(out[0]));
            conf_close(&c);
        }
        conf_rows_close(&r);
        free(q);
    }
}

/* ---- pool ---------------------------------------------------------------------------------- */

/* expected [hi - lo]; returns the mass of lo .. hi - 1, mean over the heads. */
static double pool_reference(const struct qy_pool_item *item, double *expected)
{
    const size_t stride = item->stride == 0 ? item->n : item->stride;
    double mass = 0.0;

    memset(expected, 0, (item->hi - item->lo) * sizeof(*expected));
    for (uint32_t h = 0; h < item->group; h++) {
        const float *s = item->scores + h * stride;
        double max = -INFINITY;
        double sum = 0.0;
        for (uint32_t i = 0; i < item->n; i++) {
            max = (double)s[i] > max ? (double)s[i] : max;
        }
        for (uint32_t i = 0; i < item->n; i++) {
            sum += exp((double)s[i] - max);
        }
        for (uint32_t i = item->lo; i < item->hi; i++) {
            const double share = exp((double)s[i] - max) / sum;
            double *e = &expected[i - item->lo];
            *e = item->pooling == QY_POOL_MAX ? fmax(*e, share) : *e + share / item->group;
            mass += share / item->group;
        }
    }
    return mass;
}

static void pool_one(struct conf *c, uint32_t n, uint32_t group, uint32_t lo, uint32_t hi,
                     float score_scale, enum qy_pooling pooling, uint32_t gap)
{
    const size_t stride = n + (size_t)gap;
    float *scores = conf_floats(group * stride, score_scale);
    float *pooled = conf_floats(hi - lo, 1.0F);
    double *expected = malloc((hi - lo + 1) * sizeof(*expected));
    float mass = -1.0F;

    assert_non_null(expected);
    for (uint32_t h = 0; h < group; h++) {
        for (size_t i = n; i < stride; i++) {
            scores[h * stride + i] = 1e9F; /* between the heads: not read, not written */
        }
    }
    const struct qy_pool_item item = {.scores = scores,
                                      .stride = gap == 0 ? 0 : stride,
                                      .n = n,
                                      .group = group,
                                      .lo = lo,
                                      .hi = hi,
                                      .pooling = pooling,
                                      .pooled = pooled,
                                      .mass = gap == 1 ? NULL : &mass};
    const double want = pool_reference(&item, expected);
    assert_int_equal(qy_device_pool(c->dev, &item, 1), QY_OK);
    for (uint32_t i = 0; i < hi - lo; i++) {
        /* the difference to the maximum is rounded: 6e-8 of a score of 100 */
        assert_true(fabs((double)pooled[i] - expected[i]) <= 2e-5 * expected[i] + 1e-12);
    }
    assert_true(gap == 1 || fabs((double)mass - want) <= 2e-5);
    for (uint32_t h = 0; h < group; h++) {
        for (size_t i = n; i < stride; i++) {
            assert_true(scores[h * stride + i] == 1e9F);
        }
    }
    free(scores);
    free(pooled);
    free(expected);
}

static void pool_every_range_matches_reference(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (uint32_t group = 1; group <= 8; group++) {
            const enum qy_pooling pooling = group % 3 == 0 ? QY_POOL_MAX : QY_POOL_MEAN;
            pool_one(&c, 1000, group, 8, 936, 5.0F, pooling, 0);
            pool_one(&c, 1000, group, 3, 1000, 5.0F, QY_POOL_MAX, 2);
            pool_one(&c, 77, group, 0, 77, 100.0F, QY_POOL_MEAN, 1);
            pool_one(&c, 77, group, 76, 77, 100.0F, QY_POOL_MAX, 5);
            pool_one(&c, 33, group, 32, 33, 1.0F, pooling, 0);
            pool_one(&c, 16, group, 5, 5, 1.0F, pooling, 0);
            pool_one(&c, 1, group, 0, 1, 1.0F, pooling, 0);
            pool_one(&c, 0, group, 0, 0, 1.0F, pooling, 0);
        }
        pool_one(&c, 20001, 2, 13, 19990, 5.0F, QY_POOL_MEAN, 0); /* split over threads */
        pool_one(&c, 20001, 2, 13, 19990, 5.0F, QY_POOL_MAX, 3);
        conf_close(&c);
    }
}

/* Few items are split by heads and places, many are not: the same bits either way. */
static void pool_bits_do_not_depend_on_threads(void **unused)
{
    enum { ITEMS = 9, GROUP = 3, N = 9000 };
    float *scores = conf_floats(ITEMS * GROUP * N, 4.0F);
    float *work = malloc(ITEMS * GROUP * N * sizeof(*work));
    float *pooled = malloc((size_t)2 * ITEMS * N * sizeof(*pooled));
    (void)unused;

    assert_true(work != NULL && pooled != NULL);
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        float masses[2][ITEMS];
        for (uint32_t threads = 1; threads <= 3; threads++) {
            for (uint32_t n_items = 1; n_items <= ITEMS; n_items += 4) {
                struct qy_pool_item items[ITEMS];
                struct conf c;
                const int which = threads > 1 || n_items < ITEMS;
                if (threads == 1 && n_items < ITEMS) {
                    continue; /* all items on one thread come first: what the others must equal */
                }
                conf_open(&c, level, threads);
                memcpy(work, scores, ITEMS * GROUP * N * sizeof(*work));
                for (uint32_t i = 0; i < n_items; i++) {
                    items[i] =
                        (struct qy_pool_item){.scores = work + (size_t)i * GROUP * N,
                                              .n = N - i,
                                              .group = GROUP,
                                              .lo = i,
                                              .hi = N - 64,
                                              .pooling = i % 2 ? QY_POOL_MAX : QY_POOL_MEAN,
                                              .pooled = pooled + (which * ITEMS + (size_t)i) * N,
                                              .mass = &masses[which][i]};
                }
                assert_int_equal(qy_device_pool(c.dev, items, n_items), QY_OK);
                for (uint32_t i = 0; which == 1 && i < n_items; i++) {
                    assert_memory_equal(items[i].pooled, pooled + (size_t)i * N,
                                        (items[i].hi - items[i].lo) * sizeof(float));
                    assert_memory_equal(&masses[1][i], &masses[0][i], sizeof(float));
                }
                conf_close(&c);
            }
        }
    }
    free(scores);
    free(work);
    free(pooled);
}

static void pool_odd_scores_give_probabilities(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        float scores[3][40];
        float pooled[40];
        float mass = -1.0F;
        conf_open(&c, level, 1);
        for (int i = 0; i < 40; i++) {
            scores[0][i] = i == 3 ? NAN : i == 20 ? -INFINITY : (float)i * 0.1F;
            scores[1][i] = i == 39 ? INFINITY : -1e30F;
            scores[2][i] = i % 2 ? NAN : -INFINITY;
        }
        const struct qy_pool_item item = {.scores = scores[0],
                                          .n = 40,
                                          .group = 3,
                                          .lo = 0,
                                          .hi = 40,
                                          .pooled = pooled,
                                          .mass = &mass};
        assert_int_equal(qy_device_pool(c.dev, &item, 1), QY_OK);
        float sum = 0.0F;
        for (int i = 0; i < 40; i++) {
            assert_true(pooled[i] >= 0.0F && pooled[i] <= 1.0F);
            sum += pooled[i];
        }
        assert_true(fabsf(sum - 1.0F) < 1e-5F);
        assert_true(fabsf(mass - 1.0F) < 1e-6F);
        assert_true(pooled[3] < 0.01F && pooled[20] < 0.01F && pooled[39] > 0.33F);
        conf_close(&c);
    }
}

static void pool_equal_scores_stay_equal(void **unused)
{
    enum { N = 5003, GROUP = 3 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        static float scores[GROUP * N];
        static float pooled[N];
        conf_open(&c, level, 2);
        for (int i = 0; i < GROUP * N; i++) {
            scores[i] = i % N % 7 == 0 ? 1.5F : -0.25F;
        }
        const struct qy_pool_item item = {
            .scores = scores, .n = N, .group = GROUP, .lo = 7, .hi = N, .pooled = pooled};
        assert_int_equal(qy_device_pool(c.dev, &item, 1), QY_OK);
        for (int i = 0; i < N - 7; i++) {
            assert_true(pooled[i] == pooled[i % 7 == 0 ? 0 : 1]);
        }
        assert_true(pooled[0] > pooled[1]);
        conf_close(&c);
    }
}

static void pool_bad_shape_is_invalid(void **unused)
{
    struct conf c;
    float scores[4] = {0};
    float pooled[4];
    const struct qy_pool_item past = {scores, 0, 4, 1, 0, 5, QY_POOL_MEAN, pooled, NULL};
    const struct qy_pool_item crossed = {scores, 0, 4, 1, 3, 2, QY_POOL_MEAN, pooled, NULL};
    const struct qy_pool_item headless = {scores, 0, 4, 0, 0, 4, QY_POOL_MEAN, pooled, NULL};
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    assert_int_equal(qy_device_pool(c.dev, &past, 1), QY_ERR_INVALID);
    assert_int_equal(qy_device_pool(c.dev, &crossed, 1), QY_ERR_INVALID);
    assert_int_equal(qy_device_pool(c.dev, &headless, 1), QY_ERR_INVALID);
    assert_int_equal(qy_device_pool(c.dev, NULL, 0), QY_OK);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(score_every_shape_matches_reference),
        cmocka_unit_test(score_bits_do_not_depend_on_threads),
        cmocka_unit_test(pool_every_range_matches_reference),
        cmocka_unit_test(pool_bits_do_not_depend_on_threads),
        cmocka_unit_test(pool_odd_scores_give_probabilities),
        cmocka_unit_test(pool_equal_scores_stay_equal),
        cmocka_unit_test(pool_bad_shape_is_invalid),
    };
    return cmocka_run_group_tests_name("conf.gpu.selection", tests, NULL, NULL);
}
