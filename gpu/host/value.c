/* SPDX-License-Identifier: Apache-2.0 */
/* Means of values: checks, shares pages out over the team. The layout is in value.h, the arithmetic
 * in value_body.h. */
#include "gpu/host/value.h"

#include <string.h>

#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum { TEAM_BYTES = 64 * 1024 /* read: below this the caller alone is faster than the team */ };

int qyi_value_valid(uint32_t d, uint32_t page, const struct qy_slab *values)
{
    return d > 0 && d <= QYI_VALUE_MAX_D && values->shift < 32 && page >= QYI_VALUE_MIN_PAGE &&
           (page & (page - 1)) == 0 && page <= (uint32_t)1 << values->shift;
}

size_t qy_value_slab_bytes(uint32_t d, uint32_t page, uint32_t n_tokens)
{
    const size_t pages = ((size_t)n_tokens + page - 1) / page;

    return (pages * d * sizeof(uint16_t) + 63) / 64 * 64;
}

uint16_t *qyi_value_at(const struct qy_slab *values, uint32_t d, uint32_t page, uint32_t at)
{
    const uint64_t token = (uint64_t)at * page;
    const uint32_t in_slab = (uint32_t)(token & (((uint32_t)1 << values->shift) - 1)) / page;

    return (uint16_t *)(void *)(values->blocks[token >> values->shift] + values->offset) +
           (size_t)in_slab * d;
}

struct job {
    const struct qy_value_item *items;
    const struct qyi_value_kernels *kernels;
    struct qyi_units units; /* one page of one item, counted over all items */
};

/* Pages that an item's new tokens touch. */
static uint32_t count_pages(const void *arg, uint32_t i)
{
    const struct qy_value_item *item = &((const struct job *)arg)->items[i];

    return item->n == 0 ? 0
                        : (item->first + (item->n - 1)) / item->page - item->first / item->page + 1;
}

static void work_page(const void *arg, uint32_t i, uint32_t p)
{
    const struct job *job = arg;
    const struct qy_value_item *item = &job->items[i];
    const uint32_t page = item->first / item->page + p;
    const uint32_t begin = page * item->page;
    const uint32_t past = item->first + item->n;
    const uint32_t n = past - begin < item->page ? past - begin : item->page;
    float sum[QYI_VALUE_MAX_D];

    memset(sum, 0, item->rows.d * sizeof(*sum));
    job->kernels->add(&item->rows, begin, begin + n, 1.0F, sum);
    job->kernels->store(sum, item->rows.d, 1.0F / (float)n,
                        qyi_value_at(&item->values, item->rows.d, item->page, page));
}

static void run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;

    (void)thread;
    qyi_units_walk(&job->units, n_threads, job, count_pages, work_page);
}

enum qy_status qy_device_value_append(struct qy_device *dev, const struct qy_value_item *items,
                                      uint32_t n_items)
{
    struct job job = {.items = items, .kernels = qyi_value_for(dev->level), .units = {0, 0}};
    size_t bytes = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_value_item *item = &items[i];
        if (!qyi_rows_valid(&item->rows, 1) ||
            !qyi_value_valid(item->rows.d, item->page, &item->values)) {
            return QY_ERR_INVALID;
        }
        job.units.total += count_pages(&job, i);
        bytes += (size_t)count_pages(&job, i) * item->page *
                 (qy_row_bytes(item->rows.type, item->rows.d) / 2);
    }
    qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, run, &job);
    return QY_OK;
}
