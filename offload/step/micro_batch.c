/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-batches: how a step's slices are cut. On a unified device there is nothing to wait for, so one
 * run. On a discrete device several hide the way of the rows behind the compute of the others; how many
 * when step.micro_batches is auto: micro_choice.h. A step with prefill is never cut: its chunks go
 * through the device.
 */
#include "offload/cache.h"

uint32_t qy_step_micro_batches(const struct qy_cache *cache)
{
    return cache->step.active ? cache->step.n_micro : 0;
}

struct qy_row_range qy_step_rows(const struct qy_cache *cache, uint32_t micro_batch)
{
    const struct qyi_step *step = &cache->step;

    return micro_batch < qy_step_micro_batches(cache) ? step->micro[micro_batch].rows
                                                      : (struct qy_row_range){0, 0};
}

/* May the running step be cut? */
static int may_cut(const struct qy_cache *cache)
{
    int single = 1; /* tokens */

    for (uint32_t i = 0; i < cache->step.n_slices; i++) {
        single &= cache->step.slices[i].n_tokens == 1;
    }
    return single && cache->params.settings.overlap;
}

/* Is the number of its micro-batches a matter of trial? */
static int choice_runs(const struct qy_cache *cache)
{
    return may_cut(cache) && cache->params.settings.micro_batches == 0 && cache->tier.present;
}

static uint32_t wanted(struct qy_cache *cache)
{
    const struct qyi_step *step = &cache->step;
    const uint32_t given = (uint32_t)cache->params.settings.micro_batches;

    if (choice_runs(cache)) {
        return qyi_micro_choice_next(&cache->step.choice, step->n_slices);
    }
    if (!may_cut(cache) || given == 0) {
        return 1;
    }
    return given < step->n_slices ? given : step->n_slices;
}

void qy_cache_set_overlap(struct qy_cache *cache, int overlap)
{
    cache->params.settings.overlap = overlap;
}

void qyi_micro_batches_cut(struct qy_cache *cache)
{
    struct qyi_step *step = &cache->step;
    const uint32_t n = wanted(cache);

    step->n_micro = n;
    for (uint32_t i = 0; i < n; i++) {
        struct qyi_micro_batch *m = &step->micro[i];
        size_t begin;
        size_t end;

        qy_team_range(step->n_slices, i, n, &begin, &end);
        m->begin = (uint32_t)begin;
        m->end = (uint32_t)end;
        m->rows.first = step->slices[begin].row;
        m->rows.n = (end < step->n_slices ? step->slices[end].row : step->n_rows) - m->rows.first;
    }
    step->begin_ns = qy_clock_ns();
}

void qyi_micro_batches_end(struct qy_cache *cache)
{
    if (choice_runs(cache)) {
        qyi_micro_choice_learn(&cache->step.choice, qy_clock_ns() - cache->step.begin_ns);
    }
}
