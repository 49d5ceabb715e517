/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retrieval: which tokens a query needs. A *policy* is an index plus a selector; it is asked once
 * per step and layer for a batch of (sequence, KV head) queries and answers with token ids.
 *
 * It drives kernels through gpu/gpu.h. It never touches homes, blocks or the network: rows and
 * index bytes reach it as qy_rows.
 */
#ifndef QY_RETRIEVAL_H
#define QY_RETRIEVAL_H

#include "gpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* How many tokens a selection may have, per KV head. */
struct qy_budget {
    double ratio;    /* share of N, 0..1; 0 = not given         */
    uint32_t tokens; /* absolute; 0 = not given                 */
    double mass;     /* top-p: attention mass to reach under the cap; 0 = not given */
};

/* "0.03" (share of N, at most 1.0), "2048" (tokens, above 1), "p0.95:0.10" (mass under a cap that
 * is itself a share or a count). QY_ERR_CONFIG says what is accepted. [any] */
QY_MUST enum qy_status qy_budget_parse(const char *text, struct qy_budget *budget,
                                       struct qy_error *err);
/* Tokens that the budget allows of n (rounded up, at most n); the cap when mass is given. [noalloc]
 */
uint32_t qy_budget_tokens(const struct qy_budget *budget, uint32_t n);

/* One (sequence, KV head) of a layer in one step. */
struct qy_select_item {
    const float *q;      /* [group][d] f32, after RoPE                                      */
    struct qy_rows rows; /* of the sequence, this layer and KV head                         */
    uint32_t group;
    uint32_t n;      /* tokens in the cache, the new one included                       */
    uint32_t lo, hi; /* may be chosen: lo <= id < hi (sinks before, window behind)       */
    uint32_t k;      /* at most so many                                                */
    uint32_t layer, kv_head, sequence; /* sequence: the slot given at sequence_open           */
    uint32_t *ids;   /* [k] written, ascending                                          */
    uint32_t *n_ids; /* written                                                         */
};

struct qy_policy; /* the state of one policy: the implementation's own */

struct qy_policy_params {
    const struct qy_runtime *rt; /* kept                                                    */
    struct qy_device *dev;       /* kept                                                    */
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
    uint32_t max_sequences, max_tokens; /* of one sequence                                   */
    float scale; /* of q . k                                                */
    double mass; /* of the budget, 0 = fixed size                            */
};

struct qy_policy_caps {
    int dense;           /* attends to everything: select is not called                     */
    int select_nothing;  /* sinks and window only: select is not called                     */
    int index_shareable; /* the index is a pure function of keys and a frozen codebook       */
    int reads_all_keys;  /* select reads every key (counted in the bytes read)               */
};

/* A policy's table. One file each; `qy_policy_find` knows the built-in ones, an integrator passes
 * his own to qy_cache_open. Later versions add slots at the end: abi_size says what is there. */
struct qy_policy_ops {
    size_t abi_size;     /* sizeof(struct qy_policy_ops)                         (required) */
    const char *name;    /* as in --policy                                       (required) */
    const char *summary; /* one sentence for --help                              (required) */
    struct qy_policy_caps caps;
    /* Opens state for params; called once per cache. NULL: no state.             [setup] */
    enum qy_status (*open)(const struct qy_policy_params *params, struct qy_policy **policy,
                           struct qy_error *err);
    void (*close)(struct qy_policy *policy);
    /* Arena bytes that one select call of n_items over max_n tokens may take. NULL: none. */
    size_t (*scratch)(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n);
    /* Index bytes per token and (layer, KV head), kept inside the blocks. 0 or NULL: none. */
    size_t (*index_bytes)(const struct qy_policy *policy);
    /* Chooses for all items. Required unless caps say dense or select_nothing. [owner] [noalloc] */
    enum qy_status (*select)(struct qy_policy *policy, const struct qy_select_item *items,
                             uint32_t n_items, struct qy_arena *arena);
};

/* The built-in policy of that name; NULL when there is none. [any] */
const struct qy_policy_ops *qy_policy_find(const char *name);
/* Policy i of the built-in ones, NULL past the end. [any] */
const struct qy_policy_ops *qy_policy_at(size_t i);
/* As qy_policy_find, with an error that lists the names. */
QY_MUST enum qy_status qy_policy_choose(const char *name, const struct qy_policy_ops **ops,
                                        struct qy_error *err);

/* retrieval.policy, retrieval.budget */
struct qy_retrieval_settings {
    char policy[QY_SETTING_TEXT_BYTES];
    char budget[QY_SETTING_TEXT_BYTES];
};
extern const struct qy_setting qy_retrieval_setting_rows[];
extern const size_t qy_retrieval_setting_count;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
