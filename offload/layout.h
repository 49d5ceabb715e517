/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things lie inside a block. Pure functions of the shape; nothing here touches memory.
 *
 *   0          slab (layer 0, head 0) | slab (layer 0, head 1) | ... | slab (last layer, last head)
 *              rows as the device has them, or coded, with a codec of each layer's own (codec.h)
 *   index_at   index bytes: one slab of index_slab_bytes per slab of rows, in the same order
 *   footer_at  struct qyi_footer, then a 64-bit checksum per slab of rows, and per one of index
 *   block_bytes, a multiple of 64; with a disk tier of its pages
 */
#ifndef QYI_OFFLOAD_LAYOUT_H
#define QYI_OFFLOAD_LAYOUT_H

#include "offload/offload.h"

/* Rows of one layer in a home. */
struct qyi_home_layer {
    struct qy_row_codec codec; /* 16 bits: as on the device */
    size_t row_bytes, slab_bytes;
    size_t at; /* of its first slab; the others follow */
};

struct qyi_layout {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t block_tokens, shift; /* block_tokens = 2^shift */
    enum qy_row_type row_type;
    uint32_t n_slabs;                  /* n_layers * n_kv_heads */
    uint32_t n_sums;                   /* checksums: n_slabs, twice as many with an index */
    size_t row_bytes, slab_bytes;      /* on the device; at home too where home is NULL */
    const struct qyi_home_layer *home; /* [n_layers] kept; NULL: no layer is coded      */
    uint32_t n_runs;                   /* of layers, see qyi_layout_run                 */
    size_t index_slab_bytes;           /* 0: no index */
    int in_pages;                      /* blocks are written to a file, in pages */
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

/* Rows at home take the form that the codecs of layers [n_layers] give them; their sizes are written
 * here. layers is kept. */
void qyi_layout_code(struct qyi_layout *layout, struct qyi_home_layer *layers);

/* Of rows as the device has them. */
size_t qyi_layout_slab_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head);
size_t qyi_layout_index_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head);
/* Of rows at home. */
size_t qyi_layout_home_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head);
/* Places among some blocks, of 1 << shift tokens each, become token ids. */
void qyi_layout_name_tokens(uint32_t shift, const uint32_t *blocks, uint32_t *places, size_t n);
static inline size_t qyi_layout_home_slab(const struct qyi_layout *layout, uint32_t layer)
{
    return layout->home ? layout->home[layer].slab_bytes : layout->slab_bytes;
}
static inline size_t qyi_layout_home_row(const struct qyi_layout *layout, uint32_t layer)
{
    return layout->home ? layout->home[layer].row_bytes : layout->row_bytes;
}
/* NULL: rows at home are as on the device, in all layers. */
static inline const struct qy_row_codec *qyi_layout_codec(const struct qyi_layout *layout,
                                                          uint32_t layer)
{
    return layout->home ? &layout->home[layer].codec : NULL;
}
/* Bytes of all rows of a block at home. */
static inline size_t qyi_layout_home_rows(const struct qyi_layout *layout)
{
    return layout->index_at;
}
/* Layers from `layer` on whose rows one copy can move: they have one codec, and follow each other in
 * both places. Returns the end. */
uint32_t qyi_layout_run(const struct qyi_layout *layout, uint32_t layer);
/* Blocks that n_tokens take. */
uint64_t qyi_layout_blocks(const struct qyi_layout *layout, uint64_t n_tokens);

#endif
