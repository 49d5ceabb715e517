/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention of a tile of queries (prefill). Part of a kernel file: include a vec_*.h first.
 *
 * A query row is one (token, head); LANES of them lie side by side, so that the softmax runs down
 * the lanes without a single horizontal step, and both products have the same register-blocked
 * form C[i][lane] += sum over k of A[i][k] B[k][lane], A broadcast:
 *
 *   S [key][lane]  = K [key][d]      Q [d][lane]      then masked, exp -> P
 *   O [d][lane]   += V [key][d]^T    P [key][lane]
 *
 * Rows are converted to f32 once per tile of keys and shared by all lane blocks. Key tiles start at
 * multiples of QYI_CHUNK_KEYS and masked keys add exact zeros: the bits of a query do not depend
 * on how its sequence was cut into chunks, nor on the tile of queries that it is in.
 *
 * Where all rows are earlier than the queries (item->earlier), every limit is the last of them.
 *
 * A call that takes only a part of the rows leaves O, not divided, in out and the lanes' m and l in
 * state; the next call loads them again and goes on as if it had never stopped.
 */
#ifndef QY_GPU_HOST_ATTEND_CHUNK_BODY_H
#define QY_GPU_HOST_ATTEND_CHUNK_BODY_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "gpu/host/rows.h"

enum { KEYS = QYI_CHUNK_KEYS };
static const size_t LANES = (size_t)CHUNK_NV * VEC_N;

/* Places in the scratch of one thread. dp is d rounded up to CHUNK_MR, with zeros behind d. */
struct chunk_space {
    size_t d, dp;
    uint32_t rows, n_blocks; /* query rows, lane blocks of them              */
    float *q, *o;            /* [n_blocks][dp][LANES]                        */
    float *m, *l, *limit;    /* [n_blocks][LANES]; limit: last key attended  */
    float *k, *v;            /* [KEYS][dp]                                   */
    float *s;                /* [KEYS][LANES]                                */
};

static struct chunk_space chunk_layout(const struct qyi_chunk *chunk)
{
    const struct qy_chunk_item *item = chunk->item;
    struct chunk_space c;
    c.d = item->rows.d;
    c.dp = (c.d + 7) / 8 * 8; /* a multiple of every CHUNK_MR */
    c.rows = (chunk->q_end - chunk->q_begin) * item->group;
    c.n_blocks = (c.rows + LANES - 1) / LANES;
    c.k = chunk->scratch;
    c.v = c.k + KEYS * c.dp;
    c.s = c.v + KEYS * c.dp;
    c.q = c.s + (size_t)KEYS * LANES;
    c.o = c.q + c.n_blocks * c.dp * LANES;
    c.m = c.o + c.n_blocks * c.dp * LANES;
    c.l = c.m + (size_t)c.n_blocks * LANES;
    c.limit = c.l + (size_t)c.n_blocks * LANES;
    return c;
}

/* One past the last key of the tile's last query. */
static uint32_t chunk_keys(const struct qyi_chunk *chunk)
{
    const struct qy_chunk_item *item = chunk->item;
    return item->earlier ? item->first : item->first + chunk->q_end;
}

/* Where row r of the tile has its output and its state. */
static float *chunk_out(const struct qyi_chunk *chunk, uint32_t r)
{
    const struct qy_chunk_item *item = chunk->item;
    const size_t at = chunk->q_begin + r / item->group;
    return item->out + at * item->out_stride + (size_t)(r % item->group) * item->rows.d;
}
static float *chunk_state(const struct qyi_chunk *chunk, uint32_t r)
{
    return chunk->item->state + ((size_t)chunk->q_begin * chunk->item->group + r) * 2;
}

/* Queries, scaled, one per lane. Lanes past the last row hold zeros and attend everything. */
static void chunk_begin(const struct qyi_chunk *chunk, const struct chunk_space *c)
{
    const struct qy_chunk_item *item = chunk->item;
    memset(c->q, 0, c->n_blocks * c->dp * LANES * sizeof(float));
    memset(c->o, 0, c->n_blocks * c->dp * LANES * sizeof(float));
    for (uint32_t r = 0; r < c->n_blocks * LANES; r++) {
        const uint32_t at = chunk->q_begin + r / item->group;
        c->m[r] = -INFINITY;
        c->l[r] = 0.0F;
        c->limit[r] =
            (float)(item->earlier || r >= c->rows ? chunk_keys(chunk) - 1 : item->first + at);
        if (r < c->rows) {
            const float *q = item->q + at * item->q_stride + r % item->group * c->d;
            float *to = c->q + (r / LANES) * c->dp * LANES + r % LANES;
            for (size_t i = 0; i < c->d; i++) {
                to[i * LANES] = q[i] * chunk->scale;
            }
        }
    }
}

