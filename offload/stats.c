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
                       uint32_t layer, uint32_t value)
{
    const uint64_t now = qy_clock_ns();

    cache->stage_ns[stage] += now - begin_ns;
    qy_trace_span(cache->rt->trace, 0, qy_stage_name(stage), begin_ns, now, layer, value);
    return now;
}

void qy_cache_stats(const struct qy_cache *cache, struct qy_cache_stats *stats)
{
    const struct qyi_layout *l = &cache->layout;
    const uint32_t total = qy_pool_total(cache->home.pool);
    const uint32_t used = total - qy_pool_free_count(cache->home.pool);
    const uint64_t index = (uint64_t)used * l->n_slabs * l->index_slab_bytes;

    *stats = (struct qy_cache_stats){
        .attended_rows = cache->counts.attended_rows,
        .total_rows = cache->counts.total_rows,
        .sparse_attended_rows = cache->counts.sparse_attended_rows,
        .sparse_total_rows = cache->counts.sparse_total_rows,
        .index_read_bytes = cache->counts.index_read_bytes,
        .read_bytes = cache->counts.read_bytes,
        .dense_read_bytes = cache->counts.dense_read_bytes,
        .host_bytes = (uint64_t)used * l->block_bytes - index,
        .index_bytes = index,
        .reserved_bytes = (uint64_t)total * qy_pool_block_bytes(cache->home.pool),
        .blocks_used = used,
        .blocks_total = total,
        .sequences = cache->n_open,
    };
    memcpy(stats->stage_ns, cache->stage_ns, sizeof(stats->stage_ns));
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
    cache->counts = (struct qyi_counts){0};
    memset(cache->stage_ns, 0, sizeof(cache->stage_ns));
}

void qy_cache_cost(const struct qy_cache *cache, struct qy_cache_cost *cost)
{
    *cost = cache->cost;
}
