/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a step beside the blocks: device scratch, and the lists of sequences and items.
 * Everything is reserved at open, so that a step takes none. */
#include "offload/cache.h"

enum { ALIGN = 64 };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Arena bytes of the hungriest part of a layer; the parts follow each other. */
static size_t arena_bytes(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const uint32_t items = (uint32_t)qyi_cache_items(cache);
    const uint32_t d = p->shape.head_dim;
    const uint32_t attends = cache->cuts_lists ? 2 * items : items;
    size_t most = qy_device_attend_scratch(cache->dev, attends, p->max_tokens, cache->group, d);
    size_t policy = 0;

    most = larger(most, qy_device_attend_chunk_scratch(cache->dev, items, p->max_tokens,
                                                       p->max_step_tokens, cache->group, d));
    if (p->policy->scratch) {
        policy = p->policy->scratch(cache->policy, items, p->max_tokens) + ALIGN;
    }
    most = larger(most, policy + qyi_fill_scratch(cache));
    most = larger(most, qyi_far_score_scratch(cache) + ALIGN);
    if (!qy_device_caps(cache->dev)->unified) {
        most += qyi_tier_pass_scratch(cache);
    }
    if (cache->home_layers) { /* pushes attend to coded rows */
        most += qy_device_attend_coded_scratch(cache->dev, d);
    }
    if (cache->audit.rate > 0.0) {
        most = larger(most, qy_audit_scratch(cache->dev, items, cache->group, p->max_tokens));
    }
    return most + ALIGN;
}

/* Device memory of a step: the rotation table, the lists of ids, parts to merge, the arena. */
struct scratch_plan {
    size_t rope, ids, part_out, part_lse, arena, total;
};

static struct scratch_plan plan_scratch(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const int pushes =
        !qy_device_caps(cache->dev)->unified && p->settings.plan_mode != QY_PLAN_PULL;
    const size_t parts = p->policy->caps.partial || pushes || cache->cuts_lists
                             ? qyi_cache_items(cache) * QYI_PARTS * cache->group
                             : 0;
    struct scratch_plan plan = {
        .rope = (size_t)p->max_step_tokens * p->rope.dim * sizeof(float),
        .ids = qyi_cache_items(cache) * cache->ids_capacity * sizeof(uint32_t),
        .part_out = parts * p->shape.head_dim * sizeof(float),
        .part_lse = parts * sizeof(float),
        .arena = arena_bytes(cache),
    };

    plan.total = plan.rope + plan.ids + plan.part_out + plan.part_lse + plan.arena;
    plan.total += (size_t)5 * ALIGN;
    return plan;
}

/* Bytes of all items that the parts of a layer gather, per (slice, KV head). */
static size_t item_bytes(const struct qy_cache *cache)
{
    const size_t audit = sizeof(struct qy_audit_item) + sizeof(struct qy_select_item);

    return sizeof(struct qy_append_item) + sizeof(struct qy_append_view) +
           sizeof(struct qy_select_item) +
           (cache->cuts_lists ? 2 : 1) * sizeof(struct qy_attend_item) +
           sizeof(struct qy_chunk_item) + 2 * sizeof(uint32_t) +
           (cache->audit.rate > 0.0 ? audit : 0);
}

size_t qyi_reserve_scratch_bytes(const struct qy_cache *cache)
{
    return plan_scratch(cache).total;
}

uint64_t qyi_reserve_bytes(const struct qy_cache *cache)
{
    const uint64_t n = cache->params.max_sequences;
    const uint64_t tables = qy_device_caps(cache->dev)->unified ? 1 : 4;

    return plan_scratch(cache).total +
           n * cache->max_blocks * (sizeof(uint32_t) + tables * sizeof(uint8_t *)) +
           n * cache->params.max_tokens * (sizeof(int32_t) + sizeof(uint8_t)) +
           qyi_cache_items(cache) * item_bytes(cache) + qyi_last_lists_bytes(&cache->last) +
           qyi_ahead_device_bytes(cache) + qyi_ahead_host_bytes(cache) + qyi_reuse_bytes(cache);
}

static enum qy_status reserve_scratch(struct qy_cache *cache, struct qy_error *err)
{
    const struct scratch_plan plan = plan_scratch(cache);
    const enum qy_status st = qy_device_alloc(cache->dev, plan.total, &cache->scratch, err);
    struct qy_arena whole;

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "cache: scratch of a step");
    }
    qy_arena_init(&whole, cache->scratch, plan.total);
    cache->step.rope_table = qy_arena_take(&whole, plan.rope, ALIGN);
    cache->step.ids = qy_arena_take(&whole, plan.ids, ALIGN);
    if (plan.part_lse > 0) {
        cache->step.part_out = qy_arena_take(&whole, plan.part_out, ALIGN);
        cache->step.part_lse = qy_arena_take(&whole, plan.part_lse, ALIGN);
    }
    qy_arena_init(&cache->arena, qy_arena_take(&whole, plan.arena, ALIGN), plan.arena);
    return QY_OK;
}

