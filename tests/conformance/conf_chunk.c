/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of the causal attention of chunks: every kernel set against f64, token by token.
 * Tolerance: NMSE 1e-10, as for decode attention.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

static const double max_nmse = 1e-10;

struct shape {
    enum qy_row_type type;
    uint32_t d, shift, group, first, n_q;
};

/* One item whose rows end where the chunk ends; q and out have wider rows than they need. */
static void chunk_one(struct conf *c, const struct shape *s, float q_scale, double nmse)
{
    const size_t heads_d = (size_t)s->group * s->d;
    const size_t stride = heads_d + 5;
    const float scale = 1.0F / sqrtf((float)s->d);
    struct conf_rows r;
    float *q = conf_floats(s->n_q * stride, q_scale);
    float *out = conf_floats(s->n_q * stride, 1.0F);
    double *expected = malloc(s->d * sizeof(*expected));

    assert_non_null(expected);
    conf_rows_open(&r, s->type, s->d, s->shift, s->first + s->n_q, q_scale);
    for (uint32_t i = 0; i < s->n_q; i++) {
        out[i * stride + heads_d] = 7.0F;
    }
    const struct qy_chunk_item item = {q, stride, r.rows, s->first, s->n_q, s->group, out, stride};
    conf_arena(c, qy_device_attend_chunk_scratch(c->dev, 1, r.n, s->n_q, s->group, s->d));
    assert_int_equal(qy_device_attend_chunk(c->dev, &item, 1, scale, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
    for (uint32_t i = 0; i < s->n_q; i += 1 + s->n_q / 9) {
        assert_true(out[i * stride + heads_d] == 7.0F);
        for (uint32_t h = 0; h < s->group; h++) {
            const size_t at = i * stride + (size_t)h * s->d;
            conf_attend(&r, NULL, 0, s->first + i + 1, q + at, (double)scale, expected, NULL);
            assert_true(conf_nmse(out + at, expected, s->d) <= nmse);
        }
    }
    conf_rows_close(&r);
    free(q);
    free(out);
    free(expected);
}

static void chunk_every_shape_matches_reference(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 96, 128, 256, 6, 10};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t i = 0; i < sizeof(sizes_d) / sizeof(sizes_d[0]); i++) {
            for (uint32_t group = 1; group <= 8; group++) {
                const struct shape s = {QY_ROW_F16, sizes_d[i], 4, group, 37, 41};
                chunk_one(&c, &s, 2.0F, max_nmse);
            }
            const struct shape wide = {QY_ROW_F32, sizes_d[i], 7, 16, 3, 20};
            chunk_one(&c, &wide, 2.0F, max_nmse);
        }
        conf_close(&c);
    }
}

static void chunk_every_length_matches_reference(void **unused)
{
    static const uint32_t firsts[] = {0, 1, 63, 64, 150};
    static const uint32_t lengths[] = {1, 7, 16, 17, 64, 65, 130};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t f = 0; f < sizeof(firsts) / sizeof(firsts[0]); f++) {
            for (size_t n = 0; n < sizeof(lengths) / sizeof(lengths[0]); n++) {
                const struct shape s = {(f + n) % 4 == 0 ? QY_ROW_F32 : QY_ROW_F16,
                                        64,
                                        f % 2 ? 4 : 7,
                                        3,
                                        firsts[f],
                                        lengths[n]};
                chunk_one(&c, &s, 2.0F, max_nmse);
            }
        }
        conf_close(&c);
    }
}

static void chunk_huge_scores_do_not_overflow(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        const struct shape s = {QY_ROW_F16, 64, 4, 3, 20, 90};
        struct conf c;
        conf_open(&c, level, 2);
        chunk_one(&c, &s, 60.0F, 1e-4);
        conf_close(&c);
    }
}

/* Attends tokens 0 .. n - 1 in chunks of at most `step`, two items at once. */
static void attend_in_steps(struct conf *c, const struct conf_rows *r, const float *q,
                            uint32_t group, uint32_t n, uint32_t step, float *out)
{
    const size_t stride = (size_t)group * r->rows.d;

    for (uint32_t first = 0; first < n; first += step) {
        struct qy_chunk_item items[2];
        for (uint32_t i = 0; i < 2; i++) {
            const size_t at = (first + (size_t)i * n) * stride;
            items[i] = (struct qy_chunk_item){.q = q + at,
                                              .q_stride = stride,
                                              .rows = r->rows,
                                              .first = first,
                                              .n_q = n - first < step ? n - first : step,
                                              .group = group,
                                              .out = out + at,
                                              .out_stride = stride};
        }
        assert_int_equal(qy_device_attend_chunk(c->dev, items, 2, 0.1F, &c->arena), QY_OK);
    }
}

static void chunk_bits_do_not_depend_on_chunks_or_threads(void **unused)
{
    enum { N = 130, GROUP = 3, D = 80, FLOATS = 2 * N * GROUP * D };
    static const uint32_t steps[] = {N, 1, 7, 64};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_rows r;
        float *q = conf_floats(FLOATS, 2.0F);
        float *whole = conf_floats(FLOATS, 1.0F);
        float *parts = conf_floats(FLOATS, 1.0F);
        conf_rows_open(&r, QY_ROW_F16, D, 4, N, 2.0F);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct conf c;
            conf_open(&c, level, threads);
            for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
                float *out = s == 0 && threads == 1 ? whole : parts;
                attend_in_steps(&c, &r, q, GROUP, N, steps[s], out);
                assert_memory_equal(out, whole, FLOATS * sizeof(float));
            }
            conf_close(&c);
        }
        conf_rows_close(&r);
        free(q);
        free(whole);
        free(parts);
    }
}

static void chunk_full_arena_writes_nothing(void **unused)
{
    struct conf c;
    struct conf_rows r;
    float q[64] = {0};
    float out[64] = {7.0F};
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 2);
    conf_rows_open(&r, QY_ROW_F16, 64, 4, 10, 1.0F);
    const struct qy_chunk_item item = {q, 64, r.rows, 9, 1, 1, out, 64};
    conf_arena(&c, qy_device_attend_chunk_scratch(c.dev, 1, 10, 1, 1, 64) / 2);
    assert_int_equal(qy_device_attend_chunk(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
    assert_true(out[0] == 7.0F);
    assert_int_equal(c.arena.used, 0);
    conf_rows_close(&r);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunk_every_shape_matches_reference),
        cmocka_unit_test(chunk_every_length_matches_reference),
        cmocka_unit_test(chunk_huge_scores_do_not_overflow),
        cmocka_unit_test(chunk_bits_do_not_depend_on_chunks_or_threads),
        cmocka_unit_test(chunk_full_arena_writes_nothing),
    };
    return cmocka_run_group_tests_name("conf.gpu.chunk", tests, NULL, NULL);
}
