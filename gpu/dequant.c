/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dequantization in plain C: the meaning of each block format of GGUF, and the reference of the
 * vector kernels in gpu/host/. Arithmetic is in f32 with one rounding per written operation.
 * Quantization (the other way) is not here.
 *
 * Small blocks hold 32 elements. Nibble formats keep element i in the low half of byte i and
 * element i + 16 in its high half. Super-blocks are in gpu/dequant_k.c.
 */
#include <string.h>

#include "gpu/dequant.h"

static void from_f16(const uint8_t *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = qyi_read_f16(in + 2 * i);
    }
}

static void from_bf16(const uint8_t *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t high;
        memcpy(&high, in + 2 * i, sizeof high);
        const uint32_t bits = (uint32_t)high << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

/* {f16 d; u8 q[16]}: d * (q - 8) */
static void from_q4_0(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 18, out += 32) {
        const float d = qyi_read_f16(in);
        const uint8_t *q = in + 2;
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)((q[i] & 15) - 8);
            out[i + 16] = d * (float)((q[i] >> 4) - 8);
        }
    }
}

/* {f16 d, m; u8 q[16]}: d * q + m */
static void from_q4_1(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 20, out += 32) {
        const float d = qyi_read_f16(in);
        const float m = qyi_read_f16(in + 2);
        const uint8_t *q = in + 4;
        for (int i = 0; i < 16; i++) {
            out[i] = d * (float)(q[i] & 15) + m;
            out[i + 16] = d * (float)(q[i] >> 4) + m;
        }
    }
}

/* {f16 d; u32 high; u8 q[16]}: bit i of high is bit 4 of element i; d * (q - 16) */
static void from_q5_0(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 22, out += 32) {
        const float d = qyi_read_f16(in);
        uint32_t high;
        memcpy(&high, in + 2, sizeof high);
        const uint8_t *q = in + 6;
        for (int i = 0; i < 16; i++) {
            const int low = (q[i] & 15) | (int)(high >> i & 1) << 4;
            const int upper = (q[i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
            out[i] = d * (float)(low - 16);
            out[i + 16] = d * (float)(upper - 16);
        }
    }
}

/* {f16 d, m; u32 high; u8 q[16]}: d * q + m */
static void from_q5_1(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 24, out += 32) {
        const float d = qyi_read_f16(in);
        const float m = qyi_read_f16(in + 2);
        uint32_t high;
        memcpy(&high, in + 4, sizeof high);
        const uint8_t *q = in + 8;
        for (int i = 0; i < 16; i++) {
            const int low = (q[i] & 15) | (int)(high >> i & 1) << 4;
            const int upper = (q[i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
            out[i] = d * (float)low + m;
            out[i + 16] = d * (float)upper + m;
        }
    }
}

/* {f16 d; i8 q[32]}: d * q */
static void from_q8_0(const uint8_t *in, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, in += 34, out += 32) {
        const float d = qyi_read_f16(in);
        for (int i = 0; i < 32; i++) {
            out[i] = d * (float)(int8_t)in[2 + i];
        }
    }
}

void qy_tensor_dequantize(enum qy_tensor_type type, const void *blocks, size_t n_elems, float *out)
{
    const uint8_t *in = blocks;
    switch (type) {
    case QY_TYPE_F32:
        memcpy(out, in, n_elems * sizeof *out);
        break;
    case QY_TYPE_F16:
        from_f16(in, n_elems, out);
        break;
    case QY_TYPE_BF16:
        from_bf16(in, n_elems, out);
        break;
    case QY_TYPE_Q4_0:
        from_q4_0(in, n_elems / 32, out);
        break;
    case QY_TYPE_Q4_1:
        from_q4_1(in, n_elems / 32, out);
        break;
    case QY_TYPE_Q5_0:
        from_q5_0(in, n_elems / 32, out);
        break;
    case QY_TYPE_Q5_1:
        from_q5_1(in, n_elems / 32, out);
        break;
    case QY_TYPE_Q8_0:
        from_q8_0(in, n_elems / 32, out);
        break;
    case QY_TYPE_Q4_K:
        qyi_dequantize_q4_k(in, n_elems / 256, out);
        break;
    case QY_TYPE_Q5_K:
        qyi_dequantize_q5_k(in, n_elems / 256, out);
        break;
    case QY_TYPE_Q6_K:
        qyi_dequantize_q6_k(in, n_elems / 256, out);
        break;
    }
}
