/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Means of values of pages on the host, private to gpu/host: their layout and the kernels that
 * value.c and code_estimate.c call once they have checked arguments and split the work.
 *
 * A page is its mean [d] in f16; pages follow one another in a slab. Sums run in the order of the
 * tokens, element by element: every kernel set makes the same bits.
 */
#ifndef QY_GPU_HOST_VALUE_H
#define QY_GPU_HOST_VALUE_H

#include "gpu/gpu.h"

enum { QYI_VALUE_MAX_D = 512, QYI_VALUE_MIN_PAGE = 16 };

struct qyi_value_kernels {
    /* sum [d] += factor * values of rows begin .. end - 1. */
    void (*add)(const struct qy_rows *rows, uint32_t begin, uint32_t end, float factor, float *sum);
    /* mean [d] = factor * sum [d], in f16. */
    void (*store)(const float *sum, uint32_t d, float factor, uint16_t *mean);
    /* sum [d] = factor * mean [d]. */
    void (*load)(const uint16_t *mean, uint32_t d, float factor, float *sum);
    /* out [d] += sum of weights [n] * rows [n][d]. */
    void (*weigh)(const float *rows, const float *weights, uint32_t n, uint32_t d, float *out);
};

extern const struct qyi_value_kernels qyi_value_plain;
#if defined(__x86_64__)
extern const struct qyi_value_kernels qyi_value_avx2;
extern const struct qyi_value_kernels qyi_value_avx512;
#endif

/* Table of a level. */
const struct qyi_value_kernels *qyi_value_for(enum qy_cpu_level level);
/* Do the kernels take heads of d elements in such pages? */
int qyi_value_valid(uint32_t d, uint32_t page, const struct qy_slab *values);
/* Mean of page `at` of the sequence. */
uint16_t *qyi_value_at(const struct qy_slab *values, uint32_t d, uint32_t page, uint32_t at);

#endif
