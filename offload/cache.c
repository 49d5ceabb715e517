/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a cache: the checks, the sizes, and every reservation of the decode path. */
#include "offload/cache.h"
#include "offload/sizing.h"

#include <math.h>

enum { ALIGN = 64, MAX_SINKS_WINDOW = 1 << 20, MAX_SEQUENCES = 1 << 16 };

static enum qy_status check_policy(const struct qy_cache_params *p, struct qy_error *err)
{
    const struct qy_policy_ops *ops = p->policy;

    if (!ops || ops->abi_size < sizeof(*ops) || !ops->name) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache: the policy has no table, or one of another version of "
                            "retrieval.h; rebuild it");
    }
    if (ops->caps.dense || ops->caps.select_nothing) {
        return QY_OK;
    }
    if (!ops->select) {
        return qy_error_set(err, QY_ERR_INVALID, "policy '%.60s': it has no select function",
                            ops->name);
    }
    if (p->budget.tokens == 0 && !(p->budget.ratio > 0.0)) {
        return qy_error_set(
            err, QY_ERR_INVALID,
            "policy '%.60s': no budget is given; give a share or a number of tokens", ops->name);
    }
    return QY_OK;
}

static enum qy_status check_params(const struct qy_cache_params *p, struct qy_error *err)
{
    const struct qy_cache_settings *s = &p->settings;

    if (!p->rt || !p->dev || !qy_device_caps(p->dev)->unified) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "cache: the device must share memory with the host; open 'host'");
    }
    if (p->max_sequences == 0 || p->max_sequences > MAX_SEQUENCES || p->max_tokens == 0 ||
        p->max_tokens > INT32_MAX || p->max_step_tokens == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache: %u sequences of %u tokens, steps of %u tokens; accepted are 1 "
                            "to %d sequences, and sizes above 0",
                            p->max_sequences, p->max_tokens, p->max_step_tokens, MAX_SEQUENCES);
    }
    if (s->sinks < 0 || s->sinks > MAX_SINKS_WINDOW || s->window < 1 ||
        s->window > MAX_SINKS_WINDOW) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "settings 'cache.sinks' %lld, 'cache.window' %lld; accepted are 0 and "
                            "1 to %d",
                            (long long)s->sinks, (long long)s->window, MAX_SINKS_WINDOW);
    }
    if (p->rope.dim % 2 != 0 || p->rope.dim > p->shape.head_dim ||
        (p->rope.dim > 0 && !p->rope.inv_freq)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache: rotation of %u elements of a head of %u; it must be even, at "
                            "most the head, and have its frequencies",
                            p->rope.dim, p->shape.head_dim);
    }
    return check_policy(p, err);
}

/* Items of one device call at most. */
static size_t max_items(const struct qy_cache *cache)
{
    return (size_t)cache->params.max_sequences * cache->layout.n_kv_heads;
}

/* Arena bytes of the hungriest part of a layer. */
static size_t arena_bytes(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const uint32_t items = (uint32_t)max_items(cache);
    const uint32_t group = p->shape.n_heads / p->shape.n_kv_heads;
    const size_t attend =
        qy_device_attend_scratch(cache->dev, items, p->max_tokens, group, p->shape.head_dim);
    const size_t chunk = qy_device_attend_chunk_scratch(
        cache->dev, items, p->max_tokens, p->max_step_tokens, group, p->shape.head_dim);
    size_t most = attend > chunk ? attend : chunk;

    if (p->policy->scratch) {
        const size_t select = p->policy->scratch(cache->policy, items, p->max_tokens);

        most = select > most ? select : most;
    }
    return most + ALIGN;
}

/* Device memory of a step: the rotation table, the lists of ids, the arena. */
struct scratch_plan {
    size_t rope, ids, arena, total;
};

static struct scratch_plan plan_scratch(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    struct scratch_plan plan = {
        .rope = (size_t)p->max_step_tokens * p->rope.dim * sizeof(float),
        .ids = max_items(cache) * cache->ids_capacity * sizeof(uint32_t),
        .arena = arena_bytes(cache),
    };

    plan.total = plan.rope + plan.ids + plan.arena + (size_t)3 * ALIGN;
    return plan;
}

