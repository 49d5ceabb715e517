/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing where index bytes lie with their blocks (retrieval.index_at = home): of blocks on memory servers
 * there are none on the device. Queries go to each server that has some of an item's blocks, which scores them
 * by the worker's policy and answers with each query head's best (the policy's scores_apart); the device
 * scores what is here meanwhile. The best of all of them are what one place with all index bytes would choose,
 * for their scores are the same and equal ones go by id.
 *
 *   split    the blocks of each sequence by the places that have them
 *   ask      a round of items, as many as the lists have room for: questions on their way
 *   score    what is here
 *   stand in for a server that cannot answer: index bytes are read, from other copies or when it is back, and
 *            scored here. What nobody has any more fails the step, as rows do.
 *   merge    far_score_merge.c
 */
#include "offload/cache.h"

#include <errno.h>
#include <string.h>

static const struct qy_sequence *sequence_of(const struct qy_cache *cache,
                                             const struct qy_select_item *it)
{
    return &cache->sequences[it->sequence];
}

/* ---- split ------------------------------------------------------------------------------------ */

/* The blocks of tokens lo .. hi - 1 by place. QY_ERR_INVALID: the first or the last is on a server, and not all
 * of its tokens may be chosen. */
static enum qy_status split(struct qy_cache *cache, const struct qy_select_item *it)
{
    const struct qy_sequence *seq = sequence_of(cache, it);
    const uint32_t shift = cache->layout.shift;
    const uint32_t begin = it->lo >> shift;
    const uint32_t end = ((it->hi - 1) >> shift) + 1;
    struct qyi_far_score *s = &cache->far.score;
    const size_t at = (size_t)it->sequence * cache->max_blocks;
    struct qyi_far_part *parts = s->parts + (size_t)it->sequence * s->n_places;
    uint32_t next[1 + QYI_SERVERS_MOST] = {0};
    uint32_t first = 0;

    for (uint32_t b = begin; b < end; b++) {
        s->where[b] = (uint8_t)qyi_far_place(seq, b);
        next[s->where[b]]++;
        if (!seq->homes[b] && (b << shift < it->lo || (b + 1) << shift > it->hi)) {
            return QY_ERR_INVALID;
        }
    }
    s->n_parts[it->sequence] = 0;
    for (uint32_t p = 0; p < s->n_places; p++) {
        const uint32_t n = next[p];

        if (n > 0) {
            parts[s->n_parts[it->sequence]++] =
                (struct qyi_far_part){.place = p, .first = first, .n = n};
        }
        next[p] = first;
        first += n;
    }
    for (uint32_t b = begin; b < end; b++) {
        const size_t to = at + next[s->where[b]]++;

        s->blocks[to] = b;
        s->slots[to] = seq->homes[b] ? 0 : qyi_far_slot(seq, b);
        s->index[to] = seq->homes[b] ? seq->index[b] : NULL;
    }
    return QY_OK;
}

/* ---- ask -------------------------------------------------------------------------------------- */

/* Tokens of a part that are scored: places *first .. *first + return value - 1 among those of its blocks. */
static uint32_t reach_of(const struct qy_cache *cache, const struct qy_select_item *it,
                         const struct qyi_far_part *part, uint32_t *first)
{
    const uint32_t shift = cache->layout.shift;
    const uint32_t *blocks =
        cache->far.score.blocks + (size_t)it->sequence * cache->max_blocks + part->first;
    const uint32_t begin = blocks[0] << shift;
    const uint32_t end = (blocks[part->n - 1] + 1) << shift;
    const uint32_t past = end > it->hi ? end - it->hi : 0;

    *first = begin < it->lo ? it->lo - begin : 0;
    return (part->n << shift) - past - *first;
}

/* Room for a list of n tokens; NULL: the round has none left. */
static struct qyi_far_list *add_list(struct qy_cache *cache, uint32_t i, uint32_t n)
{
    struct qyi_far_score *s = &cache->far.score;
    const size_t bytes = (size_t)cache->group * n * sizeof(uint32_t);
    struct qyi_far_list *list = &s->lists[(size_t)i * s->n_places + s->n_lists[i]];

    if (2 * bytes > s->half - s->used) {
        return NULL;
    }
    list->ids = (uint32_t *)(void *)(s->memory + s->used);
    list->scores = (float *)(void *)(s->memory + s->used + bytes);
    list->n = n;
    s->used += 2 * bytes;
    s->n_lists[i]++;
    return list;
}

static struct qy_best_item best_item(const struct qy_select_item *it, uint8_t *const *index,
                                     size_t offset, const struct qyi_far_list *list)
{
    return (struct qy_best_item){
        .q = it->q,
        .index = {.blocks = index, .offset = offset, .shift = it->index.shift},
        .group = it->group,
        .n_tokens = it->n,
        .layer = it->layer,
        .kv_head = it->kv_head,
        .sequence = it->sequence,
        .k = list->n,
        .places = list->ids,
        .scores = list->scores};
}

static void add_question(struct qy_cache *cache, const struct qy_select_item *it,
                         const struct qyi_far_part *part, const float *q, uint32_t k,
                         const struct qyi_far_list *list)
{
    struct qyi_far_score *s = &cache->far.score;
    struct qyi_far_reads *r = &s->questions;
    const size_t at = (size_t)it->sequence * cache->max_blocks + part->first;

    r->requests[r->n] = (struct qyi_store_request){.op = QYI_STORE_SCORE,
                                                   .slot = s->slots[at],
                                                   .data = list->ids,
                                                   .bytes = (size_t)cache->group * list->n *
                                                            (sizeof(uint32_t) + sizeof(float)),
                                                   .list = {.slots = s->slots + at,
                                                            .n = part->n,
                                                            .layer = it->layer,
                                                            .head = it->kv_head,
                                                            .place = part->place - 1,
                                                            .q = q,
                                                            .k = k,
                                                            .n_tokens = it->n}};
    r->seqs[r->n] = sequence_of(cache, it);
    r->blocks[r->n++] = s->blocks[at];
}

/* Item i of a round. 0: there is no room for it. */
static int add_item(struct qy_cache *cache, const struct qy_select_item *it, uint32_t i,
                    const float *q, uint32_t *n_own)
{
    struct qyi_far_score *s = &cache->far.score;
    const struct qyi_far_part *parts = s->parts + (size_t)it->sequence * s->n_places;
    const uint32_t k = cache->params.policy->best_k(cache->policy, it);
    const size_t used = s->used;
    const uint32_t n_questions = s->questions.n;

    s->n_lists[i] = 0;
    for (uint32_t p = 0; k > 0 && p < s->n_parts[it->sequence]; p++) {
        uint32_t first;
        const uint32_t n = reach_of(cache, it, &parts[p], &first);
        struct qyi_far_list *list = n == 0 ? NULL : add_list(cache, i, k < n ? k : n);

        if (n > 0 && !list) {
            s->used = used;
            s->questions.n = n_questions;
            return 0;
        }
        if (n > 0 && parts[p].place == 0) { /* the first part, if it is one */
            s->bests[*n_own] = best_item(it, s->index + (size_t)it->sequence * cache->max_blocks,
                                         it->index.offset, list);
            s->bests[*n_own].first = first;
            s->bests[*n_own].n = n;
            s->own[(*n_own)++] = list;
        } else if (n > 0) {
            add_question(cache, it, &parts[p], q, k, list);
        }
    }
    return 1;
}

/* ---- answered --------------------------------------------------------------------------------- */

static void name_tokens(const struct qy_cache *cache, const uint32_t *blocks,
                        const struct qyi_far_list *list)
{
    qyi_layout_name_tokens(cache->layout.shift, blocks, list->ids, (size_t)cache->group * list->n);
}

static enum qy_status score_own(struct qy_cache *cache, uint32_t n)
{
    struct qyi_far_score *s = &cache->far.score;
    const enum qy_status st =
        n == 0 ? QY_OK : cache->params.policy->best(cache->policy, s->bests, n, &cache->arena);

    for (uint32_t i = 0; st == QY_OK && i < n; i++) {
        name_tokens(cache, s->blocks + (size_t)s->bests[i].sequence * cache->max_blocks, s->own[i]);
    }
    return st;
}

/* What question i was to be answered with, made here of the index bytes that it is about. */
static enum qy_status stand_in(struct qy_cache *cache, uint32_t i)
{
    const struct qyi_layout *l = &cache->layout;
    struct qyi_far_score *s = &cache->far.score;
    struct qyi_far_reads *r = &s->standin;
    const struct qyi_store_request *asked = &s->questions.requests[i];
    const struct qyi_store_list *about = &asked->list;
    const struct qy_sequence *seq = s->questions.seqs[i];
    const uint32_t *blocks = s->blocks + (about->slots - s->slots);
    const struct qyi_far_list list = {
        .ids = asked->data,
        .scores = (float *)asked->data + asked->bytes / (2 * sizeof(float)),
        .n = (uint32_t)(asked->bytes / (2 * sizeof(float)) / cache->group)};

    r->n = 0;
    r->used = 0;
    for (uint32_t b = 0; b < about->n; b++) {
        const uint8_t *at =
            qyi_far_reads_add(r, seq, blocks[b], qyi_layout_index_at(l, about->layer, about->head),
                              l->index_slab_bytes);

        if (!at) {
            return QY_ERR_NOMEM;
        }
        s->standin_index[b] = r->staging + (at - r->staging);
    }
    enum qy_status st = qyi_far_reads_start(cache, r);
    if (st == QY_OK) {
        st = qyi_far_reads_wait(cache, r);
    }
    if (st != QY_OK) {
        return st;
    }
    const struct qy_select_item it = {.q = about->q,
                                      .index = {.shift = l->shift},
                                      .group = cache->group,
                                      .n = about->n_tokens,
                                      .layer = about->layer,
                                      .kv_head = about->head,
                                      .sequence = seq->slot};
    struct qy_best_item item = best_item(&it, s->standin_index, 0, &list);
    item.n = about->n << l->shift;
    st = cache->params.policy->best(cache->policy, &item, 1, &cache->arena);
    if (st == QY_OK) {
        name_tokens(cache, blocks, &list);
    }
    return st;
}

/* Waits for the answers; nothing is under way then. */
static enum qy_status answers(struct qy_cache *cache)
{
    struct qyi_far_reads *q = &cache->far.score.questions;
    enum qy_status st =
        q->n == 0 ? QY_OK : qyi_store_wait(cache->far.store, &q->batch, cache->far.timeout_ns);

    if (st == QY_ERR_TIMEOUT) {
        return qyi_home_far_failed(cache, st, q->seqs[0], q->blocks[0],
                                   "not scored within cache.copy_timeout_ms; try again");
    }
    st = QY_OK; /* what failed is seen in each request */
    for (uint32_t i = 0; st == QY_OK && i < q->n; i++) {
        const int error = q->requests[i].error;

        if (error == EAGAIN) {
            st = stand_in(cache, i);
        } else if (error != 0) {
            st = qyi_home_far_failed(cache, QY_ERR_DEVICE, q->seqs[i], q->blocks[i],
                                     qyi_home_far_why(cache, q->seqs[i], q->blocks[i], error));
        }
    }
    return st;
}

/* ---- select ----------------------------------------------------------------------------------- */

/* Queries to home memory, where questions take them from. */
static enum qy_status send_queries(struct qy_cache *cache, const struct qy_select_item *items,
                                   uint32_t n)
{
    struct qyi_far_score *s = &cache->far.score;

    for (uint32_t i = 0; i < n; i++) {
        s->asks[i] = (struct qy_copy_item){.from = items[i].q,
                                           .to = s->q + i * qyi_group_floats(cache),
                                           .bytes = qyi_group_floats(cache) * sizeof(float)};
    }
    return qyi_tier_send_now(cache, s->asks, n);
}

/* Items first .. n - 1, as far as there is room; how many. */
static enum qy_status run_round(struct qy_cache *cache, const struct qy_select_item *items,
                                uint32_t first, uint32_t n, uint32_t *done)
{
    struct qyi_far_score *s = &cache->far.score;
    enum qy_status st = QY_OK;
    uint32_t n_own = 0;

    *done = 0;
    s->used = 0;
    s->questions.n = 0;
    while (first + *done < n &&
           add_item(cache, &items[first + *done], *done,
                    s->q + (first + *done) * qyi_group_floats(cache), &n_own)) {
        (*done)++;
    }
    if (*done == 0) {
        return QY_ERR_NOMEM;
    }
    if (s->questions.n > 0) {
        st = qyi_far_reads_start(cache, &s->questions);
    }
    if (st == QY_OK) {
        st = score_own(cache, n_own);
        const enum qy_status answered = answers(cache);
        st = st == QY_OK ? answered : st;
    }
    return st == QY_OK ? qyi_far_score_merge(cache, &items[first], *done) : st;
}

/* Items whose index bytes are not all here. */
static enum qy_status select_far(struct qy_cache *cache, const struct qy_select_item *items,
                                 uint32_t n)
{
    enum qy_status st = QY_OK;
    uint32_t done;

    for (uint32_t i = 0; st == QY_OK && i < n; i++) { /* KV heads of a sequence follow each other */
        if (i == 0 || items[i].sequence != items[i - 1].sequence) {
            st = split(cache, &items[i]);
        }
    }
    if (st == QY_OK) {
        st = send_queries(cache, items, n);
    }
    for (uint32_t first = 0; st == QY_OK && first < n; first += done) {
        st = run_round(cache, items, first, n, &done);
    }
    const struct qyi_far_score *s = &cache->far.score;
    if (s->questions.batch.n_left > 0 || s->standin.batch.n_left > 0) {
        const enum qy_status reset = qyi_tier_reset(cache);
        return reset == QY_OK ? st : reset;
    }
    return st;
}

enum qy_status qyi_far_score_select(struct qy_cache *cache, struct qy_select_item *items,
                                    uint32_t n)
{
    enum qy_status st = QY_OK;
    uint32_t n_near = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (sequence_of(cache, &items[i])->n_down == 0) {
            const struct qy_select_item near = items[i];

            memmove(&items[n_near + 1], &items[n_near], (i - n_near) * sizeof(*items));
            items[n_near++] = near;
        }
    }
    if (n_near > 0) {
        st = cache->params.policy->select(cache->policy, items, n_near, &cache->arena);
    }
    return st == QY_OK && n > n_near ? select_far(cache, items + n_near, n - n_near) : st;
}
