/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of the disk tier: lists of them, checked by page when they have arrived; blocks that come up to
 * host memory whole; copies and checks of blocks that lie in the file. See home_far.h.
 */
#include "offload/cache.h"

#include <string.h>

/* ---- lists of reads ------------------------------------------------------------------------- */

const uint8_t *qyi_far_reads_add(struct qyi_far_reads *reads, const struct qy_sequence *seq,
                                 uint32_t b, size_t at, size_t bytes)
{
    const size_t granule = seq->cache->far.store->granule;
    const size_t begin = at / granule * granule;
    const size_t end = (at + bytes + granule - 1) / granule * granule;

    if (reads->n == reads->capacity || end - begin > reads->bytes - reads->used) {
        return NULL;
    }
    uint8_t *to = reads->staging + reads->used;
    reads->requests[reads->n] = (struct qyi_store_request){.op = QYI_STORE_READ,
                                                           .slot = qyi_far_slot(seq, b),
                                                           .at = begin,
                                                           .data = to,
                                                           .bytes = end - begin};
    reads->seqs[reads->n] = seq;
    reads->blocks[reads->n++] = b;
    reads->used += end - begin;
    return to + (at - begin);
}

enum qy_status qyi_far_reads_start(struct qy_cache *cache, struct qyi_far_reads *reads)
{
    struct qyi_home_far *d = &cache->far;

    reads->batch = (struct qyi_store_batch){.requests = reads->requests, .n = reads->n};
    enum qy_status st = qyi_store_submit(d->store, &reads->batch);
    if (st == QY_ERR_DEVICE) { /* a stall of before: is it over? */
        st = qyi_store_reset(d->store, d->timeout_ns);
        st = st == QY_OK ? qyi_store_submit(d->store, &reads->batch) : st;
    }
    if (st != QY_OK) {
        reads->batch.n = 0;
        reads->batch.n_left = 0;
        return qyi_home_far_failed(cache, st, reads->seqs[0], reads->blocks[0],
                                   "an earlier request is still stalled");
    }
    return QY_OK;
}

/* QY_ERR_CORRUPT: a page is not what was written. */
static enum qy_status check_pages(struct qy_cache *cache, const struct qyi_far_reads *reads,
                                  uint32_t i)
{
    const struct qyi_store_request *r = &reads->requests[i];

    const struct qyi_home_far *d = &cache->far;
    const size_t granule = d->store->granule;

    for (size_t at = 0; d->sums && at < r->bytes; at += granule) {
        const uint64_t page = (uint64_t)r->slot * d->slot_pages + (r->at + at) / granule;

        if (qy_checksum((const uint8_t *)r->data + at, granule, page) != d->sums[page]) {
            return qyi_home_far_failed(cache, QY_ERR_CORRUPT, reads->seqs[i], reads->blocks[i],
                                       "the page is not what was written; try again, or compute "
                                       "the sequence again from its token ids");
        }
    }
    return QY_OK;
}

enum qy_status qyi_far_reads_wait(struct qy_cache *cache, struct qyi_far_reads *reads)
{
    enum qy_status st = qyi_store_wait(cache->far.store, &reads->batch, cache->far.timeout_ns);

    if (st != QY_OK) {
        uint32_t bad = st == QY_ERR_TIMEOUT ? 0 : reads->batch.first_bad;

        while (st == QY_ERR_TIMEOUT && bad + 1 < reads->n &&
               reads->requests[bad].done == reads->requests[bad].bytes) {
            bad++;
        }
        return qyi_home_far_failed(
            cache, st, reads->seqs[bad], reads->blocks[bad],
            st == QY_ERR_TIMEOUT ? "not read within cache.copy_timeout_ms; try again"
                                 : qyi_home_far_why(cache, reads->seqs[bad], reads->blocks[bad],
                                                    reads->requests[bad].error));
    }
    for (uint32_t i = 0; st == QY_OK && i < reads->n; i++) {
        st = check_pages(cache, reads, i);
    }
    return st;
}

