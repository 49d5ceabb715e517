/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of page bounds: what a slab holds is read back through scores of unit vectors: e_i
 * gives the high bound of element i, -e_i the low one, negated. Tolerance: NMSE 1e-10 of scores.
 */
#include "tests/support/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_slab.h"
#include "tests/conformance/conf_support.h"

enum { SHIFT = 5, MAX_D = 256 };

static const uint32_t sizes_d[] = {64, 80, 96, 128, 256, 2, 6, 10, 66, 130};
enum { N_SIZES = sizeof(sizes_d) / sizeof(sizes_d[0]) };

static uint32_t pages_of(uint32_t n, uint32_t page)
{
    return (n + page - 1) / page;
}

static void append(struct conf *c, const struct conf_rows *r, const struct conf_slab *store,
                   uint32_t page, uint32_t first, uint32_t n)
{
    const struct qy_bound_item item = {r->rows, first, n, page, store->slab};
    assert_int_equal(qy_device_bound_append(c->dev, &item, 1), QY_OK);
}

static void open_bounds(struct conf *c, const struct conf_rows *r, struct conf_slab *store,
                        uint32_t page)
{
    conf_slab_open(store, SHIFT, r->n, qy_bound_slab_bytes(r->rows.d, page, 1U << SHIFT));
    append(c, r, store, page, 0, r->n);
}

static void score(struct conf *c, const struct conf_slab *store, const float *q, uint32_t group,
                  uint32_t d, uint32_t page, uint32_t first, uint32_t n, float *scores)
{
    const struct qy_bound_score_item item = {q, d, group, page, store->slab, first, n, scores, n};
    assert_int_equal(qy_device_bound_score(c->dev, &item, 1, 1.0F), QY_OK);
}

/* Bounds [2][d] of a page: low, high. */
static void read_back(struct conf *c, const struct conf_slab *store, uint32_t d, uint32_t page,
                      uint32_t at, float *bounds)
{
    for (uint32_t i = 0; i < d; i++) {
        float q[2 * MAX_D] = {0};
        float scores[2];
        q[i] = -1.0F;
        q[d + i] = 1.0F;
        score(c, store, q, 2, d, page, at, 1, scores);
        bounds[i] = -scores[0];
        bounds[d + i] = scores[1];
    }
}

static void least_and_largest(const struct conf_rows *r, uint32_t page, uint32_t at, uint32_t i,
                              float *least, float *largest)
{
    *least = INFINITY;
    *largest = -INFINITY;
    for (uint32_t t = at * page; t < (at + 1) * page && t < r->n; t++) {
        *least = fminf(*least, r->k[(size_t)t * r->rows.d + i]);
        *largest = fmaxf(*largest, r->k[(size_t)t * r->rows.d + i]);
    }
}

/* The tightest halves that bound the keys. */
static void bounds_are_tight(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < 2 * N_SIZES; s++) {
            const uint32_t d = sizes_d[s / 2];
            const uint32_t page = 1U << (s % (SHIFT + 1));
            struct conf_rows r;
            struct conf_slab store;
            conf_rows_open(&r, s % 2 == 0 ? QY_ROW_F16 : QY_ROW_F32, d, SHIFT, 77, 2.0F);
            open_bounds(&c, &r, &store, page);
            for (uint32_t p = 0; p < pages_of(77, page); p += 3) {
                float bounds[2 * MAX_D];
                read_back(&c, &store, d, page, p, bounds);
                for (uint32_t i = 0; i < d; i++) {
                    const float low = bounds[i];
                    const float high = bounds[d + i];
                    float least;
                    float largest;
                    least_and_largest(&r, page, p, i, &least, &largest);
                    assert_true(low <= least && least - low <= fabsf(low) / 1024 + 1e-7F);
                    assert_true(high >= largest && high - largest <= fabsf(high) / 1024 + 1e-7F);
                    assert_true(s % 2 == 1 || (low == least && high == largest));
                }
            }
            conf_slab_close(&store);
            conf_rows_close(&r);
        }
        conf_close(&c);
    }
}

