/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `quest`: pages of tokens are ranked by a bound of what any key of them can score.
 * Source: Tang et al. 2024, arXiv:2406.10774, sec. 3, and the code of its authors.
 *
 * Index: the least and the largest of each element of a page's keys (after RoPE), in the blocks.
 * For one (sequence, KV head): bounds [g][pages] of all pages, softmax per query head, pooled over
 * the group (retrieval.pooling), the best pages of the budget, and all their tokens that may be
 * chosen.
 *
 * chosen: the paper has one query head per KV head. Where a group shares a KV head, ports of it
 *   pool the heads' page scores; so does this, by the sum of softmax over pages (default) or the
 *   largest of them; `union` gives each query head an equal part of the pages, rounded up. Sum
 *   or largest hardly matters (mass found: within .005 of each other); a union finds less.
 * chosen: a budget that ends inside a page takes the first tokens of the worst page chosen.
 * chosen: a budget by mass takes its cap: bounds are no estimate of mass.
 * differs: no layer is dense unless retrieval.dense_layers says so (the paper: the first two); the
 *   pages of sinks and window are attended whatever their rank, and count in the softmax.
 */
#include "retrieval/policies.h"

struct qy_policy {
    struct qy_policy_params params;
    uint32_t page;
};

enum { ALIGN = 64, TEAM_TOKENS = 16 * 1024 };

static size_t padded(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static uint32_t group_of(const struct qy_policy *policy)
{
    return policy->params.n_heads / policy->params.n_kv_heads;
}

static enum qy_status quest_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    const int64_t page = qyi_policy_settings(params)->quest_page;

    if (params->argument && params->argument[0] != '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy 'quest:%.60s': 'quest' takes no argument; leave out what "
                            "follows it",
                            params->argument);
    }
    if (page < 1 || (page & (page - 1)) != 0 || page > (int64_t)params->block_tokens) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.quest_page '%lld': a power of two up to cache.block_tokens "
                            "(%u) is accepted; pages do not reach over blocks",
                            (long long)page, params->block_tokens);
    }
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'quest': out of memory at open");
    }
    p->params = *params;
    p->page = (uint32_t)page;
    *policy = p;
    return QY_OK;
}

static void quest_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qy_free(&mem, policy);
    }
}

static size_t quest_index_bytes(const struct qy_policy *policy)
{
    return qy_bound_slab_bytes(policy->params.head_dim, policy->page, policy->params.block_tokens);
}

/* ---- append -------------------------------------------------------------------------------- */

static enum qy_status quest_append(struct qy_policy *policy, const struct qy_append_view *views,
                                   uint32_t n_views, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_bound_item *items = qy_arena_take(arena, n_views * sizeof(*items), ALIGN);

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_views; i++) {
        items[i] = (struct qy_bound_item){.rows = views[i].rows,
                                          .first = views[i].first,
                                          .n = views[i].n,
                                          .page = policy->page,
                                          .bounds = views[i].index};
    }
    const enum qy_status st = qy_device_bound_append(policy->params.dev, items, n_views);
    qy_arena_rewind(arena, mark);
    return st;
}

/* ---- select -------------------------------------------------------------------------------- */

/* The pages of one item. */
struct reach {
    uint32_t all;         /* pages that hold a token            */
    uint32_t first, last; /* those that hold one of lo .. hi - 1: first <= page < last */
    uint32_t k;           /* to choose, when the heads are pooled */
    uint32_t per_head;    /* to choose per query head, for a union */
    uint32_t room;        /* for the pages chosen                 */
};

static struct reach reach_of(const struct qy_policy *policy, const struct qy_select_item *it)
{
    const uint32_t page = policy->page;
    struct reach r = {.all = (it->n + page - 1) / page,
                      .first = it->lo / page,
                      .last = (it->hi + page - 1) / page,
                      .k = (it->k + page - 1) / page + 1}; /* lo and hi may lie inside pages */

    r.per_head = r.k > 1 ? (r.k - 2) / it->group + 1 : 1; /* what is too much is cut later */
    r.room = r.k > r.per_head * it->group ? r.k : r.per_head * it->group;
    return r;
}

/* Arguments of the kernels, and what is kept of each item between them. */
struct work {
    const struct qy_policy *policy;
    const struct qy_select_item *items;
    uint32_t n;
    struct reach *reach;
    struct qy_bound_score_item *score;
    struct qy_pool_item *pool;
    struct qy_topk_item *topk; /* [n], or [n][group] for a union */
    struct qy_union_item *unions;
    uint32_t *counts; /* [n][1 + group]: pages of the item; of each head */
    uint32_t **pages; /* [n] -> [room] chosen, ascending                 */
    uint32_t **takes; /* [n] -> [room] tokens to take of each            */
};

