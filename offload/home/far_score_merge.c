/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of several places become one choice: by id, then the best of each query head, then their union. See
 * far_score.c. */
#include "offload/cache.h"

enum { ALIGN = 64, TEAM_TOKENS = 16 * 1024 };

struct merge_job {
    struct qy_cache *cache;
    const struct qy_select_item *items;
    uint32_t n;
    int bad; /* 1: a list is none; written by any thread */
};

/* The tokens of all lists of query head h, by id. 0: they are not each in order, or outside the choice, or in two
 * lists. */
static int merge_head(const struct qyi_far_list *lists, uint32_t n_lists, uint32_t h,
                      const struct qy_select_item *it, const struct qyi_far_list *to)
{
    uint32_t at[1 + QYI_SERVERS_MOST] = {0};
    uint32_t *ids = to->ids + (size_t)h * to->n;
    float *scores = to->scores + (size_t)h * to->n;
    uint32_t least = it->lo;

    for (uint32_t n = 0; n < to->n; n++) {
        uint32_t from = n_lists;
        uint32_t id = UINT32_MAX;

        for (uint32_t i = 0; i < n_lists; i++) {
            const size_t next = (size_t)h * lists[i].n + at[i];

            if (at[i] < lists[i].n && lists[i].ids[next] < id) {
                id = lists[i].ids[next];
                from = i;
            }
        }
        if (id < least || id >= it->hi) {
            return 0;
        }
        least = id + 1;
        ids[n] = id;
        scores[n] = lists[from].scores[(size_t)h * lists[from].n + at[from]];
        at[from]++;
    }
    return 1;
}

static void merge_items(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct merge_job *job = arg;
    const struct qyi_far_score *s = &job->cache->far.score;
    const uint32_t group = job->cache->group;
    size_t begin;
    size_t end;

    qy_team_range((size_t)job->n * group, thread, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t item = i / group;

        if (!merge_head(s->lists + item * s->n_places, s->n_lists[item], (uint32_t)(i % group),
                        &job->items[item], &s->merged[item])) {
            __atomic_store_n(&job->bad, 1, __ATOMIC_RELAXED);
        }
    }
}

/* Where merged lists go. How many tokens they have. */
static uint64_t place_merged(struct qy_cache *cache, uint32_t n)
{
    struct qyi_far_score *s = &cache->far.score;
    uint8_t *at = s->memory + s->half;
    uint64_t tokens = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct qyi_far_list *to = &s->merged[i];

        to->n = 0;
        for (uint32_t p = 0; p < s->n_lists[i]; p++) {
            to->n += s->lists[(size_t)i * s->n_places + p].n;
        }
        to->ids = (uint32_t *)(void *)at;
        to->scores = (float *)(void *)(to->ids + (size_t)cache->group * to->n);
        at = (uint8_t *)(to->scores + (size_t)cache->group * to->n);
        tokens += to->n;
    }
    return tokens;
}

/* Each query head's best of its merged list, and their union: as a policy does of all scores. */
static enum qy_status take_union(struct qy_cache *cache, const struct qy_select_item *items,
                                 uint32_t n)
{
    const struct qyi_far_score *s = &cache->far.score;
    const uint32_t group = cache->group;
    struct qy_arena *arena = &cache->arena;
    struct qy_topk_item *topks = qy_arena_take(arena, (size_t)n * group * sizeof(*topks), ALIGN);
    struct qy_union_item *unions = qy_arena_take(arena, n * sizeof(*unions), ALIGN);
    uint32_t *counts = qy_arena_take(arena, (size_t)n * group * sizeof(*counts), ALIGN);

    if (!topks || !unions || !counts) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qyi_far_list *from = &s->merged[i];
        const uint32_t k = cache->params.policy->best_k(cache->policy, &items[i]);
        uint32_t *lists = qy_arena_take(arena, (size_t)group * k * sizeof(*lists) + 1, 4);

        if (!lists) {
            return QY_ERR_NOMEM;
        }
        for (uint32_t h = 0; h < group; h++) {
            topks[(size_t)i * group + h] =
                (struct qy_topk_item){.scores = from->scores + (size_t)h * from->n,
                                      .n = from->n,
                                      .k = k,
                                      .map = from->ids + (size_t)h * from->n,
                                      .ids = lists + (size_t)h * k,
                                      .n_ids = &counts[(size_t)i * group + h]};
        }
        unions[i] = (struct qy_union_item){.lists = lists,
                                           .counts = counts + (size_t)i * group,
                                           .n_lists = group,
                                           .stride = k,
                                           .ids = items[i].ids,
                                           .n_ids = items[i].n_ids};
    }
    const enum qy_status st = qy_device_topk(cache->dev, topks, n * group, arena);
    return st == QY_OK ? qy_device_union(cache->dev, unions, n) : st;
}

enum qy_status qyi_far_score_merge(struct qy_cache *cache, const struct qy_select_item *items,
                                   uint32_t n)
{
    struct merge_job job = {.cache = cache, .items = items, .n = n};
    const uint64_t tokens = place_merged(cache, n) * cache->group;
    const size_t mark = qy_arena_mark(&cache->arena);

    qy_team_run(tokens < TEAM_TOKENS ? NULL : cache->rt->team, merge_items, &job);
    if (job.bad) {
        const struct qyi_far_reads *q = &cache->far.score.questions;

        return qyi_home_far_failed(cache, QY_ERR_DEVICE, q->seqs[0], q->blocks[0],
                                   "a server answered with tokens that it was not asked about");
    }
    const enum qy_status st = take_union(cache, items, n);
    qy_arena_rewind(&cache->arena, mark);
    return st;
}
