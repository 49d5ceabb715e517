/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench plan: is plan.mode = auto as fast as the better of pull and push? Three batches stand
 * side by side, one of each mode, with device, cache and sequences of their own, since what a mode
 * finds on the device is what it brought there itself. They take turns, ROUNDS times --steps steps, so
 * that what else the machine does meets them all; each is judged by the median of its steps.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_batch.h"

enum { MODES = 3, ROUNDS = 5 };

static const struct {
    const char *name;
    enum qy_plan_mode mode;
} modes[MODES] = {{"pull", QY_PLAN_PULL}, {"push", QY_PLAN_PUSH}, {"auto", QY_PLAN_AUTO}};

struct side {
    struct qyi_bench_batch batch;
    uint64_t *samples; /* [ROUNDS * steps] ns */
    uint64_t n;
    struct qy_cache_stats stats;
    double step_ms;
};

static enum qy_status open_side(struct qyi_app *app, enum qy_plan_mode mode, struct side *side,
                                struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    side->samples = calloc(ROUNDS * args->steps, sizeof *side->samples);
    if (side->samples == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench plan: out of memory");
    }
    app->cache.plan_mode = (int)mode;
    const uint64_t warm = qyi_bench_most_warm_up(args);
    enum qy_status st =
        qyi_bench_batch_open(app, args->context + warm + ROUNDS * args->steps, &side->batch, err);
    if (st == QY_OK && qy_device_caps(side->batch.engine.dev)->unified) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "bench plan: device '%s' shares memory, and nothing is moved; give "
                          "--device host-discrete:<bytes>",
                          app->program.device);
    }
    for (uint64_t i = 0, ns; st == QY_OK && i < warm && !qyi_interrupted(); i++) {
        st = qyi_bench_batch_step(&side->batch, &ns, err);
    }
    if (st == QY_OK) {
        qy_cache_stats_reset(side->batch.engine.cache);
    }
    return st;
}

static enum qy_status run(struct qyi_app *app, struct side *sides, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (int m = 0; st == QY_OK && m < MODES; m++) {
        st = open_side(app, modes[m].mode, &sides[m], err);
    }
    for (uint64_t i = 0; st == QY_OK && i < (uint64_t)ROUNDS * MODES; i++) {
        struct side *side = &sides[i % MODES];
        for (uint64_t s = 0; st == QY_OK && s < app->args->steps && !qyi_interrupted(); s++) {
            st = qyi_bench_batch_step(&side->batch, &side->samples[side->n], err);
            side->n += st == QY_OK;
        }
    }
    for (int m = 0; st == QY_OK && m < MODES && sides[m].n > 0; m++) {
        qy_cache_stats(sides[m].batch.engine.cache, &sides[m].stats);
        sides[m].step_ms = (double)qyi_bench_median(sides[m].samples, sides[m].n) * 1e-6;
    }
    return st;
}

static double hit_rate(const struct qy_cache_stats *stats)
{
    return stats->rows_asked > 0 ? (double)stats->rows_found / (double)stats->rows_asked : 0;
}

static void report(const struct qyi_app *app, const struct side *sides)
{
    const double better = sides[0].step_ms < sides[1].step_ms ? sides[0].step_ms : sides[1].step_ms;
    const double ratio = sides[2].step_ms / better;
    if (app->args->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "batch", (double)app->args->batch);
        cJSON_AddNumberToObject(object, "context", (double)app->args->context);
        cJSON_AddNumberToObject(object, "link_gbps", app->program.link_gbps);
        for (int m = 0; m < MODES; m++) {
            const double n = (double)sides[m].n;
            cJSON *mode = cJSON_AddObjectToObject(object, modes[m].name);
            cJSON_AddNumberToObject(mode, "step_ms", sides[m].step_ms);
            cJSON_AddNumberToObject(mode, "hit_rate", hit_rate(&sides[m].stats));
            cJSON_AddNumberToObject(mode, "rows_pulled", (double)sides[m].stats.rows_pulled / n);
            cJSON_AddNumberToObject(mode, "rows_pushed", (double)sides[m].stats.rows_pushed / n);
        }
        cJSON_AddNumberToObject(object, "auto_over_better", ratio);
        qyi_print_json(object);
        return;
    }
    printf("%-6s %10s %8s %16s %16s\n", "mode", "ms/step", "found", "rows pulled/step",
           "rows pushed/step");
    for (int m = 0; m < MODES; m++) {
        const double n = (double)sides[m].n;
        printf("%-6s %10.2f %6.1f %% %16.0f %16.0f\n", modes[m].name, sides[m].step_ms,
               100 * hit_rate(&sides[m].stats), (double)sides[m].stats.rows_pulled / n,
               (double)sides[m].stats.rows_pushed / n);
    }
    printf("auto takes %.3f times as long as the better of the others\n", ratio);
}

enum qy_status qyi_bench_plan(struct qyi_app *app, struct qy_error *err)
{
    struct side sides[MODES];
    memset(sides, 0, sizeof sides);
    enum qy_status st = qyi_bench_check(app->args, err);
    if (st == QY_OK) {
        st = run(app, sides, err);
    }
    if (st == QY_OK && sides[MODES - 1].n > 0) {
        report(app, sides);
    }
    for (int m = 0; m < MODES; m++) {
        qyi_bench_batch_close(&sides[m].batch);
        free(sides[m].samples);
    }
    return st;
}
