/* SPDX-License-Identifier: Apache-2.0 */
/* From what length on choosing pays on this machine; see cost.c. */
#ifndef QYI_OFFLOAD_COST_H
#define QYI_OFFLOAD_COST_H

#include "offload/cache.h"

/* Runs the trial with the cache's policy; the cache is open but for this. cost is written. */
QY_MUST enum qy_status qyi_cost_measure(struct qy_cache *cache, struct qy_cache_cost *cost,
                                        struct qy_error *err);
/* The least power of two tokens, 4,096 at most, at which choosing is cheaper than attending to all;
 * 0: always. Pure. */
uint32_t qyi_cost_min_tokens(const struct qy_cache_cost *cost,
                             const struct qyi_selection_rule *rule, uint32_t max_tokens);

#endif
