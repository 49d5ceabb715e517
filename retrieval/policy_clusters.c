/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `clusters`: the wave index of RetroInfer. Clusters of similar keys are ranked by their
 * mean key; the best are attended token by token, the next ones by an estimate, the rest not.
 * Source: Chen et al. 2025, RetroInfer, arXiv:2505.02922, sec. 4, and the code of its authors.
 *
 * Index, per (sequence, layer, KV head), learnt from keys after RoPE: segments of
 * retrieval.cluster_segment tokens, one cluster per retrieval.cluster_tokens, spherical k-means
 * (retrieval.cluster_iterations updates from evenly spaced keys) of the keys less their mean.
 * Tokens that came later are clustered 1,024 at a time and scored by their own keys until then.
 *
 * Select: P = softmax(q . mean key) per query head, pooled over the group.
 *   exact zone       units by rank until the budget is full
 *   estimation zone  the next retrieval.cluster_estimated of the clusters: each counts as its size
 *                    times exp(q . mean key), with its mean value. By Jensen's inequality that is
 *                    never more than the mass that its tokens have. cluster_estimated = 0 leaves
 *                    the zone out.
 *
 * chosen: the budget counts tokens, so the last cluster of the exact zone may be cut (its first
 *   tokens are taken, the others are left out of both zones).
 * chosen: a token that waits for its cluster is a unit of its own and may be left out; the paper
 *   attends to all of them, which no budget of tokens would bound.
 * chosen: in the softmax of a head each cluster and each token that waits counts once, as in the
 *   authors' code. Counting sizes, or sinks and window, finds about the same mass; so do plain
 *   k-means and keys that are not centred. Smaller clusters (cluster_tokens) find more.
 * differs: keys are centred by their segment's mean and go to clusters of their own segment; in the
 *   authors' code by the prompt's, and at last to those of all segments: the same up to 8,192
 *   tokens. Means are stored in f16.
 */
#include "retrieval/clusters_choose.h"

#include <math.h>

enum { ALIGN = 64 };

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_clusters_index *index;
    double estimated;
    enum qy_pooling pooling;
};

static void clusters_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qyi_clusters_close(policy->index);
        qy_free(&mem, policy);
    }
}

static enum qy_status clusters_open(const struct qy_policy_params *params,
                                    struct qy_policy **policy, struct qy_error *err)
{
    const struct qy_retrieval_settings *s = qyi_policy_settings(params);
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));

    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'clusters': out of memory at open");
    }
    p->params = *params;
    p->estimated = s->cluster_estimated;
    p->pooling = s->pooling == QY_POOLED_MAX ? QY_POOL_MAX : QY_POOL_MEAN;
    const enum qy_status st = qyi_clusters_open(params, &p->index, err);
    if (st != QY_OK) {
        clusters_close(p);
        return st;
    }
    *policy = p;
    return QY_OK;
}

/* ---- select ---------------------------------------------------------------------------------- */

/* Kernels' arguments, and what is kept between them. */
struct work {
    const struct qy_policy *policy;
    const struct qy_select_item *items;
    uint32_t n, n_scores, n_attends;
    struct qy_score_item *scores; /* [2 * n]: clusters, tokens that wait */
    struct qy_pool_item *pools;
    struct qyi_clusters_choice *choices;
    struct qy_attend_item *attends;
};

static uint32_t group_of(const struct qy_policy *policy)
{
    return policy->params.n_heads / policy->params.n_kv_heads;
}

/* Clusters that a sequence of up to max_n tokens may have. */
static uint32_t most_clusters(const struct qy_policy *policy, uint32_t max_n)
{
    const struct qyi_clusters_index *x = policy->index;
    const uint32_t n = max_n / x->tokens + x->max_cuts;

    return n < x->max_clusters ? n : x->max_clusters;
}

/* Bytes of one item: scores [group][units], pooled and heap [units], bits, estimates and bias. */
static size_t item_bytes(uint32_t group, size_t units, size_t clusters, size_t range)
{
    return qyi_learnt_pad(group * units * sizeof(float)) + qyi_learnt_pad(units * sizeof(float)) +
           qyi_learnt_pad(units * sizeof(uint32_t)) +
           qyi_learnt_pad(((range > clusters ? range : clusters) / 64 + 1) * sizeof(uint64_t)) +
           2 * qyi_learnt_pad((clusters + 1) * sizeof(float));
}

