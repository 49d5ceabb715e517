/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of score, pool and top-k: every kernel set against f64, top-k exactly.
 * Tolerance: NMSE 1e-10 of scores; 1e-5 of each pooled probability's size, 1e-12 absolute.
 */
#include "tests/support/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

/* ---- score --------------------------------------------------------------------------------- */

static void score_one(struct conf *c, const struct conf_rows *r, uint32_t group, uint32_t first)
{
    const uint32_t d = r->rows.d;
    const uint32_t n = r->n - first;
    float *q = conf_floats((size_t)group * d, 2.0F);
    float *scores = conf_floats((size_t)group * n, 1.0F);
    double *expected = malloc((n + 1) * sizeof(*expected));

    assert_non_null(expected);
    const struct qy_score_item item = {
        .q = q, .rows = r->rows, .first = first, .n = n, .group = group, .scores = scores};
    assert_int_equal(qy_device_score(c->dev, &item, 1, 0.3F), QY_OK);
    for (uint32_t h = 0; h < group; h++) {
        for (uint32_t t = 0; t < n; t++) {
            expected[t] = (double)0.3F * conf_dot(r, first + t, q + (size_t)h * d);
        }
        assert_true(conf_nmse(scores + (size_t)h * n, expected, n) <= 1e-10);
    }
    free(q);
    free(scores);
    free(expected);
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
                score_one(&c, &r[0], group, 17);
                score_one(&c, &r[1], group, 0);
            }
            score_one(&c, &r[0], 1, 300);
            score_one(&c, &r[0], 2, 299);
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
        static float scores[2][2][GROUP * N];
        struct conf_rows r;
        float *q = conf_floats(GROUP * D, 1.0F);
        conf_rows_open(&r, QY_ROW_F16, D, 7, N, 1.0F);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct conf c;
            float(*out)[GROUP * N] = scores[threads > 1];
            conf_open(&c, level, threads);
            const struct qy_score_item items[2] = {{q, r.rows, NULL, 0, N, GROUP, out[0], 0},
                                                   {q, r.rows, NULL, 1, N - 1, GROUP, out[1], 0}};
            assert_int_equal(qy_device_score(c.dev, items, 2, 1.0F), QY_OK);
            assert_memory_equal(out, scores[0], sizeof(scores[0]));
            conf_close(&c);
        }
        conf_rows_close(&r);
        free(q);
    }
}

/* ---- pool ---------------------------------------------------------------------------------- */

static void pool_reference(const struct qy_pool_item *item, double *expected)
{
    memset(expected, 0, (item->hi - item->lo) * sizeof(*expected));
    for (uint32_t h = 0; h < item->group; h++) {
        const float *s = item->scores + (size_t)h * item->n;
        double max = -INFINITY;
        double sum = 0.0;
        for (uint32_t i = 0; i < item->n; i++) {
            max = (double)s[i] > max ? (double)s[i] : max;
        }
        for (uint32_t i = 0; i < item->n; i++) {
            sum += exp((double)s[i] - max);
        }
        for (uint32_t i = item->lo; i < item->hi; i++) {
            expected[i - item->lo] += exp((double)s[i] - max) / sum / item->group;
        }
    }
}

static void pool_one(struct conf *c, uint32_t n, uint32_t group, uint32_t lo, uint32_t hi,
                     float score_scale)
{
    float *scores = conf_floats((size_t)group * n, score_scale);
    float *pooled = conf_floats(hi - lo, 1.0F);
    double *expected = malloc((hi - lo + 1) * sizeof(*expected));

    assert_non_null(expected);
    const struct qy_pool_item item = {
        .scores = scores, .n = n, .group = group, .lo = lo, .hi = hi, .pooled = pooled};
    pool_reference(&item, expected);
    assert_int_equal(qy_device_pool(c->dev, &item, 1), QY_OK);
    for (uint32_t i = 0; i < hi - lo; i++) {
        /* the difference to the maximum is rounded: 6e-8 of a score of 100 */
        assert_true(fabs((double)pooled[i] - expected[i]) <= 2e-5 * expected[i] + 1e-12);
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
            pool_one(&c, 1000, group, 8, 936, 5.0F);
            pool_one(&c, 77, group, 0, 77, 100.0F);
            pool_one(&c, 33, group, 32, 33, 1.0F);
            pool_one(&c, 16, group, 5, 5, 1.0F);
            pool_one(&c, 1, group, 0, 1, 1.0F);
        }
        conf_close(&c);
    }
}

