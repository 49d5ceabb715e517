/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a cache: the checks, the policy, the pool; reserve.c has
 * the rest. */
#include "offload/cache.h"
#include "offload/codec.h"
#include "offload/cost.h"
#include "offload/sizing.h"

#include <math.h>

enum { MAX_SINKS_WINDOW = 1 << 20, MAX_SEQUENCES = 1 << 16 };

static enum qy_status check_params(const struct qy_cache_params *p, struct qy_error *err)
{
    const struct qy_cache_settings *s = &p->settings;

    if (!p->rt || !p->dev) {
        return qy_error_set(err, QY_ERR_INVALID, "cache: no runtime or device given");
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
    return QY_OK;
}

/* cache.host_bytes; auto is, with memory servers, what must be here, and room for blocks on their way. */
static uint64_t host_bytes(const struct qy_cache *cache)
{
    const uint64_t given = cache->params.settings.host_bytes;

    return given > 0 || !qyi_home_far_is_remote(&cache->params)
               ? given
               : qyi_home_far_usual(cache) * cache->layout.block_bytes;
}

/* n_slots: blocks that the far home is to hold; 0: there is none, or host memory holds all. */
static enum qy_status open_home(struct qy_cache *cache, uint64_t fixed_bytes, uint32_t *n_slots,
                                struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const uint64_t most = (uint64_t)cache->max_blocks * p->max_sequences;
    const uint64_t far_blocks = qyi_home_far_blocks(cache);
    const uint64_t slots = far_blocks < most ? far_blocks : most;
    struct qy_memory_info memory;
    uint32_t n_blocks;

    if (qyi_home_far_is_remote(p) && far_blocks < 2) {
        return qy_error_set(
            err, QY_ERR_NOMEM,
            "net.memory: the servers have room for %llu blocks of %zu bytes; at least "
            "2 are needed; give them more bytes, or use others",
            (unsigned long long)far_blocks, cache->layout.block_bytes);
    }
    if (p->settings.disk_bytes > 0 && far_blocks < 2) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "cache.disk_bytes: %llu bytes; one block takes %zu, and at least 2 are "
                            "accepted; raise it, or set 0 for no disk tier",
                            (unsigned long long)p->settings.disk_bytes, cache->layout.block_bytes);
    }
    qy_memory_read(&memory);
    const struct qyi_sizing want = {.max_sequences = cache->params.max_sequences,
                                    .max_tokens = cache->params.max_tokens,
                                    .total_tokens = cache->params.total_tokens,
                                    .host_bytes = host_bytes(cache),
                                    .usable_bytes = memory.usable,
                                    .fixed_bytes =
                                        fixed_bytes + qyi_home_far_bytes(cache, slots, most),
                                    .disk_blocks = slots > 0 ? slots - 1 : 0,
                                    .least_blocks = qyi_home_far_least(cache)};
    enum qy_status st = qyi_size_pool(&cache->layout, &want, &n_blocks, err);
    if (st != QY_OK) {
        return st;
    }
    if (qy_device_caps(cache->dev)->unified) { /* else the device has it: qyi_tier_size */
        const uint64_t index =
            (uint64_t)n_blocks * cache->layout.n_slabs * cache->layout.index_slab_bytes;

        st = qyi_size_index(p->settings.index_bytes, index, 0, p->policy->name, err);
        if (st != QY_OK) {
            return st;
        }
    }
    /* one place of the store stays free: a block that must come up can always change with another */
    const uint64_t ids = slots > 0 && n_blocks + slots - 1 < most ? n_blocks + slots - 1 : most;
    *n_slots = n_blocks < most ? (uint32_t)slots : 0;
    return qyi_home_open(cache->rt, &cache->layout, n_blocks,
                         *n_slots > 0 ? (uint32_t)ids : n_blocks, &cache->home, err);
}

/* The settings of retrieval, and what the policy wants of the cache. */
static enum qy_status open_policy(struct qy_cache *cache, struct qy_error *err)
{
    struct qy_cache_params *p = &cache->params;
    enum qy_status st = QY_OK;

    if (!p->retrieval) {
        st = qyi_settings_initial(&cache->rt->mem, &cache->retrieval, err);
        p->retrieval = &cache->retrieval;
    }
    if (st == QY_OK) {
        st = qyi_policy_check(p, err);
    }
    if (st == QY_OK && p->settings.index_bytes > 0 && p->policy->prepare) {
        st =
            qy_error_set(err, QY_ERR_CONFIG,
                         "cache.index_bytes: policy '%.60s' learns its index from the sequence and "
                         "takes memory for it as it grows; leave it auto, or choose a policy whose "
                         "index lies with the blocks (a2ats+, a2ats, quest)",
                         p->policy->name);
    }
    if (st != QY_OK) {
        return st;
    }
    cache->dense_layers = qyi_policy_dense_layers(p);
    cache->audit.rate = p->policy->caps.dense ? 0.0 : p->retrieval->audit_rate;
    cache->rule = (struct qyi_selection_rule){.caps = p->policy->caps,
                                              .budget = p->budget,
                                              .group = cache->group,
                                              .sinks = (uint32_t)p->settings.sinks,
                                              .window = (uint32_t)p->settings.window,
                                              .min_tokens = qyi_policy_min_tokens(p)};
    cache->cost.min_tokens = cache->rule.min_tokens;
    cache->ids_capacity = qyi_selection_capacity(&cache->rule, p->max_tokens);
    if (cache->ids_capacity > 0 && cache->ids_capacity < p->max_tokens) {
        const uint32_t more = qyi_reuse_more(p);
        const uint32_t most = p->max_tokens - cache->ids_capacity;

        cache->ids_capacity += more < most ? more : most;
    }
    if (qyi_reuse_wanted(p) ||
        (p->settings.prefetch == QY_PREFETCH_PREVIOUS && !qy_device_caps(p->dev)->unified)) {
        cache->last = (struct qyi_last_lists){.n_sequences = p->max_sequences,
                                              .n_layers = p->shape.n_layers,
                                              .n_heads = p->shape.n_kv_heads,
                                              .capacity = cache->ids_capacity};
    }
    return qyi_policy_open(p, &cache->policy, err);
}