static size_t item_bytes(const struct qy_policy *policy, uint32_t max_n)
{
    const uint32_t group = group_of(policy);
    const size_t pages = max_n / policy->page + 2;

    return padded(group * pages * sizeof(float)) + padded(pages * sizeof(float)) +
           3 * padded((pages + group) * sizeof(uint32_t));
}

static size_t quest_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const uint32_t group = group_of(policy);
    const size_t one = sizeof(struct reach) + sizeof(struct qy_bound_score_item) +
                       sizeof(struct qy_pool_item) + group * sizeof(struct qy_topk_item) +
                       sizeof(struct qy_union_item) + (1 + group) * sizeof(uint32_t) +
                       2 * sizeof(uint32_t *);
    const size_t pages = max_n / policy->page + 2;

    return n_items * (one + item_bytes(policy, max_n)) + (size_t)8 * ALIGN +
           qy_device_topk_scratch(policy->params.dev, n_items * group, (uint32_t)pages) + ALIGN;
}

static enum qy_status work_take(struct work *w, struct qy_arena *arena)
{
    const uint32_t n = w->n;
    const uint32_t group = group_of(w->policy);

    w->reach = qy_arena_take(arena, n * sizeof(*w->reach), ALIGN);
    w->score = qy_arena_take(arena, n * sizeof(*w->score), ALIGN);
    w->pool = qy_arena_take(arena, n * sizeof(*w->pool), ALIGN);
    w->topk = qy_arena_take(arena, (size_t)n * group * sizeof(*w->topk), ALIGN);
    w->unions = qy_arena_take(arena, n * sizeof(*w->unions), ALIGN);
    w->counts = qy_arena_take(arena, (size_t)n * (1 + group) * sizeof(*w->counts), ALIGN);
    w->pages = qy_arena_take(arena, n * sizeof(*w->pages), ALIGN);
    w->takes = qy_arena_take(arena, n * sizeof(*w->takes), ALIGN);
    return w->reach && w->score && w->pool && w->topk && w->unions && w->counts && w->pages &&
                   w->takes
               ? QY_OK
               : QY_ERR_NOMEM;
}

/* Scores of item i, and what becomes of them when the heads are pooled first. */
static enum qy_status item_take(struct work *w, uint32_t i, struct qy_arena *arena)
{
    const struct qy_select_item *it = &w->items[i];
    const struct reach r = w->reach[i] = reach_of(w->policy, it);
    const uint32_t group = it->group;
    uint32_t *counts = w->counts + (size_t)i * (1 + group);
    float *scores = qy_arena_take(arena, (size_t)group * r.all * sizeof(float), ALIGN);
    float *pooled = qy_arena_take(arena, (r.last - r.first) * sizeof(float), ALIGN);

    w->pages[i] = qy_arena_take(arena, r.room * sizeof(uint32_t), ALIGN);
    w->takes[i] = qy_arena_take(arena, r.room * sizeof(uint32_t), ALIGN);
    if (!scores || !pooled || !w->pages[i] || !w->takes[i]) {
        return QY_ERR_NOMEM;
    }
    w->score[i] = (struct qy_bound_score_item){.q = it->q,
                                               .d = w->policy->params.head_dim,
                                               .group = group,
                                               .page = w->policy->page,
                                               .bounds = it->index,
                                               .n = r.all,
                                               .scores = scores,
                                               .stride = r.all};
    w->pool[i] = (struct qy_pool_item){
        .scores = scores,
        .stride = r.all,
        .n = r.all,
        .group = group,
        .lo = r.first,
        .hi = r.last,
        .pooling = qyi_policy_settings(&w->policy->params)->pooling == QY_POOLED_MAX ? QY_POOL_MAX
                                                                                     : QY_POOL_MEAN,
        .pooled = pooled};
    w->topk[i] = (struct qy_topk_item){.scores = pooled,
                                       .n = r.last - r.first,
                                       .k = r.k,
                                       .id_base = r.first,
                                       .ids = w->pages[i],
                                       .n_ids = counts};
    return QY_OK;
}

