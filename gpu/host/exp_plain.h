/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp of one float, free of branches so that compilers can vectorise a loop over it. For the plain
 * kernels; same polynomial as exp_avx2.h, relative error at most 2e-7.
 *
 * exp(0) is exactly 1; NaN stays NaN. Arguments below -87.3 give 0, above 88.7 the largest value
 * near 3.2e38, not inf.
 */
#ifndef QY_GPU_HOST_EXP_PLAIN_H
#define QY_GPU_HOST_EXP_PLAIN_H

#include <stdint.h>
#include <string.h>

static inline float qyi_exp_plain(float x)
{
    const float low = -87.33F;
    const float high = 88.7F;
    const float round = 0x1.8p+23F; /* adding it rounds to an integer in the low bits */
    float c = x < low ? low : x;
    c = c > high ? high : c;
    const float n = (c * 0x1.715476p+0F + round) - round;
    float r = c - n * 0x1.62e400p-1F;
    r = r - n * 0x1.7f7d1cp-20F;
    float q = 0x1.6a23cep-10F;
    q = q * r + 0x1.123a20p-7F;
    q = q * r + 0x1.5558f2p-5F;
    q = q * r + 0x1.555492p-3F;
    q = q * r + 0x1.fffffcp-2F;
    q = q * r + 1.0F;
    q = q * r + 1.0F;
    /* NaN has no integer: it takes 2^0, and q is NaN already. */
    const int32_t whole = n == n ? (int32_t)n : 0;
    const int32_t half = whole / 2;
    const int32_t a = (half + 127) * 0x800000;
    const int32_t b = (whole - half + 127) * 0x800000;
    float fa;
    float fb;
    memcpy(&fa, &a, sizeof(fa));
    memcpy(&fb, &b, sizeof(fb));
    return x < low ? 0.0F : q * fa * fb;
}

#endif
