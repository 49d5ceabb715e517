/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding a part of a coded row, K or V, in words of AVX2 or AVX-512. The file that includes it defines
 * codec_word, broadcast (an f16 to all elements) and decode16 (16 codes, a byte each).
 */
#ifndef QY_GPU_HOST_ROW_CODEC_BODY_H
#define QY_GPU_HOST_ROW_CODEC_BODY_H

#include <immintrin.h>
#include <string.h>

#include "gpu/host/row_codec.h"

/* As qyi_codec_kernels.decode. */
static void decode_part(const uint8_t *coded, uint32_t d, uint32_t group, uint32_t bits,
                        uint8_t *plain)
{
    const uint8_t *codes = coded + (size_t)d / group * QYI_CODEC_META;
    const __m128i low4 = _mm_set1_epi8(15);

    for (uint32_t i = 0; i < d; i += QYI_CODEC_CHUNK, plain += 2 * QYI_CODEC_CHUNK) {
        uint16_t meta[2];
        memcpy(meta, coded + (size_t)i / group * QYI_CODEC_META, sizeof(meta));
        const codec_word low = broadcast(meta[0]);
        const codec_word step = broadcast(meta[1]);
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

#endif
