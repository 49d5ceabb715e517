/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of rows: the addresses of a few dozen rows, and the dot products of a group's queries with
 * their keys. Part of a kernel file: include a vec_*.h first. Used by attend_body.h, score_body.h.
 *
 * Each row is read once for HEADS_MAX query heads; further heads of the group find the tile in L1.
 */
#ifndef QY_GPU_HOST_TILE_BODY_H
#define QY_GPU_HOST_TILE_BODY_H

#include "gpu/host/rows.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    TILE = 32,
    HEADS_MAX = VEC_ACC / 4 > 4 ? 4 : VEC_ACC / 4, /* four rows at a time, one sum each */
    LINE_BYTES = 64
};

/* Rows of one tile. Places n .. TILE + 3 repeat the last row, so that loops may round up. */
struct tile {
    uint32_t n;
    const uint8_t *row[TILE + 4];
};

/* Address of rows at .. at + n - 1 of the span (n <= TILE; n = 0 is an empty tile). */
static void tile_fill(struct tile *tile, const struct qyi_span *span, uint32_t at, uint32_t n)
{
    const struct qy_rows *rows = span->rows;
    const size_t row_bytes = qy_row_bytes(rows->type, rows->d);
    const uint32_t mask = ((uint32_t)1 << rows->shift) - 1;
    tile->n = n;
    if (span->ids != NULL) {
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t id = span->ids[at + i];
            tile->row[i] = rows->blocks[id >> rows->shift] + rows->offset + (id & mask) * row_bytes;
        }
    } else {
        uint32_t i = 0;
        while (i < n) {
            const uint32_t token = span->first + at + i;
            const uint32_t left = mask + 1 - (token & mask);
            const uint32_t end = n - i < left ? n : i + left;
            const uint8_t *row = qy_row_at(rows, token);
            for (; i < end; i++) {
                tile->row[i] = row;
                row += row_bytes;
            }
        }
    }
    for (uint32_t i = n; n > 0 && i < TILE + 4; i++) {
        tile->row[i] = tile->row[n - 1];
    }
}

ALWAYS_INLINE vec row_load(const uint8_t *row, size_t i, const int f16)
{
    return f16 ? vec_load_f16(row + i * 2) : vec_load((const float *)(const void *)row + i);
}

ALWAYS_INLINE void prefetch_bytes(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += LINE_BYTES) {
        __builtin_prefetch(p + i);
    }
}

/* s[h * TILE + t] = q[h] . key of row t, heads and f16 constants; rounds n up to 4 rows. Prefetches
 * the keys of the next tile as it goes. */
ALWAYS_INLINE void tile_dots(const struct tile *tile, const struct tile *next, const float *q,
                             const size_t d, const size_t heads, const int f16, float *s)
{
    const size_t half = d * (f16 ? 2 : 4);
    for (uint32_t t = 0; t < tile->n; t += 4) {
        vec acc[4][HEADS_MAX];
        for (size_t h = 0; h < heads; h++) {
            acc[0][h] = acc[1][h] = acc[2][h] = acc[3][h] = vec_set1(0.0F);
        }
        if (t < next->n) {
            prefetch_bytes(next->row[t], half);
            prefetch_bytes(next->row[t + 1], half);
            prefetch_bytes(next->row[t + 2], half);
            prefetch_bytes(next->row[t + 3], half);
        }
        for (size_t i = 0; i < d; i += VEC_N) {
            const vec k0 = row_load(tile->row[t], i, f16);
            const vec k1 = row_load(tile->row[t + 1], i, f16);
            const vec k2 = row_load(tile->row[t + 2], i, f16);
            const vec k3 = row_load(tile->row[t + 3], i, f16);
            for (size_t h = 0; h < heads; h++) {
                const vec x = vec_load(q + h * d + i);
                acc[0][h] = vec_fma(k0, x, acc[0][h]);
                acc[1][h] = vec_fma(k1, x, acc[1][h]);
                acc[2][h] = vec_fma(k2, x, acc[2][h]);
                acc[3][h] = vec_fma(k3, x, acc[3][h]);
            }
        }
        for (size_t h = 0; h < heads; h++) {
            vec_hsum4(acc[0][h], acc[1][h], acc[2][h], acc[3][h], s + h * TILE + t);
        }
    }
}

/* How many of `left` heads to take next: as even shares as HEADS_MAX allows. */
static uint32_t heads_next(uint32_t left)
{
    const uint32_t turns = (left + HEADS_MAX - 1) / HEADS_MAX;
    return (left + turns - 1) / turns;
}

#endif
