/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a layer's lists of token ids to rows on the device: what is resident is looked up, slots are
 * taken for what is not, and the pulls of all (slice, KV head) start as one command. A list becomes a
 * list of row numbers in the same order, so that attention over it gives the bits of a device that
 * reads the homes.
 */
#include "offload/cache.h"

static size_t list_at(const struct qy_cache *cache, size_t place)
{
    return place * cache->ids_capacity;
}

const uint32_t *qyi_tier_numbers(const struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    return cache->tier.numbers + list_at(cache, (size_t)slice * cache->layout.n_kv_heads + head);
}

/* Row numbers of those of a list that lie in device blocks: places begin .. n - 1. */
static void number_blocks(const struct qy_sequence *seq, uint32_t layer, uint32_t head,
                          const uint32_t *ids, uint32_t begin, uint32_t n, uint32_t *numbers)
{
    const struct qy_cache *cache = seq->cache;
    const struct qyi_layout *l = &cache->layout;
    const uint32_t slab = (layer * l->n_kv_heads + head) * l->block_tokens;
    const uint16_t now = qyi_tier_now(cache);

    for (uint32_t i = begin; i < n; i++) {
        const uint8_t *block = seq->device[ids[i] >> l->shift];
        const size_t row = (size_t)(block - cache->tier.rows) / l->row_bytes;

        const uint32_t token = ids[i] & (l->block_tokens - 1);

        numbers[i] = (uint32_t)row + slab + token;
        qyi_tier_asked(seq, layer, head, ids[i] >> l->shift)[token] = now;
    }
}

/* Looks up the list of (slice, KV head). What is missing is left to take_list. */
static void find_list(struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head)
{
    struct qyi_tier *t = &cache->tier;
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const uint32_t *ids = qyi_step_list(cache, slice, head);
    uint32_t *numbers = t->numbers + list_at(cache, place);
    const uint32_t n = cache->step.n_listed[place];
    const uint32_t n_low = qyi_selection_place(ids, n, seq->device_from << cache->layout.shift);

    t->n_missed[place] = qyi_residency_find(t->residency, qyi_sequence_set(seq, layer), head, ids,
                                            n_low, numbers, t->misses + list_at(cache, place));
    t->n_found[place] = n_low - t->n_missed[place];
    t->n_numbers[place] = n;
    number_blocks(seq, layer, head, ids, n_low, n, numbers);
}

/* Slots for what the list misses. */
static enum qy_status take_list(struct qy_cache *cache, uint32_t layer, uint32_t slice,
                                uint32_t head)
{
    struct qyi_tier *t = &cache->tier;
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const uint32_t *ids = qyi_step_list(cache, slice, head);
    const uint32_t *misses = t->misses + list_at(cache, place);
    uint32_t *numbers = t->numbers + list_at(cache, place);
    const uint32_t n = t->n_missed[place];

    if (qyi_residency_take(t->residency, qyi_sequence_set(seq, layer), head, ids, misses, n,
                           numbers) != QY_OK) {
        return QY_ERR_NOMEM; /* slots are reserved for the longest lists: this cannot be */
    }
    for (uint32_t i = 0; i < n; i++) {
        t->pull_ids[list_at(cache, place) + i] = ids[misses[i]];
        t->pull_slots[list_at(cache, place) + i] = numbers[misses[i]];
    }
    t->n_taken[place] = n;
    return QY_OK;
}

/* What is pushed: the ids of rows to attend to at their home, and a list without them. */
static void leave_out(struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    struct qyi_tier *t = &cache->tier;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const uint32_t *ids = qyi_step_list(cache, slice, head);
    const uint32_t *misses = t->misses + list_at(cache, place);
    const uint32_t below = qyi_list_below(cache, slice, head);
    uint32_t *numbers = t->numbers + list_at(cache, place);
    uint32_t n = 0;
    uint32_t n_home = 0;
    uint32_t j = 0;

    for (uint32_t i = 0; i < t->n_numbers[place]; i++) {
        const int missed = j < t->n_missed[place] && misses[j] == i;

        if (missed || i < below) {
            t->pull_ids[list_at(cache, place) + n_home++] = ids[i];
        } else {
            numbers[n++] = numbers[i];
        }
        j += (uint32_t)missed;
    }
    t->n_numbers[place] = n;
    t->push.n_rows[place] = n_home;
    t->push.n_host[place] = n_home; /* see qyi_far_push_ask */
}

