/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cache tells the trace (--trace): a lane of steps, one of each micro-batch with the parts of
 * its layers, and what each plan went by. Streams and links have lanes of their own (gpu/).
 */
#include "offload/cache.h"

#include <math.h>
#include <stdio.h>

enum { NAME_BYTES = 32 };

enum qy_status qyi_lanes_open(struct qy_cache *cache, struct qy_error *err)
{
    struct qy_trace *trace = cache->rt->trace;
    struct qyi_lanes *lanes = &cache->lanes;
    enum qy_status st = qy_trace_lane_open(trace, QY_TRACE_STEPS, "steps", &lanes->steps, err);

    for (uint32_t i = 0; st == QY_OK && i < QY_MICRO_BATCHES; i++) {
        char name[NAME_BYTES];

        snprintf(name, sizeof(name), "micro-batch %u", i);
        st = qy_trace_lane_open(trace, QY_TRACE_MICRO_BATCHES, name, &lanes->micro[i], err);
    }
    return st;
}

void qyi_lanes_close(struct qy_cache *cache)
{
    qy_trace_lane_close(cache->lanes.steps);
    for (uint32_t i = 0; i < QY_MICRO_BATCHES; i++) {
        qy_trace_lane_close(cache->lanes.micro[i]);
    }
}

void qyi_trace_stage(const struct qy_cache *cache, enum qy_stage stage, uint64_t begin_ns,
                     uint64_t end_ns, uint32_t layer)
{
    static const char *const keys[] = {"layer", "rows", "micro_batch", NULL};
    const struct qyi_step *step = &cache->step;
    const char *name = qy_stage_name(stage);
    const int of_step = stage == QY_STAGE_PREPARE || stage == QY_STAGE_SEAL;
    const double values[] = {layer, of_step ? step->n_rows : qyi_step_now(cache)->rows.n,
                             of_step ? 0 : step->now};

    if (cache->rt->trace == NULL) {
        return;
    }
    qy_trace_span(qy_trace_thread(cache->rt->trace, 0), name, begin_ns, end_ns, keys, values);
    if (!of_step) {
        qy_trace_span(cache->lanes.micro[step->now], name, begin_ns, end_ns, keys, values);
    }
}

void qyi_trace_step(const struct qy_cache *cache, uint64_t end_ns)
{
    static const char *const keys[] = {"sequences", "rows", "micro_batches", "overlap", NULL};
    const struct qyi_step *step = &cache->step;
    const double values[] = {step->n_slices, step->n_rows, step->n_micro,
                             cache->params.settings.overlap};

    qy_trace_span(cache->lanes.steps, "step", step->begin_ns, end_ns, keys, values);
}

void qyi_trace_plan(const struct qy_cache *cache, const struct qyi_plan_made *made,
                    uint64_t begin_ns, uint32_t layer)
{
    static const char *const keys[] = {"layer",  "items",   "rows_missed", "row_bytes", "n_pull",
                                       "n_push", "pull_ns", "push_ns",     "reuse",     NULL};
    struct qy_trace_lane *lane = cache->lanes.micro[cache->step.now];

    if (lane != NULL) {
        const int known = qyi_plan_measured(cache);
        const double values[] = {layer,
                                 made->items,
                                 (double)(made->pull_rows + made->push_rows),
                                 (double)qyi_layout_home_row(&cache->layout, layer),
                                 made->n_pull,
                                 made->n_push,
                                 known ? made->pull_ns : NAN,
                                 known ? made->push_ns : NAN,
                                 known ? cache->tier.push.params.costs.reuse : NAN};

        qy_trace_span(lane, "plan", begin_ns, qy_clock_ns(), keys, values);
    }
}

void qyi_trace_chunk(const struct qy_cache *cache, const struct qyi_chunk_work *work,
                     const struct qyi_chunk_choice *choice, uint64_t begin_ns, uint32_t layer)
{
    static const char *const keys[] = {"layer",  "tokens",  "rows_there", "servers",
                                       "pushed", "pull_ns", "push_ns",    NULL};
    struct qy_trace_lane *lane = cache->lanes.micro[cache->step.now];

    if (lane != NULL) {
        const int known = cache->far.chunk.measured;
        const double values[] = {layer,
                                 work->n_tokens,
                                 work->far_rows,
                                 work->n_places,
                                 choice->push,
                                 known ? choice->pull_ns : NAN,
                                 known ? choice->push_ns : NAN};

        qy_trace_span(lane, "plan chunk", begin_ns, qy_clock_ns(), keys, values);
    }
}
