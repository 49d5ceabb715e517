/* SPDX-License-Identifier: Apache-2.0 */
/* See layout.h. */
#include "offload/layout.h"

enum { ALIGN = 64, MAX_LAYERS = 1 << 14, MAX_HEADS = 1 << 14, MAX_DIM = 1 << 14 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static enum qy_status check(const struct qy_kv_shape *s, const struct qy_cache_settings *settings,
                            struct qy_error *err)
{
    const int64_t tokens = settings->block_tokens;

    if (s->n_layers == 0 || s->n_layers > MAX_LAYERS || s->n_kv_heads == 0 ||
        s->n_heads > MAX_HEADS || s->head_dim == 0 || s->head_dim > MAX_DIM || s->n_heads == 0 ||
        s->n_heads % s->n_kv_heads != 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "kv shape: %u layers, %u heads, %u KV heads of %u: each must be above "
                            "0 and heads a multiple of KV heads",
                            s->n_layers, s->n_heads, s->n_kv_heads, s->head_dim);
    }
    if (tokens < 8 || tokens > 4096 || (tokens & (tokens - 1)) != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.block_tokens': %lld; accepted are powers of two, 8 to "
                            "4096",
                            (long long)tokens);
    }
    if (settings->row_type != QY_ROW_F16 && settings->row_type != QY_ROW_F32) {
        return qy_error_set(err, QY_ERR_CONFIG, "setting 'cache.row_type': %d; accepted: f16, f32",
                            settings->row_type);
    }
    return QY_OK;
}

enum qy_status qyi_layout_make(const struct qy_kv_shape *shape,
                               const struct qy_cache_settings *settings, size_t index_bytes,
                               struct qyi_layout *layout, struct qy_error *err)
{
    const enum qy_status st = check(shape, settings, err);

    if (st != QY_OK) {
        return st;
    }
    struct qyi_layout l = {
        .n_layers = shape->n_layers,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->head_dim,
        .block_tokens = (uint32_t)settings->block_tokens,
        .row_type = settings->row_type == QY_ROW_F32 ? QY_ROW_F32 : QY_ROW_F16,
        .n_slabs = shape->n_layers * shape->n_kv_heads,
    };
    while (((uint32_t)1 << l.shift) < l.block_tokens) {
        l.shift++;
    }
    l.row_bytes = qy_row_bytes(l.row_type, l.head_dim);
    l.slab_bytes = aligned(l.row_bytes * l.block_tokens);
    l.index_slab_bytes = aligned(index_bytes);
    l.index_at = l.slab_bytes * l.n_slabs;
    l.footer_at = l.index_at + l.index_slab_bytes * l.n_slabs;
    l.n_sums = l.index_slab_bytes > 0 ? 2 * l.n_slabs : l.n_slabs;
    l.block_bytes = aligned(l.footer_at + sizeof(struct qyi_footer) + l.n_sums * sizeof(uint64_t));
    *layout = l;
    return QY_OK;
}

size_t qyi_layout_slab_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head)
{
    return ((size_t)layer * layout->n_kv_heads + kv_head) * layout->slab_bytes;
}

size_t qyi_layout_index_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head)
{
    return layout->index_at +
           ((size_t)layer * layout->n_kv_heads + kv_head) * layout->index_slab_bytes;
}

uint64_t qyi_layout_blocks(const struct qyi_layout *layout, uint64_t n_tokens)
{
    return (n_tokens >> layout->shift) + ((n_tokens & (layout->block_tokens - 1)) != 0);
}
