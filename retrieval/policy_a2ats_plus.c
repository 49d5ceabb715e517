/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `a2ats+`: ours. Built of stages that can be switched and measured alone.
 *
 *   first stage  scores every token from a few bytes of index (retrieval.first_stage)
 *     pq         16-word product codes of keys after RoPE, by a frozen query-aware codebook: the
 *                default
 *     bands      a2ats's codes, each token scored near its true distance
 *     wrope      a2ats's codes as a2ats scores them
 *     keys       4-bit keys
 *     exact      the keys themselves
 *   rerank       scores the best few times the budget again (retrieval.rerank)
 *   pooling      one budget per KV head, by the sum of the heads' softmax with sinks and window in
 *                each denominator (retrieval.pooling)
 *   budget       a share, or attention mass under a cap; mass counts only on the scores of 4-bit or
 *                exact keys
 *   estimate     a few tokens drawn by their scores stand for all that was not chosen
 *                (retrieval.estimate): off by default
 *
 * It joins the query-aware quantization of A2ATS (arXiv:2502.12665) with product quantization made
 * for look-ups in registers (Andre et al. 2015, "Cache locality is not enough", VLDB 9(4)) and the
 * top-p budget of Twilight (arXiv:2502.02770).
 *
 * Keys arrive after RoPE, whatever the first stage: bands and wrope turn a copy back.
 */
#include "retrieval/policies.h"
#include "retrieval/policy_a2ats.h"

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_a2ats a2ats;
    struct qyi_rank rank;
};

/* The rerank that the settings come to. After 4-bit keys only exact ones know more. */
static enum qy_rerank rerank_of(const struct qy_retrieval_settings *settings)
{
    if (settings->first_stage == QY_STAGE1_EXACT) {
        return QY_RERANK_OFF;
    }
    if (settings->first_stage == QY_STAGE1_KEYS && settings->rerank != QY_RERANK_EXACT) {
        return QY_RERANK_OFF;
    }
    if (settings->rerank != QY_RERANK_AUTO) {
        return (enum qy_rerank)settings->rerank;
    }
    return settings->preset == QY_PRESET_FAST ? QY_RERANK_OFF : QY_RERANK_KEYS4;
}

static enum qy_codebook_kind plus_codebook(const struct qy_retrieval_settings *settings)
{
    switch ((enum qy_first_stage)settings->first_stage) {
    case QY_STAGE1_PQ4:
        return QY_CODEBOOK_PQ4;
    case QY_STAGE1_BANDS:
    case QY_STAGE1_WROPE:
        return QY_CODEBOOK_VQ;
    case QY_STAGE1_KEYS:
    case QY_STAGE1_EXACT:
        break;
    }
    return QY_CODEBOOK_NONE;
}

static const struct qyi_rank_stage *first_of(const struct qy_retrieval_settings *settings)
{
    switch ((enum qy_first_stage)settings->first_stage) {
    case QY_STAGE1_PQ4:
        return &qyi_stage_codes;
    case QY_STAGE1_BANDS:
    case QY_STAGE1_WROPE:
        return &qyi_stage_bands;
    case QY_STAGE1_KEYS:
        return &qyi_stage_keys;
    case QY_STAGE1_EXACT:
        break;
    }
    return &qyi_stage_exact;
}

/* Without trusted scores a mass would be found in the wrong places.
 * chosen: .94 of 4,096 tokens and more of more, where SmolLM2-135M attends to 4.8 % of them; .032,
 *   where it attends to 4.9 %. The mass is that among sinks, window and candidates. */
static const char *plus_budget(const struct qy_retrieval_settings *settings)
{
    const int trusted =
        plus_codebook(settings) == QY_CODEBOOK_NONE || rerank_of(settings) != QY_RERANK_OFF;

    return settings->preset == QY_PRESET_FAITHFUL && trusted ? "p0.94~4096:0.10" : "0.032";
}

static uint32_t plus_dense_layers(const struct qy_retrieval_settings *settings)
{
    (void)settings;
    return 0;
}

static void plus_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qyi_a2ats_close(&policy->a2ats);
        qy_free(&mem, policy);
    }
}

/* Fills what the stages read. */
static enum qy_status open_index(struct qy_policy *p, const struct qy_retrieval_settings *settings,
                                 struct qy_error *err)
{
    const enum qy_codebook_kind kind = plus_codebook(settings);
    enum qy_status st = QY_OK;

    if (settings->estimate > 0) {
        st = qyi_a2ats_open_estimate(&p->a2ats, err);
    }
    if (st == QY_OK && kind != QY_CODEBOOK_NONE) {
        st = qyi_a2ats_open_codes(&p->a2ats, "a2ats+", kind, err);
    }
    if (st == QY_OK && kind == QY_CODEBOOK_VQ) {
        st = settings->first_stage == QY_STAGE1_WROPE ? qyi_a2ats_open_wrope(&p->a2ats, err)
                                                      : qyi_a2ats_open_bands(&p->a2ats, err);
    }
    if (st == QY_OK &&
        (settings->first_stage == QY_STAGE1_KEYS || rerank_of(settings) == QY_RERANK_KEYS4)) {
        qyi_a2ats_open_keys(&p->a2ats);
    }
    return st;
}

