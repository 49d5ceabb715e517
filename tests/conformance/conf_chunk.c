/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of the causal attention of chunks: every kernel set against f64, token by token, and
 * rows that come in parts against a single call, bit by bit.
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
    const struct qy_chunk_item item = {.q = q,
                                       .q_stride = stride,
                                       .rows = r.rows,
                                       .first = s->first,
                                       .n_q = s->n_q,
                                       .group = s->group,
                                       .out = out,
                                       .out_stride = stride};
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
    const struct qy_chunk_item item = {.q = q,
                                       .q_stride = 64,
                                       .rows = r.rows,
                                       .first = 9,
                                       .n_q = 1,
                                       .group = 1,
                                       .out = out,
                                       .out_stride = 64};
    conf_arena(&c, qy_device_attend_chunk_scratch(c.dev, 1, 10, 1, 1, 64) / 2);
    assert_int_equal(qy_device_attend_chunk(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
    assert_true(out[0] == 7.0F);
    assert_int_equal(c.arena.used, 0);
    conf_rows_close(&r);
    conf_close(&c);
}

enum { PARTS_ITEMS = 3, PARTS_STEP = 64 };

/* Items of one head size, their rows, and what a single call made of them. */
struct parts {
    struct conf *c;
    enum qy_row_type type;
    uint32_t d, shift;
    struct conf_rows rows[PARTS_ITEMS];
    struct qy_chunk_item whole[PARTS_ITEMS];
    float *q[PARTS_ITEMS], *single[PARTS_ITEMS], *out[PARTS_ITEMS], *state[PARTS_ITEMS];
};

static size_t out_bytes(const struct qy_chunk_item *item)
{
    return item->n_q * item->out_stride * sizeof(float);
}

static void parts_open(struct parts *p, struct conf *c, enum qy_row_type type, uint32_t d,
                       uint32_t shift)
{
    static const uint32_t firsts[PARTS_ITEMS] = {0, 150, 512};
    static const uint32_t lengths[PARTS_ITEMS] = {200, 70, 1};
    static const uint32_t groups[PARTS_ITEMS] = {3, 1, 5};

    *p = (struct parts){.c = c, .type = type, .d = d, .shift = shift};
    for (uint32_t i = 0; i < PARTS_ITEMS; i++) {
        const size_t stride = (size_t)groups[i] * d + i;
        const uint32_t n = firsts[i] + lengths[i];
        conf_rows_open(&p->rows[i], type, d, shift, n, 2.0F);
        p->q[i] = conf_floats(lengths[i] * stride, 2.0F);
        p->single[i] = conf_floats(lengths[i] * stride, 1.0F);
        p->out[i] = conf_floats(lengths[i] * stride, 1.0F);
        p->state[i] = conf_floats((size_t)lengths[i] * groups[i] * 2, 1.0F);
        p->whole[i] = (struct qy_chunk_item){.q = p->q[i],
                                             .q_stride = stride,
                                             .rows = p->rows[i].rows,
                                             .first = firsts[i],
                                             .n_q = lengths[i],
                                             .group = groups[i],
                                             .out = p->single[i],
                                             .out_stride = stride};
        memset(p->single[i], 0xff, out_bytes(&p->whole[i]));
    }
    assert_int_equal(qy_device_attend_chunk(c->dev, p->whole, PARTS_ITEMS, 0.1F, &c->arena), QY_OK);
}

static void parts_close(struct parts *p)
{
    for (uint32_t i = 0; i < PARTS_ITEMS; i++) {
        conf_rows_close(&p->rows[i]);
        free(p->q[i]);
        free(p->single[i]);
        free(p->out[i]);
        free(p->state[i]);
    }
}

/* A table that has rows begin .. end - 1 of r and nothing else: no other block, and NaN in the rest
 * of its blocks. */
static uint8_t **table_of_part(const struct conf_rows *r, uint32_t begin, uint32_t end)
{
    const size_t row_bytes = qy_row_bytes(r->rows.type, r->rows.d);
    const size_t block_bytes = r->rows.offset + (row_bytes << r->rows.shift);
    uint8_t **blocks = calloc(r->n_blocks + 1, sizeof(*blocks));

    assert_non_null(blocks);
    for (uint32_t t = begin; t < end; t++) {
        uint8_t **block = &blocks[t >> r->rows.shift];
        if (*block == NULL) {
            *block = malloc(block_bytes);
            assert_non_null(*block);
            memset(*block, 0xff, block_bytes);
        }
        struct qy_rows to = r->rows;
        to.blocks = blocks;
        memcpy(qy_row_at(&to, t), qy_row_at(&r->rows, t), row_bytes);
    }
    return blocks;
}

static void table_free(uint8_t **blocks, uint32_t n_blocks)
{
    for (uint32_t b = 0; b < n_blocks; b++) {
        free(blocks[b]);
    }
    free(blocks);
}

/* One call: of each item that is not done yet the next rows, up to `most` steps of keys of them. */
static uint32_t parts_call(struct parts *p, uint32_t done[PARTS_ITEMS], uint32_t most)
{
    struct qy_chunk_item items[PARTS_ITEMS];
    uint32_t which[PARTS_ITEMS];
    uint32_t n = 0;

    for (uint32_t i = 0; i < PARTS_ITEMS; i++) {
        const uint32_t end = done[i] + PARTS_STEP * (1 + conf_random(most));
        if (done[i] == p->rows[i].n) {
            continue;
        }
        items[n] = p->whole[i];
        items[n].out = p->out[i];
        items[n].state = p->state[i];
        items[n].key_begin = done[i];
        items[n].key_end = end < p->rows[i].n ? end : conf_random(2) * p->rows[i].n;
        done[i] = end < p->rows[i].n ? end : p->rows[i].n;
        items[n].rows.blocks = table_of_part(&p->rows[i], items[n].key_begin, done[i]);
        which[n++] = i;
    }
    if (n > 0) {
        assert_int_equal(qy_device_attend_chunk(p->c->dev, items, n, 0.1F, &p->c->arena), QY_OK);
    }
    for (uint32_t j = 0; j < n; j++) {
        table_free((uint8_t **)(uintptr_t)items[j].rows.blocks, p->rows[which[j]].n_blocks);
    }
    return n;
}

static void parts_equal_single(struct parts *p, uint32_t most)
{
    uint32_t done[PARTS_ITEMS] = {0};

    for (uint32_t i = 0; i < PARTS_ITEMS; i++) { /* what was there before does not matter */
        memset(p->out[i], 0xff, out_bytes(&p->whole[i]));
        memset(p->state[i], 0xff, (size_t)p->whole[i].n_q * p->whole[i].group * 2 * sizeof(float));
    }
    while (parts_call(p, done, most) > 0) {
    }
    for (uint32_t i = 0; i < PARTS_ITEMS; i++) {
        assert_memory_equal(p->out[i], p->single[i], out_bytes(&p->whole[i]));
    }
}

static void chunk_parts_equal_single_call_in_bits(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 128, 6};
    (void)unused;
    conf_seed(5);
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct conf c;
            conf_open(&c, level, threads);
            for (uint32_t i = 0; i < 4; i++) {
                struct parts p;
                parts_open(&p, &c, i % 2 ? QY_ROW_F32 : QY_ROW_F16, sizes_d[i], i < 2 ? 7 : 4);
                for (uint32_t round = 0; round < 6; round++) {
                    parts_equal_single(&p, 1 + round * 2);
                }
                parts_close(&p);
            }
            conf_close(&c);
        }
    }
}

