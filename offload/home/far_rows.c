/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulls of rows that lie in the store: they are read into staging, and gathered from there as from a home.
 * Of a store that hands out rows these alone are read (far_rows_lists.c). Of others the pages that hold
 * them are, neighbours as one request; a slab that has such rows gets a place of its whole size in the
 * staging, so that its rows are found by the block's own offsets. What the staging does not hold at once is
 * read in rounds: the first begins with the fetch, others while waiting.
 */
#include "offload/cache.h"

static const uint32_t no_block = UINT32_MAX;

static size_t list_at(const struct qy_cache *cache, size_t place)
{
    return place * cache->ids_capacity;
}

uint32_t qyi_far_rows_split(struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    struct qyi_tier *t = &cache->tier;
    struct qyi_home_far *d = &cache->far;
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const uint32_t n = t->n_taken[place];
    uint32_t *ids = t->pull_ids + list_at(cache, place);
    uint32_t *slots = t->pull_slots + list_at(cache, place);
    uint32_t n_ram = 0;
    uint32_t n_disk = 0;

    if (!d->store) {
        return n;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t b = ids[i] >> cache->layout.shift;

        qyi_home_far_touch(seq, b);
        if (seq->homes[b]) {
            ids[n_ram] = ids[i];
            slots[n_ram++] = slots[i];
        } else {
            d->scratch[2 * n_disk] = ids[i];
            d->scratch[2 * n_disk++ + 1] = slots[i];
        }
    }
    for (uint32_t i = 0; i < n_disk; i++) {
        ids[n_ram + i] = d->scratch[2 * i];
        slots[n_ram + i] = d->scratch[2 * i + 1];
    }
    d->n_ram[place] = n_ram;
    return n_ram;
}

/* A place in the staging for the slab of a block. 0: no room. */
static int place_slab(struct qy_cache *cache, struct qyi_far_rows *rows, size_t place,
                      uint32_t block)
{
    const struct qyi_layout *l = &cache->layout;
    const size_t at = qyi_layout_home_at(l, rows->layer, (uint32_t)(place % l->n_kv_heads));
    const size_t granule = cache->far.store->granule;
    const size_t first = at / granule;
    const size_t n = (at + qyi_layout_home_slab(l, rows->layer) + granule - 1) / granule - first;
    struct qyi_far_reads *reads = &rows->reads;

    if (n * granule > reads->bytes - reads->used) {
        return 0;
    }
    rows->block = block;
    rows->span = reads->staging + reads->used;
    rows->next_page = (uint32_t)first;
    reads->used += n * granule;
    /* where the block would begin; what is read of it lies behind */
    cache->far.tables[place * cache->max_blocks + block] =
        (uint8_t *)((uintptr_t)rows->span - first * granule);
    return 1;
}

/* Puts the pages of a row into the list. 0: the list or the staging is full. */
static int add_row(struct qy_cache *cache, struct qyi_far_rows *rows, size_t place, uint32_t id)
{
    const struct qyi_layout *l = &cache->layout;
    const uint32_t b = id >> l->shift;
    const struct qy_sequence *seq = cache->step.slices[place / l->n_kv_heads].seq;
    const size_t slab = qyi_layout_home_at(l, rows->layer, (uint32_t)(place % l->n_kv_heads));
    const size_t row_bytes = qyi_layout_home_row(l, rows->layer);
    const size_t at = slab + (id & (l->block_tokens - 1)) * row_bytes;
    struct qyi_far_reads *reads = &rows->reads;
    const size_t granule = cache->far.store->granule;
    uint32_t page = (uint32_t)(at / granule);
    const uint32_t end = (uint32_t)((at + row_bytes - 1) / granule) + 1;
    const int known = rows->block == b;

    if (!known && !place_slab(cache, rows, place, b)) {
        return 0;
    }
    page = page > rows->next_page ? page : rows->next_page;
    if (page >= end) {
        return 1; /* read with the row before */
    }
    const size_t bytes = (size_t)(end - page) * granule;
    struct qyi_store_request *last = reads->n > 0 ? &reads->requests[reads->n - 1] : NULL;
    if (known && last && page == rows->next_page) {
        last->bytes += bytes;
    } else if (reads->n == reads->capacity) {
        return 0;
    } else {
        reads->requests[reads->n] = (struct qyi_store_request){
            .op = QYI_STORE_READ,
            .slot = qyi_far_slot(seq, b),
            .at = (uint64_t)page * granule,
            .data = rows->span + (size_t)(page - slab / granule) * granule,
            .bytes = bytes};
        reads->seqs[reads->n] = seq;
        reads->blocks[reads->n++] = b;
    }
    rows->next_page = end;
    return 1;
}

