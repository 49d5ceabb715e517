/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax pooling of scores over a group: items shared out over the team. The arithmetic is in
 * pool_body.h. */
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum { TEAM_SCORES = 16 * 1024 }; /* below this the caller alone is faster than the team */

struct pool_job {
    const struct qy_pool_item *items;
    const struct qyi_rows_kernels *kernels;
    struct qyi_units units;
};

static void pool_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct pool_job *job = arg;
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            job->kernels->pool(&job->items[i]);
        }
    }
}

enum qy_status qy_device_pool(struct qy_device *dev, const struct qy_pool_item *items,
                              uint32_t n_items)
{
    struct pool_job job = {
        .items = items, .kernels = qyi_rows_any(dev->level), .units = {n_items, 0}};
    size_t scores = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].lo > items[i].hi || items[i].hi > items[i].n || items[i].group == 0) {
            return QY_ERR_INVALID;
        }
        scores += (size_t)items[i].n * items[i].group;
    }
    qy_team_run(scores < TEAM_SCORES ? NULL : dev->rt->team, pool_run, &job);
    return QY_OK;
}
