/* SPDX-License-Identifier: Apache-2.0 */
/* What happened: counters, times by stage, and what is in use. */
#include "offload/cache.h"

#include <string.h>

const char *qy_stage_name(enum qy_stage stage)
{
    switch (stage) {
    case QY_STAGE_APPEND:
        return "append";
    case QY_STAGE_ENCODE:
        return "encode";
    case QY_STAGE_PREPARE:
        return "prepare";
    case QY_STAGE_SELECT:
        return "select";
    case QY_STAGE_FETCH:
        return "fetch";
    case QY_STAGE_PUSH:
        return "push";
    case QY_STAGE_AHEAD:
        return "ahead";
    case QY_STAGE_WAIT:
        return "wait";
    case QY_STAGE_ATTEND:
        return "attend";
    case QY_STAGE_AUDIT:
        return "audit";
    case QY_STAGE_SEAL:
        return "seal";
    case QY_STAGE_COUNT:
        break;
    }
    return "?";
}

uint64_t qyi_stage_end(struct qy_cache *cache, enum qy_stage stage, uint64_t begin_ns,
                       uint32_t layer)
{
    const uint64_t now = qy_clock_ns();

    cache->stage_ns[stage] += now - begin_ns;
    qyi_trace_stage(cache, stage, begin_ns, now, layer);
    return now;
}

/* Rows in use on a discrete device: device blocks, and slots. */
static void tier_stats(const struct qy_cache *cache, struct qy_cache_stats *stats)
{
    const struct qyi_tier *t = &cache->tier;
    const struct qyi_layout *l = &cache->layout;
    const uint64_t blocks = t->plan.n_blocks - t->n_free;
    struct qy_stream_stats in;
    struct qy_stream_stats out;
    uint64_t slots = 0;

    for (uint32_t i = 0; t->residency && i < t->plan.n_sets; i++) {
        slots += qyi_residency_used(t->residency, i);
    }
    qy_stream_stats(t->in, &in);
    qy_stream_stats(t->out, &out);
    stats->device_bytes = slots * l->row_bytes + blocks * l->n_slabs * l->slab_bytes;
    stats->rows_pulled = t->counts.pulled;
    stats->rows_pushed = t->counts.pushed;
    stats->rows_prefetched = t->counts.ahead;
    stats->rows_prefetched_used = t->counts.ahead_used;
    stats->rows_guessed = t->counts.guessed;
    stats->rows_guessed_right = t->counts.guessed_right;
    stats->copy_failures = t->counts.failures;
    stats->rows_asked = t->counts.asked;
    stats->rows_found = t->counts.found;
    stats->to_device_bytes = in.bytes;
    stats->to_host_bytes = out.bytes;
    if (qyi_far_score_wanted(&cache->params)) { /* blocks at servers have theirs there alone */
        const uint64_t frames =
            qy_pool_total(cache->home.pool) - qy_pool_free_count(cache->home.pool);

        stats->index_bytes = frames * l->n_slabs * l->index_slab_bytes;
    }
    stats->index_reserved_bytes = t->plan.index_bytes + t->plan.map_bytes;
    stats->device_reserved_bytes = t->plan.slot_bytes + t->plan.block_bytes + t->plan.index_bytes +
                                   t->plan.stage_bytes + t->plan.map_bytes + t->plan.scratch_bytes;
}

static uint64_t home_token_bytes(const struct qyi_layout *l)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < l->n_layers; i++) {
        bytes += l->n_kv_heads * qyi_layout_home_row(l, i);
    }
    return bytes;
}

static void remote_stats(const struct qy_cache *cache, struct qy_cache_stats *stats)
{
    const struct qyi_home_far *d = &cache->far;
    const struct qyi_store_stats *done = qyi_store_stats(d->store);
    struct qy_node_checks checks;

    stats->remote_bytes = (uint64_t)(d->n_slots - d->n_free) * cache->layout.block_bytes;
    stats->remote_reads = done->reads;
    stats->remote_read_bytes = done->read_bytes;
    stats->remote_writes = done->writes;
    stats->remote_written_bytes = done->written_bytes;
    stats->remote_rows_pulled = done->rows;
    stats->remote_rows_pushed = done->attended_rows;
    stats->remote_pushed_bytes =
        done->attended_rows * sizeof(uint32_t) +
        done->attends * cache->group * (2 * cache->layout.head_dim + 1) * sizeof(float);
    stats->remote_scores = done->scores;
    stats->remote_failures = d->write_failures;
    stats->servers = qyi_servers_count(d->store);
    qy_node_checks(cache->servers.node, &checks);
    stats->remote_check_ns = checks.ns - d->checks.ns;
    stats->remote_check_bytes = checks.bytes - d->checks.bytes;
    stats->remote_damaged = checks.damaged - d->checks.damaged;
    stats->remote_again = checks.again - d->checks.again;
}

