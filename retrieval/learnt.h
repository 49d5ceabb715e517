/* SPDX-License-Identifier: Apache-2.0 */
/* What policies share that learn an index from each sequence: pq, clusters, faiss. */
#ifndef QYI_RETRIEVAL_LEARNT_H
#define QYI_RETRIEVAL_LEARNT_H

#include "retrieval/policies.h"

/* Keys, and values where asked for, of tokens first .. first + n - 1 as f32. */
struct qyi_learnt_read {
    struct qy_rows rows;
    uint32_t first, n;
    float *k; /* [n][d] written */
    float *v; /* [n][d] written; NULL: not wanted */
};
/* Items are shared out over the team. [noalloc] */
void qyi_learnt_read(const struct qy_runtime *rt, const struct qyi_learnt_read *items, uint32_t n);

/* Slabs of layers below this one are never asked for: those layers attend to all. */
uint32_t qyi_learnt_first_slab(const struct qy_policy_params *params);
/* (layer, KV head) pairs. */
static inline uint32_t qyi_learnt_slabs(const struct qy_policy_params *params)
{
    return params->n_layers * params->n_kv_heads;
}

/* QY_ERR_NOMEM, with the numbers, when bytes are more than may still be taken; QY_ERR_CONFIG when
 * the policy was given an argument. */
QY_MUST enum qy_status qyi_learnt_check(const struct qy_policy_params *params, const char *name,
                                        uint64_t bytes, struct qy_error *err);

/* Sets that are learnt together: enough for every thread, and few, since each holds all its keys. */
static inline uint32_t qyi_learnt_batch(const struct qy_runtime *rt)
{
    return 2 * qy_team_size(rt->team);
}
/* Items of n_items that are selected together: few too, so that the scratch stays bounded. */
static inline uint32_t qyi_learnt_items(const struct qy_runtime *rt, uint32_t n_items)
{
    const uint32_t most = qyi_learnt_batch(rt);

    return n_items < most ? n_items : most;
}
typedef enum qy_status (*qyi_learnt_select_fn)(const struct qy_policy *policy,
                                               const struct qy_select_item *items, uint32_t n,
                                               struct qy_arena *arena);
/* Calls select for so many items at a time, until it fails. What a call takes from the arena is given
 * back after it. */
QY_MUST enum qy_status qyi_learnt_select(const struct qy_runtime *rt,
                                         const struct qy_policy *policy,
                                         qyi_learnt_select_fn select,
                                         const struct qy_select_item *items, uint32_t n_items,
                                         struct qy_arena *arena);

static inline size_t qyi_learnt_pad(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

#endif
