/* SPDX-License-Identifier: Apache-2.0 */
/* Policy `window`: sinks and window only, nothing in between. Xiao et al. 2023 (StreamingLLM),
 * arXiv:2309.17453; differs: positions stay those of the text, not of the cache. */
#include "retrieval/policies.h"

const struct qy_policy_ops qyi_policy_window = {
    .abi_size = sizeof(struct qy_policy_ops),
    .name = "window",
    .summary = "attends to the first (cache.sinks) and last (cache.window) tokens only",
    .caps = {.select_nothing = 1, .index_shareable = 1},
};
