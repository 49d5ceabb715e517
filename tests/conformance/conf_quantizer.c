/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizers and slabs of codes for the tests of codes. */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"

enum { OFFSET = 64 };

const uint32_t conf_shapes[CONF_SHAPES][4] = {
    /* d, m, bits, n_words */
    {64, 16, 4, 16},  {128, 32, 4, 16}, {80, 8, 4, 16},  {64, 2, 4, 16},   {80, 10, 4, 16},
    {96, 3, 4, 16},   {64, 8, 8, 256},  {80, 2, 8, 100}, {128, 16, 8, 37}, {64, 1, 8, 5},
    {64, 1, 16, 300}, {80, 1, 16, 333}, {128, 1, 16, 1}, {64, 1, 16, 528}, {256, 128, 4, 16},
};

void conf_quantizer_open(struct conf_quantizer *z, uint32_t d, uint32_t m, uint32_t bits,
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

void conf_quantizer_close(struct conf_quantizer *z)
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

double conf_table_at(const struct qy_quantizer *q, const float *table, const float *x, uint32_t j,
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

void conf_codes_open(struct conf_codes *s, const struct qy_quantizer *q, uint32_t shift, uint32_t n)
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

void conf_codes_close(struct conf_codes *s)
{
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        free(s->blocks[b]);
    }
    free(s->blocks);
}

void conf_encode(struct conf *c, const struct qy_quantizer *q, const float *k, size_t stride,
                 const struct conf_codes *s, uint32_t first, uint32_t n)
{
    const struct qy_encode_item item = {q, k, stride, s->slab, first, n};
    assert_int_equal(qy_device_encode(c->dev, &item, 1), QY_OK);
}

void conf_codes_fill(struct conf *c, const struct conf_quantizer *z, struct conf_codes *s,
                     uint32_t shift, uint32_t n)
{
    float *k = conf_floats((size_t)n * z->q.d, 2.0F);

    conf_codes_open(s, &z->q, shift, n);
    conf_encode(c, &z->q, k, z->q.d, s, 0, n);
    free(k);
}
