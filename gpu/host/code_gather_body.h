/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of 8- and 16-bit codes: one load brings the table entry of four heads; four tokens are
 * turned round into four heads. Needs no words of a set: four lanes are what the layout holds.
 */
#ifndef QY_GPU_HOST_CODE_GATHER_BODY_H
#define QY_GPU_HOST_CODE_GATHER_BODY_H

#include "gpu/host/code.h"
#include "gpu/host/code_quad.h"
#include "gpu/host/kernels.h"

ALWAYS_INLINE quad gather_entry(const float *table, size_t word)
{
    quad entry;
    memcpy(&entry, table + word * QYI_CODE_HEADS, sizeof(entry));
    return entry;
}

/* Tokens at .. at + 3 (or only the first) of the slab. */
ALWAYS_INLINE void gather_four(const struct qyi_code_gather *g, uint32_t at, const int bits,
                               const int n, quad sums[4])
{
    if (bits == 16) {
        const uint16_t *codes = (const uint16_t *)g->codes + at;
        QYI_UNROLL
        for (int t = 0; t < n; t++) {
            const uint32_t last = g->n_words - 1; /* bytes may come from elsewhere */
            sums[t] = gather_entry(g->tables, codes[t] < last ? codes[t] : last);
        }
        return;
    }
    const uint8_t *codes = (const uint8_t *)g->codes + (size_t)at * g->m;
    const float *table = g->tables;
    const uint32_t m = g->m;
    QYI_UNROLL
    for (int t = 0; t < n; t++) {
        sums[t] = gather_entry(table, codes[(size_t)t * m]);
    }
    for (uint32_t j = 1; j < m; j++) {
        table += (size_t)256 * QYI_CODE_HEADS;
        QYI_UNROLL
        for (int t = 0; t < n; t++) {
            sums[t] += gather_entry(table, codes[(size_t)t * m + j]);
        }
    }
}

ALWAYS_INLINE void gather_slab(const struct qyi_code_gather *g, const int bits, const uint32_t nh)
{
    float *out = g->out;
    const size_t stride = g->stride;
    const uint32_t n = g->n;
    quad sums[4];
    uint32_t i = 0;

    for (; i + 4 <= n; i += 4) {
        gather_four(g, i, bits, 4, sums);
        quad_turn(sums);
        QYI_UNROLL
        for (uint32_t h = 0; h < nh; h++) {
            memcpy(out + h * stride + i, &sums[h], sizeof(sums[h]));
        }
    }
    for (; i < n; i++) {
        gather_four(g, i, bits, 1, sums);
        QYI_UNROLL
        for (uint32_t h = 0; h < nh; h++) {
            out[h * stride + i] = sums[0][h];
        }
    }
}

ALWAYS_INLINE void gather_heads(const struct qyi_code_gather *g, const int bits)
{
    if (g->n_heads == 4) {
        gather_slab(g, bits, 4);
    } else if (g->n_heads == 3) {
        gather_slab(g, bits, 3);
    } else if (g->n_heads == 2) {
        gather_slab(g, bits, 2);
    } else {
        gather_slab(g, bits, 1);
    }
}

/* As qyi_code_kernels.gather. */
static void gather_codes(const struct qyi_code_gather *gather)
{
    if (gather->bits == 16) {
        gather_heads(gather, 16);
    } else {
        gather_heads(gather, 8);
    }
}

#endif
