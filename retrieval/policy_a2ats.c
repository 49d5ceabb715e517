/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `a2ats`: He et al. 2025, "A2ATS: Retrieval-Based KV Cache Reduction via Windowed Rotary
 * Position Embedding and Query-Aware Vector Quantization", arXiv:2502.12665, and its code.
 *
 * Index: one code per token and KV head, of the key before RoPE, by a frozen codebook whose words
 * minimise the error of q . k (eq. 13 to 18). Select: each query head, turned to one far distance
 * (eq. 12), scores all tokens by a table of its products with the words; each takes the best of its
 * budget, and the group attends to the union. Attention itself is exact, by true positions.
 *
 * chosen: the window that is always attended is cache.window; a token behind it that is still
 *   nearer than retrieval.wrope_window is scored by its key at its true position (eq. 11).
 * chosen: a budget by mass takes its cap: the union knows no mass.
 * differs: retrieval.pooling sum or max takes one budget per KV head by pooled softmax instead.
 */
#include "retrieval/policy_a2ats.h"
#include "retrieval/policies.h"

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_a2ats a2ats;
    struct qyi_rank rank;
};

static void a2ats_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qyi_a2ats_close(&policy->a2ats);
        qy_free(&mem, policy);
    }
}

static enum qy_status a2ats_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    const int pooling = qyi_policy_settings(params)->pooling;

    if (params->argument && params->argument[0] != '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy 'a2ats:%.60s': 'a2ats' takes no argument; leave out what "
                            "follows it",
                            params->argument);
    }
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'a2ats': out of memory at open");
    }
    p->params = *params;
    p->a2ats.params = &p->params;
    p->rank = (struct qyi_rank){.params = &p->params,
                                .ctx = &p->a2ats,
                                .first = &qyi_stage_bands,
                                .pooling = pooling == QY_POOLED_AUTO ? QY_POOLED_UNION : pooling,
                                .per_head = 1};
    enum qy_status st = qyi_a2ats_open_codes(&p->a2ats, "a2ats", QY_CODEBOOK_VQ, err);
    if (st == QY_OK) {
        st = qyi_a2ats_open_wrope(&p->a2ats, err);
    }
    if (st != QY_OK) {
        a2ats_close(p);
        return st;
    }
    *policy = p;
    return QY_OK;
}

static size_t a2ats_index_bytes(const struct qy_policy *policy)
{
    return policy->a2ats.code_bytes;
}

static size_t a2ats_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const size_t select = qyi_rank_scratch(&policy->rank, n_items, max_n);
    const size_t append = qyi_a2ats_append_scratch(&policy->a2ats, n_items);

    return select > append ? select : append;
}

static enum qy_status a2ats_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    return qyi_rank_select(&policy->rank, items, n_items, arena);
}

static enum qy_status a2ats_append(struct qy_policy *policy, const struct qy_append_view *views,
                                   uint32_t n_views, struct qy_arena *arena)
{
    return qyi_a2ats_append_codes(&policy->a2ats, views, n_views, arena);
}

static enum qy_codebook_kind a2ats_codebook(const struct qy_retrieval_settings *settings)
{
    (void)settings;
    return QY_CODEBOOK_VQ;
}

/* README of the authors' code: topk = 0.03, per query head. */
static const char *a2ats_budget(const struct qy_retrieval_settings *settings)
{
    (void)settings;
    return "0.03";
}

/* Tokens near the new one are scored by their keys. */
static int a2ats_reads_rows(const struct qy_retrieval_settings *settings, uint32_t window)
{
    return settings->wrope_window > window;
}

/* Scores are those of codes, whichever tokens lie beside them: all far tokens are at one distance. */
static int a2ats_scores_apart(const struct qy_retrieval_settings *settings, uint32_t window)
{
    return (settings->pooling == QY_POOLED_AUTO || settings->pooling == QY_POOLED_UNION) &&
           !a2ats_reads_rows(settings, window);
}

static uint32_t a2ats_best_k(const struct qy_policy *policy, const struct qy_select_item *item)
{
    return qyi_rank_union_k(&policy->rank, item);
}

static enum qy_status a2ats_best(struct qy_policy *policy, const struct qy_best_item *items,
                                 uint32_t n_items, struct qy_arena *arena)
{
    return qyi_rank_best(&policy->rank, items, n_items, arena);
}

static size_t a2ats_best_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    return qyi_rank_best_scratch(&policy->rank, n_items, max_n);
}

const struct qy_policy_ops qyi_policy_a2ats = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "a2ats",
    .summary =
        "A2ATS as published: codes of keys before RoPE, one far distance, a budget per "
        "query head",
    .caps = {.index_shareable = 1, .per_head = 1, .append_form = QY_KEYS_BEFORE_ROPE},
    .open = a2ats_open,
    .close = a2ats_close,
    .scratch = a2ats_scratch,
    .index_bytes = a2ats_index_bytes,
    .select = a2ats_select,
    .append = a2ats_append,
    .codebook = a2ats_codebook,
    .budget = a2ats_budget,
    .reads_rows = a2ats_reads_rows,
    .scores_apart = a2ats_scores_apart,
    .best_k = a2ats_best_k,
    .best = a2ats_best,
    .best_scratch = a2ats_best_scratch,
};
