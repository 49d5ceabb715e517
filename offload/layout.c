/* SPDX-License-Identifier: Apache-2.0 */
/* See layout.h. */
#include "offload/layout.h"
#include "offload/disk/disk.h"

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

/* What follows rows_bytes of rows. */
static void place_index(struct qyi_layout *l, size_t rows_bytes)
{
    l->index_at = rows_bytes;
    l->footer_at = l->index_at + l->index_slab_bytes * l->n_slabs;
    l->block_bytes =
        aligned(l->footer_at + sizeof(struct qyi_footer) + l->n_sums * sizeof(uint64_t));
    if (l->in_pages) {
        l->block_bytes = (l->block_bytes + QYI_DISK_PAGE - 1) / QYI_DISK_PAGE * QYI_DISK_PAGE;
    }
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
    l.n_sums = l.index_slab_bytes > 0 ? 2 * l.n_slabs : l.n_slabs;
    l.in_pages = settings->disk_bytes > 0;
    l.n_runs = 1;
    place_index(&l, l.slab_bytes * l.n_slabs);
    *layout = l;
    return QY_OK;
}

void qyi_layout_code(struct qyi_layout *l, struct qyi_home_layer *layers)
{
    size_t at = 0;

    for (uint32_t i = 0; i < l->n_layers; i++) {
        struct qyi_home_layer *h = &layers[i];

        h->row_bytes = qy_row_codec_bytes(&h->codec);
        h->slab_bytes = h->row_bytes * l->block_tokens; /* heads without a gap: a run of rows */
        h->at = at;
        at = aligned(at + h->slab_bytes * l->n_kv_heads);
    }
    l->home = layers;
    l->n_runs = 0;
    for (uint32_t i = 0; i < l->n_layers; i = qyi_layout_run(l, i)) {
        l->n_runs++;
    }
    place_index(l, at);
}

size_t qyi_layout_home_at(const struct qyi_layout *layout, uint32_t layer, uint32_t kv_head)
{
    if (!layout->home) {
        return qyi_layout_slab_at(layout, layer, kv_head);
    }
    return layout->home[layer].at + kv_head * layout->home[layer].slab_bytes;
}

uint32_t qyi_layout_run(const struct qyi_layout *layout, uint32_t layer)
{
    const struct qyi_home_layer *h = layout->home;
    uint32_t end = layer + 1;

    while (h && end < layout->n_layers && h[end].codec.k_bits == h[layer].codec.k_bits &&
           h[end].codec.v_bits == h[layer].codec.v_bits &&
           h[end].at == h[end - 1].at + layout->n_kv_heads * h[end - 1].slab_bytes) {
        end++;
    }
    return h ? end : layout->n_layers;
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

void qyi_layout_name_tokens(uint32_t shift, const uint32_t *blocks, uint32_t *places, size_t n)
{
    const uint32_t mask = (1U << shift) - 1;

    for (size_t i = 0; i < n; i++) {
        places[i] = blocks[places[i] >> shift] << shift | (places[i] & mask);
    }
}
