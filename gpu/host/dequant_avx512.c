/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dequantization, AVX-512. A nibble is looked up, not computed: the 16 values that a block can
 * take (d * 0 + m ... d * 15 + m) fit one register, and vpermps indexes by the low four bits of
 * each lane. Scale and offset are one fused operation: at most one rounding less than plain C.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "gpu/dequant.h"
#include "gpu/host/kernels.h"

static inline __m512 iota(float first)
{
    const __m512 steps = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_ps(steps, _mm512_set1_ps(first));
}

static inline __m512i widen(const uint8_t *bytes)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
}

/* The four halves that blocks begin with, of up to BATCH blocks: scale, offset where there is one,
 * and quants that nobody reads. They go through memory because broadcasting loads are free, while
 * broadcasts of registers compete with the look-ups. Returns how many blocks were read. */
enum { BATCH = 16 };
static inline size_t read_scales(const uint8_t *in, size_t stride, size_t left,
                                 float scale[BATCH][4])
{
    const size_t n = left < BATCH ? left : BATCH;
    for (size_t b = 0; b < n; b++, in += stride) {
        _mm_storeu_ps(scale[b], _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)in)));
    }
    return n;
}

/* 16 bytes: their low nibbles to out, their high nibbles to out + 16 * apart. */
static inline void put_nibbles(__m512i bytes, __m512 low, __m512 high, float *out, size_t apart)
{
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(bytes, low));
    _mm512_storeu_ps(out + apart, _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), high));
}

static void from_q4_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    const __m512 steps = iota(-8);
    float scale[BATCH][4];
    for (size_t left = n_elems / 32, n; left > 0; left -= n) {
        n = read_scales(in, 18, left, scale);
        for (size_t b = 0; b < n; b++, in += 18, out += 32) {
            const __m512 table = _mm512_mul_ps(steps, _mm512_set1_ps(scale[b][0]));
            put_nibbles(widen(in + 2), table, table, out, 16);
        }
    }
}

static void from_q4_1(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    const __m512 steps = iota(0);
    float scale[BATCH][4];
    for (size_t left = n_elems / 32, n; left > 0; left -= n) {
        n = read_scales(in, 20, left, scale);
        for (size_t b = 0; b < n; b++, in += 20, out += 32) {
            const __m512 table =
                _mm512_fmadd_ps(steps, _mm512_set1_ps(scale[b][0]), _mm512_set1_ps(scale[b][1]));
            put_nibbles(widen(in + 4), table, table, out, 16);
        }
    }
}

/* Five bits: nibbles of bytes (shifted down already) and a mask of the lanes that add 16. */
static inline __m512 look_up_5(__m512i bytes, __mmask16 high, __m512 table, __m512 upper)
{
    const __m512i nibbles = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
    const __m512i index = _mm512_mask_or_epi32(nibbles, high, nibbles, _mm512_set1_epi32(16));
    return _mm512_permutex2var_ps(table, index, upper);
}

/* A block of 32 five-bit elements: high bits and nibbles at in. */
static inline void put_fives(const uint8_t *in, __m512 table, __m512 upper, float *out)
{
    uint32_t high;
    memcpy(&high, in, sizeof high);
    const __m512i bytes = widen(in + 4);
    const __m512i shifted = _mm512_srli_epi32(bytes, 4);
    _mm512_storeu_ps(out, look_up_5(bytes, (__mmask16)high, table, upper));
    _mm512_storeu_ps(out + 16, look_up_5(shifted, (__mmask16)(high >> 16), table, upper));
}

static void from_q5_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    float scale[BATCH][4];
    for (size_t left = n_elems / 32, n; left > 0; left -= n) {
        n = read_scales(in, 22, left, scale);
        for (size_t b = 0; b < n; b++, in += 22, out += 32) {
            const __m512 d = _mm512_set1_ps(scale[b][0]);
            put_fives(in + 2, _mm512_mul_ps(d, iota(-16)), _mm512_mul_ps(d, iota(0)), out);
        }
    }
}

static void from_q5_1(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    float scale[BATCH][4];
    for (size_t left = n_elems / 32, n; left > 0; left -= n) {
        n = read_scales(in, 24, left, scale);
        for (size_t b = 0; b < n; b++, in += 24, out += 32) {
            const __m512 d = _mm512_set1_ps(scale[b][0]);
            const __m512 least = _mm512_set1_ps(scale[b][1]);
            put_fives(in + 4, _mm512_fmadd_ps(d, iota(0), least),
                      _mm512_fmadd_ps(d, iota(16), least), out);
        }
    }
}

static inline __m512 from_bytes(const uint8_t *in)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)in)));
}

static void from_q8_0(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    float scale[BATCH][4];
    for (size_t left = n_elems / 32, n; left > 0; left -= n) {
        n = read_scales(in, 34, left, scale);
        for (size_t b = 0; b < n; b++, in += 34, out += 32) {
            const __m512 d = _mm512_set1_ps(scale[b][0]);
            _mm512_storeu_ps(out, _mm512_mul_ps(from_bytes(in + 2), d));
            _mm512_storeu_ps(out + 16, _mm512_mul_ps(from_bytes(in + 18), d));
        }
    }
}

