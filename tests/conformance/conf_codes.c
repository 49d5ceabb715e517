/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantizers, their codes and the scores of codes, on every kernel set.
 *
 * Bounds. A code's own score may lie below the best one's by the rounding of a sum of d products.
 * Scores of 8 and 16 bits: the same rounding. Scores of 4 bits: half a step per sub-vector, where a
 * step is the widest sum of ranges of four neighbouring tables over 253.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

enum { OFFSET = 64, STRIDE_MORE = 24 };

struct quantizer {
    struct qy_quantizer q;
    uint16_t *order;
    float *encode, *bias, *decode;
};

/* kind 0: any numbers; 1: small integers, many equal words. */
static void quantizer_open(struct quantizer *z, uint32_t d, uint32_t m, uint32_t bits,
                           uint32_t n_words, int kind)
{
    const size_t n = (size_t)d * n_words;

    z->encode = conf_floats(n, 1.0F);
    z->decode = conf_floats(n, 1.0F);
    z->bias = conf_floats((size_t)m * n_words, 1.0F);
    z->order = malloc(d * sizeof(*z->order));
    assert_non_null(z->order);
    for (size_t i = 0; kind == 1 && i < n; i++) {
        z->encode[i] = (float)conf_random(3) - 1.0F;
        z->decode[i] = (float)conf_random(9) - 4.0F;
    }
    for (size_t i = 0; kind == 1 && i < (size_t)m * n_words; i++) {
        z->bias[i] = (float)conf_random(2);
    }
    for (uint32_t i = 0; i < d; i++) {
        const uint32_t at = conf_random(i + 1);
        z->order[i] = z->order[at];
        z->order[at] = (uint16_t)i;
    }
    z->q = (struct qy_quantizer){d, m, bits, n_words, z->order, z->encode, z->bias, z->decode};
    assert_int_equal(qy_quantizer_check(&z->q, NULL), QY_OK);
}

static void quantizer_close(struct quantizer *z)
{
    free(z->order);
    free(z->encode);
    free(z->bias);
    free(z->decode);
}

static uint32_t order_at(const struct qy_quantizer *q, uint32_t i)
{
    return q->order != NULL ? q->order[i] : i;
}

/* q . x of one table, f64; *size receives the sum of magnitudes. */
static double table_at(const struct qy_quantizer *q, const float *table, const float *x, uint32_t j,
                       uint32_t w, double *size)
{
    const uint32_t dj = q->d / q->m;
    double sum = 0.0;

    for (uint32_t i = 0; i < dj; i++) {
        const double term = (double)x[order_at(q, j * dj + i)] *
                            (double)table[((size_t)j * dj + i) * q->n_words + w];
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

struct slabs {
    struct qy_slab slab;
    uint8_t **blocks;
    uint32_t n_blocks;
    size_t bytes;
};

static void slabs_open(struct slabs *s, const struct qy_quantizer *q, uint32_t shift, uint32_t n)
{
    const size_t slab = qy_code_slab_bytes(q, (uint32_t)1 << shift);

    s->n_blocks = (uint32_t)(((uint64_t)n + ((uint64_t)1 << shift) - 1) >> shift);
    s->bytes = OFFSET + slab;
    s->blocks = calloc(s->n_blocks + 1, sizeof(*s->blocks));
    assert_non_null(s->blocks);
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        s->blocks[b] = aligned_alloc(64, (s->bytes + 63) / 64 * 64);
        assert_non_null(s->blocks[b]);
        memset(s->blocks[b], 0xa5, (s->bytes + 63) / 64 * 64);
    }
    s->slab = (struct qy_slab){s->blocks, OFFSET, shift};
}

static void slabs_close(struct slabs *s)
{
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        free(s->blocks[b]);
    }
    free(s->blocks);
}

static void encode(struct conf *c, const struct qy_quantizer *q, const float *k, size_t stride,
                   const struct slabs *s, uint32_t first, uint32_t n)
{
    const struct qy_encode_item item = {q, k, stride, s->slab, first, n};
    assert_int_equal(qy_device_encode(c->dev, &item, 1), QY_OK);
}

/* Every code is the best word of its vector. exact: and the lowest of those. */
static void codes_check(const struct qy_quantizer *q, const float *k, size_t stride,
                        const struct slabs *s, uint32_t first, uint32_t n, int exact)
{
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t j = 0; j < q->m; j++) {
            const uint32_t code = qy_code_at(q, &s->slab, first + t, j);
            double best = -INFINITY;
            double own = 0.0;
            double size = 0.0;
            uint32_t lowest = 0;
            assert_true(code < q->n_words);
            for (uint32_t w = 0; w < q->n_words; w++) {
                const double score = table_at(q, q->encode, k + t * stride, j, w, &size) -
                                     (double)q->bias[(size_t)j * q->n_words + w];
                lowest = score > best ? w : lowest;
                best = score > best ? score : best;
                own = w == code ? score : own;
            }
            if (exact) {
                assert_int_equal(code, lowest);
            } else {
                assert_true(own >= best - 4e-6 * (size / q->n_words + 1.0));
            }
        }
    }
}

