/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing of floats into rows, and softmax pooling of scores over a group. Part of a kernel file:
 * include a vec_*.h first.
 */
#ifndef QY_GPU_HOST_POOL_BODY_H
#define QY_GPU_HOST_POOL_BODY_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "gpu/host/rows.h"

/* As qyi_rows_kernels.pack. 65520 is the least magnitude that rounds to infinity in f16. */
static int pack_row(const float *src, uint32_t n, enum qy_row_type type, void *dst)
{
    const int f16 = type == QY_ROW_F16;
    const float limit = f16 ? 65520.0F : INFINITY;
    uint8_t *to = dst;
    uint32_t i = 0;
    int bad = 0;
    for (; i + VEC_N <= n; i += VEC_N) {
        const vec v = vec_load(src + i);
        bad |= vec_any_not_below(v, limit);
        if (f16) {
            vec_store_f16(to + (size_t)i * 2, v);
        }
    }
    for (; i < n; i++) {
        bad |= !(fabsf(src[i]) < limit);
        if (f16) {
            const uint16_t h = qy_f16_from_f32(src[i]);
            memcpy(to + (size_t)i * 2, &h, sizeof(h));
        }
    }
    if (!f16) {
        memcpy(to, src, n * sizeof(float));
    }
    return bad;
}

/* Scores at i, made finite: NaN counts as the least score. Places past n take `fill`. */
static vec scores_load(const float *scores, uint32_t i, uint32_t n, float fill)
{
    vec x;
    if (i + VEC_N <= n) {
        x = vec_load(scores + i);
    } else {
        float part[VEC_N];
        for (uint32_t j = 0; j < VEC_N; j++) {
            part[j] = i + j < n ? scores[i + j] : fill;
        }
        x = vec_load(part);
    }
    return vec_min(vec_max(x, vec_set1(-FLT_MAX)), vec_set1(FLT_MAX));
}

/* Largest score. */
static float scores_max(const float *scores, uint32_t n)
{
    vec top = vec_set1(-FLT_MAX);
    for (uint32_t i = 0; i < n; i += VEC_N) {
        top = vec_max(scores_load(scores, i, n, -FLT_MAX), top);
    }
    return vec_hmax(top);
}

/* Scores become exp(score - base); returns their sum. */
static float scores_exp(float *scores, uint32_t n, float base)
{
    const uint32_t whole = n / VEC_N * VEC_N;
    vec sum = vec_set1(0.0F);
    for (uint32_t i = 0; i < whole; i += VEC_N) {
        const vec e = vec_exp(vec_sub(scores_load(scores, i, n, 0.0F), vec_set1(base)));
        vec_store(scores + i, e);
        sum = vec_add(sum, e);
    }
    float total = vec_hsum(sum);
    if (whole < n) {
        float part[VEC_N];
        vec_store(part, vec_exp(vec_sub(scores_load(scores, whole, n, 0.0F), vec_set1(base))));
        memcpy(scores + whole, part, (n - whole) * sizeof(float));
        for (uint32_t i = 0; whole + i < n; i++) {
            total += part[i];
        }
    }
    return total;
}

/* As qyi_rows_kernels.pool. */
static void pool_scores(const struct qy_pool_item *item)
{
    const size_t stride = item->stride == 0 ? item->n : item->stride;
    const uint32_t n = item->hi - item->lo;
    double mass = 0.0;
    for (uint32_t h = 0; h < item->group; h++) {
        float *scores = item->scores + h * stride;
        const float base = scores_max(scores, item->n);
        const float before = scores_exp(scores, item->lo, base);
        const float inside = scores_exp(scores + item->lo, n, base);
        const float sum = before + inside + scores_exp(scores + item->hi, item->n - item->hi, base);
        const float share =
            item->pooling == QY_POOL_MAX ? 1.0F / sum : 1.0F / (sum * (float)item->group);
        mass += n == 0 ? 0.0 : (double)inside / (double)sum;
        for (uint32_t i = 0; i < n; i++) {
            const float p = scores[item->lo + i] * share;
            const float q = h == 0 ? 0.0F : item->pooled[i];
            item->pooled[i] = item->pooling == QY_POOL_MAX ? (p > q ? p : q) : p + q;
        }
    }
    if (item->mass != NULL) {
        *item->mass = (float)(mass / item->group);
    }
}

#endif
