/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of coded rows: every set gives the plain set's bytes; an element is off by half a step
 * and its rounding to f16 at most; and attention and scores of coded rows have the bits of those of
 * the decoded ones.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

enum { N = 40, GROUP_HEADS = 3 };

static const struct qy_row_codec codecs[] = {
    {8, 8, 32, 64},  {4, 4, 32, 64},  {8, 4, 64, 128}, {4, 8, 32, 96},
    {16, 4, 32, 32}, {8, 16, 64, 64}, {4, 4, 64, 192}, {16, 16, 32, 64},
};
enum { N_CODECS = sizeof(codecs) / sizeof(codecs[0]) };

/* Row t of one of several kinds: what lies in real rows, and what is hard to code. */
static void draw_row(uint16_t *row, uint32_t n, uint32_t t)
{
    for (uint32_t i = 0; i < n; i++) {
        float x = conf_uniform(3.0F);
        switch (t % 8) {
        case 1:
            x += 100.0F; /* a narrow range far from 0 */
            break;
        case 2:
            x *= 1e-7F; /* steps below the least normal half */
            break;
        case 3:
            x = conf_uniform(65504.0F);
            break;
        case 4:
            x = conf_random(2) ? 65504.0F : -65504.0F;
            break;
        case 5:
            x = conf_random(2) ? 0.0F : -0.0F;
            break;
        case 6:
            x = i % 16 == 3 ? 300.0F : x * 0.01F; /* one large element */
            break;
        default:
            break;
        }
        row[i] = qy_f16_from_f32(x);
    }
}

struct bed {
    struct conf c;
    struct qy_row_codec codec;
    size_t row_bytes, coded_bytes;
    uint16_t *rows, *back; /* [N][2 * d] */
    uint8_t *coded;        /* [N]        */
};

static void bed_open(struct bed *b, enum qy_cpu_level level, const struct qy_row_codec *codec)
{
    conf_open(&b->c, level, 2);
    b->codec = *codec;
    b->row_bytes = qy_row_bytes(QY_ROW_F16, codec->d);
    b->coded_bytes = qy_row_codec_bytes(codec);
    b->rows = malloc(N * b->row_bytes);
    b->back = malloc(N * b->row_bytes);
    b->coded = malloc(N * b->coded_bytes);
    assert_true(b->rows && b->back && b->coded);
    conf_seed(5);
    for (uint32_t t = 0; t < N; t++) {
        draw_row(b->rows + (size_t)t * 2 * codec->d, 2 * codec->d, t);
    }
    qy_rows_encode(&b->c.rt, codec, b->rows, N, b->coded);
    qy_rows_decode(&b->c.rt, codec, b->coded, N, b->back);
}

static void bed_close(struct bed *b)
{
    free(b->rows);
    free(b->back);
    free(b->coded);
    conf_close(&b->c);
}

static void bytes_are_the_same_on_every_set(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < N_CODECS; i++) {
        struct bed plain;
        assert_true(qy_row_codec_valid(&codecs[i]));
        bed_open(&plain, QY_CPU_PLAIN, &codecs[i]);
        for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
            struct bed b;
            bed_open(&b, level, &codecs[i]);
            assert_memory_equal(b.coded, plain.coded, N * b.coded_bytes);
            assert_memory_equal(b.back, plain.back, N * b.row_bytes);
            bed_close(&b);
        }
        bed_close(&plain);
    }
}

static double spacing(double x) /* between halves near x */
{
    return fabs(x) < 0x1p-14 ? 0x1p-24 : ldexp(1.0, (int)floor(log2(fabs(x))) - 10);
}

/* Group g of the n-th part of a row (0: K, 1: V). */
static void check_group(const uint16_t *row, const uint16_t *back, uint32_t n, uint32_t bits)
{
    double least = INFINITY;
    double most = -INFINITY;

    for (uint32_t i = 0; i < n; i++) {
        const double x = (double)qy_f32_from_f16(row[i]);
        least = fmin(least, x);
        most = fmax(most, x);
    }
    const double even = (most - least) / (bits == 8 ? 255 : 15);
    const double step = even + spacing(even); /* it is a half, and rounded up */
    for (uint32_t i = 0; i < n; i++) {
        const double x = (double)qy_f32_from_f16(row[i]);
        const double y = (double)qy_f32_from_f16(back[i]);
        const double rounding = spacing(fmax(fabs(x), fabs(y))) / 2;
        if (bits == 16 || most == least) {
            assert_true(x == y);
        } else if (!(fabs(x - y) <= step / 2 * (1 + 1e-5) + rounding)) {
            fail_msg("%g became %g; step %g of %g .. %g in %u bits", x, y, step, least, most, bits);
        }
        assert_true(y >= least && isfinite(y));
    }
}

