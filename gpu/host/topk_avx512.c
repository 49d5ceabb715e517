/* SPDX-License-Identifier: Apache-2.0 */
/* Selection in AVX-512. The words are explained in topk_plain.c. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gpu/host/topk.h"

enum { WORD_N = 16 };

static inline uint32_t words_not_below(const float *s, float x)
{
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(s), _mm512_set1_ps(x), _CMP_GE_OQ);
}
static inline uint32_t words_above(const float *s, float x)
{
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(s), _mm512_set1_ps(x), _CMP_GT_OQ);
}
static inline uint32_t words_between(const uint32_t *k, uint32_t lo, uint32_t hi)
{
    const __m512i v = _mm512_loadu_si512(k);
    const __mmask16 high = _mm512_cmpge_epu32_mask(v, _mm512_set1_epi32((int)lo));
    return _mm512_mask_cmple_epu32_mask(high, v, _mm512_set1_epi32((int)hi));
}
/* Compressed in a register and stored whole: compressing stores are slow on some processors. */
static inline void words_keep(uint32_t *to, const void *from, uint32_t mask)
{
    const __m512i v = _mm512_loadu_si512(from);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32((__mmask16)mask, v));
}
static inline void words_places(uint32_t *to, uint32_t at, uint32_t mask)
{
    const __m512i v =
        _mm512_add_epi32(_mm512_set1_epi32((int)at),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32((__mmask16)mask, v));
}
static inline __m512d words_mass(const uint32_t *k, uint32_t least)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)k);
    const __mmask8 take = _mm256_cmpge_epu32_mask(v, _mm256_set1_epi32((int)least));
    const __m256i bits = _mm256_maskz_and_epi32(take, v, _mm256_set1_epi32(0x7fffffff));
    return _mm512_cvtps_pd(_mm256_castsi256_ps(bits));
}
static inline void words_masses(double sums[16], const uint32_t *k, uint32_t n, uint32_t x)
{
    const uint32_t least = x > 0x80000000U ? x : 0x80000001U;
    __m512d low = _mm512_loadu_pd(sums);
    __m512d high = _mm512_loadu_pd(sums + 8);
    for (uint32_t i = 0; i < n; i += 16) {
        low = _mm512_add_pd(low, words_mass(k + i, least));
        high = _mm512_add_pd(high, words_mass(k + i + 8, least));
    }
    _mm512_storeu_pd(sums, low);
    _mm512_storeu_pd(sums + 8, high);
}

#include "gpu/host/topk_body.h"
#include "gpu/host/union_body.h"

const struct qyi_topk_kernels qyi_topk_avx512 = {.topk = topk_item, .unite = union_item};
#endif
