/* SPDX-License-Identifier: Apache-2.0 */
/* Union of a few ascending lists of ids: items shared out over the team. */
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum { MAX_LISTS = 64, TEAM_IDS = 8 * 1024 };

struct union_job {
    const struct qy_union_item *items;
    struct qyi_units units;
};

static uint32_t unite(const struct qy_union_item *item)
{
    uint32_t at[MAX_LISTS] = {0};
    uint32_t n = 0;

    for (;;) {
        uint32_t least = UINT32_MAX;
        uint32_t left = 0;

        for (uint32_t j = 0; j < item->n_lists; j++) {
            if (at[j] < item->counts[j]) {
                const uint32_t id = item->lists[(size_t)j * item->stride + at[j]];

                least = id < least ? id : least;
                left++;
            }
        }
        if (left == 0) {
            return n;
        }
        for (uint32_t j = 0; j < item->n_lists; j++) {
            at[j] +=
                at[j] < item->counts[j] && item->lists[(size_t)j * item->stride + at[j]] == least;
        }
        item->ids[n++] = least;
    }
}

static void union_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct union_job *job = arg;
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            *job->items[i].n_ids = unite(&job->items[i]);
        }
    }
}

enum qy_status qy_device_union(struct qy_device *dev, const struct qy_union_item *items,
                               uint32_t n_items)
{
    struct union_job job = {.items = items, .units = {n_items, 0}};
    size_t ids = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].n_lists > MAX_LISTS) {
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
