/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of codes need beside the words of vec_avx512.h: 16 words of a 4-bit code are
 * 16 / VEC_N vectors.
 *
 *   code_first_best   the lowest lane of the largest; no number counts as -inf
 *   code_bounds       least and largest of 16 floats, of four such rows
 *   code_score         base + step * sum, rounded once
 *   code_exp_make, _of   exp(base + step * sum) of VEC_N sums, none above `most`, where it is not
 *                        above 1
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
static inline vec code_score(vec step, vec sum, vec base)
{
    return vec_fma(step, sum, base);
}
/* A product of table entries, by five bits each of what a sum lacks to the largest: none of them is
 * above 1. */
struct code_exp {
    __m512i most;
    vec low[2], middle[2], high[2];
    int two; /* ten bits suffice */
};
static inline void code_exp_table(vec table[2], float base, float step)
{
    const vec places = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    table[0] = vec_exp(vec_fma(places, vec_set1(step), vec_set1(base)));
    table[1] = vec_exp(vec_fma(vec_add(places, vec_set1(16.0F)), vec_set1(step), vec_set1(base)));
}
static inline struct code_exp code_exp_make(float base, float step, uint32_t most)
{
    struct code_exp e = {.most = _mm512_set1_epi32((int)most), .two = most < 1024};
    code_exp_table(e.low, base + step * (float)most, -step);
    code_exp_table(e.middle, 0.0F, -32.0F * step);
    code_exp_table(e.high, 0.0F, -1024.0F * step);
    return e;
}
static inline vec code_exp_of(const struct code_exp *e, const uint16_t *sums)
{
    const __m512i s = _mm512_sub_epi32(
        e->most, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)sums)));
    const vec low = _mm512_permutex2var_ps(e->low[0], s, e->low[1]);
    const vec middle = _mm512_permutex2var_ps(e->middle[0], _mm512_srli_epi32(s, 5), e->middle[1]);
    if (e->two) {
        return vec_mul(low, middle);
    }
    const vec high = _mm512_permutex2var_ps(e->high[0], _mm512_srli_epi32(s, 10), e->high[1]);
    return vec_mul(vec_mul(low, middle), high);
}

#endif
