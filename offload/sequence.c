/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences: open, close, truncate, copy, and the blocks they hold. The step adds to them. */
#include "offload/cache.h"

#include <string.h>

enum { COPY_PIECE_BYTES = 1 << 18 };

/* Where rows and index bytes of new blocks up to n_blocks are, on a discrete device. */
static void name_blocks(struct qy_sequence *seq, uint32_t n_blocks)
{
    const struct qy_cache *cache = seq->cache;

    for (uint32_t b = seq->n_blocks; cache->tier.present && b < n_blocks; b++) {
        seq->addresses[b] = seq->homes[b];
        seq->index[b] = qyi_tier_index(cache, seq->blocks[b]);
    }
}

enum qy_status qyi_sequence_reserve(struct qy_sequence *seq, uint32_t n_tokens)
{
    const uint32_t need = (uint32_t)qyi_layout_blocks(&seq->cache->layout, n_tokens);

    if (need <= seq->n_blocks) {
        return QY_OK;
    }
    const enum qy_status st = qyi_home_get(&seq->cache->home, need - seq->n_blocks,
                                           &seq->blocks[seq->n_blocks], &seq->homes[seq->n_blocks]);
    if (st == QY_OK) {
        name_blocks(seq, need);
        seq->n_blocks = need;
    }
    return st;
}

void qyi_sequence_release(struct qy_sequence *seq, uint32_t n_tokens, int clean)
{
    const uint32_t keep = (uint32_t)qyi_layout_blocks(&seq->cache->layout, n_tokens);

    if (seq->cache->tier.present) {
        qyi_tier_release(seq, keep);
    }
    while (seq->n_blocks > keep) {
        seq->n_blocks--;
        qyi_home_far_forget(seq, seq->n_blocks);
        qyi_home_put(&seq->cache->home, seq->blocks[seq->n_blocks], clean);
        seq->homes[seq->n_blocks] = NULL;
        seq->addresses[seq->n_blocks] = NULL;
    }
}

enum qy_status qy_sequence_open(struct qy_cache *cache, struct qy_sequence **seq,
                                struct qy_error *err)
{
    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        struct qy_sequence *s = &cache->sequences[i];

        if (!s->is_open) {
            s->is_open = 1;
            cache->n_open++;
            *seq = s;
            return QY_OK;
        }
    }
    return qy_error_set(err, QY_AGAIN,
                        "sequence: %u are open, the most that this cache was opened for; close one",
                        cache->params.max_sequences);
}

void qy_sequence_close(struct qy_sequence *seq)
{
    if (!seq || !seq->is_open) {
        return;
    }
    if (seq->in_step) {
        qy_step_abort(seq->cache);
    }
    qyi_policy_forget(seq->cache, seq->slot, 0);
    qyi_last_lists_forget(&seq->cache->last, seq->slot, 0);
    if (seq->cache->tier.present && qyi_tier_forget(seq, 0) != QY_OK) {
        return; /* the link is dead with a write under way: the slot and its blocks are lost */
    }
    seq->n_sealed = 0;
    seq->n_tokens = 0;
    qyi_sequence_release(seq, 0, 0);
    seq->device_from = 0;
    seq->generation++;
    seq->is_open = 0;
    seq->cache->n_open--;
}

uint32_t qy_sequence_tokens(const struct qy_sequence *seq)
{
    return seq->n_tokens;
}

const int32_t *qy_sequence_ids(const struct qy_sequence *seq)
{
    return seq->ids;
}

const uint8_t *qy_sequence_origins(const struct qy_sequence *seq)
{
    return seq->origins;
}

enum qy_status qy_sequence_truncate(struct qy_sequence *seq, uint32_t n_tokens)
{
    if (n_tokens > seq->n_tokens || seq->in_step) {
        return QY_ERR_INVALID;
    }
    struct qy_cache *cache = seq->cache;
    const uint32_t full = n_tokens >> cache->layout.shift;
    if (cache->tier.present) {
        const enum qy_status st = qyi_tier_forget(seq, n_tokens);

        if (st != QY_OK) {
            return st;
        }
    }
    if (full < seq->n_sealed) {
        const enum qy_status st = qyi_home_far_quiet(seq, full);

        if (st != QY_OK) {
            return st;
        }
        qyi_sequence_unseal(seq, full);
    }
    if (n_tokens < seq->n_tokens) {
        qyi_policy_forget(cache, seq->slot, n_tokens);
        qyi_last_lists_forget(&cache->last, seq->slot, n_tokens);
    }
    seq->n_tokens = n_tokens;
    qyi_sequence_release(seq, n_tokens, 0);
    return cache->tier.present ? qyi_tier_bring(seq) : QY_OK;
}

struct copy_job {
    struct qy_sequence *dst;
    const struct qy_sequence *src;
    size_t n_pieces; /* of one block */
};

static void copy_pieces(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct copy_job *job = arg;
    const size_t block_bytes = job->src->cache->layout.block_bytes;
    size_t begin;
    size_t end;

    qy_team_range(job->n_pieces * job->src->n_blocks, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t at = i % job->n_pieces * COPY_PIECE_BYTES;
        const size_t left = block_bytes - at;

        memcpy(job->dst->homes[i / job->n_pieces] + at, job->src->homes[i / job->n_pieces] + at,

               left < COPY_PIECE_BYTES ? left : COPY_PIECE_BYTES);
    }
}

/* Blocks of dst's own, all at once. */
static enum qy_status copy_blocks(struct qy_sequence *dst, const struct qy_sequence *src)
{
    struct qy_cache *cache = dst->cache;
    const struct qyi_layout *l = &cache->layout;
    const enum qy_status st = qyi_sequence_reserve(dst, src->n_tokens);

    if (st != QY_OK) {
        return st;
    }
    struct copy_job job = {.dst = dst,
                           .src = src,
                           .n_pieces = (l->block_bytes + COPY_PIECE_BYTES - 1) / COPY_PIECE_BYTES};
    qy_team_run(cache->rt->team, copy_pieces, &job);
    for (uint32_t i = 0; i < dst->n_blocks; i++) {
        struct qyi_footer *footer = qyi_block_footer(l, dst->homes[i]);

        footer->id = dst->blocks[i];
        footer->generation = cache->home.generations[dst->blocks[i]];
    }
    return QY_OK;
}

enum qy_status qy_sequence_copy(struct qy_sequence *dst, const struct qy_sequence *src)
{
    struct qy_cache *cache = dst->cache;

    if (dst == src || src->cache != cache || dst->n_tokens > 0 || dst->in_step || src->in_step) {
        return QY_ERR_INVALID;
    }
    enum qy_status st = cache->tier.present ? qyi_tier_settle((struct qy_sequence *)src, 1) : QY_OK;
    if (st == QY_OK) {
        st = cache->far.store ? qyi_home_far_copy(dst, src) : copy_blocks(dst, src);
    }
    if (st == QY_OK && cache->tier.present) {
        st = qyi_tier_copy(dst, src);
    }
    if (st != QY_OK) {
        dst->n_tokens = 0;
        dst->n_sealed = 0;
        dst->device_from = 0;
        qyi_sequence_release(dst, 0, 0);
        return st;
    }
    memcpy(dst->ids, src->ids, src->n_tokens * sizeof(*dst->ids));
    memcpy(dst->origins, src->origins, src->n_tokens);
    dst->n_tokens = src->n_tokens;
    dst->n_sealed = src->n_sealed;
    qyi_policy_forget(cache, dst->slot, 0);
    qyi_last_lists_copy(&cache->last, dst->slot, src->slot);
    return QY_OK;
}
