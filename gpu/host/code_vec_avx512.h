/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of codes need beside the words of vec_avx512.h: 16 words of a 4-bit code are
 * 16 / VEC_N vectors.
 *
 *   code_first_best   the lowest lane of the largest; no number counts as -inf
 *   code_bounds       least and largest of 16 floats, of four such rows
 *   code_round        bytes round((s - low) * per_step), 0..255
 */
#ifndef QY_GPU_HOST_CODE_VEC_AVX512_H
#define QY_GPU_HOST_CODE_VEC_AVX512_H

#include <math.h>

#include "gpu/host/vec_avx512.h"

static inline uint32_t code_first_best(const vec *s)
{
    const vec x = _mm512_max_ps(s[0], _mm512_set1_ps(-INFINITY));
    vec best = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, _MM_SHUFFLE(1, 0, 3, 2)));
    best = _mm512_max_ps(best, _mm512_shuffle_f32x4(best, best, _MM_SHUFFLE(2, 3, 0, 1)));
    best = _mm512_max_ps(best, _mm512_permute_ps(best, _MM_SHUFFLE(1, 0, 3, 2)));
    best = _mm512_max_ps(best, _mm512_permute_ps(best, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)__builtin_ctz(_mm512_cmp_ps_mask(x, best, _CMP_EQ_OQ));
}
static inline void code_bounds(const float *rows, float low[4], float high[4])
{
    const __m512 a = _mm512_loadu_ps(rows), b = _mm512_loadu_ps(rows + 16),
                 c = _mm512_loadu_ps(rows + 32), d = _mm512_loadu_ps(rows + 48);
    const __m512 ab0 = _mm512_unpacklo_ps(a, b), ab1 = _mm512_unpackhi_ps(a, b);
    const __m512 cd0 = _mm512_unpacklo_ps(c, d), cd1 = _mm512_unpackhi_ps(c, d);
    const __m512 ab_low = _mm512_min_ps(ab0, ab1), cd_low = _mm512_min_ps(cd0, cd1);
    const __m512 ab_high = _mm512_max_ps(ab0, ab1), cd_high = _mm512_max_ps(cd0, cd1);
    const __m512 l = _mm512_min_ps(_mm512_shuffle_ps(ab_low, cd_low, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm512_shuffle_ps(ab_low, cd_low, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m512 h = _mm512_max_ps(_mm512_shuffle_ps(ab_high, cd_high, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm512_shuffle_ps(ab_high, cd_high, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m256 l2 = _mm256_min_ps(_mm512_castps512_ps256(l), _mm512_extractf32x8_ps(l, 1));
    const __m256 h2 = _mm256_max_ps(_mm512_castps512_ps256(h), _mm512_extractf32x8_ps(h, 1));
    _mm_storeu_ps(low, _mm_min_ps(_mm256_castps256_ps128(l2), _mm256_extractf128_ps(l2, 1)));
    _mm_storeu_ps(high, _mm_max_ps(_mm256_castps256_ps128(h2), _mm256_extractf128_ps(h2, 1)));
}
static inline void code_round(const float *s, float low, float per_step, uint8_t *to)
{
    const vec n = vec_mul(vec_sub(vec_load(s), vec_set1(low)), vec_set1(per_step));
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(n)));
}

#endif
