/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench decode: a batch of sequences of one length, timed step by step with the real model.
 * KV comes from one prefill of -f FILE copied to every sequence, or from random rows (speed only).
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench.h"

/* chosen: what bench residency shows of a new device: hit rates settle within some 30 steps */
enum { WARM_UP = 2, WARM_UP_DISCRETE = 32 };

struct decode {
    struct qyi_engine engine;
    struct qy_sequence **seqs;
    int32_t *next; /* [batch] token fed next */
    int32_t *text; /* [n_text] of -f FILE, or NULL; what follows the context is fed */
    size_t n_text;
    uint64_t n_fed;
    uint64_t prefill_ns;
    struct qyi_bench_steps steps;
    struct qyi_report report;
};

/* The first sequence: --context tokens of the file, or random rows. */
static enum qy_status fill_first(struct decode *d, struct qy_error *err)
{
    struct qyi_engine *engine = &d->engine;
    const struct qyi_args *args = engine->app->args;
    if (args->file == NULL) {
        const enum qy_status st = qy_sequence_fill_random(d->seqs[0], (uint32_t)args->context,
                                                          (uint64_t)engine->app->program.seed + 1);
        return st == QY_OK ? QY_OK
                           : qy_error_set(err, QY_ERR_NOMEM, "cache: no room for --context");
    }
    size_t done = 0;
    enum qy_status st = qyi_read_ids(engine, args->file, &d->text, &d->n_text, err);
    if (st == QY_OK && d->n_text < args->context) {
        st = qy_error_set(err, QY_ERR_CONFIG, "file '%s': has %zu tokens, --context asks for %llu",
                          args->file, d->n_text, (unsigned long long)args->context);
    }
    if (st == QY_OK) {
        const uint64_t begin = qy_clock_ns();
        st = qyi_engine_prefill(engine, d->seqs[0], d->text, args->context, 0, NULL, &done, err);
        d->prefill_ns = qy_clock_ns() - begin;
    }
    return st;
}

static enum qy_status fill(struct decode *d, struct qy_error *err)
{
    const uint64_t batch = d->engine.app->args->batch;
    enum qy_status st = QY_OK;
    for (uint64_t i = 0; st == QY_OK && i < batch; i++) {
        st = qy_sequence_open(d->engine.cache, &d->seqs[i], err);
    }
    if (st == QY_OK) {
        st = fill_first(d, err);
    }
    for (uint64_t i = 1; st == QY_OK && i < batch; i++) {
        if (qy_sequence_copy(d->seqs[i], d->seqs[0]) != QY_OK) {
            st = qy_error_set(
                err, QY_ERR_NOMEM,
                "cache: room for %llu of %llu sequences; raise cache.host_bytes or lower "
                "--batch",
                (unsigned long long)i, (unsigned long long)batch);
        }
    }
    return st;
}

/*
 * The text's own continuation (from its beginning after its end), because queries of random tokens
 * look elsewhere; random rows have none, and each sequence gets another token at every step.
 */
static void feed(struct decode *d, uint32_t batch, uint32_t n_vocab)
{
    const size_t at = d->text == NULL ? 0 : (d->engine.app->args->context + d->n_fed) % d->n_text;
    for (uint32_t i = 0; i < batch; i++) {
        d->next[i] = d->text != NULL
                         ? d->text[at]
                         : (int32_t)((uint32_t)(d->next[i] * 31 + 7 * (int32_t)i + 1) % n_vocab);
    }
    d->n_fed++;
}

static enum qy_status step(void *data, uint64_t *ns, struct qy_error *err)
{
    enum { MAX_BATCH = 1024 };
    struct decode *d = data;
    const uint32_t batch = (uint32_t)d->engine.app->args->batch;
    const uint64_t begin = qy_clock_ns();
    struct qy_step_slice slices[MAX_BATCH];
    uint32_t rows[MAX_BATCH];
    feed(d, batch, qy_model_info(d->engine.model)->n_vocab);
    for (uint32_t i = 0; i < batch; i++) {
        slices[i] = (struct qy_step_slice){
            .seq = d->seqs[i], .n_tokens = 1, .ids = &d->next[i], .mode = QY_ATTEND_POLICY};
        rows[i] = i;
    }
    enum qy_status st = qyi_engine_check(&d->engine, d->seqs, batch, err);
    if (st == QY_OK) {
        st = qy_model_forward(d->engine.model, d->engine.cache, slices, batch, rows, batch,
                              d->engine.logits, err);
    }
    *ns = qy_clock_ns() - begin;
    return st;
}

static uint64_t most_warm_up(const struct qyi_args *args)
{
    return args->warm_up == UINT64_MAX ? WARM_UP_DISCRETE : args->warm_up;
}

static uint64_t warm_up(const struct decode *d)
{
    const struct qyi_args *args = d->engine.app->args;
    const int unified = qy_device_caps(d->engine.dev)->unified;
    return args->warm_up == UINT64_MAX && unified ? WARM_UP : most_warm_up(args);
}

