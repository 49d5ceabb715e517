/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The best tokens by 4-bit codes: the steps of code_topk.h over the team. Many items: each is one
 * thread's from end to end, in its cache. Few: the team shares each step out, with a barrier after
 * it. Both ways compute the same bits.
 */
#include "gpu/host/code_topk.h"

#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    SPLIT_ITEMS = 2,       /* items per thread from which on they are not shared out */
    TEAM_WORK = 512 * 1024 /* look-ups: below, the caller alone is faster            */
};

struct job {
    struct qy_team *team;
    const struct qy_code_topk_item *items;
    struct qyi_code_topk steps;
    struct qyi_code_item_memory *memory;    /* [items] when shared out, else [threads] */
    struct qyi_code_thread_memory *threads; /* [threads]                               */
    struct qyi_units heads, ranges, stats, items_left;
};

/* ---- runs -------------------------------------------------------------------------------------- */

/* Is there a choice to make? */
static int is_open(const struct qy_code_topk_item *item)
{
    return item->k > 0 && item->k < item->n;
}

static uint32_t count_heads(const void *arg, uint32_t i)
{
    const struct qy_code_topk_item *item = &((const struct job *)arg)->items[i];

    return is_open(item) ? item->group : 0;
}

static uint32_t count_ranges(const void *arg, uint32_t i)
{
    const struct qy_code_topk_item *item = &((const struct job *)arg)->items[i];

    const uint64_t n = (uint64_t)item->first + item->n - qyi_code_topk_start(item);

    return is_open(item) ? (uint32_t)((n + QYI_CODE_RANGE - 1) / QYI_CODE_RANGE) : 0;
}

/* The last step; an item without a choice has its result here. */
static void finish(struct job *job, uint32_t i, const struct qyi_code_item_memory *memory,
                   uint32_t thread)
{
    const struct qy_code_topk_item *item = &job->items[i];

    if (is_open(item)) {
        qyi_code_topk_choose(&job->steps, item, memory, &job->threads[thread]);
        return;
    }
    *item->n_ids = item->k < item->n ? item->k : item->n;
    for (uint32_t p = 0; p < *item->n_ids; p++) {
        item->ids[p] = item->first + p;
    }
}

static void run_whole(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;
    const struct qyi_code_item_memory *memory = &job->memory[thread];
    uint32_t begin;
    uint32_t end;

    while (qyi_units_take(&job->items_left, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            const struct qy_code_topk_item *item = &job->items[i];
            const uint32_t heads = count_heads(job, i);
            const uint32_t ranges = count_ranges(job, i);

            for (uint32_t h = 0; h < heads; h++) {
                qyi_code_topk_tables(&job->steps, item, memory, h);
            }
            for (uint32_t r = 0; r < ranges; r++) {
                qyi_code_topk_sums(&job->steps, item, memory, r);
            }
            for (uint32_t h = 0; h < heads; h++) {
                qyi_code_topk_head(&job->steps, item, memory, h);
            }
            finish(job, i, memory, thread);
        }
    }
}

static void work_tables(const void *arg, uint32_t i, uint32_t h)
{
    const struct job *job = arg;

    qyi_code_topk_tables(&job->steps, &job->items[i], &job->memory[i], h);
}

static void work_sums(const void *arg, uint32_t i, uint32_t range)
{
    const struct job *job = arg;

    qyi_code_topk_sums(&job->steps, &job->items[i], &job->memory[i], range);
}

static void work_head(const void *arg, uint32_t i, uint32_t h)
{
    const struct job *job = arg;

    qyi_code_topk_head(&job->steps, &job->items[i], &job->memory[i], h);
}

static void run_shared(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;
    uint32_t begin;
    uint32_t end;

    qyi_units_walk(&job->heads, n_threads, job, count_heads, work_tables);
    qy_team_barrier(job->team);
    qyi_units_walk(&job->ranges, n_threads, job, count_ranges, work_sums);
    qy_team_barrier(job->team);
    qyi_units_walk(&job->stats, n_threads, job, count_heads, work_head);
    qy_team_barrier(job->team);
    while (qyi_units_take(&job->items_left, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            finish(job, i, &job->memory[i], thread);
        }
    }
}

/* ---- call -------------------------------------------------------------------------------------- */

/* Of the largest sums of each head. */
static size_t most_bytes(const struct qyi_code_sizes *sizes)
{
    return qyi_round64(sizes->group * sizeof(uint32_t));
}