/* The best pages of each query head by its own bounds, and their union: `topk` and `unions`. */
static enum qy_status union_pages(struct work *w, struct qy_arena *arena)
{
    const uint32_t group = group_of(w->policy);
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n; i++) {
        const struct reach *r = &w->reach[i];
        uint32_t *counts = w->counts + (size_t)i * (1 + group);
        uint32_t *lists = qy_arena_take(arena, (size_t)group * r->per_head * sizeof(*lists), ALIGN);

        if (!lists) {
            return QY_ERR_NOMEM;
        }
        for (uint32_t h = 0; h < group; h++) {
            w->topk[n++] =
                (struct qy_topk_item){.scores = w->score[i].scores + (size_t)h * r->all + r->first,
                                      .n = r->last - r->first,
                                      .k = r->per_head,
                                      .id_base = r->first,
                                      .ids = lists + (size_t)h * r->per_head,
                                      .n_ids = counts + 1 + h};
        }
        w->unions[i] = (struct qy_union_item){.lists = lists,
                                              .counts = counts + 1,
                                              .n_lists = group,
                                              .stride = r->per_head,
                                              .ids = w->pages[i],
                                              .n_ids = counts};
    }
    const enum qy_status st = qy_device_topk(w->policy->params.dev, w->topk, n, arena);
    return st == QY_OK ? qy_device_union(w->policy->params.dev, w->unions, w->n) : st;
}

/* Tokens to take of each page chosen: those of lo .. hi - 1, and no more than k together; what is
 * too much goes from the page that the group wants least. */
static void plan_takes(const struct work *w, uint32_t i, uint32_t n_pages)
{
    const struct qy_select_item *it = &w->items[i];
    const uint32_t page = w->policy->page;
    const float *pooled = w->pool[i].pooled;
    const uint32_t first = w->reach[i].first;
    uint32_t *takes = w->takes[i];
    uint32_t total = 0;

    for (uint32_t p = 0; p < n_pages; p++) {
        const uint32_t begin = w->pages[i][p] * page;
        const uint32_t from = begin > it->lo ? begin : it->lo;
        const uint32_t to = begin + page < it->hi ? begin + page : it->hi;

        takes[p] = to - from;
        total += takes[p];
    }
    while (total > it->k) {
        uint32_t least = n_pages;

        for (uint32_t p = 0; p < n_pages; p++) {
            if (takes[p] > 0 && (least == n_pages || pooled[w->pages[i][p] - first] <=
                                                         pooled[w->pages[i][least] - first])) {
                least = p;
            }
        }
        const uint32_t excess = total - it->k;
        const uint32_t cut = excess < takes[least] ? excess : takes[least];
        takes[least] -= cut;
        total -= cut;
    }
}

static void expand(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct work *w = arg;
    const uint32_t group = group_of(w->policy);
    size_t begin;
    size_t end;

    qy_team_range(w->n, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct qy_select_item *it = &w->items[i];
        const uint32_t n_pages = w->counts[i * (1 + group)];
        uint32_t n = 0;

        plan_takes(w, (uint32_t)i, n_pages);
        for (uint32_t p = 0; p < n_pages; p++) {
            const uint32_t start = w->pages[i][p] * w->policy->page;
            const uint32_t from = start > it->lo ? start : it->lo;

            for (uint32_t t = 0; t < w->takes[i][p]; t++) {
                it->ids[n++] = from + t;
            }
        }
        *it->n_ids = n;
    }
}

static enum qy_status select_all(struct work *w, struct qy_arena *arena)
{
    const struct qy_policy_params *p = &w->policy->params;
    const int join = qyi_policy_settings(p)->pooling == QY_POOLED_UNION;
    uint64_t tokens = 0;
    enum qy_status st = work_take(w, arena);

    for (uint32_t i = 0; st == QY_OK && i < w->n; i++) {
        st = item_take(w, i, arena);
        tokens += w->items[i].k;
    }
    if (st == QY_OK) {
        st = qy_device_bound_score(p->dev, w->score, w->n, p->scale);
    }
    if (st == QY_OK && join) {
        st = union_pages(w, arena);
    }
    if (st == QY_OK) {
        st = qy_device_pool(p->dev, w->pool, w->n);
    }
    if (st == QY_OK && !join) {
        st = qy_device_topk(p->dev, w->topk, w->n, arena);
    }
    if (st == QY_OK) {
        qy_team_run(tokens < TEAM_TOKENS ? NULL : p->rt->team, expand, w);
    }
    return st;
}

static enum qy_status quest_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    struct work w = {.policy = policy, .items = items, .n = n_items};
    const size_t mark = qy_arena_mark(arena);
    const enum qy_status st = select_all(&w, arena);

    qy_arena_rewind(arena, mark);
    return st;
}

static int quest_reads_rows(const struct qy_retrieval_settings *settings, uint32_t window)
{
    (void)settings;
    (void)window;
    return 0;
}

const struct qy_policy_ops qyi_policy_quest = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "quest",
    .summary = "ranks pages of tokens by bounds of their keys (Quest)",
    .caps = {.index_shareable = 1, .append_form = QY_KEYS_AFTER_ROPE},
    .open = quest_open,
    .close = quest_close,
    .scratch = quest_scratch,
    .index_bytes = quest_index_bytes,
    .select = quest_select,
    .append = quest_append,
    .reads_rows = quest_reads_rows,
};
