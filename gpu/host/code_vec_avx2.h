/* SPDX-License-Identifier: Apache-2.0 */
/* The words of code_vec_avx512.h in AVX2. */
#ifndef QY_GPU_HOST_CODE_VEC_AVX2_H
#define QY_GPU_HOST_CODE_VEC_AVX2_H

#include <math.h>

#include "gpu/host/vec_avx2.h"

static inline uint32_t code_first_best(const vec *s)
{
    const vec x = _mm256_max_ps(s[0], _mm256_set1_ps(-INFINITY));
    const vec y = _mm256_max_ps(s[1], _mm256_set1_ps(-INFINITY));
    vec best = _mm256_max_ps(x, y);
    best = _mm256_max_ps(best, _mm256_permute2f128_ps(best, best, 1));
    best = _mm256_max_ps(best, _mm256_permute_ps(best, _MM_SHUFFLE(1, 0, 3, 2)));
    best = _mm256_max_ps(best, _mm256_permute_ps(best, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)__builtin_ctz(
        (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x, best, _CMP_EQ_OQ)) |
        (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(y, best, _CMP_EQ_OQ)) << 8);
}
static inline void code_bounds(const float *rows, float low[4], float high[4])
{
    __m256 least[4];
    __m256 most[4];
    for (int i = 0; i < 4; i++) {
        const __m256 x = _mm256_loadu_ps(rows + 16 * i), y = _mm256_loadu_ps(rows + 16 * i + 8);
        least[i] = _mm256_min_ps(x, y);
        most[i] = _mm256_max_ps(x, y);
    }
    const __m256 ab_low = _mm256_min_ps(_mm256_unpacklo_ps(least[0], least[1]),
                                        _mm256_unpackhi_ps(least[0], least[1]));
    const __m256 cd_low = _mm256_min_ps(_mm256_unpacklo_ps(least[2], least[3]),
                                        _mm256_unpackhi_ps(least[2], least[3]));
    const __m256 ab_high =
        _mm256_max_ps(_mm256_unpacklo_ps(most[0], most[1]), _mm256_unpackhi_ps(most[0], most[1]));
    const __m256 cd_high =
        _mm256_max_ps(_mm256_unpacklo_ps(most[2], most[3]), _mm256_unpackhi_ps(most[2], most[3]));
    const __m256 l = _mm256_min_ps(_mm256_shuffle_ps(ab_low, cd_low, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(ab_low, cd_low, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m256 h = _mm256_max_ps(_mm256_shuffle_ps(ab_high, cd_high, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(ab_high, cd_high, _MM_SHUFFLE(3, 2, 3, 2)));
    _mm_storeu_ps(low, _mm_min_ps(_mm256_castps256_ps128(l), _mm256_extractf128_ps(l, 1)));
    _mm_storeu_ps(high, _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}
static inline void code_round(const float *s, float low, float per_step, uint8_t *to)
{
    const vec l = vec_set1(low), p = vec_set1(per_step);
    const __m256i x = _mm256_cvtps_epi32(vec_mul(vec_sub(vec_load(s), l), p));
    const __m256i y = _mm256_cvtps_epi32(vec_mul(vec_sub(vec_load(s + 8), l), p));
    const __m256i words = _mm256_packs_epi32(x, y); /* x0-3 y0-3 | x4-7 y4-7 */
    const __m256i ordered = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packus_epi16(_mm256_castsi256_si128(ordered),
                                                             _mm256_extracti128_si256(ordered, 1)));
}
static inline vec code_score(vec step, vec sum, vec base)
{
    return vec_fma(step, sum, base);
}
/* As in AVX-512, by three bits each: four tables, or five for sums of 4096 and more. */
struct code_exp {
    __m256i most;
    vec tables[5];
    int five;
};
static inline struct code_exp code_exp_make(float base, float step, uint32_t most)
{
    const vec places = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    struct code_exp e = {.most = _mm256_set1_epi32((int)most), .five = most >= 4096};
    float per_place = -step;

    e.tables[0] =
        vec_exp(vec_fma(places, vec_set1(per_place), vec_set1(base + step * (float)most)));
    for (int i = 1; i < 5; i++) {
        per_place *= 8.0F;
        e.tables[i] = vec_exp(vec_mul(places, vec_set1(per_place)));
    }
    return e;
}
/* permutevar8x32 looks at the lowest three bits alone. */
static inline vec code_exp_of(const struct code_exp *e, const uint16_t *sums)
{
    const __m256i s = _mm256_sub_epi32(
        e->most, _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)sums)));
    const vec a = _mm256_permutevar8x32_ps(e->tables[0], s);
    const vec b = _mm256_permutevar8x32_ps(e->tables[1], _mm256_srli_epi32(s, 3));
    const vec c = _mm256_permutevar8x32_ps(e->tables[2], _mm256_srli_epi32(s, 6));
    const vec d = _mm256_permutevar8x32_ps(e->tables[3], _mm256_srli_epi32(s, 9));
    const vec four = vec_mul(vec_mul(a, b), vec_mul(c, d));

    if (!e->five) {
        return four;
    }
    return vec_mul(four, _mm256_permutevar8x32_ps(e->tables[4], _mm256_srli_epi32(s, 12)));
}

#endif