/* What chunk_keep left. */
static void chunk_resume(const struct qyi_chunk *chunk, const struct chunk_space *c)
{
    for (uint32_t r = 0; r < c->rows; r++) {
        const float *out = chunk_out(chunk, r);
        const float *state = chunk_state(chunk, r);
        float *o = c->o + (r / LANES) * c->dp * LANES + r % LANES;
        c->m[r] = state[0];
        c->l[r] = state[1];
        for (size_t i = 0; i < c->d; i++) {
            o[i * LANES] = out[i];
        }
    }
}

static void chunk_convert(const uint8_t *row, size_t d, enum qy_row_type type, float *to)
{
    size_t i = 0;
    if (type == QY_ROW_F32) {
        memcpy(to, row, d * sizeof(float));
        return;
    }
    for (; i + VEC_N <= d; i += VEC_N) {
        vec_store(to + i, vec_load_f16(row + i * 2));
    }
    for (; i < d; i++) {
        uint16_t h;
        memcpy(&h, row + i * 2, sizeof(h));
        to[i] = qy_f32_from_f16(h);
    }
}

/* K and V of rows key .. key + n - 1 in f32; zeros up to padded rows and up to dp. */
static void chunk_load(const struct qy_rows *rows, uint32_t key, uint32_t n, uint32_t padded,
                       const struct chunk_space *c)
{
    const size_t half = qy_row_bytes(rows->type, rows->d) / 2;
    const size_t pad = (c->dp - c->d) * sizeof(float);
    for (uint32_t t = 0; t < n; t++) {
        const uint8_t *row = qy_row_at(rows, key + t);
        float *k = c->k + t * c->dp;
        float *v = c->v + t * c->dp;
        chunk_convert(row, c->d, rows->type, k);
        chunk_convert(row + half, c->d, rows->type, v);
        memset(k + c->d, 0, pad);
        memset(v + c->d, 0, pad);
    }
    memset(c->k + n * c->dp, 0, (padded - n) * c->dp * sizeof(float));
    memset(c->v + n * c->dp, 0, (padded - n) * c->dp * sizeof(float));
}

/* acc[i][j] += sum over k < n of a[i * a_row + k * a_col] * b[k][j]: the register block. */
static inline __attribute__((always_inline)) void chunk_product(const float *a, const size_t a_row,
                                                                const size_t a_col, const float *b,
                                                                size_t n,
                                                                vec acc[CHUNK_MR][CHUNK_NV])
{
    for (size_t k = 0; k < n; k++) {
        vec x[CHUNK_NV];
        for (int j = 0; j < CHUNK_NV; j++) {
            x[j] = vec_load(b + k * LANES + (size_t)j * VEC_N);
        }
        for (int i = 0; i < CHUNK_MR; i++) {
            const vec y = vec_set1(a[(size_t)i * a_row + k * a_col]);
            for (int j = 0; j < CHUNK_NV; j++) {
                acc[i][j] = vec_fma(y, x[j], acc[i][j]);
            }
        }
    }
}

/* s [n keys][lane] = K Q of one lane block, and the largest per lane; n a multiple of CHUNK_MR. */
static void chunk_scores(const struct chunk_space *c, const float *q, uint32_t n, vec top[CHUNK_NV])
{
    for (int j = 0; j < CHUNK_NV; j++) {
        top[j] = vec_set1(-INFINITY);
    }
    for (uint32_t t = 0; t < n; t += CHUNK_MR) {
        vec acc[CHUNK_MR][CHUNK_NV];
        for (int i = 0; i < CHUNK_MR; i++) {
            for (int j = 0; j < CHUNK_NV; j++) {
                acc[i][j] = vec_set1(0.0F);
            }
        }
        chunk_product(c->k + t * c->dp, c->dp, 1, q, c->d, acc);
        for (uint32_t i = 0; i < CHUNK_MR; i++) {
            for (uint32_t j = 0; j < CHUNK_NV; j++) {
                vec_store(c->s + (t + i) * LANES + (size_t)j * VEC_N, acc[i][j]);
                top[j] = vec_max(acc[i][j], top[j]);
            }
        }
    }
}

/* Scores of keys after a lane's limit become -inf; top is taken anew. */
static void chunk_mask(const struct chunk_space *c, size_t block, uint32_t key, uint32_t n,
                       vec top[CHUNK_NV])
{
    for (size_t j = 0; j < CHUNK_NV; j++) {
        const vec limit =
            vec_sub(vec_load(c->limit + block * LANES + j * VEC_N), vec_set1((float)key));
        float *s = c->s + j * VEC_N;
        top[j] = vec_set1(-INFINITY);
        for (uint32_t t = 0; t < n; t++) {
            const vec x = vec_select_ge(limit, vec_set1((float)t), vec_load(s + t * LANES),
                                        vec_set1(-INFINITY));
            vec_store(s + t * LANES, x);
            top[j] = vec_max(x, top[j]);
        }
    }
}