static void clear_reads(struct qyi_far_reads *reads)
{
    reads->n = 0;
    reads->used = 0;
}

enum qy_status qyi_home_far_drop(struct qy_cache *cache)
{
    struct qyi_home_far *d = &cache->far;
    if (!d->store) {
        return QY_OK;
    }
    int pending = qyi_far_chunk_drop(cache);
    for (int i = 0; i < QY_MICRO_BATCHES; i++) {
        pending |= d->rows[i].active || d->push.questions[i].batch.n_left > 0;
        d->rows[i].active = 0;
    }
    for (int i = 0; i < QYI_FAR_PARTS; i++) {
        pending |= d->parts[i].batch.n_left > 0;
    }
    pending |= d->score.questions.batch.n_left > 0 || d->score.standin.batch.n_left > 0;
    return pending ? qyi_store_reset(d->store, d->timeout_ns) : QY_OK;
}

/* Bytes of a block, now; NULL, and *st says why. They are there until the next call. */
static const uint8_t *read_now(const struct qy_sequence *seq, uint32_t b, size_t at, size_t bytes,
                               enum qy_status *st)
{
    struct qy_cache *cache = seq->cache;
    struct qyi_far_reads *reads = &cache->far.parts[0];

    clear_reads(reads);
    const uint8_t *where = qyi_far_reads_add(reads, seq, b, at, bytes);
    *st = where ? qyi_far_reads_start(cache, reads) : QY_ERR_NOMEM;
    if (*st == QY_OK) {
        *st = qyi_far_reads_wait(cache, reads);
    }
    if (*st != QY_OK) {
        const enum qy_status drop = qyi_home_far_drop(cache);
        *st = drop == QY_OK ? *st : drop;
        return NULL;
    }
    return where;
}

/* A whole block into memory, of which its pages are checked; then its footer. */
static enum qy_status read_block(const struct qy_sequence *seq, uint32_t b, uint8_t *to)
{
    struct qy_cache *cache = seq->cache;
    const struct qyi_layout *l = &cache->layout;
    struct qyi_store_request request = {
        .op = QYI_STORE_READ, .slot = qyi_far_slot(seq, b), .data = to, .bytes = l->block_bytes};
    struct qyi_far_reads reads = {
        .requests = &request, .seqs = &seq, .blocks = &b, .n = 1, .capacity = 1};
    enum qy_status st = qyi_far_reads_start(cache, &reads);

    if (st == QY_OK) {
        st = qyi_far_reads_wait(cache, &reads);
    }
    while (reads.batch.n_left > 0 && qyi_store_reset(cache->far.store, UINT64_MAX) != QY_OK) {
        /* the request lies on this stack, and its memory is a frame */
    }
    if (st == QY_OK) {
        memcpy(qyi_block_footer(l, to), qyi_home_far_footer(seq, b), cache->far.footer_bytes);
    }
    return st;
}

/* ---- blocks that come up -------------------------------------------------------------------- */

/* QY_AGAIN: no frame is free. */
static enum qy_status raise(struct qy_sequence *seq, uint32_t b)
{
    struct qyi_home *home = &seq->cache->home;
    const uint32_t id = seq->blocks[b];
    uint8_t *frame;
    enum qy_status st = qyi_home_take_frame(home, id, &frame);

    if (st != QY_OK) {
        return st;
    }
    st = read_block(seq, b, frame);
    if (st == QY_OK && !seq->index[b]) { /* it lies with the block, and there alone */
        st = qyi_tier_load_index(seq->cache, id, frame);
    }
    if (st != QY_OK) {
        qyi_home_give_frame(home, id);
        return st;
    }
    qyi_home_far_forget(seq, b);
    seq->index[b] = qyi_tier_index(seq->cache, id);
    seq->homes[b] = frame;
    seq->addresses[b] = frame;
    return QY_OK;
}

enum qy_status qyi_home_far_bring(struct qy_sequence *seq, uint32_t below, uint32_t *from)
{
    struct qy_cache *cache = seq->cache;
    const uint32_t hot = qyi_home_far_hot(seq) >> cache->layout.shift;

