/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy `pq`: keys of each request, after RoPE, as codes of a product quantizer learnt from them.
 * Source: Zhang et al. 2025, PQCache, arXiv:2407.12820, sec. 3, and the code of its authors.
 *
 * Per (sequence, layer, KV head): k-means of m sub-vectors, 2^bits words each (retrieval.pq_m,
 * retrieval.pq_bits: 2 and 6, the paper's), when the sequence first selects; later tokens are
 * encoded with those words. Scores are sums of table entries q_j . word, softmax per query head,
 * summed over the group (retrieval.pooling), and the k best tokens are attended.
 *
 * chosen: 20 updates of k-means, begun by k-means++ as in the authors' library; the paper fits
 *   their number to the time that it can hide behind prefill.
 * chosen: learns from the tokens that may be chosen (no sinks, no window), and learns anew when
 *   they have doubled, since the first question of a conversation may be short.
 * differs: sinks and window are in the softmax's denominators, with exact scores; recent tokens are
 *   cache.window, not half of the budget; there is no cache of blocks.
 */
#include "retrieval/pq_index.h"
#include "retrieval/rank.h"

enum { ALIGN = 64 };

struct qy_policy {
    struct qy_policy_params params;
    struct qyi_pq_index *index;
    struct qyi_rank rank;
};

/* ---- the stage ------------------------------------------------------------------------------- */

/* Tokens begin .. end - 1 of a span have codes. */
struct coded {
    uint32_t begin, end;
};

static struct coded coded_of(const struct qyi_rank_span *span, const struct qyi_pq_slab *slab)
{
    const uint32_t last = span->first + span->n;
    struct coded c = {.begin = span->first > slab->first ? span->first : slab->first,
                      .end = last < slab->end ? last : slab->end};

    if (c.begin >= c.end) {
        c.begin = c.end = span->first;
    }
    return c;
}

static struct qy_score_item keys_item(const struct qyi_rank_span *span, uint32_t first,
                                      uint32_t end)
{
    return (struct qy_score_item){.q = span->item->q,
                                  .rows = span->item->rows,
                                  .first = first,
                                  .n = end - first,
                                  .group = span->item->group,
                                  .scores = span->scores + (first - span->first),
                                  .stride = span->stride};
}

/* Codes where there are any; tokens before and after them (none in a cache that calls prepare) by
 * their keys. */
static enum qy_status score_codes(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                  uint32_t n, struct qy_arena *arena)
{
    const struct qy_policy *policy = rank->ctx;
    const struct qy_policy_params *p = rank->params;
    struct qy_code_score_item *codes = qy_arena_take(arena, n * sizeof(*codes), ALIGN);
    struct qy_score_item *keys = qy_arena_take(arena, (size_t)2 * n * sizeof(*keys), ALIGN);
    uint32_t n_codes = 0;
    uint32_t n_keys = 0;
    enum qy_status st = QY_OK;

    if (!codes || !keys) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *it = spans[i].item;
        const struct qyi_pq_slab slab =
            qyi_pq_index_slab(policy->index, it->sequence, it->layer, it->kv_head);
        const struct coded c = coded_of(&spans[i], &slab);

        if (c.begin < c.end) {
            codes[n_codes++] =
                (struct qy_code_score_item){.quantizer = slab.quantizer,
                                            .q = it->q,
                                            .codes = slab.codes,
                                            .first = c.begin,
                                            .n = c.end - c.begin,
                                            .group = it->group,
                                            .scores = spans[i].scores + (c.begin - spans[i].first),
                                            .stride = spans[i].stride};
        }
        if (c.begin > spans[i].first) {
            keys[n_keys++] = keys_item(&spans[i], spans[i].first, c.begin);
        }
        if (c.end < spans[i].first + spans[i].n) {
            keys[n_keys++] = keys_item(&spans[i], c.end, spans[i].first + spans[i].n);
        }
    }
    if (n_codes > 0) {
        st = qy_device_code_score(p->dev, codes, n_codes, p->scale, arena);
    }
    if (st == QY_OK && n_keys > 0) {
        st = qy_device_score(p->dev, keys, n_keys, p->scale);
    }
    return st;
}

static enum qy_status stage_score(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                                  uint32_t n, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    const enum qy_status st = score_codes(rank, spans, n, arena);

    qy_arena_rewind(arena, mark);
    return st;
}

static size_t stage_scratch(const struct qyi_rank *rank, uint32_t n_spans)
{
    const struct qy_policy *policy = rank->ctx;
    const uint32_t group = rank->params->n_heads / rank->params->n_kv_heads;

    return qyi_learnt_pad(n_spans * sizeof(struct qy_code_score_item)) +
           qyi_learnt_pad((size_t)2 * n_spans * sizeof(struct qy_score_item)) + (size_t)2 * ALIGN +
           qy_device_code_score_scratch(rank->params->dev, n_spans,
                                        qyi_pq_index_shape(policy->index), group);
}

static const struct qyi_rank_stage stage_codes = {.score = stage_score, .scratch = stage_scratch};

/* ---- the table ------------------------------------------------------------------------------- */

static void pq_close(struct qy_policy *policy)
{
    if (policy) {
        const struct qy_allocator mem = policy->params.rt->mem;

        qyi_pq_index_close(policy->index);
        qy_free(&mem, policy);
    }
}

static enum qy_status pq_open(const struct qy_policy_params *params, struct qy_policy **policy,
                              struct qy_error *err)
{
    const int pooling = qyi_policy_settings(params)->pooling;
    struct qy_policy *p = qy_alloc_zero(&params->rt->mem, sizeof(*p));

    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "policy 'pq': out of memory at open");
    }
    p->params = *params;
    const enum qy_status st = qyi_pq_index_open(params, &p->index, err);
    if (st != QY_OK) {
        pq_close(p);
        return st;
    }
    p->rank = (struct qyi_rank){.params = &p->params,
                                .ctx = p,
                                .first = &stage_codes,
                                .pooling = pooling == QY_POOLED_AUTO ? QY_POOLED_SUM : pooling};
    *policy = p;
    return QY_OK;
}

static size_t pq_scratch(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n)
{
    return qyi_rank_scratch(&policy->rank, n_items, max_n);
}

static enum qy_status pq_prepare(struct qy_policy *policy, const struct qy_sequence_view *view,
                                 struct qy_error *err)
{
    return qyi_pq_index_update(policy->index, view, err);
}

static void pq_forget(struct qy_policy *policy, uint32_t sequence, uint32_t n_tokens)
{
    qyi_pq_index_forget(policy->index, sequence, n_tokens);
}

static enum qy_status pq_select(struct qy_policy *policy, const struct qy_select_item *items,
                                uint32_t n_items, struct qy_arena *arena)
{
    return qyi_rank_select(&policy->rank, items, n_items, arena);
}

const struct qy_policy_ops qyi_policy_pq = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "pq",
    .summary = "scores codes of a product quantizer learnt from each request's keys (PQCache)",
    .open = pq_open,
    .close = pq_close,
    .scratch = pq_scratch,
    .select = pq_select,
    .prepare = pq_prepare,
    .forget = pq_forget,
};
