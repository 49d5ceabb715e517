/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `exact`: scores every key and keeps the best of the budget. It has no index and skips no
 * work; it says how good a selection of that size can be, and is the oracle of the others.
 *
 * For one (sequence, KV head): scores [g][n] = scale * q . k for all n tokens, softmax over all n
 * for each of the g query heads, the mean over the heads, then the k largest of lo <= id < hi.
 * Items are taken in batches, so that the scores of a batch stay near the processor's caches and
 * the scratch stays bounded whatever the number of sequences.
 */
#include "retrieval/policies.h"

struct qy_policy {
    struct qy_policy_params params;
};

enum {
    BATCH_BYTES_PER_THREAD = 1 << 20, /* scores of one batch, about an L2 cache */
    ALIGN = 64
};

static size_t padded_floats(size_t n)
{
    return (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
}

/* Bytes of scores and pooled probabilities of one item. */
static size_t item_bytes(const struct qy_policy *policy, uint32_t max_n)
{
    const uint32_t group = policy->params.n_heads / policy->params.n_kv_heads;

    return padded_floats((size_t)group * max_n) + padded_floats(max_n);
}

/* Items taken together: what a thread's cache holds, and no thread without work. */
static uint32_t batch_items(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const size_t threads = qy_team_size(policy->params.rt->team);
    const size_t fit = threads * BATCH_BYTES_PER_THREAD / item_bytes(policy, max_n);
    const size_t most = fit > threads ? fit : threads;

    if (n_items <= most) {
        return n_items;
    }
    const size_t n_batches = (n_items + most - 1) / most;
    return (uint32_t)((n_items + n_batches - 1) / n_batches);
}

/* Arrays of the kernels' arguments for one batch. */
struct batch {
    struct qy_score_item *score;
    struct qy_pool_item *pool;
    struct qy_topk_item *topk;
    float *mass; /* [n] of the candidates */
    uint32_t n;
};

static size_t batch_bytes(uint32_t n)
{
    return n * (sizeof(struct qy_score_item) + sizeof(struct qy_pool_item) +
                sizeof(struct qy_topk_item) + sizeof(float)) +
           (size_t)4 * ALIGN;
}

static enum qy_status exact_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));

    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'exact': out of memory at open");
    }
    p->params = *params;
    *policy = p;
    return QY_OK;
}

static void exact_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qy_free(&mem, policy);
    }
}

/* The largest over all batch sizes that a call of up to n_items over up to max_n tokens forms:
 * shorter contexts form larger batches of the same bytes, hence the two bounds. */
static size_t exact_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const size_t threads = qy_team_size(policy->params.rt->team);
    const size_t one = item_bytes(policy, max_n);
    const size_t capped = threads * (BATCH_BYTES_PER_THREAD > one ? BATCH_BYTES_PER_THREAD : one);
    const size_t all = n_items * one;
    size_t topk = 0;

    for (uint64_t n = max_n; n > 0; n /= 2) {
        /* batches are largest at the low end of the range (n/2, n] */
        const uint32_t items = batch_items(policy, n_items, (uint32_t)(n / 2 + 1));
        const size_t bytes = qy_device_topk_scratch(policy->params.dev, items, (uint32_t)n);

        topk = bytes > topk ? bytes : topk;
    }
    return (all < capped ? all : capped) + batch_bytes(n_items) + topk + ALIGN;
}

static enum qy_status batch_take(struct batch *b, const struct qy_select_item *items, uint32_t n,
                                 float mass, struct qy_arena *arena)
{
    b->n = n;
    b->score = qy_arena_take(arena, n * sizeof(*b->score), ALIGN);
    b->pool = qy_arena_take(arena, n * sizeof(*b->pool), ALIGN);
    b->topk = qy_arena_take(arena, n * sizeof(*b->topk), ALIGN);
    b->mass = qy_arena_take(arena, n * sizeof(*b->mass), ALIGN);
    if (!b->score || !b->pool || !b->topk || !b->mass) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *it = &items[i];
        const uint32_t range = it->hi - it->lo;
        float *scores = qy_arena_take(arena, padded_floats((size_t)it->group * it->n), ALIGN);
        float *pooled = qy_arena_take(arena, padded_floats(range), ALIGN);

        if (!scores || !pooled) {
            return QY_ERR_NOMEM;
        }
        b->score[i] = (struct qy_score_item){
            .q = it->q, .rows = it->rows, .n = it->n, .group = it->group, .scores = scores};
        b->pool[i] = (struct qy_pool_item){.scores = scores,
                                           .n = it->n,
                                           .group = it->group,
                                           .lo = it->lo,
                                           .hi = it->hi,
                                           .pooled = pooled,
                                           .mass = &b->mass[i]};
        b->topk[i] = (struct qy_topk_item){.scores = pooled,
                                           .n = range,
                                           .k = it->k,
                                           .mass = mass,
                                           .candidate_mass = &b->mass[i],
                                           .id_base = it->lo,
                                           .ids = it->ids,
                                           .n_ids = it->n_ids};
    }
    return QY_OK;
}

static enum qy_status select_batch(const struct qy_policy *policy,
                                   const struct qy_select_item *items, uint32_t n,
                                   struct qy_arena *arena)
{
    const struct qy_policy_params *p = &policy->params;
    struct batch batch;
    enum qy_status st = batch_take(&batch, items, n, (float)p->mass, arena);

    if (st != QY_OK) {
        return st;
    }
    st = qy_device_score(p->dev, batch.score, n, p->scale);
    if (st != QY_OK) {
        return st;
    }
    st = qy_device_pool(p->dev, batch.pool, n);
    if (st != QY_OK) {
        return st;
    }
    return qy_device_topk(p->dev, batch.topk, n, arena);
}

static enum qy_status exact_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    uint32_t max_n = 1;

    for (uint32_t i = 0; i < n_items; i++) {
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    const uint32_t step = batch_items(policy, n_items, max_n);
    for (uint32_t first = 0; first < n_items; first += step) {
        const uint32_t n = n_items - first < step ? n_items - first : step;
        const size_t mark = qy_arena_mark(arena);
        const enum qy_status st = select_batch(policy, &items[first], n, arena);

        qy_arena_rewind(arena, mark);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}

const struct qy_policy_ops qyi_policy_exact = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "exact",
    .summary = "scores every key and keeps the best of the budget: the most that a budget can give",
    .caps = {.index_shareable = 1, .reads_all_keys = 1},
    .open = exact_open,
    .close = exact_close,
    .scratch = exact_scratch,
    .select = exact_select,
};
