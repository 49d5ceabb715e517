/* SPDX-License-Identifier: Apache-2.0 */
/* Means of values. Part of a kernel file: include a vec_*.h first. */
#ifndef QY_GPU_HOST_VALUE_BODY_H
#define QY_GPU_HOST_VALUE_BODY_H

#include <string.h>

#include "gpu/host/value.h"

#define VALUE_MOST 65504.0F /* the largest half */

/* As qyi_value_kernels.add. */
static void value_add(const struct qy_rows *rows, uint32_t begin, uint32_t end, float factor,
                      float *sum)
{
    const size_t element = rows->type == QY_ROW_F16 ? sizeof(uint16_t) : sizeof(float);
    const vec factors = vec_set1(factor);

    for (uint32_t t = begin; t < end; t++) {
        const uint8_t *value = qy_row_at(rows, t) + rows->d * element;
        uint32_t i = 0;

        for (; i + VEC_N <= rows->d; i += VEC_N) {
            const uint8_t *at = value + i * element;
            const vec x = rows->type == QY_ROW_F16 ? vec_load_f16(at)
                                                   : vec_load((const float *)(const void *)at);
            vec_store(sum + i, vec_fma(x, factors, vec_load(sum + i)));
        }
        for (; i < rows->d; i++) {
            uint16_t half;
            float x;

            if (rows->type == QY_ROW_F16) {
                memcpy(&half, value + i * element, sizeof(half));
                x = qy_f32_from_f16(half);
            } else {
                memcpy(&x, value + i * element, sizeof(x));
            }
            sum[i] += factor * x;
        }
    }
}

/* As qyi_value_kernels.store. */
static void value_store(const float *sum, uint32_t d, float factor, uint16_t *mean)
{
    const vec most = vec_set1(VALUE_MOST);
    const vec least = vec_set1(-VALUE_MOST);
    uint32_t i = 0;

    for (; i + VEC_N <= d; i += VEC_N) {
        const vec x = vec_mul(vec_load(sum + i), vec_set1(factor));
        vec_store_f16(mean + i, vec_max(vec_min(x, most), least));
    }
    for (; i < d; i++) {
        const float x = sum[i] * factor;
        const float below = x < VALUE_MOST ? x : VALUE_MOST;

        mean[i] = qy_f16_from_f32(below > -VALUE_MOST ? below : -VALUE_MOST);
    }
}

/* As qyi_value_kernels.load. */
static void value_load(const uint16_t *mean, uint32_t d, float factor, float *sum)
{
    uint32_t i = 0;

    for (; i + VEC_N <= d; i += VEC_N) {
        vec_store(sum + i, vec_mul(vec_load_f16(mean + i), vec_set1(factor)));
    }
    for (; i < d; i++) {
        sum[i] = qy_f32_from_f16(mean[i]) * factor;
    }
}

/* As qyi_value_kernels.weigh. */
static void value_weigh(const float *rows, const float *weights, uint32_t n, uint32_t d, float *out)
{
    uint32_t i = 0;

    for (; i + VEC_N <= d; i += VEC_N) {
        vec sum = vec_load(out + i);
        for (uint32_t r = 0; r < n; r++) {
            sum = vec_fma(vec_load(rows + (size_t)r * d + i), vec_set1(weights[r]), sum);
        }
        vec_store(out + i, sum);
    }
    for (; i < d; i++) {
        for (uint32_t r = 0; r < n; r++) {
            out[i] += rows[(size_t)r * d + i] * weights[r];
        }
    }
}

#endif