static const uint32_t shapes[][4] = {
    /* d, m, bits, n_words */
    {64, 16, 4, 16},  {128, 32, 4, 16}, {80, 8, 4, 16},  {64, 2, 4, 16},    {80, 10, 4, 16},
    {96, 3, 4, 16},   {64, 8, 8, 256},  {80, 2, 8, 100}, {128, 16, 8, 37},  {64, 1, 8, 5},
    {64, 1, 16, 700}, {80, 1, 16, 333}, {128, 1, 16, 1}, {64, 1, 16, 1024},
};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void encode_every_shape_finds_the_best_word(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (uint32_t i = 0; i < N_SHAPES; i++) {
            for (int kind = 0; kind < 2; kind++) {
                const uint32_t d = shapes[i][0];
                const uint32_t shift = 3 + (i + (uint32_t)kind * 5) % 7;
                const uint32_t first = 3 + 50 * (i % 3);
                const uint32_t n = shapes[i][3] > 256 ? 77 : 150;
                struct quantizer z;
                struct slabs s;
                float *k = conf_floats((size_t)n * (d + STRIDE_MORE), 2.0F);
                quantizer_open(&z, d, shapes[i][1], shapes[i][2], shapes[i][3], kind);
                for (size_t e = 0; kind == 1 && e < (size_t)n * (d + STRIDE_MORE); e++) {
                    k[e] = (float)conf_random(5) - 2.0F;
                }
                z.q.order = i % 2 == 0 ? z.order : NULL;
                slabs_open(&s, &z.q, shift, first + n);
                encode(&c, &z.q, k, d + STRIDE_MORE, &s, first, n);
                codes_check(&z.q, k, d + STRIDE_MORE, &s, first, n, kind == 1);
                slabs_close(&s);
                quantizer_close(&z);
                free(k);
            }
        }
        conf_close(&c);
    }
}

/* One by one, in odd pieces, and at once with any number of threads: the same bytes, and bytes of
 * other tokens stay. */
static void encode_pieces_give_the_same_bytes(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c[2];
        conf_open(&c[0], level, 1);
        conf_open(&c[1], level, 3);
        for (uint32_t i = 0; i < N_SHAPES; i++) {
            for (uint32_t shift = 3; shift <= 12; shift += 1 + (i % 2) * 3) {
                static const uint32_t pieces[3] = {1, 45, 1000};
                const uint32_t d = shapes[i][0];
                const uint32_t first = 21;
                const uint32_t n = shapes[i][3] > 256 ? 70 : 300;
                struct quantizer z;
                struct slabs s[3];
                float *k = conf_floats((size_t)n * d, 2.0F);
                quantizer_open(&z, d, shapes[i][1], shapes[i][2], shapes[i][3], 0);
                for (uint32_t v = 0; v < 3; v++) {
                    slabs_open(&s[v], &z.q, shift, first + n);
                    for (uint32_t at = 0; at < n; at += pieces[v]) {
                        const uint32_t some = n - at < pieces[v] ? n - at : pieces[v];
                        encode(&c[v % 2], &z.q, k + (size_t)at * d, d, &s[v], first + at, some);
                    }
                    for (uint32_t b = 0; b < s[v].n_blocks; b++) {
                        assert_memory_equal(s[v].blocks[b], s[0].blocks[b], s[0].bytes);
                    }
                }
                for (uint32_t j = 0; j < z.q.m && z.q.bits == 4; j++) {
                    /* the token before: what was there, 0xa5; in a high nibble in groups of 32 */
                    assert_int_equal(qy_code_at(&z.q, &s[0].slab, first - 1, j),
                                     shift == 5 ? 10 : 5);
                }
                for (uint32_t v = 0; v < 3; v++) {
                    slabs_close(&s[v]);
                }
                quantizer_close(&z);
                free(k);
            }
        }
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

static void encode_odd_numbers_give_valid_codes(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 1);
        for (uint32_t i = 0; i < N_SHAPES; i++) {
            enum { N = 40 };
            const uint32_t d = shapes[i][0];
            const uint32_t dj = d / shapes[i][1];
            struct quantizer z;
            struct slabs s;
            float *k = conf_floats((size_t)N * d, 2.0F);
            quantizer_open(&z, d, shapes[i][1], shapes[i][2], shapes[i][3], 0);
            z.q.order = NULL;
            for (uint32_t e = 0; e < d; e++) {
                k[7 * d + e] = NAN;
                k[8 * d + e] = INFINITY;
                k[9 * d + e] = -INFINITY;
                k[30 * d + e] = e < dj ? NAN : 1.0F; /* the first sub-vector alone */
            }
            slabs_open(&s, &z.q, 5, N);
            encode(&c, &z.q, k, d, &s, 0, N);
            for (int round = 0; round < 2; round++) { /* in bulk, then alone */
                for (uint32_t j = 0; j < z.q.m; j++) {
                    assert_int_equal(qy_code_at(&z.q, &s.slab, 7, j), 0);
                    assert_true(qy_code_at(&z.q, &s.slab, 8, j) < z.q.n_words);
                    assert_true(qy_code_at(&z.q, &s.slab, 9, j) < z.q.n_words);
                }
                assert_int_equal(qy_code_at(&z.q, &s.slab, 30, 0), 0);
                for (uint32_t t = 0; t < N; t++) {
                    encode(&c, &z.q, k + (size_t)t * d, d, &s, t, 1);
                }
            }
            encode(&c, &z.q, k, d, &s, 0, 0); /* none: nothing is touched */
            slabs_close(&s);
            quantizer_close(&z);
            free(k);
        }
        conf_close(&c);
    }
}

