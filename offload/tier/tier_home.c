/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks on their way between the device and their homes. A block that became full is sent home by
 * the stream to the host while later steps run; it is sealed, with checksums over what arrived, once
 * it is there (settle), and its device block is given back.
 */
#include "offload/cache.h"

/* Where the copies of a sequence are listed: each has a part of its own, in use until they arrived. */
static struct qy_copy_item *copies_of(struct qy_sequence *seq)
{
    struct qy_cache *cache = seq->cache;

    return cache->tier.copies + (size_t)(cache->layout.n_runs + 1) * cache->max_blocks * seq->slot;
}

static struct qy_copy_item index_home(const struct qy_sequence *seq, uint32_t b)
{
    const struct qyi_layout *l = &seq->cache->layout;

    return (struct qy_copy_item){.from = seq->index[b],
                                 .to = seq->homes[b] + l->index_at,
                                 .bytes = l->n_slabs * l->index_slab_bytes};
}

/* Copies of the rows of a block: from the device to its home, or back. Returns how many. */
static uint32_t rows_of(const struct qy_sequence *seq, uint32_t b, int to_home,
                        struct qy_copy_item *items)
{
    const struct qyi_layout *l = &seq->cache->layout;
    uint32_t n = 0;

    for (uint32_t layer = 0, end; layer < l->n_layers; layer = end) {
        end = qyi_layout_run(l, layer);
        uint8_t *home = seq->homes[b] + qyi_layout_home_at(l, layer, 0);
        uint8_t *device = seq->device[b] + qyi_layout_slab_at(l, layer, 0);

        items[n++] = (struct qy_copy_item){.from = to_home ? device : home,
                                           .to = to_home ? home : device,
                                           .bytes = (size_t)(end - layer) * l->n_kv_heads *
                                                    qyi_layout_home_slab(l, layer),
                                           .codec = qyi_layout_codec(l, layer)};
    }
    return n;
}

/* Queues blocks n_sent .. full - 1: rows where rows != 0, and index bytes. */
static enum qy_status send(struct qy_sequence *seq, uint32_t full, int rows)
{
    struct qy_cache *cache = seq->cache;
    const struct qyi_layout *l = &cache->layout;
    struct qy_copy_item *items = copies_of(seq);
    uint32_t n = 0;

    if (full <= seq->n_sent) {
        return QY_OK;
    }
    enum qy_status st = qyi_tier_settle(seq, 1); /* the list of copies is free again */
    for (uint32_t b = seq->n_sent; st == QY_OK && b < full; b++) {
        if (rows) {
            n += rows_of(seq, b, 1, items + n);
        }
        if (l->index_slab_bytes > 0) {
            items[n++] = index_home(seq, b);
        }
    }
    if (st == QY_OK && n > 0) {
        st = qy_stream_copy(cache->tier.out, items, n);
    }
    if (st == QY_OK) {
        seq->sent = qy_stream_record(cache->tier.out);
        seq->n_sent = full;
    }
    return st;
}

static enum qy_status send_home(struct qy_sequence *seq)
{
    return send(seq, seq->n_tokens >> seq->cache->layout.shift, 1);
}

enum qy_status qyi_tier_send_index(struct qy_sequence *seq, uint32_t n_blocks)
{
    const enum qy_status st = send(seq, n_blocks, 0);

    return st == QY_OK ? qyi_tier_settle(seq, 1) : st;
}

enum qy_status qyi_tier_give_up(struct qy_cache *cache)
{
    struct qyi_tier *t = &cache->tier;
    const enum qy_status st = qy_stream_reset(t->out, t->timeout_ns);

    for (uint32_t i = 0; st == QY_OK && i < cache->params.max_sequences; i++) {
        cache->sequences[i].n_sent = cache->sequences[i].n_sealed;
    }
    t->counts.failures++;
    return st;
}

