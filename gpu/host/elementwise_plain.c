/* SPDX-License-Identifier: Apache-2.0 */
/* Element-wise kernels in plain C, and the table of the plain set. */
#include <math.h>
#include <string.h>

#include "gpu/host/kernels.h"

enum { LANES = 16 };

void qyi_norm_plain(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                    float eps, float *out)
{
    for (uint32_t i = 0; i < m; i++, x += dim, out += dim) {
        float sum[LANES] = {0}; /* independent sums: compilers make a vector of them */
        for (uint32_t k = 0; k < dim; k++) {
            if (y) {
                x[k] += y[k];
            }
            sum[k % LANES] += x[k] * x[k];
        }
        float total = 0;
        for (int j = 0; j < LANES; j++) {
            total += sum[j];
        }
        const float scale = 1 / sqrtf(total / (float)dim + eps);
        for (uint32_t k = 0; k < dim; k++) {
            out[k] = x[k] * scale * weight[k];
        }
        y = y ? y + dim : NULL;
    }
}

void qyi_to_bf16_plain(const float *in, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, in + i, sizeof bits);
        const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
        const int is_nan = (bits & 0x7fffffff) > 0x7f800000;
        out[i] = (uint16_t)((is_nan ? bits | 0x400000 : rounded) >> 16);
    }
}

void qyi_swiglu_plain(const float *gate, const float *up, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
}

/* Turns (a, b) by the angle of cos_sin [2]. */
static inline void turn(float *a, float *b, const float *cos_sin)
{
    const float x = *a;
    const float y = *b;
    *a = x * cos_sin[0] - y * cos_sin[1];
    *b = x * cos_sin[1] + y * cos_sin[0];
}

void qyi_rope_plain(enum qy_rope_pairs pairs, const float *cos_sin, uint32_t dim, float *x,
                    uint32_t heads, uint32_t d)
{
    const uint32_t half = dim / 2;
    for (uint32_t h = 0; h < heads; h++, x += d) {
        for (uint32_t p = 0; p < half; p++) {
            if (pairs == QY_ROPE_ADJACENT) {
                turn(x + 2 * p, x + 2 * p + 1, cos_sin + 2 * p);
            } else {
                turn(x + p, x + half + p, cos_sin + 2 * p);
            }
        }
    }
}

const struct qyi_kernels qyi_kernels_plain = {
    .level = QY_CPU_PLAIN,
    .dequantize = NULL,
    .multiply = qyi_multiply_plain,
    .to_bf16 = qyi_to_bf16_plain,
    .norm = qyi_norm_plain,
    .swiglu = qyi_swiglu_plain,
    .rope = qyi_rope_plain,
};
