/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention of prefill chunks: cuts every item into tiles of queries and shares them out
 * over the team, the last (heaviest) tiles first. The arithmetic is in attend_chunk_body.h.
 */
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

struct chunk_job {
    const struct qy_chunk_item *items;
    const struct qyi_rows_kernels *kernels;
    uint32_t n_items, tiles; /* tiles of the item with the most */
    uint32_t lanes;          /* query rows of a tile             */
    float scale;
    float *scratch; /* [threads][scratch_floats] */
    size_t scratch_floats;
    _Atomic uint32_t next;
};

/* One past the last row of the item's part. */
static uint32_t key_end(const struct qy_chunk_item *item)
{
    return item->key_end == 0 ? (uint32_t)qyi_chunk_rows(item) : item->key_end;
}

/* Is the part one that can be gone on with? Parts begin and end where steps of keys do. */
static int part_valid(const struct qy_chunk_item *item)
{
    const uint64_t all = qyi_chunk_rows(item);
    const uint64_t end = item->key_end == 0 ? all : item->key_end;

    if (item->n_q == 0) {
        return 1; /* nothing to do */
    }
    if (all > UINT32_MAX || end > all || item->key_begin >= end ||
        item->key_begin % QYI_CHUNK_KEYS != 0 || (end < all && end % QYI_CHUNK_KEYS != 0)) {
        return 0;
    }
    return item->state != NULL || ((item->key_begin == 0 || item->starts) && end == all);
}

/* Queries of one tile. */
static uint32_t tile_queries(uint32_t lanes, uint32_t group)
{
    return group >= lanes ? 1 : lanes / group;
}

static void chunk_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct chunk_job *job = arg;
    const uint32_t total = job->tiles * job->n_items;

    (void)n_threads;
    for (;;) {
        /* relaxed: the counter only hands out numbers */
        const uint32_t unit = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (unit >= total) {
            return;
        }
        const struct qy_chunk_item *item = &job->items[unit % job->n_items];
        const uint32_t queries = tile_queries(job->lanes, item->group);
        const uint32_t begin = (job->tiles - 1 - unit / job->n_items) * queries;
        if (begin >= item->n_q) {
            continue;
        }
        const struct qyi_chunk chunk = {.item = item,
                                        .q_begin = begin,
                                        .q_end = item->n_q - begin < queries ? item->n_q
                                                                             : begin + queries,
                                        .key_end = key_end(item),
                                        .scale = job->scale,
                                        .scratch = job->scratch + thread * job->scratch_floats};
        job->kernels->chunk(&chunk);
    }
}

/* Floats of scratch of one thread, a multiple of 16. See chunk_layout in attend_chunk_body.h. */
static size_t scratch_floats(uint32_t group, uint32_t d)
{
    const size_t dp = ((size_t)d + 7) / 8 * 8;
    const size_t rows = (group > QYI_CHUNK_LANES ? group : QYI_CHUNK_LANES) + QYI_CHUNK_PAD;
    const size_t keys = (size_t)QYI_CHUNK_KEYS * (2 * dp + QYI_CHUNK_PAD);

    return (keys + rows * (2 * dp + 3) + 15) / 16 * 16;
}

static uint32_t tiles_of(const struct chunk_job *job)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < job->n_items; i++) {
        const uint32_t queries = tile_queries(job->lanes, job->items[i].group);
        const uint32_t tiles = (job->items[i].n_q + queries - 1) / queries;
        most = tiles > most ? tiles : most;
    }
    return most;
}

/* Large tiles convert each row less often; small ones keep every thread busy to the end. */
static void choose_tiles(struct chunk_job *job, uint32_t n_threads)
{
    job->lanes = QYI_CHUNK_LANES;
    job->tiles = tiles_of(job);
    while (job->lanes > QYI_CHUNK_PAD &&
           (size_t)job->tiles * job->n_items < 4 * (size_t)n_threads) {
        job->lanes /= 2;
        job->tiles = tiles_of(job);
    }
}

enum qy_status qy_device_attend_chunk(struct qy_device *dev, const struct qy_chunk_item *items,
                                      uint32_t n_items, float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    const uint32_t n_threads = qy_team_size(dev->rt->team);
    struct chunk_job job = {.items = items,
                            .kernels = qyi_rows_any(dev->level),
                            .n_items = n_items,
                            .scale = scale,
                            .next = 0};

    for (uint32_t i = 0; i < n_items; i++) {
        if (!qyi_rows_valid(&items[i].rows, items[i].group) || !part_valid(&items[i]) ||
            items[i].rows.codec != NULL) {
            return QY_ERR_INVALID;
        }
        const size_t floats = scratch_floats(items[i].group, items[i].rows.d);
        job.scratch_floats = floats > job.scratch_floats ? floats : job.scratch_floats;
    }
    choose_tiles(&job, n_threads);
    if (job.tiles == 0) {
        return QY_OK;
    }
    job.scratch = qy_arena_take(arena, n_threads * job.scratch_floats * sizeof(float), 64);
    if (job.scratch == NULL) {
        return QY_ERR_NOMEM;
    }
    qy_team_run(dev->rt->team, chunk_run, &job);
    qy_arena_rewind(arena, mark);
    return QY_OK;
}

size_t qy_device_attend_chunk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                      uint32_t max_q, uint32_t group, uint32_t d)
{
    (void)n_items;
    (void)max_n;
    (void)max_q;
    return qy_team_size(dev->rt->team) * scratch_floats(group, d) * sizeof(float) + 64;
}