static void pool_odd_scores_give_probabilities(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        float scores[3][40];
        float pooled[40];
        conf_open(&c, level, 1);
        for (int i = 0; i < 40; i++) {
            scores[0][i] = i == 3 ? NAN : i == 20 ? -INFINITY : (float)i * 0.1F;
            scores[1][i] = i == 39 ? INFINITY : -1e30F;
            scores[2][i] = -INFINITY;
        }
        const struct qy_pool_item item = {
            .scores = scores[0], .n = 40, .group = 3, .lo = 0, .hi = 40, .pooled = pooled};
        assert_int_equal(qy_device_pool(c.dev, &item, 1), QY_OK);
        float sum = 0.0F;
        for (int i = 0; i < 40; i++) {
            assert_true(pooled[i] >= 0.0F && pooled[i] <= 1.0F);
            sum += pooled[i];
        }
        assert_true(fabsf(sum - 1.0F) < 1e-5F);
        assert_true(pooled[3] < 0.01F && pooled[20] < 0.01F && pooled[39] > 0.33F);
        conf_close(&c);
    }
}

static void pool_bad_range_is_invalid(void **unused)
{
    struct conf c;
    float scores[4] = {0};
    float pooled[4];
    const struct qy_pool_item past = {scores, 0, 4, 1, 0, 5, QY_POOL_MEAN, pooled, NULL};
    const struct qy_pool_item crossed = {scores, 0, 4, 1, 3, 2, QY_POOL_MEAN, pooled, NULL};
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    assert_int_equal(qy_device_pool(c.dev, &past, 1), QY_ERR_INVALID);
    assert_int_equal(qy_device_pool(c.dev, &crossed, 1), QY_ERR_INVALID);
    conf_close(&c);
}

/* ---- top-k --------------------------------------------------------------------------------- */

struct ranked {
    float score;
    uint32_t id;
};

/* Best first; NaN last, ties by id. */
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
    return x->id < y->id ? -1 : x->id > y->id;
}

static int id_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint32_t topk_reference(const struct qy_topk_item *item, uint32_t *ids)
{
    struct ranked *all = malloc((item->n + 1) * sizeof(*all));
    double sum = 1.0 - (double)*item->candidate_mass;
    uint32_t n = 0;

    assert_non_null(all);
    for (uint32_t i = 0; i < item->n; i++) {
        all[i] = (struct ranked){item->scores[i], i};
    }
    qsort(all, item->n, sizeof(*all), rank_compare);
    while (n < item->k && n < item->n && (item->mass <= 0.0F || sum < (double)item->mass)) {
        sum += all[n].score > 0.0F ? (double)all[n].score : 0.0;
        ids[n] = all[n].id + item->id_base;
        n++;
    }
    qsort(ids, n, sizeof(*ids), id_compare);
    free(all);
    return n;
}

