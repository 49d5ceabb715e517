/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things lie inside a block. Pure functions of the shape; nothing here touches memory.
 *
 *   0          slab (layer 0, head 0) | slab (layer 0, head 1) | ... | slab (last layer, last head)
 *   index_at   index bytes: one slab of index_slab_bytes per slab of rows, in the same order
 *   footer_at  struct qyi_footer, then a 64-bit checksum per slab of rows, and per one of index
 *   block_bytes, a multiple of 64
 */
#ifndef QYI_OFFLOAD_LAYOUT_H
#define QYI_OFFLOAD_LAYOUT_H

#include "offload/offload.h"

struct qyi_layout {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t block_tokens, shift; /* block_tokens = 2^shift */
    enum qy_row_type row_type;
    uint32_t n_slabs; /* n_layers * n_kv_heads */
    uint32_t n_sums;  /* checksums: n_slabs, twice as many with an index */
    size_t row_bytes, slab_bytes;
    size_t index_slab_bytes; /* 0: no index */
    size_t index_at, footer_at, block_bytes;
};

/* Fixed part of a footer; the slabs' checksums follow it. */
struct qyi_footer {
    uint64_t id;         /* place in the home                                      */
    uint64_t generation; /* goes up when the block is given back or opened again    */
    uint64_t chain_hash; /* of all token ids up to the block's last; 0 = not sealed */
    uint64_t n_slabs;
};

/* index_bytes: of one slab of block_tokens tokens, as the policy says. QY_ERR_CONFIG: block_tokens is no power of two in 8..4096. QY_ERR_INVALID: an empty shape. */
QY_MUST enum qy_status qyi_layout_make(const struct qy_kv_shape *shape,
                                       const struct qy_cache_settings *settings, size_t index_bytes,
                                       struct qyi_layout *layout, struct qy_error *err);

size_t qyi_layout_slab_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head);
size_t qyi_layout_index_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head);
/* Blocks that n_tokens take. */
uint64_t qyi_layout_blocks(const struct qyi_layout *layout, uint64_t n_tokens);

#endif
