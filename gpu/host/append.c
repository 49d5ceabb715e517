/* SPDX-License-Identifier: Apache-2.0 */
/* Writes new tokens' K and V into their rows. The conversion itself is a kernel (pool_body.h). */
#include "gpu/host/host.h"
#include "gpu/host/row_codec.h"
#include "gpu/host/rows.h"

enum { TEAM_FLOATS = 1 << 16 }; /* below this the caller alone is faster than waking the team */

struct append_job {
    const struct qy_append_item *items;
    const struct qyi_rows_kernels *kernels;
    uint32_t n_items;
    struct qyi_units units; /* one token of one item, counted over all items */
    _Atomic int bad;
};

static int append_token(const struct append_job *job, const struct qy_append_item *item, uint32_t i)
{
    const struct qy_rows *rows = &item->rows;
    uint8_t *row = qy_row_at(rows, item->first + i);
    const size_t half = qy_row_bytes(rows->type, rows->d) / 2;
    const size_t at = i * item->stride;
    const int bad_k = job->kernels->pack(item->k + at, rows->d, rows->type, row);
    const int bad_v = job->kernels->pack(item->v + at, rows->d, rows->type, row + half);

    return bad_k | bad_v;
}

static void append_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct append_job *job = arg;
    uint32_t begin;
    uint32_t end;
    int bad = 0;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        uint32_t base = 0;
        for (uint32_t i = 0; i < job->n_items && base < end; i++) {
            const struct qy_append_item *item = &job->items[i];
            const uint32_t from = begin > base ? begin - base : 0;
            const uint32_t to = end - base < item->n ? end - base : item->n;
            for (uint32_t t = from; t < to; t++) {
                bad |= append_token(job, item, t);
            }
            base += item->n;
        }
    }
    if (bad) {
        /* relaxed: read after the run, which orders it */
        atomic_store_explicit(&job->bad, 1, memory_order_relaxed);
    }
}

enum qy_status qy_device_append(struct qy_device *dev, const struct qy_append_item *items,
                                uint32_t n_items)
{
    struct append_job job = {.items = items,
                             .kernels = qyi_rows_any(dev->level),
                             .n_items = n_items,
                             .units = {0, 0},
                             .bad = 0};
    size_t floats = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (!qyi_rows_valid(&items[i].rows, 1) ||
            !qyi_rows_plain_from(&items[i].rows, items[i].first)) {
            return QY_ERR_INVALID;
        }
        job.units.total += items[i].n;
        floats += (size_t)2 * items[i].n * items[i].rows.d;
    }
    qy_team_run(floats < TEAM_FLOATS ? NULL : dev->rt->team, append_run, &job);
    return atomic_load_explicit(&job.bad, memory_order_relaxed) ? QY_ERR_CORRUPT : QY_OK;
}
