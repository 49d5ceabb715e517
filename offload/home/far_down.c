/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks on their way down to the file: which, when, and what follows. See home_far.h.
 *
 * A block goes down when it is sealed, holds neither sinks nor the window, and no other such block of
 * the cache was read longer ago (rows found on the device are not read). A frame is free, and zeroed,
 * when the write of its block is done; until then everything reads the frame.
 */
#include "offload/cache.h"

#include <string.h>

/* A policy that scores the window or writes its index may look at rows a little before it: quest's
 * pages are 16 tokens. */
enum { WINDOW_SLACK = 16 };

uint64_t qyi_home_far_least(const struct qy_cache *cache)
{
    const struct qy_cache_params *p = &cache->params;
    const struct qyi_layout *l = &cache->layout;
    const uint64_t window = (uint64_t)p->settings.window + WINDOW_SLACK;
    const uint64_t kept =
        qyi_layout_blocks(l, (uint64_t)p->settings.sinks) + qyi_layout_blocks(l, window) + 1;

    return p->max_sequences * kept + qyi_layout_blocks(l, p->max_step_tokens) + 1;
}

uint32_t qyi_home_far_hot(const struct qy_sequence *seq)
{
    const uint32_t hot = (uint32_t)seq->cache->params.settings.window + WINDOW_SLACK;

    return seq->n_tokens > hot ? seq->n_tokens - hot : 0;
}

int qyi_home_far_is_whole(const struct qy_sequence *seq)
{
    uint32_t b = qyi_home_far_hot(seq) >> seq->cache->layout.shift;

    while (seq->n_down > 0 && b < seq->n_blocks && seq->homes[b]) {
        b++;
    }
    return seq->n_down == 0 || b == seq->n_blocks;
}

void qyi_home_far_touch(const struct qy_sequence *seq, uint32_t b)
{
    if (seq->cache->far.store) {
        seq->cache->far.last_use[seq->blocks[b]] = seq->cache->n_steps;
    }
}

/* That reads the frame of a block, be it for nobody; NULL: none does. */
static struct qyi_far_write *write_of(struct qyi_home_far *d, const struct qy_sequence *seq,
                                      uint32_t b)
{
    for (uint32_t i = 0; seq->homes[b] && i < QYI_FAR_WRITES; i++) {
        if (d->writes[i].busy && d->writes[i].request.data == seq->homes[b]) {
            return &d->writes[i];
        }
    }
    return NULL;
}

/* Blocks of a sequence that may go down: *first .. return value - 1. */
static uint32_t cold_blocks(const struct qy_sequence *seq, uint32_t *first)
{
    const struct qy_cache *cache = seq->cache;
    const uint32_t end = qyi_home_far_hot(seq) >> cache->layout.shift;

    *first = (uint32_t)qyi_layout_blocks(&cache->layout, (uint64_t)cache->params.settings.sinks);
    return end < seq->n_sealed ? end : seq->n_sealed;
}

struct victim {
    struct qy_sequence *seq;
    uint32_t block;
    uint64_t last_use;
};

/* The n blocks (at most) that were read longest ago, the oldest first; of equal ones the earlier. */
static uint32_t find_victims(struct qy_cache *cache, uint32_t n, struct victim *victims)
{
    struct qyi_home_far *d = &cache->far;
    uint32_t found = 0;

    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        struct qy_sequence *seq = &cache->sequences[i];
        uint32_t b;
        const uint32_t end = cold_blocks(seq, &b);

        for (; seq->is_open && b < end; b++) {
            const struct victim v = {seq, b, d->last_use[seq->blocks[b]]};
            uint32_t at = found;

            if (!seq->homes[b] || (found == n && victims[n - 1].last_use <= v.last_use) ||
                write_of(d, seq, b)) {
                continue;
            }
            for (found += found<n; at> 0 && victims[at - 1].last_use > v.last_use; at--) {
                if (at < n) {
                    victims[at] = victims[at - 1];
                }
            }
            victims[at] = v;
        }
    }
    return found;
}

struct sum_job {
    const struct qy_cache *cache;
    const struct victim *victims;
    const uint32_t *slots;
    uint32_t n;
};

/* Checksums of the pages of what goes down. */
static void sum_pages(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct sum_job *job = arg;
    const struct qyi_home_far *d = &job->cache->far;
    size_t begin;
    size_t end;

    const size_t page_bytes = d->store->granule;

    qy_team_range((size_t)job->n * d->slot_pages, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const struct victim *v = &job->victims[i / d->slot_pages];
        const size_t page = i % d->slot_pages;
        const size_t place = (size_t)job->slots[i / d->slot_pages] * d->slot_pages + page;

        d->sums[place] =
            qy_checksum(v->seq->homes[v->block] + page * page_bytes, page_bytes, place);
    }
}

