/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage that scores codes of keys before RoPE: the query is turned from its position to a
 * distance, so that its product with an unturned key is that of a key so far away. One distance for
 * all far tokens is A2ATS's windowed RoPE (He et al. 2025, arXiv:2502.12665, eq. 11 and 12); with a
 * distance per band, tokens are scored near their own.
 */
#include "retrieval/policy_a2ats.h"

#include "retrieval/rank_pass.h"

#include <string.h>

/* Tables that turn queries of this slot from position n - 1 to each band's distance. All layers and
 * KV heads of a step share them. */
static enum qy_status turns_of(const struct qyi_a2ats *a, const struct qy_select_item *it,
                               const float **tables)
{
    const struct qy_policy_params *p = a->params;
    float *kept = a->turns + (size_t)it->sequence * a->n_bands * p->rope.dim;
    int32_t positions[QYI_A2ATS_BANDS];

    *tables = kept;
    if (p->rope.dim == 0 || a->turn_n[it->sequence] == it->n) {
        return QY_OK;
    }
    for (uint32_t b = 0; b < a->n_bands; b++) {
        positions[b] = a->bands[b].distance - (int32_t)(it->n - 1);
    }
    const enum qy_status st = qy_device_rope_table(p->dev, &p->rope, positions, a->n_bands, kept);
    a->turn_n[it->sequence] = st == QY_OK ? it->n : 0;
    return st;
}

/* Arguments of the kernels of a batch. */
struct work {
    const struct qyi_a2ats *a;
    struct qy_code_score_item *codes; /* [spans * bands] */
    struct qy_score_item *near;       /* [spans]         */
    float *q, *tables;                /* [spans * bands][group * d], [spans * bands][rope.dim] */
    uint32_t n_codes, n_near;
};

static size_t query_floats(const struct qy_policy_params *p)
{
    return (size_t)p->n_heads / p->n_kv_heads * p->head_dim;
}

static enum qy_status work_take(struct work *w, uint32_t n, struct qy_arena *arena)
{
    const struct qy_policy_params *p = w->a->params;
    const size_t most = (size_t)n * w->a->n_bands;

    w->codes = qyi_rank_take(arena, most * sizeof(*w->codes));
    w->near = qyi_rank_take(arena, n * sizeof(*w->near));
    w->q = qyi_rank_take(arena, most * query_floats(p) * sizeof(*w->q));
    w->tables = qyi_rank_take(arena, most * p->rope.dim * sizeof(*w->tables));
    return w->codes && w->near && w->q && w->tables ? QY_OK : QY_ERR_NOMEM;
}

/* The span's tokens lo .. hi - 1, scored at band b's distance. */
static void add_band(struct work *w, const struct qyi_rank_span *span, const float *tables,
                     uint32_t b, uint32_t lo, uint32_t hi)
{
    const struct qy_policy_params *p = w->a->params;
    const struct qy_select_item *it = span->item;
    float *q = w->q + w->n_codes * query_floats(p);

    memcpy(q, it->q, query_floats(p) * sizeof(*q));
    memcpy(w->tables + (size_t)w->n_codes * p->rope.dim, tables + (size_t)b * p->rope.dim,
           p->rope.dim * sizeof(*tables));
    w->codes[w->n_codes++] = (struct qy_code_score_item){
        .quantizer = &w->a->quantizers[it->layer * p->n_kv_heads + it->kv_head],
        .q = q,
        .codes = it->index,
        .first = lo,
        .n = hi - lo,
        .group = it->group,
        .scores = span->scores + (lo - span->first),
        .stride = span->stride};
}

/* Tokens from the newest backwards: by their keys, then band after band. */
static void add_span(struct work *w, const struct qyi_rank_span *span, const float *tables)
{
    const struct qyi_a2ats *a = w->a;
    const struct qy_select_item *it = span->item;
    uint32_t hi = span->first + span->n;
    /* the newest token that is `least` away is n - 1 - least */
    uint32_t lo = it->n > a->near ? it->n - a->near : 0;

    lo = lo > span->first ? lo : span->first;
    if (lo < hi) {
        w->near[w->n_near++] = (struct qy_score_item){.q = it->q,
                                                      .rows = it->rows,
                                                      .first = lo,
                                                      .n = hi - lo,
                                                      .group = it->group,
                                                      .scores = span->scores + (lo - span->first),
                                                      .stride = span->stride};
        hi = lo;
    }
    for (uint32_t b = 0; b < a->n_bands && hi > span->first; b++) {
        lo = span->first;
        if (b + 1 < a->n_bands && it->n > a->bands[b + 1].least &&
            it->n - a->bands[b + 1].least > lo) {
            lo = it->n - a->bands[b + 1].least;
        }
        if (lo < hi) {
            add_band(w, span, tables, b, lo, hi);
            hi = lo;
        }
    }
}

static enum qy_status score_bands(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                  uint32_t n, struct qy_arena *arena)
{
    const struct qy_policy_params *p = rank->params;
    const size_t mark = qy_arena_mark(arena);
    struct work w = {.a = rank->ctx};
    enum qy_status st = work_take(&w, n, arena);

    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        const float *tables;

        st = turns_of(w.a, spans[i].item, &tables);
        if (st == QY_OK) {
            add_span(&w, &spans[i], tables);
        }
    }
    if (st == QY_OK) {
        st = qy_device_rope(p->dev, &p->rope, w.tables, w.q, w.n_codes, query_floats(p),
                            p->n_heads / p->n_kv_heads, p->head_dim);
    }
    if (st == QY_OK) {
        st = qy_device_code_score(p->dev, w.codes, w.n_codes, p->scale, arena);
    }
    if (st == QY_OK) {
        st = qy_device_score(p->dev, w.near, w.n_near, p->scale);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

static size_t score_bands_scratch(const struct qyi_rank *rank, uint32_t n_spans)
{
    const struct qyi_a2ats *a = rank->ctx;
    const struct qy_policy_params *p = rank->params;
    const uint32_t most = n_spans * a->n_bands;

    return most * (sizeof(struct qy_code_score_item) +
                   (query_floats(p) + p->rope.dim) * sizeof(float)) +
           n_spans * sizeof(struct qy_score_item) + (size_t)5 * QYI_RANK_ALIGN +
           qy_device_code_score_scratch(p->dev, most, &a->quantizers[0],
                                        p->n_heads / p->n_kv_heads);
}

const struct qyi_rank_stage qyi_stage_bands = {.score = score_bands,
                                               .scratch = score_bands_scratch};
