/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy that writes down what the cache asks of it. Its index keeps 16 bytes of each token, made
 * of the token's key, queries and place; what it chooses is up to the test.
 */
#ifndef QY_TESTS_OFFLOAD_PROBE_H
#define QY_TESTS_OFFLOAD_PROBE_H

#include "tests/unit/offload/rig.h"

enum { PROBE_CALLS = 1024 };

struct probe_append {
    uint32_t sequence, layer, kv_head, first, n, group;
};
struct probe_forget {
    uint32_t sequence, n_tokens;
};

struct qy_policy {
    struct qy_policy_params params;
    /* what was asked, in order */
    struct probe_append appends[PROBE_CALLS];
    struct qy_sequence_view prepares[PROBE_CALLS];
    struct probe_forget forgets[PROBE_CALLS];
    struct qy_select_item selects[PROBE_CALLS];
    uint32_t n_appends, n_prepares, n_forgets, n_selects;
    /* what to answer */
    enum qy_status append_status, prepare_status;
    void (*on_append)(const struct qy_append_view *view); /* may be NULL */
    void (*on_select)(const struct qy_select_item *item); /* NULL: the first k candidates */
};

/* Index bytes of one token. */
struct probe_entry {
    float first, last; /* of the key                 */
    float query;       /* sum of the group's queries */
    uint32_t token;
};

/* A table with every slot; the test may change it. */
struct qy_policy_ops probe_ops(void);
struct qy_policy *probe_of(const struct rig *rig);
/* The entry of a token in (layer, KV head) of a sequence. */
const struct probe_entry *probe_entry(const struct qy_sequence *seq, uint32_t layer, uint32_t head,
                                      uint32_t token);
/* The initial values of retrieval.*. */
struct qy_retrieval_settings probe_settings(void);

#endif
