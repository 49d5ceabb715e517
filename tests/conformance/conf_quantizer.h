/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of codes share: quantizers, slabs of codes, and products with words in f64. */
#ifndef QY_TESTS_CONFORMANCE_CONF_QUANTIZER_H
#define QY_TESTS_CONFORMANCE_CONF_QUANTIZER_H

#include "tests/conformance/conf_support.h"

struct conf_quantizer {
    struct qy_quantizer q;
    uint16_t *order;
    float *encode, *bias, *decode;
};

/* d, m, bits, n_words */
enum { CONF_SHAPES = 15 };
extern const uint32_t conf_shapes[CONF_SHAPES][4];

/* kind 0: any numbers; 1: small integers, many equal words. */
void conf_quantizer_open(struct conf_quantizer *z, uint32_t d, uint32_t m, uint32_t bits,
                         uint32_t n_words, int kind);
void conf_quantizer_close(struct conf_quantizer *z);

/* x . word w of sub-vector j of a table, in f64; *size receives the sum of magnitudes on top. */
double conf_table_at(const struct qy_quantizer *q, const float *table, const float *x, uint32_t j,
                     uint32_t w, double *size);

/* Slabs for n tokens, each an allocation of its own, filled with 0xa5. */
struct conf_codes {
    struct qy_slab slab;
    uint8_t **blocks;
    uint32_t n_blocks;
    size_t bytes; /* of a block */
};
void conf_codes_open(struct conf_codes *s, const struct qy_quantizer *q, uint32_t shift,
                     uint32_t n);
/* The same with codes of n random vectors. */
void conf_codes_fill(struct conf *c, const struct conf_quantizer *z, struct conf_codes *s,
                     uint32_t shift, uint32_t n);
void conf_codes_close(struct conf_codes *s);
void conf_encode(struct conf *c, const struct qy_quantizer *q, const float *k, size_t stride,
                 const struct conf_codes *s, uint32_t first, uint32_t n);

#endif
