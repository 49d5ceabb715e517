/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp of 8 floats. Included by AVX2 kernel files only.
 *
 * Relative error at most 1.2e-7; exp(0) is exactly 1; NaN stays NaN. Arguments below -87.3 give
 * 0 (no denormal results), above 88.7 the largest value near 3.2e38, not inf.
 *
 * x = n ln2 + r with |r| <= ln2/2; e^r = 1 + r + r^2 Q(r), Q a minimax polynomial of degree 4
 * (weighted least squares on the interval); the result is e^r 2^n.
 */
#ifndef QY_GPU_HOST_EXP_AVX2_H
#define QY_GPU_HOST_EXP_AVX2_H

#include <immintrin.h>

static inline __m256 qyi_exp_avx2(__m256 x)
{
    const __m256 low = _mm256_set1_ps(-87.33F);
    const __m256 tiny = _mm256_cmp_ps(x, low, _CMP_LT_OQ);
    /* The constant comes first: max and min return their second operand for NaN. */
    x = _mm256_min_ps(_mm256_set1_ps(88.7F), _mm256_max_ps(low, x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0F)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e400p-1F), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20F), r);
    __m256 q = _mm256_set1_ps(0x1.6a23cep-10F);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.123a20p-7F));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f2p-5F));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555492p-3F));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2F));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0F));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0F));
    /* 2^n in two factors, so that n = 128 does not overflow the exponent field. */
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    q = _mm256_mul_ps(_mm256_mul_ps(q, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
    return _mm256_andnot_ps(tiny, q);
}

#endif
