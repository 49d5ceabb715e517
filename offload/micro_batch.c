/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-batches: how a step's slices are cut, and into how many runs when step.micro_batches is auto.
 *
 * On a unified device there is nothing to wait for, so one. On a discrete device two hide the way of
 * the rows behind the compute of the other half, but read all weights twice. Which is faster depends
 * on model, batch and link: both are tried for TRIAL_STEPS steps each, the one with the quickest step
 * is kept for KEEP_STEPS, then tried again (chosen: the least of a few steps, since other work on the
 * machine only adds time). A step with prefill is never cut: its chunks go through the device.
 */
#include "offload/cache.h"

enum { TRIAL_STEPS = 4, KEEP_STEPS = 512 };

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

/* The number of a trial's running step: 1 and 2 in turn. */
static uint32_t tried(const struct qyi_micro_choice *c)
{
    return 1 + c->n_steps % 2;
}

static uint32_t choose(struct qy_cache *cache)
{
    struct qyi_micro_choice *c = &cache->step.choice;

    if (c->n_slices != cache->step.n_slices || c->n_steps >= KEEP_STEPS) {
        *c = (struct qyi_micro_choice){.n_slices = cache->step.n_slices,
                                       .least_ns = {UINT64_MAX, UINT64_MAX}};
    }
    return c->chosen > 0 ? c->chosen : tried(c);
}

static uint32_t wanted(struct qy_cache *cache)
{
    const struct qyi_step *step = &cache->step;
    const int64_t given = cache->params.settings.micro_batches;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        if (step->slices[i].n_tokens > 1) {
            return 1;
        }
    }
    if (!cache->params.settings.overlap) {
        return 1;
    }
    if (given > 0) {
        return given < step->n_slices ? (uint32_t)given : step->n_slices;
    }
    return cache->tier.present && step->n_slices > 1 ? choose(cache) : 1;
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
    step->choice.begin_ns = qy_clock_ns();
}

void qyi_micro_batches_end(struct qy_cache *cache)
{
    struct qyi_step *step = &cache->step;
    struct qyi_micro_choice *c = &step->choice;
    const uint64_t took = qy_clock_ns() - c->begin_ns;

    if (cache->params.settings.micro_batches > 0 || !cache->params.settings.overlap ||
        !cache->tier.present || c->n_slices != step->n_slices) {
        return;
    }
    if (c->chosen == 0 && step->n_micro == tried(c) && took < c->least_ns[step->n_micro - 1]) {
        c->least_ns[step->n_micro - 1] = took;
    }
    c->n_steps++;
    if (c->chosen == 0 && c->n_steps >= 2 * TRIAL_STEPS) {
        c->chosen = c->least_ns[1] < c->least_ns[0] ? 2 : 1;
    }
}