static size_t clusters_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const uint32_t n = qyi_learnt_items(policy->params.rt, n_items);
    const uint32_t group = group_of(policy);
    const size_t clusters = most_clusters(policy, max_n);
    const size_t heads = sizeof(struct qy_score_item) * 2 + sizeof(struct qy_pool_item) +
                         sizeof(struct qyi_clusters_choice) + sizeof(struct qy_attend_item);

    return n * (heads + item_bytes(group, clusters + max_n, clusters, max_n)) + (size_t)8 * ALIGN +
           qy_device_attend_scratch(policy->params.dev, n, (uint32_t)clusters, group,
                                    policy->params.head_dim);
}

static enum qy_status work_take(struct work *w, struct qy_arena *arena)
{
    w->scores = qy_arena_take(arena, (size_t)2 * w->n * sizeof(*w->scores), ALIGN);
    w->pools = qy_arena_take(arena, w->n * sizeof(*w->pools), ALIGN);
    w->choices = qy_arena_take(arena, w->n * sizeof(*w->choices), ALIGN);
    w->attends = qy_arena_take(arena, w->n * sizeof(*w->attends), ALIGN);
    return w->scores && w->pools && w->choices && w->attends ? QY_OK : QY_ERR_NOMEM;
}

static void item_scores(struct work *w, const struct qy_select_item *it,
                        const struct qyi_clusters_choice *c, float *scores)
{
    const size_t units = (size_t)c->n_clusters + c->n_pending;

    if (c->n_clusters > 0) {
        w->scores[w->n_scores++] =
            (struct qy_score_item){.q = it->q,
                                   .rows = qyi_clusters_rows(c->slab, w->policy->params.head_dim),
                                   .n = c->n_clusters,
                                   .group = it->group,
                                   .scores = scores,
                                   .stride = units};
    }
    if (c->n_pending > 0) {
        w->scores[w->n_scores++] = (struct qy_score_item){.q = it->q,
                                                          .rows = it->rows,
                                                          .first = c->pending,
                                                          .n = c->n_pending,
                                                          .group = it->group,
                                                          .scores = scores + c->n_clusters,
                                                          .stride = units};
    }
}

static enum qy_status item_take(struct work *w, uint32_t i, struct qy_arena *arena)
{
    const struct qy_select_item *it = &w->items[i];
    const struct qyi_clusters_index *x = w->policy->index;
    const struct qyi_clusters_sequence *s = &x->sequences[it->sequence];
    const uint32_t range = it->hi - it->lo;
    const uint32_t end = qyi_clusters_end(s);
    /* clusters of other tokens than these would be a prepare that was left out */
    const int known = s->n_cuts > 0 && s->first == it->lo && end <= it->hi;
    struct qyi_clusters_choice *c = &w->choices[i];

    *c = (struct qyi_clusters_choice){.slab =
                                          &s->slabs[it->layer * x->params.n_kv_heads + it->kv_head],
                                      .n_clusters = known ? qyi_clusters_count(s) : 0,
                                      .pending = known ? end : it->lo,
                                      .lo = it->lo,
                                      .hi = it->hi,
                                      .k = it->k,
                                      .estimated = it->part_out ? w->policy->estimated : 0.0,
                                      .ids = it->ids,
                                      .n_ids = it->n_ids};
    c->n_pending = it->hi - c->pending;
    const uint32_t units = c->n_clusters + c->n_pending;
    const uint32_t most = range > c->n_clusters ? range : c->n_clusters;
    float *scores = qy_arena_take(arena, (size_t)it->group * units * sizeof(float), ALIGN);
    float *pooled = qy_arena_take(arena, units * sizeof(float), ALIGN);
    c->pooled = pooled;
    c->heap = qy_arena_take(arena, units * sizeof(uint32_t), ALIGN);
    c->bits = qy_arena_take(arena, (most / 64 + 1) * sizeof(uint64_t), ALIGN);
    c->estimates = qy_arena_take(arena, (c->n_clusters + 1) * sizeof(uint32_t), ALIGN);
    c->bias = qy_arena_take(arena, (c->n_clusters + 1) * sizeof(float), ALIGN);
    if (!scores || !pooled || !c->heap || !c->bits || !c->estimates || !c->bias) {
        return QY_ERR_NOMEM;
    }
    item_scores(w, it, c, scores);
    w->pools[i] = (struct qy_pool_item){.scores = scores,
                                        .stride = units,
                                        .n = units,
                                        .group = it->group,
                                        .hi = units,
                                        .pooling = w->policy->pooling,
                                        .pooled = pooled};
    return QY_OK;
}

