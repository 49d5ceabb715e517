/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming product, AVX-512: R rows of weights by M rows of activations in R * M registers.
 *
 * Vectors run along n_in, where both operands are contiguous; a register holds 16 partial sums of
 * one (row, activation) pair, and four registers are folded into four neighbouring results at the
 * end. Every pair is summed in the same order in every tile shape, so bits do not depend on m.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "gpu/host/kernels.h"
#include "gpu/host/stream_bands.h"

/* Sums of the lanes of a, b, c, d. */
static inline __m128 fold4(__m512 a, __m512 b, __m512 c, __m512 d)
{
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 low =
        _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 high =
        _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
    const __m512 quads = _mm512_add_ps(low, high);
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(quads), _mm512_extractf32x8_ps(quads, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* rows <= R of them count; the others repeat the last row and are not stored. R is 4 or 8. */
static inline __attribute__((always_inline)) void tile(const int R, const int M, const float *w,
                                                       uint32_t rows, uint32_t n_in, const float *x,
                                                       float *y, size_t ldy)
{
    const float *row[8];
    __m512 sum[8][6];
    QYI_UNROLL
    for (int r = 0; r < R; r++) {
        row[r] = w + (size_t)((uint32_t)r < rows ? (uint32_t)r : rows - 1) * n_in;
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            sum[r][i] = _mm512_setzero_ps();
        }
    }
    uint32_t k = 0;
    for (; k + 16 <= n_in; k += 16) {
        __m512 part[8];
        QYI_UNROLL
        for (int r = 0; r < R; r++) {
            part[r] = _mm512_loadu_ps(row[r] + k);
        }
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            const __m512 value = _mm512_loadu_ps(x + (size_t)i * n_in + k);
            QYI_UNROLL
            for (int r = 0; r < R; r++) {
                sum[r][i] = _mm512_fmadd_ps(part[r], value, sum[r][i]);
            }
        }
    }
    if (k < n_in) {
        const __mmask16 mask = (__mmask16)((1u << (n_in - k)) - 1);
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            const __m512 value = _mm512_maskz_loadu_ps(mask, x + (size_t)i * n_in + k);
            QYI_UNROLL
            for (int r = 0; r < R; r++) {
                const __m512 part = _mm512_maskz_loadu_ps(mask, row[r] + k);
                sum[r][i] = _mm512_fmadd_ps(part, value, sum[r][i]);
            }
        }
    }
    QYI_UNROLL
    for (int i = 0; i < M; i++) {
        QYI_UNROLL
        for (int r = 0; r < R; r += 4) {
            const __m128 four = fold4(sum[r][i], sum[r + 1][i], sum[r + 2][i], sum[r + 3][i]);
            const uint32_t left = rows > (uint32_t)r ? rows - (uint32_t)r : 0;
            const __mmask8 mask = (__mmask8)(left < 4 ? (1u << left) - 1 : 15);
            _mm_mask_storeu_ps(y + (size_t)i * ldy + r, mask, four);
        }
    }
}

DEFINE_BAND(8, 1)
DEFINE_BAND(8, 2)
DEFINE_BAND(4, 3)
DEFINE_BAND(4, 4)
DEFINE_BAND(4, 5)
DEFINE_BAND(4, 6)

void qyi_multiply_avx512(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                         float *y, size_t ldy)
{
    static const band_fn band[] = {band_1, band_2, band_3, band_4, band_5, band_6};
    multiply_bands(band, 6, w, rows, n_in, x, m, y, ldy);
}
#endif