/* Rows begin .. of the list that starts at `first`, as many as there is room for: how many. */
static uint32_t add_rows(struct qy_cache *cache, struct qyi_far_rows *rows, size_t first,
                         uint32_t begin)
{
    const struct qyi_tier *t = &cache->tier;
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const uint32_t n = t->n_taken[rows->place] - begin;
    const uint32_t *ids = t->pull_ids + first + begin;
    uint32_t i = 0;

    if (cache->far.in_lists) {
        return qyi_far_lists_add(&rows->reads, cache->step.slices[rows->place / n_heads].seq,
                                 rows->layer, rows->place % n_heads, ids, n,
                                 &cache->far.tables[rows->place]);
    }
    rows->block = no_block;
    while (i < n && add_row(cache, rows, rows->place, ids[i])) {
        i++;
    }
    return i;
}

static void add_gather(struct qy_cache *cache, struct qyi_far_rows *rows, size_t first,
                       uint32_t begin, uint32_t n)
{
    struct qyi_tier *t = &cache->tier;
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const uint32_t head = rows->place % n_heads;
    const struct qy_sequence *seq = cache->step.slices[rows->place / n_heads].seq;
    struct qy_gather_item *item =
        &cache->far.gathers[(size_t)now->begin * n_heads + rows->n_gathers++];

    *item = (struct qy_gather_item){.rows = qyi_home_rows(seq, rows->layer, head),
                                    .ids = t->pull_ids + first + begin,
                                    .slots = t->pull_slots + first + begin,
                                    .n = n,
                                    .stamp = qyi_tier_stamp(seq, rows->layer, head),
                                    .stamps = t->stamps};
    if (cache->far.in_lists) {
        item->rows = qyi_far_lists_rows(cache, rows->layer, &cache->far.tables[rows->place]);
        item->ids = cache->far.in_order;
        item->stamps = NULL; /* by qyi_far_lists_stamp */
    } else {
        item->rows.blocks = cache->far.tables + (size_t)rows->place * cache->max_blocks;
    }
}

/* The next rows, as many as there is staging for: reads under way, and what is gathered then. */
static enum qy_status start_round(struct qy_cache *cache, struct qyi_far_rows *rows)
{
    const struct qyi_tier *t = &cache->tier;
    struct qyi_home_far *d = &cache->far;

    rows->reads.n = 0;
    rows->reads.used = 0;
    rows->n_gathers = 0;
    for (; rows->place < rows->end; rows->place++, rows->at = 0) {
        const size_t first = list_at(cache, rows->place);
        const uint32_t n = t->n_taken[rows->place];
        const uint32_t begin = d->n_ram[rows->place] + rows->at;
        const uint32_t more = n > begin ? add_rows(cache, rows, first, begin) : 0;

        if (more > 0) {
            add_gather(cache, rows, first, begin, more);
            rows->at += more;
        }
        if (begin + more < n) {
            break;
        }
    }
    return qyi_far_reads_start(cache, &rows->reads);
}

enum qy_status qyi_far_rows_start(struct qy_cache *cache, uint32_t layer, int *any)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_home_far *d = &cache->far;
    struct qyi_far_rows *rows = &d->rows[cache->step.now];

    *any = 0;
    for (uint32_t i = now->begin * n_heads; d->store && i < now->end * n_heads; i++) {
        *any |= cache->tier.n_taken[i] > d->n_ram[i];
    }
    if (!*any) {
        return QY_OK;
    }
    rows->active = 1;
    rows->layer = layer;
    rows->place = now->begin * n_heads;
    rows->end = now->end * n_heads;
    rows->at = 0;
    return start_round(cache, rows);
}

enum qy_status qyi_far_rows_wait(struct qy_cache *cache)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_tier *t = &cache->tier;
    struct qyi_far_rows *rows = &cache->far.rows[cache->step.now];
    const struct qy_gather_item *gathers =
        cache->far.gathers + (size_t)now->begin * cache->layout.n_kv_heads;
    enum qy_status st = QY_OK;

    while (st == QY_OK && rows->active) {
        st = qyi_far_reads_wait(cache, &rows->reads);
        if (st == QY_OK) {
            st = qy_stream_gather(t->in, gathers, rows->n_gathers, t->rows);
            st = st == QY_AGAIN ? QY_ERR_DEVICE : st;
        }
        if (st == QY_OK) { /* the staging is used again */
            st = qy_stream_wait(t->in, qy_stream_record(t->in), t->timeout_ns);
        }
        if (st == QY_OK && cache->far.in_lists) {
            qyi_far_lists_stamp(cache, gathers, rows->n_gathers);
        }
        if (st == QY_OK && rows->place < rows->end) {
            st = start_round(cache, rows);
        } else if (st == QY_OK) {
            rows->active = 0;
        }
    }
    return st;
}
