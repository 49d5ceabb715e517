/* SPDX-License-Identifier: Apache-2.0 */
/* How much the device tier has of what: slots, device blocks, index; and the refusals with numbers. See
 * tier.h. */
#include "offload/cache.h"
#include "offload/sizing.h"

enum { ALIGN = 64, SIZE_TEXT = 32 };

/* chosen: of a device without a size of its own. A step finds .91 to .95 of the rows it chooses where there
 * are slots for four times as many (README, "A device with little memory"); more of them would hold on the
 * device what is to lie elsewhere. */
enum { AUTO_TIMES = 4 };

/* Device blocks that one step may need beside what sequences keep. */
static uint32_t step_blocks(const struct qy_cache *cache)
{
    const uint32_t tokens = cache->layout.block_tokens;

    return (cache->params.max_step_tokens + tokens - 1) / tokens + 1;
}

struct qyi_residency_params qyi_tier_residency(const struct qy_cache *cache,
                                               const struct qyi_tier_plan *plan)
{
    return (struct qyi_residency_params){.n_sets = plan->n_sets,
                                         .n_heads = cache->layout.n_kv_heads,
                                         .max_tokens = cache->params.max_tokens,
                                         .slots_per_set = plan->slots_per_set,
                                         .eviction =
                                             (enum qy_eviction)cache->params.settings.eviction};
}

static uint64_t plan_bytes(const struct qyi_tier_plan *plan)
{
    return plan->slot_bytes + plan->block_bytes + plan->index_bytes + plan->stage_bytes +
           plan->map_bytes + plan->scratch_bytes + (size_t)4 * ALIGN;
}

static void set_counts(const struct qy_cache *cache, uint64_t slots, uint64_t keep,
                       struct qyi_tier_plan *plan)
{
    const struct qyi_layout *l = &cache->layout;
    const uint64_t most = cache->max_blocks;

    plan->slots_per_set = (uint32_t)slots;
    plan->slot_bytes = (size_t)plan->n_sets * slots * l->row_bytes;
    plan->keep = (uint32_t)(keep < most ? keep : most);
    plan->n_blocks = cache->params.max_sequences * plan->keep + 2 * step_blocks(cache);
    plan->block_bytes = plan->n_blocks * qyi_tier_block_bytes(l);
    const struct qyi_residency_params r = qyi_tier_residency(cache, plan);
    plan->map_bytes = slots > 0 ? qyi_residency_bytes(&r) : 0;
}

/* What there is, by its name and size: it does not hold the least plan. */
static enum qy_status too_small(const struct qy_cache *cache, const struct qyi_tier_plan *plan,
                                const char *what, uint64_t there, const char *mend,
                                struct qy_error *err)
{
    char text[6][SIZE_TEXT];

    return qy_error_set(
        err, QY_ERR_NOMEM,
        "%s '%s': %u sequences of %u tokens need at least %s (%llu bytes: rows %s, open blocks %s, "
        "index %s, scratch of a step %s); %s, or lower --batch, --ctx or the budget",
        what, qy_format_size(there, text[0], SIZE_TEXT), cache->params.max_sequences,
        cache->params.max_tokens, qy_format_size(plan_bytes(plan), text[1], SIZE_TEXT),
        (unsigned long long)plan_bytes(plan), qy_format_size(plan->slot_bytes, text[2], SIZE_TEXT),
        qy_format_size(plan->block_bytes + plan->stage_bytes, text[3], SIZE_TEXT),
        qy_format_size(plan->index_bytes + plan->map_bytes, text[4], SIZE_TEXT),
        qy_format_size(plan->scratch_bytes, text[5], SIZE_TEXT), mend);
}

