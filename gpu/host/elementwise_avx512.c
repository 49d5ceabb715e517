/* SPDX-License-Identifier: Apache-2.0 */
/* Element-wise kernels, AVX-512, and the table of the AVX-512 set. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "gpu/host/exp_avx512.h"
#include "gpu/host/kernels.h"

/* Lanes that hold elements when left of them remain. */
static inline __mmask16 lanes(size_t left)
{
    return (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
}

void qyi_norm_avx512(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                     float eps, float *out)
{
    for (uint32_t i = 0; i < m; i++, x += dim, out += dim) {
        __m512 sum = _mm512_setzero_ps();
        for (uint32_t k = 0; k < dim; k += 16) {
            const __mmask16 here = lanes(dim - k);
            __m512 v = _mm512_maskz_loadu_ps(here, x + k);
            if (y) {
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(here, y + k));
                _mm512_mask_storeu_ps(x + k, here, v);
            }
            sum = _mm512_fmadd_ps(v, v, sum);
        }
        const float mean = _mm512_reduce_add_ps(sum) / (float)dim;
        const __m512 scale = _mm512_set1_ps(1 / sqrtf(mean + eps));
        for (uint32_t k = 0; k < dim; k += 16) {
            const __mmask16 here = lanes(dim - k);
            const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(here, x + k), scale);
            const __m512 w = _mm512_maskz_loadu_ps(here, weight + k);
            _mm512_mask_storeu_ps(out + k, here, _mm512_mul_ps(v, w));
        }
        y = y ? y + dim : NULL;
    }
}

void qyi_to_bf16_avx512(const float *in, size_t n, uint16_t *out)
{
    const __m512i half = _mm512_set1_epi32(0x7fff);
    const __m512i one = _mm512_set1_epi32(1);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 here = lanes(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(here, in + i);
        const __m512i bits = _mm512_castps_si512(v);
        const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
        const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(half, even));
        const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
        const __m512i rounded = _mm512_mask_mov_epi32(up, is_nan, quiet);
        _mm512_mask_cvtepi32_storeu_epi16(out + i, here, _mm512_srli_epi32(rounded, 16));
    }
}

void qyi_swiglu_avx512(const float *gate, const float *up, size_t n, float *out)
{
    const __m512 one = _mm512_set1_ps(1);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 here = lanes(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(here, gate + i);
        const __m512 e = qyi_exp_avx512(_mm512_sub_ps(_mm512_setzero_ps(), g));
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
        const __m512 u = _mm512_maskz_loadu_ps(here, up + i);
        _mm512_mask_storeu_ps(out + i, here, _mm512_mul_ps(silu, u));
    }
}

const struct qyi_kernels qyi_kernels_avx512 = {
    .level = QY_CPU_AVX512,
    .dequantize = qyi_dequantize_avx512,
    .multiply = qyi_multiply_avx512,
    .to_bf16 = qyi_to_bf16_avx512,
    .norm = qyi_norm_avx512,
    .swiglu = qyi_swiglu_avx512,
    .rope = qyi_rope_avx2, /* a head is a few vectors: wider ones gain nothing */
};
#endif
