/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-bit keys in AVX-512. A chunk of 16 words becomes two vectors of 32 nibbles each; a head
 * multiplies them with its values and adds pairs (madd): 16 sums of 32 bits a key. Four keys at a
 * time are folded to 4 x 4 sums, 16 keys to one vector of 16 scores.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "gpu/host/kernels.h"

enum { TILE = 16, HALF = 32, CHUNK_VALUES = 64 };

#include "gpu/host/key4_tile.h"

/* ---- append -------------------------------------------------------------------------------- */

/* NaN: 0; what f16 cannot hold: its largest. */
static inline __m512 tame(__m512 x)
{
    const __m512 limit = _mm512_set1_ps(65504.0F);

    x = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x);
    return _mm512_min_ps(_mm512_max_ps(x, _mm512_sub_ps(_mm512_setzero_ps(), limit)), limit);
}

static inline __mmask16 mask_of(uint32_t n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1U << n) - 1);
}

/* Nibbles of the n elements at k in the low bits of 16 lanes; 0 where there is none. */
static inline __m512i levels(const float *k, uint32_t n, __m512 low, __m512 inverse)
{
    const __mmask16 mask = mask_of(n);
    const __m512 x =
        _mm512_mul_ps(_mm512_sub_ps(tame(_mm512_maskz_loadu_ps(mask, k)), low), inverse);
    const __m512 held = _mm512_min_ps(_mm512_max_ps(x, _mm512_setzero_ps()), _mm512_set1_ps(15.0F));

    return _mm512_maskz_cvtps_epi32(mask, held);
}

static void append_avx512(const float *k, uint32_t d, uint8_t *words, uint8_t *meta)
{
    const uint32_t n_words = qyi_key4_words(d);
    __m512 least = _mm512_set1_ps(INFINITY);
    __m512 largest = _mm512_set1_ps(-INFINITY);

    for (uint32_t i = 0; i < d; i += 16) {
        const __mmask16 mask = mask_of(d - i);
        const __m512 x = tame(_mm512_maskz_loadu_ps(mask, k + i));
        least = _mm512_mask_min_ps(least, mask, least, x);
        largest = _mm512_mask_max_ps(largest, mask, largest, x);
    }
    const float bottom = _mm512_reduce_min_ps(least);
    const float range = _mm512_reduce_max_ps(largest) - bottom;
    const uint16_t pair[2] = {(uint16_t)_cvtss_sh(bottom, _MM_FROUND_TO_NEAREST_INT),
                              (uint16_t)_cvtss_sh(range / 15.0F, _MM_FROUND_TO_NEAREST_INT)};
    const float step = _cvtsh_ss(pair[1]);
    const __m512 low = _mm512_set1_ps(_cvtsh_ss(pair[0]));
    const __m512 inverse = _mm512_set1_ps(step > 0.0F ? 1.0F / step : 0.0F);
    memcpy(meta, pair, sizeof(pair));
    for (uint32_t w = 0; w < n_words; w += 16) {
        const uint32_t n = n_words - w < 16 ? n_words - w : 16;
        __m512i word = _mm512_setzero_si512();
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t at = j * n_words + w < d ? j * n_words + w : d;
            const uint32_t left = d - at;
            const __m512i n4 = levels(k + at, left < n ? left : n, low, inverse);
            word = _mm512_or_si512(word, _mm512_slli_epi32(n4, 4 * j));
        }
        _mm256_mask_storeu_epi16(words + 2 * (size_t)w, mask_of(n), _mm512_cvtepi32_epi16(word));
    }
}

/* ---- score --------------------------------------------------------------------------------- */

/* Nibbles of a chunk at p, in the order of a query's values: two vectors of 32. */
ALWAYS_INLINE void chunk_unpack(const uint8_t *p, __m512i out[2])
{
    const __m512i words =
        _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)p));
    const __m512i first = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(8));
    const __m512i low4 = _mm512_set1_epi16(15);

    out[0] = _mm512_and_si512(_mm512_srlv_epi16(words, first), low4);
    out[1] = _mm512_and_si512(_mm512_srlv_epi16(words, second), low4);
}

/* Lane i of each quarter: what that quarter of the i-th vector sums to. */
ALWAYS_INLINE __m512i fold4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));

    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Quarter i: the sum of the quarters of the i-th vector. */
