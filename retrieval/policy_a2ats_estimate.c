/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The estimation zone of a2ats+: each query head draws a few of the tokens that were not chosen, by
 * weights that the codes of the first stage give, and their values stand for all of them. The caller
 * merges this with attention over what was chosen. Drawing by weight is MagicPIG's (Chen et al. 2024,
 * arXiv:2410.16179), whose weights come of hash collisions.
 *
 * chosen: values drawn, not means of them. The mean values of pages of 16 to 128 tokens, as in
 *   RetroInfer's estimation zone (arXiv:2505.02922) but over tokens in order, lose what ties values to
 *   weights: SmolLM2-135M's divergence from dense attention grew threefold, where draws halved it.
 *   They need no index bytes either.
 * chosen: weights of the first stage after a rerank too, though it leaves those that the first stage
 *   took for better than they are: there an estimate made the divergence larger (.015 to .025).
 * chosen: draws at equal steps: nothing random, and of tokens side by side as many as their weight
 *   says, but for one.
 */
#include "retrieval/policies.h"
#include "retrieval/policy_a2ats.h"
#include "retrieval/rank_pass.h"

enum qy_status qyi_a2ats_open_estimate(struct qyi_a2ats *a, struct qy_error *err)
{
    const struct qy_retrieval_settings *settings = qyi_policy_settings(a->params);

    if (settings->first_stage != QY_STAGE1_PQ4) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "retrieval.estimate '%lld': the first stage gives no weights to draw by; "
            "only retrieval.first_stage 'pq' is accepted; set that, or "
            "retrieval.estimate=0",
            (long long)settings->estimate);
    }
    a->samples = (uint32_t)settings->estimate;
    return QY_OK;
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

        if (it->part_out) {
            estimates[n++] = (struct qy_code_estimate_item){
                .quantizer = &a->quantizers[it->layer * p->n_kv_heads + it->kv_head],
                .q = it->q,
                .codes = it->index,
                .rows = it->rows,
                .ids = it->ids,
                .first = it->lo,
                .n = it->hi - it->lo,
                .n_ids = *it->n_ids,
                .group = it->group,
                .samples = a->samples,
                .out = it->part_out,
                .lse = it->part_lse};
        }
    }
    const enum qy_status st = qy_device_code_estimate(p->dev, estimates, n, p->scale, arena);
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qyi_a2ats_estimate_scratch(const struct qyi_a2ats *a, uint32_t n_items, uint32_t max_n)
{
    const struct qy_policy_params *p = a->params;

    return qyi_rank_pad(n_items * sizeof(struct qy_code_estimate_item)) + QYI_RANK_ALIGN +
           qy_device_code_estimate_scratch(p->dev, max_n, a->samples, &a->quantizers[0],
                                           p->n_heads / p->n_kv_heads);
}
