/* SPDX-License-Identifier: Apache-2.0 */
/* Page bounds in plain C: the reference of the vector sets. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "gpu/host/bound.h"

/* The largest half that is not above x; x no NaN. */
static uint16_t f16_below(float x)
{
    const uint16_t h = qy_f16_from_f32(x);

    if (qy_f32_from_f16(h) <= x) {
        return h;
    }
    return (uint16_t)(h & 0x8000 ? h + 1 : h - 1);
}

static uint16_t f16_above(float x)
{
    return (uint16_t)(f16_below(-x) ^ 0x8000);
}

static float key_element(const uint8_t *row, enum qy_row_type type, uint32_t i)
{
    float x;
    uint16_t h;

    if (type == QY_ROW_F32) {
        memcpy(&x, row + i * sizeof(x), sizeof(x));
        return x;
    }
    memcpy(&h, row + i * sizeof(h), sizeof(h));
    return qy_f32_from_f16(h);
}

static void append_plain(const struct qy_rows *rows, uint32_t first, uint32_t n, uint16_t *page)
{
    float low[QYI_BOUND_MAX_D];
    float high[QYI_BOUND_MAX_D];

    for (uint32_t i = 0; i < rows->d; i++) {
        low[i] = INFINITY;
        high[i] = -INFINITY;
    }
    for (uint32_t t = first; t < first + n; t++) {
        const uint8_t *row = qy_row_at(rows, t);
        for (uint32_t i = 0; i < rows->d; i++) {
            const float x = key_element(row, rows->type, i);
            low[i] = x < low[i] ? x : low[i];
            high[i] = x > high[i] ? x : high[i];
        }
    }
    for (uint32_t i = 0; i < rows->d; i++) {
        const int none = low[i] > high[i];
        page[i] = none ? 0 : f16_below(low[i]);
        page[rows->d + i] = none ? 0 : f16_above(high[i]);
    }
}

static void score_plain(const uint16_t *page, const float *q, uint32_t group, uint32_t d,
                        float scale, float *scores, size_t stride)
{
    float bound[2 * QYI_BOUND_MAX_D];

    for (uint32_t i = 0; i < 2 * d; i++) {
        bound[i] = qy_f32_from_f16(page[i]);
    }
    for (uint32_t h = 0; h < group; h++) {
        const float *x = q + (size_t)h * d;
        float sum = 0.0F;
        for (uint32_t i = 0; i < d; i++) {
            /* the larger of both products, without a branch */
            sum += (x[i] > 0.0F ? x[i] : 0.0F) * bound[d + i];
            sum += (x[i] < 0.0F ? x[i] : 0.0F) * bound[i];
        }
        sum *= scale;
        scores[h * stride] = sum < FLT_MAX ? sum : FLT_MAX;
    }
}

const struct qyi_bound_kernels qyi_bound_plain = {.append = append_plain, .score = score_plain};
