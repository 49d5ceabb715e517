/* SPDX-License-Identifier: Apache-2.0 */
/* See ahead.h: making a guess of a layer's lists, and pulling what it misses. */
#include "offload/cache.h"

#include <string.h>

static struct qyi_guess_lists *lists_of(struct qy_cache *cache, uint32_t layer)
{
    return &cache->tier.ahead.lists[layer % QYI_GUESSES];
}

/* A slice that chooses in this layer. A window of one token alone is left out: a guess is made before
 * the layer's row of the new token is written, and then nothing of the window would be there. */
static int chooses(const struct qy_cache *cache, uint32_t slice, uint32_t layer)
{
    const struct qyi_slice *s = &cache->step.slices[slice];

    return s->n_tokens == 1 && qyi_slice_reach(cache, s, layer).reach == QYI_REACH_SELECT &&
           s->reach.n - s->reach.hi > 1;
}

/* May rows of this layer be pulled ahead for the micro-batch? Not with prefill in the step, whose
 * products would pay for the guess, nor where movement is measured alone (step.overlap = off). */
static int may_guess(const struct qy_cache *cache, enum qy_prefetch mode, uint32_t micro_batch,
                     uint32_t layer)
{
    const struct qyi_step *step = &cache->step;
    int some = 0;

    if (cache->tier.ahead.mode != mode || !step->active || !cache->params.settings.overlap ||
        layer >= cache->layout.n_layers || micro_batch >= step->n_micro ||
        (step->layer_done[layer] & (1U << micro_batch)) ||
        cache->tier.ahead.guesses[micro_batch][layer % QYI_GUESSES].is_open ||
        step->n_rows != step->n_slices) {
        return 0;
    }
    for (uint32_t i = step->micro[micro_batch].begin; i < step->micro[micro_batch].end; i++) {
        some |= chooses(cache, i, layer);
    }
    return some;
}

struct guess_job {
    struct qy_cache *cache;
    uint32_t layer;
};

/* Slots for what the guess of (slice, KV head) misses; none where too few are not pinned. */
static void take_guess(const struct guess_job *job, uint32_t set, uint32_t slice, uint32_t head)
{
    struct qy_cache *cache = job->cache;
    struct qyi_guess_lists *g = lists_of(cache, job->layer);
    const struct qy_sequence *seq = cache->step.slices[slice].seq;
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;
    const uint32_t *ids = g->ids + place * cache->ids_capacity;
    uint32_t *missed = g->pull_ids + place * cache->ids_capacity;
    uint32_t *slots = g->pull_slots + place * cache->ids_capacity;
    const uint32_t end = seq->device_from << cache->layout.shift; /* the others are on the device */
    uint32_t n = g->n_ids[place];

    while (n > 0 && ids[n - 1] >= end) {
        n--;
    }
    n = qyi_residency_find(cache->tier.residency, set, head, ids, n, slots, missed);
    uint32_t n_home = 0;
    for (uint32_t i = 0; i < n; i++) { /* a block on disk is left to the layer itself */
        missed[n_home] = missed[i];
        n_home += seq->homes[ids[missed[i]] >> cache->layout.shift] != NULL;
    }
    n = n_home;
    if (n > cache->tier.ahead.most_rows) { /* chosen: the last ones, nearest to the new token */
        const uint32_t over = n - cache->tier.ahead.most_rows;

        n -= over;
        memmove(missed, missed + over, n * sizeof(*missed));
    }
    if (n == 0 ||
        qyi_residency_take(cache->tier.residency, set, head, ids, missed, n, slots) != QY_OK) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) { /* in place: missed[i] is not below i */
        const uint32_t at = missed[i];

        missed[i] = ids[at];
        slots[i] = slots[at];
    }
    g->n_taken[place] = n;
}

/* Threads share the slices, as in tier_rows.c. */
static void take_slices(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct guess_job *job = arg;
    const struct qyi_micro_batch *now = qyi_step_now(job->cache);
    struct qyi_guess_lists *g = lists_of(job->cache, job->layer);
    const uint32_t n_heads = job->cache->layout.n_kv_heads;
    size_t begin;
    size_t end;

    qy_team_range(now->end - now->begin, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const uint32_t slice = now->begin + (uint32_t)i;
        const uint32_t set = qyi_sequence_set(job->cache->step.slices[slice].seq, job->layer);

        memset(g->n_taken + (size_t)slice * n_heads, 0, n_heads * sizeof(*g->n_taken));
        if (!chooses(job->cache, slice, job->layer)) {
            continue;
        }
        qyi_residency_begin_ahead(job->cache->tier.residency, set);
        for (uint32_t h = 0; h < n_heads; h++) {
            take_guess(job, set, slice, h);
        }
    }
}

