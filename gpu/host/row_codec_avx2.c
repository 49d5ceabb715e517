/* SPDX-License-Identifier: Apache-2.0 */
/* Coded rows in AVX2 and F16C. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gpu/host/row_codec.h"

static inline __m256 elements(const uint8_t *plain)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)plain));
}

static inline float least_of(__m256 x)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

static inline float largest_of(__m256 x)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Codes of 8 elements in 8 lanes of 32 bits. */
static inline __m256i codes_of(const uint8_t *plain, __m256 low, __m256 inverse, __m256 levels)
{
    const __m256 x = _mm256_mul_ps(_mm256_sub_ps(elements(plain), low), inverse);

    return _mm256_cvtps_epi32(_mm256_min_ps(x, levels));
}

/* The lanes of a and b as bytes, in order. */
static inline __m128i bytes_of(__m256i a, __m256i b)
{
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);

    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

static inline void encode_chunk(const uint8_t *plain, __m256 low, __m256 inverse, uint32_t bits,
                                uint8_t *codes)
{
    const __m256 levels = _mm256_set1_ps(bits == 8 ? 255.0F : 15.0F);
    const __m128i first =
        bytes_of(codes_of(plain, low, inverse, levels), codes_of(plain + 16, low, inverse, levels));
    const __m128i second = bytes_of(codes_of(plain + 32, low, inverse, levels),
                                    codes_of(plain + 48, low, inverse, levels));
    __m128i *out = (__m128i *)(void *)codes;

    if (bits == 8) {
        _mm_storeu_si128(out, first);
        _mm_storeu_si128(out + 1, second);
    } else { /* codes are below 16: a shift of words shifts each byte alone */
        _mm_storeu_si128(out, _mm_or_si128(first, _mm_slli_epi16(second, 4)));
    }
}

void qyi_codec_encode_avx2(const uint8_t *plain, uint32_t d, uint32_t group, uint32_t bits,
                           uint8_t *coded)
{
    uint8_t *codes = coded + (size_t)d / group * QYI_CODEC_META;

    for (uint32_t g = 0; g < d; g += group, coded += QYI_CODEC_META) {
        const uint8_t *from = plain + 2 * (size_t)g;
        __m256 least = elements(from);
        __m256 largest = least;
        for (uint32_t i = 8; i < group; i += 8) {
            const __m256 x = elements(from + 2 * (size_t)i);
            least = _mm256_min_ps(least, x);
            largest = _mm256_max_ps(largest, x);
        }
        const float low = least_of(least) + 0.0F;
        const uint16_t meta[2] = {qy_f16_from_f32(low), qyi_codec_step(largest_of(largest) - low,
                                                                       bits == 8 ? 255.0F : 15.0F)};
        const float step = qy_f32_from_f16(meta[1]);
        const __m256 inverse = _mm256_set1_ps(step > 0.0F ? 1.0F / step : 0.0F);
        memcpy(coded, meta, sizeof(meta));
        for (uint32_t i = 0; i < group; i += QYI_CODEC_CHUNK) {
            encode_chunk(from + 2 * (size_t)i, _mm256_set1_ps(low), inverse, bits, codes);
            codes += QYI_CODEC_CHUNK * bits / 8;
        }
    }
}

/* 16 codes, a byte each, to 16 elements. */
static inline void decode16(__m128i codes, __m256 low, __m256 step, uint8_t *plain)
{
    const __m256 largest = _mm256_set1_ps(QYI_CODEC_LARGEST);

    for (int i = 0; i < 2; i++, codes = _mm_srli_si128(codes, 8)) {
        const __m256 code = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
        const __m256 x = _mm256_min_ps(_mm256_fmadd_ps(step, code, low), largest);
        _mm_storeu_si128((__m128i *)(void *)(plain + (size_t)16 * (size_t)i),
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
}

static inline __m256 broadcast(uint16_t f16)
{
    return _mm256_set1_ps(_cvtsh_ss(f16));
}

typedef __m256 codec_word;
#include "gpu/host/row_codec_body.h"

const struct qyi_codec_kernels qyi_codec_avx2 = {.encode = qyi_codec_encode_avx2,
                                                 .decode = decode_part};
#endif
