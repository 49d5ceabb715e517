/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the conformance tests of kernels share: a device per kernel set and thread count, random
 * rows in blocks, and attention in f64 over the values that the rows really hold.
 *
 * Blocks are single heap allocations of just the rows that exist, so that AddressSanitizer sees a
 * kernel that reads past the last row.
 */
#ifndef QY_TESTS_CONFORMANCE_CONF_SUPPORT_H
#define QY_TESTS_CONFORMANCE_CONF_SUPPORT_H

#include "gpu/gpu.h"

struct conf {
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_arena arena;
    void *arena_memory;
};

/* Kernel sets of this machine: plain .. conf_best(). */
enum qy_cpu_level conf_best(void);
void conf_open(struct conf *c, enum qy_cpu_level level, uint32_t n_threads);
void conf_close(struct conf *c);
/* Replaces the arena by one of exactly bytes. */
void conf_arena(struct conf *c, size_t bytes);

/* Deterministic numbers. */
void conf_seed(uint32_t seed);
uint32_t conf_random(uint32_t below);
/* In -scale .. scale. */
float conf_uniform(float scale);
float *conf_floats(size_t n, float scale); /* freed with free() */

/* n random rows, K in -k_scale .. k_scale, V in -1 .. 1, and their values as stored. */
struct conf_rows {
    struct qy_rows rows;
    uint32_t n, n_blocks;
    uint8_t **blocks;
    float *k, *v; /* [n][d] */
};
void conf_rows_open(struct conf_rows *r, enum qy_row_type type, uint32_t d, uint32_t shift,
                    uint32_t n, float k_scale);
void conf_rows_close(struct conf_rows *r);

/* Attention of one query head over rows ids[0..n) (NULL: first ..) in f64. lse may be NULL. */
void conf_attend(const struct conf_rows *r, const uint32_t *ids, uint32_t first, uint32_t n,
                 const float *q, double scale, double *out, double *lse);
double conf_dot(const struct conf_rows *r, uint32_t row, const float *q);
/* Squared error over squared reference; absolute where the reference is 0. */
double conf_nmse(const float *x, const double *reference, size_t n);

#endif
