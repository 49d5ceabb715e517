/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantizers and their codes, on every kernel set. A code's own score may lie below the best one's
 * by the rounding of a sum of d products.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"

enum { STRIDE_MORE = 24 };

/* Every code is the best word of its vector. exact: and the lowest of those. */
static void codes_check(const struct qy_quantizer *q, const float *k, size_t stride,
                        const struct conf_codes *s, uint32_t first, uint32_t n, int exact)
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
                const double score = conf_table_at(q, q->encode, k + t * stride, j, w, &size) -
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

static void encode_every_shape_finds_the_best_word(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            for (int kind = 0; kind < 2; kind++) {
                const uint32_t d = conf_shapes[i][0];
                const uint32_t shift = 3 + (i + (uint32_t)kind * 5) % 7;
                const uint32_t first = 3 + 50 * (i % 3);
                const uint32_t n = conf_shapes[i][3] > 256 ? 45 : 130;
                struct conf_quantizer z;
                struct conf_codes s;
                float *k = conf_floats((size_t)n * (d + STRIDE_MORE), 2.0F);
                conf_quantizer_open(&z, d, conf_shapes[i][1], conf_shapes[i][2], conf_shapes[i][3],
                                    kind);
                for (size_t e = 0; kind == 1 && e < (size_t)n * (d + STRIDE_MORE); e++) {
                    k[e] = (float)conf_random(5) - 2.0F;
                }
                z.q.order = i % 2 == 0 ? z.order : NULL;
                conf_codes_open(&s, &z.q, shift, first + n);
                conf_encode(&c, &z.q, k, d + STRIDE_MORE, &s, first, n);
                codes_check(&z.q, k, d + STRIDE_MORE, &s, first, n, kind == 1);
                conf_codes_close(&s);
                conf_quantizer_close(&z);
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
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            for (uint32_t shift = 3; shift <= 12; shift += 1 + (i % 2) * 3) {
                static const uint32_t pieces[3] = {1, 45, 1000};
                const uint32_t d = conf_shapes[i][0];
                const uint32_t first = 21;
                const uint32_t n = conf_shapes[i][3] > 256 ? 50 : 200;
                struct conf_quantizer z;
                struct conf_codes s[3];
                float *k = conf_floats((size_t)n * d, 2.0F);
                conf_quantizer_open(&z, d, conf_shapes[i][1], conf_shapes[i][2], conf_shapes[i][3],
                                    0);
                for (uint32_t v = 0; v < 3; v++) {
                    conf_codes_open(&s[v], &z.q, shift, first + n);
                    for (uint32_t at = 0; at < n; at += pieces[v]) {
                        const uint32_t some = n - at < pieces[v] ? n - at : pieces[v];
                        conf_encode(&c[v % 2], &z.q, k + (size_t)at * d, d, &s[v], first + at,
                                    some);
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
                    conf_codes_close(&s[v]);
                }
                conf_quantizer_close(&z);
                free(k);
            }
        }
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

/* Single tokens of many sequences in one call: as each alone. */
static void encode_many_items_give_the_same_codes(void **unused)
{
    enum { ITEMS = 45 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 3);
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            const uint32_t d = conf_shapes[i][0];
            struct conf_quantizer z[2];
            struct conf_codes s[2][ITEMS];
            struct qy_encode_item items[ITEMS];
            float *k = conf_floats((size_t)ITEMS * 3 * d, 2.0F);
            for (int q = 0; q < 2; q++) {
                conf_quantizer_open(&z[q], d, conf_shapes[i][1], conf_shapes[i][2],
                                    conf_shapes[i][3], 0);
            }
            for (uint32_t t = 0; t < ITEMS; t++) {
                const struct qy_quantizer *q = &z[t % 7 == 2].q;
                const uint32_t n = t % 11 == 5 ? 3 : t % 13 == 4 ? 0 : 1;
                const float *own = k + (size_t)t * 3 * d;
                for (int v = 0; v < 2; v++) {
                    conf_codes_open(&s[v][t], q, 5, 40);
                }
                conf_encode(&c, q, own, d, &s[0][t], 30 + t % 8, n);
                items[t] = (struct qy_encode_item){q, own, d, s[1][t].slab, 30 + t % 8, n};
            }
            assert_int_equal(qy_device_encode(c.dev, items, ITEMS), QY_OK);
            for (uint32_t t = 0; t < ITEMS; t++) {
                for (uint32_t b = 0; b < s[0][t].n_blocks; b++) {
                    assert_memory_equal(s[0][t].blocks[b], s[1][t].blocks[b], s[0][t].bytes);
                }
                conf_codes_close(&s[0][t]);
                conf_codes_close(&s[1][t]);
            }
            conf_quantizer_close(&z[0]);
            conf_quantizer_close(&z[1]);
            free(k);
        }
        conf_close(&c);
    }
}

static void encode_odd_numbers_give_valid_codes(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 1);
        for (uint32_t i = 0; i < CONF_SHAPES; i++) {
            enum { N = 40 };
            const uint32_t d = conf_shapes[i][0];
            const uint32_t dj = d / conf_shapes[i][1];
            struct conf_quantizer z;
            struct conf_codes s;
            float *k = conf_floats((size_t)N * d, 2.0F);
            conf_quantizer_open(&z, d, conf_shapes[i][1], conf_shapes[i][2], conf_shapes[i][3], 0);
            z.q.order = NULL;
            for (uint32_t e = 0; e < d; e++) {
                k[7 * d + e] = NAN;
                k[8 * d + e] = INFINITY;
                k[9 * d + e] = -INFINITY;
                k[30 * d + e] = e < dj ? NAN : 1.0F; /* the first sub-vector alone */
            }
            conf_codes_open(&s, &z.q, 5, N);
            conf_encode(&c, &z.q, k, d, &s, 0, N);
            for (int round = 0; round < 2; round++) { /* in bulk, then alone */
                for (uint32_t j = 0; j < z.q.m; j++) {
                    assert_int_equal(qy_code_at(&z.q, &s.slab, 7, j), 0);
                    assert_true(qy_code_at(&z.q, &s.slab, 8, j) < z.q.n_words);
                    assert_true(qy_code_at(&z.q, &s.slab, 9, j) < z.q.n_words);
                }
                assert_int_equal(qy_code_at(&z.q, &s.slab, 30, 0), 0);
                for (uint32_t t = 0; t < N; t++) {
                    conf_encode(&c, &z.q, k + (size_t)t * d, d, &s, t, 1);
                }
            }
            conf_encode(&c, &z.q, k, d, &s, 0, 0); /* none: nothing is touched */
            conf_codes_close(&s);
            conf_quantizer_close(&z);
            free(k);
        }
        conf_close(&c);
    }
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
        cmocka_unit_test(encode_many_items_give_the_same_codes),
        cmocka_unit_test(encode_odd_numbers_give_valid_codes),
        cmocka_unit_test(check_names_what_is_wrong),
    };
    return cmocka_run_group_tests_name("conf.gpu.codes", tests, NULL, NULL);
}
