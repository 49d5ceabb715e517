/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page bounds in AVX-512. The larger of q low and q high is max(q, 0) high + min(q, 0) low: two
 * fused steps a vector. Masks take the last vector of any d.
 */
#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>
#include <math.h>

#include "gpu/host/bound.h"
#include "gpu/host/kernels.h"

enum { LANES = 16, HEADS_MAX = 4, WIDE = 4 };

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Lanes i .. i + 15 of d. */
static inline __mmask16 mask_of(uint32_t d, uint32_t i)
{
    return d - i >= LANES ? (__mmask16)0xffff : (__mmask16)((1U << (d - i)) - 1);
}

static inline __m512 load_f16(const void *p, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

static inline __m512 load_key(const uint8_t *row, enum qy_row_type type, uint32_t i, __mmask16 mask)
{
    return type == QY_ROW_F16 ? load_f16(row + (size_t)2 * i, mask)
                              : _mm512_maskz_loadu_ps(mask, row + (size_t)4 * i);
}

static void append_avx512(const struct qy_rows *rows, uint32_t first, uint32_t n, uint16_t *page)
{
    const uint32_t d = rows->d;

    for (uint32_t at = 0; at < d; at += WIDE * LANES) {
        __m512 low[WIDE];
        __m512 high[WIDE];
        QYI_UNROLL
        for (uint32_t v = 0; v < WIDE; v++) {
            low[v] = _mm512_set1_ps(INFINITY);
            high[v] = _mm512_set1_ps(-INFINITY);
        }
        for (uint32_t t = first; t < first + n; t++) {
            const uint8_t *row = qy_row_at(rows, t);
            QYI_UNROLL
            for (uint32_t v = 0; v < WIDE; v++) {
                const uint32_t i = at + v * LANES < d ? at + v * LANES : at;
                const __m512 x = load_key(row, rows->type, i, mask_of(d, i));
                low[v] = _mm512_min_ps(x, low[v]); /* the second where x is NaN */
                high[v] = _mm512_max_ps(x, high[v]);
            }
        }
        for (uint32_t v = 0; v < WIDE && at + v * LANES < d; v++) {
            const uint32_t i = at + v * LANES;
            const __mmask16 mask = mask_of(d, i);
            const __mmask16 some = _mm512_cmp_ps_mask(low[v], high[v], _CMP_LE_OQ);
            const __m512 least = _mm512_maskz_mov_ps(some, low[v]);
            const __m512 largest = _mm512_maskz_mov_ps(some, high[v]);
            _mm256_mask_storeu_epi16(page + i, mask, _mm512_cvtps_ph(least, _MM_FROUND_TO_NEG_INF));
            _mm256_mask_storeu_epi16(page + d + i, mask,
                                     _mm512_cvtps_ph(largest, _MM_FROUND_TO_POS_INF));
        }
    }
}

ALWAYS_INLINE void score_heads(const uint16_t *page, const float *q, const uint32_t heads,
                               const uint32_t d, float scale, float *scores, size_t stride)
{
    const __m512 zero = _mm512_setzero_ps();
    __m512 sums[HEADS_MAX][2];

    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        sums[h][0] = zero;
        sums[h][1] = zero;
    }
    for (uint32_t i = 0; i < d; i += LANES) {
        const __mmask16 mask = mask_of(d, i);
        const __m512 low = load_f16(page + i, mask);
        const __m512 high = load_f16(page + d + i, mask);
        QYI_UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            const __m512 x = _mm512_maskz_loadu_ps(mask, q + (size_t)h * d + i);
            sums[h][0] = _mm512_fmadd_ps(_mm512_max_ps(x, zero), high, sums[h][0]);
            sums[h][1] = _mm512_fmadd_ps(_mm512_min_ps(x, zero), low, sums[h][1]);
        }
    }
    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        const float sum = _mm512_reduce_add_ps(_mm512_add_ps(sums[h][0], sums[h][1])) * scale;
        scores[h * stride] = sum < FLT_MAX ? sum : FLT_MAX;
    }
}

static void score_avx512(const uint16_t *page, const float *q, uint32_t group, uint32_t d,
                         float scale, float *scores, size_t stride)
{
    uint32_t h = 0;

    for (; group - h >= 4; h += 4) {
        score_heads(page, q + (size_t)h * d, 4, d, scale, scores + h * stride, stride);
    }
    if (group - h == 3) {
        score_heads(page, q + (size_t)h * d, 3, d, scale, scores + h * stride, stride);
    } else if (group - h == 2) {
        score_heads(page, q + (size_t)h * d, 2, d, scale, scores + h * stride, stride);
    } else if (group - h == 1) {
        score_heads(page, q + (size_t)h * d, 1, d, scale, scores + h * stride, stride);
    }
}

const struct qyi_bound_kernels qyi_bound_avx512 = {.append = append_avx512, .score = score_avx512};
#endif
