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

/* Largest score, and sum of exp(score - largest). */
static float scores_sum(const float *scores, uint32_t n, float *max)
{
    vec top = vec_set1(-FLT_MAX);
    for (uint32_t i = 0; i < n; i += VEC_N) {
        top = vec_max(scores_load(scores, i, n, -FLT_MAX), top);
    }
    *max = vec_hmax(top);
    const vec base = vec_set1(*max);
    const uint32_t whole = n / VEC_N * VEC_N;
    vec sum = vec_set1(0.0F);
    for (uint32_t i = 0; i < whole; i += VEC_N) {
        sum = vec_add(sum, vec_exp(vec_sub(scores_load(scores, i, n, 0.0F), base)));
    }
    float total = vec_hsum(sum);
    for (uint32_t i = whole; i < n; i++) {
        const float x = scores[i] > -FLT_MAX ? fminf(scores[i], FLT_MAX) : -FLT_MAX;
        total += expf(x - *max);
    }
    return total;
}

/* As qyi_rows_kernels.pool. */
static void pool_scores(const struct qy_pool_item *item)
{
    const uint32_t n = item->hi - item->lo;
    for (uint32_t h = 0; h < item->group && n > 0; h++) {
        const float *scores = item->scores + (size_t)h * item->n;
        float max;
        const float sum = scores_sum(scores, item->n, &max);
        const vec share = vec_set1(1.0F / (sum * (float)item->group));
        const vec base = vec_set1(max);
        for (uint32_t i = 0; i < n; i += VEC_N) {
            vec p = vec_exp(vec_sub(scores_load(scores + item->lo, i, n, -FLT_MAX), base));
            p = vec_mul(p, share);
            if (i + VEC_N <= n) {
                vec_store(item->pooled + i, h == 0 ? p : vec_add(p, vec_load(item->pooled + i)));
            } else {
                float part[VEC_N];
                vec_store(part, p);
                for (uint32_t j = 0; i + j < n; j++) {
                    item->pooled[i + j] = h == 0 ? part[j] : part[j] + item->pooled[i + j];
                }
            }
        }
    }
}

#endif
