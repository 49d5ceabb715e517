/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of codes, on every kernel set. Bounds: 8 and 16 bits the rounding of a sum of d products;
 * 4 bits half a step per sub-vector, where a step is the widest sum of ranges of four neighbouring
 * tables over 253.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"

/* Largest error of a score of 4 bits. */
static double bound4(const struct qy_quantizer *q, const float *x, double scale)
{
    double widest = 0.0;
    double range = 0.0;
    double size = 0.0;

    for (uint32_t j = 0; j < q->m; j++) {
        double low = INFINITY;
        double high = -INFINITY;
        for (uint32_t w = 0; w < 16; w++) {
            const double t = conf_table_at(q, q->decode, x, j, w, &size);
            low = t < low ? t : low;
            high = t > high ? t : high;
        }
        range = j % 4 == 0 ? high - low : range + high - low;
        widest = range > widest ? range : widest;
    }
    return fabs(scale) * (widest / 253.0 * q->m / 2 * 1.0001 + 1e-6 * size);
}

static void scores_check(const struct qy_quantizer *q, const struct conf_codes *s,
                         const float *queries, uint32_t group, uint32_t first, uint32_t n,
                         float scale, const float *scores, size_t stride)
{
    for (uint32_t h = 0; h < group; h++) {
        const float *x = queries + (size_t)h * q->d;
        const double most = q->bits == 4 ? bound4(q, x, (double)scale) : 0.0;
        for (uint32_t i = 0; i < n; i++) {
            double size = 0.0;
            double sum = 0.0;
            for (uint32_t j = 0; j < q->m; j++) {
                sum +=
                    conf_table_at(q, q->decode, x, j, qy_code_at(q, &s->slab, first + i, j), &size);
            }
            const double error = fabs((double)scores[h * stride + i] - (double)scale * sum);
            assert_true(error <= most + 1e-6 * fabs((double)scale) * size + 1e-12);
        }
    }
}

static void score_one(struct conf *c, const struct conf_quantizer *z, const struct conf_codes *s,
                      uint32_t group, uint32_t first, uint32_t n, float scale)
{
    const size_t stride = n + 3;
    float *queries = conf_floats((size_t)group * z->q.d, 2.0F);
    float *scores = conf_floats(group * stride, 1.0F);
    float *before = malloc(group * stride * sizeof(*before));

    assert_non_null(before);
    memcpy(before, scores, group * stride * sizeof(*before));
    const struct qy_code_score_item item = {&z->q, queries, s->slab, first,
                                            n,     group,   scores,  stride};
    conf_arena(c, qy_device_code_score_scratch(c->dev, 1, &z->q, group));
    assert_int_equal(qy_device_code_score(c->dev, &item, 1, scale, &c->arena), QY_OK);
    assert_int_equal(c->arena.used, 0);
    scores_check(&z->q, s, queries, group, first, n, scale, scores, stride);
    for (uint32_t h = 0; h < group; h++) { /* nothing past the end */
        assert_memory_equal(scores + h * stride + n, before + h * stride + n, 3 * sizeof(float));
    }
    free(queries);
    free(scores);
    free(before);
}

static void score_every_shape_keeps_its_bound(void **unused)
{
    static const uint32_t groups[] = {1, 3, 4, 8, 2, 7};
    static const uint32_t ranges[][2] = {{0, 333}, {31, 100}, {128, 128}, {5, 1}, {127, 2}, {9, 0}};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            for (uint32_t shift = 3 + i % 2; shift <= 12; shift += 2) {
                struct conf_quantizer z;
                struct conf_codes s;
                conf_quantizer_open(&z, conf_shapes[i][0], conf_shapes[i][1], conf_shapes[i][2],
                                    conf_shapes[i][3], 0);
                z.q.order = shift % 4 < 2 ? z.order : NULL;
                conf_codes_fill(&c, &z, &s, shift, 333);
                for (uint32_t r = 0; r < 6; r++) {
                    score_one(&c, &z, &s, groups[(i + r + shift) % 6], ranges[r][0], ranges[r][1],
                              r % 2 ? 0.3F : -2.0F);
                }
                conf_codes_close(&s);
                conf_quantizer_close(&z);
            }
        }
        conf_close(&c);
    }
}