static void scores_match_reference(void **unused)
{
    static const uint32_t groups[] = {1, 3, 4, 8};
    enum { N = 300, PAGE = 16, PAGES = 19 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < N_SIZES; s++) {
            const uint32_t d = sizes_d[s];
            struct conf_rows r;
            struct conf_slab store;
            float bounds[PAGES][2 * MAX_D];
            conf_rows_open(&r, QY_ROW_F16, d, SHIFT, N, 2.0F);
            open_bounds(&c, &r, &store, PAGE);
            for (uint32_t p = 0; p < PAGES; p++) {
                read_back(&c, &store, d, PAGE, p, bounds[p]);
            }
            for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
                const uint32_t first = conf_random(PAGES);
                const uint32_t n = conf_random(PAGES - first + 1);
                float *q = conf_floats((size_t)groups[g] * d, 2.0F);
                float *scores = conf_floats((size_t)groups[g] * n, 1.0F);
                double expected[PAGES] = {0};
                score(&c, &store, q, groups[g], d, PAGE, first, n, scores);
                for (uint32_t h = 0; h < groups[g]; h++) {
                    for (uint32_t p = 0; p < n; p++) {
                        expected[p] = 0.0;
                        for (uint32_t i = 0; i < d; i++) {
                            const double x = (double)q[h * d + i];
                            expected[p] += fmax(x * (double)bounds[first + p][i],
                                                x * (double)bounds[first + p][d + i]);
                        }
                    }
                    assert_true(conf_nmse(scores + h * n, expected, n) <= 1e-10);
                }
                free(q);
                free(scores);
            }
            conf_slab_close(&store);
            conf_rows_close(&r);
        }
        conf_close(&c);
    }
}

/* 2,000 queries x 5 pages: no key scores above its page, up to the rounding of the sums. */
static void no_key_scores_above_its_page(void **unused)
{
    enum { N = 75, D = 64, PAGE = 16, QUERIES = 500, GROUP = 4, PAGES = 5 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_rows r;
        struct conf_slab store;
        struct conf c;
        conf_open(&c, level, 1);
        conf_rows_open(&r, level % 2 == 0 ? QY_ROW_F32 : QY_ROW_F16, D, SHIFT, N, 2.0F);
        open_bounds(&c, &r, &store, PAGE);
        for (uint32_t i = 0; i < QUERIES; i++) {
            float *q = conf_floats(GROUP * D, 2.0F);
            float scores[GROUP * PAGES];
            score(&c, &store, q, GROUP, D, PAGE, 0, PAGES, scores);
            for (uint32_t h = 0; h < GROUP; h++) {
                for (uint32_t t = 0; t < N; t++) {
                    const double exact = conf_dot(&r, t, q + (size_t)h * D);
                    assert_true(exact <= (double)scores[h * PAGES + t / PAGE] + 1e-4);
                }
            }
            free(q);
        }
        conf_slab_close(&store);
        conf_rows_close(&r);
        conf_close(&c);
    }
}

static void chunks_give_the_same_bytes(void **unused)
{
    enum { N = 500, D = 80, PAGE = 16 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_rows r;
        struct conf_slab bulk;
        struct conf_slab pieces;
        struct conf c;
        conf_open(&c, level, 3);
        conf_rows_open(&r, QY_ROW_F16, D, SHIFT, N, 2.0F);
        open_bounds(&c, &r, &bulk, PAGE);
        conf_slab_open(&pieces, SHIFT, N, bulk.bytes);
        for (uint32_t t = 0; t < 123; t++) {
            append(&c, &r, &pieces, PAGE, t, 1);
        }
        append(&c, &r, &pieces, PAGE, 123, 0);
        append(&c, &r, &pieces, PAGE, 123, 300);
        append(&c, &r, &pieces, PAGE, 423, N - 423);
        conf_slab_assert_equal(&bulk, &pieces);
        conf_slab_close(&bulk);
        conf_slab_close(&pieces);
        conf_rows_close(&r);
        conf_close(&c);
    }
}

/* 100 tokens, cut to 37, filled again with others: as if these had been there from the start. */
static void truncated_pages_are_refilled(void **unused)
{
    enum { D = 64, PAGE = 16 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_rows old;
        struct conf_rows r;
        struct conf_slab store;
        struct conf_slab fresh;
        struct conf c;
        conf_open(&c, level, 1);
        conf_rows_open(&old, QY_ROW_F16, D, SHIFT, 100, 5.0F);
        conf_rows_open(&r, QY_ROW_F16, D, SHIFT, 91, 2.0F);
        for (uint32_t t = 0; t < 37; t++) { /* the part that stays is the same */
            memcpy(qy_row_at(&r.rows, t), qy_row_at(&old.rows, t), qy_row_bytes(QY_ROW_F16, D));
        }
        open_bounds(&c, &old, &store, PAGE);
        append(&c, &r, &store, PAGE, 37, 91 - 37);
        open_bounds(&c, &r, &fresh, PAGE);
        for (uint32_t p = 0; p < pages_of(91, PAGE); p++) {
            float a[2 * MAX_D];
            float b[2 * MAX_D];
            read_back(&c, &store, D, PAGE, p, a);
            read_back(&c, &fresh, D, PAGE, p, b);
            assert_memory_equal(a, b, 2 * D * sizeof(float));
        }
        conf_slab_close(&store);
        conf_slab_close(&fresh);
        conf_rows_close(&old);
        conf_rows_close(&r);
        conf_close(&c);
    }
}