ALWAYS_INLINE __m512i fold16(const __m512i x[4])
{
    const __m512i ab = _mm512_add_epi32(_mm512_shuffle_i32x4(x[0], x[1], 0x88),
                                        _mm512_shuffle_i32x4(x[0], x[1], 0xdd));
    const __m512i cd = _mm512_add_epi32(_mm512_shuffle_i32x4(x[2], x[3], 0x88),
                                        _mm512_shuffle_i32x4(x[2], x[3], 0xdd));

    return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
}

/* Dots of the tile's keys with `heads` heads, values [heads][chunks][64]. */
ALWAYS_INLINE void tile_dots(const struct tile *tile, const int16_t *values, const uint32_t chunks,
                             const uint32_t heads, __m512i dots[HEADS_MAX])
{
    __m512i quads[HEADS_MAX][4];

    for (uint32_t q = 0; q < 4; q++) {
        __m512i sums[4][HEADS_MAX];
        QYI_UNROLL
        for (uint32_t t = 0; t < 4; t++) {
            QYI_UNROLL
            for (uint32_t h = 0; h < heads; h++) {
                sums[t][h] = _mm512_setzero_si512();
            }
            for (uint32_t c = 0; c < chunks; c++) {
                __m512i n[2];
                chunk_unpack(tile->words[4 * q + t] + (size_t)c * 2 * QYI_KEY4_CHUNK, n);
                QYI_UNROLL
                for (uint32_t h = 0; h < heads; h++) {
                    const int16_t *v = values + (size_t)(h * chunks + c) * CHUNK_VALUES;
                    const __m512i sum =
                        _mm512_add_epi32(_mm512_madd_epi16(n[0], _mm512_load_si512(v)),
                                         _mm512_madd_epi16(n[1], _mm512_load_si512(v + HALF)));
                    sums[t][h] = _mm512_add_epi32(sums[t][h], sum);
                }
            }
        }
        QYI_UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            quads[h][q] = fold4(sums[0][h], sums[1][h], sums[2][h], sums[3][h]);
        }
    }
    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        dots[h] = fold16(quads[h]);
    }
}

ALWAYS_INLINE void tile_some(const struct tile *tile, const int16_t *values, const uint32_t chunks,
                             uint32_t heads, __m512i dots[HEADS_MAX])
{
    if (heads == 4) {
        tile_dots(tile, values, chunks, 4, dots);
    } else if (heads == 3) {
        tile_dots(tile, values, chunks, 3, dots);
    } else if (heads == 2) {
        tile_dots(tile, values, chunks, 2, dots);
    } else {
        tile_dots(tile, values, chunks, 1, dots);
    }
}

static void tile_heads(const struct tile *tile, const struct qyi_key4_span *span, uint32_t h,
                       uint32_t heads, uint32_t n, float scale, float *scores, size_t stride)
{
    const struct qyi_key4_query *query = span->query;
    const uint32_t chunks = qyi_key4_chunks(span->d);
    const int16_t *values = query->values + (size_t)h * chunks * CHUNK_VALUES;
    __m512i dots[HEADS_MAX];

    if (chunks == 1) {
        tile_some(tile, values, 1, heads, dots);
    } else if (chunks == 2) {
        tile_some(tile, values, 2, heads, dots);
    } else {
        tile_some(tile, values, chunks, heads, dots);
    }
    const __m512i pair = _mm512_loadu_si512(tile->pairs);
    const __m512 low = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pair));
    const __m512 step = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pair, 16)));
    for (uint32_t i = 0; i < heads; i++) {
        const __m512 by_step =
            _mm512_mul_ps(_mm512_cvtepi32_ps(dots[i]), _mm512_set1_ps(query->step[h + i]));
        const __m512 sum =
            _mm512_fmadd_ps(step, by_step, _mm512_mul_ps(low, _mm512_set1_ps(query->sum[h + i])));
        _mm512_mask_storeu_ps(scores + i * stride, mask_of(n),
                              _mm512_mul_ps(sum, _mm512_set1_ps(scale)));
    }
}

const struct qyi_key4_kernels qyi_key4_avx512 = {.append = append_avx512, .score = score_span};
#endif