static enum qy_status time_steps(struct decode *d, struct qy_error *err)
{
    d->steps.cache = d->engine.cache;
    d->steps.step = step;
    d->steps.data = d;
    d->steps.overlap = d->engine.app->cache.overlap;
    enum qy_status st = qyi_bench_steps_warm(&d->steps, warm_up(d), err);
    qy_model_times_reset(d->engine.model);
    if (st == QY_OK) {
        st = qyi_bench_steps_time(&d->steps, err);
    }
    qyi_report_read(&d->engine, &d->report);
    d->report.n_steps = d->steps.n_timed;
    return st;
}

static void print_json(const struct decode *d, const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_args *args = d->engine.app->args;
    const struct qy_cache_stats *c = &d->report.cache;
    cJSON *object = cJSON_CreateObject();
    qyi_report_json(&d->engine, &d->report, object);
    qyi_bench_summary_json(s, args, object);
    cJSON_DeleteItemFromObject(object, "decode_tps");
    if (args->file == NULL) {
        cJSON_DeleteItemFromObject(object, "prefill_tps");
    }
    cJSON_AddStringToObject(object, "kernels", qy_device_caps(d->engine.dev)->kernels);
    cJSON_AddNumberToObject(object, "kv_gbps",
                            (double)c->read_bytes / (double)(c->stage_ns[QY_STAGE_ATTEND] +
                                                             c->stage_ns[QY_STAGE_SELECT]));
    cJSON_AddNumberToObject(object, "ceiling_gbps", ceiling);
    qyi_print_json(object);
}

static void print_text(const struct decode *d, const struct qyi_bench_summary *s, double ceiling)
{
    const struct qyi_args *args = d->engine.app->args;
    const struct qy_cache_stats *c = &d->report.cache;
    const uint64_t kv_ns = c->stage_ns[QY_STAGE_ATTEND] + c->stage_ns[QY_STAGE_SELECT];
    printf("batch %llu, context %llu, policy %s: %.1f tokens/s, median step %.2f ms of %llu\n",
           (unsigned long long)args->batch, (unsigned long long)args->context,
           d->engine.policy->name, (double)args->batch / s->step_ms * 1e3, s->step_ms,
           (unsigned long long)d->report.n_steps);
    printf("KV is read at %.1f GB/s (memcpy reads %.1f GB/s on the same threads)%s\n",
           kv_ns > 0 ? (double)c->read_bytes / (double)kv_ns : 0, ceiling,
           args->file == NULL ? "; rows are random: speed only" : "");
    fflush(stdout);
    qyi_report_print(&d->engine, &d->report, stdout);
    qyi_bench_overlap_print(s);
}

static enum qy_status run(struct decode *d, struct qy_error *err)
{
    struct qyi_app *app = d->engine.app;
    const struct qyi_args *args = app->args;
    const uint32_t chunk = (uint32_t)app->program.chunk, batch = (uint32_t)args->batch;
    const struct qyi_engine_params params = {
        .max_sequences = batch,
        .max_tokens = (uint32_t)(args->context + 3 * args->steps + most_warm_up(args)),
        .max_step_tokens = chunk > batch ? chunk : batch,
        .max_logits = batch};
    enum qy_status st = qyi_engine_open_model(&d->engine, &params, err);
    if (st == QY_OK) {
        st = fill(d, err);
    }
    if (st == QY_OK) {
        st = time_steps(d, err);
    }
    if (st == QY_OK && !qy_device_caps(d->engine.dev)->unified) {
        st = qyi_bench_steps_movement(&d->steps, err);
    }
    if (st == QY_OK && d->report.n_steps > 0) {
        const struct qyi_bench_summary summary = qyi_bench_steps_summary(&d->steps);
        const double ceiling = qyi_bench_memcpy_gbps(app->rt.team);
        d->report.prompt_tokens = args->file != NULL ? args->context : 0;
        d->report.prefill_tokens = d->report.prompt_tokens;
        d->report.prefill_ns = d->prefill_ns;
        d->report.new_tokens = d->report.n_steps * args->batch;
        d->report.decode_ns = (uint64_t)(summary.step_ms * 1e6) * d->report.n_steps;
        (args->json ? print_json : print_text)(d, &summary, ceiling);
    }
    return st;
}

enum qy_status qyi_bench_decode(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    if (args->batch < 1 || args->batch > 1024 || args->context < 1 || args->steps < 1 ||
        args->steps > 100000 || most_warm_up(args) > 100000 || args->context > (1u << 26)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "bench decode: --batch 1 to 1024, --context 1 to 67108864, --steps 1 to 100000 and "
            "--warm-up 0 to 100000 are accepted");
    }
    if (args->shape != NULL) {
        return qyi_bench_shape(app, err);
    }
    struct decode d = {0};
    enum qy_status st = qyi_engine_open_file(app, &d.engine, err);
    if (st != QY_OK) {
        return st;
    }
    d.seqs = calloc(args->batch, sizeof(struct qy_sequence *));
    d.next = calloc(args->batch, sizeof *d.next);
    st = d.seqs == NULL || d.next == NULL
             ? qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory")
             : qyi_bench_steps_open(&d.steps, args->steps, err);
    if (st == QY_OK) {
        st = run(&d, err);
    }
    for (uint64_t i = 0; d.seqs != NULL && i < args->batch; i++) {
        qy_sequence_close(d.seqs[i]);
    }
    qy_free(&app->rt.mem, d.text);
    qyi_engine_close(&d.engine);
    free(d.seqs);
    free(d.next);
    qyi_bench_steps_close(&d.steps);
    return st;
}
