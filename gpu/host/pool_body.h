/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing of floats into rows, and softmax pooling of scores over a group. Part of a kernel file:
 * include a vec_*.h first.
 */
#ifndef QY_GPU_HOST_POOL_BODY_H
#define QY_GPU_HOST_POOL_BODY_H

#include <math.h>
#include <string.h>

#include "gpu/host/rows.h"
#include "gpu/host/scores_body.h"

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

/* Scores become exp(score - base); returns their sum. */
static float scores_exp(float *scores, uint32_t n, float base)
{
    const vec b = vec_set1(base);
    vec sum[2] = {vec_set1(0.0F), vec_set1(0.0F)};
    uint32_t i = 0;
    for (; i + 2 * VEC_N <= n; i += 2 * VEC_N) {
        const vec e0 = scores_exp_of(vec_load(scores + i), b);
        const vec e1 = scores_exp_of(vec_load(scores + i + VEC_N), b);
        vec_store(scores + i, e0);
        vec_store(scores + i + VEC_N, e1);
        sum[0] = vec_add(sum[0], e0);
        sum[1] = vec_add(sum[1], e1);
    }
    float total = vec_hsum(vec_add(sum[0], sum[1]));
    for (; i < n; i += VEC_N) {
        const uint32_t left = n - i < VEC_N ? n - i : VEC_N;
        floats_store(scores + i, left, scores_exp_of(floats_load(scores + i, left, 0.0F), b));
        for (uint32_t j = 0; j < left; j++) {
            total += scores[i + j];
        }
    }
    return total;
}

/* As qyi_rows_kernels.pool_head. */
static void pool_head(const struct qy_pool_item *item, uint32_t h, struct qyi_pool_head *head)
{
    float *scores = item->scores + h * (item->stride == 0 ? item->n : item->stride);
    const float base = scores_max(scores, item->n);
    const float before = scores_exp(scores, item->lo, base);
    const float inside = scores_exp(scores + item->lo, item->hi - item->lo, base);
    const float sum = before + inside + scores_exp(scores + item->hi, item->n - item->hi, base);
    const float heads = item->pooling == QY_POOL_MAX ? 1.0F : (float)item->group;
    head->share = 1.0F / (sum * heads);
    head->mass = inside > 0.0F ? (double)inside / (double)sum : 0.0;
}

/* As qyi_rows_kernels.pool_places. */
static void pool_places(const struct qy_pool_item *item, const struct qyi_pool_head *heads,
                        uint32_t begin, uint32_t end)
{
    const size_t stride = item->stride == 0 ? item->n : item->stride;
    const float *e = item->scores + item->lo;
    const int largest = item->pooling == QY_POOL_MAX;
    uint32_t i = begin;
    for (; i + 4 * VEC_N <= end; i += 4 * VEC_N) {
        vec acc[4];
        for (uint32_t j = 0; j < 4; j++) {
            acc[j] = vec_set1(0.0F);
        }
        for (uint32_t h = 0; h < item->group; h++) {
            const vec share = vec_set1(heads[h].share);
            for (uint32_t j = 0; j < 4; j++) {
                const vec x = vec_load(e + h * stride + i + j * VEC_N);
                acc[j] = largest ? vec_max(vec_mul(x, share), acc[j]) : vec_fma(x, share, acc[j]);
            }
        }
        for (uint32_t j = 0; j < 4; j++) {
            vec_store(item->pooled + i + j * VEC_N, acc[j]);
        }
    }
    for (; i < end; i += VEC_N) {
        const uint32_t left = end - i;
        vec acc = vec_set1(0.0F);
        for (uint32_t h = 0; h < item->group; h++) {
            const vec share = vec_set1(heads[h].share);
            const vec x = floats_load(e + h * stride + i, left, 0.0F);
            acc = largest ? vec_max(vec_mul(x, share), acc) : vec_fma(x, share, acc);
        }
        floats_store(item->pooled + i, left, acc);
    }
}

#endif
