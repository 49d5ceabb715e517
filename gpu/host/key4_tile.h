/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the tokens of a span of 4-bit keys in tiles, a few tiles ahead of the arithmetic, so that
 * keys at scattered tokens are on their way when they are needed. Part of a kernel file, which
 * says how many keys a tile has (TILE) and defines tile_heads.
 */
#ifndef QY_GPU_HOST_KEY4_TILE_H
#define QY_GPU_HOST_KEY4_TILE_H

#include "gpu/host/key4.h"

enum {
    HEADS_MAX = 4, /* of one pass over a tile                     */
    AHEAD = 3,     /* tiles that are fetched before they are used */
    TILES = 4      /* a power of two above AHEAD                  */
};

/* Where TILE keys lie; their low and step << 16, read one tile ahead. */
struct tile {
    const uint8_t *words[TILE], *meta[TILE];
    uint32_t pairs[TILE];
    int together; /* meta[0] begins TILE neighbours */
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* scores[i * stride + t] of the tile's first n keys for heads h .. h + heads - 1. */
static void tile_heads(const struct tile *tile, const struct qyi_key4_span *span, uint32_t h,
                       uint32_t heads, uint32_t n, float scale, float *scores, size_t stride);

/* Tokens at .. at + TILE - 1 of the span. Those past its end are the item's next ones: fetched, not
 * scored; past the item's end its last one is repeated. */
static inline void tile_fill(struct tile *tile, const struct qyi_key4_span *span, uint32_t at)
{
    const struct qy_slab *keys = span->keys;
    const uint32_t last = span->n + span->after - 1;
    const uint32_t mask = ((uint32_t)1 << keys->shift) - 1;
    const uint32_t inside = (span->first + at) & mask;
    const size_t bytes = 2 * (size_t)qyi_key4_words(span->d);
    const size_t meta = bytes << keys->shift;

    tile->together =
        span->ids == NULL && (uint64_t)at + TILE - 1 <= last && (uint64_t)inside + TILE - 1 <= mask;
    if (tile->together) {
        const uint8_t *slab = keys->blocks[(span->first + at) >> keys->shift] + keys->offset;
        for (uint32_t t = 0; t < TILE; t++) {
            tile->words[t] = slab + (inside + t) * bytes;
        }
        tile->meta[0] = slab + meta + (size_t)inside * 4;
        for (size_t line = 0; line < TILE * bytes; line += 64) {
            __builtin_prefetch(tile->words[0] + line);
        }
        __builtin_prefetch(tile->meta[0]);
        return;
    }
    for (uint32_t t = 0; t < TILE; t++) {
        const uint32_t i = at + t < last ? at + t : last;
        const uint32_t token = span->ids == NULL ? span->first + i : span->ids[i];
        const uint8_t *slab = keys->blocks[token >> keys->shift] + keys->offset;
        tile->words[t] = slab + (token & mask) * bytes;
        tile->meta[t] = slab + meta + (size_t)(token & mask) * 4;
        __builtin_prefetch(tile->words[t]);
        if (bytes > 32) { /* else it lies in one line */
            __builtin_prefetch(tile->words[t] + bytes - 1);
        }
        __builtin_prefetch(tile->meta[t]);
    }
}

/* Copied a tile before they are read: a vector load waits for single stores just made. */
static inline void tile_pairs(struct tile *tile)
{
    if (tile->together) {
        memcpy(tile->pairs, tile->meta[0], sizeof(tile->pairs));
        return;
    }
    for (uint32_t t = 0; t < TILE; t++) {
        memcpy(&tile->pairs[t], tile->meta[t], sizeof(tile->pairs[t]));
    }
}

/* As qyi_key4_kernels.score. */
static void score_span(const struct qyi_key4_span *span, float scale, float *scores, size_t stride)
{
    struct tile tiles[TILES];

    if (span->n == 0) {
        return;
    }
    for (uint32_t i = 0; i < AHEAD; i++) {
        tile_fill(&tiles[i], span, i * TILE);
    }
    tile_pairs(&tiles[0]);
    for (uint32_t at = 0, i = 0; at < span->n; at += TILE, i++) {
        const uint32_t n = span->n - at < TILE ? span->n - at : TILE;
        tile_fill(&tiles[(i + AHEAD) % TILES], span, at + AHEAD * TILE);
        tile_pairs(&tiles[(i + 1) % TILES]);
        for (uint32_t h = 0; h < span->group; h += HEADS_MAX) {
            const uint32_t heads = span->group - h < HEADS_MAX ? span->group - h : HEADS_MAX;
            tile_heads(&tiles[i % TILES], span, h, heads, n, scale, scores + h * stride + at,
                       stride);
        }
    }
}

#endif