static void odd_keys_are_defined(void **unused)
{
    enum { D = 66, PAGE = 4, N = 12 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_rows r;
        struct conf_slab store;
        struct conf c;
        float bounds[2 * MAX_D];
        float q[D];
        float scores[3];
        float with_nan[3];
        conf_open(&c, level, 1);
        conf_rows_open(&r, QY_ROW_F32, D, SHIFT, N, 2.0F);
        for (uint32_t t = 0; t < N; t++) {
            float k[D];
            for (uint32_t i = 0; i < D; i++) {
                k[i] = t == 1 || (t < PAGE && i == 65) ? NAN : (float)(t + i);
                k[i] = t == 5 && i == 64 ? 1e6F : k[i];
                k[i] = t == 6 && i == 2 ? -INFINITY : k[i];
            }
            memcpy(qy_row_at(&r.rows, t), k, sizeof(k));
        }
        open_bounds(&c, &r, &store, PAGE);
        read_back(&c, &store, D, PAGE, 0, bounds); /* token 1 and element 65 are left out */
        for (uint32_t i = 0; i < D; i++) {
            assert_true(bounds[i] == (i == 65 ? 0.0F : (float)i));
            assert_true(bounds[D + i] == (i == 65 ? 0.0F : (float)(3 + i)));
            q[i] = 1.0F;
        }
        score(&c, &store, q, 1, D, PAGE, 0, 3, scores);
        assert_true(isfinite(scores[0]) && scores[0] < 1e5F);
        assert_true(scores[1] == FLT_MAX); /* no half is above 1e6 */
        assert_true(isfinite(scores[2]) && scores[2] < 1e5F);
        q[0] = 0.0F;
        score(&c, &store, q, 1, D, PAGE, 0, 3, scores);
        q[0] = NAN; /* counts as 0 */
        score(&c, &store, q, 1, D, PAGE, 0, 3, with_nan);
        assert_memory_equal(scores, with_nan, sizeof(scores));
        conf_slab_close(&store);
        conf_rows_close(&r);
        conf_close(&c);
    }
}

static void bits_do_not_depend_on_threads(void **unused)
{
    enum { N = 6000, D = 64, PAGE = 4, PAGES = N / PAGE, GROUP = 3 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static float scores[2][GROUP * PAGES];
        float *q = conf_floats(GROUP * D, 1.0F);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct conf_rows r;
            struct conf_slab store;
            struct conf c;
            conf_seed(5);
            conf_open(&c, level, threads);
            conf_rows_open(&r, QY_ROW_F16, D, SHIFT, N, 1.0F);
            open_bounds(&c, &r, &store, PAGE);
            score(&c, &store, q, GROUP, D, PAGE, 0, PAGES, scores[threads > 1]);
            assert_memory_equal(scores[threads > 1], scores[0], sizeof(scores[0]));
            conf_slab_close(&store);
            conf_rows_close(&r);
            conf_close(&c);
        }
        free(q);
    }
}

static void bad_calls_are_refused(void **unused)
{
    struct conf_rows r;
    struct conf_slab store;
    struct conf c;
    float q[64] = {0};
    float scores[4];
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    conf_rows_open(&r, QY_ROW_F16, 64, SHIFT, 20, 1.0F);
    open_bounds(&c, &r, &store, 8);
    const struct {
        uint32_t page, d, group;
    } bad[] = {{0, 64, 1}, {3, 64, 1},  {64, 64, 1}, {8, 63, 1},
               {8, 0, 1},  {8, 258, 1}, {8, 64, 0},  {8, 64, 65}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct qy_bound_item append_item = {r.rows, 0, 1, bad[i].page, store.slab};
        struct qy_bound_score_item item = {
            q, bad[i].d, bad[i].group, bad[i].page, store.slab, 0, 1, scores, 1};
        append_item.rows.d = bad[i].d;
        assert_int_equal(qy_device_bound_score(c.dev, &item, 1, 1.0F), QY_ERR_INVALID);
        if (bad[i].group == 1) {
            assert_int_equal(qy_device_bound_append(c.dev, &append_item, 1), QY_ERR_INVALID);
        }
    }
    assert_int_equal(qy_device_bound_append(c.dev, NULL, 0), QY_OK);
    assert_int_equal(qy_device_bound_score(c.dev, NULL, 0, 1.0F), QY_OK);
    conf_slab_close(&store);
    conf_rows_close(&r);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_tight),
        cmocka_unit_test(scores_match_reference),
        cmocka_unit_test(no_key_scores_above_its_page),
        cmocka_unit_test(chunks_give_the_same_bytes),
        cmocka_unit_test(truncated_pages_are_refilled),
        cmocka_unit_test(odd_keys_are_defined),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(bad_calls_are_refused),
    };
    return cmocka_run_group_tests_name("conf.gpu.bounds", tests, NULL, NULL);
}
