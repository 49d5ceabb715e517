/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-bit keys in AVX2. A chunk of 16 words becomes four vectors of 16 nibbles; a head multiplies
 * them with its values and adds pairs (madd): 8 sums of 32 bits a key. Eight keys are folded to one
 * vector of 8 scores.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "gpu/host/kernels.h"

enum { TILE = 8, CHUNK_VALUES = 64 };

#include "gpu/host/key4_tile.h"

/* ---- append -------------------------------------------------------------------------------- */

/* NaN: 0; what f16 cannot hold: its largest. */
static inline __m256 tame(__m256 x)
{
    const __m256 limit = _mm256_set1_ps(65504.0F);

    x = _mm256_and_ps(_mm256_cmp_ps(x, x, _CMP_ORD_Q), x);
    return _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-65504.0F)), limit);
}

/* n of 8 lanes, n may be more. */
static inline __m256i mask_of(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Nibbles of the n elements at k in the low bits of 8 lanes; 0 where there is none. */
static inline __m256i levels(const float *k, uint32_t n, __m256 low, __m256 inverse)
{
    const __m256i mask = mask_of(n);
    const __m256 x = _mm256_mul_ps(_mm256_sub_ps(tame(_mm256_maskload_ps(k, mask)), low), inverse);
    const __m256 held = _mm256_min_ps(_mm256_max_ps(x, _mm256_setzero_ps()), _mm256_set1_ps(15.0F));

    return _mm256_and_si256(mask, _mm256_cvtps_epi32(held));
}

static void append_avx2(const float *k, uint32_t d, uint8_t *words, uint8_t *meta)
{
    const uint32_t n_words = qyi_key4_words(d);
    __m256 least = _mm256_set1_ps(INFINITY);
    __m256 largest = _mm256_set1_ps(-INFINITY);
    float ends[2][8];

    for (uint32_t i = 0; i < d; i += 8) {
        const __m256i mask = mask_of(d - i);
        const __m256 x = tame(_mm256_maskload_ps(k + i, mask));
        least = _mm256_blendv_ps(least, _mm256_min_ps(least, x), _mm256_castsi256_ps(mask));
        largest = _mm256_blendv_ps(largest, _mm256_max_ps(largest, x), _mm256_castsi256_ps(mask));
    }
    _mm256_storeu_ps(ends[0], least);
    _mm256_storeu_ps(ends[1], largest);
    for (uint32_t i = 1; i < 8; i++) {
        ends[0][0] = ends[0][i] < ends[0][0] ? ends[0][i] : ends[0][0];
        ends[1][0] = ends[1][i] > ends[1][0] ? ends[1][i] : ends[1][0];
    }
    const float range = (ends[1][0] - ends[0][0]) / 15.0F;
    const uint16_t pair[2] = {(uint16_t)_cvtss_sh(ends[0][0], _MM_FROUND_TO_NEAREST_INT),
                              (uint16_t)_cvtss_sh(range, _MM_FROUND_TO_NEAREST_INT)};
    const float step = _cvtsh_ss(pair[1]);
    const __m256 low = _mm256_set1_ps(_cvtsh_ss(pair[0]));
    const __m256 inverse = _mm256_set1_ps(step > 0.0F ? 1.0F / step : 0.0F);
    memcpy(meta, pair, sizeof(pair));
    for (uint32_t w = 0; w < n_words; w += 8) {
        const uint32_t n = n_words - w < 8 ? n_words - w : 8;
        uint16_t packed[8];
        __m256i word = _mm256_setzero_si256();
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t at = j * n_words + w < d ? j * n_words + w : d;
            const uint32_t left = d - at;
            const __m256i n4 = levels(k + at, left < n ? left : n, low, inverse);
            word = _mm256_or_si256(word, _mm256_slli_epi32(n4, (int)(4 * j)));
        }
        _mm_storeu_si128(
            (__m128i *)(void *)packed,
            _mm_packus_epi32(_mm256_castsi256_si128(word), _mm256_extracti128_si256(word, 1)));
        memcpy(words + 2 * (size_t)w, packed, 2 * (size_t)n);
    }
}

