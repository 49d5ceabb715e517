/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces that the plain and the vector dequantizers share. Private to gpu/. */
#ifndef QY_GPU_DEQUANT_H
#define QY_GPU_DEQUANT_H

#include <string.h>

#include "gpu/gpu.h"

static inline float qyi_read_f16(const uint8_t *in)
{
    uint16_t half;
    memcpy(&half, in, sizeof half);
    return qy_f32_from_f16(half);
}

/*
 * The 12 bytes of Q4_K and Q5_K hold eight 6-bit scales and eight 6-bit minima:
 *   bytes 0-3   bits 0-5: scales 0-3, bits 6-7: high bits of scales 4-7
 *   bytes 4-7   bits 0-5: minima 0-3, bits 6-7: high bits of minima 4-7
 *   bytes 8-11  low nibble: low bits of scales 4-7, high nibble: of minima 4-7
 * out [16]: scales, then minima.
 */
static inline void qyi_read_scales_k(const uint8_t in[12], uint8_t out[16])
{
    uint32_t word[3];
    memcpy(word, in, sizeof word);
    const uint32_t parts[4] = {
        word[0] & 0x3f3f3f3f,
        (word[2] & 0x0f0f0f0f) | (word[0] >> 2 & 0x30303030),
        word[1] & 0x3f3f3f3f,
        (word[2] >> 4 & 0x0f0f0f0f) | (word[1] >> 2 & 0x30303030),
    };
    memcpy(out, parts, sizeof parts);
}

void qyi_dequantize_q4_k(const uint8_t *in, size_t n_blocks, float *out);
void qyi_dequantize_q5_k(const uint8_t *in, size_t n_blocks, float *out);
void qyi_dequantize_q6_k(const uint8_t *in, size_t n_blocks, float *out);

#endif