/* Empty clusters score as nothing: they take no share of the softmax. */
static void mask_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct work *w = arg;
    size_t begin;
    size_t end;

    qy_team_range(w->n, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qyi_clusters_choice *c = &w->choices[i];
        const struct qy_pool_item *pool = &w->pools[i];

        for (uint32_t u = 0; u < c->n_clusters; u++) {
            for (uint32_t h = 0; c->slab->begin[u] == c->slab->begin[u + 1] && h < pool->group;
                 h++) {
                pool->scores[h * pool->stride + u] = -INFINITY;
            }
        }
    }
}

static void choose_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct work *w = arg;
    size_t begin;
    size_t end;

    qy_team_range(w->n, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        qyi_clusters_choose(&w->choices[i]);
    }
}

/* The estimation zone: attention over means, each with the weight of its size. */
static enum qy_status estimate(struct work *w, struct qy_arena *arena)
{
    const struct qy_policy_params *p = &w->policy->params;

    for (uint32_t i = 0; i < w->n; i++) {
        const struct qy_select_item *it = &w->items[i];
        const struct qyi_clusters_choice *c = &w->choices[i];

        if (it->part_out) {
            w->attends[w->n_attends++] =
                (struct qy_attend_item){.q = it->q,
                                        .rows = qyi_clusters_rows(c->slab, p->head_dim),
                                        .ids = c->estimates,
                                        .n = c->n_estimates,
                                        .group = it->group,
                                        .bias = c->bias,
                                        .out = it->part_out,
                                        .lse = it->part_lse};
        }
    }
    return w->n_attends > 0 ? qy_device_attend(p->dev, w->attends, w->n_attends, p->scale, arena)
                            : QY_OK;
}

static enum qy_status select_batch(const struct qy_policy *policy,
                                   const struct qy_select_item *items, uint32_t n,
                                   struct qy_arena *arena)
{
    const struct qy_policy_params *p = &policy->params;
    struct work w = {.policy = policy, .items = items, .n = n};
    enum qy_status st = work_take(&w, arena);

    for (uint32_t i = 0; st == QY_OK && i < w.n; i++) {
        st = item_take(&w, i, arena);
    }
    if (st == QY_OK) {
        st = qy_device_score(p->dev, w.scores, w.n_scores, p->scale);
    }
    if (st == QY_OK) {
        qy_team_run(p->rt->team, mask_run, &w);
        st = qy_device_pool(p->dev, w.pools, w.n);
    }
    if (st == QY_OK) {
        qy_team_run(p->rt->team, choose_run, &w);
        st = estimate(&w, arena);
    }
    return st;
}

static enum qy_status clusters_select(struct qy_policy *policy, const struct qy_select_item *items,
                                      uint32_t n_items, struct qy_arena *arena)
{
    return qyi_learnt_select(policy->params.rt, policy, select_batch, items, n_items, arena);
}

static enum qy_status clusters_prepare(struct qy_policy *policy,
                                       const struct qy_sequence_view *view, struct qy_error *err)
{
    return qyi_clusters_update(policy->index, view, err);
}

static void clusters_forget(struct qy_policy *policy, uint32_t sequence, uint32_t n_tokens)
{
    qyi_clusters_forget(policy->index, sequence, n_tokens);
}

const struct qy_policy_ops qyi_policy_clusters = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "clusters",
    .summary = "ranks clusters of each request's keys, and estimates the next best (RetroInfer)",
    .caps = {.partial = 1},
    .open = clusters_open,
    .close = clusters_close,
    .scratch = clusters_scratch,
    .select = clusters_select,
    .prepare = clusters_prepare,
    .forget = clusters_forget,
};
