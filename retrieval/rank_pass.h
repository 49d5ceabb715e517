/* SPDX-License-Identifier: Apache-2.0 */
/* One pass of a ranking over a batch: score, pool, take the best. Private to rank*.c. */
#ifndef QYI_RETRIEVAL_RANK_PASS_H
#define QYI_RETRIEVAL_RANK_PASS_H

#include "retrieval/rank.h"

enum { QYI_RANK_ALIGN = 64 };

static inline size_t qyi_rank_pad(size_t bytes)
{
    return (bytes + QYI_RANK_ALIGN - 1) / QYI_RANK_ALIGN * QYI_RANK_ALIGN;
}

/* Floats from head to head of scores of n tokens. */
static inline size_t qyi_rank_stride(uint32_t n)
{
    return qyi_rank_pad(n * sizeof(float)) / sizeof(float);
}

static inline void *qyi_rank_take(struct qy_arena *arena, size_t bytes)
{
    return qy_arena_take(arena, qyi_rank_pad(bytes), QYI_RANK_ALIGN);
}

/* What a pass does for one item. The scores are laid out [sinks | window | span], so that the same
 * tokens give the same bits whichever stages came before. */
struct qyi_rank_goal {
    struct qyi_rank_span span;
    uint32_t k;            /* to take; per query head in a union            */
    float mass;            /* 0: k alone counts                             */
    float *pooled;         /* [span.n]; not for a union                     */
    uint32_t *lists;       /* [group][k]; for a union only                  */
    uint32_t *ids, *n_ids; /* the result                                    */
};

struct qyi_rank_pass {
    const struct qyi_rank *rank;
    const struct qyi_rank_stage *stage;
    enum qy_pool_choice pooling;
    struct qyi_rank_goal *goals;
    uint32_t n;
};

/* Tokens that are always attended: sinks and window. */
static inline uint32_t qyi_rank_n_resident(const struct qy_select_item *item)
{
    return item->lo + (item->n - item->hi);
}

QY_MUST enum qy_status qyi_rank_pass_run(const struct qyi_rank_pass *pass, struct qy_arena *arena);
/* Arena bytes of a pass over n items, without those of the stage and of the top-k. */
size_t qyi_rank_pass_bytes(uint32_t n, uint32_t group);

#endif
