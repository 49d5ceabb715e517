/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of the attention of chunks to rows that are all earlier, of what log-sum-exps say of it, and
 * of chunks that leave rows out: every kernel set against f64.
 * Tolerance: NMSE 1e-10, and 2e-5 of a log-sum-exp (which is below 30 here), as for decode attention.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

static const double max_nmse = 1e-10;
static const double max_lse = 2e-5;

enum { MOST_ROWS = 400, MOST_Q = 70, STEP = 64 };

/* An item whose queries are random, and the rows that query i attends to: ids [n(i)]. */
struct bed {
    struct conf c;
    struct conf_rows rows;
    struct qy_chunk_item item;
    float *q, *out, *lse, *state;
};

static size_t floats_of(const struct qy_chunk_item *item)
{
    return (size_t)item->n_q * item->out_stride;
}

static void bed_open(struct bed *b, enum qy_cpu_level level, enum qy_row_type type, uint32_t d,
                     uint32_t group, uint32_t n_rows, uint32_t n_q)
{
    const size_t stride = (size_t)group * d + 3;

    conf_open(&b->c, level, 2);
    conf_rows_open(&b->rows, type, d, 4, n_rows, 2.0F);
    b->q = conf_floats(n_q * stride, 2.0F);
    b->out = conf_floats(n_q * stride, 1.0F);
    b->lse = conf_floats((size_t)n_q * (group + 2), 1.0F);
    b->state = conf_floats((size_t)n_q * group * 2, 1.0F);
    b->item = (struct qy_chunk_item){.q = b->q,
                                     .q_stride = stride,
                                     .rows = b->rows.rows,
                                     .first = n_rows,
                                     .n_q = n_q,
                                     .group = group,
                                     .out = b->out,
                                     .out_stride = stride,
                                     .earlier = 1,
                                     .lse = b->lse,
                                     .lse_stride = group + 2};
    conf_arena(&b->c, qy_device_attend_chunk_scratch(b->c.dev, 1, n_rows, n_q, group, d));
}

static void bed_close(struct bed *b)
{
    conf_rows_close(&b->rows);
    free(b->state);
    free(b->lse);
    free(b->out);
    free(b->q);
    conf_close(&b->c);
}

static void attend(struct bed *b, const struct qy_chunk_item *item)
{
    const float scale = 1.0F / sqrtf((float)item->rows.d);

    assert_int_equal(qy_device_attend_chunk(b->c.dev, item, 1, scale, &b->c.arena), QY_OK);
}

/* Query i against attention to ids [n]. */
static void expect_query(const struct bed *b, uint32_t i, const uint32_t *ids, uint32_t n)
{
    const struct qy_chunk_item *item = &b->item;
    const double scale = (double)(1.0F / sqrtf((float)item->rows.d));
    double expected[256];

    assert_true(item->rows.d <= 256);
    for (uint32_t h = 0; h < item->group; h++) {
        const size_t at = i * item->out_stride + (size_t)h * item->rows.d;
        double lse = 0.0;

        conf_attend(&b->rows, ids, 0, n, b->q + at, scale, expected, &lse);
        assert_true(conf_nmse(b->out + at, expected, item->rows.d) <= max_nmse);
        assert_true(fabs((double)b->lse[i * item->lse_stride + h] - lse) <= max_lse);
    }
}

static void earlier_rows_are_attended_to_by_all_queries(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 6};
    static const uint32_t lengths[] = {1, 63, 64, 65, 200};
    static const uint32_t queries[] = {1, 7, MOST_Q};
    (void)unused;

    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t k = 0; k < 45; k++) {
            const uint32_t n = lengths[k % 5];
            struct bed b;

            bed_open(&b, level, k % 2 ? QY_ROW_F32 : QY_ROW_F16, sizes_d[k % 3], 1 + k % 4, n,
                     queries[k / 15]);
            attend(&b, &b.item);
            for (uint32_t i = 0; i < b.item.n_q; i += 1 + b.item.n_q / 5) {
                expect_query(&b, i, NULL, n);
            }
            bed_close(&b);
        }
    }
}

