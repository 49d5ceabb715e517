/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See rank.h. For one (sequence, KV head) a pass holds scores [group][sinks + window + tokens] and
 * their pooled shares; of a first pass that chooses at once, those of sinks and window only. A
 * rerank's pass reuses the memory of the first pass, whose scores are spent once its candidates are
 * known. Items are taken in batches, so that the scores of a batch stay near the processor's caches
 * and the scratch stays bounded whatever the number of sequences.
 */
#include "retrieval/rank_pass.h"

#include <math.h>

enum { BATCH_BYTES_PER_THREAD = 1 << 20 /* scores of one batch, about an L2 cache */ };

static uint32_t group_of(const struct qyi_rank *rank)
{
    return rank->params->n_heads / rank->params->n_kv_heads;
}

/* Bytes that a stage takes for one more item. */
static size_t stage_bytes(const struct qyi_rank *rank, const struct qyi_rank_stage *stage)
{
    if (!stage || !stage->scratch) {
        return 0;
    }
    return stage->scratch(rank, 2) - stage->scratch(rank, 1);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Candidates of a rerank: at least k, at most all. */
static uint32_t n_candidates(const struct qyi_rank *rank, const struct qy_select_item *it)
{
    const double want = ceil((rank->overfetch > 1.0 ? rank->overfetch : 1.0) * it->k);

    return want < it->hi - it->lo ? (uint32_t)want : it->hi - it->lo;
}

/* Does the pass over all tokens choose without scores of each? */
static int chooses_at_once(const struct qyi_rank *rank)
{
    return rank->first->best && (rank->rerank || rank->pooling != QY_POOLED_UNION);
}

/* Tokens of one item beside sinks and window whose scores are held together. */
static uint32_t n_scored(const struct qyi_rank *rank, const struct qy_select_item *it)
{
    if (!chooses_at_once(rank)) {
        return it->hi - it->lo;
    }
    return rank->rerank ? n_candidates(rank, it) : 0;
}

uint32_t qyi_rank_union_k(const struct qyi_rank *rank, const struct qy_select_item *it)
{
    const uint32_t k = rank->per_head ? it->k : it->k / it->group;

    return k < it->hi - it->lo ? k : it->hi - it->lo;
}

/* Scores, shares, candidates and lists of one item, and what a stage takes for it. */
static size_t item_bytes(const struct qyi_rank *rank, const struct qy_select_item *it)
{
    const uint32_t n = n_scored(rank, it);
    size_t bytes = it->group * qyi_rank_stride(qyi_rank_n_resident(it) + n) * sizeof(float);

    bytes += qyi_rank_pad(n * sizeof(float));
    if (rank->pooling == QY_POOLED_UNION) {
        bytes += qyi_rank_pad((size_t)it->group * qyi_rank_union_k(rank, it) * sizeof(uint32_t));
    }
    if (rank->rerank) {
        bytes += qyi_rank_pad(n_candidates(rank, it) * sizeof(uint32_t));
    }
    return bytes + larger(stage_bytes(rank, rank->first), stage_bytes(rank, rank->rerank));
}

/* The most that item_bytes can be for an item of n tokens. */
static size_t item_bytes_most(const struct qyi_rank *rank, uint32_t n)
{
    const size_t line = qyi_rank_stride(n) * sizeof(float);
    const uint32_t lines = group_of(rank) + 1 + (rank->rerank != NULL);

    return line * (lines + (rank->pooling == QY_POOLED_UNION ? group_of(rank) : 0U)) +
           larger(stage_bytes(rank, rank->first), stage_bytes(rank, rank->rerank));
}

/* Bytes of a batch: what the threads' caches hold. */
static size_t batch_bytes(const struct qyi_rank *rank)
{
    return qy_team_size(rank->params->rt->team) * (size_t)BATCH_BYTES_PER_THREAD;
}

/* How many of n items go together, in batches of about the same size: no thread is without work. */
static uint32_t batch_items(const struct qyi_rank *rank, const struct qy_select_item *items,
                            uint32_t n)
{
    const uint32_t least = qy_team_size(rank->params->rt->team);
    size_t all = 0;
    size_t bytes = 0;
    uint32_t taken = 0;

    for (uint32_t i = 0; i < n; i++) {
        all += item_bytes(rank, &items[i]);
    }
    const size_t share = all / (all / batch_bytes(rank) + 1);
    while (taken < n && (taken < least || bytes < share)) {
        bytes += item_bytes(rank, &items[taken++]);
    }
    return taken;
}

/* What kernels and stages take for a batch, beside what grows with the number of items. */
static size_t kernel_bytes(const struct qyi_rank *rank, uint32_t n_items, uint32_t max_n)
{
    size_t bytes = qy_device_topk_scratch(rank->params->dev, 1, max_n);

    if (rank->first->scratch) {
        bytes = larger(bytes, rank->first->scratch(rank, 1));
    }
    if (rank->rerank && rank->rerank->scratch) {
        bytes = larger(bytes, rank->rerank->scratch(rank, 1));
    }
    if (chooses_at_once(rank)) {
        bytes = larger(bytes, rank->first->best_scratch(rank, n_items, max_n));
    }
    return bytes;
}

size_t qyi_rank_scratch(const struct qyi_rank *rank, uint32_t n_items, uint32_t max_n)
{
    const size_t most = item_bytes_most(rank, max_n);
    const size_t batch = larger(batch_bytes(rank), qy_team_size(rank->params->rt->team) * most);

    return batch + most + n_items * (2 * sizeof(struct qyi_rank_goal) + sizeof(uint32_t)) +
           qyi_rank_pass_bytes(n_items, group_of(rank)) + kernel_bytes(rank, n_items, max_n) +
           (size_t)4 * QYI_RANK_ALIGN;
}

/* The last pass of one item, as if there were no rerank. QY_ERR_NOMEM: the arena is full. */
static enum qy_status goal_take(const struct qyi_rank *rank, const struct qy_select_item *it,
                                struct qy_arena *arena, struct qyi_rank_goal *goal)
{
    const uint32_t n = n_scored(rank, it);
    const size_t stride = qyi_rank_stride(qyi_rank_n_resident(it) + n);
    const int unite = rank->pooling == QY_POOLED_UNION;
    float *scores = qyi_rank_take(arena, it->group * stride * sizeof(*scores));
    float *pooled = qyi_rank_take(arena, n * sizeof(*pooled));

    *goal = (struct qyi_rank_goal){.span = {.item = it,
                                            .first = it->lo,
                                            .n = it->hi - it->lo,
                                            .scores = scores + qyi_rank_n_resident(it),
                                            .stride = stride},
                                   .k = it->k,
                                   .pooled = pooled,
                                   .ids = it->ids,
                                   .n_ids = it->n_ids};
    if (!scores || !pooled) {
        return QY_ERR_NOMEM;
    }
    if (unite) {
        goal->k = qyi_rank_union_k(rank, it);
        goal->lists = qyi_rank_take(arena, (size_t)it->group * goal->k * sizeof(*goal->lists));
    }
    return unite && !goal->lists ? QY_ERR_NOMEM : QY_OK;
}

/* First pass of the items whose candidates are fewer than all their tokens; the goals of the last
 * pass then look at those. */
static enum qy_status find_candidates(const struct qyi_rank *rank, struct qyi_rank_goal *goals,
                                      uint32_t n, struct qy_arena *arena)
{
    struct qyi_rank_goal *coarse = qyi_rank_take(arena, n * sizeof(*coarse));
    uint32_t *counts = qyi_rank_take(arena, n * sizeof(*counts));
    struct qyi_rank_pass pass = {
        .rank = rank, .stage = rank->first, .pooling = rank->pooling, .goals = coarse};

    if (!coarse || !counts) {
        return QY_ERR_NOMEM;
    }
    if (pass.pooling == QY_POOLED_UNION) {
        pass.pooling = QY_POOLED_SUM;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct qyi_rank_span *span = &goals[i].span;
        const uint32_t want = n_candidates(rank, span->item);

        if (want == span->n) {
            continue;
        }
        uint32_t *ids = qyi_rank_take(arena, want * sizeof(*ids));
        if (!ids) {
            return QY_ERR_NOMEM;
        }
        coarse[pass.n] = goals[i];
        coarse[pass.n].k = want;
        coarse[pass.n].mass = 0.0F;
        coarse[pass.n].ids = ids;
        coarse[pass.n].n_ids = &counts[pass.n];
        pass.n++;
        span->ids = ids;
        span->n = want;
    }
    return qyi_rank_pass_run(&pass, arena);
}

static enum qy_status select_batch(const struct qyi_rank *rank, const struct qy_select_item *items,
                                   uint32_t n, struct qy_arena *arena)
{
    const struct qyi_rank_stage *last = rank->rerank ? rank->rerank : rank->first;
    const int by_mass = last->trusted && rank->pooling != QY_POOLED_UNION;
    struct qyi_rank_goal *goals = qyi_rank_take(arena, n * sizeof(*goals));
    enum qy_status st = goals ? QY_OK : QY_ERR_NOMEM;

    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        st = goal_take(rank, &items[i], arena, &goals[i]);
        goals[i].mass = by_mass ? items[i].mass : 0.0F;
    }
    if (st == QY_OK && rank->rerank) {
        st = find_candidates(rank, goals, n, arena);
    }
    if (st != QY_OK) {
        return st;
    }
    const struct qyi_rank_pass pass = {
        .rank = rank, .stage = last, .pooling = rank->pooling, .goals = goals, .n = n};
    return qyi_rank_pass_run(&pass, arena);
}

enum qy_status qyi_rank_select(const struct qyi_rank *rank, const struct qy_select_item *items,
                               uint32_t n_items, struct qy_arena *arena)
{
    uint32_t n;

    for (uint32_t first = 0; first < n_items; first += n) {
        const size_t mark = qy_arena_mark(arena);

        n = batch_items(rank, &items[first], n_items - first);
        const enum qy_status st = select_batch(rank, &items[first], n, arena);
        qy_arena_rewind(arena, mark);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}
