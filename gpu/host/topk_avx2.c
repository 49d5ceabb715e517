/* SPDX-License-Identifier: Apache-2.0 */
/* Selection in AVX2. The words are explained in topk_plain.c. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gpu/host/topk.h"

enum { WORD_N = 8 };

static inline uint32_t words_not_below(const float *s, float x)
{
    const __m256 v = _mm256_loadu_ps(s);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(x), _CMP_GE_OQ));
}
static inline uint32_t words_above(const float *s, float x)
{
    const __m256 v = _mm256_loadu_ps(s);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(x), _CMP_GT_OQ));
}
static inline uint32_t words_between(const uint32_t *k, uint32_t lo, uint32_t hi)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)k);
    const __m256i c = _mm256_min_epu32(_mm256_max_epu32(v, _mm256_set1_epi32((int)lo)),
                                       _mm256_set1_epi32((int)hi));
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(v, c)));
}

/* Places of the bits of a mask of 8, lowest first, a byte each: those of the low half, then those
 * of the high half moved up behind them. */
static inline __m256i words_order(uint32_t mask)
{
    static const uint32_t low[16] = {0,      0,        0x01,     0x0100,    0x02,   0x0200,
                                     0x0201, 0x020100, 0x03,     0x0300,    0x0301, 0x030100,
                                     0x0302, 0x030200, 0x030201, 0x03020100};
    const uint32_t above = mask >> 4;
    const uint64_t high = low[above] + 0x04040404U;
    const int n_low = __builtin_popcount(mask & 15);
    const uint64_t order = low[mask & 15] | (n_low == 4 ? high << 32 : high << 8 * n_low);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
}
static inline void words_keep(uint32_t *to, const void *from, uint32_t mask)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)from);
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_permutevar8x32_epi32(v, words_order(mask)));
}
static inline void words_places(uint32_t *to, uint32_t at, uint32_t mask)
{
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm256_add_epi32(_mm256_set1_epi32((int)at), words_order(mask)));
}
static inline void words_masses(double sums[8], const uint32_t *k, uint32_t x)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)k);
    const uint32_t least = x > 0x80000000U ? x : 0x80000001U;
    const __m256i high = _mm256_max_epu32(v, _mm256_set1_epi32((int)least));
    const __m256i bits = _mm256_and_si256(_mm256_cmpeq_epi32(v, high),
                                          _mm256_and_si256(v, _mm256_set1_epi32(0x7fffffff)));
    const __m256 mass = _mm256_castsi256_ps(bits);
    const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(mass));
    const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(mass, 1));
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), a));
    _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), b));
}

#include "gpu/host/topk_body.h"
#include "gpu/host/union_body.h"

const struct qyi_topk_kernels qyi_topk_avx2 = {.topk = topk_item, .unite = union_item};
#endif
