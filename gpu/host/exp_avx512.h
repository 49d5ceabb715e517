/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp of 16 floats. Included by AVX-512 kernel files only.
 *
 * Relative error at most 1.2e-7; exp(0) is exactly 1; NaN stays NaN; -inf gives 0, and arguments
 * past the range of floats give 0 or inf.
 *
 * x = n ln2 + r with |r| <= ln2/2; e^r = 1 + r + r^2 Q(r), Q a minimax polynomial of degree 4
 * (weighted least squares on the interval); the result is e^r 2^n.
 */
#ifndef QY_GPU_HOST_EXP_AVX512_H
#define QY_GPU_HOST_EXP_AVX512_H

#include <immintrin.h>

static inline __m512 qyi_exp_avx512(__m512 x)
{
    /* The constant comes first: max and min return their second operand for NaN. */
    x = _mm512_min_ps(_mm512_set1_ps(89.0F), _mm512_max_ps(_mm512_set1_ps(-104.0F), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0F)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e400p-1F), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20F), r);
    __m512 q = _mm512_set1_ps(0x1.6a23cep-10F);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a20p-7F));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f2p-5F));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555492p-3F));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2F));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0F));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0F));
    return _mm512_scalef_ps(q, n);
}

#endif
