/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushes of rows that lie on memory servers: queries go to each server that has some of an item's rows,
 * partials come back while the host's threads attend to those in host memory, and are merged with what
 * these found: first the host's part, then the servers' by number.
 *
 *   may      for the plan: can the item push?
 *   ask      the ids of a push in the order of their places; questions on their way
 *   answer   wait for them; merge
 *
 * A server that cannot answer: the rows that it was to attend to are read, from other copies or when it is
 * back, and attended to here. That gives the bits of its answer.
 */
#include "offload/cache.h"

#include <errno.h>
#include <string.h>

/* 0: none. */
static uint32_t n_servers(const struct qy_cache *cache)
{
    return qyi_home_far_is_remote(&cache->params) &&
                   cache->params.settings.plan_mode != QY_PLAN_PULL
               ? cache->params.servers->n
               : 0;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static uint32_t n_questions(const struct qy_cache *cache)
{
    return (uint32_t)qyi_cache_items(cache) * n_servers(cache);
}

/* Of an item's parts. */
static size_t parts_bytes(const struct qy_cache *cache)
{
    return (1 + n_servers(cache)) *
           (sizeof(struct qyi_far_part) + (qyi_group_floats(cache) + cache->group) * sizeof(float));
}

uint64_t qyi_far_push_bytes(const struct qy_cache *cache)
{
    const size_t question =
        sizeof(struct qyi_store_request) + sizeof(struct qy_sequence *) + sizeof(uint32_t);

    return n_servers(cache) == 0
               ? 0
               : (uint64_t)QY_MICRO_BATCHES * n_questions(cache) * question +
                     qyi_cache_items(cache) * (parts_bytes(cache) + sizeof(uint32_t));
}

int qyi_far_push_open(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    const size_t items = qyi_cache_items(cache);
    struct qyi_far_push *p = &cache->far.push;
    int missing = 0;

    if (n_servers(cache) == 0) {
        return 0;
    }
    p->n_places = 1 + n_servers(cache);
    const size_t parts = items * p->n_places;
    p->parts = qy_alloc_zero(mem, parts * sizeof(*p->parts));
    p->n_parts = qy_alloc_zero(mem, items * sizeof(*p->n_parts));
    p->out = qy_alloc_zero(mem, parts * qyi_group_floats(cache) * sizeof(*p->out));
    p->lse = qy_alloc_zero(mem, parts * cache->group * sizeof(*p->lse));
    for (int i = 0; i < QY_MICRO_BATCHES; i++) {
        struct qyi_far_reads *r = &p->questions[i];

        r->capacity = n_questions(cache);
        r->requests = qy_alloc_zero(mem, r->capacity * sizeof(*r->requests));
        r->seqs = qy_alloc_zero(mem, r->capacity * sizeof(*r->seqs));
        r->blocks = qy_alloc_zero(mem, r->capacity * sizeof(*r->blocks));
        missing |= !r->requests || !r->seqs || !r->blocks;
    }
    return missing || !p->parts || !p->n_parts || !p->out || !p->lse;
}

void qyi_far_push_close(struct qy_cache *cache)
{
    const struct qy_allocator *mem = &cache->rt->mem;
    struct qyi_far_push *p = &cache->far.push;

    for (int i = 0; i < QY_MICRO_BATCHES; i++) {
        qy_free(mem, p->questions[i].blocks);
        qy_free(mem, p->questions[i].seqs);
        qy_free(mem, p->questions[i].requests);
    }
    qy_free(mem, p->lse);
    qy_free(mem, p->out);
    qy_free(mem, p->n_parts);
    qy_free(mem, p->parts);
}

/* ---- where rows are --------------------------------------------------------------------------- */

/* Do all of n > 0 rows lie at one place? */
static int at_one_place(const struct qy_sequence *seq, const uint32_t *ids, uint32_t n)
{
    const uint32_t shift = seq->cache->layout.shift;
    const uint32_t first = qyi_far_place(seq, ids[0] >> shift);

    for (uint32_t i = 1; i < n; i++) {
        if (ids[i] >> shift != ids[i - 1] >> shift &&
            qyi_far_place(seq, ids[i] >> shift) != first) {
            return 0;
        }
    }
    return 1;
}

int qyi_far_push_may(const struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head)
{
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const struct qyi_home_far *d = &cache->far;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const struct qyi_far_reads *staging = &d->rows[cache->step.now].reads;
    const uint32_t n = cache->step.n_listed[place];

    if (seq->n_down == 0) {
        return 1;
    }
    /* if it comes to that, the rows of one server are read at once */
    if (d->push.n_places == 0 || !d->in_lists || n > staging->capacity ||
        n > staging->bytes / qyi_layout_home_row(&cache->layout, layer)) {
        return 0;
    }
    const uint32_t below = qyi_list_below(cache, slice, head);
    return !cache->cuts_lists || below == 0 ||
           at_one_place(seq, qyi_step_list(cache, slice, head), below);
}

/* ---- asked ------------------------------------------------------------------------------------ */

/* Where part k of an item is written: the item's own place, if it has no other part. */
static float *part_out(const struct qy_cache *cache, size_t place, uint32_t k)
{
    const struct qyi_far_push *p = &cache->far.push;

    return p->n_parts[place] == 1 ? cache->tier.push.out + place * qyi_group_floats(cache)
                                  : p->out + (place * p->n_places + k) * qyi_group_floats(cache);
}

static float *part_lse(const struct qy_cache *cache, size_t place, uint32_t k)
{
    const struct qyi_far_push *p = &cache->far.push;

    return p->n_parts[place] == 1 ? cache->tier.push.lse + place * cache->group
                                  : p->lse + (place * p->n_places + k) * cache->group;
}

/* Places of the ids of a push, in `where`; how many ids each has. Lists that are cut stay whole, though
 * servers came or went since the plan. */
static void find_places(struct qy_cache *cache, const struct qy_sequence *seq, const uint32_t *ids,
                        uint32_t n, uint32_t *where, uint32_t *counts)
{
    const uint32_t shift = cache->layout.shift;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t b = ids[i] >> shift;

        if (i > 0 && (cache->cuts_lists || b == ids[i - 1] >> shift)) {
            where[i] = where[i - 1];
        } else {
            where[i] = qyi_far_place(seq, b);
        }
        if (i == 0 || b != ids[i - 1] >> shift) {
            qyi_home_far_touch(seq, b);
        }
        counts[where[i]]++;
    }
}