static inline __m512 read_half(const uint8_t *in)
{
    int16_t half;
    memcpy(&half, in, sizeof half);
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

/* d * scales [8] and d_min * minima [8] of a super-block into out [16]. */
static inline void read_runs_k(const uint8_t *in, float out[16])
{
    uint8_t scales[16];
    qyi_read_scales_k(in + 4, scales);
    const __m512 d = _mm512_mask_blend_ps(0xff00, read_half(in), read_half(in + 2));
    const __m512 values = _mm512_cvtepi32_ps(widen(scales));
    _mm512_storeu_ps(out, _mm512_mul_ps(d, values));
}

static inline __m512 table_k(const float runs[16], int run, __m512 steps)
{
    return _mm512_fmsub_ps(_mm512_set1_ps(runs[run]), steps, _mm512_set1_ps(runs[8 + run]));
}

static void from_q4_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    const __m512 steps = iota(0);
    for (size_t b = n_elems / 256; b > 0; b--, in += 144) {
        float runs[16];
        read_runs_k(in, runs);
        for (int run = 0; run < 8; run += 2, out += 64) {
            const uint8_t *q = in + 16 + 16 * run;
            const __m512 low = table_k(runs, run, steps);
            const __m512 high = table_k(runs, run + 1, steps);
            put_nibbles(widen(q), low, high, out, 32);
            put_nibbles(widen(q + 16), low, high, out + 16, 32);
        }
    }
}

static void from_q5_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    for (size_t b = n_elems / 256; b > 0; b--, in += 176) {
        float runs[16];
        read_runs_k(in, runs);
        const __m512i high[2] = {widen(in + 16), widen(in + 32)};
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = in + 48 + 32 * (run / 2);
            const __m512 table = table_k(runs, run, iota(0));
            const __m512 upper = table_k(runs, run, iota(16));
            const __m128i shift = _mm_cvtsi32_si128((run & 1) * 4);
            const __m512i bit = _mm512_set1_epi32(1 << run);
            for (int half = 0; half < 2; half++) {
                const __m512i bytes = _mm512_srl_epi32(widen(q + 16 * half), shift);
                const __mmask16 mask = _mm512_test_epi32_mask(high[half], bit);
                _mm512_storeu_ps(out + 16 * half, look_up_5(bytes, mask, table, upper));
            }
        }
    }
}

static void from_q6_k(const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    const __m512i low = _mm512_set1_epi32(15);
    const __m512i top = _mm512_set1_epi32(0x30);
    for (size_t b = n_elems / 256; b > 0; b--, in += 210) {
        float runs[16];
        _mm512_storeu_ps(runs, _mm512_mul_ps(read_half(in + 208), from_bytes(in + 192)));
        for (int run = 0; run < 16; run++, out += 16) {
            const int k = run / 2 & 3; /* quarter of the half, see dequant_k.c */
            const uint8_t *q = in + 64 * (run / 8) + 32 * (k & 1) + 16 * (run & 1);
            const uint8_t *high = in + 128 + 32 * (run / 8) + 16 * (run & 1);
            const __m512i nibbles =
                _mm512_and_si512(_mm512_srl_epi32(widen(q), _mm_cvtsi32_si128(k / 2 * 4)), low);
            const __m512i upper = _mm512_and_si512(
                _mm512_srl_epi32(_mm512_slli_epi32(widen(high), 4), _mm_cvtsi32_si128(2 * k)), top);
            const __m512i value =
                _mm512_sub_epi32(_mm512_or_si512(nibbles, upper), _mm512_set1_epi32(32));
            _mm512_storeu_ps(out,
                             _mm512_mul_ps(_mm512_set1_ps(runs[run]), _mm512_cvtepi32_ps(value)));
        }
    }
}

static void from_f16(const void *in, size_t n, float *out)
{
    const uint8_t *halves = in;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm512_storeu_ps(out + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(halves + 2 * i))));
    }
    qy_tensor_dequantize(QY_TYPE_F16, halves + 2 * i, n - i, out + i);
}

static void from_bf16(const void *in, size_t n, float *out)
{
    const uint8_t *halves = in;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512i words =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(halves + 2 * i)));
        _mm512_storeu_ps(out + i, _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)));
    }
    qy_tensor_dequantize(QY_TYPE_BF16, halves + 2 * i, n - i, out + i);
}

/* In the order of gpu/tensor_type.c. */
const qyi_dequantize_fn qyi_dequantize_avx512[QYI_N_TYPES] = {
    NULL,      from_f16,  from_bf16, from_q4_0, from_q4_1, from_q5_0,
    from_q5_1, from_q8_0, from_q4_k, from_q5_k, from_q6_k,
};
#endif