/* One command for all that the guesses miss. */
static enum qy_status pull_ahead(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct guess_job job = {.cache = cache, .layer = layer};
    struct qyi_tier *t = &cache->tier;
    struct qyi_guess *guess = &t->ahead.guesses[cache->step.now][layer % QYI_GUESSES];
    const struct qyi_guess_lists *g = lists_of(cache, layer);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qy_gather_item *gathers = g->gathers + (size_t)now->begin * n_heads;
    uint32_t n = 0;

    qy_team_run(cache->rt->team, take_slices, &job);
    for (size_t p = (size_t)now->begin * n_heads; p < (size_t)now->end * n_heads; p++) {
        struct qy_sequence *seq = cache->step.slices[p / n_heads].seq;
        const uint32_t head = (uint32_t)(p % n_heads);

        if (g->n_taken[p] == 0) {
            continue;
        }
        gathers[n] = (struct qy_gather_item){.rows = qyi_home_rows(seq, layer, head),
                                             .ids = g->pull_ids + p * cache->ids_capacity,
                                             .slots = g->pull_slots + p * cache->ids_capacity,
                                             .n = g->n_taken[p],
                                             .stamp = qyi_tier_stamp(seq, layer, head),
                                             .stamps = t->stamps};
        n++;
    }
    *guess = (struct qyi_guess){.is_made = 1, .is_open = n > 0, .layer = layer};
    if (n == 0) {
        return QY_OK;
    }
    const enum qy_status st = qy_stream_gather(t->in, gathers, n, t->rows);
    if (st == QY_OK) {
        guess->here = qy_stream_record(t->in);
        return QY_OK;
    }
    /* nothing was queued: these rows are not resident, nor those of a stream that failed before */
    qyi_ahead_drop(cache, cache->step.now, layer);
    return st == QY_AGAIN ? QY_OK : st; /* a full queue: then the layer pulls them itself */
}

enum qy_status qyi_ahead_previous(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;

    if (!may_guess(cache, QY_PREFETCH_PREVIOUS, cache->step.now, layer)) {
        return QY_OK;
    }
    const uint64_t begin = qy_clock_ns();
    const struct qyi_guess_lists *g = lists_of(cache, layer);
    for (size_t p = (size_t)now->begin * n_heads; p < (size_t)now->end * n_heads; p++) {
        const struct qyi_last_list *last =
            qyi_last_list(&cache->last, cache->step.slices[p / n_heads].seq->slot, layer,
                          (uint32_t)(p % n_heads));

        g->n_ids[p] = last->n_ids;
        memcpy(g->ids + p * cache->ids_capacity, last->ids, last->n_ids * sizeof(*last->ids));
    }
    const enum qy_status st = pull_ahead(cache, layer);
    qyi_stage_end(cache, QY_STAGE_AHEAD, begin, layer);
    return st;
}

int qy_step_wants_guess(const struct qy_cache *cache, uint32_t micro_batch, uint32_t layer)
{
    return may_guess(cache, QY_PREFETCH_SPECULATE, micro_batch, layer);
}

/* What a policy wrote for a guess, or an empty list where it is none: a guess need not be right. */
static void check_guess(const struct qy_cache *cache, struct qyi_guess_lists *g, size_t place)
{
    const struct qyi_slice *s = &cache->step.slices[place / cache->layout.n_kv_heads];
    const uint32_t *ids = g->ids + place * cache->ids_capacity;
    const uint32_t n = g->n_ids[place];
    int bad = n > s->reach.most || (n > 0 && (ids[0] < s->reach.lo || ids[n - 1] >= s->reach.hi));

    for (uint32_t i = 1; !bad && i < n; i++) {
        bad = ids[i - 1] >= ids[i];
    }
    if (bad) {
        g->n_ids[place] = 0;
    }
}

static enum qy_status choose_by_guess(struct qy_cache *cache, uint32_t layer, const float *q,
                                      size_t stride)
{
    const size_t group_floats = (size_t)cache->group * cache->params.shape.head_dim;
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const uint32_t n_heads = cache->layout.n_kv_heads;
    struct qyi_guess_lists *g = lists_of(cache, layer);
    const size_t first = (size_t)now->begin * n_heads;
    const size_t end = (size_t)now->end * n_heads;
    uint32_t n = 0;

    for (size_t p = first; p < end; p++) {
        const uint32_t slice = (uint32_t)(p / n_heads);
        const uint32_t head = (uint32_t)(p % n_heads);
        const size_t row = cache->step.slices[slice].row - now->rows.first;

        g->n_ids[p] = 0;
        if (!chooses(cache, slice, layer)) {
            continue;
        }
        struct qy_select_item *item = &cache->step.selects[n++];
        *item = qyi_select_item(cache, layer, slice, head, q + row * stride + head * group_floats);
        item->n--; /* this layer's row of the new token is not there yet */
        item->ids = g->ids + p * cache->ids_capacity;
        item->n_ids = &g->n_ids[p];
    }
    const enum qy_status st =
        cache->params.policy->select(cache->policy, cache->step.selects, n, &cache->arena);
    for (size_t p = first; st == QY_OK && p < end; p++) {
        check_guess(cache, g, p);
    }
    return st;
}

enum qy_status qy_step_speculate(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer,
                                 float *q, size_t stride)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const struct qy_rope *rope = &cache->params.rope;
    enum qy_status st = QY_OK;

    if (!may_guess(cache, QY_PREFETCH_SPECULATE, micro_batch, layer) || !q ||
        stride < (size_t)shape->n_heads * shape->head_dim) {
        return QY_ERR_INVALID;
    }
    cache->step.now = micro_batch;
    const struct qy_row_range rows = qyi_step_now(cache)->rows;
    const size_t mark = qy_arena_mark(&cache->arena);
    const uint64_t begin = qy_clock_ns();
    if (rope->dim > 0) {
        st = qy_device_rope(cache->dev, rope,
                            cache->step.rope_table + (size_t)rows.first * rope->dim, q, rows.n,
                            stride, shape->n_heads, shape->head_dim);
    }
    if (st == QY_OK) {
        st = choose_by_guess(cache, layer, q, stride);
    }
    if (st == QY_OK) {
        st = pull_ahead(cache, layer);
    }
    qy_arena_rewind(&cache->arena, mark);
    qyi_stage_end(cache, QY_STAGE_AHEAD, begin, layer);
    return st;
}
