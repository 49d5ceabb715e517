/* SPDX-License-Identifier: Apache-2.0 */
/* IEEE half precision in integer arithmetic: the same bits on every machine. */
#include <string.h>

#include "gpu/gpu.h"

float qy_f32_from_f16(uint16_t value)
{
    const uint32_t sign = (uint32_t)(value & 0x8000) << 16;
    uint32_t exponent = (value >> 10) & 31;
    uint32_t fraction = value & 0x3ff;
    uint32_t bits;
    if (exponent == 31) { /* infinity, or NaN made quiet as the processor does */
        bits = 0x7f800000 | fraction << 13 | (fraction ? 0x400000 : 0);
    } else if (exponent != 0) {
        bits = (exponent + 112) << 23 | fraction << 13;
    } else if (fraction == 0) {
        bits = 0;
    } else { /* subnormal: normalize */
        exponent = 113;
        while (!(fraction & 0x400)) {
            fraction <<= 1;
            exponent--;
        }
        bits = exponent << 23 | (fraction & 0x3ff) << 13;
    }
    bits |= sign;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

uint16_t qy_f16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) { /* NaN: keep the high bits, quiet */
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
    }
    if (magnitude >= 0x477ff000) { /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7c00);
    }
    uint32_t half;
    uint32_t rest;
    uint32_t middle;
    if (magnitude >= 0x38800000) { /* a normal half */
        half = (magnitude >> 13) - (112 << 10);
        rest = magnitude & 0x1fff;
        middle = 0x1000;
    } else if (magnitude >= 0x33000000) { /* subnormal: 2^-25 and more */
        const uint32_t shift = 126 - (magnitude >> 23);
        const uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
        half = fraction >> shift;
        rest = fraction & (((uint32_t)1 << shift) - 1);
        middle = (uint32_t)1 << (shift - 1);
    } else {
        return sign;
    }
    if (rest > middle || (rest == middle && (half & 1))) {
        half++; /* may carry into the exponent, which is right */
    }
    return (uint16_t)(sign | half);
}