/* NULL, and *missing set, when there is no memory. */
static void *list(const struct qy_cache *cache, size_t n, size_t bytes, int *missing)
{
    void *p = qy_alloc_zero(&cache->rt->mem, n * bytes);

    *missing |= p == NULL;
    return p;
}

/* Arrays of the step. Returns non-zero when there is no memory for one. */
static int reserve_items(struct qy_cache *cache)
{
    const size_t items = qyi_cache_items(cache);
    struct qyi_step *s = &cache->step;
    struct qyi_audit *a = &cache->audit;
    int missing = 0;

    s->slices = list(cache, cache->params.max_sequences, sizeof(*s->slices), &missing);
    s->layer_done = list(cache, cache->layout.n_layers, 1, &missing);
    s->positions = list(cache, cache->params.max_step_tokens, sizeof(*s->positions), &missing);
    s->appends = list(cache, items, sizeof(*s->appends), &missing);
    s->views = list(cache, items, sizeof(*s->views), &missing);
    s->selects = list(cache, items, sizeof(*s->selects), &missing);
    s->attends = list(cache, cache->cuts_lists ? 2 * items : items, sizeof(*s->attends), &missing);
    s->chunks = list(cache, items, sizeof(*s->chunks), &missing);
    s->n_chosen = list(cache, items, sizeof(*s->n_chosen), &missing);
    s->n_listed = list(cache, items, sizeof(*s->n_listed), &missing);
    if (a->rate > 0.0) {
        a->sums = list(cache, cache->layout.n_layers, sizeof(*a->sums), &missing);
        a->items = list(cache, items, sizeof(*a->items), &missing);
        a->select = list(cache, items, sizeof(*a->select), &missing);
    }
    return missing;
}

/* The tables of a sequence's blocks. On a unified device they are one. */
static void name_tables(struct qy_sequence *seq, uint8_t **tables, int discrete)
{
    const size_t n = seq->cache->max_blocks;

    seq->addresses = tables;
    seq->homes = discrete ? tables + n : tables;
    seq->index = discrete ? tables + 2 * n : tables;
    seq->device = discrete ? tables + 3 * n : NULL;
}

enum qy_status qyi_reserve(struct qy_cache *cache, struct qy_error *err)
{
    const size_t n = cache->params.max_sequences;
    const size_t tables = qy_device_caps(cache->dev)->unified ? 1 : 4;
    const enum qy_status st = reserve_scratch(cache, err);
    int missing = 0;

    if (st != QY_OK) {
        return st;
    }
    cache->sequences = list(cache, n, sizeof(*cache->sequences), &missing);
    cache->block_ids = list(cache, n * cache->max_blocks, sizeof(*cache->block_ids), &missing);
    cache->block_addresses =
        list(cache, n * tables * cache->max_blocks, sizeof(*cache->block_addresses), &missing);
    cache->token_ids =
        list(cache, n * cache->params.max_tokens, sizeof(*cache->token_ids), &missing);
    cache->token_origins =
        list(cache, n * cache->params.max_tokens, sizeof(*cache->token_origins), &missing);
    missing |= reserve_items(cache);
    if (cache->last.capacity > 0) {
        missing |= qyi_last_lists_open(&cache->rt->mem, &cache->last) != QY_OK;
    }
    if (missing) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the lists of %zu sequences", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        const size_t tokens = (size_t)i * cache->params.max_tokens;

        cache->sequences[i] =
            (struct qy_sequence){.cache = cache,
                                 .slot = i,
                                 .blocks = cache->block_ids + (size_t)i * cache->max_blocks,
                                 .ids = cache->token_ids + tokens,
                                 .origins = cache->token_origins + tokens};
        name_tables(&cache->sequences[i], cache->block_addresses + i * tables * cache->max_blocks,
                    tables > 1);
    }
    return QY_OK;
}

void qyi_reserve_free(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_step *s = &cache->step;

    qyi_last_lists_close(mem, &cache->last);
    qy_free(mem, cache->audit.select);
    qy_free(mem, cache->audit.items);
    qy_free(mem, cache->audit.sums);
    qy_free(mem, s->n_listed);
    qy_free(mem, s->n_chosen);
    qy_free(mem, s->chunks);
    qy_free(mem, s->attends);
    qy_free(mem, s->selects);
    qy_free(mem, s->views);
    qy_free(mem, s->appends);
    qy_free(mem, s->positions);
    qy_free(mem, s->layer_done);
    qy_free(mem, s->slices);
    qy_free(mem, cache->token_origins);
    qy_free(mem, cache->token_ids);
    qy_free(mem, cache->block_addresses);
    qy_free(mem, cache->block_ids);
    qy_free(mem, cache->sequences);
    qy_device_free(cache->dev, cache->scratch);
}
