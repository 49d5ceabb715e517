/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OPEN: a worker's layout in words of its shape, from which the server computes the offsets itself. What a
 * worker says of them is only compared: no offset that a session uses comes from outside.
 */
#include "offload/memory/remote_wire.h"

#include <string.h>

enum { MAX_GROUP = 64, MAX_INDEX_SLAB = 1 << 28, MAX_SEQUENCES = 1 << 20 };

/* One layer's codec. */
struct wire_codec {
    uint8_t k_bits, v_bits, group, zero;
};
_Static_assert(sizeof(struct wire_codec) == 4, "goes over the network as it is");

size_t qyi_remote_open_bytes(const struct qyi_layout *layout)
{
    return sizeof(struct qyi_remote_open) +
           (layout->home ? layout->n_layers * sizeof(struct wire_codec) : 0);
}

void qyi_remote_open_pack(const struct qyi_layout *l, uint32_t group, uint32_t max_sequences,
                          uint32_t max_blocks, void *to)
{
    const struct qyi_remote_open open = {.version = QYI_REMOTE_VERSION,
                                         .n_layers = l->n_layers,
                                         .n_kv_heads = l->n_kv_heads,
                                         .head_dim = l->head_dim,
                                         .group = group,
                                         .block_tokens = l->block_tokens,
                                         .row_type = (uint32_t)l->row_type,
                                         .in_pages = l->in_pages != 0,
                                         .coded = l->home != NULL,
                                         .max_sequences = max_sequences,
                                         .max_blocks = max_blocks,
                                         .index_slab_bytes = l->index_slab_bytes,
                                         .index_at = l->index_at,
                                         .footer_at = l->footer_at,
                                         .block_bytes = l->block_bytes};

    memcpy(to, &open, sizeof(open));
    for (uint32_t i = 0; l->home && i < l->n_layers; i++) {
        const struct qy_row_codec *codec = &l->home[i].codec;
        const struct wire_codec wire = {.k_bits = (uint8_t)codec->k_bits,
                                        .v_bits = (uint8_t)codec->v_bits,
                                        .group = (uint8_t)codec->group};

        memcpy((uint8_t *)to + sizeof(open) + i * sizeof(wire), &wire, sizeof(wire));
    }
}

const char *qyi_remote_open_parse(const void *payload, size_t bytes, struct qyi_remote_open *open)
{
    struct qyi_remote_open o;

    if (bytes < sizeof(o)) {
        return "a payload of another size than it says";
    }
    memcpy(&o, payload, sizeof(o));
    if (o.version != QYI_REMOTE_VERSION) {
        return "another version of the memory protocol";
    }
    if (o.in_pages > 1 || o.coded > 1 || o.zero != 0 || o.row_type > QY_ROW_F32 ||
        (o.coded && o.row_type != QY_ROW_F16)) {
        return "a form of rows that there is not";
    }
    if (o.group == 0 || o.group > MAX_GROUP || o.head_dim < 2 || o.head_dim % 2 != 0 ||
        o.n_kv_heads == 0 || o.n_kv_heads > UINT32_MAX / MAX_GROUP ||
        o.index_slab_bytes > MAX_INDEX_SLAB) {
        return "a shape that cannot be";
    }
    /* no block has fewer than 8 tokens; what more it has is checked with the layout */
    if (o.max_sequences == 0 || o.max_sequences > MAX_SEQUENCES || o.max_blocks == 0 ||
        o.max_blocks > UINT32_MAX / 8) {
        return "a table of no size, or of too large a size";
    }
    if (bytes - sizeof(o) != (o.coded ? (uint64_t)o.n_layers * sizeof(struct wire_codec) : 0)) {
        return "a payload of another size than it says";
    }
    *open = o;
    return NULL;
}

static const char *read_codecs(const struct qyi_remote_open *open, const uint8_t *at,
                               struct qyi_home_layer *layers)
{
    for (uint32_t i = 0; i < open->n_layers; i++) {
        struct wire_codec wire;

        memcpy(&wire, at + i * sizeof(wire), sizeof(wire));
        layers[i] = (struct qyi_home_layer){.codec = {.k_bits = wire.k_bits,
                                                      .v_bits = wire.v_bits,
                                                      .group = wire.group,
                                                      .d = open->head_dim}};
        if (wire.zero != 0 || !qy_row_codec_valid(&layers[i].codec)) {
            return "a codec that there is not";
        }
    }
    return NULL;
}

const char *qyi_remote_open_layout(const struct qyi_remote_open *open, const void *payload,
                                   struct qyi_home_layer *layers, struct qyi_layout *layout)
{
    const struct qy_kv_shape shape = {.n_layers = open->n_layers,
                                      .n_heads = open->n_kv_heads * open->group,
                                      .n_kv_heads = open->n_kv_heads,
                                      .head_dim = open->head_dim};
    const struct qy_cache_settings settings = {.block_tokens = open->block_tokens,
                                               .row_type = (int)open->row_type,
                                               .disk_bytes = open->in_pages};
    struct qyi_layout l;

    if (qyi_layout_make(&shape, &settings, open->index_slab_bytes, &l, NULL) != QY_OK) {
        return "a shape that cannot be";
    }
    if (open->max_blocks > UINT32_MAX >> l.shift) {
        return "a table of too large a size";
    }
    if (open->coded) {
        const char *wrong = read_codecs(open, (const uint8_t *)payload + sizeof(*open), layers);

        if (wrong) {
            return wrong;
        }
        qyi_layout_code(&l, layers);
    }
    if (l.index_slab_bytes != open->index_slab_bytes || l.index_at != open->index_at ||
        l.footer_at != open->footer_at || l.block_bytes != open->block_bytes) {
        return "a layout whose offsets are not what its shape comes to";
    }
    *layout = l;
    return NULL;
}
