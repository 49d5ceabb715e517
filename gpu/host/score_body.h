/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of one group of query heads over one span of rows. Part of a kernel file: include a
 * vec_*.h first. */
#ifndef QY_GPU_HOST_SCORE_BODY_H
#define QY_GPU_HOST_SCORE_BODY_H

#include "gpu/host/tile_body.h"

ALWAYS_INLINE void tile_score(const struct tile *tile, const struct tile *next, const float *q,
                              const size_t d, uint32_t heads, const int f16, float *s)
{
    if (HEADS_MAX >= 4 && heads == 4) {
        tile_dots(tile, next, q, d, HEADS_MAX >= 4 ? 4 : 1, f16, s);
    } else if (HEADS_MAX >= 3 && heads == 3) {
        tile_dots(tile, next, q, d, HEADS_MAX >= 3 ? 3 : 1, f16, s);
    } else if (heads == 2) {
        tile_dots(tile, next, q, d, 2, f16, s);
    } else {
        tile_dots(tile, next, q, d, 1, f16, s);
    }
}

static void tile_score_any(const struct tile *tile, const struct tile *next, const float *q,
                           const struct qy_rows *rows, uint32_t heads, float *s)
{
    if (rows->type == QY_ROW_F32) {
        tile_score(tile, next, q, rows->d, heads, 0, s);
    } else if (rows->d == 64) {
        tile_score(tile, next, q, 64, heads, 1, s);
    } else {
        tile_score(tile, next, q, rows->d, heads, 1, s);
    }
}

/* As qyi_rows_kernels.score. */
static void score_span(const struct qyi_span *span, float scale, float *scores, size_t stride)
{
    struct tile tiles[2];
    float s[HEADS_MAX * TILE];
    tile_fill(&tiles[0], span, 0, span->n < TILE ? span->n : TILE);
    for (uint32_t at = 0, which = 0; at < span->n; at += TILE, which ^= 1) {
        const struct tile *tile = &tiles[which];
        const uint32_t left = span->n - at > TILE ? span->n - at - TILE : 0;
        tile_fill(&tiles[which ^ 1], span, at + TILE, left < TILE ? left : TILE);
        for (uint32_t h = 0; h < span->group;) {
            const uint32_t heads = heads_next(span->group - h);
            tile_score_any(tile, &tiles[which ^ 1], span->q + (size_t)h * span->rows->d, span->rows,
                           heads, s);
            for (uint32_t i = 0; i < heads; i++, h++) {
                float *out = scores + h * stride + at;
                for (uint32_t t = 0; t < tile->n; t++) {
                    out[t] = s[i * TILE + t] * scale;
                }
            }
        }
    }
}

#endif