static void chunk_part_that_cannot_be_is_refused(void **unused)
{
    enum { FIRST = 100, N_Q = 60, ALL = FIRST + N_Q };
    static const struct {
        uint32_t begin, end;
        int state, ok;
    } rows[] = {
        {0, 0, 0, 1},         {0, ALL, 0, 1},         {0, 64, 1, 1},         {64, 128, 1, 1},
        {128, ALL, 1, 1},     {128, 0, 1, 1},         {0, 0, 1, 1},          {0, 64, 0, 0},
        {64, 0, 0, 0},        {64, 128, 0, 0},        {0, 65, 1, 0},         {32, 64, 1, 0},
        {64, 64, 1, 0},       {128, 64, 1, 0},        {192, 0, 1, 0},        {0, ALL + 1, 1, 0},
        {128, ALL - 1, 1, 0}, {64, UINT32_MAX, 1, 0}, {UINT32_MAX, 0, 1, 0},
    };
    struct conf c;
    struct conf_rows r;
    float *q = conf_floats((size_t)N_Q * 64, 1.0F);
    float *out = conf_floats((size_t)N_Q * 64, 1.0F);
    float *state = conf_floats((size_t)N_Q * 2, 1.0F);
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    conf_rows_open(&r, QY_ROW_F16, 64, 4, ALL, 1.0F);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct qy_chunk_item item = {.q = q,
                                     .q_stride = 64,
                                     .rows = r.rows,
                                     .first = FIRST,
                                     .n_q = N_Q,
                                     .group = 1,
                                     .out = out,
                                     .out_stride = 64,
                                     .key_begin = rows[i].begin,
                                     .key_end = rows[i].end,
                                     .state = rows[i].state ? state : NULL};
        out[0] = 7.0F;
        assert_int_equal(qy_device_attend_chunk(c.dev, &item, 1, 1.0F, &c.arena),
                         rows[i].ok ? QY_OK : QY_ERR_INVALID);
        assert_true(rows[i].ok || out[0] == 7.0F);
        item.first = UINT32_MAX;
        assert_int_equal(qy_device_attend_chunk(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_INVALID);
        item.n_q = 0;
        assert_int_equal(qy_device_attend_chunk(c.dev, &item, 1, 1.0F, &c.arena), QY_OK);
    }
    conf_rows_close(&r);
    conf_close(&c);
    free(q);
    free(out);
    free(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunk_every_shape_matches_reference),
        cmocka_unit_test(chunk_every_length_matches_reference),
        cmocka_unit_test(chunk_huge_scores_do_not_overflow),
        cmocka_unit_test(chunk_bits_do_not_depend_on_chunks_or_threads),
        cmocka_unit_test(chunk_parts_equal_single_call_in_bits),
        cmocka_unit_test(chunk_part_that_cannot_be_is_refused),
        cmocka_unit_test(chunk_full_arena_writes_nothing),
    };
    return cmocka_run_group_tests_name("conf.gpu.chunk", tests, NULL, NULL);
}
