/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each query head's best of some tokens, with their scores: what a union of lists is made of when index
 * bytes lie in several places. Scores and ties are those of a pass (rank_pass.c), so that the best of all
 * parts' best are its lists.
 */
#include "retrieval/rank_pass.h"

enum { BATCH = 8 /* items whose scores are held together */ };

static uint32_t group_of(const struct qyi_rank *rank)
{
    return rank->params->n_heads / rank->params->n_kv_heads;
}

/* Arguments of the kernels for a batch. */
struct batch {
    struct qy_select_item *selects;
    struct qyi_rank_span *spans;
    struct qy_topk_item *topks; /* [items][group] */
    uint32_t *counts;           /* the same       */
    uint32_t n;
};

size_t qyi_rank_best_scratch(const struct qyi_rank *rank, uint32_t n_items, uint32_t max_n)
{
    const uint32_t n = n_items < BATCH ? n_items : BATCH;
    const uint32_t group = group_of(rank);
    const size_t heads = (size_t)n * group;

    return n * (sizeof(struct qy_select_item) + sizeof(struct qyi_rank_span)) +
           heads * (sizeof(struct qy_topk_item) + sizeof(uint32_t) +
                    qyi_rank_stride(max_n) * sizeof(float)) +
           (rank->first->scratch ? rank->first->scratch(rank, n) : 0) +
           qy_device_topk_scratch(rank->params->dev, (uint32_t)heads, max_n) +
           (size_t)(6 + n) * QYI_RANK_ALIGN;
}

static enum qy_status batch_take(const struct qyi_rank *rank, const struct qy_best_item *items,
                                 struct batch *b, struct qy_arena *arena)
{
    const size_t heads = (size_t)b->n * group_of(rank);

    b->selects = qyi_rank_take(arena, b->n * sizeof(*b->selects));
    b->spans = qyi_rank_take(arena, b->n * sizeof(*b->spans));
    b->topks = qyi_rank_take(arena, heads * sizeof(*b->topks));
    b->counts = qyi_rank_take(arena, heads * sizeof(*b->counts));
    if (!b->selects || !b->spans || !b->topks || !b->counts) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const struct qy_best_item *it = &items[i];
        const size_t stride = qyi_rank_stride(it->n);

        b->selects[i] = (struct qy_select_item){.q = it->q,
                                                .index = it->index,
                                                .group = it->group,
                                                .n = it->n_tokens,
                                                .layer = it->layer,
                                                .kv_head = it->kv_head,
                                                .sequence = it->sequence};
        b->spans[i] = (struct qyi_rank_span){
            .item = &b->selects[i],
            .first = it->first,
            .n = it->n,
            .scores = qyi_rank_take(arena, it->group * stride * sizeof(float)),
            .stride = stride};
        if (!b->spans[i].scores) {
            return QY_ERR_NOMEM;
        }
    }
    return QY_OK;
}

/* The scores of the places that were taken. */
static enum qy_status keep_scores(const struct qy_best_item *it, const struct qyi_rank_span *span,
                                  const uint32_t *counts)
{
    for (uint32_t h = 0; h < it->group; h++) {
        const float *scores = span->scores + h * span->stride;

        if (counts[h] != it->k) {
            return QY_ERR_INVALID;
        }
        for (uint32_t i = 0; i < it->k; i++) {
            const size_t at = (size_t)h * it->k + i;

            it->scores[at] = scores[it->places[at] - it->first];
        }
    }
    return QY_OK;
}

static enum qy_status run_batch(const struct qyi_rank *rank, const struct qy_best_item *items,
                                uint32_t n, struct qy_arena *arena)
{
    const uint32_t group = group_of(rank);
    struct batch b = {.n = n};
    enum qy_status st = batch_take(rank, items, &b, arena);

    if (st == QY_OK) {
        st = rank->first->score(rank, b.spans, n, arena);
    }
    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        const struct qy_best_item *it = &items[i];

        for (uint32_t h = 0; h < group; h++) {
            const size_t at = (size_t)i * group + h;

            b.topks[at] = (struct qy_topk_item){.scores = b.spans[i].scores + h * b.spans[i].stride,
                                                .n = it->n,
                                                .k = it->k,
                                                .id_base = it->first,
                                                .ids = it->places + (size_t)h * it->k,
                                                .n_ids = &b.counts[at]};
        }
    }
    if (st == QY_OK) {
        st = qy_device_topk(rank->params->dev, b.topks, n * group, arena);
    }
    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        st = keep_scores(&items[i], &b.spans[i], b.counts + (size_t)i * group);
    }
    return st;
}

enum qy_status qyi_rank_best(const struct qyi_rank *rank, const struct qy_best_item *items,
                             uint32_t n_items, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].group != group_of(rank) || items[i].k == 0 || items[i].k > items[i].n) {
            return QY_ERR_INVALID;
        }
    }
    for (uint32_t first = 0; st == QY_OK && first < n_items; first += BATCH) {
        const uint32_t left = n_items - first;

        st = run_batch(rank, &items[first], left < BATCH ? left : BATCH, arena);
        qy_arena_rewind(arena, mark);
    }
    return st;
}
