/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench decode: a batch of sequences of one length, timed step by step with the real model.
 * KV comes from one prefill of -f FILE copied to every sequence, or from random rows (speed only).
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench.h"

enum { WARM_UP = 2 };

struct decode {
    struct qyi_engine engine;
    struct qy_sequence **seqs;
    int32_t *next; /* [batch] token fed next */
    int32_t *text; /* [n_text] of -f FILE, or NULL; what follows the context is fed */
    size_t n_text;
    uint64_t n_fed;
    uint64_t *samples;
    uint64_t prefill_ns;
    uint64_t moved_ns; /* of all steps, what movement takes alone; 0: nothing moves */
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

static enum qy_status step(struct decode *d, struct qy_error *err)
{
    enum { MAX_BATCH = 1024 };
    const uint32_t batch = (uint32_t)d->engine.app->args->batch;
    struct qy_step_slice slices[MAX_BATCH];
    uint32_t rows[MAX_BATCH];
    feed(d, batch, qy_model_info(d->engine.model)->n_vocab);
    for (uint32_t i = 0; i < batch; i++) {
        slices[i] = (struct qy_step_slice){
            .seq = d->seqs[i], .n_tokens = 1, .ids = &d->next[i], .mode = QY_ATTEND_POLICY};
        rows[i] = i;
    }
    return qy_model_forward(d->engine.model, d->engine.cache, slices, batch, rows, batch,
                            d->engine.logits, err);
}

static enum qy_status time_steps(struct decode *d, struct qy_error *err)
{
    const uint64_t steps = d->engine.app->args->steps;
    enum qy_status st = QY_OK;
    for (int i = 0; st == QY_OK && i < WARM_UP; i++) {
        st = step(d, err);
    }
    qy_model_times_reset(d->engine.model);
    qy_cache_stats_reset(d->engine.cache);
    for (uint64_t i = 0; st == QY_OK && i < steps && !qyi_interrupted(); i++) {
        const uint64_t begin = qy_clock_ns();
        st = step(d, err);
        d->samples[i] = qy_clock_ns() - begin;
        d->report.n_steps++;
    }
    qyi_report_read(&d->engine, &d->report);
    return st;
}

/* As many steps again, with every pull waited for at once: what movement takes alone. */
static enum qy_status time_movement(struct decode *d, struct qy_error *err)
{
    struct qy_cache_stats stats;
    enum qy_status st = QY_OK;
    qy_cache_stats_reset(d->engine.cache);
    qy_cache_set_overlap(d->engine.cache, 0);
    for (uint64_t i = 0; st == QY_OK && i < d->report.n_steps && !qyi_interrupted(); i++) {
        st = step(d, err);
    }
    qy_cache_stats(d->engine.cache, &stats);
    d->moved_ns = stats.stage_ns[QY_STAGE_WAIT];
    return st;
}

/* Share of the movement that computing did not wait for. */
static double overlap(const struct decode *d)
{
    return 1.0 - (double)d->report.cache.stage_ns[QY_STAGE_WAIT] / (double)d->moved_ns;
}

static void print_json(const struct decode *d, double step_ms, double ceiling)
{
    const struct qyi_args *args = d->engine.app->args;
    const struct qy_cache_stats *c = &d->report.cache;
    cJSON *object = cJSON_CreateObject();
    qyi_report_json(&d->engine, &d->report, object);
    if (d->moved_ns > 0) {
        cJSON_AddNumberToObject(object, "overlap", overlap(d));
        cJSON_AddNumberToObject(object, "movement_alone_ms",
                                (double)d->moved_ns * 1e-6 / (double)d->report.n_steps);
    } else {
        cJSON_AddNullToObject(object, "overlap");
    }
    cJSON_DeleteItemFromObject(object, "decode_tps");
    if (args->file == NULL) {
        cJSON_DeleteItemFromObject(object, "prefill_tps");
    }
    cJSON_AddNumberToObject(object, "tokens_per_s", (double)args->batch / step_ms * 1e3);
    cJSON_AddNumberToObject(object, "step_ms", step_ms);
    cJSON_AddNumberToObject(object, "batch", (double)args->batch);
    cJSON_AddNumberToObject(object, "context", (double)args->context);
    cJSON_AddStringToObject(object, "kernels", qy_device_caps(d->engine.dev)->kernels);
    cJSON_AddNumberToObject(object, "kv_gbps",
                            (double)c->read_bytes / (double)(c->stage_ns[QY_STAGE_ATTEND] +
                                                             c->stage_ns[QY_STAGE_SELECT]));
    cJSON_AddNumberToObject(object, "ceiling_gbps", ceiling);
    qyi_print_json(object);
}

static void print_text(const struct decode *d, double step_ms, double ceiling)
{
    const struct qyi_args *args = d->engine.app->args;
    const struct qy_cache_stats *c = &d->report.cache;
    const uint64_t kv_ns = c->stage_ns[QY_STAGE_ATTEND] + c->stage_ns[QY_STAGE_SELECT];
    printf("batch %llu, context %llu, policy %s: %.1f tokens/s, median step %.2f ms of %llu\n",
           (unsigned long long)args->batch, (unsigned long long)args->context,
           d->engine.policy->name, (double)args->batch / step_ms * 1e3, step_ms,
           (unsigned long long)d->report.n_steps);
    printf("KV is read at %.1f GB/s (memcpy reads %.1f GB/s on the same threads)%s\n",
           kv_ns > 0 ? (double)c->read_bytes / (double)kv_ns : 0, ceiling,
           args->file == NULL ? "; rows are random: speed only" : "");
    fflush(stdout);
    qyi_report_print(&d->engine, &d->report, stdout);
    if (d->moved_ns > 0) {
        printf(
            "  overlap       %.2f: movement takes %.1f ms of a step alone, %.1f ms of it were "
            "waited for\n",
            overlap(d), (double)d->moved_ns * 1e-6 / (double)d->report.n_steps,
            (double)d->report.cache.stage_ns[QY_STAGE_WAIT] * 1e-6 / (double)d->report.n_steps);
    }
}

static enum qy_status run(struct decode *d, struct qy_error *err)
{
    struct qyi_app *app = d->engine.app;
    const struct qyi_args *args = app->args;
    const uint32_t chunk = (uint32_t)app->program.chunk, batch = (uint32_t)args->batch;
    const struct qyi_engine_params params = {
        .max_sequences = batch,
        .max_tokens = (uint32_t)(args->context + 2 * args->steps + WARM_UP),
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
        st = time_movement(d, err);
    }
    if (st == QY_OK && d->report.n_steps > 0) {
        const double step_ms = (double)qyi_bench_median(d->samples, d->report.n_steps) * 1e-6;
        const double ceiling = qyi_bench_memcpy_gbps(app->rt.team);
        d->report.prompt_tokens = args->file != NULL ? args->context : 0;
        d->report.prefill_tokens = d->report.prompt_tokens;
        d->report.prefill_ns = d->prefill_ns;
        d->report.new_tokens = d->report.n_steps * args->batch;
        d->report.decode_ns = (uint64_t)(step_ms * 1e6) * d->report.n_steps;
        args->json ? print_json(d, step_ms, ceiling) : print_text(d, step_ms, ceiling);
    }
    return st;
}

enum qy_status qyi_bench_decode(struct qyi_app *app, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    if (args->batch < 1 || args->batch > 1024 || args->context < 1 || args->steps < 1 ||
        args->steps > 100000 || args->context > (1u << 26)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "bench decode: --batch 1 to 1024, --context 1 to 67108864 and --steps 1 to "
            "100000 are accepted");
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
    d.samples = calloc(args->steps, sizeof *d.samples);
    if (d.seqs == NULL || d.next == NULL || d.samples == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "bench decode: out of memory");
    } else {
        st = run(&d, err);
    }
    for (uint64_t i = 0; d.seqs != NULL && i < args->batch; i++) {
        qy_sequence_close(d.seqs[i]);
    }
    qy_free(&app->rt.mem, d.text);
    qyi_engine_close(&d.engine);
    free(d.seqs);
    free(d.next);
    free(d.samples);
    return st;
}
