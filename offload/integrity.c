/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing and checking. A sealed block carries the XXH3 of each of its slabs, those of the index too, and the chain hash of
 * the token ids of its sequence up to its last token: equal hashes mean equal prefixes.
 * Slabs are independent, so the team shares them; the chain is short and serial.
 */
#include "offload/cache.h"

enum { MAX_THREADS = 256 };

struct slab_job {
    const struct qy_sequence *seq;
    uint32_t first, n;       /* blocks                                      */
    size_t bad[MAX_THREADS]; /* first slab of a thread that differs; checking */
};

static void seal_slabs(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct slab_job *job = arg;
    const struct qyi_layout *l = &job->seq->cache->layout;
    size_t begin;
    size_t end;

    qy_team_range((size_t)job->n * l->n_sums, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        uint8_t *block = job->seq->homes[job->first + i / l->n_sums];
        const size_t slab = i % l->n_sums;

        qyi_block_sums(l, block)[slab] = qyi_block_sum(l, block, slab);
    }
}

static void check_slabs(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct slab_job *job = arg;
    const struct qyi_layout *l = &job->seq->cache->layout;
    size_t begin;
    size_t end;

    qy_team_range((size_t)job->n * l->n_sums, thread, n_threads, &begin, &end);
    job->bad[thread] = SIZE_MAX;
    for (size_t i = begin; i < end; i++) {
        uint8_t *block = job->seq->homes[job->first + i / l->n_sums];
        const size_t slab = i % l->n_sums;

        if (block && qyi_block_sums(l, block)[slab] != qyi_block_sum(l, block, slab)) {
            job->bad[thread] = i;
            return;
        }
    }
}

/* Chain hash of block i from that of block i - 1. Never 0: that means not sealed. */
static uint64_t chain_hash(const struct qy_sequence *seq, uint32_t i, uint64_t before)
{
    const struct qyi_layout *l = &seq->cache->layout;
    const int32_t *ids = seq->ids + ((size_t)i << l->shift);
    const uint64_t hash = qy_checksum(ids, l->block_tokens * sizeof(*ids), before);

    return hash != 0 ? hash : 1;
}

void qyi_sequence_seal(struct qy_sequence *seq, uint32_t full)
{
    const struct qyi_layout *l = &seq->cache->layout;

    if (full <= seq->n_sealed) {
        return;
    }
    struct slab_job job = {.seq = seq, .first = seq->n_sealed, .n = full - seq->n_sealed};
    qy_team_run(seq->cache->rt->team, seal_slabs, &job);

    uint64_t chain = 0;
    if (seq->n_sealed > 0) {
        chain = qyi_sequence_footer(seq, seq->n_sealed - 1)->chain_hash;
    }
    for (; seq->n_sealed < full; seq->n_sealed++) {
        const uint32_t i = seq->n_sealed;

        chain = chain_hash(seq, i, chain);
        *qyi_block_footer(l, seq->homes[i]) =
            (struct qyi_footer){.id = seq->blocks[i],
                                .generation = seq->cache->home.generations[seq->blocks[i]],
                                .chain_hash = chain,
                                .n_slabs = l->n_slabs};
    }
}

void qyi_sequence_unseal(struct qy_sequence *seq, uint32_t n_sealed)
{
    for (; seq->n_sealed > n_sealed; seq->n_sealed--) {
        const uint32_t i = seq->n_sealed - 1;
        struct qyi_footer *footer = qyi_sequence_footer(seq, i);

        footer->chain_hash = 0;
        footer->generation = ++seq->cache->home.generations[seq->blocks[i]];
    }
}

uint64_t qy_sequence_block_hash(const struct qy_sequence *seq, uint32_t block)
{
    if (block >= seq->n_sealed) {
        return 0;
    }
    return qyi_sequence_footer(seq, block)->chain_hash;
}

/* First of blocks first .. first + n - 1 whose footer does not fit its token ids and the footer before
 * it; UINT32_MAX: none. */
