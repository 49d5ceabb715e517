/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench decode: a batch of sequences of one length, timed step by step with the real model.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_batch.h"
#include "serve/bench/bench_page.h"

struct decode {
    struct qyi_bench_batch batch;
    struct qyi_bench_steps steps;
    struct qyi_report report;
    cJSON *result; /* of --json and --report */
};

static enum qy_status time_steps(struct decode *d, struct qy_error *err)
{
    d->steps.n_layers = qy_model_info(d->batch.engine.model)->n_layers;
    d->steps.cache = d->batch.engine.cache;
    d->steps.step = qyi_bench_batch_step;
    d->steps.data = &d->batch;
    d->steps.overlap = d->batch.engine.app->cache.overlap;
    enum qy_status st = qyi_bench_steps_warm(
        &d->steps, qyi_bench_warm_up(d->batch.engine.app->args, d->batch.engine.dev), err);
    qy_model_times_reset(d->batch.engine.model);
    if (st == QY_OK) {
        st = qyi_bench_steps_time(&d->steps, err);
    }
    qyi_report_read(&d->batch.engine, &d->report);
    d->report.n_steps = d->steps.n_timed;
    return st;
}

static cJSON *result_of(struct decode *d, const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_args *args = d->batch.engine.app->args;
    cJSON *object = cJSON_CreateObject();
    qyi_report_json(&d->batch.engine, &d->report, object);
    qyi_bench_summary_json(s, args, object);
    cJSON_DeleteItemFromObject(object, "decode_tps");
    if (args->file == NULL) {
        cJSON_DeleteItemFromObject(object, "prefill_tps");
    }
    cJSON_AddStringToObject(object, "kernels", qy_device_caps(d->batch.engine.dev)->kernels);
    cJSON_AddNumberToObject(object, "kv_gbps", qyi_bench_kv_gbps(&d->report.cache));
    cJSON_AddNumberToObject(object, "ceiling_gbps", ceiling);
    qyi_bench_steps_json(&d->steps, object);
    qyi_events_json(&d->batch.engine, object);
    return object;
}

static void print_text(const struct decode *d, const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_args *args = d->batch.engine.app->args;
    printf("batch %llu, context %llu, policy %s: %.1f tokens/s, median step %.2f ms of %llu\n",
           (unsigned long long)args->batch, (unsigned long long)args->context,
           d->batch.engine.policy->name, (double)args->batch / s->step_ms * 1e3, s->step_ms,
           (unsigned long long)d->report.n_steps);
    printf("KV is read at %.1f GB/s (memcpy reads %.1f GB/s on the same threads)%s\n",
           qyi_bench_kv_gbps(&d->report.cache), ceiling,
           args->file == NULL ? "; rows are random: speed only" : "");
    fflush(stdout);
    qyi_report_print(&d->batch.engine, &d->report, stdout);
    qyi_bench_overlap_print(s);
}

static enum qy_status run(struct decode *d, struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    const uint64_t most = args->context + 3 * args->steps + qyi_bench_most_warm_up(args);
    enum qy_status st = qyi_bench_steps_open(&d->steps, args->steps, err);
    if (st == QY_OK) {
        st = qyi_bench_batch_open(app, most, &d->batch, err);
    }
    if (st == QY_OK) {
        st = time_steps(d, err);
    }
    if (st == QY_OK && !qy_device_caps(d->batch.engine.dev)->unified) {
        st = qyi_bench_steps_movement(&d->steps, err);
    }
    if (st == QY_OK && d->report.n_steps > 0) {
        const struct qyi_bench_summary summary = qyi_bench_steps_summary(&d->steps);
        const double ceiling = qyi_bench_memcpy_gbps(app->rt.team);
        d->report.prompt_tokens = args->file != NULL ? args->context : 0;
        d->report.prefill_tokens = d->report.prompt_tokens;
        d->report.prefill_ns = d->batch.prefill_ns;
        d->report.new_tokens = d->report.n_steps * args->batch;
        d->report.decode_ns = (uint64_t)(summary.step_ms * 1e6) * d->report.n_steps;
        d->result = result_of(d, &summary, ceiling);
        if (!args->json) {
            print_text(d, &summary, ceiling);
        }
    }
    return st;
}

enum qy_status qyi_bench_decode(struct qyi_app *app, struct qy_error *err)
{
    enum qy_status st = qyi_bench_check(app->args, err);
    if (st == QY_OK && app->args->report != NULL) {
        st = qyi_page_check(app->args, err);
    }
    if (st == QY_OK && app->args->shape != NULL) {
        return qyi_bench_shape(app, err);
    }
    struct decode d = {0};
    if (st == QY_OK) {
        st = run(&d, app, err);
    }
    qyi_bench_batch_close(&d.batch);
    qyi_bench_steps_close(&d.steps);
    if (st == QY_OK && d.result != NULL && app->args->report != NULL) {
        st = qyi_page_write(app, d.result, err);
    }
    if (st == QY_OK && d.result != NULL && app->args->json) {
        qyi_print_json(d.result);
        return QY_OK;
    }
    cJSON_Delete(d.result);
    return st;
}
