/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming product, AVX2: as gpu/host/stream_avx512.c with 16 registers of 8 lanes: four rows by
 * at most three rows of activations.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "gpu/host/kernels.h"
#include "gpu/host/stream_bands.h"

/* Sums of the lanes of a, b, c, d. */
static inline __m128 fold4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 low =
        _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd)));
    const __m256 high =
        _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd)));
    const __m256 quads = _mm256_add_ps(low, high);
    return _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1));
}

/* Lanes below n, n < 8. */
static inline __m256i lanes_below(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* rows <= R of them count; the others repeat the last row and are not stored. R is 4 or 8. */
static inline __attribute__((always_inline)) void tile(const int R, const int M, const float *w,
                                                       uint32_t rows, uint32_t n_in, const float *x,
                                                       float *y, size_t ldy)
{
    const float *row[8];
    __m256 sum[8][3];
    QYI_UNROLL
    for (int r = 0; r < R; r++) {
        row[r] = w + (size_t)((uint32_t)r < rows ? (uint32_t)r : rows - 1) * n_in;
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            sum[r][i] = _mm256_setzero_ps();
        }
    }
    uint32_t k = 0;
    for (; k + 8 <= n_in; k += 8) {
        __m256 value[3];
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            value[i] = _mm256_loadu_ps(x + (size_t)i * n_in + k);
        }
        QYI_UNROLL
        for (int r = 0; r < R; r++) {
            const __m256 part = _mm256_loadu_ps(row[r] + k);
            QYI_UNROLL
            for (int i = 0; i < M; i++) {
                sum[r][i] = _mm256_fmadd_ps(part, value[i], sum[r][i]);
            }
        }
    }
    if (k < n_in) {
        const __m256i mask = lanes_below(n_in - k);
        QYI_UNROLL
        for (int i = 0; i < M; i++) {
            const __m256 value = _mm256_maskload_ps(x + (size_t)i * n_in + k, mask);
            QYI_UNROLL
            for (int r = 0; r < R; r++) {
                const __m256 part = _mm256_maskload_ps(row[r] + k, mask);
                sum[r][i] = _mm256_fmadd_ps(part, value, sum[r][i]);
            }
        }
    }
    QYI_UNROLL
    for (int i = 0; i < M; i++) {
        QYI_UNROLL
        for (int r = 0; r < R; r += 4) {
            const __m128 four = fold4(sum[r][i], sum[r + 1][i], sum[r + 2][i], sum[r + 3][i]);
            const uint32_t left = rows > (uint32_t)r ? rows - (uint32_t)r : 0;
            if (left >= 4) {
                _mm_storeu_ps(y + (size_t)i * ldy + r, four);
            } else if (left > 0) {
                _mm_maskstore_ps(y + (size_t)i * ldy + r, _mm256_castsi256_si128(lanes_below(left)),
                                 four);
            }
        }
    }
}

DEFINE_BAND(8, 1)
DEFINE_BAND(4, 2)
DEFINE_BAND(4, 3)

void qyi_multiply_avx2(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                       float *y, size_t ldy)
{
    static const band_fn band[] = {band_1, band_2, band_3};
    multiply_bands(band, 3, w, rows, n_in, x, m, y, ldy);
}
#endif
