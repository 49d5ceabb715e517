/* SPDX-License-Identifier: Apache-2.0 */
/* The stage that reads the keys themselves. */
#include "retrieval/rank_pass.h"

static enum qy_status score_keys(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                 uint32_t n, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_score_item *items = qyi_rank_take(arena, n * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (struct qy_score_item){.q = spans[i].item->q,
                                          .rows = spans[i].item->rows,
                                          .ids = spans[i].ids,
                                          .first = spans[i].first,
                                          .n = spans[i].n,
                                          .group = spans[i].item->group,
                                          .scores = spans[i].scores,
                                          .stride = spans[i].stride};
    }
    const enum qy_status st = qy_device_score(rank->params->dev, items, n, rank->params->scale);
    qy_arena_rewind(arena, mark);
    return st;
}

static size_t score_keys_scratch(const struct qyi_rank *rank, uint32_t n_spans)
{
    (void)rank;
    return n_spans * sizeof(struct qy_score_item) + QYI_RANK_ALIGN;
}

const struct qyi_rank_stage qyi_stage_exact = {
    .trusted = 1, .score = score_keys, .scratch = score_keys_scratch};
