/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a layer that concern the choice of tokens: asking the policy, and measuring how good
 * its answer was (retrieval.audit_rate). Items of a slice are [kv_head], as in step_layer.c. */
#include "offload/cache.h"

#include <math.h>

struct qy_select_item qyi_select_item(const struct qy_cache *cache, uint32_t layer, uint32_t slice,
                                      uint32_t h, const float *q)
{
    const struct qyi_step *step = &cache->step;
    const struct qyi_slice *s = &step->slices[slice];
    const struct qyi_selection reach = qyi_slice_reach(cache, s, layer);
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + h;

    return (struct qy_select_item){.q = q,
                                   .rows = qyi_sequence_rows(s->seq, layer, h),
                                   .index = qyi_sequence_index(s->seq, layer, h),
                                   .group = cache->group,
                                   .n = reach.n,
                                   .lo = reach.lo,
                                   .hi = reach.hi,
                                   .k = reach.k,
                                   .mass = reach.mass,
                                   .layer = layer,
                                   .kv_head = h,
                                   .sequence = s->seq->slot,
                                   .ids = qyi_step_list(cache, slice, h) + reach.lo,
                                   .n_ids = &step->n_chosen[place]};
}

/* No estimate of what the list of `place` leaves out, until the policy writes one. */
static void no_estimate(const struct qy_cache *cache, size_t place)
{
    float *lse = qyi_part_lse(cache, place, QYI_PART_ESTIMATE);

    for (uint32_t g = 0; g < cache->group; g++) {
        lse[g] = -INFINITY;
    }
}

/* Gives the item its place for an estimate. */
static void offer_part(const struct qy_cache *cache, size_t place, struct qy_select_item *item)
{
    item->part_out = qyi_part_out(cache, place, QYI_PART_ESTIMATE);
    item->part_lse = qyi_part_lse(cache, place, QYI_PART_ESTIMATE);
    no_estimate(cache, place);
}

/* Completes the lists of a layer with sinks and window, and shows them to who watches.
 * QY_ERR_INVALID: what the policy wrote is no list. */
static enum qy_status complete_lists(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const struct qyi_step *step = &cache->step;
    const struct qy_cache_params *p = &cache->params;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &step->slices[i];
        struct qyi_selection reach = qyi_slice_reach(cache, s, layer);

        reach.most += qyi_reuse_more(&cache->params);
        for (uint32_t h = 0; reach.reach != QYI_REACH_ALL && h < cache->layout.n_kv_heads; h++) {
            const size_t place = (size_t)i * cache->layout.n_kv_heads + h;
            uint32_t *ids = qyi_step_list(cache, i, h);
            const uint32_t n = qyi_selection_merge(&reach, step->n_chosen[place], ids);

            if (n == 0) {
                return QY_ERR_INVALID;
            }
            step->n_listed[place] = n;
            if (cache->last.lists && reach.reach == QYI_REACH_SELECT) {
                qyi_reuse_keep(cache, layer, i, h);
            }
            if (p->on_selection) {
                p->on_selection(p->selection_ctx, s->seq->slot, layer, h, ids, n);
            }
        }
    }
    return QY_OK;
}

enum qy_status qyi_layer_select(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_step *step = &cache->step;
    uint32_t n = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const int selects =
            qyi_slice_reach(cache, &step->slices[i], layer).reach == QYI_REACH_SELECT;

        for (uint32_t h = 0; h < cache->layout.n_kv_heads; h++) {
            const size_t place = (size_t)i * cache->layout.n_kv_heads + h;

            step->n_chosen[place] = 0;
            if (!selects) {
                continue;
            }
            if (qyi_reuse_take(cache, layer, i, h)) {
                if (cache->params.policy->caps.partial) {
                    no_estimate(cache, place);
                }
                continue;
            }
            step->selects[n] =
                qyi_select_item(cache, layer, i, h, qyi_group_q(cache, qkv, &step->slices[i], h));
            if (cache->params.policy->caps.partial) {
                offer_part(cache, place, &step->selects[n]);
            }
            n++;
        }
    }
    enum qy_status st = QY_OK;

    if (n > 0 && cache->far.score.n_places > 0) {
        st = qyi_far_score_select(cache, step->selects, n);
    } else if (n > 0) {
        st = cache->params.policy->select(cache->policy, step->selects, n, &cache->arena);
    }
    return st == QY_OK ? complete_lists(cache, layer) : st;
}

/* Is this one of the share to look at? Repeatable: the same run looks at the same ones. */
static int is_audited(const struct qy_cache *cache, uint32_t layer, uint32_t slot, uint32_t h)
{
    const uint64_t key[2] = {((uint64_t)layer << 32) | h, slot};
    const uint64_t hash = qy_checksum(key, sizeof(key), cache->n_steps);

    return (double)(hash >> 11) * 0x1p-53 < cache->audit.rate;
}

enum qy_status qyi_layer_audit(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const struct qyi_step *step = &cache->step;
    struct qyi_audit *audit = &cache->audit;
    uint32_t n = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &step->slices[i];

        if (qyi_slice_reach(cache, s, layer).reach == QYI_REACH_ALL) {
            continue;
        }
        for (uint32_t h = 0; h < cache->layout.n_kv_heads; h++) {
            if (!is_audited(cache, layer, s->seq->slot, h)) {
                continue;
            }
            audit->select[n] = qyi_select_item(cache, layer, i, h, qyi_group_q(cache, qkv, s, h));
            audit->items[n] = (struct qy_audit_item){
                .select = &audit->select[n],
                .ids = qyi_step_list(cache, i, h),
                .n_ids = step->n_listed[(size_t)i * cache->layout.n_kv_heads + h]};
            n++;
        }
    }
    if (n == 0) {
        return QY_OK;
    }
    return qy_audit(cache->dev, audit->items, n, cache->params.scale, &cache->arena,
                    &audit->sums[layer]);
}