/* Any range, any number of items and threads: a token's score has the same bits. */
static void score_bits_depend_on_the_token_alone(void **unused)
{
    enum { N = 5000, GROUP = 3 };
    static float scores[2][GROUP * N];
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c[2];
        conf_open(&c[0], level, 1);
        conf_open(&c[1], level, 3);
        for (uint32_t i = 0; i < CONF_SHAPES; i += 3) {
            struct conf_quantizer z;
            struct conf_codes s;
            struct qy_code_score_item items[40];
            uint32_t n_items = 0;
            conf_quantizer_open(&z, conf_shapes[i][0], conf_shapes[i][1], conf_shapes[i][2],
                                conf_shapes[i][3], 0);
            conf_codes_fill(&c[0], &z, &s, i % 2 ? 7 : 6, N);
            float *queries = conf_floats((size_t)GROUP * z.q.d, 2.0F);
            for (uint32_t at = 0; at < N; n_items++) {
                const uint32_t n = 1 + conf_random(400);
                const uint32_t some = N - at < n ? N - at : n;
                items[n_items] = (struct qy_code_score_item){&z.q, queries, s.slab,         at,
                                                             some, GROUP,   scores[1] + at, N};
                at += some;
            }
            const struct qy_code_score_item all = {&z.q, queries, s.slab,    0,
                                                   N,    GROUP,   scores[0], N};
            conf_arena(&c[0], qy_device_code_score_scratch(c[0].dev, 1, &z.q, GROUP));
            conf_arena(&c[1], qy_device_code_score_scratch(c[1].dev, n_items, &z.q, GROUP));
            assert_int_equal(qy_device_code_score(c[0].dev, &all, 1, 0.5F, &c[0].arena), QY_OK);
            assert_int_equal(qy_device_code_score(c[1].dev, items, n_items, 0.5F, &c[1].arena),
                             QY_OK);
            assert_memory_equal(scores[0], scores[1], sizeof(scores[0]));
            free(queries);
            conf_codes_close(&s);
            conf_quantizer_close(&z);
        }
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

/* Small integers are exact in every set: codes and scores are the same bits in all of them. */
static void small_integers_agree_on_every_set(void **unused)
{
    enum { N = 400, GROUP = 4 };
    static float scores[2][GROUP * N];
    (void)unused;
    for (uint32_t i = 0; i < CONF_SHAPES; i++) {
        const uint32_t d = conf_shapes[i][0];
        struct conf_quantizer z;
        struct conf_codes first = {0};
        float *k = conf_floats((size_t)N * d, 1.0F);
        float *queries = conf_floats((size_t)GROUP * d, 1.0F);
        conf_quantizer_open(&z, d, conf_shapes[i][1], conf_shapes[i][2], conf_shapes[i][3], 1);
        for (size_t e = 0; e < (size_t)N * d; e++) {
            k[e] = (float)conf_random(7) - 3.0F;
            queries[e % (GROUP * d)] = (float)conf_random(7) - 3.0F;
        }
        for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
            struct conf_codes s;
            struct conf c;
            float *out = scores[level != QY_CPU_PLAIN];
            conf_open(&c, level, 1);
            conf_codes_open(&s, &z.q, 7, N);
            conf_encode(&c, &z.q, k, d, &s, 0, N);
            const struct qy_code_score_item item = {&z.q, queries, s.slab, 0, N, GROUP, out, N};
            assert_int_equal(qy_device_code_score(c.dev, &item, 1, 0.25F, &c.arena), QY_OK);
            if (level == QY_CPU_PLAIN) {
                first = s;
            } else {
                for (uint32_t b = 0; b < s.n_blocks; b++) {
                    assert_memory_equal(s.blocks[b], first.blocks[b], s.bytes);
                }
                assert_memory_equal(scores[0], scores[1], sizeof(scores[0]));
                conf_codes_close(&s);
            }
            conf_close(&c);
        }
        conf_codes_close(&first);
        conf_quantizer_close(&z);
        free(k);
        free(queries);
    }
}

static void score_odd_queries_give_no_number(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 1);
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            enum { N = 50 };
            const uint32_t d = conf_shapes[i][0];
            struct conf_quantizer z;
            struct conf_codes s;
            float scores[2 * N];
            float *queries = conf_floats((size_t)2 * d, 1.0F);
            conf_quantizer_open(&z, d, conf_shapes[i][1], conf_shapes[i][2], conf_shapes[i][3], 0);
            conf_codes_fill(&c, &z, &s, 4, N);
            for (uint32_t e = 0; e < d; e++) {
                queries[e] = NAN;
                queries[d + e] = 0.0F;
            }
            const struct qy_code_score_item item = {&z.q, queries, s.slab, 0, N, 2, scores, N};
            assert_int_equal(qy_device_code_score(c.dev, &item, 1, 1.0F, &c.arena), QY_OK);
            for (uint32_t t = 0; t < N; t++) {
                assert_true(isnan(scores[t]));
                assert_true(scores[N + t] == 0.0F); /* all equal: step 0 */
            }
            free(queries);
            conf_codes_close(&s);
            conf_quantizer_close(&z);
        }
        conf_close(&c);
    }
}

static void score_small_arena_is_nomem(void **unused)
{
    struct conf c;
    struct conf_quantizer z;
    struct conf_codes s;
    float queries[64] = {0};
    float score = 7.0F;
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    conf_quantizer_open(&z, 64, 16, 4, 16, 0);
    conf_codes_fill(&c, &z, &s, 3, 1);
    struct qy_code_score_item item = {&z.q, queries, s.slab, 0, 1, 1, &score, 1};
    conf_arena(&c, 64);
    assert_int_equal(qy_device_code_score(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
    assert_true(score == 7.0F);
    assert_int_equal(qy_device_code_score(c.dev, &item, 0, 1.0F, &c.arena), QY_OK);
    item.group = 65;
    assert_int_equal(qy_device_code_score(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_INVALID);
    z.q.bits = 5;
    item.group = 1;
    assert_int_equal(qy_device_code_score(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_INVALID);
    const struct qy_encode_item bad = {&z.q, queries, 64, s.slab, 0, 1};
    assert_int_equal(qy_device_encode(c.dev, &bad, 1), QY_ERR_INVALID);
    conf_codes_close(&s);
    conf_quantizer_close(&z);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(score_every_shape_keeps_its_bound),
        cmocka_unit_test(score_bits_depend_on_the_token_alone),
        cmocka_unit_test(small_integers_agree_on_every_set),
        cmocka_unit_test(score_odd_queries_give_no_number),
        cmocka_unit_test(score_small_arena_is_nomem),
    };
    return cmocka_run_group_tests_name("conf.gpu.code_scores", tests, NULL, NULL);
}
