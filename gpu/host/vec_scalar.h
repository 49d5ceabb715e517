/* SPDX-License-Identifier: Apache-2.0 */
/* The vector words of vec_avx512.h with one lane: head sizes that no vector divides. */
#ifndef QY_GPU_HOST_VEC_SCALAR_H
#define QY_GPU_HOST_VEC_SCALAR_H

#include <stdint.h>
#include <string.h>

#include "gpu/gpu.h"
#include "gpu/host/exp_plain.h"

enum { VEC_N = 1, VEC_ACC = 8 };

typedef float vec;

static inline vec vec_set1(float x)
{
    return x;
}
static inline vec vec_load(const float *p)
{
    return *p;
}
static inline void vec_store(float *p, vec v)
{
    *p = v;
}
static inline vec vec_load_f16(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof(h));
    return qy_f32_from_f16(h);
}
static inline vec vec_sub(vec a, vec b)
{
    return a - b;
}
static inline vec vec_add(vec a, vec b)
{
    return a + b;
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
    return a > b ? a : b;
}
static inline vec vec_exp(vec v)
{
    return qyi_exp_plain(v);
}
static inline float vec_hsum(vec v)
{
    return v;
}
static inline float vec_hmax(vec v)
{
    return v;
}
static inline void vec_hsum4(vec a, vec b, vec c, vec d, float out[4])
{
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
}

#endif
