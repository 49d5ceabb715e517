/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one group of query heads over one span of rows (a piece of decode attention).
 * Part of a kernel file: include a vec_*.h first.
 *
 * Per tile: scores of the group -> running maximum -> weights -> weighted sum of values, which
 * prefetches the values of the next tile. The sums so far are rescaled when the maximum grows
 * (Milakov and Gimelshein 2018, arXiv:1805.02867, alg. 3).
 */
#ifndef QY_GPU_HOST_ATTEND_BODY_H
#define QY_GPU_HOST_ATTEND_BODY_H

#include <math.h>
#include <string.h>

#include "gpu/host/tile_body.h"

struct attend_state {
    const struct tile *tile, *next;
    const float *q;
    size_t d;
    float scale;
    const float *bias; /* [TILE] of the tile's rows, 0 past the last; or NULL */
    float *o;          /* [group][d], not yet divided by l */
    float *m;          /* [group] running maximum          */
    float *l;          /* [group] sum of weights           */
};

/* Scores s [TILE] of one head become weights; returns the factor for what was summed before. */
static float tile_softmax(float *s, uint32_t n, float scale, const float *bias, float *m, float *l)
{
    const uint32_t padded = (n + VEC_N - 1) / VEC_N * VEC_N;
    for (uint32_t t = n; t < padded; t++) {
        s[t] = 0.0F;
    }
    for (uint32_t t = 0; t < padded; t += VEC_N) {
        vec_store(s + t, vec_mul(vec_load(s + t), vec_set1(scale)));
    }
    for (uint32_t t = 0; bias != NULL && t < padded; t += VEC_N) {
        vec_store(s + t, vec_add(vec_load(s + t), vec_load(bias + t)));
    }
    for (uint32_t t = n; t < padded; t++) {
        s[t] = -INFINITY; /* after the scale: its product with 0 is NaN */
    }
    vec top = vec_set1(-INFINITY);
    for (uint32_t t = 0; t < padded; t += VEC_N) {
        top = vec_max(vec_load(s + t), top);
    }
    const float now = vec_hmax(top);
    const float before = *m;
    const float max = now > before ? now : before;
    const float base = max > -INFINITY ? max : 0.0F;
    vec sum = vec_set1(0.0F);
    for (uint32_t t = 0; t < padded; t += VEC_N) {
        const vec p = vec_exp(vec_sub(vec_load(s + t), vec_set1(base)));
        vec_store(s + t, p);
        sum = vec_add(sum, p);
    }
    const float keep = max == before ? 1.0F : expf(before - base);
    *m = max;
    *l = *l * keep + vec_hsum(sum);
    return keep;
}

/* o[h][i .. i + width vectors) = o * keep[h] + sum over rows of weight x value. */
ALWAYS_INLINE void tile_mix_block(const struct attend_state *st, const float *s, const float *keep,
                                  float *o, const size_t d, size_t i, const size_t heads,
                                  const size_t width, const int f16)
{
    const struct tile *tile = st->tile;
    const struct tile *next = st->next;
    const size_t half = d * (f16 ? 2 : 4);
    vec acc[HEADS_MAX][8];
    for (size_t h = 0; h < heads; h++) {
        for (size_t j = 0; j < width; j++) {
            acc[h][j] = vec_mul(vec_load(o + h * d + i + j * VEC_N), vec_set1(keep[h]));
        }
    }
    for (uint32_t t = 0; t < tile->n; t++) {
        const uint8_t *row = tile->row[t];
        vec p[HEADS_MAX];
        if (i == 0 && t < next->n) {
            prefetch_bytes(next->row[t] + half, half);
        }
        for (size_t h = 0; h < heads; h++) {
            p[h] = vec_set1(s[h * TILE + t]);
        }
        for (size_t j = 0; j < width; j++) {
            const vec v = row_load(row, d + i + j * VEC_N, f16);
            for (size_t h = 0; h < heads; h++) {
                acc[h][j] = vec_fma(v, p[h], acc[h][j]);
            }
        }
    }
    for (size_t h = 0; h < heads; h++) {
        for (size_t j = 0; j < width; j++) {
            vec_store(o + h * d + i + j * VEC_N, acc[h][j]);
        }
    }
}