enum qy_status qyi_tier_copy_now(struct qy_cache *cache, struct qy_stream *stream,
                                 const struct qy_copy_item *items, uint32_t n)
{
    const enum qy_status st = qy_stream_copy(stream, items, n);

    if (st != QY_OK) {
        return st == QY_AGAIN ? QY_ERR_DEVICE : st;
    }
    return qy_stream_wait(stream, qy_stream_record(stream), cache->tier.timeout_ns);
}

enum qy_status qyi_tier_send_now(struct qy_cache *cache, const struct qy_copy_item *items,
                                 uint32_t n)
{
    const enum qy_status st = qyi_tier_copy_now(cache, cache->tier.out, items, n);

    if (st != QY_OK) {
        const enum qy_status given_up = qyi_tier_give_up(cache);
        return given_up == QY_OK ? st : given_up;
    }
    return QY_OK;
}

void qyi_tier_step_end(struct qy_sequence *seq)
{
    /* Once a coded block is home, its rows are what comes back from there: when it arrives must not
     * show. So it is waited for one step later, and at once where the batch must not show either. */
    const int coded = seq->cache->home_layers != NULL;
    enum qy_status st = coded ? qyi_tier_settle(seq, 1) : QY_OK;

    if (st == QY_OK) {
        st = send_home(seq);
    }
    if (st == QY_OK && (!coded || seq->cache->cuts_lists)) {
        st = qyi_tier_settle(seq, coded);
    }
    if (st != QY_OK) {
        (void)!qyi_tier_give_up(seq->cache); /* a step that lacks the room says so */
    }
}

/* First block that the sequence keeps on the device. */
static uint32_t kept_from(const struct qy_sequence *seq)
{
    const uint32_t full = seq->n_tokens >> seq->cache->layout.shift;
    const uint32_t keep = seq->cache->tier.plan.keep - 1;

    return full > keep ? full - keep : 0;
}

/* Gives back blocks that the sequence need not keep any more: sealed, and older than those kept. */
static void drop_old(struct qy_sequence *seq)
{
    const uint32_t from = kept_from(seq);

    for (; seq->device_from < seq->n_sealed && seq->device_from < from; seq->device_from++) {
        if (seq->device[seq->device_from] != NULL) {
            qyi_tier_keep_hot(seq, seq->device_from);
            qyi_tier_give_block(seq->cache, &seq->device[seq->device_from]);
        }
    }
}

enum qy_status qyi_tier_settle(struct qy_sequence *seq, int wait)
{
    struct qyi_tier *t = &seq->cache->tier;
    enum qy_status st = QY_OK;

    if (seq->n_sealed < seq->n_sent) {
        st = wait ? qy_stream_wait(t->out, seq->sent, t->timeout_ns)
                  : qy_stream_query(t->out, seq->sent);
        if (st == QY_PENDING) {
            return QY_OK;
        }
        if (st != QY_OK) {
            return st;
        }
        for (uint32_t b = seq->n_sealed; b < seq->n_sent; b++) {
            seq->addresses[b] = seq->homes[b];
        }
        qyi_sequence_seal(seq, seq->n_sent);
    }
    drop_old(seq);
    return QY_OK;
}

enum qy_status qyi_tier_forget(struct qy_sequence *seq, uint32_t n_tokens)
{
    struct qy_cache *cache = seq->cache;
    struct qyi_tier *t = &cache->tier;
    const uint32_t full = n_tokens >> cache->layout.shift;

    if (qyi_tier_settle(seq, 1) != QY_OK) {
        const enum qy_status st = qyi_tier_give_up(cache); /* no write may come later */

        if (st != QY_OK) {
            return st;
        }
    }
    seq->n_sent = seq->n_sent < full ? seq->n_sent : full;
    if (cache->home_layers) { /* rows of the block that is cut are coded again, and may change */
        n_tokens = full << cache->layout.shift;
    }
    for (uint32_t layer = 0; t->residency && layer < cache->layout.n_layers; layer++) {
        qyi_residency_forget(t->residency, qyi_sequence_set(seq, layer), n_tokens);
    }
    return QY_OK;
}