static enum qy_status open_tier(struct qy_cache *cache, struct qy_error *err)
{
    struct qyi_tier_plan plan;
    const enum qy_status st = qyi_tier_size(
        cache, qyi_reserve_scratch_bytes(cache) + qyi_ahead_device_bytes(cache), &plan, err);

    return st == QY_OK ? qyi_tier_open(cache, &plan, err) : st;
}

/* Rows at home in the form of cache.home_codec. */
static enum qy_status open_codec(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qy_allocator *mem = &cache->rt->mem;
    uint32_t n_coded;

    cache->home_layers = qy_alloc_zero(mem, p->shape.n_layers * sizeof(*cache->home_layers));
    if (!cache->home_layers) {
        return qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for the codecs of %u layers",
                            p->shape.n_layers);
    }
    enum qy_status st = qyi_codec_parse(&p->shape, &p->settings, cache->home_layers, &n_coded, err);
    if (st == QY_OK && n_coded > 0) {
        st = qyi_codec_check(p, err);
    }
    if (st == QY_OK && n_coded > 0) {
        qyi_layout_code(&cache->layout, cache->home_layers);
    } else if (st == QY_OK) {
        qy_free(mem, cache->home_layers);
        cache->home_layers = NULL;
    }
    return st;
}

/* Everything after the checks; on failure the caller closes what there is. */
static enum qy_status open_parts(struct qy_cache *cache, struct qy_error *err)
{
    struct qy_cache_params *p = &cache->params;
    const int unified = qy_device_caps(cache->dev)->unified;
    uint32_t n_slots = 0;
    enum qy_status st = qyi_lanes_open(cache, err);

    if (st == QY_OK) {
        st = open_policy(cache, err);
    }
    if (st == QY_OK) {
        st = qyi_home_far_check(cache, err);
    }
    if (st != QY_OK) {
        return st;
    }
    const size_t index = p->policy->index_bytes ? p->policy->index_bytes(cache->policy) : 0;
    st = qyi_layout_make(&p->shape, &p->settings, index, &cache->layout, err);
    if (st == QY_OK) {
        st = open_codec(cache, err);
    }
    if (st != QY_OK) {
        return st;
    }
    cache->max_blocks = (uint32_t)qyi_layout_blocks(&cache->layout, p->max_tokens);
    st = qyi_home_far_connect(cache, err);
    if (st == QY_OK) {
        st = open_home(cache, qyi_reserve_bytes(cache), &n_slots, err);
    }
    if (st != QY_OK) {
        return st;
    }
    st = qyi_reserve(cache, err);
    if (st == QY_OK) {
        st = qyi_reuse_open(cache, err);
    }
    if (st == QY_OK && !unified) {
        st = open_tier(cache, err);
    }
    if (st == QY_OK) {
        st = qyi_home_far_open(cache, n_slots, err);
    }
    /* where rows must be moved first, choosing always pays */
    if (st == QY_OK && unified && p->policy->caps.skip_short && p->retrieval->min_tokens < 0) {
        st = qyi_cost_measure(cache, &cache->cost, err);
        cache->rule.min_tokens = cache->cost.min_tokens;
    }
    return st;
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
    if (params->servers) {
        c->servers = *params->servers;
        c->params.servers = &c->servers;
    }
    c->rt = params->rt;
    c->dev = params->dev;
    c->cuts_lists = qy_device_caps(params->dev)->deterministic;
    c->group = params->shape.n_heads / params->shape.n_kv_heads;
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

    qyi_tier_close(cache);
    qyi_lanes_close(cache);
    qyi_home_far_close(cache);
    qyi_reuse_close(cache);
    qyi_reserve_free(cache);
    qyi_home_close(&cache->home);
    qy_free(mem, cache->home_layers);
    if (cache->policy && cache->params.policy->close) {
        cache->params.policy->close(cache->policy);
    }
    qy_free(mem, cache);
}

uint64_t qy_cache_bytes_for(const struct qy_cache *cache, uint64_t n_tokens)
{
    return qyi_layout_blocks(&cache->layout, n_tokens) * cache->layout.block_bytes;
}