/* ---- scores -------------------------------------------------------------------------------------- */

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
            const double t = table_at(q, q->decode, x, j, w, &size);
            low = t < low ? t : low;
            high = t > high ? t : high;
        }
        range = j % 4 == 0 ? high - low : range + high - low;
        widest = range > widest ? range : widest;
    }
    return fabs(scale) * (widest / 253.0 * q->m / 2 * 1.0001 + 1e-6 * size);
}

static void scores_check(const struct qy_quantizer *q, const struct slabs *s, const float *queries,
                         uint32_t group, uint32_t first, uint32_t n, float scale,
                         const float *scores, size_t stride)
{
    for (uint32_t h = 0; h < group; h++) {
        const float *x = queries + (size_t)h * q->d;
        const double most = q->bits == 4 ? bound4(q, x, (double)scale) : 0.0;
        for (uint32_t i = 0; i < n; i++) {
            double size = 0.0;
            double sum = 0.0;
            for (uint32_t j = 0; j < q->m; j++) {
                sum += table_at(q, q->decode, x, j, qy_code_at(q, &s->slab, first + i, j), &size);
            }
            const double error = fabs((double)scores[h * stride + i] - (double)scale * sum);
            assert_true(error <= most + 1e-6 * fabs((double)scale) * size + 1e-12);
        }
    }
}

/* Random codes of n tokens: what encoding random vectors gives. */
static void codes_fill(struct conf *c, const struct quantizer *z, struct slabs *s, uint32_t shift,
                       uint32_t n)
{
    float *k = conf_floats((size_t)n * z->q.d, 2.0F);

    slabs_open(s, &z->q, shift, n);
    encode(c, &z->q, k, z->q.d, s, 0, n);
    free(k);
}

static void score_one(struct conf *c, const struct quantizer *z, const struct slabs *s,
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
        for (uint32_t i = 0; i < N_SHAPES; i++) {
            for (uint32_t shift = 3 + i % 2; shift <= 12; shift += 2) {
                struct quantizer z;
                struct slabs s;
                quantizer_open(&z, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], 0);
                z.q.order = shift % 4 < 2 ? z.order : NULL;
                codes_fill(&c, &z, &s, shift, 333);
                for (uint32_t r = 0; r < 6; r++) {
                    score_one(&c, &z, &s, groups[(i + r + shift) % 6], ranges[r][0], ranges[r][1],
                              r % 2 ? 0.3F : -2.0F);
                }
                slabs_close(&s);
                quantizer_close(&z);
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
        for (uint32_t i = 0; i < N_SHAPES; i += 3) {
            struct quantizer z;
            struct slabs s;
            struct qy_code_score_item items[40];
            uint32_t n_items = 0;
            quantizer_open(&z, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], 0);
            codes_fill(&c[0], &z, &s, i % 2 ? 7 : 6, N);
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
            slabs_close(&s);
            quantizer_close(&z);
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
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const uint32_t d = shapes[i][0];
        struct quantizer z;
        struct slabs first = {0};
        float *k = conf_floats((size_t)N * d, 1.0F);
        float *queries = conf_floats((size_t)GROUP * d, 1.0F);
        quantizer_open(&z, d, shapes[i][1], shapes[i][2], shapes[i][3], 1);
        for (size_t e = 0; e < (size_t)N * d; e++) {
            k[e] = (float)conf_random(7) - 3.0F;
            queries[e % (GROUP * d)] = (float)conf_random(7) - 3.0F;
        }
        for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
            struct slabs s;
            struct conf c;
            float *out = scores[level != QY_CPU_PLAIN];
            conf_open(&c, level, 1);
            slabs_open(&s, &z.q, 7, N);
            encode(&c, &z.q, k, d, &s, 0, N);
            const struct qy_code_score_item item = {&z.q, queries, s.slab, 0, N, GROUP, out, N};
            assert_int_equal(qy_device_code_score(c.dev, &item, 1, 0.25F, &c.arena), QY_OK);
            if (level == QY_CPU_PLAIN) {
                first = s;
            } else {
                for (uint32_t b = 0; b < s.n_blocks; b++) {
                    assert_memory_equal(s.blocks[b], first.blocks[b], s.bytes);
                }
                assert_memory_equal(scores[0], scores[1], sizeof(scores[0]));
                slabs_close(&s);
            }
            conf_close(&c);
        }
        slabs_close(&first);
        quantizer_close(&z);
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
        for (uint32_t i = 0; i < N_SHAPES; i++) {
            enum { N = 50 };
            const uint32_t d = shapes[i][0];
            struct quantizer z;
            struct slabs s;
            float scores[2 * N];
            float *queries = conf_floats((size_t)2 * d, 1.0F);
            quantizer_open(&z, d, shapes[i][1], shapes[i][2], shapes[i][3], 0);
            codes_fill(&c, &z, &s, 4, N);
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
            slabs_close(&s);
            quantizer_close(&z);
        }
        conf_close(&c);
    }
}

