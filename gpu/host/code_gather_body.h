/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of 8- and 16-bit codes: one load brings the table entry of four heads; four tokens are
 * turned round into four heads. Needs no vec_*.h: four lanes are what the layout holds.
 */
#ifndef QY_GPU_HOST_CODE_GATHER_BODY_H
#define QY_GPU_HOST_CODE_GATHER_BODY_H

#include <string.h>

#include "gpu/host/code_table_body.h"

ALWAYS_INLINE tab_quad gather_token(const struct qyi_code_gather *g, uint32_t i, const int bits)
{
    tab_quad sum = {0.0F, 0.0F, 0.0F, 0.0F};
    tab_quad entry;

    if (bits == 16) {
        uint32_t code = ((const uint16_t *)g->codes)[i];
        code = code < g->n_words ? code : g->n_words - 1; /* bytes may come from elsewhere */
        memcpy(&entry, g->tables + (size_t)code * QYI_CODE_HEADS, sizeof(entry));
        return entry;
    }
    const uint8_t *codes = (const uint8_t *)g->codes + (size_t)i * g->m;
    for (uint32_t j = 0; j < g->m; j++) {
        memcpy(&entry, g->tables + ((size_t)j * 256 + codes[j]) * QYI_CODE_HEADS, sizeof(entry));
        sum += entry;
    }
    return sum;
}

ALWAYS_INLINE void gather_slab(const struct qyi_code_gather *g, const int bits)
{
    uint32_t i = 0;

    for (; i + 4 <= g->n; i += 4) {
        tab_quad in[4];
        float out[4][QYI_CODE_HEADS];
        for (uint32_t t = 0; t < 4; t++) {
            in[t] = gather_token(g, i + t, bits);
        }
        tab_transpose((const float *)in, 4, out[0]);
        for (uint32_t h = 0; h < g->n_heads; h++) {
            memcpy(g->out + h * g->stride + i, out[h], sizeof(out[h]));
        }
    }
    for (; i < g->n; i++) {
        const tab_quad s = gather_token(g, i, bits);
        for (uint32_t h = 0; h < g->n_heads; h++) {
            g->out[h * g->stride + i] = s[h];
        }
    }
}

/* As qyi_code_kernels.gather. */
static void gather_codes(const struct qyi_code_gather *gather)
{
    if (gather->bits == 16) {
        gather_slab(gather, 16);
    } else {
        gather_slab(gather, 8);
    }
}

#endif