static enum qy_status copy_now(struct qy_cache *cache, const struct qy_copy_item *items, uint32_t n)
{
    struct qyi_tier *t = &cache->tier;
    enum qy_status st = n == 0 ? QY_OK : qy_stream_copy(t->in, items, n);

    if (st == QY_OK && n > 0) {
        st = qy_stream_wait(t->in, qy_stream_record(t->in), t->timeout_ns);
    }
    return st;
}

uint8_t *qyi_tier_index(const struct qy_cache *cache, uint32_t id)
{
    const size_t bytes = cache->layout.n_slabs * cache->layout.index_slab_bytes;
    const int by_frame = qyi_far_score_wanted(&cache->params) && cache->home.frames;

    return bytes > 0 ? cache->tier.index + (by_frame ? cache->home.frames[id] : id) * bytes : NULL;
}

enum qy_status qyi_tier_load_index(struct qy_cache *cache, uint32_t id, const uint8_t *frame)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qy_copy_item item = {.from = frame + l->index_at,
                                      .to = qyi_tier_index(cache, id),
                                      .bytes = l->n_slabs * l->index_slab_bytes};

    return item.bytes > 0 ? copy_now(cache, &item, 1) : QY_OK;
}

enum qy_status qyi_tier_bring(struct qy_sequence *seq)
{
    struct qy_cache *cache = seq->cache;
    struct qy_copy_item *items = copies_of(seq);
    const uint32_t old_from = seq->device_from;
    uint32_t from = kept_from(seq) < old_from ? kept_from(seq) : old_from;
    uint32_t n = 0;

    enum qy_status st = qyi_home_far_bring(seq, old_from, &from);
    if (st == QY_OK) {
        st = qyi_tier_reserve(seq, from, seq->n_tokens);
    }
    if (st != QY_OK) {
        return st;
    }
    for (uint32_t b = from; b < seq->n_blocks; b++) {
        if (b < old_from) {
            n += rows_of(seq, b, 0, items + n);
        }
        seq->addresses[b] = b < seq->n_sealed ? seq->homes[b] : seq->device[b];
    }
    seq->device_from = from;
    return copy_now(cache, items, n);
}

enum qy_status qyi_tier_copy(struct qy_sequence *dst, const struct qy_sequence *src)
{
    const struct qy_cache *cache = dst->cache;
    const struct qyi_layout *l = &cache->layout;
    struct qy_copy_item *items = copies_of(dst);
    const uint32_t full = src->n_tokens >> l->shift;
    uint32_t n = 0;

    dst->n_tokens = src->n_tokens;
    dst->n_sealed = src->n_sealed;
    dst->n_sent = src->n_sealed;
    dst->device_from = kept_from(dst);
    enum qy_status st = qyi_home_far_bring(dst, full, &dst->device_from);
    if (st == QY_OK) {
        st = qyi_tier_reserve(dst, dst->device_from, dst->n_tokens);
    }
    for (uint32_t b = dst->device_from; st == QY_OK && b < dst->n_blocks; b++) {
        if (src->device[b] != NULL) { /* as it is there, and the open block is nowhere else */
            items[n++] = (struct qy_copy_item){.from = src->device[b],
                                               .to = dst->device[b],
                                               .bytes = (size_t)l->n_slabs * l->slab_bytes};
        } else {
            n += rows_of(dst, b, 0, items + n);
        }
        if (b < full) {
            dst->addresses[b] = dst->homes[b];
        }
    }
    for (uint32_t b = 0; st == QY_OK && b < dst->n_blocks && l->index_slab_bytes > 0; b++) {
        if (dst->index[b]) { /* else it lies with the block, and there alone */
            items[n++] = (struct qy_copy_item){.from = src->index[b] ? src->index[b]
                                                                     : dst->homes[b] + l->index_at,
                                               .to = dst->index[b],
                                               .bytes = l->n_slabs * l->index_slab_bytes};
        }
    }
    return st == QY_OK ? copy_now(dst->cache, items, n) : st;
}
