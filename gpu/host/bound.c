/* SPDX-License-Identifier: Apache-2.0 */
/* Page bounds: checks, shares pages out over the team. The layout is in bound.h, the arithmetic in
 * bound_*.c. */
#include "gpu/host/bound.h"

#include "gpu/host/host.h"
#include "gpu/host/row_codec.h"
#include "gpu/host/rows.h"

enum {
    RANGE_PAGES = 64,
    AHEAD = 4,             /* pages fetched before they are scored */
    TEAM_BYTES = 64 * 1024 /* read: below this the caller alone is faster than the team */
};

static const struct qyi_bound_kernels *kernels_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_bound_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_bound_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_bound_plain;
}

static int shape_valid(uint32_t d, uint32_t page, const struct qy_slab *bounds)
{
    return d >= 2 && d % 2 == 0 && d <= QYI_BOUND_MAX_D && bounds->shift < 32 && page > 0 &&
           (page & (page - 1)) == 0 && page <= (uint32_t)1 << bounds->shift;
}

size_t qy_bound_slab_bytes(uint32_t d, uint32_t page, uint32_t n_tokens)
{
    const size_t pages = ((size_t)n_tokens + page - 1) / page;

    return (pages * 2 * d * sizeof(uint16_t) + 63) / 64 * 64;
}

/* Bounds of page `at` of the sequence. */
static uint16_t *page_at(const struct qy_slab *bounds, uint32_t d, uint32_t page, uint32_t at)
{
    const uint64_t token = (uint64_t)at * page;
    const uint32_t in_slab = (uint32_t)(token & (((uint32_t)1 << bounds->shift) - 1)) / page;

    return (uint16_t *)(void *)(bounds->blocks[token >> bounds->shift] + bounds->offset) +
           (size_t)in_slab * 2 * d;
}

/* ---- append -------------------------------------------------------------------------------- */

struct append_job {
    const struct qy_bound_item *items;
    const struct qyi_bound_kernels *kernels;
    struct qyi_units units; /* one page of one item, counted over all items */
};

/* Pages that an item's new tokens touch. */
static uint32_t pages_touched(const struct qy_bound_item *item)
{
    return item->n == 0 ? 0
                        : (item->first + (item->n - 1)) / item->page - item->first / item->page + 1;
}

static void append_page(const void *arg, uint32_t i, uint32_t p)
{
    const struct append_job *job = arg;
    const struct qy_bound_item *item = &job->items[i];
    const uint32_t page = item->first / item->page + p;
    const uint32_t first = page * item->page;
    const uint32_t left = item->first + item->n - first;

    job->kernels->append(&item->rows, first, left < item->page ? left : item->page,
                         page_at(&item->bounds, item->rows.d, item->page, page));
}

static uint32_t append_units(const void *arg, uint32_t item)
{
    const struct append_job *job = arg;

    return pages_touched(&job->items[item]);
}

static void append_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct append_job *job = arg;

    (void)thread;
    qyi_units_walk(&job->units, n_threads, job, append_units, append_page);
}

/* Is no row of the first page coded? */
static int page_plain(const struct qy_bound_item *item)
{
    return item->page > 0 &&
           qyi_rows_plain_from(&item->rows, item->first / item->page * item->page);
}

enum qy_status qy_device_bound_append(struct qy_device *dev, const struct qy_bound_item *items,
                                      uint32_t n_items)
{
    struct append_job job = {.items = items, .kernels = kernels_for(dev->level), .units = {0, 0}};
    size_t bytes = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_bound_item *item = &items[i];
        if (!qyi_rows_valid(&item->rows, 1) || !page_plain(item) ||
            !shape_valid(item->rows.d, item->page, &item->bounds)) {
            return QY_ERR_INVALID;
        }
        job.units.total += pages_touched(item);
        bytes += (size_t)pages_touched(item) * item->page *
                 (qy_row_bytes(item->rows.type, item->rows.d) / 2);
    }
    qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, append_run, &job);
    return QY_OK;
}

/* ---- score --------------------------------------------------------------------------------- */

struct score_job {
    const struct qy_bound_score_item *items;
    const struct qyi_bound_kernels *kernels;
    float scale;
    struct qyi_units units; /* ranges of RANGE_PAGES pages, item after item */
};

static uint32_t ranges_of(const struct qy_bound_score_item *item)
{
    return (uint32_t)(((uint64_t)item->n + RANGE_PAGES - 1) / RANGE_PAGES);
}

static void score_range(const void *arg, uint32_t i, uint32_t range)
{
    const struct score_job *job = arg;
    const struct qy_bound_score_item *item = &job->items[i];
    const uint32_t begin = range * RANGE_PAGES;
    const uint32_t n = item->n - begin < RANGE_PAGES ? item->n - begin : RANGE_PAGES;
    const size_t bytes = (size_t)2 * item->d * sizeof(uint16_t);

    for (uint32_t p = begin; p < begin + n; p++) {
        if (p + AHEAD < item->n) {
            const uint8_t *next = (const uint8_t *)page_at(&item->bounds, item->d, item->page,
                                                           item->first + p + AHEAD);
            for (size_t at = 0; at < bytes; at += 64) {
                __builtin_prefetch(next + at);
            }
        }
        job->kernels->score(page_at(&item->bounds, item->d, item->page, item->first + p), item->q,
                            item->group, item->d, job->scale, item->scores + p, item->stride);
    }
}

static uint32_t score_units(const void *arg, uint32_t item)
{
    const struct score_job *job = arg;

    return ranges_of(&job->items[item]);
}

static void score_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct score_job *job = arg;

    (void)thread;
    qyi_units_walk(&job->units, n_threads, job, score_units, score_range);
}

enum qy_status qy_device_bound_score(struct qy_device *dev, const struct qy_bound_score_item *items,
                                     uint32_t n_items, float scale)
{
    struct score_job job = {
        .items = items, .kernels = kernels_for(dev->level), .scale = scale, .units = {0, 0}};
    size_t bytes = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_bound_score_item *item = &items[i];
        if (!shape_valid(item->d, item->page, &item->bounds) || item->group < 1 ||
            item->group > QYI_MAX_GROUP) {
            return QY_ERR_INVALID;
        }
        job.units.total += ranges_of(item);
        bytes += (size_t)item->n * 2 * item->d * sizeof(uint16_t);
    }
    qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, score_run, &job);
    return QY_OK;
}
