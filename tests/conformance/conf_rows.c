/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of append, decode attention and merge: every kernel set against f64.
 *
 * Tolerance: NMSE 1e-10 of the output (f32 sums of a few hundred terms leave about 1e-13), 2e-5 of
 * lse. f16 rows cost nothing here: the reference reads what the rows hold.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

static const double max_nmse = 1e-10;
static const double max_lse = 2e-5;

static const uint32_t sizes_d[] = {64, 80, 96, 128, 256, 6, 10};
enum { N_SIZES_D = sizeof(sizes_d) / sizeof(sizes_d[0]) };

static void append_one(struct conf *c, uint32_t d, enum qy_row_type type, uint32_t shift)
{
    enum { N = 40, FIRST = 13 };
    const size_t stride = d + 3;
    struct conf_rows r;
    float *k = conf_floats(N * stride, 3.0F);
    float *v = conf_floats(N * stride, 1e-6F); /* f16 denormals */

    conf_rows_open(&r, type, d, shift, FIRST + N, 1.0F);
    const struct qy_append_item item = {k, v, stride, r.rows, FIRST, N};
    assert_int_equal(qy_device_append(c->dev, &item, 1), QY_OK);
    for (uint32_t t = 0; t < N; t++) {
        const uint8_t *row = qy_row_at(&r.rows, FIRST + t);
        for (uint32_t i = 0; i < 2 * d; i++) {
            const float x = i < d ? k[t * stride + i] : v[t * stride + i - d];
            if (type == QY_ROW_F32) {
                assert_memory_equal(row + (size_t)i * 4, &x, 4);
            } else {
                const uint16_t h = qy_f16_from_f32(x);
                assert_memory_equal(row + (size_t)i * 2, &h, 2);
            }
        }
    }
    /* rows before FIRST are as they were */
    const uint16_t h = qy_f16_from_f32(r.k[0]);
    assert_memory_equal(qy_row_at(&r.rows, 0), type == QY_ROW_F32 ? (void *)r.k : (void *)&h,
                        type == QY_ROW_F32 ? 4 : 2);
    conf_rows_close(&r);
    free(k);
    free(v);
}

static void append_rows_equal_converted_values(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t i = 0; i < N_SIZES_D; i++) {
            append_one(&c, sizes_d[i], QY_ROW_F16, 4);
            append_one(&c, sizes_d[i], QY_ROW_F32, 7);
        }
        conf_close(&c);
    }
}

static void append_value_not_finite_is_corrupt(void **unused)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 65520.0F, -1e30F};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 1);
        for (size_t b = 0; b < 5; b++) {
            for (uint32_t at = 0; at < 70; at += 23) {
                struct conf_rows r;
                float k[2 * 70] = {0};
                float v[2 * 70] = {0};
                v[70 + at] = bad[b];
                k[139] = 65519.0F; /* rounds to 65504: finite */
                conf_rows_open(&r, QY_ROW_F16, 70, 4, 2, 1.0F);
                struct qy_append_item item = {k, v, 70, r.rows, 0, 2};
                assert_int_equal(qy_device_append(c.dev, &item, 1), QY_ERR_CORRUPT);
                uint16_t last;
                memcpy(&last, qy_row_at(&r.rows, 1) + 69 * 2, 2);
                assert_int_equal(last, 0x7bff);
                item = (struct qy_append_item){k, k, 70, r.rows, 0, 2};
                assert_int_equal(qy_device_append(c.dev, &item, 1), QY_OK);
                conf_rows_close(&r);
            }
        }
        conf_close(&c);
    }
}