void qy_cache_server(const struct qy_cache *cache, uint32_t i, struct qy_cache_server *server)
{
    const struct qyi_store *store = cache->far.store;
    struct qyi_servers_stats counts;
    struct qy_peer_stats peers;

    *server = (struct qy_cache_server){.name = "", .state = ""};
    if (!store || !qyi_home_far_is_remote(&cache->params) || i >= qyi_servers_count(store)) {
        return;
    }
    const struct qy_peer *peer = qyi_servers_peer(store, i);
    qyi_servers_stats(store, i, &counts);
    qy_peer_stats(peer, &peers);
    *server = (struct qy_cache_server){.name = qy_peer_name(peer),
                                       .state = qy_peer_state_name(qy_peer_state(peer)),
                                       .draining = counts.draining,
                                       .block_bytes = cache->layout.block_bytes,
                                       .blocks = counts.blocks,
                                       .free_blocks = counts.free_blocks,
                                       .puts = counts.puts,
                                       .questions = counts.questions,
                                       .again = counts.again,
                                       .moved = counts.moved,
                                       .copied = counts.copied,
                                       .sent_bytes = peers.sent_bytes,
                                       .received_bytes = peers.received_bytes,
                                       .timeouts = peers.timeouts,
                                       .broken = peers.broken,
                                       .corrupt = peers.corrupt};
}

void qy_cache_chunks(const struct qy_cache *cache, struct qy_cache_chunks *chunks)
{
    const struct qyi_far_chunk *c = &cache->far.chunk;

    *chunks = (struct qy_cache_chunks){.can_push = c->n_places > 0,
                                       .pulled = c->counts.pulled,
                                       .pushed = c->counts.pushed,
                                       .failed = c->counts.failed,
                                       .rows_pulled = c->counts.rows_pulled,
                                       .rows_pushed = c->counts.rows_pushed,
                                       .pushed_bytes = c->counts.pushed_bytes,
                                       .measured = c->measured,
                                       .byte_ns = c->costs.byte_ns,
                                       .pair_ns = c->costs.pair_ns,
                                       .far_pair_ns = c->costs.far_pair_ns,
                                       .far_row_ns = c->costs.far_row_ns,
                                       .token_ns = c->costs.token_ns};
}

static void disk_stats(const struct qy_cache *cache, struct qy_cache_stats *stats)
{
    const struct qyi_home_far *d = &cache->far;
    const struct qyi_store_stats *file = qyi_store_stats(d->store);

    stats->disk_bytes = (uint64_t)(d->n_slots - d->n_free) * cache->layout.block_bytes;
    stats->disk_reserved_bytes = d->store->bytes;
    stats->disk_reads = file->reads;
    stats->disk_read_bytes = file->read_bytes;
    stats->disk_writes = file->writes;
    stats->disk_written_bytes = file->written_bytes;
    stats->disk_failures = d->write_failures;
    stats->disk_uring = file->uring;
    stats->disk_direct = file->direct;
}

void qy_cache_stats(const struct qy_cache *cache, struct qy_cache_stats *stats)
{
    const struct qyi_layout *l = &cache->layout;
    const uint64_t index_bytes = l->n_slabs * l->index_slab_bytes;
    const uint32_t total = qy_pool_total(cache->home.pool);
    const uint32_t frames = total - qy_pool_free_count(cache->home.pool);
    const uint32_t used = cache->home.n_ids - qyi_home_free_ids(&cache->home);

    *stats = (struct qy_cache_stats){
        .attended_rows = cache->counts.attended_rows,
        .total_rows = cache->counts.total_rows,
        .sparse_attended_rows = cache->counts.sparse_attended_rows,
        .sparse_total_rows = cache->counts.sparse_total_rows,
        .index_read_bytes = cache->counts.index_read_bytes,
        .read_bytes = cache->counts.read_bytes,
        .dense_read_bytes = cache->counts.dense_read_bytes,
        .host_bytes = frames * (l->block_bytes - index_bytes),
        .index_bytes = used * index_bytes,
        .token_bytes = l->row_bytes * l->n_slabs,
        .home_token_bytes = home_token_bytes(l),
        .reserved_bytes = (uint64_t)total * qy_pool_block_bytes(cache->home.pool),
        .host_peak_bytes = qy_pool_peak(cache->home.pool) * (uint64_t)l->block_bytes,
        .index_reserved_bytes = (uint64_t)cache->home.n_ids * index_bytes,
        .blocks_used = used,
        .blocks_total = cache->home.n_ids,
        .sequences = cache->n_open,
    };
    if (cache->tier.present) {
        tier_stats(cache, stats);
    }
    if (cache->far.store && qyi_home_far_is_remote(&cache->params)) {
        remote_stats(cache, stats);
    } else if (qyi_home_far_is_remote(&cache->params)) {
        stats->servers_idle = cache->servers.n;
    } else if (cache->far.store) {
        disk_stats(cache, stats);
    }
    memcpy(stats->stage_ns, cache->stage_ns, sizeof(stats->stage_ns));
}

