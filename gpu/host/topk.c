/* SPDX-License-Identifier: Apache-2.0 */
/* Selection: items shared out over the team. The work on one item is in topk_body.h. */
#include "gpu/host/topk.h"
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum { TEAM_SCORES = 8 * 1024 }; /* below this the caller alone is faster than the team */

const struct qyi_topk_kernels *qyi_topk_for(enum qy_cpu_level level)
{
#if defined(__x86_64__)
    if (level == QY_CPU_AVX512) {
        return &qyi_topk_avx512;
    }
    if (level == QY_CPU_AVX2) {
        return &qyi_topk_avx2;
    }
#else
    (void)level;
#endif
    return &qyi_topk_plain;
}

struct topk_job {
    const struct qy_topk_item *items;
    const struct qyi_topk_kernels *kernels;
    uint32_t *scratch; /* [threads][words] */
    size_t words;
    struct qyi_units units;
};

static void topk_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct topk_job *job = arg;
    uint32_t begin;
    uint32_t end;

    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t i = begin; i < end; i++) {
            job->kernels->topk(&job->items[i], job->scratch + thread * job->words);
        }
    }
}

/* Of one thread: whole lines, so that threads do not share one. */
static size_t scratch_words(uint32_t max_n)
{
    return ((size_t)max_n + QYI_TOPK_SPARE + 15) / 16 * 16;
}

enum qy_status qy_device_topk(struct qy_device *dev, const struct qy_topk_item *items,
                              uint32_t n_items, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct topk_job job = {
        .items = items, .kernels = qyi_topk_for(dev->level), .units = {n_items, 0}};
    size_t scores = 0;
    uint32_t max_n = 0;

    if (n_items == 0) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < n_items; i++) {
        scores += items[i].n;
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    job.words = scratch_words(max_n);
    job.scratch =
        qy_arena_take(arena, qy_team_size(dev->rt->team) * job.words * sizeof(uint32_t), 64);
    if (job.scratch == NULL) {
        return QY_ERR_NOMEM;
    }
    qy_team_run(scores < TEAM_SCORES ? NULL : dev->rt->team, topk_run, &job);
    qy_arena_rewind(arena, mark);
    return QY_OK;
}

size_t qy_device_topk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n)
{
    (void)n_items;
    return qy_team_size(dev->rt->team) * scratch_words(max_n) * sizeof(uint32_t) + 64;
}
