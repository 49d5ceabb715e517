/* SPDX-License-Identifier: Apache-2.0 */
/* How many blocks a cache gets, and the refusals with numbers. Pure. */
#ifndef QYI_OFFLOAD_SIZING_H
#define QYI_OFFLOAD_SIZING_H

#include "offload/layout.h"

struct qyi_sizing {
    uint32_t max_sequences, max_tokens;
    uint64_t total_tokens; /* 0 = max_sequences * max_tokens    */
    uint64_t host_bytes;   /* 0 = what the request needs        */
    uint64_t usable_bytes; /* memory that may still be taken    */
    uint64_t fixed_bytes;  /* what the cache takes beside the pool */
    uint64_t disk_blocks;  /* that a disk tier holds; 0: none      */
    uint64_t least_blocks; /* with one: of the pool, at least      */
};

/* QY_ERR_NOMEM: it cannot fit; the text says what is needed, what there is, and what to change. */
QY_MUST enum qy_status qyi_size_pool(const struct qyi_layout *layout, const struct qyi_sizing *want,
                                     uint32_t *n_blocks, struct qy_error *err);

/* QY_ERR_NOMEM, with numbers: index and map are more than cache.index_bytes gives; 0: it gives what is
 * needed. policy: its name. */
QY_MUST enum qy_status qyi_size_index(uint64_t given, uint64_t index_bytes, uint64_t map_bytes,
                                      const char *policy, struct qy_error *err);

#endif