static void score_small_arena_is_nomem(void **unused)
{
    struct conf c;
    struct quantizer z;
    struct slabs s;
    float queries[64] = {0};
    float score = 7.0F;
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    quantizer_open(&z, 64, 16, 4, 16, 0);
    codes_fill(&c, &z, &s, 3, 1);
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
    slabs_close(&s);
    quantizer_close(&z);
    conf_close(&c);
}

/* ---- check --------------------------------------------------------------------------------------- */

static void check_names_what_is_wrong(void **unused)
{
    static const float table[1] = {0.0F};
    static const uint16_t twice[4] = {0, 1, 1, 3};
    static const uint16_t past[4] = {0, 1, 2, 4};
    static const uint16_t good[4] = {3, 1, 0, 2};
    static const struct {
        struct qy_quantizer q;
        const char *name;
    } cases[] = {
        {{0, 1, 4, 16, NULL, table, table, table}, "'d'"},
        {{513, 1, 4, 16, NULL, table, table, table}, "'d'"},
        {{64, 0, 4, 16, NULL, table, table, table}, "'m'"},
        {{64, 7, 4, 16, NULL, table, table, table}, "'m'"},
        {{64, 16, 5, 16, NULL, table, table, table}, "'bits'"},
        {{64, 2, 16, 16, NULL, table, table, table}, "'bits'"},
        {{64, 16, 4, 15, NULL, table, table, table}, "'n_words'"},
        {{64, 16, 8, 257, NULL, table, table, table}, "'n_words'"},
        {{64, 1, 16, 65537, NULL, table, table, table}, "'n_words'"},
        {{64, 1, 16, 0, NULL, table, table, table}, "'n_words'"},
        {{4, 1, 4, 16, NULL, NULL, table, table}, "encode"},
        {{4, 1, 4, 16, twice, table, table, table}, "'order'"},
        {{4, 1, 4, 16, past, table, table, table}, "'order'"},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_error err = {QY_OK, ""};
        assert_int_equal(qy_quantizer_check(&cases[i].q, &err), QY_ERR_INVALID);
        assert_non_null(strstr(err.text, cases[i].name));
    }
    const struct qy_quantizer fine = {4, 2, 4, 16, good, table, table, table};
    assert_int_equal(qy_quantizer_check(&fine, NULL), QY_OK);
    assert_int_equal(qy_code_slab_bytes(&fine, 128), 128);
    assert_int_equal(qy_code_slab_bytes(&fine, 8), 32); /* padded to a group of 32 */
    const struct qy_quantizer words = {4, 1, 16, 9, NULL, table, table, table};
    assert_int_equal(qy_code_slab_bytes(&words, 8), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_every_shape_finds_the_best_word),
        cmocka_unit_test(encode_pieces_give_the_same_bytes),
        cmocka_unit_test(encode_odd_numbers_give_valid_codes),
        cmocka_unit_test(score_every_shape_keeps_its_bound),
        cmocka_unit_test(score_bits_depend_on_the_token_alone),
        cmocka_unit_test(small_integers_agree_on_every_set),
        cmocka_unit_test(score_odd_queries_give_no_number),
        cmocka_unit_test(score_small_arena_is_nomem),
        cmocka_unit_test(check_names_what_is_wrong),
    };
    return cmocka_run_group_tests_name("conf.gpu.codes", tests, NULL, NULL);
}