static void elements_are_within_half_a_step(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < N_CODECS; i++) {
        struct bed b;
        bed_open(&b, QY_CPU_PLAIN, &codecs[i]); /* the other sets give its bytes */
        for (uint32_t t = 0; t < N; t++) {
            for (uint32_t at = 0; at < 2 * b.codec.d; at += b.codec.group) {
                const size_t place = (size_t)t * 2 * b.codec.d + at;
                check_group(b.rows + place, b.back + place, b.codec.group,
                            at < b.codec.d ? b.codec.k_bits : b.codec.v_bits);
            }
        }
        bed_close(&b);
    }
}

/* A block that is cut comes back, and goes home again when it is full: its rows stay where they are,
 * but for what rounding the largest of a group to f16 does to its step. */
static void rows_coded_again_hardly_move(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < N_CODECS; i++) {
        struct bed b;
        bed_open(&b, QY_CPU_PLAIN, &codecs[i]);
        uint16_t *again = malloc(N * b.row_bytes);
        assert_non_null(again);
        qy_rows_encode(&b.c.rt, &b.codec, b.back, N, b.coded);
        qy_rows_decode(&b.c.rt, &b.codec, b.coded, N, again);
        for (size_t e = 0; e < N * b.row_bytes / 2; e++) {
            const double x = (double)qy_f32_from_f16(b.back[e]);
            const double y = (double)qy_f32_from_f16(again[e]);
            const size_t group = e / b.codec.group * b.codec.group;
            double reach = 0.0;
            double least = INFINITY;
            double most = -INFINITY;
            for (size_t g = group; g < group + b.codec.group; g++) {
                const double z = (double)qy_f32_from_f16(b.back[g]);
                reach = fmax(reach, fabs(z));
                least = fmin(least, z);
                most = fmax(most, z);
            }
            /* halves of the ends, and a step that is half a spacing per level longer */
            assert_true(fabs(x - y) <= 2 * spacing(reach) + (most - least) / 1024);
        }
        free(again);
        bed_close(&b);
    }
}

/* Sixteen even levels that halves can tell apart: 4 bits lose nothing, and 8 do not either. */
static void even_levels_are_exact(void **unused)
{
    static const struct qy_row_codec both[] = {{4, 4, 32, 64}, {4, 4, 64, 64}};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (size_t i = 0; i < 2; i++) {
            struct bed b;
            bed_open(&b, level, &both[i]);
            for (size_t e = 0; e < (size_t)N * 128; e++) {
                const uint32_t code = e % 32 < 2 ? (uint32_t)(e % 32) * 15 : conf_random(16);
                b.rows[e] = qy_f16_from_f32((float)code * 0.25F - 2.0F);
            }
            qy_rows_encode(&b.c.rt, &b.codec, b.rows, N, b.coded);
            qy_rows_decode(&b.c.rt, &b.codec, b.coded, N, b.back);
            assert_memory_equal(b.rows, b.back, N * b.row_bytes);
            bed_close(&b);
        }
    }
}

/* Rows below `n_coded` in coded blocks, the others in plain ones; and all of them decoded. */
struct mixed {
    struct conf_rows rows; /* plain: all, decoded where they are coded elsewhere */
    struct qy_rows coded;
    uint8_t *blocks[16];
};

static void mixed_open(struct mixed *m, const struct conf *c, const struct qy_row_codec *codec,
                       uint32_t n, uint32_t n_coded)
{
    enum { SHIFT = 6, OFFSET = 12 };
    const size_t bytes = qy_row_codec_bytes(codec);

    conf_rows_open(&m->rows, QY_ROW_F16, codec->d, SHIFT, n, 2.0F);
    assert_true(m->rows.n_blocks <= 16 && n_coded % (1U << SHIFT) == 0);
    m->coded = m->rows.rows;
    m->coded.blocks = m->blocks;
    m->coded.codec = codec;
    m->coded.coded_offset = OFFSET;
    m->coded.n_coded = n_coded;
    for (uint32_t b = 0; b < m->rows.n_blocks; b++) {
        m->blocks[b] = m->rows.blocks[b];
        if (b < n_coded >> SHIFT) {
            m->blocks[b] = malloc(OFFSET + (bytes << SHIFT));
            assert_non_null(m->blocks[b]);
        }
    }
    for (uint32_t t = 0; t < n_coded; t++) {
        uint8_t *at = m->blocks[t >> SHIFT] + OFFSET + (t & 63) * bytes;
        qy_rows_encode(&c->rt, codec, qy_row_at(&m->rows.rows, t), 1, at);
        qy_rows_decode(&c->rt, codec, at, 1, qy_row_at(&m->rows.rows, t));
    }
}

static void mixed_close(struct mixed *m)
{
    for (uint32_t b = 0; b < m->rows.n_blocks; b++) {
        if (m->blocks[b] != m->rows.blocks[b]) {
            free(m->blocks[b]);
        }
    }
    conf_rows_close(&m->rows);
}

