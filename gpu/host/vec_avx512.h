/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector words in which the row kernels (*_body.h) are written, in AVX-512. A file of kernels
 * includes exactly one of vec_avx512.h, vec_avx2.h, vec_plain.h, vec_scalar.h, then the bodies.
 *
 *   VEC_N      lanes                        VEC_ACC     accumulators that fit the registers
 *   CHUNK_MR   broadcast values x CHUNK_NV  vectors: register block of the prefill kernel
 */
#ifndef QY_GPU_HOST_VEC_AVX512_H
#define QY_GPU_HOST_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "gpu/host/exp_avx512.h"

enum { VEC_N = 16, VEC_ACC = 24, CHUNK_MR = 8, CHUNK_NV = 3 };

typedef __m512 vec;

static inline vec vec_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
static inline vec vec_load_u16(const uint16_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)));
}
static inline vec vec_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void vec_store_f16(void *p, vec v)
{
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
/* a * b + c */
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* b where a is NaN. */
static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
static inline vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
static inline vec vec_exp(vec v)
{
    return qyi_exp_avx512(v);
}
/* x where a >= b, else y. */
static inline vec vec_select_ge(vec a, vec b, vec x, vec y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), y, x);
}
/* Does any lane lack |v| < limit? NaN lacks it. */
static inline int vec_any_not_below(vec v, float limit)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(limit), _CMP_NLT_UQ) != 0;
}
static inline float vec_hsum(vec v)
{
    return _mm512_reduce_add_ps(v);
}
static inline float vec_hmax(vec v)
{
    return _mm512_reduce_max_ps(v);
}
/* out[i] = sum of the lanes of the i-th vector. */
static inline void vec_hsum4(vec a, vec b, vec c, vec d, float out[4])
{
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 s = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

#endif