static void topk_check(struct conf *c, const float *scores, uint32_t n, uint32_t k, float mass,
                       float resident)
{
    uint32_t *ids = malloc((k + 1) * sizeof(*ids));
    uint32_t *expected = malloc((k + 1) * sizeof(*expected));
    const float candidate_mass = 1.0F - resident;
    uint32_t n_ids = 12345;

    assert_true(ids != NULL && expected != NULL);
    const struct qy_topk_item item = {.scores = scores,
                                      .n = n,
                                      .k = k,
                                      .mass = mass,
                                      .candidate_mass = &candidate_mass,
                                      .id_base = 8,
                                      .ids = ids,
                                      .n_ids = &n_ids};
    conf_arena(c, qy_device_topk_scratch(c->dev, 1, n));
    assert_int_equal(qy_device_topk(c->dev, &item, 1, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
    assert_int_equal(n_ids, topk_reference(&item, expected));
    assert_memory_equal(ids, expected, n_ids * sizeof(*ids));
    free(ids);
    free(expected);
}

static void topk_matches_sorting(void **unused)
{
    static const uint32_t sizes[] = {0, 1, 2, 15, 100, 1000, 5000};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            const uint32_t n = sizes[s];
            for (int kind = 0; kind < 6; kind++) {
                float *x = conf_floats(n, 3.0F);
                for (uint32_t i = 0; i < n; i++) {
                    if (kind == 1) {
                        x[i] = (float)conf_random(5) - 2.0F; /* ties, also of 0 */
                        x[i] = conf_random(2) ? x[i] : -x[i];
                    } else if (kind == 2) {
                        x[i] = expf(x[i] * 10.0F) * 1e-6F; /* many magnitudes */
                    } else if (kind == 3) {
                        x[i] = conf_random(4) ? x[i] : NAN;
                    } else if (kind == 4) {
                        x[i] = 0.25F;
                    } else if (kind == 5) {
                        x[i] = conf_random(3) ? -INFINITY : conf_random(2) ? INFINITY : x[i];
                    }
                }
                topk_check(&c, x, n, 0, 0.0F, 0.0F);
                topk_check(&c, x, n, 1, 0.0F, 0.0F);
                topk_check(&c, x, n, n / 8, 0.0F, 0.0F);
                topk_check(&c, x, n, n > 0 ? n - 1 : 0, 0.0F, 0.0F);
                topk_check(&c, x, n, n + 3, 0.0F, 0.0F);
                free(x);
            }
        }
        conf_close(&c);
    }
}

static void topk_mass_takes_the_smallest_set(void **unused)
{
    enum { N = 3000 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (int kind = 0; kind < 3; kind++) {
            float *x = conf_floats(N, 1.0F);
            double sum = 0.0;
            for (uint32_t i = 0; i < N; i++) {
                x[i] = kind == 0   ? expf(x[i] * 8.0F)
                       : kind == 1 ? (float)(1 + conf_random(4))
                                   : 1.0F;
                sum += (double)x[i];
            }
            for (uint32_t i = 0; i < N; i++) {
                x[i] = (float)((double)x[i] / sum * 0.9);
            }
            for (float mass = 0.05F; mass < 1.2F; mass += 0.0973F) {
                topk_check(&c, x, N, N, mass, 0.1F);
                topk_check(&c, x, N, N / 10, mass, 0.0F);
                topk_check(&c, x, N, N, mass, mass + 1e-6F);
            }
            free(x);
        }
        conf_close(&c);
    }
}

static void topk_many_items_match_on_every_thread_count(void **unused)
{
    enum { ITEMS = 9, N = 2000, K = 150 };
    float *x = conf_floats(ITEMS * N, 1.0F);
    uint32_t *expected = malloc(K * sizeof(*expected));
    (void)unused;

    assert_non_null(expected);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        static uint32_t ids[ITEMS][K];
        uint32_t n_ids[ITEMS];
        const float none = 0.0F;
        struct qy_topk_item items[ITEMS];
        struct conf c;
        conf_open(&c, conf_best(), threads);
        for (uint32_t i = 0; i < ITEMS; i++) {
            items[i] = (struct qy_topk_item){.scores = x + i * N,
                                             .n = N - i,
                                             .k = K,
                                             .candidate_mass = &none,
                                             .id_base = i,
                                             .ids = ids[i],
                                             .n_ids = &n_ids[i]};
        }
        conf_arena(&c, qy_device_topk_scratch(c.dev, ITEMS, N));
        assert_int_equal(qy_device_topk(c.dev, items, ITEMS, &c.arena), QY_OK);
        for (uint32_t i = 0; i < ITEMS; i++) {
            assert_int_equal(n_ids[i], topk_reference(&items[i], expected));
            assert_memory_equal(ids[i], expected, sizeof(ids[i]));
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
        cmocka_unit_test(score_every_shape_matches_reference),
        cmocka_unit_test(score_bits_do_not_depend_on_threads),
        cmocka_unit_test(pool_every_range_matches_reference),
        cmocka_unit_test(pool_odd_scores_give_probabilities),
        cmocka_unit_test(pool_bad_range_is_invalid),
        cmocka_unit_test(topk_matches_sorting),
        cmocka_unit_test(topk_mass_takes_the_smallest_set),
        cmocka_unit_test(topk_many_items_match_on_every_thread_count),
    };
    return cmocka_run_group_tests_name("conf.gpu.selection", tests, NULL, NULL);
}
