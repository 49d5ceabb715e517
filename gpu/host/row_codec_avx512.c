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

static inline __m512 broadcast(uint16_t f16)
{
    return _mm512_set1_ps(_cvtsh_ss(f16));
}

typedef __m512 codec_word;
#include "gpu/host/row_codec_body.h"

const struct qyi_codec_kernels qyi_codec_avx512 = {.encode = qyi_codec_encode_avx2,
                                                   .decode = decode_part};
#endif