/* One item over a range (ids 0) or over every third row (ids 1), against f64. */
static void attend_one(struct conf *c, const struct conf_rows *r, uint32_t group, uint32_t n,
                       int with_ids, float q_scale, double nmse, double lse_error)
{
    const uint32_t d = r->rows.d;
    const uint32_t first = with_ids ? 0 : r->n - n;
    const float scale = 1.0F / sqrtf((float)d);
    float *q = conf_floats((size_t)group * d, q_scale);
    float *out = conf_floats((size_t)group * d, 1.0F);
    double *expected = malloc((size_t)d * sizeof(*expected));
    uint32_t *ids = malloc((n + 1) * sizeof(*ids));
    float lse[64];

    assert_true(expected != NULL && ids != NULL);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = i * 3 + conf_random(3);
    }
    const struct qy_attend_item item = {.q = q,
                                        .rows = r->rows,
                                        .ids = with_ids ? ids : NULL,
                                        .first = first,
                                        .n = n,
                                        .group = group,
                                        .out = out,
                                        .lse = lse};
    conf_arena(c, qy_device_attend_scratch(c->dev, 1, n, group, d));
    assert_int_equal(qy_device_attend(c->dev, &item, 1, scale, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
    for (uint32_t h = 0; h < group; h++) {
        double want;
        conf_attend(r, item.ids, first, n, q + (size_t)h * d, (double)scale, expected, &want);
        assert_true(conf_nmse(out + (size_t)h * d, expected, d) <= nmse);
        assert_true(n == 0 ? lse[h] == -INFINITY : fabs((double)lse[h] - want) <= lse_error);
    }
    free(q);
    free(out);
    free(expected);
    free(ids);
}

static void attend_every_shape_matches_reference(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t i = 0; i < N_SIZES_D; i++) {
            struct conf_rows r[2];
            conf_seed((uint32_t)i);
            conf_rows_open(&r[0], QY_ROW_F16, sizes_d[i], 4, 400, 2.0F);
            conf_rows_open(&r[1], QY_ROW_F32, sizes_d[i], 7, 400, 2.0F);
            for (uint32_t group = 1; group <= 8; group++) {
                attend_one(&c, &r[0], group, 290, 0, 2.0F, max_nmse, max_lse);
                attend_one(&c, &r[0], group, 99, 1, 2.0F, max_nmse, max_lse);
                attend_one(&c, &r[1], group, 37, 0, 2.0F, max_nmse, max_lse);
            }
            attend_one(&c, &r[1], 16, 133, 1, 2.0F, max_nmse, max_lse);
            conf_rows_close(&r[0]);
            conf_rows_close(&r[1]);
        }
        conf_close(&c);
    }
}

static void attend_every_length_matches_reference(void **unused)
{
    static const uint32_t lengths[] = {0,  1,  2,   3,   4,   31,  32,  33,
                                       63, 65, 255, 256, 257, 511, 513, 800};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_rows r[2];
        conf_open(&c, level, 2);
        conf_rows_open(&r[0], QY_ROW_F16, 64, 7, 2400, 2.0F);
        conf_rows_open(&r[1], QY_ROW_F32, 64, 4, 2400, 2.0F);
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            for (int which = 0; which < 4; which++) {
                attend_one(&c, &r[which & 1], 3, lengths[i], which >> 1, 2.0F, max_nmse, max_lse);
            }
        }
        conf_rows_close(&r[0]);
        conf_rows_close(&r[1]);
        conf_close(&c);
    }
}

/* Scores of +-1e4 have an f32 step of 1e-3: weights are good to about that, and must be finite. */
static void attend_huge_scores_do_not_overflow(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_rows r;
        conf_open(&c, level, 2);
        conf_rows_open(&r, QY_ROW_F16, 64, 4, 700, 60.0F);
        attend_one(&c, &r, 3, 700, 0, 60.0F, 1e-4, 1e-2);
        attend_one(&c, &r, 4, 90, 1, 60.0F, 1e-4, 1e-2);
        conf_rows_close(&r);
        conf_close(&c);
    }
}

static void attend_all_ids_equal_range_in_bits(void **unused)
{
    enum { N = 600, GROUP = 3, D = 64 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_rows r;
        uint32_t ids[N];
        float out[2][GROUP * D];
        float lse[2][GROUP];
        float *q = conf_floats(GROUP * D, 2.0F);
        conf_open(&c, level, 2);
        conf_rows_open(&r, QY_ROW_F16, D, 4, N, 2.0F);
        for (uint32_t i = 0; i < N; i++) {
            ids[i] = i;
        }
        const struct qy_attend_item items[2] = {
            {q, r.rows, NULL, 0, N, GROUP, NULL, out[0], lse[0]},
            {q, r.rows, ids, 0, N, GROUP, NULL, out[1], lse[1]}};
        assert_int_equal(qy_device_attend(c.dev, items, 2, 0.125F, &c.arena), QY_OK);
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        assert_memory_equal(lse[0], lse[1], sizeof(lse[0]));
        conf_rows_close(&r);
        conf_close(&c);
        free(q);
    }
}