/* The block's content, for stores that are not this process's own. */
static struct qyi_store_name name_of(const struct qy_sequence *seq, uint32_t b)
{
    return (struct qyi_store_name){.serial = seq->cache->far.serials + seq->generation + 1,
                                   .generation = ++seq->cache->far.n_named,
                                   .sequence = seq->slot,
                                   .block = b};
}

static void start_write(struct qy_cache *cache, struct qyi_far_write *w, const struct victim *v,
                        uint32_t slot)
{
    const struct qyi_layout *l = &cache->layout;
    struct qyi_home_far *d = &cache->far;
    uint8_t *home = v->seq->homes[v->block];

    memcpy(d->footers + slot * d->footer_bytes, qyi_block_footer(l, home), d->footer_bytes);
    *w = (struct qyi_far_write){.busy = 1,
                                .seq = v->seq,
                                .block = v->block,
                                .slot = slot,
                                .frame = QYI_NO_FRAME,
                                .begin_ns = qy_clock_ns(),
                                .request = {.op = QYI_STORE_WRITE,
                                            .slot = slot,
                                            .data = home,
                                            .bytes = l->block_bytes,
                                            .name = name_of(v->seq, v->block)},
                                .batch = {.n = 1}};
    w->batch.requests = &w->request;
    if (qyi_store_submit(d->store, &w->batch) != QY_OK) {
        w->batch.n_left = 0; /* the disk does not come back from a stall: as a write that failed */
        w->batch.failed = 1;
    }
}

/* Starts to write n blocks down, at most; how many. */
static uint32_t start_writes(struct qy_cache *cache, uint32_t n)
{
    struct qyi_home_far *d = &cache->far;
    struct victim victims[QYI_FAR_WRITES];
    uint32_t slots[QYI_FAR_WRITES];
    uint32_t places[QYI_FAR_WRITES];
    uint32_t most = 0;

    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        if (!d->writes[i].busy) {
            places[most++] = i;
        }
    }
    most = most < n ? most : n;
    most = most < d->n_free ? most : d->n_free;
    const uint32_t found = most == 0 ? 0 : find_victims(cache, most, victims);
    for (uint32_t i = 0; i < found; i++) {
        slots[i] = d->free_slots[--d->n_free];
    }
    struct sum_job job = {.cache = cache, .victims = victims, .slots = slots, .n = found};
    if (found > 0 && d->sums) {
        qy_team_run(cache->rt->team, sum_pages, &job);
    }
    for (uint32_t i = 0; i < found; i++) {
        start_write(cache, &d->writes[places[i]], &victims[i], slots[i]);
    }
    return found;
}

static void give_slot(struct qyi_home_far *d, uint32_t slot)
{
    qyi_store_release(d->store, slot);
    d->free_slots[d->n_free++] = slot;
}

/* A write is done: its block's home is the file from now on, or still the frame. */
static void settle_write(struct qy_cache *cache, struct qyi_far_write *w)
{
    struct qyi_home_far *d = &cache->far;
    struct qy_sequence *seq = w->seq;

    w->busy = 0;
    if (w->frame != QYI_NO_FRAME) {
        qy_pool_put(cache->home.pool, w->frame, 1);
    }
    if (!seq || w->batch.failed) {
        give_slot(d, w->slot);
        if (seq) {
            d->write_failures++;
            qyi_home_far_touch(seq, w->block); /* others are tried before it is tried again */
        }
        return;
    }
    d->slots[seq->blocks[w->block]] = w->slot + 1;
    qyi_home_give_frame(&cache->home, seq->blocks[w->block]);
    seq->homes[w->block] = NULL;
    seq->addresses[w->block] = NULL;
    if (qyi_far_score_wanted(&cache->params)) { /* its place was the frame's */
        seq->index[w->block] = NULL;
    }
    seq->n_down++;
}

/* Takes note of finished writes; gives up those that take too long. How many failed. */
static uint32_t settle_writes(struct qy_cache *cache)
{
    struct qyi_home_far *d = &cache->far;
    const uint64_t before = d->write_failures;
    const uint64_t now = qy_clock_ns();

    qyi_store_poll(d->store);
    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        struct qyi_far_write *w = &d->writes[i];

        if (w->busy && w->batch.n_left > 0 && now - w->begin_ns > d->timeout_ns) {
            (void)!qyi_store_reset(d->store, d->timeout_ns); /* else it is tried again next time */
        }
        if (w->busy && w->batch.n_left == 0) {
            settle_write(cache, w);
        }
    }
    return (uint32_t)(d->write_failures - before);
}

