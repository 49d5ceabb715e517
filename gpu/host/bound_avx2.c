/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page bounds in AVX2. The larger of q low and q high is max(q, 0) high + min(q, 0) low: two fused
 * steps a vector. What is left of a d that is no multiple of 8 goes through a copy.
 */
#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "gpu/host/bound.h"
#include "gpu/host/kernels.h"

enum { LANES = 8, HEADS_MAX = 4, WIDE = 4 };

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* n halves, zeros behind them. */
static inline __m256 load_f16(const void *p, uint32_t n)
{
    __m128i x = _mm_setzero_si128();

    if (n >= LANES) {
        x = _mm_loadu_si128((const __m128i *)p);
    } else {
        memcpy(&x, p, (size_t)2 * n);
    }
    return _mm256_cvtph_ps(x);
}

static inline __m256 load_f32(const void *p, uint32_t n)
{
    __m256 x = _mm256_setzero_ps();

    if (n >= LANES) {
        x = _mm256_loadu_ps((const float *)p);
    } else {
        memcpy(&x, p, (size_t)4 * n);
    }
    return x;
}

static inline void store(uint16_t *p, __m128i x, uint32_t n)
{
    memcpy(p, &x, n >= LANES ? sizeof(x) : (size_t)2 * n);
}

static void append_avx2(const struct qy_rows *rows, uint32_t first, uint32_t n, uint16_t *page)
{
    const uint32_t d = rows->d;

    for (uint32_t at = 0; at < d; at += WIDE * LANES) {
        __m256 low[WIDE];
        __m256 high[WIDE];
        QYI_UNROLL
        for (uint32_t v = 0; v < WIDE; v++) {
            low[v] = _mm256_set1_ps(INFINITY);
            high[v] = _mm256_set1_ps(-INFINITY);
        }
        for (uint32_t t = first; t < first + n; t++) {
            const uint8_t *row = qy_row_at(rows, t);
            QYI_UNROLL
            for (uint32_t v = 0; v < WIDE; v++) {
                const uint32_t i = at + v * LANES < d ? at + v * LANES : at;
                const __m256 x = rows->type == QY_ROW_F16 ? load_f16(row + (size_t)2 * i, d - i)
                                                          : load_f32(row + (size_t)4 * i, d - i);
                low[v] = _mm256_min_ps(x, low[v]); /* the second where x is NaN */
                high[v] = _mm256_max_ps(x, high[v]);
            }
        }
        for (uint32_t v = 0; v < WIDE && at + v * LANES < d; v++) {
            const uint32_t i = at + v * LANES;
            const __m256 some = _mm256_cmp_ps(low[v], high[v], _CMP_LE_OQ);
            store(page + i, _mm256_cvtps_ph(_mm256_and_ps(some, low[v]), _MM_FROUND_TO_NEG_INF),
                  d - i);
            store(page + d + i,
                  _mm256_cvtps_ph(_mm256_and_ps(some, high[v]), _MM_FROUND_TO_POS_INF), d - i);
        }
    }
}

static inline float lanes_sum(__m256 x)
{
    const __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));

    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

ALWAYS_INLINE void score_heads(const uint16_t *page, const float *q, const uint32_t heads,
                               const uint32_t d, float scale, float *scores, size_t stride)
{
    const __m256 zero = _mm256_setzero_ps();
    __m256 sums[HEADS_MAX][2];

    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        sums[h][0] = zero;
        sums[h][1] = zero;
    }
    for (uint32_t i = 0; i < d; i += LANES) {
        const __m256 low = load_f16(page + i, d - i);
        const __m256 high = load_f16(page + d + i, d - i);
        QYI_UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            const __m256 x = load_f32(q + (size_t)h * d + i, d - i);
            sums[h][0] = _mm256_fmadd_ps(_mm256_max_ps(x, zero), high, sums[h][0]);
            sums[h][1] = _mm256_fmadd_ps(_mm256_min_ps(x, zero), low, sums[h][1]);
        }
    }
    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        const float sum = lanes_sum(_mm256_add_ps(sums[h][0], sums[h][1])) * scale;
        scores[h * stride] = sum < FLT_MAX ? sum : FLT_MAX;
    }
}

static void score_avx2(const uint16_t *page, const float *q, uint32_t group, uint32_t d,
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

const struct qyi_bound_kernels qyi_bound_avx2 = {.append = append_avx2, .score = score_avx2};
#endif