/* Scores become weights; keep: the factor for what was summed before. */
static void chunk_softmax(const struct chunk_space *c, size_t block, uint32_t n,
                          const vec top[CHUNK_NV], vec keep[CHUNK_NV])
{
    for (size_t j = 0; j < CHUNK_NV; j++) {
        const size_t lane = block * LANES + j * VEC_N;
        float *s = c->s + j * VEC_N;
        const vec before = vec_load(c->m + lane);
        const vec max = vec_max(top[j], before);
        const vec base = vec_select_ge(max, vec_set1(-FLT_MAX), max, vec_set1(0.0F));
        vec sum = vec_set1(0.0F);
        for (uint32_t t = 0; t < n; t++) {
            const vec p = vec_exp(vec_sub(vec_load(s + t * LANES), base));
            vec_store(s + t * LANES, p);
            sum = vec_add(sum, p);
        }
        keep[j] = vec_exp(vec_sub(before, base));
        vec_store(c->m + lane, max);
        vec_store(c->l + lane, vec_fma(vec_load(c->l + lane), keep[j], sum));
    }
}

/* o [dp][lane] = o * keep + V^T P. */
static void chunk_mix(const struct chunk_space *c, float *o, uint32_t n, const vec keep[CHUNK_NV])
{
    for (size_t i0 = 0; i0 < c->dp; i0 += CHUNK_MR) {
        vec acc[CHUNK_MR][CHUNK_NV];
        for (size_t i = 0; i < CHUNK_MR; i++) {
            for (size_t j = 0; j < CHUNK_NV; j++) {
                acc[i][j] = vec_mul(vec_load(o + (i0 + i) * LANES + j * VEC_N), keep[j]);
            }
        }
        chunk_product(c->v + i0, 1, c->dp, c->s, n, acc);
        for (size_t i = 0; i < CHUNK_MR; i++) {
            for (size_t j = 0; j < CHUNK_NV; j++) {
                vec_store(o + (i0 + i) * LANES + j * VEC_N, acc[i][j]);
            }
        }
    }
}

/* O, divided by the sums of weights after the last row. */
static void chunk_end(const struct qyi_chunk *chunk, const struct chunk_space *c)
{
    const struct qy_chunk_item *item = chunk->item;
    for (uint32_t r = 0; r < c->rows; r++) {
        const float *o = c->o + (r / LANES) * c->dp * LANES + r % LANES;
        float *out = chunk_out(chunk, r);
        const float inverse = 1.0F / c->l[r];
        for (size_t i = 0; i < c->d; i++) {
            out[i] = o[i * LANES] * inverse;
        }
        if (item->lse != NULL) {
            const size_t at = chunk->q_begin + r / item->group;
            item->lse[at * item->lse_stride + r % item->group] = c->m[r] + logf(c->l[r]);
        }
    }
}

static void chunk_keep(const struct qyi_chunk *chunk, const struct chunk_space *c)
{
    for (uint32_t r = 0; r < c->rows; r++) {
        const float *o = c->o + (r / LANES) * c->dp * LANES + r % LANES;
        float *out = chunk_out(chunk, r);
        float *state = chunk_state(chunk, r);
        state[0] = c->m[r];
        state[1] = c->l[r];
        for (size_t i = 0; i < c->d; i++) {
            out[i] = o[i * LANES];
        }
    }
}

/* Keys key .. key + n - 1, n <= KEYS, of all lane blocks. */
static void chunk_step(const struct qyi_chunk *chunk, const struct chunk_space *c, uint32_t key,
                       uint32_t n)
{
    const uint32_t padded = (n + CHUNK_MR - 1) / CHUNK_MR * CHUNK_MR;
    chunk_load(&chunk->item->rows, key, n, padded, c);
    for (uint32_t b = 0; b < c->n_blocks; b++) {
        const float *limit = c->limit + (size_t)b * LANES;
        const float last = (float)(key + padded - 1);
        vec top[CHUNK_NV];
        vec keep[CHUNK_NV];
        if ((float)key > limit[LANES - 1]) {
            continue;
        }
        chunk_scores(c, c->q + b * c->dp * LANES, padded, top);
        if (last > limit[0]) {
            chunk_mask(c, b, key, padded, top);
        }
        chunk_softmax(c, b, padded, top, keep);
        chunk_mix(c, c->o + b * c->dp * LANES, padded, keep);
    }
}

/* As qyi_rows_kernels.chunk. */
static void chunk_attend(const struct qyi_chunk *chunk)
{
    const struct qy_chunk_item *item = chunk->item;
    const struct chunk_space c = chunk_layout(chunk);
    const uint32_t n_keys = chunk_keys(chunk);
    const uint32_t end = n_keys < chunk->key_end ? n_keys : chunk->key_end;
    const int last = chunk->key_end == qyi_chunk_rows(item);
    if (item->key_begin >= end && !last) {
        return; /* all its keys were in parts before: it waits to be divided */
    }
    chunk_begin(chunk, &c);
    if (item->key_begin > 0 && !item->starts) {
        chunk_resume(chunk, &c);
    }
    for (uint32_t key = item->key_begin; key < end; key += KEYS) {
        chunk_step(chunk, &c, key, end - key < KEYS ? end - key : KEYS);
    }
    if (last) {
        chunk_end(chunk, &c);
    } else {
        chunk_keep(chunk, &c);
    }
}

#endif
