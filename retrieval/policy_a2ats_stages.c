/* SPDX-License-Identifier: Apache-2.0 */
/* Stages of a2ats+ that score keys after RoPE: 4-bit product codes and 4-bit keys. */
#include "retrieval/policy_a2ats.h"

#include "retrieval/rank_pass.h"

static enum qy_status score_codes(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                  uint32_t n, struct qy_arena *arena)
{
    const struct qyi_a2ats *a = rank->ctx;
    const size_t mark = qy_arena_mark(arena);
    struct qy_code_score_item *items = qyi_rank_take(arena, n * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *it = spans[i].item;

        items[i] = (struct qy_code_score_item){
            .quantizer = &a->quantizers[it->layer * rank->params->n_kv_heads + it->kv_head],
            .q = it->q,
            .codes = it->index,
            .first = spans[i].first,
            .n = spans[i].n,
            .group = it->group,
            .scores = spans[i].scores,
            .stride = spans[i].stride};
    }
    const enum qy_status st =
        qy_device_code_score(rank->params->dev, items, n, rank->params->scale, arena);
    qy_arena_rewind(arena, mark);
    return st;
}

static size_t score_codes_scratch(const struct qyi_rank *rank, uint32_t n_spans)
{
    const struct qyi_a2ats *a = rank->ctx;
    const uint32_t group = rank->params->n_heads / rank->params->n_kv_heads;

    return n_spans * sizeof(struct qy_code_score_item) + (size_t)2 * QYI_RANK_ALIGN +
           qy_device_code_score_scratch(rank->params->dev, n_spans, &a->quantizers[0], group);
}

static enum qy_status best_codes(const struct qyi_rank *rank, const struct qyi_rank_goal *goals,
                                 uint32_t n, enum qy_pooling pooling, struct qy_arena *arena)
{
    const struct qyi_a2ats *a = rank->ctx;
    const size_t mark = qy_arena_mark(arena);
    struct qy_code_topk_item *items = qyi_rank_take(arena, n * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qyi_rank_span *span = &goals[i].span;
        const struct qy_select_item *it = span->item;

        items[i] = (struct qy_code_topk_item){
            .quantizer = &a->quantizers[it->layer * rank->params->n_kv_heads + it->kv_head],
            .q = it->q,
            .codes = it->index,
            .first = span->first,
            .n = span->n,
            .group = it->group,
            .k = goals[i].k,
            .resident = span->scores - qyi_rank_n_resident(it),
            .resident_stride = span->stride,
            .n_resident = qyi_rank_n_resident(it),
            .pooling = pooling,
            .ids = goals[i].ids,
            .n_ids = goals[i].n_ids};
    }
    const enum qy_status st =
        qy_device_code_topk(rank->params->dev, items, n, rank->params->scale, arena);
    qy_arena_rewind(arena, mark);
    return st;
}

static size_t best_codes_scratch(const struct qyi_rank *rank, uint32_t n_goals, uint32_t max_n)
{
    const struct qyi_a2ats *a = rank->ctx;
    const uint32_t group = rank->params->n_heads / rank->params->n_kv_heads;

    return n_goals * sizeof(struct qy_code_topk_item) + (size_t)2 * QYI_RANK_ALIGN +
           qy_device_code_topk_scratch(rank->params->dev, n_goals, max_n, &a->quantizers[0], group);
}

const struct qyi_rank_stage qyi_stage_codes = {.score = score_codes,
                                               .scratch = score_codes_scratch,
                                               .best = best_codes,
                                               .best_scratch = best_codes_scratch};

static enum qy_status score_keys(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                 uint32_t n, struct qy_arena *arena)
{
    const struct qyi_a2ats *a = rank->ctx;
    const size_t mark = qy_arena_mark(arena);
    struct qy_key4_score_item *items = qyi_rank_take(arena, n * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *it = spans[i].item;

        items[i] = (struct qy_key4_score_item){.q = it->q,
                                               .d = rank->params->head_dim,
                                               .group = it->group,
                                               .keys = it->index,
                                               .ids = spans[i].ids,
                                               .first = spans[i].first,
                                               .n = spans[i].n,
                                               .scores = spans[i].scores,
                                               .stride = spans[i].stride};
        items[i].keys.offset += a->code_bytes;
    }
    const enum qy_status st =
        qy_device_key4_score(rank->params->dev, items, n, rank->params->scale, arena);
    qy_arena_rewind(arena, mark);
    return st;
}

static size_t score_keys_scratch(const struct qyi_rank *rank, uint32_t n_spans)
{
    const struct qy_policy_params *p = rank->params;

    return n_spans * sizeof(struct qy_key4_score_item) + (size_t)2 * QYI_RANK_ALIGN +
           qy_device_key4_score_scratch(p->dev, n_spans, p->n_heads / p->n_kv_heads, p->head_dim);
}

const struct qyi_rank_stage qyi_stage_keys = {
    .trusted = 1, .score = score_keys, .scratch = score_keys_scratch};