static enum qy_status reserve_scratch(struct qy_cache *cache, const struct scratch_plan *plan,
                                      struct qy_error *err)
{
    const enum qy_status st = qy_device_alloc(cache->dev, plan->total, &cache->scratch, err);
    struct qy_arena whole;

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "cache: scratch of a step");
    }
    qy_arena_init(&whole, cache->scratch, plan->total);
    cache->step.rope_table = qy_arena_take(&whole, plan->rope, ALIGN);
    cache->step.ids = qy_arena_take(&whole, plan->ids, ALIGN);
    qy_arena_init(&cache->arena, qy_arena_take(&whole, plan->arena, ALIGN), plan->arena);
    return QY_OK;
}

static uint64_t lists_bytes(const struct qy_cache *cache)
{
    const uint64_t n = cache->params.max_sequences;
    const uint64_t item = sizeof(struct qy_append_item) + sizeof(struct qy_select_item) +
                          sizeof(struct qy_attend_item) + sizeof(struct qy_chunk_item) +
                          sizeof(uint32_t);

    return n * cache->max_blocks * (sizeof(uint32_t) + sizeof(uint8_t *)) +
           n * cache->params.max_tokens * sizeof(int32_t) + max_items(cache) * item;
}

/* Arrays of the sequences and of the step. */
static enum qy_status reserve_lists(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t n = cache->params.max_sequences;
    const size_t items = max_items(cache);
    struct qyi_step *s = &cache->step;

    cache->sequences = qy_alloc_zero(mem, n * sizeof(*cache->sequences));
    cache->block_ids = qy_alloc_zero(mem, n * cache->max_blocks * sizeof(*cache->block_ids));
    cache->block_addresses =
        qy_alloc_zero(mem, n * cache->max_blocks * sizeof(*cache->block_addresses));
    cache->token_ids = qy_alloc_zero(mem, n * cache->params.max_tokens * sizeof(*cache->token_ids));
    s->slices = qy_alloc_zero(mem, n * sizeof(*s->slices));
    s->layer_done = qy_alloc_zero(mem, cache->layout.n_layers);
    s->positions = qy_alloc_zero(mem, cache->params.max_step_tokens * sizeof(*s->positions));
    s->appends = qy_alloc_zero(mem, items * sizeof(*s->appends));
    s->selects = qy_alloc_zero(mem, items * sizeof(*s->selects));
    s->attends = qy_alloc_zero(mem, items * sizeof(*s->attends));
    s->chunks = qy_alloc_zero(mem, items * sizeof(*s->chunks));
    s->n_chosen = qy_alloc_zero(mem, items * sizeof(*s->n_chosen));
    if (!cache->sequences || !cache->block_ids || !cache->block_addresses || !cache->token_ids ||
        !s->slices || !s->layer_done || !s->positions || !s->appends || !s->selects ||
        !s->attends || !s->chunks || !s->n_chosen) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache: out of memory for the lists of %zu sequences", n);
    }
    for (uint32_t i = 0; i < n; i++) {
        cache->sequences[i] = (struct qy_sequence){
            .cache = cache,
            .slot = i,
            .blocks = cache->block_ids + (size_t)i * cache->max_blocks,
            .addresses = cache->block_addresses + (size_t)i * cache->max_blocks,
            .ids = cache->token_ids + (size_t)i * cache->params.max_tokens};
    }
    return QY_OK;
}

static enum qy_status open_policy(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qy_policy_params params = {.rt = p->rt,
                                            .dev = p->dev,
                                            .n_layers = p->shape.n_layers,
                                            .n_heads = p->shape.n_heads,
                                            .n_kv_heads = p->shape.n_kv_heads,
                                            .head_dim = p->shape.head_dim,
                                            .max_sequences = p->max_sequences,
                                            .max_tokens = p->max_tokens,
                                            .scale = p->scale,
                                            .mass = p->budget.mass};

    if (!p->policy->open) {
        return QY_OK;
    }
    return p->policy->open(&params, &cache->policy, err);
}

