/* SPDX-License-Identifier: Apache-2.0 */
/* Policy `dense`: attends to everything. The measure of every other policy. */
#include "retrieval/policies.h"

const struct qy_policy_ops qyi_policy_dense = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "dense",
    .summary = "attends to every token; the budget is not used",
    .caps = {.dense = 1, .index_shareable = 1},
};
