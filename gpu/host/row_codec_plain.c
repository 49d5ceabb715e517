/* SPDX-License-Identifier: Apache-2.0 */
/* Coded rows in plain C: the reference of the vector sets, which give the same bytes. */
#include <math.h>
#include <string.h>

#include "gpu/host/row_codec.h"

static float element(const uint8_t *plain, uint32_t i)
{
    uint16_t half;

    memcpy(&half, plain + (size_t)i * sizeof(half), sizeof(half));
    return qy_f32_from_f16(half);
}

/* Codes of the chunk at `plain` of 32 elements, so many bits each. */
static void encode_chunk(const uint8_t *plain, float low, float inverse, uint32_t bits,
                         uint8_t *codes)
{
    const float levels = bits == 8 ? 255.0F : 15.0F;
    uint8_t all[QYI_CODEC_CHUNK];

    for (uint32_t i = 0; i < QYI_CODEC_CHUNK; i++) {
        const float x = (element(plain, i) - low) * inverse;
        all[i] = (uint8_t)lrintf(x < levels ? x : levels);
    }
    if (bits == 8) {
        memcpy(codes, all, QYI_CODEC_CHUNK);
        return;
    }
    for (uint32_t i = 0; i < QYI_CODEC_CHUNK / 2; i++) {
        codes[i] = (uint8_t)(all[i] | all[i + QYI_CODEC_CHUNK / 2] << 4);
    }
}

static void encode_plain(const uint8_t *plain, uint32_t d, uint32_t group, uint32_t bits,
                         uint8_t *coded)
{
    const float levels = bits == 8 ? 255.0F : 15.0F;
    uint8_t *codes = coded + (size_t)d / group * QYI_CODEC_META;

    for (uint32_t g = 0; g < d; g += group, coded += QYI_CODEC_META) {
        float least = element(plain, g);
        float largest = least;
        for (uint32_t i = 1; i < group; i++) {
            const float x = element(plain, g + i);
            least = x < least ? x : least;
            largest = x > largest ? x : largest;
        }
        least += 0.0F; /* one zero: which of two a minimum takes depends on the processor */
        const uint16_t meta[2] = {qy_f16_from_f32(least), qyi_codec_step(largest - least, levels)};
        const float step = qy_f32_from_f16(meta[1]);
        memcpy(coded, meta, sizeof(meta));
        for (uint32_t i = 0; i < group; i += QYI_CODEC_CHUNK) {
            encode_chunk(plain + 2 * (size_t)(g + i), least, step > 0.0F ? 1.0F / step : 0.0F, bits,
                         codes);
            codes += QYI_CODEC_CHUNK * bits / 8;
        }
    }
}

static void decode_plain(const uint8_t *coded, uint32_t d, uint32_t group, uint32_t bits,
                         uint8_t *plain)
{
    const uint8_t *codes = coded + (size_t)d / group * QYI_CODEC_META;

    for (uint32_t i = 0; i < d; i++) {
        const uint32_t in = i % QYI_CODEC_CHUNK;
        const uint8_t *chunk = codes + (size_t)(i - in) * bits / 8;
        const uint32_t code =
            bits == 8 ? chunk[in] : (uint32_t)chunk[in % 16] >> (in < 16 ? 0 : 4) & 15;
        uint16_t meta[2];
        memcpy(meta, coded + (size_t)i / group * QYI_CODEC_META, sizeof(meta));
        const float x = qy_f32_from_f16(meta[0]) + qy_f32_from_f16(meta[1]) * (float)code;
        const uint16_t half = qy_f16_from_f32(x < QYI_CODEC_LARGEST ? x : QYI_CODEC_LARGEST);
        memcpy(plain + 2 * (size_t)i, &half, sizeof(half));
    }
}

const struct qyi_codec_kernels qyi_codec_plain = {.encode = encode_plain, .decode = decode_plain};
