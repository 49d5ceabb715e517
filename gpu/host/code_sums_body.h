/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made of the 16-bit sums of a scan: scores, and the shares of a softmax without the scores
 * between. Part of a kernel file: include a code_vec_*.h first.
 */
#ifndef QY_GPU_HOST_CODE_SUMS_BODY_H
#define QY_GPU_HOST_CODE_SUMS_BODY_H

#include <string.h>

#include "gpu/host/code.h"

/* The n < VEC_N sums, then zeros: what a vector of them is loaded from. */
struct sums_last {
    uint16_t sums[VEC_N];
};
static inline struct sums_last sums_last(const uint16_t *sums, uint32_t n)
{
    struct sums_last last = {{0}};

    memcpy(last.sums, sums, (n < VEC_N ? n : VEC_N) * sizeof(*sums));
    return last;
}

/* As qyi_code_kernels.scores. */
static void sums_scores(const uint16_t *sums, uint32_t n, const struct qyi_code_head *head,
                        float *scores)
{
    const vec step = vec_set1(head->step);
    const vec base = vec_set1(head->base);
    uint32_t i = 0;

    for (; i + VEC_N <= n; i += VEC_N) {
        vec_store(scores + i, code_score(step, vec_load_u16(sums + i), base));
    }
    if (i < n) {
        const struct sums_last last = sums_last(sums + i, n - i);
        float part[VEC_N];
        vec_store(part, code_score(step, vec_load_u16(last.sums), base));
        memcpy(scores + i, part, (n - i) * sizeof(*part));
    }
}

/* As qyi_code_kernels.largest. */
static uint32_t sums_largest(const uint16_t *sums, uint32_t n)
{
    uint16_t most = 0;

    for (uint32_t i = 0; i < n; i++) {
        most = sums[i] > most ? sums[i] : most;
    }
    return most;
}

/* As qyi_code_kernels.mass. */
static float sums_mass(const uint16_t *sums, uint32_t n, uint32_t most,
                       const struct qyi_code_head *head)
{
    const struct code_exp exp = code_exp_make(head->base, head->step, most);
    vec sum[4] = {vec_set1(0.0F), vec_set1(0.0F), vec_set1(0.0F), vec_set1(0.0F)};
    float part[VEC_N];
    uint32_t i = 0;

    for (; i + 4 * VEC_N <= n; i += 4 * VEC_N) {
        for (uint32_t j = 0; j < 4; j++) {
            sum[j] = vec_add(code_exp_of(&exp, sums + i + j * VEC_N), sum[j]);
        }
    }
    for (; i + VEC_N <= n; i += VEC_N) {
        sum[0] = vec_add(code_exp_of(&exp, sums + i), sum[0]);
    }
    float total = vec_hsum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
    if (i < n) {
        const struct sums_last last = sums_last(sums + i, n - i);
        vec_store(part, code_exp_of(&exp, last.sums));
    }
    for (uint32_t j = 0; i + j < n; j++) {
        total += part[j];
    }
    return total;
}

/* As qyi_code_kernels.masses: what the terms have above the least of all, of which those that do not
 * count have nothing, and that least for each one that counts. */
static void sums_masses(const struct qyi_code_masses *m)
{
    const struct code_exp exp = code_exp_make(-m->step * (float)m->most, m->step, m->most);
    const uint16_t zeros[VEC_N] = {0};
    const vec least = code_exp_of(&exp, zeros);
    float one[VEC_N];

    vec_store(one, least);
    for (uint32_t p = 0; p < m->n; p++) {
        const uint16_t *sums = m->sums + (size_t)p * QYI_CODE_PAGE;
        vec above = vec_sub(code_exp_of(&exp, sums), least);

        for (uint32_t i = VEC_N; i < QYI_CODE_PAGE; i += VEC_N) {
            above = vec_add(vec_sub(code_exp_of(&exp, sums + i), least), above);
        }
        m->masses[p] = m->left[p] > 0 ? vec_hsum(above) + (float)m->left[p] * one[0] : 0.0F;
    }
}

/* As qyi_code_kernels.page. */
static void sums_page(const uint16_t *sums, const struct qyi_code_head *head, float *weights)
{
    const vec step = vec_set1(head->step);
    const vec base = vec_set1(head->base);

    for (uint32_t i = 0; i < QYI_CODE_PAGE; i += VEC_N) {
        vec_store(weights + i, vec_exp(vec_fma(step, vec_load_u16(sums + i), base)));
    }
}

static inline vec sums_join(vec x, const float *pooled, const enum qyi_code_join join)
{
    if (join == QYI_CODE_SET) {
        return x;
    }
    return join == QYI_CODE_ADD ? vec_add(x, vec_load(pooled)) : vec_max(x, vec_load(pooled));
}

static inline __attribute__((always_inline)) void sums_pool_join(const uint16_t *sums, uint32_t n,
                                                                 const struct code_exp *exp,
                                                                 const enum qyi_code_join join,
                                                                 float *pooled)
{
    float part[VEC_N] = {0};
    uint32_t i = 0;

    for (; i + VEC_N <= n; i += VEC_N) {
        vec_store(pooled + i, sums_join(code_exp_of(exp, sums + i), pooled + i, join));
    }
    if (i < n) {
        const struct sums_last last = sums_last(sums + i, n - i);
        memcpy(part, pooled + i, (n - i) * sizeof(*part));
        vec_store(part, sums_join(code_exp_of(exp, last.sums), part, join));
        memcpy(pooled + i, part, (n - i) * sizeof(*part));
    }
}

/* As qyi_code_kernels.pool. */
static void sums_pool(const uint16_t *sums, uint32_t n, uint32_t most,
                      const struct qyi_code_head *head, enum qyi_code_join join, float *pooled)
{
    const struct code_exp exp = code_exp_make(head->base, head->step, most);

    if (join == QYI_CODE_SET) {
        sums_pool_join(sums, n, &exp, QYI_CODE_SET, pooled);
    } else if (join == QYI_CODE_ADD) {
        sums_pool_join(sums, n, &exp, QYI_CODE_ADD, pooled);
    } else {
        sums_pool_join(sums, n, &exp, QYI_CODE_LARGER, pooled);
    }
}

#endif
