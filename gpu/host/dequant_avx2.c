/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dequantization, AVX2: eight elements at a time are widened, converted and scaled. Scale and
 * offset are one fused operation: at most one rounding less than plain C.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "gpu/dequant.h"
#include "gpu/host/kernels.h"

/* The four halves that a block begins with: scale, offset where there is one, and quants that
 * nobody reads. */
static inline __m128 read_halves(const uint8_t *in)
{
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)in));
}

static inline __m256 first(__m128 halves)
{
    return _mm256_broadcastss_ps(halves);
}

static inline __m256 second(__m128 halves)
{
    return _mm256_broadcastss_ps(_mm_movehdup_ps(halves));
}

static inline __m256i widen(const uint8_t *in)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in));
}

static inline __m256i low_bits(__m256i value, int mask)
{
    return _mm256_and_si256(value, _mm256_set1_epi32(mask));
}

/* out [8] = d * value + least */
static inline void put(__m256i value, __m256 d, __m256 least, float *out)
{
    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(value), d, least));
}

/* 16 bytes of nibbles: 32 elements. */
static inline void put_nibbles(const uint8_t *in, __m256 d, __m256 least, float *out)
{
    const __m256i a = widen(in);
    const __m256i b = widen(in + 8);
    put(low_bits(a, 15), d, least, out);
    put(low_bits(b, 15), d, least, out + 8);
    put(_mm256_srli_epi32(a, 4), d, least, out + 16);
    put(_mm256_srli_epi32(b, 4), d, least, out + 24);
}

static void from_q4_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 32; b > 0; b--, in += 18, out += 32) {
        const __m256 d = first(read_halves(in));
        put_nibbles(in + 2, d, _mm256_mul_ps(d, _mm256_set1_ps(-8)), out);
    }
}

static void from_q4_1(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 32; b > 0; b--, in += 20, out += 32) {
        const __m128 halves = read_halves(in);
        put_nibbles(in + 4, first(halves), second(halves), out);
    }
}

/* Eight nibbles and their fifth bits, which are bits from..from + 7 of high. */
static inline __m256i join_5(__m256i nibbles, uint32_t high, int from)
{
    const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i bits = _mm256_srlv_epi32(_mm256_set1_epi32((int)(high >> from)), at);
    return _mm256_or_si256(nibbles, _mm256_slli_epi32(low_bits(bits, 1), 4));
}

/* High bits [4] and nibbles [16] at in: 32 elements. */
static inline void put_fives(const uint8_t *in, __m256 d, __m256 least, float *out)
{
    uint32_t high;
    memcpy(&high, in, sizeof high);
    const __m256i a = widen(in + 4);
    const __m256i b = widen(in + 12);
    put(join_5(low_bits(a, 15), high, 0), d, least, out);
    put(join_5(low_bits(b, 15), high, 8), d, least, out + 8);
    put(join_5(_mm256_srli_epi32(a, 4), high, 16), d, least, out + 16);
    put(join_5(_mm256_srli_epi32(b, 4), high, 24), d, least, out + 24);
}

static void from_q5_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 32; b > 0; b--, in += 22, out += 32) {
        const __m256 d = first(read_halves(in));
        put_fives(in + 2, d, _mm256_mul_ps(d, _mm256_set1_ps(-16)), out);
    }
}

static void from_q5_1(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 32; b > 0; b--, in += 24, out += 32) {
        const __m128 halves = read_halves(in);
        put_fives(in + 4, first(halves), second(halves), out);
    }
}

static inline __m256 from_bytes(const uint8_t *in)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)in)));
}

static void from_q8_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 32; b > 0; b--, in += 34, out += 32) {
        const __m256 d = first(read_halves(in));
        for (int i = 0; i < 32; i += 8) {
            _mm256_storeu_ps(out + i, _mm256_mul_ps(d, from_bytes(in + 2 + i)));
        }
    }
}

