/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a store that hands them out by their ids: those of one list lie one after another in the staging,
 * whatever blocks they are of. They are named by their place there.
 */
#include "offload/cache.h"

enum { ALIGN = 64 }; /* of a list: coded rows lie as in a slab */

uint32_t qyi_far_lists_add(struct qyi_far_reads *reads, const struct qy_sequence *seq,
                           uint32_t layer, uint32_t head, const uint32_t *ids, uint32_t n,
                           uint8_t **to)
{
    const struct qyi_home_far *d = &seq->cache->far;
    const struct qyi_layout *l = &seq->cache->layout;
    const size_t row_bytes = qyi_layout_home_row(l, layer);
    const size_t longest = d->store->rows_bytes / row_bytes; /* run of ids in one block */
    const size_t begin = (reads->used + ALIGN - 1) / ALIGN * ALIGN;
    const size_t room = begin < reads->bytes ? (reads->bytes - begin) / row_bytes : 0;
    uint32_t i = 0;

    *to = reads->staging + begin;
    n = n < room ? n : (uint32_t)room;
    while (i < n && reads->n < reads->capacity) {
        const uint32_t b = ids[i] >> l->shift;
        uint32_t run = 1;

        while (run < longest && i + run < n && ids[i + run] >> l->shift == b) {
            run++;
        }
        reads->requests[reads->n] = (struct qyi_store_request){
            .op = QYI_STORE_ROWS,
            .slot = d->slots[seq->blocks[b]] - 1,
            .data = *to + i * row_bytes,
            .bytes = run * row_bytes,
            .list = {.ids = ids + i, .n = run, .layer = layer, .head = head}};
        reads->seqs[reads->n] = seq;
        reads->blocks[reads->n++] = b;
        i += run;
    }
    reads->used = i > 0 ? begin + i * row_bytes : reads->used;
    return i;
}

struct qy_rows qyi_far_lists_rows(const struct qy_cache *cache, uint32_t layer, uint8_t *const *at)
{
    const struct qyi_layout *l = &cache->layout;

    return (struct qy_rows){.blocks = at,
                            .shift = 31,
                            .d = l->head_dim,
                            .type = l->row_type,
                            .n_coded = UINT32_MAX,
                            .codec = qyi_layout_codec(l, layer)};
}

void qyi_far_lists_stamp(struct qy_cache *cache, const struct qy_gather_item *items, uint32_t n)
{
    const struct qyi_tier *t = &cache->tier;

    for (uint32_t i = 0; t->stamps && i < n; i++) {
        const struct qy_gather_item *item = &items[i];
        const uint32_t *ids = t->pull_ids + (item->slots - t->pull_slots);

        for (uint32_t k = 0; k < item->n; k++) {
            t->stamps[item->slots[k]] = qy_row_stamp(item->stamp, ids[k]);
        }
    }
}
