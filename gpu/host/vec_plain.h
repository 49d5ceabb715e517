/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector words of vec_avx512.h in plain C: four lanes in the compilers' vector extension, which
 * becomes SSE2 or NEON without a single intrinsic. No fused multiply-add.
 */
#ifndef QY_GPU_HOST_VEC_PLAIN_H
#define QY_GPU_HOST_VEC_PLAIN_H

#include <stdint.h>
#include <string.h>

#include "gpu/gpu.h"

enum { VEC_N = 4, VEC_ACC = 12, CHUNK_MR = 4, CHUNK_NV = 2 };

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_bits __attribute__((vector_size(16)));
typedef uint32_t vec_word __attribute__((vector_size(16)));
typedef uint16_t vec_half __attribute__((vector_size(16)));
typedef uint64_t vec_pair __attribute__((vector_size(16)));

static inline vec vec_set1(float x)
{
    return (vec){x, x, x, x};
}
static inline vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static inline void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof(v));
}
static inline vec vec_load_u16(const uint16_t *p)
{
    return (vec){(float)p[0], (float)p[1], (float)p[2], (float)p[3]};
}
static inline vec vec_pick(vec_bits mask, vec x, vec y)
{
    return (vec)((mask & (vec_bits)x) | (~mask & (vec_bits)y));
}
/* The exponent and mantissa moved into place are the value times 2^-112, denormals included; inf
 * and NaN become 65536 and more, and get their exponent by force. */
static inline vec vec_load_f16(const void *p)
{
    uint64_t h;
    memcpy(&h, p, sizeof(h));
    /* zeros go between the halves: 16 bits become 32 */
    const vec_bits bits = (vec_bits)__builtin_shufflevector(
        (vec_half)(vec_pair){h, 0}, (vec_half){0}, 0, 8, 1, 9, 2, 10, 3, 11);
    const vec_bits moved = (bits & 0x7fff) << 13;
    const vec_bits force = (moved > 0x0f7fffff) & 0x7f800000;
    const vec_bits value = (vec_bits)((vec)moved * vec_set1(0x1p+112F));
    return (vec)(value | force | (vec_bits)(((vec_word)bits & 0x8000U) << 16));
}
static inline void vec_store_f16(void *p, vec v)
{
    uint16_t h[4];
    for (int i = 0; i < 4; i++) {
        h[i] = qy_f16_from_f32(v[i]);
    }
    memcpy(p, h, sizeof(h));
}
static inline vec vec_add(vec a, vec b)
{
    return a + b;
}
static inline vec vec_sub(vec a, vec b)
{
    return a - b;
}
static inline vec vec_mul(vec a, vec b)
{
    return a * b;
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return a * b + c;
}
static inline vec vec_max(vec a, vec b)
{
    return vec_pick(a > b, a, b);
}
static inline vec vec_min(vec a, vec b)
{
    return vec_pick(a < b, a, b);
}
/* qyi_exp_plain lane by lane; constants and bounds are explained there. */
static inline vec vec_exp(vec x)
{
    const vec_bits tiny = x < vec_set1(-87.33F);
    const vec round = vec_set1(0x1.8p+23F);
    const vec above = vec_pick(tiny, vec_set1(-87.33F), x);
    const vec c = vec_pick(above > vec_set1(88.7F), vec_set1(88.7F), above);
    const vec shifted = c * vec_set1(0x1.715476p+0F) + round;
    const vec n = shifted - round;
    const vec r = c - n * vec_set1(0x1.62e400p-1F) - n * vec_set1(0x1.7f7d1cp-20F);
    vec q = vec_set1(0x1.6a23cep-10F);
    q = q * r + vec_set1(0x1.123a20p-7F);
    q = q * r + vec_set1(0x1.5558f2p-5F);
    q = q * r + vec_set1(0x1.555492p-3F);
    q = q * r + vec_set1(0x1.fffffcp-2F);
    q = q * r + vec_set1(1.0F);
    q = q * r + vec_set1(1.0F);
    const vec_bits whole = (vec_bits)((vec_word)shifted - (vec_word)round);
    const vec_bits half = whole >> 1;
    const vec a = (vec)(((vec_word)half + 127U) << 23);
    const vec b = (vec)(((vec_word)whole - (vec_word)half + 127U) << 23);
    return (vec)(~tiny & (vec_bits)(q * a * b));
}
static inline vec vec_select_ge(vec a, vec b, vec x, vec y)
{
    return vec_pick(a >= b, x, y);
}
static inline int vec_any_not_below(vec v, float limit)
{
    const vec_bits below = (v < vec_set1(limit)) & (v > vec_set1(-limit));
    return (below[0] & below[1] & below[2] & below[3]) == 0;
}
static inline float vec_hsum(vec v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}
static inline float vec_hmax(vec v)
{
    const float a = v[0] > v[2] ? v[0] : v[2];
    const float b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
}
static inline void vec_hsum4(vec a, vec b, vec c, vec d, float out[4])
{
    out[0] = vec_hsum(a);
    out[1] = vec_hsum(b);
    out[2] = vec_hsum(c);
    out[3] = vec_hsum(d);
}

#endif
