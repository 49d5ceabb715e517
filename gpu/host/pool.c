/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax pooling of scores over a group. The arithmetic is in pool_body.h.
 *
 * Many items: each is one thread's from end to end, in its cache. Few items (one sequence has as
 * many as KV heads, hardly more than threads): heads are shared out first and, after a barrier,
 * ranges of places. Both ways compute the same bits.
 */
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    TEAM_SCORES = 16 * 1024, /* below this the caller alone is faster than the team         */
    SPLIT_HEADS = 256,       /* heads of all items when items are split, at most            */
    SPLIT_ITEMS = 4,         /* items per thread from which on they are not split           */
    RANGE_PLACES = 4096      /* a multiple of every vector: ranges do not change the bits   */
};

struct pool_job {
    const struct qy_pool_item *items;
    const struct qyi_rows_kernels *kernels;
    struct qyi_pool_head *heads; /* of all items, when items are split */
    struct qyi_units units;      /* items, or heads of items           */
    struct qyi_units ranges;
    struct qy_team *team;
};

static void pool_mass(const struct qy_pool_item *item, const struct qyi_pool_head *heads)
{
    double mass = 0.0;

    for (uint32_t h = 0; h < item->group; h++) {
        mass += heads[h].mass;
    }
    if (item->mass != NULL) {
        *item->mass = (float)(mass / item->group);
    }
}

static void pool_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct pool_job *job = arg;
    struct qyi_pool_head heads[QYI_MAX_GROUP];
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            const struct qy_pool_item *item = &job->items[i];

            for (uint32_t h = 0; h < item->group; h++) {
                job->kernels->pool_head(item, h, &heads[h]);
            }
            job->kernels->pool_places(item, heads, 0, item->hi - item->lo);
            pool_mass(item, heads);
        }
    }
}

static uint32_t ranges_of(const struct qy_pool_item *item)
{
    return (item->hi - item->lo) / RANGE_PLACES + 1;
}

static void pool_range(const struct pool_job *job, uint32_t i, uint32_t first_head, uint32_t range)
{
    const struct qy_pool_item *item = &job->items[i];
    const uint32_t n = item->hi - item->lo;
    const uint32_t begin = range * RANGE_PLACES;

    job->kernels->pool_places(item, job->heads + first_head, begin,
                              n - begin < RANGE_PLACES ? n : begin + RANGE_PLACES);
    if (range == 0) {
        pool_mass(item, job->heads + first_head);
    }
}

/* Heads, then ranges of places; the walks over the items go forward only, as units do. */
static void pool_split_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct pool_job *job = arg;
    uint32_t begin;
    uint32_t end;
    uint32_t i = 0;
    uint32_t base = 0;
    uint32_t head = 0;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            while (u - base >= job->items[i].group) {
                base += job->items[i++].group;
            }
            job->kernels->pool_head(&job->items[i], u - base, &job->heads[u]);
        }
    }
    qy_team_barrier(job->team);
    i = 0;
    base = 0;
    while (qyi_units_take(&job->ranges, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            while (u - base >= ranges_of(&job->items[i])) {
                base += ranges_of(&job->items[i]);
                head += job->items[i++].group;
            }
            pool_range(job, i, head, u - base);
        }
    }
}

enum qy_status qy_device_pool(struct qy_device *dev, const struct qy_pool_item *items,
                              uint32_t n_items)
{
    struct qyi_pool_head heads[SPLIT_HEADS];
    struct pool_job job = {.items = items,
                           .kernels = qyi_rows_any(dev->level),
                           .heads = heads,
                           .units = {n_items, 0},
                           .team = dev->rt->team};
    size_t scores = 0;
    size_t n_heads = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].lo > items[i].hi || items[i].hi > items[i].n || items[i].group == 0 ||
            items[i].group > QYI_MAX_GROUP) {
            return QY_ERR_INVALID;
        }
        scores += (size_t)items[i].n * items[i].group;
        n_heads += items[i].group;
        job.ranges.total += ranges_of(&items[i]);
    }
    if (scores < TEAM_SCORES || job.team == NULL) {
        qy_team_run(NULL, pool_run, &job);
    } else if (n_items >= SPLIT_ITEMS * qy_team_size(job.team) || n_heads > SPLIT_HEADS) {
        qy_team_run(job.team, pool_run, &job);
    } else {
        job.units.total = (uint32_t)n_heads;
        qy_team_run(job.team, pool_split_run, &job);
    }
    return QY_OK;
}
