/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounds of pages on the host, private to gpu/host: their layout and the kernels that bound.c calls
 * once it has checked arguments and split the work.
 *
 * A page is low [d] then high [d] in f16, low rounded down and high up; pages follow one another
 * in a slab. A key beyond f16 makes its bound infinite. NaN bounds nothing: it is left out (its own
 * score counts as the least everywhere), and an element that is NaN in every key is 0. A score that
 * is not finite is FLT_MAX; NaN in a query counts as 0.
 */
#ifndef QY_GPU_HOST_BOUND_H
#define QY_GPU_HOST_BOUND_H

#include "gpu/gpu.h"

enum { QYI_BOUND_MAX_D = 256 };

struct qyi_bound_kernels {
    /* Bounds of the keys of rows first .. first + n - 1, n > 0: a page. */
    void (*append)(const struct qy_rows *rows, uint32_t first, uint32_t n, uint16_t *page);
    /* scores[h * stride] of one page for the group's heads q [group][d]. */
    void (*score)(const uint16_t *page, const float *q, uint32_t group, uint32_t d, float scale,
                  float *scores, size_t stride);
};

extern const struct qyi_bound_kernels qyi_bound_plain;
#if defined(__x86_64__)
extern const struct qyi_bound_kernels qyi_bound_avx2;
extern const struct qyi_bound_kernels qyi_bound_avx512;
#endif

#endif
