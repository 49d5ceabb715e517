/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranking of single tokens, shared by the policies that score them one by one: what is always
 * attended is scored exactly, a *stage* scores the others its own way, scores are pooled over the
 * group and the best are taken; or the best few times the budget are scored again by a second,
 * better stage and the best of those are taken.
 */
#ifndef QYI_RETRIEVAL_RANK_H
#define QYI_RETRIEVAL_RANK_H

#include "retrieval/retrieval.h"

/* Tokens of one item to score: ids [n], or first .. first + n - 1 when ids is NULL; all of them are
 * in lo .. hi - 1. scores[h * stride + i] = params.scale * q[h] . k of token i, as well as the stage
 * knows. */
struct qyi_rank_span {
    const struct qy_select_item *item;
    const uint32_t *ids;
    uint32_t first, n;
    float *scores;
    size_t stride;
};

struct qyi_rank;
struct qyi_rank_goal;

/* A way to score. */
struct qyi_rank_stage {
    int trusted; /* near enough to the truth for the mass of a budget: not of coarse codes */
    /* Spans have ids when the stage reranks, and only then. */
    enum qy_status (*score)(const struct qyi_rank *rank, const struct qyi_rank_span *spans,
                            uint32_t n, struct qy_arena *arena); /* [noalloc] */
    /* Arena bytes of a call of n spans; grows with n. NULL: none. */
    size_t (*scratch)(const struct qyi_rank *rank, uint32_t n_spans);
    /* Scores, pools and takes the best of whole ranges at once, where only k counts and pooling is
     * no union; the resident scores are there. NULL: the pass does it in three calls. */
    enum qy_status (*best)(const struct qyi_rank *rank, const struct qyi_rank_goal *goals,
                           uint32_t n, enum qy_pooling pooling,
                           struct qy_arena *arena); /* [noalloc] */
    size_t (*best_scratch)(const struct qyi_rank *rank, uint32_t n_goals, uint32_t max_n);
};

/* A plain value: a policy makes it at open. */
struct qyi_rank {
    const struct qy_policy_params *params; /* kept */
    void *ctx;                             /* kept; of the stages */
    const struct qyi_rank_stage *first;
    const struct qyi_rank_stage *rerank; /* NULL: none; takes ids                              */
    double overfetch;                    /* candidates of the rerank, times k                  */
    enum qy_pool_choice pooling;         /* not QY_POOLED_AUTO                                 */
    int per_head; /* union: each query head has k of its own; else k / group (rounded down) */
};

/* Arena bytes of qyi_rank_select with up to n_items of up to max_n tokens. */
size_t qyi_rank_scratch(const struct qyi_rank *rank, uint32_t n_items, uint32_t max_n);

/*
 * Chooses for all items, in batches whose scores stay near the processor's caches.
 *
 * Pooling: sum and max of the heads' softmax over what was scored, with sinks and window in each
 * denominator; union of each head's own best. The mass of a budget counts where the
 * last stage is trusted and pooling is no union; elsewhere the cap alone counts, since a softmax of
 * coarse scores has its mass in the wrong places.
 * chosen: candidates of a rerank are pooled by sum where pooling is union; the mass is that among
 * sinks, window and candidates.
 */
QY_MUST enum qy_status qyi_rank_select(const struct qyi_rank *rank,
                                       const struct qy_select_item *items, uint32_t n_items,
                                       struct qy_arena *arena);

/* Tokens of each query head that a union of the item takes. */
uint32_t qyi_rank_union_k(const struct qyi_rank *rank, const struct qy_select_item *item);
/* rank_best.c: as the best and best_scratch of a policy whose choice is a union without a rerank. */
QY_MUST enum qy_status qyi_rank_best(const struct qyi_rank *rank, const struct qy_best_item *items,
                                     uint32_t n_items, struct qy_arena *arena);
size_t qyi_rank_best_scratch(const struct qyi_rank *rank, uint32_t n_items, uint32_t max_n);

/* The keys themselves. */
extern const struct qyi_rank_stage qyi_stage_exact;

#endif
