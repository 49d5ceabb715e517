/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The estimation zone of a2ats+: tokens that were not chosen are attended page by page, each page as
 * one row. Its weight is the sum of exp of its tokens' scores by codes, its value their mean. The
 * caller merges this with attention over what was chosen. After RetroInfer's estimation zone
 * (arXiv:2505.02922, sec. 4.2), which has a row per cluster of keys.
 *
 * chosen: pages are runs of tokens in order: their means need no clusters and are kept up at append.
 *   Scores are each token's own, so that only values are averaged.
 * chosen: the chosen are taken out of weights and means alike.
 */
#include "retrieval/policies.h"
#include "retrieval/policy_a2ats.h"
#include "retrieval/rank_pass.h"

enum { LEAST_PAGE = 16 };

enum qy_status qyi_a2ats_open_values(struct qyi_a2ats *a, struct qy_error *err)
{
    const struct qy_policy_params *p = a->params;
    const struct qy_retrieval_settings *settings = qyi_policy_settings(p);
    const int64_t page = settings->estimate_page;

    if (settings->first_stage != QY_STAGE1_PQ4) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.estimate 'means': the first stage gives no weights for it; "
                            "only retrieval.first_stage 'pq' is accepted; set that, or "
                            "retrieval.estimate=off");
    }
    if (page < LEAST_PAGE || (page & (page - 1)) != 0 || page > (int64_t)p->block_tokens) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "retrieval.estimate_page '%lld': a power of two from %d up to "
                            "cache.block_tokens (%u) is accepted; pages do not reach over blocks",
                            (long long)page, LEAST_PAGE, p->block_tokens);
    }
    a->page = (uint32_t)page;
    a->value_bytes = qy_value_slab_bytes(p->head_dim, a->page, p->block_tokens);
    return QY_OK;
}

static struct qy_slab values_of(const struct qyi_a2ats *a, struct qy_slab index)
{
    index.offset += a->code_bytes + a->key_bytes;
    return index;
}

enum qy_status qyi_a2ats_append_values(const struct qyi_a2ats *a,
                                       const struct qy_append_view *views, uint32_t n_views,
                                       struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_value_item *items = qyi_rank_take(arena, n_views * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_views; i++) {
        items[i] = (struct qy_value_item){.rows = views[i].rows,
                                          .first = views[i].first,
                                          .n = views[i].n,
                                          .page = a->page,
                                          .values = values_of(a, views[i].index)};
    }
    const enum qy_status st = qy_device_value_append(a->params->dev, items, n_views);
    qy_arena_rewind(arena, mark);
    return st;
}

enum qy_status qyi_a2ats_estimate(const struct qyi_a2ats *a, const struct qy_select_item *items,
                                  uint32_t n_items, struct qy_arena *arena)
{
    const struct qy_policy_params *p = a->params;
    const size_t mark = qy_arena_mark(arena);
    struct qy_code_estimate_item *estimates = qyi_rank_take(arena, n_items * sizeof(*estimates));
    uint32_t n = 0;

    if (!estimates) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_select_item *it = &items[i];

        if (!it->part_out) {
            continue;
        }
        estimates[n++] = (struct qy_code_estimate_item){
            .quantizer = &a->quantizers[it->layer * p->n_kv_heads + it->kv_head],
            .q = it->q,
            .codes = it->index,
            .values = values_of(a, it->index),
            .rows = it->rows,
            .ids = it->ids,
            .first = it->lo,
            .n = it->hi - it->lo,
            .n_ids = *it->n_ids,
            .group = it->group,
            .page = a->page,
            .n_tokens = it->n,
            .out = it->part_out,
            .lse = it->part_lse};
    }
    const enum qy_status st = qy_device_code_estimate(p->dev, estimates, n, p->scale, arena);
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qyi_a2ats_estimate_scratch(const struct qyi_a2ats *a, uint32_t n_items, uint32_t max_n)
{
    const struct qy_policy_params *p = a->params;
    const size_t append = qyi_rank_pad(n_items * sizeof(struct qy_value_item));
    const size_t estimate =
        qyi_rank_pad(n_items * sizeof(struct qy_code_estimate_item)) +
        qy_device_code_estimate_scratch(p->dev, max_n, a->page, &a->quantizers[0],
                                        p->n_heads / p->n_kv_heads);

    return (append > estimate ? append : estimate) + QYI_RANK_ALIGN;
}