    for (uint32_t b = seq->n_blocks; cache->far.store && b-- > hot;) {
        qyi_home_far_keep(seq, b);
        if (seq->homes[b]) {
            continue;
        }
        enum qy_status st = qyi_home_far_frame(cache);
        if (st == QY_OK) {
            st = raise(seq, b);
        }
        if (st != QY_OK) {
            return st;
        }
    }
    below = below < seq->n_blocks ? below : seq->n_blocks;
    for (uint32_t b = below; b-- > *from;) {
        if (seq->homes[b]) {
            continue;
        }
        const enum qy_status st = raise(seq, b);
        if (st == QY_AGAIN) {
            *from = b + 1;
            return QY_OK;
        }
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}

/* ---- copies and checks ----------------------------------------------------------------------- */

enum qy_status qyi_home_far_copy(struct qy_sequence *dst, const struct qy_sequence *src)
{
    struct qy_cache *cache = dst->cache;
    const struct qyi_layout *l = &cache->layout;
    const uint32_t n = src->n_blocks;
    enum qy_status st = QY_OK;

    for (uint32_t b = 0; st == QY_OK && b < n; b++) {
        const uint32_t tokens = b + 1 < n ? (b + 1) << l->shift : src->n_tokens;

        st = qyi_home_far_room(cache, 1);
        if (st == QY_OK) {
            st = qyi_sequence_reserve(dst, tokens);
        }
        if (st == QY_OK && src->homes[b]) {
            memcpy(dst->homes[b], src->homes[b], l->block_bytes);
        } else if (st == QY_OK) {
            st = read_block(src, b, dst->homes[b]);
        }
        if (st == QY_OK) {
            struct qyi_footer *footer = qyi_block_footer(l, dst->homes[b]);

            footer->id = dst->blocks[b];
            footer->generation = cache->home.generations[dst->blocks[b]];
            dst->n_tokens = tokens; /* from now on the block may go down */
            dst->n_sealed = b < src->n_sealed ? b + 1 : src->n_sealed;
            qyi_home_far_touch(dst, b);
        }
    }
    return st;
}

/* First slab, of one layer's, whose checksum differs from `sums`; n: none. */
static uint32_t bad_slab(const uint8_t *slabs, size_t bytes, uint32_t n, const uint64_t *sums,
                         size_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        if (qy_checksum(slabs + i * bytes, bytes, seed + i) != sums[i]) {
            return i;
        }
    }
    return n;
}

static size_t bad_sum_of(const struct qy_sequence *seq, uint32_t b)
{
    const struct qyi_layout *l = &seq->cache->layout;
    const uint64_t *sums = (const uint64_t *)(const void *)(qyi_home_far_footer(seq, b) + 1);
    const uint32_t n = l->n_kv_heads;
    enum qy_status st;

    for (size_t i = 0; i < l->n_sums; i += n) {
        const uint32_t layer = (uint32_t)(i % l->n_slabs) / n;
        const int rows = i < l->n_slabs;
        const size_t bytes = rows ? qyi_layout_home_slab(l, layer) : l->index_slab_bytes;
        const size_t at = rows ? qyi_layout_home_at(l, layer, 0) : qyi_layout_index_at(l, layer, 0);
        const uint8_t *slabs = read_now(seq, b, at, n * bytes, &st);
        const uint32_t bad = slabs ? bad_slab(slabs, bytes, n, sums + i, i) : 0;

        if (bad < n) { /* what cannot be read is as good as changed */
            return i + bad;
        }
    }
    return SIZE_MAX;
}

size_t qyi_home_far_bad_sum(const struct qy_sequence *seq, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; seq->n_down > 0 && i < n; i++) {
        const size_t bad = seq->homes[first + i] ? SIZE_MAX : bad_sum_of(seq, first + i);

        if (bad != SIZE_MAX) {
            return (size_t)i * seq->cache->layout.n_sums + bad;
        }
    }
    return SIZE_MAX;
}
