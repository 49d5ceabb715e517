/* SPDX-License-Identifier: Apache-2.0 */
/* Values of rows. Part of a kernel file: include a code_vec_*.h first. */
#ifndef QY_GPU_HOST_CODE_VALUES_BODY_H
#define QY_GPU_HOST_CODE_VALUES_BODY_H

#include <string.h>

#include "gpu/gpu.h"

/* Element i of the value whose bytes these are. */
static float value_element(const uint8_t *value, enum qy_row_type type, uint32_t i)
{
    uint16_t half;
    float x;

    if (type == QY_ROW_F16) {
        memcpy(&half, value + i * sizeof(half), sizeof(half));
        return qy_f32_from_f16(half);
    }
    memcpy(&x, value + i * sizeof(x), sizeof(x));
    return x;
}

/* As qyi_code_kernels.values. */
static void values_mean(const struct qy_rows *rows, const uint32_t *ids, uint32_t n, float *out)
{
    const size_t element = rows->type == QY_ROW_F16 ? sizeof(uint16_t) : sizeof(float);
    const float share = n > 0 ? 1.0F / (float)n : 0.0F;
    uint32_t i = 0;

    for (; i + VEC_N <= rows->d; i += VEC_N) {
        vec sum = vec_set1(0.0F);
        for (uint32_t r = 0; r < n; r++) {
            const uint8_t *at = qy_row_at(rows, ids[r]) + (rows->d + i) * element;
            sum =
                vec_add(sum, rows->type == QY_ROW_F16 ? vec_load_f16(at)
                                                      : vec_load((const float *)(const void *)at));
        }
        vec_store(out + i, vec_mul(sum, vec_set1(share)));
    }
    for (; i < rows->d; i++) {
        float sum = 0.0F;
        for (uint32_t r = 0; r < n; r++) {
            sum += value_element(qy_row_at(rows, ids[r]) + rows->d * element, rows->type, i);
        }
        out[i] = sum * share;
    }
}

#endif
