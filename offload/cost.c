/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what length on choosing tokens pays on this machine: a trial at open.
 *
 * Random keys of one (layer, KV head) are indexed and selected from at two lengths, which gives the
 * fixed cost of a selection and that of a token; attention runs over more rows than the caches hold,
 * in order and by a list. Choosing pays where
 *
 *   select + select_token * n + gather_row * attended(n)  <  attend_row * n
 *
 * chosen: the length is rounded up to a power of two, so that the noise of a trial seldom changes
 * which sequences are chosen from, and so what they answer; and it is at most MAX_TOKENS: who asks
 * for a policy gets it in long contexts, whatever else the machine did during the trial.
 */
#include "offload/cost.h"

#include <string.h>

enum {
    MAX_TOKENS = 4096, /* of the longer trial                     */
    MIN_TOKENS = 512,  /* nobody wins below: no trial for caches of so little */
    MAX_ITEMS = 64,
    RUNS = 9,    /* the least counts: others use the machine too */
    GATHER = 20, /* the list has every GATHER-th row */
    ALIGN = 64
};
static const size_t trial_bytes = (size_t)32 << 20; /* of rows: beyond the caches' share */

struct trial {
    struct qy_cache *cache;
    uint32_t n;        /* tokens of the longer trial, whole blocks */
    uint32_t n_items;  /* (sequence, KV head) pairs at once        */
    uint32_t n_blocks; /* of one of them                           */
    uint8_t *memory;   /* [n_items][n_blocks] of rows, then index  */
    uint8_t **blocks;  /* [n_items][n_blocks]                      */
    float *keys;       /* [n][d], and the queries behind them      */
    uint32_t *ids;     /* [n_items][n]                             */
    uint32_t *n_ids;   /* [n_items]                                */
    float *out;        /* [n_items][group][d]                      */
    struct qy_select_item *selects;
    struct qy_attend_item *attends;
};

static void trial_free(struct trial *t)
{
    const struct qy_allocator *mem = &t->cache->rt->mem;

    qy_free(mem, t->attends);
    qy_free(mem, t->selects);
    qy_free(mem, t->out);
    qy_free(mem, t->n_ids);
    qy_free(mem, t->ids);
    qy_free(mem, t->keys);
    qy_free(mem, t->blocks);
    qy_free(mem, t->memory);
}

static size_t block_bytes(const struct qy_cache *cache)
{
    return cache->layout.slab_bytes + cache->layout.index_slab_bytes;
}

static enum qy_status trial_reserve(struct trial *t, struct qy_error *err)
{
    const struct qy_allocator *mem = &t->cache->rt->mem;
    const uint32_t d = t->cache->layout.head_dim;
    const size_t rows = (size_t)t->n + t->cache->group;

    t->memory = qy_alloc_zero(mem, t->n_items * t->n_blocks * block_bytes(t->cache) + ALIGN);
    t->blocks = qy_alloc_zero(mem, (size_t)t->n_items * t->n_blocks * sizeof(*t->blocks));
    t->keys = qy_alloc_zero(mem, rows * d * sizeof(*t->keys));
    t->ids = qy_alloc_zero(mem, (size_t)t->n_items * t->n * t->cache->group * sizeof(*t->ids));
    t->n_ids = qy_alloc_zero(mem, t->n_items * sizeof(*t->n_ids));
    t->out = qy_alloc_zero(mem, (size_t)t->n_items * t->cache->group * (d + 1) * sizeof(*t->out));
    t->selects = qy_alloc_zero(mem, t->n_items * sizeof(*t->selects));
    t->attends = qy_alloc_zero(mem, t->n_items * sizeof(*t->attends));
    if (!t->memory || !t->blocks || !t->keys || !t->ids || !t->n_ids || !t->out || !t->selects ||
        !t->attends) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the trial of what choosing costs; set "
                            "retrieval.min_tokens to leave it out");
    }
    const uintptr_t base = ((uintptr_t)t->memory + ALIGN - 1) / ALIGN * ALIGN;
    for (size_t i = 0; i < (size_t)t->n_items * t->n_blocks; i++) {
        t->blocks[i] = (uint8_t *)base + i * block_bytes(t->cache);
    }
    return QY_OK;
}

static struct qy_rows rows_of(const struct trial *t, uint32_t item)
{
    const struct qyi_layout *l = &t->cache->layout;

