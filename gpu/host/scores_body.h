/* SPDX-License-Identifier: Apache-2.0 */
/* What softmax asks of a row of scores. Part of a kernel file: include a vec_*.h first. */
#ifndef QY_GPU_HOST_SCORES_BODY_H
#define QY_GPU_HOST_SCORES_BODY_H

#include <float.h>
#include <string.h>

/* VEC_N floats at x, of which only n are there; the others are `fill`. */
static inline vec floats_load(const float *x, uint32_t n, float fill)
{
    float part[VEC_N];
    if (n >= VEC_N) {
        return vec_load(x);
    }
    for (uint32_t j = 0; j < VEC_N; j++) {
        part[j] = j < n ? x[j] : fill;
    }
    return vec_load(part);
}

static inline void floats_store(float *x, uint32_t n, vec v)
{
    float part[VEC_N];
    if (n >= VEC_N) {
        vec_store(x, v);
    } else {
        vec_store(part, v);
        memcpy(x, part, n * sizeof(*x));
    }
}

/* Largest score, as a finite number; NaN counts as the least. */
static inline float scores_max(const float *scores, uint32_t n)
{
    vec top[4];
    uint32_t i = 0;
    for (int j = 0; j < 4; j++) {
        top[j] = vec_set1(-FLT_MAX);
    }
    for (; i + 4 * VEC_N <= n; i += 4 * VEC_N) {
        for (uint32_t j = 0; j < 4; j++) {
            top[j] = vec_max(vec_load(scores + i + j * VEC_N), top[j]);
        }
    }
    for (; i < n; i += VEC_N) {
        top[0] = vec_max(floats_load(scores + i, n - i, -FLT_MAX), top[0]);
    }
    const float max = vec_hmax(vec_max(vec_max(top[0], top[1]), vec_max(top[2], top[3])));
    return max < FLT_MAX ? max : FLT_MAX;
}

static inline vec scores_exp_of(vec x, vec base)
{
    const vec finite = vec_min(vec_max(x, vec_set1(-FLT_MAX)), vec_set1(FLT_MAX));
    return vec_exp(vec_sub(finite, base));
}

/* The sum of exp(score - base). */
static inline float scores_mass(const float *scores, uint32_t n, float base)
{
    vec sum = vec_set1(0.0F);

    for (uint32_t i = 0; i < n; i += VEC_N) {
        sum = vec_add(scores_exp_of(floats_load(scores + i, n - i, -FLT_MAX), vec_set1(base)), sum);
    }
    return vec_hsum(sum);
}

#endif
