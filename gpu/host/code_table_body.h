/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of a query: its products with every word. Part of a kernel file: include a code_vec_*.h first.
 */
#ifndef QY_GPU_HOST_CODE_TABLE_BODY_H
#define QY_GPU_HOST_CODE_TABLE_BODY_H

#include <string.h>

#include "gpu/host/code.h"
#include "gpu/host/code_quad.h"
#include "gpu/host/kernels.h"

enum { TAB_WORDS = 16, TAB_WV = VEC_N == 16 ? 4 : 2, TAB_TILE = TAB_WV * VEC_N };

/* to = q' scaled, then VEC_N zeros. */
static void tab_take(const struct qy_quantizer *quantizer, const float *q, float scale, float *to)
{
    for (uint32_t i = 0; i < quantizer->d; i++) {
        to[i] = q[quantizer->order != NULL ? quantizer->order[i] : i] * scale;
    }
    for (uint32_t i = 0; i < VEC_N; i++) {
        to[quantizer->d + i] = 0.0F;
    }
}

/* ---- 4 bits ---------------------------------------------------------------------------------- */

/* t [16] = x . words of one sub-vector. */
ALWAYS_INLINE void tab_sub_vector(const float *x, const uint32_t dj, const float *words, float *t)
{
    vec s[TAB_WORDS / VEC_N];

    QYI_UNROLL
    for (int v = 0; v < TAB_WORDS / VEC_N; v++) {
        s[v] = vec_set1(0.0F);
    }
    for (uint32_t i = 0; i < dj; i++) {
        const vec xi = vec_set1(x[i]);
        QYI_UNROLL
        for (int v = 0; v < TAB_WORDS / VEC_N; v++) {
            s[v] = vec_fma(xi, vec_load(words + i * TAB_WORDS + v * VEC_N), s[v]);
        }
    }
    QYI_UNROLL
    for (int v = 0; v < TAB_WORDS / VEC_N; v++) {
        vec_store(t + v * VEC_N, s[v]);
    }
}

/* NaN when one of d values is not finite, else 0. Places up to a multiple of VEC_N hold 0. */
static float tab_poison(const float *x, uint32_t d)
{
    vec sum = vec_set1(0.0F);

    for (uint32_t i = 0; i < d; i += VEC_N) {
        sum = vec_fma(vec_load(x + i), vec_set1(0.0F), sum);
    }
    return vec_hsum(sum);
}

/* As qyi_code_kernels.table4. The step is the head's; QYI_CODE_ADDS entries, each rounded up by
 * half at most, stay within a byte. chosen: FAISS's fast scan keeps 8 bits per entry and widens
 * each; adding four entries of about 6 bits in 8 is a third less work, and the error stays far
 * below that of 4-bit codes. */
static void table4(const struct qy_quantizer *quantizer, const float *q, float scale,
                   uint8_t *entries, struct qyi_code_head *head)
{
    _Alignas(64) float t[(QYI_CODE_MAX_M + QYI_CODE_ADDS) * TAB_WORDS];
    _Alignas(64) float x[QYI_CODE_MAX_D + VEC_N];
    float low[QYI_CODE_MAX_M + QYI_CODE_ADDS];
    float high[QYI_CODE_ADDS];
    const uint32_t m = quantizer->m;
    const uint32_t dj = quantizer->d / m;
    float widest = 0.0F; /* sum of ranges that are added in 8 bits */
    float base = 0.0F;

    tab_take(quantizer, q, scale, x);
    for (uint32_t j = 0; j < m; j++) {
        const float *words = quantizer->decode + (size_t)j * dj * TAB_WORDS;
        if (dj == 4) {
            tab_sub_vector(x + (size_t)j * 4, 4, words, t + (size_t)j * TAB_WORDS);
        } else {
            tab_sub_vector(x + (size_t)j * dj, dj, words, t + (size_t)j * TAB_WORDS);
        }
    }
    memset(t + (size_t)m * TAB_WORDS, 0, QYI_CODE_ADDS * TAB_WORDS * sizeof(float));
    for (uint32_t j = 0; j < m; j += QYI_CODE_ADDS) {
        code_bounds(t + (size_t)j * TAB_WORDS, low + j, high);
        base += (low[j] + low[j + 1]) + (low[j + 2] + low[j + 3]);
        const float range = ((high[0] - low[j]) + (high[1] - low[j + 1])) +
                            ((high[2] - low[j + 2]) + (high[3] - low[j + 3]));
        widest = range > widest ? range : widest;
    }
    const float step = widest / (255.0F - QYI_CODE_ADDS * 0.5F);
    const float per_step = widest > 0.0F ? 1.0F / step : 0.0F;
    for (uint32_t j = 0; j < m; j++) {
        code_round(t + (size_t)j * TAB_WORDS, low[j], per_step, entries + (size_t)j * TAB_WORDS);
    }
    head->step = step;
    head->base = base + tab_poison(x, quantizer->d); /* not finite: no scores */
}

