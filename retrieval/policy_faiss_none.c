/* SPDX-License-Identifier: Apache-2.0 */
/* Policy `faiss` of a build without FAISS: opening it says what to do. */
#include "retrieval/policies.h"

static enum qy_status faiss_open(const struct qy_policy_params *params, struct qy_policy **policy,
                                 struct qy_error *err)
{
    (void)params;
    (void)policy;
    return qy_error_set(err, QY_ERR_UNSUPPORTED,
                        "policy 'faiss': this build has no FAISS; run scripts/setup and configure "
                        "again with -DQY_FAISS=ON, or take another policy");
}

/* Never called: there is no state without an open. */
static enum qy_status faiss_select(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    (void)policy;
    (void)items;
    (void)n_items;
    (void)arena;
    return QY_ERR_UNSUPPORTED;
}

const struct qy_policy_ops qyi_policy_faiss = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "faiss",
    .summary = "any index of FAISS, as faiss:<factory string> (not in this build)",
    .open = faiss_open,
    .select = faiss_select,
};