static uint32_t bad_footer(const struct qy_sequence *seq, uint32_t first, uint32_t n)
{
    const struct qyi_layout *l = &seq->cache->layout;
    uint64_t chain = first > 0 ? qyi_sequence_footer(seq, first - 1)->chain_hash : 0;

    for (uint32_t i = first; i < first + n; i++) {
        const struct qyi_footer *f = qyi_sequence_footer(seq, i);

        chain = chain_hash(seq, i, chain);
        if (f->chain_hash != chain || f->n_slabs != l->n_slabs || f->id != seq->blocks[i] ||
            f->generation != seq->cache->home.generations[seq->blocks[i]]) {
            return i;
        }
    }
    return UINT32_MAX;
}

/* First checksum, counted from block `first` on, that differs; SIZE_MAX: none. */
static size_t bad_sum(const struct qy_sequence *seq, uint32_t first, uint32_t n)
{
    const uint32_t n_threads = qy_team_size(seq->cache->rt->team);
    struct slab_job job = {.seq = seq, .first = first, .n = n};
    size_t bad = SIZE_MAX;

    qy_team_run(seq->cache->rt->team, check_slabs, &job);
    for (uint32_t i = 0; i < n_threads; i++) {
        bad = job.bad[i] < bad ? job.bad[i] : bad;
    }
    const size_t on_disk = qyi_home_far_bad_sum(seq, first, n);
    return on_disk < bad ? on_disk : bad;
}

static enum qy_status verify(const struct qy_sequence *seq, struct qy_damage *damage,
                             struct qy_error *err)
{
    const struct qyi_layout *l = &seq->cache->layout;
    const uint32_t footer = bad_footer(seq, 0, seq->n_sealed);
    const size_t bad = bad_sum(seq, 0, seq->n_sealed);

    if (footer == UINT32_MAX && bad == SIZE_MAX) {
        return QY_OK;
    }
    const uint32_t block = bad == SIZE_MAX ? UINT32_MAX : (uint32_t)(bad / l->n_sums);
    *damage =
        (struct qy_damage){.block = footer < block ? footer : block, .ids = footer != UINT32_MAX};
    damage->first_token = damage->block << l->shift;
    if (footer <= block) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "sequence %u block %u: its footer does not match its token ids; the "
                            "memory was changed after sealing; recompute the sequence",
                            seq->slot, footer);
    }
    const uint32_t sum = (uint32_t)(bad % l->n_sums);
    const uint32_t slab = sum % l->n_slabs;
    return qy_error_set(err, QY_ERR_CORRUPT,
                        "sequence %u block %u: checksum of %slayer %u KV head %u differs; the "
                        "memory was changed after sealing; recompute the sequence",
                        seq->slot, block, sum < l->n_slabs ? "" : "the index of ",
                        slab / l->n_kv_heads, slab % l->n_kv_heads);
}

enum qy_status qy_sequence_verify(const struct qy_sequence *seq, struct qy_error *err)
{
    struct qy_damage damage;

    return verify(seq, &damage, err);
}

enum qy_status qy_sequence_check(struct qy_sequence *seq, uint32_t max_blocks,
                                 struct qy_damage *damage, struct qy_error *err)
{
    for (uint32_t left = max_blocks < seq->n_sealed ? max_blocks : seq->n_sealed; left > 0;) {
        const uint32_t first = seq->checked < seq->n_sealed ? seq->checked : 0;
        const uint32_t n = left < seq->n_sealed - first ? left : seq->n_sealed - first;

        if (bad_footer(seq, first, n) != UINT32_MAX || bad_sum(seq, first, n) != SIZE_MAX) {
            seq->checked = 0;
            return verify(seq, damage, err); /* what comes before may be damaged too */
        }
        seq->checked = first + n;
        left -= n;
    }
    return QY_OK;
}

enum qy_status qy_sequence_check_step(struct qy_sequence *seq, struct qy_damage *damage,
                                      struct qy_error *err)
{
    const uint64_t steps = (uint64_t)seq->cache->params.settings.verify_steps;

    if (steps == 0) {
        return QY_OK;
    }
    return qy_sequence_check(seq, (uint32_t)((seq->n_sealed + steps - 1) / steps), damage, err);
}