/* ---- 8 and 16 bits ----------------------------------------------------------------------------- */

/* nv vectors of words of nh heads: x [nh][d_stride]; words `ahead` further come next. */
ALWAYS_INLINE void tab_words(const float *x, size_t d_stride, uint32_t dj, const float *decode,
                             size_t ld, size_t ahead, const int nv, const int nh, float *to)
{
    float out[QYI_CODE_HEADS][TAB_TILE];
    vec s[QYI_CODE_HEADS][TAB_WV];

    QYI_UNROLL
    for (int h = 0; h < QYI_CODE_HEADS; h++) {
        QYI_UNROLL
        for (int v = 0; v < nv; v++) {
            s[h][v] = vec_set1(0.0F);
        }
    }
    for (uint32_t i = 0; i < dj; i++) {
        vec e[TAB_WV];
        QYI_UNROLL
        for (int v = 0; v < nv; v++) {
            e[v] = vec_load(decode + i * ld + v * VEC_N);
            __builtin_prefetch(decode + i * ld + ahead + v * VEC_N);
        }
        QYI_UNROLL
        for (int h = 0; h < nh; h++) {
            const vec xi = vec_set1(x[h * d_stride + i]);
            QYI_UNROLL
            for (int v = 0; v < nv; v++) {
                s[h][v] = vec_fma(xi, e[v], s[h][v]);
            }
        }
    }
    QYI_UNROLL
    for (int h = 0; h < QYI_CODE_HEADS; h++) {
        QYI_UNROLL
        for (int v = 0; v < nv; v++) {
            vec_store(out[h] + v * VEC_N, s[h][v]);
        }
    }
    for (int w = 0; w < nv * VEC_N; w += 4) {
        quad four[QYI_CODE_HEADS];
        for (int h = 0; h < QYI_CODE_HEADS; h++) {
            memcpy(&four[h], out[h] + w, sizeof(four[h]));
        }
        quad_turn(four);
        memcpy(to + w * QYI_CODE_HEADS, four, sizeof(four));
    }
}

ALWAYS_INLINE void tab_range(const struct qy_quantizer *quantizer, const float *x, uint32_t j,
                             uint32_t begin, uint32_t end, const int nh, float *tables)
{
    const uint32_t dj = quantizer->d / quantizer->m;
    const size_t ld = quantizer->n_words;
    const float *decode = quantizer->decode + (size_t)j * dj * ld;
    float *to = tables + (size_t)j * qyi_code_table_words(quantizer) * QYI_CODE_HEADS;
    uint32_t w = begin;

    for (; w + TAB_TILE <= end; w += TAB_TILE) {
        const size_t ahead = w + 2 * TAB_TILE <= quantizer->n_words ? TAB_TILE : 0;
        tab_words(x + j * dj, quantizer->d, dj, decode + w, ld, ahead, TAB_WV, nh,
                  to + (size_t)w * QYI_CODE_HEADS);
    }
    for (; w + VEC_N <= end; w += VEC_N) {
        tab_words(x + j * dj, quantizer->d, dj, decode + w, ld, 0, 1, nh,
                  to + (size_t)w * QYI_CODE_HEADS);
    }
    for (; w < end; w++) {
        for (int h = 0; h < QYI_CODE_HEADS; h++) {
            float s = 0.0F;
            for (uint32_t i = 0; i < dj && h < nh; i++) {
                s += x[(size_t)h * quantizer->d + j * dj + i] * decode[i * ld + w];
            }
            to[(size_t)w * QYI_CODE_HEADS + h] = s;
        }
    }
}

/* As qyi_code_kernels.table_wide. */
static void table_wide(const struct qy_quantizer *quantizer, const float *q, uint32_t n_heads,
                       float scale, uint32_t begin, uint32_t end, float *tables)
{
    _Alignas(64) float x[QYI_CODE_HEADS * QYI_CODE_MAX_D + VEC_N];

    for (uint32_t h = 0; h < n_heads; h++) {
        tab_take(quantizer, q + (size_t)h * quantizer->d, scale, x + (size_t)h * quantizer->d);
    }
    for (uint32_t j = 0; j < quantizer->m; j++) {
        if (n_heads == 4) {
            tab_range(quantizer, x, j, begin, end, 4, tables);
        } else if (n_heads == 3) {
            tab_range(quantizer, x, j, begin, end, 3, tables);
        } else if (n_heads == 2) {
            tab_range(quantizer, x, j, begin, end, 2, tables);
        } else {
            tab_range(quantizer, x, j, begin, end, 1, tables);
        }
    }
}

#endif