static enum qy_status plus_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                struct qy_error *err)
{
    const struct qy_retrieval_settings *settings = qyi_policy_settings(params);
    const enum qy_rerank rerank = rerank_of(settings);

    if (params->argument && params->argument[0] != '\0') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy 'a2ats+:%.60s': 'a2ats+' takes no argument; its stages are "
                            "settings (retrieval.first_stage, retrieval.rerank)",
                            params->argument);
    }
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'a2ats+': out of memory at open");
    }
    p->params = *params;
    p->a2ats.params = &p->params;
    p->rank = (struct qyi_rank){.params = &p->params,
                                .ctx = &p->a2ats,
                                .first = first_of(settings),
                                .overfetch = settings->overfetch > 0.0 ? settings->overfetch : 2.0,
                                .pooling = settings->pooling == QY_POOLED_AUTO ? QY_POOLED_SUM
                                                                               : settings->pooling};
    if (rerank != QY_RERANK_OFF) {
        p->rank.rerank = rerank == QY_RERANK_EXACT ? &qyi_stage_exact : &qyi_stage_keys;
    }
    const enum qy_status st = open_index(p, settings, err);
    if (st != QY_OK) {
        plus_close(p);
        return st;
    }
    *policy = p;
    return QY_OK;
}

static size_t plus_index_bytes(const struct qy_policy *policy)
{
    return policy->a2ats.code_bytes + policy->a2ats.key_bytes;
}

static size_t plus_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    const size_t select = qyi_rank_scratch(&policy->rank, n_items, max_n);
    const size_t append = qyi_a2ats_append_scratch(&policy->a2ats, n_items);
    const size_t estimate =
        policy->a2ats.samples > 0 ? qyi_a2ats_estimate_scratch(&policy->a2ats, n_items, max_n) : 0;
    const size_t most = select > append ? select : append;

    return most > estimate ? most : estimate;
}

static enum qy_status plus_select(struct qy_policy *policy, const struct qy_select_item *items,
                                  uint32_t n_items, struct qy_arena *arena)
{
    const enum qy_status st = qyi_rank_select(&policy->rank, items, n_items, arena);

    if (st != QY_OK || policy->a2ats.samples == 0) {
        return st;
    }
    return qyi_a2ats_estimate(&policy->a2ats, items, n_items, arena);
}

static enum qy_status plus_append(struct qy_policy *policy, const struct qy_append_view *views,
                                  uint32_t n_views, struct qy_arena *arena)
{
    const struct qyi_a2ats *a = &policy->a2ats;
    enum qy_status st = QY_OK;

    if (a->n_bands > 0) {
        st = qyi_a2ats_append_turned(a, views, n_views, arena);
    } else if (a->code_bytes > 0) {
        st = qyi_a2ats_append_codes(a, views, n_views, arena);
    }
    if (st == QY_OK && a->key_bytes > 0) {
        st = qyi_a2ats_append_keys(a, views, n_views, arena);
    }
    return st;
}

static int plus_reads_rows(const struct qy_retrieval_settings *settings, uint32_t window)
{
    const struct qyi_rank_stage *first = first_of(settings);

    return first == &qyi_stage_exact || rerank_of(settings) == QY_RERANK_EXACT ||
           settings->estimate > 0 ||
           (first == &qyi_stage_bands && settings->wrope_window > (int64_t)window);
}

/* Shares of a softmax need the scores of all tokens, and bands their ids: a union of scores by codes or 4-bit
 * keys needs neither. */
static int plus_scores_apart(const struct qy_retrieval_settings *settings, uint32_t window)
{
    return settings->pooling == QY_POOLED_UNION && settings->first_stage != QY_STAGE1_BANDS &&
           rerank_of(settings) == QY_RERANK_OFF && !plus_reads_rows(settings, window);
}

static uint32_t plus_best_k(const struct qy_policy *policy, const struct qy_select_item *item)
{
    return qyi_rank_union_k(&policy->rank, item);
}

static enum qy_status plus_best(struct qy_policy *policy, const struct qy_best_item *items,
                                uint32_t n_items, struct qy_arena *arena)
{
    return qyi_rank_best(&policy->rank, items, n_items, arena);
}

static size_t plus_best_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    return qyi_rank_best_scratch(&policy->rank, n_items, max_n);
}

const struct qy_policy_ops qyi_policy_a2ats_plus = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "a2ats+",
    .summary =
        "ours: codes of keys at their positions, reranked by 4-bit keys, one budget per KV "
        "head (retrieval.preset)",
    .caps = {.index_shareable = 1,
             .partial = 1,
             .skip_short = 1,
             .append_form = QY_KEYS_AFTER_ROPE},
    .open = plus_open,
    .close = plus_close,
    .scratch = plus_scratch,
    .index_bytes = plus_index_bytes,
    .select = plus_select,
    .append = plus_append,
    .codebook = plus_codebook,
    .budget = plus_budget,
    .dense_layers = plus_dense_layers,
    .reads_rows = plus_reads_rows,
    .scores_apart = plus_scores_apart,
    .best_k = plus_best_k,
    .best = plus_best,
    .best_scratch = plus_best_scratch,
};