/* The ids of a push by place, in their order, beside each the slot of the store that its block is in. */
static void split(struct qy_cache *cache, uint32_t slice, size_t place)
{
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    struct qyi_tier *t = &cache->tier;
    struct qyi_far_push *p = &cache->far.push;
    struct qyi_far_part *parts = p->parts + place * p->n_places;
    uint32_t *ids = t->pull_ids + place * cache->ids_capacity;
    uint32_t *slots = t->pull_slots + place * cache->ids_capacity;
    uint32_t *old = cache->far.scratch;
    uint32_t *where = cache->far.scratch + cache->ids_capacity;
    const uint32_t n = t->push.n_rows[place];
    uint32_t counts[1 + QYI_SERVERS_MOST] = {0};
    uint32_t next[1 + QYI_SERVERS_MOST];
    uint32_t first = 0;

    find_places(cache, seq, ids, n, where, counts);
    memcpy(old, ids, n * sizeof(*old));
    p->n_parts[place] = 0;
    for (uint32_t at = 0; at < p->n_places; at++) {
        next[at] = first;
        if (counts[at] > 0) {
            parts[p->n_parts[place]++] =
                (struct qyi_far_part){.place = at, .first = first, .n = counts[at]};
        }
        first += counts[at];
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t to = next[where[i]]++;

        ids[to] = old[i];
        slots[to] = where[i] > 0 ? qyi_far_slot(seq, old[i] >> cache->layout.shift) : 0;
    }
    t->push.n_host[place] = counts[0];
}

static void add_questions(struct qy_cache *cache, uint32_t layer, uint32_t slice, size_t place)
{
    const struct qyi_tier *t = &cache->tier;
    struct qyi_far_push *p = &cache->far.push;
    struct qyi_far_reads *q = &p->questions[cache->step.now];
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const size_t list = place * cache->ids_capacity;

    for (uint32_t k = 0; k < p->n_parts[place]; k++) {
        const struct qyi_far_part *part = &p->parts[place * p->n_places + k];

        if (part->place == 0) {
            continue;
        }
        q->requests[q->n] = (struct qyi_store_request){
            .op = QYI_STORE_ATTEND,
            .slot = t->pull_slots[list + part->first],
            .data = part_out(cache, place, k),
            .bytes = (qyi_group_floats(cache) + cache->group) * sizeof(float),
            .list = {.ids = t->pull_ids + list + part->first,
                     .slots = t->pull_slots + list + part->first,
                     .n = part->n,
                     .layer = layer,
                     .head = (uint32_t)(place % cache->layout.n_kv_heads),
                     .place = part->place - 1,
                     .q = t->push.q + place * qyi_group_floats(cache),
                     .lse = part_lse(cache, place, k)}};
        q->seqs[q->n] = seq;
        q->blocks[q->n++] = t->pull_ids[list + part->first] >> cache->layout.shift;
    }
}

