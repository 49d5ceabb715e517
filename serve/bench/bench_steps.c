/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps that are timed, and what they say. One path for the model and for shapes without one: time of
 * a step, what it did, and how much of the movement was hidden.
 *
 * Movement alone is timed in a run of its own, after the first one: as many pairs of steps, the second
 * one of each with step.overlap off, in which each pull is waited for as soon as it has started. The
 * wait of these is what movement takes alone; that of the first ones is what of it was not hidden.
 * They take turns because what a step moves changes with the text. Where that is hardly anything, the quotient of two waits is
 * noise, and no overlap is told (chosen: below 2 % of the median step, or below the median distance of
 * the steps from it).
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

static const double floor_share = 0.02;

enum qy_status qyi_bench_steps_open(struct qyi_bench_steps *steps, uint64_t n, struct qy_error *err)
{
    steps->n = n;
    steps->samples = calloc(n, sizeof *steps->samples);
    steps->sorted = calloc(n, sizeof *steps->sorted);
    steps->moved = calloc(n, sizeof *steps->moved);
    return steps->samples != NULL && steps->sorted != NULL && steps->moved != NULL
               ? QY_OK
               : qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory");
}

void qyi_bench_steps_close(struct qyi_bench_steps *steps)
{
    free(steps->samples);
    free(steps->sorted);
    free(steps->moved);
    cJSON_Delete(steps->told);
    steps->told = NULL;
    steps->moved = NULL;
    steps->samples = NULL;
    steps->sorted = NULL;
}

enum qy_status qyi_bench_steps_warm(struct qyi_bench_steps *steps, uint64_t n, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (uint64_t i = 0, ns; st == QY_OK && i < n && !qyi_interrupted(); i++) {
        st = steps->step(steps->data, &ns, err);
    }
    return st;
}

enum qy_status qyi_bench_steps_time(struct qyi_bench_steps *steps, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    qy_cache_stats_reset(steps->cache);
    for (uint64_t i = 0; st == QY_OK && i < steps->n && !qyi_interrupted(); i++) {
        st = steps->step(steps->data, &steps->samples[i], err);
        steps->n_timed += st == QY_OK;
        qy_cache_stats(steps->cache, &steps->stats);
        steps->moved[i] = (struct qyi_bench_moved){.asked = steps->stats.rows_asked,
                                                   .found = steps->stats.rows_found,
                                                   .to_device = steps->stats.to_device_bytes,
                                                   .to_host = steps->stats.to_host_bytes};
    }
    qy_cache_stats(steps->cache, &steps->stats);
    cJSON_Delete(steps->told);
    steps->told = cJSON_CreateObject(); /* now: the run that times movement resets the counters */
    qyi_plan_json(steps->cache, steps->n_layers, steps->told);
    return st;
}

enum qy_status qyi_bench_steps_movement(struct qyi_bench_steps *steps, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (uint64_t i = 0; st == QY_OK && i < 2 * steps->n_timed && !qyi_interrupted(); i++) {
        struct qy_cache_stats stats;
        uint64_t ns;
        qy_cache_stats_reset(steps->cache);
        qy_cache_set_overlap(steps->cache, i % 2 == 0 && steps->overlap);
        st = steps->step(steps->data, &ns, err);
        qy_cache_stats(steps->cache, &stats);
        *(i % 2 == 0 ? &steps->waited_ns : &steps->alone_ns) += stats.stage_ns[QY_STAGE_WAIT];
    }
    if (qyi_interrupted()) {
        steps->waited_ns = 0;
        steps->alone_ns = 0;
    }
    return st;
}

/* The middle of the distances from the middle. */
static uint64_t spread(uint64_t *sorted, uint64_t n, uint64_t median)
{
    for (uint64_t i = 0; i < n; i++) {
        sorted[i] = sorted[i] > median ? sorted[i] - median : median - sorted[i];
    }
    return qyi_bench_median(sorted, n);
}

