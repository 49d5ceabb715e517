/* SPDX-License-Identifier: Apache-2.0 */
/* Coded rows in AVX-512. Encoding is AVX2's: a row is encoded once, and decoded many times. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "gpu/host/row_codec.h"

/* 16 codes, a byte each, to 16 elements. */
static inline void decode16(__m128i codes, __m512 low, __m512 step, uint8_t *plain)
{
    const __m512 code = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
    const __m512 x =
        _mm512_min_ps(_mm512_fmadd_ps(step, code, low), _mm512_set1_ps(QYI_CODEC_LARGEST));

    _mm256_storeu_si256((__m256i *)(void *)plain, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

static void decode_avx512(const uint8_t *coded, uint32_t d, uint32_t group, uint32_t bits,
                          uint8_t *plain)
{
    const uint8_t *codes = coded + (size_t)d / group * QYI_CODEC_META;
    const __m128i low4 = _mm_set1_epi8(15);

    for (uint32_t i = 0; i < d; i += QYI_CODEC_CHUNK, plain += 2 * QYI_CODEC_CHUNK) {
        uint16_t meta[2];
        memcpy(meta, coded + (size_t)i / group * QYI_CODEC_META, sizeof(meta));
        const __m512 low = _mm512_set1_ps(_cvtsh_ss(meta[0]));
        const __m512 step = _mm512_set1_ps(_cvtsh_ss(meta[1]));
        const __m128i first = _mm_loadu_si128((const __m128i *)(const void *)codes);
        if (bits == 8) {
            decode16(first, low, step, plain);
            decode16(_mm_loadu_si128((const __m128i *)(const void *)(codes + 16)), low, step,
                     plain + QYI_CODEC_CHUNK);
        } else {
            decode16(_mm_and_si128(first, low4), low, step, plain);
            decode16(_mm_and_si128(_mm_srli_epi16(first, 4), low4), low, step,
                     plain + QYI_CODEC_CHUNK);
        }
        codes += QYI_CODEC_CHUNK * bits / 8;
    }
}

const struct qyi_codec_kernels qyi_codec_avx512 = {.encode = qyi_codec_encode_avx2,
                                                   .decode = decode_avx512};
#endif