struct place_job {
    struct qy_cache *cache;
    uint32_t layer;
    int find, take; /* which halves */
};

static void find_slice(struct qy_cache *cache, uint32_t layer, uint32_t slice)
{
    struct qyi_tier *t = &cache->tier;
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const int lists = qyi_slice_lists(cache, &cache->step.slices[slice], layer);

    if (lists) {
        qyi_residency_begin(t->residency, qyi_sequence_set(cache->step.slices[slice].seq, layer));
    }
    for (uint32_t h = 0; h < n_heads; h++) {
        const size_t place = (size_t)slice * n_heads + h;

        t->n_found[place] = 0;
        t->n_missed[place] = 0;
        t->n_taken[place] = 0;
        if (lists) {
            find_list(cache, layer, slice, h);
        }
    }
}

static enum qy_status take_slice(struct qy_cache *cache, uint32_t layer, uint32_t slice)
{
    const uint32_t n_heads = cache->layout.n_kv_heads;
    enum qy_status st = QY_OK;

    for (uint32_t h = 0; st == QY_OK && h < n_heads; h++) {
        const size_t place = (size_t)slice * n_heads + h;

        if (qyi_pushes(&cache->tier, place)) {
            leave_out(cache, slice, h);
        } else if (cache->tier.n_missed[place] > 0) {
            st = take_list(cache, layer, slice, h);
        }
    }
    return st;
}

/* Threads share the slices: each has sets of its own. All heads of a slice are looked up before slots
 * are taken: what one takes is none that another asks for. */
static void place_slices(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct place_job *job = arg;
    const struct qyi_micro_batch *now = qyi_step_now(job->cache);
    size_t begin;
    size_t end;

    qy_team_range(now->end - now->begin, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const uint32_t slice = now->begin + (uint32_t)i;

        if (job->find) {
            find_slice(job->cache, job->layer, slice);
        }
        if (job->take) {
            job->cache->tier.slice_status[slice] = take_slice(job->cache, job->layer, slice);
        }
    }
}

/* What a micro-batch took and did not get is not resident. */
static void forget_pulls(struct qy_cache *cache, uint32_t micro_batch)
{
    const struct qyi_micro_batch *m = &cache->step.micro[micro_batch];
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[micro_batch];

    for (uint32_t i = m->begin; fetch->is_open && i < m->end; i++) {
        const uint32_t set = qyi_sequence_set(cache->step.slices[i].seq, fetch->layer);

        for (uint32_t h = 0; h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;

            qyi_residency_drop(t->residency, set, h, t->pull_ids + list_at(cache, place),
                               t->n_taken[place]);
            t->n_taken[place] = 0;
        }
    }
    fetch->is_open = 0;
}

/* One command for all that is missing. */
static enum qy_status start_pulls(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[cache->step.now];
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qy_gather_item *gathers = t->gathers + (size_t)now->begin * n_heads;
    uint32_t n = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        struct qy_sequence *seq = cache->step.slices[i].seq;

        for (uint32_t h = 0; h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;
            const uint32_t n_home = qyi_far_rows_split(cache, i, h);

            if (n_home == 0) {
                continue;
            }
            gathers[n] = (struct qy_gather_item){.rows = qyi_home_rows(seq, layer, h),
                                                 .ids = t->pull_ids + list_at(cache, place),
                                                 .slots = t->pull_slots + list_at(cache, place),
                                                 .n = n_home,
                                                 .stamp = qyi_tier_stamp(seq, layer, h),
                                                 .stamps = t->stamps};
            n++;
        }
    }
    const int ahead = qyi_ahead_met(cache, layer);
    *fetch = (struct qyi_fetch){.layer = layer, .is_open = 1};
    enum qy_status st = n > 0 ? qy_stream_gather(t->in, gathers, n, t->rows) : QY_OK;
    if (st != QY_OK) {
        forget_pulls(cache, cache->step.now);
        return st == QY_AGAIN ? QY_ERR_DEVICE : st; /* a step queues few commands */
    }
    if (n > 0 || ahead) { /* what was pulled ahead lies before this place of the stream */
        fetch->here = qy_stream_record(t->in);
    }
    int from_disk;
    st = qyi_far_rows_start(cache, layer, &from_disk);
    if (st != QY_OK) {
        const enum qy_status reset = qyi_tier_reset(cache);
        return reset == QY_OK ? st : reset;
    }
    fetch->is_open = n > 0 || ahead || from_disk;
    return QY_OK;
}

