/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of offload.h, not to be included alone: what became of chunks of prefill that have earlier blocks on
 * memory servers. Each is pulled or pushed, layer by layer (plan.mode).
 */
#ifndef QY_OFFLOAD_CHUNKS_H
#define QY_OFFLOAD_CHUNKS_H

#ifndef QY_OFFLOAD_H
#error "include offload/offload.h"
#endif

struct qy_cache_chunks {
    int can_push; /* 0: they are always pulled (plan.mode, step.deterministic), and what follows is 0 */
    /* Since open, for a reset usually comes between prefill and what is measured: chunks, each layer of each
     * sequence for itself; of those pulled, pushes that came to nothing; rows of all KV heads; bytes of
     * questions and answers. */
    uint64_t pulled, pushed, failed, rows_pulled, rows_pushed, pushed_bytes;
    /* Costs in ns, with QY_PLAN_AUTO; else 0. Per byte of a row that comes here; per query head and row
     * that is attended to here, and there; of a server per row and question; per token and server. */
    int measured;
    double byte_ns, pair_ns, far_pair_ns, far_row_ns, token_ns;
};
void qy_cache_chunks(const struct qy_cache *cache, struct qy_cache_chunks *chunks);

#endif
