/* SPDX-License-Identifier: Apache-2.0 */
/* One pass of a ranking: gathers the arguments of a batch for each kernel and calls it once. */
#include "retrieval/rank_pass.h"

/* Sinks and window, whose scores stand before those of the span. */
static enum qy_status score_resident(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_score_item *scores = qyi_rank_take(arena, 2 * pass->n * sizeof(*scores));

    if (!scores) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < pass->n; i++) {
        const struct qyi_rank_span *span = &pass->goals[i].span;
        const struct qy_select_item *it = span->item;
        float *resident = span->scores - qyi_rank_n_resident(it);

        scores[2 * i] = (struct qy_score_item){.q = it->q,
                                               .rows = it->rows,
                                               .n = it->lo,
                                               .group = it->group,
                                               .scores = resident,
                                               .stride = span->stride};
        scores[2 * i + 1] = (struct qy_score_item){.q = it->q,
                                                   .rows = it->rows,
                                                   .first = it->hi,
                                                   .n = it->n - it->hi,
                                                   .group = it->group,
                                                   .scores = resident + it->lo,
                                                   .stride = span->stride};
    }
    const enum qy_status st =
        qy_device_score(pass->rank->params->dev, scores, 2 * pass->n, pass->rank->params->scale);
    qy_arena_rewind(arena, mark);
    return st;
}

static enum qy_status score_spans(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qyi_rank_span *spans = qyi_rank_take(arena, pass->n * sizeof(*spans));
    enum qy_status st = QY_ERR_NOMEM;

    if (spans) {
        for (uint32_t i = 0; i < pass->n; i++) {
            spans[i] = pass->goals[i].span;
        }
        st = pass->stage->score(pass->rank, spans, pass->n, arena);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

static struct qy_topk_item best_of(const struct qyi_rank_goal *goal)
{
    return (struct qy_topk_item){.n = goal->span.n,
                                 .k = goal->k,
                                 .id_base = goal->span.first,
                                 .map = goal->span.ids,
                                 .ids = goal->ids,
                                 .n_ids = goal->n_ids};
}

/* The best of the pooled shares of attention. */
static enum qy_status take_pooled(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    struct qy_pool_item *pools = qyi_rank_take(arena, pass->n * sizeof(*pools));
    struct qy_topk_item *topks = qyi_rank_take(arena, pass->n * sizeof(*topks));
    float *masses = qyi_rank_take(arena, pass->n * sizeof(*masses));

    if (!pools || !topks || !masses) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < pass->n; i++) {
        const struct qyi_rank_goal *goal = &pass->goals[i];
        const uint32_t n_resident = qyi_rank_n_resident(goal->span.item);

        pools[i] = (struct qy_pool_item){.scores = goal->span.scores - n_resident,
                                         .stride = goal->span.stride,
                                         .n = n_resident + goal->span.n,
                                         .group = goal->span.item->group,
                                         .lo = n_resident,
                                         .hi = n_resident + goal->span.n,
                                         .pooling = pass->pooling == QY_POOLED_MAX ? QY_POOL_MAX
                                                                                   : QY_POOL_MEAN,
                                         .pooled = goal->pooled,
                                         .mass = &masses[i]};
        topks[i] = best_of(goal);
        topks[i].scores = goal->pooled;
        topks[i].mass = goal->mass;
        topks[i].candidate_mass = &masses[i];
    }
    const enum qy_status st = qy_device_pool(pass->rank->params->dev, pools, pass->n);
    return st == QY_OK ? qy_device_topk(pass->rank->params->dev, topks, pass->n, arena) : st;
}

/* Each head's best by its own scores, united. */
static enum qy_status take_union(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    const uint32_t group = pass->rank->params->n_heads / pass->rank->params->n_kv_heads;
    struct qy_topk_item *topks = qyi_rank_take(arena, pass->n * group * sizeof(*topks));
    struct qy_union_item *unions = qyi_rank_take(arena, pass->n * sizeof(*unions));
    uint32_t *counts = qyi_rank_take(arena, pass->n * group * sizeof(*counts));
    uint32_t n = 0;

    if (!topks || !unions || !counts) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < pass->n; i++) {
        const struct qyi_rank_goal *goal = &pass->goals[i];

        unions[i] = (struct qy_union_item){.lists = goal->lists,
                                           .counts = &counts[n],
                                           .n_lists = goal->span.item->group,
                                           .stride = goal->k,
                                           .ids = goal->ids,
                                           .n_ids = goal->n_ids};
        for (uint32_t h = 0; h < goal->span.item->group; h++, n++) {
            topks[n] = best_of(goal);
            topks[n].scores = goal->span.scores + h * goal->span.stride;
            topks[n].ids = goal->lists + (size_t)h * goal->k;
            topks[n].n_ids = &counts[n];
        }
    }
    const enum qy_status st = qy_device_topk(pass->rank->params->dev, topks, n, arena);
    return st == QY_OK ? qy_device_union(pass->rank->params->dev, unions, pass->n) : st;
}

/* The best, by a stage that needs no scores of each. */
static enum qy_status take_at_once(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    const enum qy_pooling pooling = pass->pooling == QY_POOLED_MAX ? QY_POOL_MAX : QY_POOL_MEAN;

    return pass->stage->best(pass->rank, pass->goals, pass->n, pooling, arena);
}

enum qy_status qyi_rank_pass_run(const struct qyi_rank_pass *pass, struct qy_arena *arena)
{
    const int unite = pass->pooling == QY_POOLED_UNION;
    const size_t mark = qy_arena_mark(arena);
    enum qy_status st = QY_OK;

    if (pass->n == 0) {
        return QY_OK;
    }
    if (!unite) {
        st = score_resident(pass, arena);
    }
    if (st == QY_OK && pass->stage->best && !unite) {
        st = take_at_once(pass, arena);
    } else if (st == QY_OK) {
        st = score_spans(pass, arena);
        if (st == QY_OK) {
            st = unite ? take_union(pass, arena) : take_pooled(pass, arena);
        }
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qyi_rank_pass_bytes(uint32_t n, uint32_t group)
{
    const size_t spans = n * sizeof(struct qyi_rank_span);
    const size_t score = 2 * n * sizeof(struct qy_score_item);
    const size_t pooled = n * (sizeof(struct qy_pool_item) + sizeof(struct qy_topk_item) + 4);
    const size_t united =
        n * (group * (sizeof(struct qy_topk_item) + 4) + sizeof(struct qy_union_item));

    return spans + score + pooled + united + (size_t)8 * QYI_RANK_ALIGN;
}