enum qy_status qyi_far_push_ask(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_tier *t = &cache->tier;
    struct qyi_fetch *fetch = &t->fetches[cache->step.now];
    struct qyi_far_reads *q = &cache->far.push.questions[cache->step.now];

    q->n = 0;
    for (uint32_t i = now->begin * n_heads; i < now->end * n_heads; i++) {
        if (qyi_pushes(t, i) && cache->step.slices[i / n_heads].seq->n_down > 0) {
            split(cache, i / n_heads, i);
            add_questions(cache, layer, i / n_heads, i);
        }
    }
    if (q->n == 0) {
        return QY_OK;
    }
    enum qy_status st = qy_stream_wait(t->out, fetch->asked, t->timeout_ns); /* queries: short */
    if (st != QY_OK) {
        const enum qy_status given_up = qyi_tier_give_up(cache);
        return given_up == QY_OK ? st : given_up;
    }
    st = qyi_far_reads_start(cache, q);
    fetch->layer = layer;
    fetch->is_open = 1;
    return st;
}

/* ---- answered --------------------------------------------------------------------------------- */

/* What question i was to be answered with, made here of the rows that it is about. */
static enum qy_status stand_in(struct qy_cache *cache, const struct qyi_far_reads *q, uint32_t i)
{
    const struct qyi_store_list *list = &q->requests[i].list;
    struct qyi_far_rows *rows = &cache->far.rows[cache->step.now];
    uint8_t *at;
    enum qy_status st = qyi_far_rows_wait(cache); /* who has the staging till then */

    if (st != QY_OK) {
        return st;
    }
    rows->reads.n = 0;
    rows->reads.used = 0;
    if (qyi_far_lists_add(&rows->reads, q->seqs[i], list->layer, list->head, list->ids, list->n,
                          &at) < list->n) {
        return qyi_home_far_failed(cache, QY_ERR_DEVICE, q->seqs[i], q->blocks[i],
                                   "its rows do not fit into the staging");
    }
    rows->active = 1; /* until they are here, so that a reset waits for them */
    st = qyi_far_reads_start(cache, &rows->reads);
    if (st == QY_OK) {
        st = qyi_far_reads_wait(cache, &rows->reads);
    }
    if (st != QY_OK) {
        return st;
    }
    rows->active = 0;
    const struct qy_attend_item item = {.q = list->q,
                                        .rows = qyi_far_lists_rows(cache, list->layer, &at),
                                        .ids = cache->far.in_order,
                                        .n = list->n,
                                        .group = cache->group,
                                        .out = q->requests[i].data,
                                        .lse = list->lse};
    return qy_device_attend(cache->dev, &item, 1, cache->params.scale, &cache->arena);
}

static enum qy_status merge(struct qy_cache *cache)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    const struct qyi_push *push = &cache->tier.push;
    enum qy_status st = QY_OK;

    for (size_t i = (size_t)now->begin * n_heads; st == QY_OK && i < (size_t)now->end * n_heads;
         i++) {
        const uint32_t n = cache->far.push.n_parts[i];

        if (n > 1 && qyi_pushes(&cache->tier, i) &&
            cache->step.slices[i / n_heads].seq->n_down > 0) {
            st = qy_device_merge(cache->dev, part_out(cache, i, 0), part_lse(cache, i, 0), n,
                                 cache->group, cache->layout.head_dim,
                                 push->out + i * qyi_group_floats(cache),
                                 push->lse + i * cache->group);
        }
    }
    return st;
}

enum qy_status qyi_far_push_settle(struct qy_cache *cache)
{
    struct qyi_far_reads *q = &cache->far.push.questions[cache->step.now];
    enum qy_status st = QY_OK;

    if (q->batch.n_left > 0) {
        st = qyi_store_wait(cache->far.store, &q->batch, cache->far.timeout_ns);
    }
    if (st == QY_ERR_TIMEOUT) {
        return qyi_home_far_failed(cache, st, q->seqs[0], q->blocks[0],
                                   "not attended to within cache.copy_timeout_ms; try again");
    }
    return QY_OK; /* what failed is seen in each request */
}

enum qy_status qyi_far_push_answer(struct qy_cache *cache)
{
    struct qyi_far_reads *q = &cache->far.push.questions[cache->step.now];
    enum qy_status st = QY_OK;

    if (q->n == 0) {
        return QY_OK;
    }
    st = qyi_far_push_settle(cache);
    for (uint32_t i = 0; st == QY_OK && i < q->n; i++) {
        const int error = q->requests[i].error;

        if (error == EAGAIN) {
            st = stand_in(cache, q, i);
        } else if (error != 0) {
            st = qyi_home_far_failed(cache, QY_ERR_DEVICE, q->seqs[i], q->blocks[i],
                                     qyi_home_far_why(cache, q->seqs[i], q->blocks[i], error));
        }
    }
    q->n = 0;
    return st == QY_OK ? merge(cache) : st;
}

float *qyi_far_push_out(const struct qy_cache *cache, size_t place, float **lse)
{
    const uint32_t slice = (uint32_t)(place / cache->layout.n_kv_heads);
    const struct qyi_push *push = &cache->tier.push;

    if (cache->step.slices[slice].seq->n_down > 0) {
        *lse = part_lse(cache, place, 0);
        return part_out(cache, place, 0);
    }
    *lse = push->lse + place * cache->group;
    return push->out + place * qyi_group_floats(cache);
}
