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
#include "gpu/host/exp_plain.h"

enum { VEC_N = 4, VEC_ACC = 8, CHUNK_MR = 4, CHUNK_NV = 2 };

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_bits __attribute__((vector_size(16)));
typedef uint32_t vec_word __attribute__((vector_size(16)));

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
static inline vec vec_pick(vec_bits mask, vec x, vec y)
{
    return (vec)((mask & (vec_bits)x) | (~mask & (vec_bits)y));
}
/* The exponent and mantissa moved into place are the value times 2^-112, denormals included. */
static inline vec vec_load_f16(const void *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof(h));
    const vec_word bits = {h[0], h[1], h[2], h[3]};
    const vec_word magnitude = bits & 0x7fffU;
    const vec_word moved = magnitude << 13;
    const vec value = (vec)moved * vec_set1(0x1p+112F);
    const vec special = (vec)(moved | 0x7f800000U); /* inf and NaN */
    const vec unsigned_value = vec_pick((vec_bits)(magnitude >= 0x7c00U), special, value);
    return (vec)((vec_word)unsigned_value | (bits & 0x8000U) << 16);
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
static inline vec vec_exp(vec v)
{
    return (vec){qyi_exp_plain(v[0]), qyi_exp_plain(v[1]), qyi_exp_plain(v[2]),
                 qyi_exp_plain(v[3])};
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