static void earlier_rows_in_parts_have_the_bits_of_a_single_call(void **unused)
{
    enum { ROWS = 300 };
    (void)unused;

    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct bed b;

        bed_open(&b, level, QY_ROW_F16, 80, 3, ROWS, 33);
        attend(&b, &b.item);
        const size_t bytes = floats_of(&b.item) * sizeof(float);
        const size_t lse_bytes = b.item.n_q * b.item.lse_stride * sizeof(float);
        float *out = malloc(bytes);
        float *lse = malloc(lse_bytes);
        assert_true(out && lse);
        memcpy(out, b.out, bytes);
        memcpy(lse, b.lse, lse_bytes);
        for (uint32_t part = STEP; part <= 2 * STEP; part += STEP) {
            struct qy_chunk_item item = b.item;

            item.state = b.state;
            for (uint32_t at = 0; at < ROWS; at += part) {
                item.key_begin = at;
                item.key_end = ROWS - at < part ? ROWS : at + part;
                attend(&b, &item);
            }
            assert_memory_equal(b.out, out, bytes);
            assert_memory_equal(b.lse, lse, lse_bytes);
        }
        free(lse);
        free(out);
        bed_close(&b);
    }
}

/* Rows 0 .. 127 and 192 .. 255 are left out. */
static void chunks_may_leave_rows_out(void **unused)
{
    enum { FIRST = 300 };
    (void)unused;

    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        uint32_t ids[MOST_ROWS];
        struct bed b;

        bed_open(&b, level, QY_ROW_F16, 64, 3, FIRST + MOST_Q, MOST_Q);
        b.item.earlier = 0;
        b.item.first = FIRST;
        struct qy_chunk_item item = b.item;
        item.state = b.state;
        item.key_begin = 128;
        item.key_end = 192;
        item.starts = 1;
        attend(&b, &item);
        item.key_begin = 256;
        item.key_end = 0;
        item.starts = 0;
        attend(&b, &item);
        for (uint32_t i = 0; i < MOST_Q; i += 9) {
            uint32_t n = 0;

            for (uint32_t t = 128; t <= FIRST + i; t++) {
                if (t < 192 || t >= 256) {
                    ids[n++] = t;
                }
            }
            expect_query(&b, i, ids, n);
        }
        item.key_begin = 256; /* all in one call */
        item.starts = 1;
        item.state = NULL;
        attend(&b, &item);
        for (uint32_t t = 0; t <= FIRST - 256; t++) {
            ids[t] = 256 + t;
        }
        expect_query(&b, 0, ids, FIRST - 256 + 1);
        bed_close(&b);
    }
}

/* Rows end where the queries begin. */
static void parts_of_earlier_rows_that_cannot_be_are_refused(void **unused)
{
    enum { ROWS = 160 };
    static const struct {
        uint32_t begin, end;
        int state, starts, ok;
    } parts[] = {
        {0, 0, 0, 0, 1},      {0, ROWS, 0, 0, 1},   {128, ROWS, 0, 0, 0},
        {128, ROWS, 0, 1, 1}, {128, ROWS, 1, 0, 1}, {0, ROWS + 1, 1, 0, 0},
        {64, 128, 0, 1, 0},   {0, 100, 1, 0, 0},    {192, ROWS, 1, 1, 0},
    };
    struct bed b;
    (void)unused;

    bed_open(&b, QY_CPU_PLAIN, QY_ROW_F16, 64, 1, ROWS, 5);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct qy_chunk_item item = b.item;

        item.key_begin = parts[i].begin;
        item.key_end = parts[i].end;
        item.starts = parts[i].starts;
        item.state = parts[i].state ? b.state : NULL;
        assert_int_equal(qy_device_attend_chunk(b.c.dev, &item, 1, 1.0F, &b.c.arena),
                         parts[i].ok ? QY_OK : QY_ERR_INVALID);
    }
    b.item.first = 0; /* none */
    assert_int_equal(qy_device_attend_chunk(b.c.dev, &b.item, 1, 1.0F, &b.c.arena), QY_ERR_INVALID);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(earlier_rows_are_attended_to_by_all_queries),
        cmocka_unit_test(earlier_rows_in_parts_have_the_bits_of_a_single_call),
        cmocka_unit_test(chunks_may_leave_rows_out),
        cmocka_unit_test(parts_of_earlier_rows_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("conf.gpu.chunk_earlier", tests, NULL, NULL);
}