static void compare_mixed(struct conf *c, const struct mixed *m, const uint32_t *ids,
                          uint32_t first, uint32_t n)
{
    const uint32_t d = m->rows.rows.d;
    const size_t heads_d = (size_t)GROUP_HEADS * d;
    float *q = conf_floats(heads_d, 2.0F);
    float *out = conf_floats(2 * heads_d, 1.0F);
    float *scores = conf_floats((size_t)2 * GROUP_HEADS * n, 1.0F);
    struct qy_attend_item attend[2];
    struct qy_score_item score[2];

    for (int i = 0; i < 2; i++) {
        const struct qy_rows rows = i == 0 ? m->rows.rows : m->coded;

        attend[i] = (struct qy_attend_item){.q = q,
                                            .rows = rows,
                                            .ids = ids,
                                            .first = first,
                                            .n = n,
                                            .group = GROUP_HEADS,
                                            .out = out + (size_t)i * heads_d};
        score[i] = (struct qy_score_item){.q = q,
                                          .rows = rows,
                                          .ids = ids,
                                          .first = first,
                                          .n = n,
                                          .group = GROUP_HEADS,
                                          .scores = scores + (size_t)i * GROUP_HEADS * n};
    }
    conf_arena(c, qy_device_attend_scratch(c->dev, 2, n, GROUP_HEADS, d) +
                      qy_device_attend_coded_scratch(c->dev, d));
    assert_int_equal(qy_device_attend(c->dev, attend, 2, 0.125F, &c->arena), QY_OK);
    assert_memory_equal(out, out + heads_d, heads_d * sizeof(*out));
    assert_int_equal(qy_device_score(c->dev, score, 2, 0.125F), QY_OK);
    assert_memory_equal(scores, scores + (size_t)GROUP_HEADS * n,
                        (size_t)GROUP_HEADS * n * sizeof(*scores));
    free(q);
    free(out);
    free(scores);
}

static void attend_and_score_give_the_bits_of_decoded_rows(void **unused)
{
    enum { ROWS = 900, CODED = 640 };
    uint32_t ids[ROWS];
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (size_t i = 0; i < N_CODECS; i++) {
            struct mixed m;
            struct conf c;
            conf_open(&c, level, 2);
            mixed_open(&m, &c, &codecs[i], ROWS, CODED);
            for (uint32_t t = 0; t < ROWS; t++) {
                ids[t] = t * 7 % ROWS;
            }
            compare_mixed(&c, &m, ids, 0, 600);
            compare_mixed(&c, &m, NULL, 3, 500);
            compare_mixed(&c, &m, NULL, 500, 400);
            compare_mixed(&c, &m, NULL, CODED, 200); /* none is coded */
            mixed_close(&m);
            conf_close(&c);
        }
    }
}

static void wrong_codecs_and_kernels_are_refused(void **unused)
{
    static const struct qy_row_codec wrong[] = {
        {2, 8, 32, 64}, {8, 0, 32, 64},    {8, 8, 16, 64}, {8, 8, 64, 96},
        {8, 8, 32, 0},  {8, 8, 32, 16384}, {8, 8, 0, 64},
    };
    struct qy_chunk_item chunk = {.n_q = 1, .group = 1};
    struct mixed m;
    struct conf c;
    (void)unused;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(qy_row_codec_valid(&wrong[i]));
    }
    conf_open(&c, QY_CPU_PLAIN, 1);
    mixed_open(&m, &c, &codecs[0], 100, 64);
    float *k = conf_floats(64, 1.0F);
    struct qy_append_item append = {
        .k = k, .v = k, .stride = 64, .rows = m.coded, .first = 63, .n = 1};
    assert_int_equal(qy_device_append(c.dev, &append, 1), QY_ERR_INVALID);
    append.first = 64; /* behind the coded ones */
    assert_int_equal(qy_device_append(c.dev, &append, 1), QY_OK);
    chunk.rows = m.coded;
    assert_int_equal(qy_device_attend_chunk(c.dev, &chunk, 1, 1.0F, &c.arena), QY_ERR_INVALID);
    m.coded.codec = &codecs[2]; /* of another d */
    const struct qy_score_item score = {.rows = m.coded, .n = 1, .group = 1};
    assert_int_equal(qy_device_score(c.dev, &score, 1, 1.0F), QY_ERR_INVALID);
    free(k);
    mixed_close(&m);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_same_on_every_set),
        cmocka_unit_test(elements_are_within_half_a_step),
        cmocka_unit_test(rows_coded_again_hardly_move),
        cmocka_unit_test(even_levels_are_exact),
        cmocka_unit_test(attend_and_score_give_the_bits_of_decoded_rows),
        cmocka_unit_test(wrong_codecs_and_kernels_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