/* A row of bias ln w counts as w rows; one of bias -inf does not count. */
static void attend_bias_equals_repeated_rows(void **unused)
{
    enum { ROWS = 300, GROUP = 5, MOST = 4 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < N_SIZES_D; s++) {
            const uint32_t d = sizes_d[s];
            const float scale = 1.0F / sqrtf((float)d);
            const enum qy_row_type type = s % 2 ? QY_ROW_F32 : QY_ROW_F16;
            uint32_t ids[ROWS];
            uint32_t repeated[ROWS * MOST];
            float bias[ROWS];
            float lse[2][GROUP];
            uint32_t n = 0;
            struct conf_rows r;
            float *q = conf_floats((size_t)GROUP * d, 2.0F);
            float *out = conf_floats((size_t)2 * GROUP * d, 1.0F);
            double *expected = malloc(d * sizeof(*expected));
            assert_non_null(expected);
            conf_rows_open(&r, type, d, 4, ROWS, 2.0F);
            for (uint32_t i = 0; i < ROWS; i++) {
                const uint32_t w = conf_random(MOST + 1);
                ids[i] = i;
                bias[i] = logf((float)w);
                for (uint32_t j = 0; j < w; j++) {
                    repeated[n++] = i;
                }
            }
            const struct qy_attend_item items[2] = {
                {q, r.rows, ids, 0, ROWS, GROUP, bias, out, lse[0]},
                {q, r.rows, NULL, 0, ROWS, GROUP, bias, out + (size_t)GROUP * d, lse[1]}};
            conf_arena(&c, qy_device_attend_scratch(c.dev, 2, ROWS, GROUP, d));
            assert_int_equal(qy_device_attend(c.dev, items, 2, scale, &c.arena), QY_OK);
            assert_memory_equal(out, items[1].out, (size_t)GROUP * d * sizeof(*out));
            for (uint32_t h = 0; h < GROUP; h++) {
                double want;
                conf_attend(&r, repeated, 0, n, q + (size_t)h * d, (double)scale, expected, &want);
                assert_true(conf_nmse(out + (size_t)h * d, expected, d) <= max_nmse);
                assert_true(fabs((double)lse[0][h] - want) <= max_lse);
            }
            conf_rows_close(&r);
            free(q);
            free(out);
            free(expected);
        }
        conf_close(&c);
    }
}

static void attend_bias_of_nothing_is_empty(void **unused)
{
    enum { ROWS = 37, D = 64 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_rows r;
        float *q = conf_floats(D, 1.0F);
        float bias[ROWS];
        float out[D];
        float lse;
        conf_open(&c, level, 1);
        conf_rows_open(&r, QY_ROW_F16, D, 4, ROWS, 1.0F);
        for (int i = 0; i < ROWS; i++) {
            bias[i] = -INFINITY;
        }
        const struct qy_attend_item item = {q, r.rows, NULL, 0, ROWS, 1, bias, out, &lse};
        assert_int_equal(qy_device_attend(c.dev, &item, 1, 1.0F, &c.arena), QY_OK);
        assert_true(lse == -INFINITY);
        for (int i = 0; i < D; i++) {
            assert_true(out[i] == 0.0F);
        }
        conf_rows_close(&r);
        conf_close(&c);
        free(q);
    }
}

static void attend_bits_do_not_depend_on_threads(void **unused)
{
    enum { ITEMS = 7, GROUP = 4, D = 80, N = 1500 };
    static const uint32_t n[ITEMS] = {N, 0, 1, 256, 257, 1000, 33};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static float out[3][ITEMS][GROUP * D];
        struct conf_rows r;
        float *q = conf_floats(ITEMS * GROUP * D, 2.0F);
        conf_rows_open(&r, QY_ROW_F16, D, 4, N, 2.0F);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct conf c;
            struct qy_attend_item items[ITEMS];
            conf_open(&c, level, threads);
            for (uint32_t i = 0; i < ITEMS; i++) {
                items[i] = (struct qy_attend_item){.q = q + i * GROUP * D,
                                                   .rows = r.rows,
                                                   .first = N - n[i],
                                                   .n = n[i],
                                                   .group = GROUP,
                                                   .out = out[threads - 1][i]};
            }
            for (int again = 0; again < 5; again++) {
                memset(out[threads - 1], 0xff, sizeof(out[0]));
                assert_int_equal(qy_device_attend(c.dev, items, ITEMS, 0.1F, &c.arena), QY_OK);
                assert_memory_equal(out[threads - 1], out[0], sizeof(out[0]));
            }
            conf_close(&c);
        }
        conf_rows_close(&r);
        free(q);
    }
}

