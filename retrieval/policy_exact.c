/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `exact`: scores every key and keeps the best of the budget. It has no index and skips no
 * work; it says how good a selection of that size can be, and is the oracle of the others.
 *
 * For one (sequence, KV head): scores = scale * q . k for all n tokens, softmax over all n for each
 * query head, the mean over the heads (or as retrieval.pooling says), then the k largest of
 * lo <= id < hi.
 */
#include "retrieval/policies.h"
#include "retrieval/rank.h"

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_rank rank;
};

static enum qy_status exact_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    const int pooling = qyi_policy_settings(params)->pooling;

    if (params->argument && params->argument[0] != '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy 'exact:%.60s': 'exact' takes no argument; leave out what "
                            "follows it",
                            params->argument);
    }
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'exact': out of memory at open");
    }
    p->params = *params;
    p->rank = (struct qyi_rank){.params = &p->params,
                                .first = &qyi_stage_exact,
                                .pooling = pooling == QY_POOLED_AUTO ? QY_POOLED_SUM : pooling};
    *policy = p;
    return QY_OK;
}

static void exact_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qy_free(&mem, policy);
    }
}

static size_t exact_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    return qyi_rank_scratch(&policy->rank, n_items, max_n);
}

static enum qy_status exact_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    return qyi_rank_select(&policy->rank, items, n_items, arena);
}

const struct qy_policy_ops qyi_policy_exact = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "exact",
    .summary = "scores every key and keeps the best of the budget: the most that a budget can give",
    .caps = {.index_shareable = 1, .reads_all_keys = 1},
    .open = exact_open,
    .close = exact_close,
    .scratch = exact_scratch,
    .select = exact_select,
};