static enum qy_status open_home(struct qy_cache *cache, uint64_t fixed_bytes, struct qy_error *err)
{
    struct qy_memory_info memory;
    uint32_t n_blocks;

    qy_memory_read(&memory);
    const struct qyi_sizing want = {.max_sequences = cache->params.max_sequences,
                                    .max_tokens = cache->params.max_tokens,
                                    .total_tokens = cache->params.total_tokens,
                                    .host_bytes = cache->params.settings.host_bytes,
                                    .usable_bytes = memory.usable,
                                    .fixed_bytes = fixed_bytes};
    const enum qy_status st = qyi_size_pool(&cache->layout, &want, &n_blocks, err);
    if (st != QY_OK) {
        return st;
    }
    return qyi_home_open(cache->rt, &cache->layout, n_blocks, &cache->home, err);
}

/* Everything after the checks; on failure the caller closes what there is. */
static enum qy_status open_parts(struct qy_cache *cache, struct qy_error *err)
{
    struct qy_cache_params *p = &cache->params;
    enum qy_status st = open_policy(cache, err);

    if (st != QY_OK) {
        return st;
    }
    const size_t index = p->policy->index_bytes ? p->policy->index_bytes(cache->policy) : 0;
    st = qyi_layout_make(&p->shape, &p->settings, index, &cache->layout, err);
    if (st != QY_OK) {
        return st;
    }
    cache->max_blocks = (uint32_t)qyi_layout_blocks(&cache->layout, p->max_tokens);
    cache->rule = (struct qyi_selection_rule){.caps = p->policy->caps,
                                              .budget = p->budget,
                                              .sinks = (uint32_t)p->settings.sinks,
                                              .window = (uint32_t)p->settings.window};
    cache->ids_capacity = qyi_selection_capacity(&cache->rule, p->max_tokens);

    const struct scratch_plan plan = plan_scratch(cache);
    st = open_home(cache, plan.total + lists_bytes(cache), err);
    if (st != QY_OK) {
        return st;
    }
    st = reserve_scratch(cache, &plan, err);
    if (st != QY_OK) {
        return st;
    }
    return reserve_lists(cache, err);
}

enum qy_status qy_cache_open(const struct qy_cache_params *params, struct qy_cache **cache,
                             struct qy_error *err)
{
    struct qyi_layout layout;
    enum qy_status st = check_params(params, err);

    if (st != QY_OK) {
        return st;
    }
    /* the shape is checked before the policy sees it */
    st = qyi_layout_make(&params->shape, &params->settings, 0, &layout, err);
    if (st != QY_OK) {
        return st;
    }
    struct qy_cache *c = qy_alloc_zero(&params->rt->mem, sizeof(*c));
    if (!c) {
        return qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory at open");
    }
    c->params = *params;
    c->rt = params->rt;
    c->dev = params->dev;
    if (!(c->params.scale > 0.0F)) {
        c->params.scale = 1.0F / sqrtf((float)params->shape.head_dim);
    }
    st = open_parts(c, err);
    if (st != QY_OK) {
        qy_cache_close(c);
        return st;
    }
    *cache = c;
    return QY_OK;
}

void qy_cache_close(struct qy_cache *cache)
{
    if (!cache) {
        return;
    }
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_step *s = &cache->step;

    qy_free(mem, s->n_chosen);
    qy_free(mem, s->chunks);
    qy_free(mem, s->attends);
    qy_free(mem, s->selects);
    qy_free(mem, s->appends);
    qy_free(mem, s->positions);
    qy_free(mem, s->layer_done);
    qy_free(mem, s->slices);
    qy_free(mem, cache->token_ids);
    qy_free(mem, cache->block_addresses);
    qy_free(mem, cache->block_ids);
    qy_free(mem, cache->sequences);
    qy_device_free(cache->dev, cache->scratch);
    qyi_home_close(&cache->home);
    if (cache->policy && cache->params.policy->close) {
        cache->params.policy->close(cache->policy);
    }
    qy_free(mem, cache);
}

uint64_t qy_cache_bytes_for(const struct qy_cache *cache, uint64_t n_tokens)
{
    return qyi_layout_blocks(&cache->layout, n_tokens) * cache->layout.block_bytes;
}