/* d * scales [8], -d_min * minima [8] of a super-block. */
static inline void read_runs_k(const uint8_t *in, float scale[8], float least[8])
{
    const __m128 halves = read_halves(in);
    uint8_t scales[16];
    qyi_read_scales_k(in + 4, scales);
    const __m256 minima = _mm256_cvtepi32_ps(widen(scales + 8));
    const __m256 minus = _mm256_sub_ps(_mm256_setzero_ps(), second(halves));
    _mm256_storeu_ps(scale, _mm256_mul_ps(first(halves), _mm256_cvtepi32_ps(widen(scales))));
    _mm256_storeu_ps(least, _mm256_mul_ps(minus, minima));
}

static void from_q4_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 256; b > 0; b--, in += 144) {
        float scale[8];
        float least[8];
        read_runs_k(in, scale, least);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = in + 16 + 32 * (run / 2);
            const __m128i shift = _mm_cvtsi32_si128((run & 1) * 4);
            for (int i = 0; i < 32; i += 8) {
                put(low_bits(_mm256_srl_epi32(widen(q + i), shift), 15), _mm256_set1_ps(scale[run]),
                    _mm256_set1_ps(least[run]), out + i);
            }
        }
    }
}

static void from_q5_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 256; b > 0; b--, in += 176) {
        float scale[8];
        float least[8];
        read_runs_k(in, scale, least);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = in + 48 + 32 * (run / 2);
            const __m128i shift = _mm_cvtsi32_si128((run & 1) * 4);
            const __m128i bit = _mm_cvtsi32_si128(run);
            for (int i = 0; i < 32; i += 8) {
                const __m256i high = low_bits(_mm256_srl_epi32(widen(in + 16 + i), bit), 1);
                const __m256i low = low_bits(_mm256_srl_epi32(widen(q + i), shift), 15);
                put(_mm256_or_si256(low, _mm256_slli_epi32(high, 4)), _mm256_set1_ps(scale[run]),
                    _mm256_set1_ps(least[run]), out + i);
            }
        }
    }
}

static void from_q6_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 256; b > 0; b--, in += 210) {
        int16_t half;
        memcpy(&half, in + 208, sizeof half);
        const __m256 d = first(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
        float scale[16];
        _mm256_storeu_ps(scale, _mm256_mul_ps(d, from_bytes(in + 192)));
        _mm256_storeu_ps(scale + 8, _mm256_mul_ps(d, from_bytes(in + 200)));
        for (int eight = 0; eight < 32; eight++, out += 8) {
            const int k = eight / 4 & 3; /* quarter of the half, see dequant_k.c */
            const int i = eight % 4 * 8;
            const uint8_t *q = in + 64 * (eight / 16) + 32 * (k & 1) + i;
            const uint8_t *top = in + 128 + 32 * (eight / 16) + i;
            const __m256i low =
                low_bits(_mm256_srl_epi32(widen(q), _mm_cvtsi32_si128(k / 2 * 4)), 15);
            const __m256i high =
                low_bits(_mm256_srl_epi32(widen(top), _mm_cvtsi32_si128(2 * k)), 3);
            const __m256i value = _mm256_sub_epi32(_mm256_or_si256(low, _mm256_slli_epi32(high, 4)),
                                                   _mm256_set1_epi32(32));
            _mm256_storeu_ps(
                out, _mm256_mul_ps(_mm256_set1_ps(scale[eight / 2]), _mm256_cvtepi32_ps(value)));
        }
    }
}

static void from_f16(const void *in, size_t n, float *out)
{
    const uint8_t *halves = in;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i eight = _mm_loadu_si128((const __m128i *)(halves + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(eight));
    }
    qy_tensor_dequantize(QY_TYPE_F16, halves + 2 * i, n - i, out + i);
}

static void from_bf16(const void *in, size_t n, float *out)
{
    const uint8_t *halves = in;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i words =
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(halves + 2 * i)));
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
    }
    qy_tensor_dequantize(QY_TYPE_BF16, halves + 2 * i, n - i, out + i);
}

/* In the order of gpu/tensor_type.c. */
const qyi_dequantize_fn qyi_dequantize_avx2[QYI_N_TYPES] = {
    NULL,      from_f16,  from_bf16, from_q4_0, from_q4_1, from_q5_0,
    from_q5_1, from_q8_0, from_q4_k, from_q5_k, from_q6_k,
};
#endif