/* One tile for heads h0 .. h0 + heads - 1. */
ALWAYS_INLINE void tile_attend(const struct attend_state *st, uint32_t h0, const size_t heads,
                               const int f16, const size_t d)
{
    const struct tile *tile = st->tile;
    float s[(size_t)HEADS_MAX * TILE];
    float keep[HEADS_MAX];
    float *o = st->o + h0 * d;
    tile_dots(tile, st->next, st->q + h0 * d, d, heads, f16, s);
    for (size_t h = 0; h < heads; h++) {
        keep[h] = tile_softmax(s + h * TILE, tile->n, st->scale, st->bias, st->m + h0 + h,
                               st->l + h0 + h);
    }
    const size_t step = VEC_N;
    size_t i = 0;
    for (; 8 * heads <= VEC_ACC && i + 8 * step <= d; i += 8 * step) {
        tile_mix_block(st, s, keep, o, d, i, heads, 8, f16);
    }
    for (; 4 * heads <= VEC_ACC && i + 4 * step <= d; i += 4 * step) {
        tile_mix_block(st, s, keep, o, d, i, heads, 4, f16);
    }
    for (; i + 2 * step <= d; i += 2 * step) {
        tile_mix_block(st, s, keep, o, d, i, heads, 2, f16);
    }
    for (; i < d; i += step) {
        tile_mix_block(st, s, keep, o, d, i, heads, 1, f16);
    }
}

/* tile_attend for a head count, row type and d that are known to the compiler. */
ALWAYS_INLINE void tile_attend_heads(const struct attend_state *st, uint32_t h0, uint32_t heads,
                                     const int f16, const size_t d)
{
    if (HEADS_MAX >= 4 && heads == 4) {
        tile_attend(st, h0, HEADS_MAX >= 4 ? 4 : 1, f16, d);
    } else if (HEADS_MAX >= 3 && heads == 3) {
        tile_attend(st, h0, HEADS_MAX >= 3 ? 3 : 1, f16, d);
    } else if (heads == 2) {
        tile_attend(st, h0, 2, f16, d);
    } else {
        tile_attend(st, h0, 1, f16, d);
    }
}

typedef void (*tile_fn)(const struct attend_state *st, uint32_t h0, uint32_t heads);

static void tile_f16_64(const struct attend_state *st, uint32_t h0, uint32_t heads)
{
    tile_attend_heads(st, h0, heads, 1, 64);
}
static void tile_f16_128(const struct attend_state *st, uint32_t h0, uint32_t heads)
{
    tile_attend_heads(st, h0, heads, 1, 128);
}
static void tile_f16_any(const struct attend_state *st, uint32_t h0, uint32_t heads)
{
    tile_attend_heads(st, h0, heads, 1, st->d);
}
static void tile_f32_any(const struct attend_state *st, uint32_t h0, uint32_t heads)
{
    tile_attend_heads(st, h0, heads, 0, st->d);
}

static tile_fn tile_fn_for(const struct qy_rows *rows)
{
    if (rows->type == QY_ROW_F32) {
        return tile_f32_any;
    }
    return rows->d == 64 ? tile_f16_64 : rows->d == 128 ? tile_f16_128 : tile_f16_any;
}

/* As qyi_rows_kernels.attend; group <= QYI_MAX_GROUP. */
static void attend_span(const struct qyi_span *span, float scale, float *out, float *lse)
{
    const size_t d = span->rows->d;
    const tile_fn run = tile_fn_for(span->rows);
    const uint32_t rows_ahead = span->n + span->after;
    float m[QYI_MAX_GROUP];
    float l[QYI_MAX_GROUP];
    float bias[TILE];
    struct tile tiles[2];
    struct attend_state st = {.q = span->q, .d = d, .scale = scale, .o = out, .m = m, .l = l};
    memset(out, 0, span->group * d * sizeof(float));
    for (uint32_t h = 0; h < span->group; h++) {
        m[h] = -INFINITY;
        l[h] = 0.0F;
    }
    tile_fill(&tiles[0], span, 0, span->n < TILE ? span->n : TILE);
    for (uint32_t at = 0, which = 0; at < span->n; at += TILE, which ^= 1) {
        const uint32_t next = at + TILE;
        const uint32_t end = next < span->n ? span->n : rows_ahead;
        const uint32_t left = next < end ? end - next : 0;
        tile_fill(&tiles[which ^ 1], span, next, left < TILE ? left : TILE);
        st.tile = &tiles[which];
        st.next = &tiles[which ^ 1];
        if (span->bias != NULL) {
            for (uint32_t t = 0; t < TILE; t++) {
                bias[t] = t < st.tile->n ? span->bias[at + t] : 0.0F;
            }
            st.bias = bias;
        }
        for (uint32_t h = 0; h < span->group;) {
            const uint32_t heads = heads_next(span->group - h);
            run(&st, h, heads);
            h += heads;
        }
    }
    for (uint32_t h = 0; h < span->group; h++) {
        const float inverse = l[h] > 0.0F ? 1.0F / l[h] : l[h];
        for (size_t i = 0; i < d; i++) {
            out[h * d + i] *= inverse;
        }
        lse[h] = l[h] > 0.0F ? m[h] + logf(l[h]) : l[h] == 0.0F ? -INFINITY : NAN;
    }
}

#endif
