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

/* Places of the bits of a mask of 4 (in hexadecimal), lowest first, a byte each; and their number. */
/* clang-format off */
enum {
    PLACES_0 = 0, COUNT_0 = 0,
    PLACES_1 = 0, COUNT_1 = 1,
    PLACES_2 = 0x01, COUNT_2 = 1,
    PLACES_3 = 0x0100, COUNT_3 = 2,
    PLACES_4 = 0x02, COUNT_4 = 1,
    PLACES_5 = 0x0200, COUNT_5 = 2,
    PLACES_6 = 0x0201, COUNT_6 = 2,
    PLACES_7 = 0x020100, COUNT_7 = 3,
    PLACES_8 = 0x03, COUNT_8 = 1,
    PLACES_9 = 0x0300, COUNT_9 = 2,
    PLACES_A = 0x0301, COUNT_A = 2,
    PLACES_B = 0x030100, COUNT_B = 3,
    PLACES_C = 0x0302, COUNT_C = 2,
    PLACES_D = 0x030200, COUNT_D = 3,
    PLACES_E = 0x030201, COUNT_E = 3,
    PLACES_F = 0x03020100, COUNT_F = 4
};
/* clang-format on */
/* Of a mask of 8: those of the low half, then those of the high half moved up behind them. */
#define ORDER(h, l) (PLACES_##l | (uint64_t)(PLACES_##h + 0x04040404) << (8 * COUNT_##l))
#define ORDERS(h)                                                                                  \
    ORDER(h, 0), ORDER(h, 1), ORDER(h, 2), ORDER(h, 3), ORDER(h, 4), ORDER(h, 5), ORDER(h, 6),     \
        ORDER(h, 7), ORDER(h, 8), ORDER(h, 9), ORDER(h, A), ORDER(h, B), ORDER(h, C), ORDER(h, D), \
        ORDER(h, E), ORDER(h, F)
static const uint64_t orders[256] = {
    ORDERS(0), ORDERS(1), ORDERS(2), ORDERS(3), ORDERS(4), ORDERS(5), ORDERS(6), ORDERS(7),
    ORDERS(8), ORDERS(9), ORDERS(A), ORDERS(B), ORDERS(C), ORDERS(D), ORDERS(E), ORDERS(F)};

static inline __m256i words_order(uint32_t mask)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)&orders[mask]));
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
static inline __m256 words_mass(const uint32_t *k, uint32_t least)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)k);
    const __m256i high = _mm256_max_epu32(v, _mm256_set1_epi32((int)least));
    const __m256i bits = _mm256_and_si256(v, _mm256_set1_epi32(0x7fffffff));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpeq_epi32(v, high), bits));
}
static inline void words_masses(double sums[16], const uint32_t *k, uint32_t n, uint32_t x)
{
    const uint32_t least = x > 0x80000000U ? x : 0x80000001U;
    __m256d acc[4];
    for (int j = 0; j < 4; j++) {
        acc[j] = _mm256_loadu_pd(sums + (size_t)4 * j);
    }
    for (uint32_t i = 0; i < n; i += 16) {
        const __m256 a = words_mass(k + i, least);
        const __m256 b = words_mass(k + i + 8, least);
        acc[0] = _mm256_add_pd(acc[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a)));
        acc[1] = _mm256_add_pd(acc[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
        acc[2] = _mm256_add_pd(acc[2], _mm256_cvtps_pd(_mm256_castps256_ps128(b)));
        acc[3] = _mm256_add_pd(acc[3], _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1)));
    }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_pd(sums + (size_t)4 * j, acc[j]);
    }
}

#include "gpu/host/topk_body.h"
#include "gpu/host/union_body.h"

const struct qyi_topk_kernels qyi_topk_avx2 = {.topk = topk_item, .unite = union_item};
#endif