/* The write that began first; NULL: none is under way. */
static struct qyi_far_write *oldest_write(struct qyi_home_far *d)
{
    struct qyi_far_write *oldest = NULL;

    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        if (d->writes[i].busy && (!oldest || d->writes[i].begin_ns < oldest->begin_ns)) {
            oldest = &d->writes[i];
        }
    }
    return oldest;
}

static uint32_t n_busy(const struct qyi_home_far *d)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        n += d->writes[i].busy != 0;
    }
    return n;
}

/* Blocks that are on their way home from the device are sealed, so that they may go down. Were there any? */
static int settle_blocks(struct qy_cache *cache)
{
    int any = 0;

    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        struct qy_sequence *seq = &cache->sequences[i];
        const uint32_t before = seq->n_sealed;

        any |= seq->is_open && qyi_tier_settle(seq, 1) == QY_OK && seq->n_sealed > before;
    }
    return any;
}

/* n free frames; as qyi_home_far_room. */
static enum qy_status free_frames(struct qy_cache *cache, uint64_t n)
{
    struct qyi_home *home = &cache->home;
    struct qyi_home_far *d = &cache->far;
    uint32_t failed = 0;

    while (n > qy_pool_free_count(home->pool)) {
        if (!d->store) {
            return QY_AGAIN;
        }
        failed += settle_writes(cache);
        const uint64_t have = (uint64_t)qy_pool_free_count(home->pool) + n_busy(d);
        if (n > have && failed < QYI_FAR_WRITES) {
            (void)start_writes(cache, (uint32_t)(n - have));
        }
        struct qyi_far_write *w = oldest_write(d);
        if (n > qy_pool_free_count(home->pool) && !w && settle_blocks(cache)) {
            continue;
        }
        if (n > qy_pool_free_count(home->pool) && !w) {
            return QY_AGAIN; /* nothing may go down, the file is full, or writing fails */
        }
        if (w && qyi_store_wait(d->store, &w->batch, d->timeout_ns) == QY_ERR_TIMEOUT &&
            qyi_store_reset(d->store, d->timeout_ns) != QY_OK) {
            return QY_AGAIN;
        }
        failed += settle_writes(cache);
    }
    return QY_OK;
}

enum qy_status qyi_home_far_room(struct qy_cache *cache, uint64_t n)
{
    return n > qyi_home_free_ids(&cache->home) ? QY_AGAIN : free_frames(cache, n);
}

enum qy_status qyi_home_far_frame(struct qy_cache *cache)
{
    return free_frames(cache, 1);
}

int qyi_home_far_step_end(struct qy_cache *cache)
{
    struct qyi_home_far *d = &cache->far;

    if (!d->store) {
        return 0;
    }
    (void)settle_writes(cache);
    const uint32_t have = qy_pool_free_count(cache->home.pool) + n_busy(d);
    if (have < d->low_water) {
        (void)start_writes(cache, d->low_water - have);
    }
    return qyi_store_tend(d->store);
}

int qy_cache_tend(struct qy_cache *cache)
{
    return cache->step.active ? 0 : qyi_home_far_step_end(cache);
}

enum qy_status qyi_home_far_quiet(struct qy_sequence *seq, uint32_t first)
{
    struct qyi_home_far *d = &seq->cache->far;

    for (uint32_t b = first; d->store && b < seq->n_blocks; b++) {
        struct qyi_far_write *w = write_of(d, seq, b);

        if (!w) {
            continue;
        }
        if (qyi_store_wait(d->store, &w->batch, d->timeout_ns) == QY_ERR_TIMEOUT &&
            qyi_store_reset(d->store, d->timeout_ns) != QY_OK) {
            return QY_ERR_TIMEOUT;
        }
        settle_write(seq->cache, w);
    }
    return QY_OK;
}

void qyi_home_far_keep(struct qy_sequence *seq, uint32_t b)
{
    struct qyi_far_write *w = write_of(&seq->cache->far, seq, b);

    if (w) {
        w->seq = NULL; /* what it still writes, nobody will read */
    }
}

void qyi_home_far_forget(struct qy_sequence *seq, uint32_t b)
{
    struct qyi_home_far *d = &seq->cache->far;
    const uint32_t id = seq->blocks[b];

    if (!d->store) {
        return;
    }
    struct qyi_far_write *w = write_of(d, seq, b);
    if (w) { /* the store reads the frame still: others get it when it does not */
        w->seq = NULL;
        w->frame = seq->cache->home.frames[id];
        seq->cache->home.frames[id] = QYI_NO_FRAME;
    }
    if (d->nobody.seq == seq && d->nobody.block == b) {
        d->nobody.seq = NULL;
    }
    if (d->slots[id] != 0) {
        give_slot(d, d->slots[id] - 1);
        d->slots[id] = 0;
        seq->n_down--;
    }
    d->last_use[id] = seq->cache->n_steps;
}
