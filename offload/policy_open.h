/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache wants of its policy at open: checks, settings, codebook, state. */
#ifndef QYI_OFFLOAD_POLICY_OPEN_H
#define QYI_OFFLOAD_POLICY_OPEN_H

#include "offload/offload.h"

/* Is there a usable table, a budget, the codebook that the settings ask for? */
QY_MUST enum qy_status qyi_policy_check(const struct qy_cache_params *params, struct qy_error *err);
/* The initial values of retrieval.*, as documented in its table of settings. */
QY_MUST enum qy_status qyi_settings_initial(const struct qy_allocator *mem,
                                            struct qy_retrieval_settings *settings,
                                            struct qy_error *err);
/* Opens the policy's state (NULL when it has none). params have scale and retrieval set. */
QY_MUST enum qy_status qyi_policy_open(const struct qy_cache_params *params,
                                       struct qy_policy **policy, struct qy_error *err);
/* First layers that attend to all. */
uint32_t qyi_policy_dense_layers(const struct qy_cache_params *params);
/* Sequences of fewer tokens attend to all. */
uint32_t qyi_policy_min_tokens(const struct qy_cache_params *params);

#endif
