/* SPDX-License-Identifier: Apache-2.0 */
/* Union of a few ascending lists of ids: items shared out over the team. The work on one item is in
 * union_body.h. */
#include "gpu/host/host.h"
#include "gpu/host/rows.h"
#include "gpu/host/topk.h"

enum { TEAM_IDS = 2 * 1024 }; /* below this the caller alone is faster than the team */

struct union_job {
    const struct qy_union_item *items;
    const struct qyi_topk_kernels *kernels;
    struct qyi_units units;
};

static void union_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct union_job *job = arg;
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            job->kernels->unite(&job->items[i]);
        }
    }
}

enum qy_status qy_device_union(struct qy_device *dev, const struct qy_union_item *items,
                               uint32_t n_items)
{
    struct union_job job = {
        .items = items, .kernels = qyi_topk_for(dev->level), .units = {n_items, 0}};
    size_t ids = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].n_lists > QYI_UNION_LISTS) {
            return QY_ERR_INVALID;
        }
        for (uint32_t j = 0; j < items[i].n_lists; j++) {
            if (items[i].counts[j] > items[i].stride) {
                return QY_ERR_INVALID;
            }
            ids += items[i].counts[j];
        }
    }
    qy_team_run(ids < TEAM_IDS ? NULL : dev->rt->team, union_run, &job);
    return QY_OK;
}
