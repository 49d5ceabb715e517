/* SPDX-License-Identifier: Apache-2.0 */
/* Element-wise kernels, AVX2, and the table of the AVX2 set. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "gpu/host/exp_avx2.h"
#include "gpu/host/kernels.h"

static float fold(__m256 a)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

void qyi_norm_avx2(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                   float eps, float *out)
{
    for (uint32_t i = 0; i < m; i++, x += dim, out += dim) {
        __m256 sum = _mm256_setzero_ps();
        uint32_t k = 0;
        for (; k + 8 <= dim; k += 8) {
            __m256 v = _mm256_loadu_ps(x + k);
            if (y) {
                v = _mm256_add_ps(v, _mm256_loadu_ps(y + k));
                _mm256_storeu_ps(x + k, v);
            }
            sum = _mm256_fmadd_ps(v, v, sum);
        }
        float total = fold(sum);
        for (; k < dim; k++) {
            if (y) {
                x[k] += y[k];
            }
            total += x[k] * x[k];
        }
        const float scale = 1 / sqrtf(total / (float)dim + eps);
        for (k = 0; k + 8 <= dim; k += 8) {
            const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(scale));
            _mm256_storeu_ps(out + k, _mm256_mul_ps(v, _mm256_loadu_ps(weight + k)));
        }
        for (; k < dim; k++) {
            out[k] = x[k] * scale * weight[k];
        }
        y = y ? y + dim : NULL;
    }
}

void qyi_swiglu_avx2(const float *gate, const float *up, size_t n, float *out)
{
    const __m256 one = _mm256_set1_ps(1);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 e = qyi_exp_avx2(_mm256_sub_ps(_mm256_setzero_ps(), g));
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    qyi_swiglu_plain(gate + i, up + i, n - i, out + i);
}

/* Both kinds of pairs: cos_sin has cos and sin of neighbouring pairs interleaved. */
static void turn_adjacent(const float *cos_sin, uint32_t dim, float *x)
{
    uint32_t k = 0;
    for (; k + 8 <= dim; k += 8) {
        const __m256 v = _mm256_loadu_ps(x + k);
        const __m256 t = _mm256_loadu_ps(cos_sin + k);
        const __m256 swapped = _mm256_permute_ps(v, 0xb1);
        const __m256 sines = _mm256_mul_ps(swapped, _mm256_movehdup_ps(t));
        _mm256_storeu_ps(x + k, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(t), sines));
    }
    qyi_rope_plain(QY_ROPE_ADJACENT, cos_sin + k, dim - k, x + k, 1, dim - k);
}

static void turn_halves(const float *cos_sin, uint32_t half, float *x)
{
    const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    uint32_t p = 0;
    for (; p + 8 <= half; p += 8) {
        const __m256 t = _mm256_loadu_ps(cos_sin + 2 * p);
        const __m256 u = _mm256_loadu_ps(cos_sin + 2 * p + 8);
        const __m256 c = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(t, u, 0x88), order);
        const __m256 s = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(t, u, 0xdd), order);
        const __m256 a = _mm256_loadu_ps(x + p);
        const __m256 b = _mm256_loadu_ps(x + half + p);
        _mm256_storeu_ps(x + p, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + half + p, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
    }
    for (; p < half; p++) {
        const float a = x[p];
        const float b = x[half + p];
        x[p] = a * cos_sin[2 * p] - b * cos_sin[2 * p + 1];
        x[half + p] = a * cos_sin[2 * p + 1] + b * cos_sin[2 * p];
    }
}

void qyi_rope_avx2(enum qy_rope_pairs pairs, const float *cos_sin, uint32_t dim, float *x,
                   uint32_t heads, uint32_t d)
{
    for (uint32_t h = 0; h < heads; h++, x += d) {
        if (pairs == QY_ROPE_ADJACENT) {
            turn_adjacent(cos_sin, dim, x);
        } else {
            turn_halves(cos_sin, dim / 2, x);
        }
    }
}

const struct qyi_kernels qyi_kernels_avx2 = {
    .level = QY_CPU_AVX2,
    .dequantize = qyi_dequantize_avx2,
    .multiply = qyi_multiply_avx2,
    .to_bf16 = qyi_to_bf16_plain, /* processors with bf16 have AVX-512 */
    .norm = qyi_norm_avx2,
    .swiglu = qyi_swiglu_avx2,
    .rope = qyi_rope_avx2,
};
#endif
