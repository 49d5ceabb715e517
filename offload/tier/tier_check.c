/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check of debug builds: each row that is pulled leaves a stamp of (sequence, its generation, layer,
 * KV head, token) for its slot, after its bytes; before attention every slot of a list must bear the
 * stamp of the row that the list means. So a row that has not come yet, went to another slot, or was
 * left behind by a sequence that is closed, does not go unseen.
 */
#include "offload/cache.h"

#include <assert.h>

uint64_t qyi_tier_stamp(const struct qy_sequence *seq, uint32_t layer, uint32_t head)
{
    return ((uint64_t)seq->generation << 48) ^ ((uint64_t)seq->slot << 32) ^
           ((uint64_t)layer << 16) ^ head;
}

static void check_list(const struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head)
{
    const struct qyi_tier *t = &cache->tier;
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const uint32_t *ids = qyi_step_list(cache, slice, head);
    const uint32_t *numbers = qyi_tier_numbers(cache, slice, head);
    const uint64_t stamp = qyi_tier_stamp(seq, layer, head);
    const uint32_t end = seq->device_from << cache->layout.shift; /* of rows in slots */
    const uint32_t n = cache->step.n_listed[(size_t)slice * cache->layout.n_kv_heads + head];

    for (uint32_t i = 0; i < n && ids[i] < end; i++) {
        assert(t->stamps[numbers[i]] == qy_row_stamp(stamp, ids[i]));
    }
    (void)t;
    (void)numbers;
    (void)stamp;
}

void qyi_tier_check(const struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);

    for (uint32_t i = now->begin; cache->tier.stamps && i < now->end; i++) {
        const struct qyi_slice *s = &cache->step.slices[i];

        if (qyi_slice_lists(cache, s, layer)) {
            for (uint32_t h = 0; h < cache->layout.n_kv_heads; h++) {
                if (!qyi_pushes(&cache->tier, (size_t)i * cache->layout.n_kv_heads + h)) {
                    check_list(cache, layer, i, h);
                }
            }
        }
    }
}