static void add_counts(struct qyi_tier_counts *sum, const struct qyi_tier_counts *more)
{
    sum->asked += more->asked;
    sum->found += more->found;
    sum->pulled += more->pulled;
    sum->pushed += more->pushed;
}

/* Also what the plan came to. begin_ns: when it began. */
static void count(struct qy_cache *cache, uint32_t layer, uint64_t begin_ns)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_tier *t = &cache->tier;
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_plan_made made = {
        .plans = 1, .pull_ns = t->push.pull_ns, .push_ns = t->push.push_ns};
    struct qyi_tier_counts counts = {0};

    for (uint32_t i = now->begin; i < now->end; i++) {
        for (uint32_t h = 0; cache->step.slices[i].counted && h < n_heads; h++) {
            const size_t place = (size_t)i * n_heads + h;
            const uint32_t n_pushed = t->n_missed[place] - t->n_taken[place];

            counts.found += t->n_found[place];
            counts.asked += t->n_found[place] + t->n_missed[place];
            counts.pulled += t->n_taken[place];
            counts.pushed += n_pushed;
            made.items++;
            made.n_pull += t->n_taken[place] > 0;
            made.n_push += n_pushed > 0;
        }
    }
    made.pull_rows = counts.pulled;
    made.push_rows = counts.pushed;
    if (counts.asked > 0) {
        add_counts(&t->counts, &counts);
        add_counts(&t->layers[layer], &counts);
        qyi_plan_add(&t->plans, &made);
        qyi_trace_plan(cache, &made, begin_ns, layer);
    }
}

enum qy_status qyi_tier_fetch(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_tier *t = &cache->tier;
    struct place_job job = {.cache = cache, .layer = layer, .find = 1, .take = !t->push.chosen};
    enum qy_status st = QY_OK;
    uint64_t begin;

    t->fetches[cache->step.now].n_push = 0;
    if (t->residency == NULL) {
        return QY_OK;
    }
    qy_team_run(cache->rt->team, place_slices, &job);
    begin = cache->lanes.steps != NULL ? qy_clock_ns() : 0;
    if (t->push.chosen) {
        qyi_push_plan(cache, layer);
        job.find = 0;
        job.take = 1;
        qy_team_run(cache->rt->team, place_slices, &job);
    }
    for (uint32_t i = now->begin; st == QY_OK && i < now->end; i++) {
        st = t->slice_status[i];
    }
    if (st != QY_OK) {
        t->fetches[cache->step.now] = (struct qyi_fetch){.layer = layer, .is_open = 1};
        forget_pulls(cache, cache->step.now);
        return st;
    }
    count(cache, layer, begin);
    return start_pulls(cache, layer);
}

enum qy_status qyi_tier_wait(struct qy_cache *cache)
{
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[cache->step.now];

    if (!fetch->is_open) {
        return QY_OK;
    }
    enum qy_status st = qy_stream_wait(t->in, fetch->here, t->timeout_ns);
    if (st == QY_OK) {
        st = qyi_far_rows_wait(cache);
    }
    if (st == QY_OK) {
        st = qyi_far_push_settle(cache);
    }
    if (st != QY_OK) {
        const enum qy_status reset = qyi_tier_reset(cache);
        return reset == QY_OK ? st : reset;
    }
    fetch->is_open = 0;
    qyi_ahead_arrived(cache, cache->step.now, fetch->layer);
    return QY_OK;
}

/* What a stalled engine still holds must not land in slots and stages that are used again. */
enum qy_status qyi_tier_reset(struct qy_cache *cache)
{
    for (uint32_t i = 0; i < cache->step.n_micro; i++) {
        forget_pulls(cache, i);
    }
    qyi_ahead_forget(cache);
    const enum qy_status st = qyi_home_far_drop(cache);
    const enum qy_status reset = qy_stream_reset(cache->tier.in, cache->tier.timeout_ns);
    return reset == QY_OK ? st : reset;
}