/* ---- score --------------------------------------------------------------------------------- */

ALWAYS_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Nibbles of a chunk at p, in the order of a query's values: four vectors of 16. */
ALWAYS_INLINE void chunk_unpack(const uint8_t *p, __m256i out[4])
{
    const __m256i low4 = _mm256_set1_epi16(15);
    const __m256i words = load(p);

    out[0] = _mm256_and_si256(words, low4);
    out[1] = _mm256_and_si256(_mm256_srli_epi16(words, 4), low4);
    out[2] = _mm256_and_si256(_mm256_srli_epi16(words, 8), low4);
    out[3] = _mm256_srli_epi16(words, 12);
}

/* Lane i of each half: what that half of the i-th vector sums to. */
ALWAYS_INLINE __m256i fold4(const __m256i x[4])
{
    return _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
}

/* Dots of the tile's keys with `heads` heads, values [heads][chunks][64]. */
ALWAYS_INLINE void tile_dots(const struct tile *tile, const int16_t *values, const uint32_t chunks,
                             const uint32_t heads, __m256i dots[HEADS_MAX])
{
    __m256i sums[HEADS_MAX][TILE]; /* does not fit the registers: stays in the nearest cache */

    for (uint32_t t = 0; t < TILE; t++) {
        __m256i sum[HEADS_MAX];
        QYI_UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            sum[h] = _mm256_setzero_si256();
        }
        for (uint32_t c = 0; c < chunks; c++) {
            __m256i n[4];
            chunk_unpack(tile->words[t] + (size_t)c * 2 * QYI_KEY4_CHUNK, n);
            QYI_UNROLL
            for (uint32_t h = 0; h < heads; h++) {
                const int16_t *v = values + (size_t)(h * chunks + c) * CHUNK_VALUES;
                const __m256i a = _mm256_add_epi32(_mm256_madd_epi16(n[0], load(v)),
                                                   _mm256_madd_epi16(n[1], load(v + 16)));
                const __m256i b = _mm256_add_epi32(_mm256_madd_epi16(n[2], load(v + 32)),
                                                   _mm256_madd_epi16(n[3], load(v + 48)));
                sum[h] = _mm256_add_epi32(sum[h], _mm256_add_epi32(a, b));
            }
        }
        QYI_UNROLL
        for (uint32_t h = 0; h < heads; h++) {
            sums[h][t] = sum[h];
        }
    }
    QYI_UNROLL
    for (uint32_t h = 0; h < heads; h++) {
        const __m256i first = fold4(sums[h]);
        const __m256i second = fold4(sums[h] + 4);
        dots[h] = _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                                   _mm256_permute2x128_si256(first, second, 0x31));
    }
}

ALWAYS_INLINE void tile_some(const struct tile *tile, const int16_t *values, const uint32_t chunks,
                             uint32_t heads, __m256i dots[HEADS_MAX])
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
    __m256i dots[HEADS_MAX];

    if (chunks == 1) {
        tile_some(tile, values, 1, heads, dots);
    } else if (chunks == 2) {
        tile_some(tile, values, 2, heads, dots);
    } else {
        tile_some(tile, values, chunks, heads, dots);
    }
    const __m256i pair = load(tile->pairs);
    /* halves of both kinds, each 4 lows beside 4 steps, brought together */
    const __m256i halves = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(_mm256_and_si256(pair, _mm256_set1_epi32(0xffff)),
                            _mm256_srli_epi32(pair, 16)),
        0xd8);
    const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    const __m256 step = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
    for (uint32_t i = 0; i < heads; i++) {
        const __m256 by_step =
            _mm256_mul_ps(_mm256_cvtepi32_ps(dots[i]), _mm256_set1_ps(query->step[h + i]));
        const __m256 sum =
            _mm256_fmadd_ps(step, by_step, _mm256_mul_ps(low, _mm256_set1_ps(query->sum[h + i])));
        _mm256_maskstore_ps(scores + i * stride, mask_of(n),
                            _mm256_mul_ps(sum, _mm256_set1_ps(scale)));
    }
}

const struct qyi_key4_kernels qyi_key4_avx2 = {.append = append_avx2, .score = score_span};
#endif