    return (struct qy_rows){.blocks = t->blocks + (size_t)item * t->n_blocks,
                            .shift = l->shift,
                            .d = l->head_dim,
                            .type = l->row_type};
}

static struct qy_slab index_of(const struct trial *t, uint32_t item)
{
    return (struct qy_slab){.blocks = t->blocks + (size_t)item * t->n_blocks,
                            .offset = t->cache->layout.slab_bytes,
                            .shift = t->cache->layout.shift};
}

/* Sums of uniform numbers in -1..1: about as spread as keys are. */
static void draw(float *values, size_t n)
{
    uint64_t state = 1;

    for (size_t i = 0; i < n; i++) {
        float sum = 0.0F;

        for (int j = 0; j < 3; j++) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            sum += (float)(int32_t)(state >> 32) * 0x1p-31F;
        }
        values[i] = sum;
    }
}

/* Rows and index of the first item, copied to the others. */
static enum qy_status trial_fill(struct trial *t)
{
    struct qy_cache *cache = t->cache;
    const uint32_t d = cache->layout.head_dim;
    const struct qy_append_item rows = {
        .k = t->keys, .v = t->keys, .stride = d, .rows = rows_of(t, 0), .n = t->n};

    draw(t->keys, ((size_t)t->n + cache->group) * d);
    enum qy_status st = qy_device_append(cache->dev, &rows, 1);
    for (uint32_t at = 0; st == QY_OK && cache->params.policy->append && at < t->n;
         at += cache->layout.block_tokens) {
        const struct qy_append_view view = {.k = t->keys + (size_t)at * d,
                                            .q = t->keys,
                                            .stride = d,
                                            .group = 1,
                                            .first = at,
                                            .n = cache->layout.block_tokens,
                                            .rows = rows_of(t, 0),
                                            .index = index_of(t, 0)};
        const size_t mark = qy_arena_mark(&cache->arena);

        st = cache->params.policy->append(cache->policy, &view, 1, &cache->arena);
        qy_arena_rewind(&cache->arena, mark);
    }
    for (uint32_t i = 1; i < t->n_items; i++) {
        memcpy(t->blocks[(size_t)i * t->n_blocks], t->blocks[0], t->n_blocks * block_bytes(cache));
    }
    return st;
}

/* Least time of a selection from n tokens, per item. */
static enum qy_status time_select(struct trial *t, uint32_t n, double *ns)
{
    struct qy_cache *cache = t->cache;
    struct qyi_selection_rule rule = cache->rule;

    rule.min_tokens = 0;
    const struct qyi_selection plan = qyi_selection_plan(&rule, QY_ATTEND_POLICY, n);
    *ns = 0.0;
    if (plan.reach != QYI_REACH_SELECT) {
        return QY_OK; /* so short, or so large a budget, that all of it is attended anyway */
    }
    for (uint32_t i = 0; i < t->n_items; i++) {
        t->selects[i] =
            (struct qy_select_item){.q = t->keys + (size_t)t->n * cache->layout.head_dim,
                                    .rows = rows_of(t, i),
                                    .index = index_of(t, i),
                                    .group = cache->group,
                                    .n = n,
                                    .lo = plan.lo,
                                    .hi = plan.hi,
                                    .k = plan.k,
                                    .mass = plan.mass,
                                    .ids = t->ids + (size_t)i * t->n * cache->group,
                                    .n_ids = &t->n_ids[i]};
    }
    for (int run = 0; run < RUNS; run++) {
        const size_t mark = qy_arena_mark(&cache->arena);
        const uint64_t begin = qy_clock_ns();
        const enum qy_status st =
            cache->params.policy->select(cache->policy, t->selects, t->n_items, &cache->arena);
        const double took = (double)(qy_clock_ns() - begin) / t->n_items;

        qy_arena_rewind(&cache->arena, mark);
        if (st != QY_OK) {
            return st;
        }
        *ns = run == 0 || took < *ns ? took : *ns;
    }
    return QY_OK;
}

/* Least time of attention per row: all rows in order, or those of a list. */
static enum qy_status time_attend(struct trial *t, int by_list, double *row_ns)
{
    struct qy_cache *cache = t->cache;
    const uint32_t d = cache->layout.head_dim;
    const uint32_t n = by_list ? t->n / GATHER : t->n;