static size_t item_bytes(const struct qyi_code_sizes *sizes)
{
    return sizes->entries + sizes->heads + most_bytes(sizes) +
           sizes->group * sizes->stride * sizeof(uint16_t);
}

/* Of one of the two arrays of a thread. */
static size_t line_bytes(const struct qyi_code_sizes *sizes)
{
    return qyi_round64((sizes->stride + QYI_TOPK_SPARE) * sizeof(uint32_t));
}

static enum qy_status place(struct job *job, const struct qyi_code_sizes *sizes, uint32_t n_memory,
                            uint32_t n_threads, struct qy_arena *arena)
{
    job->memory = qy_arena_take(arena, n_memory * sizeof(*job->memory), 64);
    job->threads = qy_arena_take(arena, n_threads * sizeof(*job->threads), 64);
    uint8_t *items = qy_arena_take(arena, n_memory * item_bytes(sizes), 64);
    uint8_t *lines = qy_arena_take(arena, 2 * n_threads * line_bytes(sizes), 64);

    if (job->memory == NULL || job->threads == NULL || items == NULL || lines == NULL) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_memory; i++, items += item_bytes(sizes)) {
        job->memory[i] = (struct qyi_code_item_memory){
            .entries = items,
            .heads = (void *)(items + sizes->entries),
            .most = (void *)(items + sizes->entries + sizes->heads),
            .sums = (void *)(items + sizes->entries + sizes->heads + most_bytes(sizes))};
    }
    for (uint32_t i = 0; i < n_threads; i++, lines += 2 * line_bytes(sizes)) {
        job->threads[i] = (struct qyi_code_thread_memory){
            .pooled = (void *)lines, .keys = (void *)(lines + line_bytes(sizes))};
    }
    return QY_OK;
}

static int items_valid(const struct qy_code_topk_item *items, uint32_t n_items)
{
    for (uint32_t i = 0; i < n_items; i++) {
        if (!qyi_quantizer_valid(items[i].quantizer) || items[i].quantizer->bits != 4 ||
            items[i].codes.shift >= 32 || items[i].group < 1 || items[i].group > QYI_MAX_GROUP) {
            return 0;
        }
    }
    return 1;
}

enum qy_status qy_device_code_topk(struct qy_device *dev, const struct qy_code_topk_item *items,
                                   uint32_t n_items, float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    const uint32_t n_threads = qy_team_size(dev->rt->team);
    const int shared = n_items < SPLIT_ITEMS * n_threads;
    struct job job = {.team = dev->rt->team,
                      .items = items,
                      .steps = {.codes = qyi_code_for(dev->level),
                                .topk = qyi_topk_for(dev->level),
                                .scale = scale},
                      .items_left = {n_items, 0}};
    struct qyi_code_sizes sizes = {0};
    uint64_t work = 0;

    if (!items_valid(items, n_items)) {
        return QY_ERR_INVALID;
    }
    if (n_items == 0) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < n_items; i++) {
        qyi_code_sizes_add(&sizes, items[i].n, items[i].quantizer->m, items[i].group);
        job.heads.total += count_heads(&job, i);
        job.ranges.total += count_ranges(&job, i);
        work += (uint64_t)items[i].n * items[i].quantizer->m * items[i].group;
    }
    job.stats.total = job.heads.total;
    job.steps.stride = sizes.stride;
    const enum qy_status st = place(&job, &sizes, shared ? n_items : n_threads, n_threads, arena);
    if (st == QY_OK) {
        job.team = work < TEAM_WORK ? NULL : job.team;
        qy_team_run(job.team, shared ? run_shared : run_whole, &job);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qy_device_code_topk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                   const struct qy_quantizer *quantizer, uint32_t group)
{
    const uint32_t n_threads = qy_team_size(dev->rt->team);
    const uint32_t most = SPLIT_ITEMS * n_threads - 1; /* items with memory of their own */
    const uint32_t n_memory = n_items < most ? n_items : most;
    struct qyi_code_sizes sizes = {0};

    qyi_code_sizes_add(&sizes, max_n, quantizer->m, group);
    return n_memory * (sizeof(struct qyi_code_item_memory) + item_bytes(&sizes)) +
           n_threads * (sizeof(struct qyi_code_thread_memory) + 2 * line_bytes(&sizes)) +
           (size_t)4 * 64;
}