/* Bytes that a plan may take: what was given, or what the spec says, or (host-discrete:auto) AUTO_TIMES. */
static enum qy_status room_for(const struct qy_cache *cache, const struct qyi_tier_plan *least,
                               uint64_t *room, struct qy_error *err)
{
    const uint64_t given = cache->params.settings.device_bytes;
    const uint64_t frames =
        (uint64_t)qy_pool_total(cache->home.pool) * qy_pool_block_bytes(cache->home.pool);
    struct qy_device_memory device;
    struct qy_memory_info host;

    qy_device_memory(cache->dev, &device);
    *room = given > 0 ? given : device.limit;
    if (*room > 0) {
        return plan_bytes(least) > *room
                   ? too_small(cache, least, "cache.device_bytes", *room, "raise it", err)
                   : QY_OK;
    }
    qy_memory_read(&host);
    const uint64_t usable = host.usable > frames ? host.usable - frames : 0; /* not touched yet */
    if (plan_bytes(least) > usable) {
        return too_small(cache, least, "memory usable beside cache.host_bytes", usable,
                         "free memory, lower cache.host_bytes", err);
    }
    *room = plan_bytes(least) + (AUTO_TIMES - 1) * (uint64_t)least->slot_bytes;
    *room = *room < usable ? *room : usable;
    return QY_OK;
}

/* Slots take what is left of the room, and of cache.index_bytes: their bookkeeping counts too. */
static void give_slots(const struct qy_cache *cache, uint64_t room, uint64_t most,
                       struct qyi_tier_plan *plan)
{
    const uint64_t for_index = cache->params.settings.index_bytes;
    const uint64_t set_bytes = plan->n_sets * cache->layout.row_bytes;
    const uint64_t least = plan->slots_per_set;
    uint64_t slots = least + (room - plan_bytes(plan)) / set_bytes;

    slots = slots < most ? slots : most;
    set_counts(cache, slots, 1, plan);
    while (plan_bytes(plan) > room) {
        slots -= (plan_bytes(plan) - room) / (2 * set_bytes) + 1;
        set_counts(cache, slots, 1, plan);
    }
    while (for_index > 0 && plan->index_bytes + plan->map_bytes > for_index && slots > least) {
        slots -= (slots - least + 1) / 2;
        set_counts(cache, slots, 1, plan);
    }
}

enum qy_status qyi_tier_size(const struct qy_cache *cache, size_t scratch_bytes,
                             struct qyi_tier_plan *plan, struct qy_error *err)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qy_cache_params *p = &cache->params;
    const uint64_t lists = cache->ids_capacity;
    const uint64_t most = (uint64_t)l->n_kv_heads * p->max_tokens;
    const uint64_t least = l->n_kv_heads * lists;
    const size_t index_blocks =
        qyi_far_score_wanted(p) ? qy_pool_total(cache->home.pool) : cache->home.n_ids;
    uint64_t room;

    *plan = (struct qyi_tier_plan){.n_sets = p->max_sequences * l->n_layers,
                                   .segment_blocks = l->block_tokens < QYI_SEGMENT_TOKENS
                                                         ? QYI_SEGMENT_TOKENS / l->block_tokens
                                                         : 1,
                                   .index_bytes = index_blocks * l->n_slabs * l->index_slab_bytes,
                                   .scratch_bytes = scratch_bytes};
    plan->stage_bytes = (size_t)QYI_STAGES * plan->segment_blocks * l->n_kv_heads * l->slab_bytes;
    set_counts(cache, least < most ? least : most, 1, plan);
    enum qy_status st = room_for(cache, plan, &room, err);
    if (st == QY_OK) {
        st = qyi_size_index(p->settings.index_bytes, plan->index_bytes, plan->map_bytes,
                            p->policy->name, err);
    }
    if (st != QY_OK) {
        return st;
    }
    if (lists > 0) { /* what is left: slots for who chooses, whole blocks for who does not */
        give_slots(cache, room, most, plan);
    } else {
        const uint64_t left = room - plan_bytes(plan);

        set_counts(cache, 0, 1 + left / (p->max_sequences * qyi_tier_block_bytes(l)), plan);
    }
    if (plan->slot_bytes / l->row_bytes + (uint64_t)plan->n_blocks * l->n_slabs * l->block_tokens >
        INT32_MAX) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache.device_bytes: more than %d rows on the device; lower it",
                            INT32_MAX);
    }
    return QY_OK;
}
