/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that stay when their device block goes. A block that has become full goes home, and its device
 * block is given back; but the window still reaches into it, and what was chosen of late will be chosen
 * again. Pulled back, all these rows would be missed in one step, and would cross a link that they
 * crossed just before. So the block's rows that were asked for in the last HOT_STEPS steps are copied
 * into slots within the device.
 *
 * chosen: 16 steps; rows that are asked for more seldom are as likely to be missed as any other.
 */
#include "offload/cache.h"

enum { HOT_STEPS = 16 };

uint16_t *qyi_tier_asked(const struct qy_sequence *seq, uint32_t layer, uint32_t head, uint32_t b)
{
    const struct qyi_layout *l = &seq->cache->layout;
    const size_t slab = ((size_t)seq->slot * l->n_layers + layer) * l->n_kv_heads + head;

    return seq->cache->tier.asked +
           (slab * QYI_ASKED_BLOCKS + b % QYI_ASKED_BLOCKS) * l->block_tokens;
}

/* Steps on a small clock. It begins late enough for the zeroes of a new array to be long ago; what it
 * takes for new after it went round gets a slot for nothing, no more. */
uint16_t qyi_tier_now(const struct qy_cache *cache)
{
    return (uint16_t)(cache->n_steps + (uint64_t)2 * HOT_STEPS);
}

/* Ids of the hot rows of (layer, head) in block b; at most `most`. */
static uint32_t list_hot(const struct qy_sequence *seq, uint32_t layer, uint32_t head, uint32_t b,
                         uint32_t most, uint32_t *ids)
{
    const struct qyi_layout *l = &seq->cache->layout;
    const uint16_t *asked = qyi_tier_asked(seq, layer, head, b);
    const uint16_t now = qyi_tier_now(seq->cache);
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->block_tokens && n < most; i++) {
        if ((uint16_t)(now - asked[i]) <= HOT_STEPS) {
            ids[n++] = (b << l->shift) + i;
        }
    }
    return n;
}

/* Slots for the hot rows of (layer, head), as an item of a gather. 0: there are none. */
static uint32_t place_hot(struct qy_sequence *seq, uint32_t layer, uint32_t head, uint32_t b,
                          struct qy_gather_item *item)
{
    struct qy_cache *cache = seq->cache;
    struct qyi_tier *t = &cache->tier;
    const size_t at = (size_t)head * cache->ids_capacity; /* no step runs: the lists are free */
    const uint32_t set = qyi_sequence_set(seq, layer);
    uint32_t *ids = t->pull_ids + at;
    uint32_t *slots = t->pull_slots + at;
    uint32_t *misses = t->misses + at;
    const uint32_t n = list_hot(seq, layer, head, b, cache->ids_capacity, ids);
    const uint32_t n_missed = qyi_residency_find(t->residency, set, head, ids, n, slots, misses);

    if (n_missed == 0 ||
        qyi_residency_take(t->residency, set, head, ids, misses, n_missed, slots) != QY_OK) {
        return 0; /* no room beside the running lists: pulled when asked for */
    }
    for (uint32_t i = 0; i < n_missed; i++) {
        ids[i] = ids[misses[i]];
        slots[i] = slots[misses[i]];
    }
    *item = (struct qy_gather_item){.rows = qyi_sequence_rows(seq, layer, head),
                                    .ids = ids,
                                    .slots = slots,
                                    .n = n_missed,
                                    .stamp = qyi_tier_stamp(seq, layer, head),
                                    .stamps = t->stamps};
    item->rows.blocks = seq->device; /* where they are not coded */
    item->rows.codec = NULL;
    item->rows.n_coded = 0;
    return 1;
}

void qyi_tier_keep_hot(struct qy_sequence *seq, uint32_t b)
{
    struct qy_cache *cache = seq->cache;
    struct qyi_tier *t = &cache->tier;
    const struct qyi_layout *l = &cache->layout;

    if (!t->residency || (cache->cuts_lists && cache->home_layers)) {
        return; /* coded rows differ from these: answers would depend on what was evicted */
    }
    for (uint32_t layer = 0; layer < l->n_layers; layer++) {
        uint32_t n = 0;

        for (uint32_t h = 0; h < l->n_kv_heads; h++) {
            n += place_hot(seq, layer, h, b, &t->gathers[n]);
        }
        if (qy_device_gather(cache->dev, t->gathers, n, t->rows) != QY_OK) {
            qyi_residency_forget(t->residency, qyi_sequence_set(seq, layer), b << l->shift);
        }
    }
}
