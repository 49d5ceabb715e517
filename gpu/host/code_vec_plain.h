/* SPDX-License-Identifier: Apache-2.0 */
/* The words of code_vec_avx512.h in plain C. */
#ifndef QY_GPU_HOST_CODE_VEC_PLAIN_H
#define QY_GPU_HOST_CODE_VEC_PLAIN_H

#include <math.h>

#include "gpu/host/vec_plain.h"

static inline uint32_t code_first_best(const vec *s)
{
    float best = -INFINITY;
    uint32_t at = 0;
    for (uint32_t w = 0; w < 16; w++) {
        const float x = s[w / VEC_N][w % VEC_N];
        at = x > best ? w : at;
        best = x > best ? x : best;
    }
    return at;
}
static inline void code_bounds(const float *rows, float low[4], float high[4])
{
    for (int i = 0; i < 4; i++) {
        vec least = vec_load(rows + 16 * i);
        vec most = least;
        for (int v = 1; v < 16 / VEC_N; v++) {
            least = vec_min(vec_load(rows + 16 * i + v * VEC_N), least);
            most = vec_max(vec_load(rows + 16 * i + v * VEC_N), most);
        }
        low[i] = -vec_hmax(vec_sub(vec_set1(0.0F), least));
        high[i] = vec_hmax(most);
    }
}
static inline void code_round(const float *s, float low, float per_step, uint8_t *to)
{
    for (int w = 0; w < 16; w++) {
        float n = (s[w] - low) * per_step;
        n = n > 0.0F ? n < 255.0F ? n : 255.0F : 0.0F; /* no number: 0 */
        to[w] = (uint8_t)((n + 0x1p+23F) - 0x1p+23F);  /* to nearest even */
    }
}
/* in f64, where the product is exact: rounded once, as a fused multiply-add is */
static inline vec code_score(vec step, vec sum, vec base)
{
    vec s;
    for (int i = 0; i < VEC_N; i++) {
        s[i] = (float)((double)base[i] + (double)step[i] * (double)sum[i]);
    }
    return s;
}
struct code_exp {
    vec base, step;
};
static inline struct code_exp code_exp_make(float base, float step, uint32_t most)
{
    (void)most;
    return (struct code_exp){vec_set1(base), vec_set1(step)};
}
static inline vec code_exp_of(const struct code_exp *e, const uint16_t *sums)
{
    return vec_exp(vec_fma(e->step, vec_load_u16(sums), e->base));
}

#endif
