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

enum {
    TAB_WORDS = 16,
    TAB_ROWS = VEC_N == 16 ? 4 : 2, /* rows of words at a time: registers hold their factors */
    TAB_SPAN = 512                  /* words whose sums stay in the first cache */
};

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

/* sums [nh][TAB_SPAN] += x [nh][d_stride] . di rows of n words. */
ALWAYS_INLINE void tab_rows(const float *x, size_t d_stride, const float *rows, size_t ld,
                            const int di, const int nh, uint32_t n, float *sums)
{
    vec xs[QYI_CODE_HEADS][TAB_ROWS];
    uint32_t w = 0;

    QYI_UNROLL
    for (int h = 0; h < nh; h++) {
        QYI_UNROLL
        for (int i = 0; i < di; i++) {
            xs[h][i] = vec_set1(x[(size_t)h * d_stride + (size_t)i]);
        }
    }
    for (; w + VEC_N <= n; w += VEC_N) {
        vec s[QYI_CODE_HEADS];
        QYI_UNROLL
        for (int h = 0; h < nh; h++) {
            s[h] = vec_load(sums + h * TAB_SPAN + w);
        }
        QYI_UNROLL
        for (int i = 0; i < di; i++) {
            const vec e = vec_load(rows + (size_t)i * ld + w);
            QYI_UNROLL
            for (int h = 0; h < nh; h++) {
                s[h] = vec_fma(xs[h][i], e, s[h]);
            }
        }
        QYI_UNROLL
        for (int h = 0; h < nh; h++) {
            vec_store(sums + h * TAB_SPAN + w, s[h]);
        }
    }
    for (; w < n; w++) {
        for (int h = 0; h < nh; h++) {
            for (int i = 0; i < di; i++) {
                sums[h * TAB_SPAN + (int)w] +=
                    x[(size_t)h * d_stride + (size_t)i] * rows[(size_t)i * ld + w];
            }
        }
    }
}

/* Words w .. w + n - 1 (n <= TAB_SPAN) of sub-vector j. A few rows at a time are read from end to
 * end: rows of thousands of words lie multiples of 4 KiB apart, and no cache holds many such. */
ALWAYS_INLINE void tab_span(const struct qy_quantizer *quantizer, const float *x, uint32_t j,
                            uint32_t w, uint32_t n, const int nh, float *to)
{
    _Alignas(64) float sums[QYI_CODE_HEADS * TAB_SPAN];
    const uint32_t dj = quantizer->d / quantizer->m;
    const size_t ld = quantizer->n_words;
    const float *rows = quantizer->decode + (size_t)j * dj * ld + w;
    uint32_t i = 0;

    memset(sums, 0, sizeof(sums));
    x += (size_t)j * dj;
    for (; i + TAB_ROWS <= dj; i += TAB_ROWS) {
        tab_rows(x + i, quantizer->d, rows + i * ld, ld, TAB_ROWS, nh, n, sums);
    }
    for (; i < dj; i++) {
        tab_rows(x + i, quantizer->d, rows + i * ld, ld, 1, nh, n, sums);
    }
    for (i = 0; i + 4 <= n; i += 4) {
        quad four[QYI_CODE_HEADS];
        QYI_UNROLL
        for (int h = 0; h < QYI_CODE_HEADS; h++) {
            memcpy(&four[h], sums + h * TAB_SPAN + i, sizeof(four[h]));
        }
        quad_turn(four);
        memcpy(to + (size_t)i * QYI_CODE_HEADS, four, sizeof(four));
    }
    for (; i < n; i++) {
        for (uint32_t h = 0; h < QYI_CODE_HEADS; h++) {
            to[(size_t)i * QYI_CODE_HEADS + h] = sums[h * TAB_SPAN + i];
        }
    }
}

ALWAYS_INLINE void tab_range(const struct qy_quantizer *quantizer, const float *x, uint32_t j,
                             uint32_t begin, uint32_t end, const int nh, float *tables)
{
    float *to = tables + (size_t)j * qyi_code_table_words(quantizer) * QYI_CODE_HEADS;

    for (uint32_t w = begin; w < end; w += TAB_SPAN) {
        tab_span(quantizer, x, j, w, end - w < TAB_SPAN ? end - w : TAB_SPAN, nh,
                 to + (size_t)w * QYI_CODE_HEADS);
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
