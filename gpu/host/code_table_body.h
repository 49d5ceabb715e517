/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of a query: its products with every word. Part of a kernel file: include a vec_*.h first.
 */
#ifndef QY_GPU_HOST_CODE_TABLE_BODY_H
#define QY_GPU_HOST_CODE_TABLE_BODY_H

#include <math.h>

#include "gpu/host/code.h"
#include "gpu/host/kernels.h"

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

enum { TAB_WORDS = 16, TAB_WV = VEC_N == 16 ? 4 : 2 };

/* to = q' scaled. */
static void tab_take(const struct qy_quantizer *quantizer, const float *q, float scale, float *to)
{
    for (uint32_t i = 0; i < quantizer->d; i++) {
        to[i] = q[quantizer->order != NULL ? quantizer->order[i] : i] * scale;
    }
}

/* ---- 4 bits ---------------------------------------------------------------------------------- */

/* Writes entries round((t - low) / step) of 16 words. */
static void tab_round(const float *t, float low, float per_step, uint8_t *entries)
{
    for (int w = 0; w < TAB_WORDS; w++) {
        float n = (t[w] - low) * per_step;
        n = n > 0.0F ? n < 255.0F ? n : 255.0F : 0.0F; /* no number: 0 */
        n = (n + 0x1p+23F) - 0x1p+23F;                 /* to nearest even */
        entries[w] = (uint8_t)n;
    }
}

/* As qyi_code_kernels.table4. The step is the head's; QYI_CODE_ADDS entries, each rounded up by
 * half at most, stay within a byte. chosen: FAISS's fast scan keeps 8 bits per entry and widens
 * each; adding four entries of about 6 bits in 8 is a third less work, and the error stays far
 * below that of 4-bit codes. */
static void table4(const struct qy_quantizer *quantizer, const float *q, float scale,
                   uint8_t *entries, struct qyi_code_head *head)
{
    _Alignas(64) float t[QYI_CODE_MAX_M * TAB_WORDS];
    _Alignas(64) float x[QYI_CODE_MAX_D];
    float low[QYI_CODE_MAX_M];
    const uint32_t m = quantizer->m;
    const uint32_t dj = quantizer->d / m;
    float widest = 0.0F; /* of the ranges that are added in 8 bits */
    float range = 0.0F;
    float nan = 0.0F;

    tab_take(quantizer, q, scale, x);
    head->base = 0.0F;
    for (uint32_t j = 0; j < m; j++) {
        vec least = vec_set1(INFINITY);
        vec most = vec_set1(-INFINITY);
        for (int v = 0; v < TAB_WORDS / VEC_N; v++) {
            vec s = vec_set1(0.0F);
            for (uint32_t i = 0; i < dj; i++) {
                const float *words = quantizer->decode + ((size_t)j * dj + i) * TAB_WORDS;
                s = vec_fma(vec_set1(x[j * dj + i]), vec_load(words + v * VEC_N), s);
            }
            vec_store(t + j * TAB_WORDS + v * VEC_N, s);
            least = vec_min(s, least);
            most = vec_max(s, most);
        }
        low[j] = -vec_hmax(vec_sub(vec_set1(0.0F), least));
        head->base += low[j];
        range = j % QYI_CODE_ADDS == 0 ? 0.0F : range;
        range += vec_hmax(most) - low[j];
        widest = range > widest ? range : widest;
    }
    for (uint32_t i = 0; i < quantizer->d; i++) {
        nan += x[i] * 0.0F; /* a query that is not finite has no scores */
    }
    head->base += nan;
    head->step = widest / (255.0F - QYI_CODE_ADDS * 0.5F);
    for (uint32_t j = 0; j < m; j++) {
        tab_round(t + j * TAB_WORDS, low[j], widest > 0.0F ? 1.0F / head->step : 0.0F,
                  entries + (size_t)j * TAB_WORDS);
    }
}

/* ---- 8 and 16 bits ----------------------------------------------------------------------------- */

typedef float tab_quad __attribute__((vector_size(16)));

/* Four words of four heads: to[word][head]. */
ALWAYS_INLINE void tab_transpose(const float *from, size_t stride, float *to)
{
    tab_quad h[4];
    for (int i = 0; i < 4; i++) {
        memcpy(&h[i], from + i * stride, sizeof(h[i]));
    }
    const tab_quad a = __builtin_shufflevector(h[0], h[1], 0, 4, 1, 5);
    const tab_quad b = __builtin_shufflevector(h[2], h[3], 0, 4, 1, 5);
    const tab_quad c = __builtin_shufflevector(h[0], h[1], 2, 6, 3, 7);
    const tab_quad d = __builtin_shufflevector(h[2], h[3], 2, 6, 3, 7);
    const tab_quad word[4] = {
        __builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
        __builtin_shufflevector(c, d, 0, 1, 4, 5), __builtin_shufflevector(c, d, 2, 3, 6, 7)};
    memcpy(to, word, sizeof(word));
}

/* nv vectors of words of nh heads: x [nh][d_stride]. */
ALWAYS_INLINE void tab_words(const float *x, size_t d_stride, uint32_t dj, const float *decode,
                             size_t ld, const int nv, const int nh, float *to)
{
    float out[QYI_CODE_HEADS][TAB_WV * VEC_N];
    vec s[QYI_CODE_HEADS][TAB_WV];

    QYI_UNROLL
    for (int h = 0; h < QYI_CODE_HEADS; h++) {
        for (int v = 0; v < nv; v++) {
            s[h][v] = vec_set1(0.0F);
        }
    }
    for (uint32_t i = 0; i < dj; i++) {
        vec e[TAB_WV];
        QYI_UNROLL
        for (int v = 0; v < nv; v++) {
            e[v] = vec_load(decode + i * ld + v * VEC_N);
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
        for (int v = 0; v < nv; v++) {
            vec_store(out[h] + v * VEC_N, s[h][v]);
        }
    }
    for (int w = 0; w < nv * VEC_N; w += 4) {
        tab_transpose(out[0] + w, TAB_WV * VEC_N, to + w * QYI_CODE_HEADS);
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

    for (; w + TAB_WV * VEC_N <= end; w += TAB_WV * VEC_N) {
        tab_words(x + j * dj, quantizer->d, dj, decode + w, ld, TAB_WV, nh,
                  to + (size_t)w * QYI_CODE_HEADS);
    }
    for (; w + VEC_N <= end; w += VEC_N) {
        tab_words(x + j * dj, quantizer->d, dj, decode + w, ld, 1, nh,
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
    _Alignas(64) float x[QYI_CODE_HEADS * QYI_CODE_MAX_D];

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
