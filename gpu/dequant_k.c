/* SPDX-License-Identifier: Apache-2.0 */
/* Dequantization of super-blocks (256 elements) in plain C. See gpu/dequant.c. */
#include "gpu/dequant.h"

/* {f16 d, dmin; u8 scales[12]; u8 q[128]}: eight runs of 32, element d * scale * q - dmin * min.
 * 32 bytes of q hold two runs: the low nibbles, then the high ones. */
void qyi_dequantize_q4_k(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 144) {
        const float d = qyi_read_f16(in);
        const float d_min = qyi_read_f16(in + 2);
        uint8_t scales[16];
        qyi_read_scales_k(in + 4, scales);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = in + 16 + 32 * (run / 2);
            const float scale = d * (float)scales[run];
            const float least = d_min * (float)scales[8 + run];
            for (int i = 0; i < 32; i++) {
                out[i] = scale * (float)(q[i] >> (run & 1) * 4 & 15) - least;
            }
        }
    }
}

/* {f16 d, dmin; u8 scales[12]; u8 high[32]; u8 q[128]}: as Q4_K; bit `run` of high[i] is bit 4 of
 * element i of that run. */
void qyi_dequantize_q5_k(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 176) {
        const float d = qyi_read_f16(in);
        const float d_min = qyi_read_f16(in + 2);
        const uint8_t *high = in + 16;
        uint8_t scales[16];
        qyi_read_scales_k(in + 4, scales);
        for (int run = 0; run < 8; run++, out += 32) {
            const uint8_t *q = in + 48 + 32 * (run / 2);
            const float scale = d * (float)scales[run];
            const float least = d_min * (float)scales[8 + run];
            for (int i = 0; i < 32; i++) {
                const int value = (q[i] >> (run & 1) * 4 & 15) | (high[i] >> run & 1) << 4;
                out[i] = scale * (float)value - least;
            }
        }
    }
}

/* {u8 q[128]; u8 high[64]; i8 scales[16]; f16 d}: runs of 16, element d * scale * (q - 32).
 * Each half of 128 elements has 64 bytes of q and 32 of high: quarter k of 32 elements takes the
 * nibble k / 2 of byte 32 * (k & 1) + i and the bits 2k, 2k + 1 of high byte i. */
void qyi_dequantize_q6_k(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 210) {
        const float d = qyi_read_f16(in + 208);
        for (int quarter = 0; quarter < 8; quarter++, out += 32) {
            const int half = quarter / 4;
            const int k = quarter & 3;
            const uint8_t *q = in + 64 * half + 32 * (k & 1);
            const uint8_t *high = in + 128 + 32 * half;
            for (int i = 0; i < 32; i++) {
                const int8_t run = (int8_t)in[192 + 2 * quarter + i / 16];
                const float scale = d * (float)run;
                const int value = (q[i] >> k / 2 * 4 & 15) | (high[i] >> 2 * k & 3) << 4;
                out[i] = scale * (float)(value - 32);
            }
        }
    }
}