struct qyi_bench_summary qyi_bench_steps_summary(struct qyi_bench_steps *steps)
{
    const uint64_t n = steps->n_timed;
    struct qyi_bench_summary s = {0};
    memcpy(steps->sorted, steps->samples, n * sizeof *steps->sorted);
    const uint64_t median = qyi_bench_median(steps->sorted, n);
    s.step_ms = (double)median * 1e-6;
    s.spread_ms = (double)spread(steps->sorted, n, median) * 1e-6;
    s.waited_ms = (double)steps->waited_ns * 1e-6 / (double)n;
    s.alone_ms = (double)steps->alone_ns * 1e-6 / (double)n;
    s.floor_ms = floor_share * s.step_ms > s.spread_ms ? floor_share * s.step_ms : s.spread_ms;
    s.has_overlap = s.alone_ms > 0 && s.alone_ms >= s.floor_ms;
    s.overlap = s.has_overlap ? 1.0 - s.waited_ms / s.alone_ms : 0;
    return s;
}

void qyi_bench_summary_json(const struct qyi_bench_summary *s, const struct qyi_args *args,
                            cJSON *object)
{
    if (s->has_overlap) {
        cJSON_AddNumberToObject(object, "overlap", s->overlap);
    } else {
        cJSON_AddNullToObject(object, "overlap");
    }
    cJSON_AddNumberToObject(object, "movement_alone_ms", s->alone_ms);
    cJSON_AddNumberToObject(object, "movement_floor_ms", s->floor_ms);
    cJSON_AddNumberToObject(object, "tokens_per_s", (double)args->batch / s->step_ms * 1e3);
    cJSON_AddNumberToObject(object, "step_ms", s->step_ms);
    cJSON_AddNumberToObject(object, "step_spread_ms", s->spread_ms);
    cJSON_AddNumberToObject(object, "batch", (double)args->batch);
    cJSON_AddNumberToObject(object, "context", (double)args->context);
}

void qyi_bench_steps_json(struct qyi_bench_steps *steps, cJSON *object)
{
    static const char *const names[] = {"plan", "layers"};
    struct qyi_bench_moved before = {0};
    for (int i = 0; i < 2; i++) {
        cJSON_AddItemToObject(object, names[i], cJSON_DetachItemFromObject(steps->told, names[i]));
    }
    cJSON *list = cJSON_AddArrayToObject(object, "steps");
    for (uint64_t i = 0; i < steps->n_timed; i++) {
        const struct qyi_bench_moved *now = &steps->moved[i];
        const double asked = (double)(now->asked - before.asked);
        cJSON *row = cJSON_CreateObject();
        cJSON_AddNumberToObject(row, "ms", (double)steps->samples[i] * 1e-6);
        if (asked > 0) {
            cJSON_AddNumberToObject(row, "hit_rate", (double)(now->found - before.found) / asked);
        } else {
            cJSON_AddNullToObject(row, "hit_rate");
        }
        cJSON_AddNumberToObject(row, "h2d", (double)(now->to_device - before.to_device));
        cJSON_AddNumberToObject(row, "d2h", (double)(now->to_host - before.to_host));
        cJSON_AddItemToArray(list, row);
        before = *now;
    }
}

double qyi_bench_kv_gbps(const struct qy_cache_stats *stats)
{
    const uint64_t ns = stats->stage_ns[QY_STAGE_ATTEND] + stats->stage_ns[QY_STAGE_SELECT];
    return ns > 0 ? (double)stats->read_bytes / (double)ns : 0;
}

void qyi_bench_overlap_print(const struct qyi_bench_summary *s)
{
    if (!(s->alone_ms > 0)) {
        return;
    }
    if (s->has_overlap) {
        printf("  overlap       %.2f: ", s->overlap);
    } else {
        printf("  overlap       - (below %.3f ms of movement it is noise): ", s->floor_ms);
    }
    printf("movement takes %.3f ms of a step alone, %.3f ms of it were waited for\n", s->alone_ms,
           s->waited_ms);
}