void qy_cache_layer_stats(const struct qy_cache *cache, uint32_t layer,
                          struct qy_layer_stats *stats)
{
    *stats = (struct qy_layer_stats){0};
    if (cache->tier.present && layer < cache->layout.n_layers) {
        const struct qyi_tier_counts *c = &cache->tier.layers[layer];

        *stats = (struct qy_layer_stats){
            .rows_asked = c->asked,
            .rows_found = c->found,
            .rows_pulled = c->pulled,
            .rows_pushed = c->pushed,
            .pulled_bytes = c->pulled * qyi_layout_home_row(&cache->layout, layer)};
    }
}

void qy_cache_plan(const struct qy_cache *cache, struct qy_cache_plan *plan)
{
    const struct qyi_plan_costs *costs = &cache->tier.push.params.costs;
    const struct qyi_plan_made *made = &cache->tier.plans;

    *plan = (struct qy_cache_plan){
        .mode = (enum qy_plan_mode)cache->params.settings.plan_mode,
        .measured = qyi_plan_measured(cache),
        .row_bytes = (uint32_t)qyi_layout_home_row(&cache->layout, cache->layout.n_layers / 2),
        .plans = made->plans,
        .items = made->items,
        .items_pulled = made->n_pull,
        .items_pushed = made->n_push,
        .rows_pulled = made->pull_rows,
        .rows_pushed = made->push_rows};
    if (plan->measured) {
        plan->link_byte_ns = costs->link_byte_ns;
        plan->link_copy_ns = costs->link_copy_ns;
        plan->link_row_ns = costs->link_row_ns;
        plan->push_ns = costs->push_ns;
        plan->push_row_ns = costs->push_row_ns;
        plan->pull_row_ns = costs->pull_row_ns;
        plan->reuse = costs->reuse;
        if (cache->tier.push.far.mode == QY_PLAN_AUTO) {
            costs = &cache->tier.push.far.costs;
            plan->far_row_ns = costs->link_row_ns;
            plan->far_push_ns = costs->push_ns;
            plan->far_push_row_ns = costs->push_row_ns;
        }
        plan->pulls_ns = made->pull_ns;
        plan->pushes_ns = made->push_ns;
    }
}

void qy_cache_audit(const struct qy_cache *cache, uint32_t layer, struct qy_audit_sums *sums)
{
    *sums = (struct qy_audit_sums){0};
    if (cache->audit.sums && layer < cache->layout.n_layers) {
        *sums = cache->audit.sums[layer];
    }
}

void qy_cache_stats_reset(struct qy_cache *cache)
{
    if (cache->audit.sums) {
        memset(cache->audit.sums, 0, cache->layout.n_layers * sizeof(*cache->audit.sums));
    }
    if (cache->tier.present) {
        cache->tier.counts = (struct qyi_tier_counts){0};
        cache->tier.plans = (struct qyi_plan_made){0};
        memset(cache->tier.layers, 0, cache->layout.n_layers * sizeof(*cache->tier.layers));
        qy_stream_stats_reset(cache->tier.in);
        qy_stream_stats_reset(cache->tier.out);
    }
    if (cache->far.store) {
        *qyi_store_stats(cache->far.store) = (struct qyi_store_stats){0};
        cache->far.write_failures = 0;
        if (qyi_home_far_is_remote(&cache->params)) {
            qy_node_checks(cache->servers.node, &cache->far.checks);
        }
    }
    cache->counts = (struct qyi_counts){0};
    memset(cache->stage_ns, 0, sizeof(cache->stage_ns));
}

const char *qy_cache_home_codec(const struct qy_cache *cache)
{
    const char *text = cache->params.settings.home_codec;

    return *text == '\0' ? "f16" : text;
}

void qy_cache_cost(const struct qy_cache *cache, struct qy_cache_cost *cost)
{
    *cost = cache->cost;
}