static void attend_full_arena_writes_nothing(void **unused)
{
    enum { N = 600, D = 64 };
    struct conf c;
    struct conf_rows r;
    float q[D] = {0};
    float out[D];
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    conf_rows_open(&r, QY_ROW_F16, D, 4, N, 1.0F);
    const struct qy_attend_item item = {q, r.rows, NULL, 0, N, 1, NULL, out, NULL};
    conf_arena(&c, qy_device_attend_scratch(c.dev, 1, N, 1, D) / 2);
    out[0] = 7.0F;
    assert_int_equal(qy_device_attend(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
    assert_true(out[0] == 7.0F);
    assert_int_equal(c.arena.used, 0);
    conf_rows_close(&r);
    conf_close(&c);
}

static void merge_of_parts_equals_whole(void **unused)
{
    enum { N = 500, GROUP = 3, D = 96, PARTS = 4 };
    static const uint32_t from[PARTS + 1] = {0, 1, 1, 300, N}; /* the second part is empty */
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        struct conf_rows r;
        float parts[PARTS][GROUP * D];
        float lses[PARTS][GROUP];
        float out[GROUP * D];
        float lse[GROUP];
        double expected[D];
        double want;
        float *q = conf_floats(GROUP * D, 2.0F);
        struct qy_attend_item items[PARTS];
        conf_open(&c, level, 2);
        conf_rows_open(&r, QY_ROW_F32, D, 7, N, 2.0F);
        for (uint32_t p = 0; p < PARTS; p++) {
            items[p] = (struct qy_attend_item){
                q, r.rows, NULL, from[p], from[p + 1] - from[p], GROUP, NULL, parts[p], lses[p]};
        }
        assert_int_equal(qy_device_attend(c.dev, items, PARTS, 0.1F, &c.arena), QY_OK);
        assert_int_equal(qy_device_merge(c.dev, parts[0], lses[0], PARTS, GROUP, D, out, lse),
                         QY_OK);
        for (uint32_t h = 0; h < GROUP; h++) {
            conf_attend(&r, NULL, 0, N, q + h * D, (double)0.1F, expected, &want);
            assert_true(conf_nmse(out + h * D, expected, D) <= max_nmse);
            assert_true(fabs((double)lse[h] - want) <= max_lse);
        }
        conf_rows_close(&r);
        conf_close(&c);
        free(q);
    }
}

static void merge_of_nothing_is_empty(void **unused)
{
    struct conf c;
    const float parts[2][4] = {{NAN, NAN, NAN, NAN}, {1.0F, 2.0F, 3.0F, 4.0F}};
    const float none[2] = {-INFINITY, -INFINITY};
    const float one[2] = {-INFINITY, -3.0F};
    float out[4];
    float lse;
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    assert_int_equal(qy_device_merge(c.dev, parts[0], none, 2, 1, 4, out, &lse), QY_OK);
    for (int i = 0; i < 4; i++) {
        assert_true(out[i] == 0.0F);
    }
    assert_true(lse == -INFINITY);
    assert_int_equal(qy_device_merge(c.dev, parts[0], one, 2, 1, 4, out, NULL), QY_OK);
    assert_memory_equal(out, parts[1], sizeof(out));
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_rows_equal_converted_values),
        cmocka_unit_test(append_value_not_finite_is_corrupt),
        cmocka_unit_test(attend_every_shape_matches_reference),
        cmocka_unit_test(attend_every_length_matches_reference),
        cmocka_unit_test(attend_huge_scores_do_not_overflow),
        cmocka_unit_test(attend_all_ids_equal_range_in_bits),
        cmocka_unit_test(attend_bias_equals_repeated_rows),
        cmocka_unit_test(attend_bias_of_nothing_is_empty),
        cmocka_unit_test(attend_bits_do_not_depend_on_threads),
        cmocka_unit_test(attend_full_arena_writes_nothing),
        cmocka_unit_test(merge_of_parts_equals_whole),
        cmocka_unit_test(merge_of_nothing_is_empty),
    };
    return cmocka_run_group_tests_name("conf.gpu.rows", tests, NULL, NULL);
}
