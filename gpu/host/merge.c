/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging partials of attention by log-sum-exp, exact up to rounding:
 *
 *   lse = max + log(sum of exp(lse_p - max)),   out = sum of exp(lse_p - lse) out_p
 *
 * The sums run in the order of the parts, so the order alone fixes the bits.
 */
#include <math.h>
#include <string.h>

#include "gpu/host/host.h"
#include "gpu/host/rows.h"

/* One head: part p at parts_out + p * out_stride and parts_lse[p * lse_stride]. */
static void merge_head(const float *parts_out, size_t out_stride, const float *parts_lse,
                       size_t lse_stride, uint32_t n_parts, uint32_t d, float *out, float *lse)
{
    float max = -INFINITY;
    float sum = 0.0F;

    for (uint32_t p = 0; p < n_parts; p++) {
        const float x = parts_lse[p * lse_stride];
        max = x > max ? x : max;
    }
    memset(out, 0, d * sizeof(float));
    for (uint32_t p = 0; p < n_parts; p++) {
        const float x = parts_lse[p * lse_stride];
        const float *part = parts_out + p * out_stride;
        if (x == -INFINITY) {
            continue;
        }
        const float w = expf(x - max);
        sum += w;
        for (uint32_t i = 0; i < d; i++) {
            out[i] += w * part[i];
        }
    }
    if (sum == 0.0F) {
        *lse = -INFINITY;
        return;
    }
    const float inverse = 1.0F / sum;
    for (uint32_t i = 0; i < d; i++) {
        out[i] *= inverse;
    }
    *lse = max + logf(sum);
}

void qyi_merge(const float *parts_out, const float *parts_lse, uint32_t n_parts, uint32_t heads,
               uint32_t d, float *out, float *lse)
{
    float unused;

    for (uint32_t h = 0; h < heads; h++) {
        merge_head(parts_out + (size_t)h * d, (size_t)heads * d, parts_lse + h, heads, n_parts, d,
                   out + (size_t)h * d, lse == NULL ? &unused : lse + h);
    }
}

enum qy_status qy_device_merge(struct qy_device *dev, const float *parts_out,
                               const float *parts_lse, uint32_t n_parts, uint32_t heads, uint32_t d,
                               float *out, float *lse)
{
    (void)dev; /* one token's heads: less work than waking the team */
    qyi_merge(parts_out, parts_lse, n_parts, heads, d, out, lse);
    return QY_OK;
}