    for (uint32_t i = 0; i < t->n_items; i++) {
        float *out = t->out + (size_t)i * cache->group * (d + 1);

        t->attends[i] = (struct qy_attend_item){.q = t->keys + (size_t)t->n * d,
                                                .rows = rows_of(t, i),
                                                .ids = by_list ? t->ids : NULL,
                                                .n = n,
                                                .group = cache->group,
                                                .out = out,
                                                .lse = out + (size_t)cache->group * d};
    }
    for (uint32_t run = 0; run < RUNS; run++) {
        for (uint32_t i = 0; by_list && i < n; i++) { /* other rows each time: not in a cache */
            t->ids[i] = i * GATHER + (i * 7 + run * 3) % GATHER;
        }
        const size_t mark = qy_arena_mark(&cache->arena);
        const uint64_t begin = qy_clock_ns();
        const enum qy_status st = qy_device_attend(cache->dev, t->attends, t->n_items,
                                                   cache->params.scale, &cache->arena);
        const double took = (double)(qy_clock_ns() - begin) / ((double)n * t->n_items);

        qy_arena_rewind(&cache->arena, mark);
        if (st != QY_OK) {
            return st;
        }
        *row_ns = run == 0 || took < *row_ns ? took : *row_ns;
    }
    return QY_OK;
}

uint32_t qyi_cost_min_tokens(const struct qy_cache_cost *cost,
                             const struct qyi_selection_rule *rule, uint32_t max_tokens)
{
    struct qyi_selection_rule any = *rule;

    any.min_tokens = 0;
    for (uint64_t n = MIN_TOKENS; n < MAX_TOKENS && n <= max_tokens; n *= 2) {
        const struct qyi_selection plan = qyi_selection_plan(&any, QY_ATTEND_POLICY, (uint32_t)n);
        const double all = cost->attend_row_ns * (double)n;
        const double rows = (double)plan.lo + plan.most + (double)(n - plan.hi);
        const double chosen =
            cost->select_ns + cost->select_token_ns * (double)n + cost->gather_row_ns * rows;

        if (plan.reach != QYI_REACH_ALL && chosen < all) {
            return n == MIN_TOKENS ? 0 : (uint32_t)n;
        }
    }
    return MAX_TOKENS;
}

static enum qy_status measure(struct trial *t, struct qy_cache_cost *cost)
{
    double at_short = 0.0;
    double at_long = 0.0;
    enum qy_status st = trial_fill(t);

    if (st == QY_OK) {
        st = time_select(t, t->n / 4, &at_short);
    }
    if (st == QY_OK) {
        st = time_select(t, t->n, &at_long);
    }
    if (st == QY_OK) {
        st = time_attend(t, 0, &cost->attend_row_ns);
    }
    if (st == QY_OK) {
        st = time_attend(t, 1, &cost->gather_row_ns);
    }
    const double slope = (at_long - at_short) / (double)(t->n - t->n / 4);
    cost->select_token_ns = slope > 0.0 ? slope : 0.0;
    cost->select_ns = at_long - cost->select_token_ns * (double)t->n;
    cost->measured = 1;
    return st;
}

enum qy_status qyi_cost_measure(struct qy_cache *cache, struct qy_cache_cost *cost,
                                struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const uint32_t block = cache->layout.block_tokens;
    const uint32_t most = p->max_tokens < MAX_TOKENS ? p->max_tokens : MAX_TOKENS;
    struct trial t = {.cache = cache, .n = most / block * block};

    *cost = (struct qy_cache_cost){.min_tokens = MIN_TOKENS};
    if (t.n < MIN_TOKENS) {
        return QY_OK;
    }
    const size_t items = qyi_cache_items(cache);
    const size_t fill = trial_bytes / (t.n * cache->layout.row_bytes) + 1;
    t.n_items = (uint32_t)(items < fill ? items : fill);
    t.n_items = t.n_items < MAX_ITEMS ? t.n_items : MAX_ITEMS;
    t.n_blocks = t.n / block;
    enum qy_status st = trial_reserve(&t, err);
    if (st == QY_OK) {
        st = measure(&t, cost);
        if (st != QY_OK) {
            st = qy_error_set(err, st, "policy '%.60s': the trial of what choosing costs failed",
                              p->policy->name);
        }
    }
    trial_free(&t);
    if (st == QY_OK) {
        cost->min_tokens = qyi_cost_min_tokens(cost, &cache->rule, p->max_tokens);
    }
    return st;
}
