/* SPDX-License-Identifier: Apache-2.0 */
/* The whole of a calibration: text, samples, tables, file; and the state that an interrupt leaves. */
#include "serve/calibrate/calibrate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/codebook.h"

/* chosen: what fits in two (PQ4) and in fifteen minutes (VQ) on two cores for a model of 135M
 * parameters, half and a multiple of it; by kind and quality. */
static const struct {
    uint32_t n_tokens, iterations;
} amounts[][3] = {
    [QY_CODEBOOK_PQ4] = {{8000, 6}, {20000, 12}, {60000, 25}},
    [QY_CODEBOOK_VQ] = {{16000, 3}, {40000, 8}, {80000, 50}},
};
/* What the model writes itself is made token by token. */
enum { WRITTEN_TOKENS = 10240 };

struct run {
    struct qyi_app *app;
    struct qyi_calibration ask; /* with what was left open filled in */
    struct qyi_engine engine;
    struct qyi_collector collector;
    struct qyi_contexts contexts;
    struct qyi_samples samples;
    struct qy_codebook *codebook;
    uint64_t tag;
    char part[1040];
};

static enum qy_status open_engine(struct run *run, struct qy_error *err)
{
    struct qyi_app *app = run->app;
    enum qy_status st = qyi_engine_open_file(app, &run->engine, err);
    if (st != QY_OK) {
        return st;
    }
    const int writes = run->ask.n_texts == 0;
    const uint64_t written = run->ask.n_tokens + (uint64_t)QYI_WRITERS * app->cache.block_tokens;
    run->collector.settings = app->retrieval;
    run->collector.settings.audit_rate = 0;
    run->collector.samples = &run->samples;
    const uint32_t chunk = (uint32_t)app->program.chunk;
    const struct qyi_engine_params params = {
        .max_sequences = writes ? QYI_WRITERS : 1,
        .max_tokens = QYI_CALIBRATE_CONTEXT,
        .max_step_tokens = writes && chunk < QYI_WRITERS ? QYI_WRITERS : chunk,
        .max_logits = writes ? QYI_WRITERS : 1,
        .total_tokens = written > QYI_CALIBRATE_CONTEXT ? written : QYI_CALIBRATE_CONTEXT,
        .policy = &qyi_collector_ops,
        .retrieval = &run->collector.settings};
    return qyi_engine_open_model(&run->engine, &params, err);
}

static enum qy_status make_codebook(struct run *run, struct qy_error *err)
{
    const struct qyi_calibration *ask = &run->ask;
    const struct qy_kv_shape shape = qy_model_kv_shape(run->engine.model);
    const int vq = ask->kind == QY_CODEBOOK_VQ;
    struct qy_codebook_info info = qyi_codebook_wanted(&run->engine, ask->kind);
    const uint32_t quarter = shape.head_dim % 4 == 0 ? shape.head_dim / 4 : shape.head_dim;
    info.n_layers = shape.n_layers;
    info.n_kv_heads = shape.n_kv_heads;
    info.head_dim = shape.head_dim;
    info.m = vq ? 1 : ask->sub_vectors > 0 ? ask->sub_vectors : quarter;
    info.n_words = !vq ? 16 : ask->n_words > 0 ? ask->n_words : 4096;
    info.bits = !vq ? 4 : info.n_words <= 256 ? 8 : 16;
    info.seed = ask->seed;
    info.n_tokens = run->contexts.n_ids;
    const enum qy_metric chosen = ask->metric != QY_METRIC_AUTO ? ask->metric
                                  : vq                          ? QY_METRIC_QUERY_AVERAGE
                                                                : QY_METRIC_ROTARY;
    snprintf(info.metric, sizeof info.metric, "%s", qy_metric_name(chosen));
    return qy_codebook_new(&run->app->rt.mem, &info, &run->codebook, err);
}

/* Everything that the tables depend on. */
static uint64_t find_tag(const struct run *run)
{
    const struct qy_codebook_info *info = qy_codebook_info(run->codebook);
    const uint64_t words[] = {info->model_hash,
                              (uint64_t)info->kind,
                              info->m,
                              info->n_words,
                              info->seed,
                              run->ask.iterations,
                              (uint64_t)run->ask.metric,
                              (uint64_t)run->app->program.compute};
    const uint64_t text =
        qy_checksum(run->contexts.ids, run->contexts.n_ids * sizeof *run->contexts.ids, 0);
    return qy_checksum(words, sizeof words, text) | 1; /* 0 is that of a finished one */
}

/* Takes the tables of an interrupted calibration that asked for the same. */
static void resume(struct run *run, struct qyi_calibrated *result)
{
    struct qy_codebook *found = NULL;
    struct qy_error err;
    uint64_t tag = 0;
    if (access(run->part, F_OK) != 0) {
        return;
    }
    if (qy_codebook_open_part(&run->app->rt.mem, run->part, &found, &tag, &err) != QY_OK ||
        tag != run->tag) {
        fprintf(stderr, "calibrate: '%s' is of another calibration: beginning anew\n", run->part);
        qy_codebook_close(found);
        return;
    }
    qy_codebook_close(run->codebook);
    run->codebook = found;
    for (uint32_t i = 0; i < result->n_tables; i++) {
        result->n_resumed += qy_codebook_has(found, i / run->samples.shape.n_kv_heads,
                                             i % run->samples.shape.n_kv_heads) != 0;
    }
    fprintf(stderr, "calibrate: going on with '%s': %u of %u tables are there\n", run->part,
            result->n_resumed, result->n_tables);
}

static enum qy_status read_samples(struct run *run, struct qyi_calibrated *result,
                                   struct qy_error *err)
{
    const struct qyi_calibration *ask = &run->ask;
    const uint32_t trained = qy_model_info(run->engine.model)->n_ctx_train;
    const uint32_t context = trained < QYI_CALIBRATE_CONTEXT ? trained : QYI_CALIBRATE_CONTEXT;
    const struct qy_kv_shape shape = qy_model_kv_shape(run->engine.model);
    const uint64_t begin = qy_clock_ns();
    run->samples.base = SIZE_MAX; /* what the model writes is not kept while it writes */
    enum qy_status st =
        qyi_contexts_make(&run->engine, ask, ask->n_tokens, context, &run->contexts, err);
    if (st == QY_OK) {
        st = qyi_samples_open(&run->samples, shape, run->contexts.n_ids,
                              ask->metric != QY_METRIC_PLAIN, err);
    }
    if (st == QY_OK) {
        st = qyi_samples_collect(&run->engine, &run->contexts, &run->samples, err);
    }
    result->n_tokens = run->contexts.n_ids;
    result->n_tables = shape.n_layers * shape.n_kv_heads;
    result->read_seconds = (double)(qy_clock_ns() - begin) * 1e-9;
    return st;
}

/* Writes the file, or what there is of it. */
static enum qy_status keep(struct run *run, struct qyi_calibrated *result, struct qy_error *err)
{
    struct stat stat_of;
    uint32_t n = 0;
    for (uint32_t i = 0; i < result->n_tables; i++) {
        n += qy_codebook_has(run->codebook, i / run->samples.shape.n_kv_heads,
                             i % run->samples.shape.n_kv_heads) != 0;
    }
    if (n < result->n_tables) {
        const enum qy_status st = qy_codebook_save_part(run->codebook, run->tag, run->part, err);
        return st != QY_OK ? st
                           : qy_error_set(err, QY_AGAIN,
                                          "calibrate: interrupted; %u of %u tables are kept in "
                                          "'%s': the same command goes on from there",
                                          n, result->n_tables, run->part);
    }
    const enum qy_status st = qy_codebook_save(run->codebook, run->ask.out, err);
    if (st == QY_OK) {
        unlink(run->part);
        result->bytes = stat(run->ask.out, &stat_of) == 0 ? (uint64_t)stat_of.st_size : 0;
    }
    return st;
}

static enum qy_status run_all(struct run *run, struct qyi_calibrated *result, struct qy_error *err)
{
    enum qy_status st = open_engine(run, err);
    if (st == QY_OK) {
        st = read_samples(run, result, err);
    }
    if (st == QY_OK) {
        st = make_codebook(run, err);
    }
    if (st != QY_OK) {
        return st;
    }
    run->tag = find_tag(run);
    resume(run, result);
    const struct qy_train_params params = {.rope = qy_model_rope(run->engine.model),
                                           .metric = run->ask.metric,
                                           .max_position =
                                               qy_model_info(run->engine.model)->n_ctx_train,
                                           .iterations = run->ask.iterations,
                                           .seed = run->ask.seed};
    const uint64_t begin = qy_clock_ns();
    st = qyi_samples_learn(run->app, run->codebook, &params, &run->samples, &result->distortion,
                           err);
    result->learn_seconds = (double)(qy_clock_ns() - begin) * 1e-9;
    return st == QY_OK ? keep(run, result, err) : st;
}

enum qy_status qyi_calibrate(struct qyi_app *app, const struct qyi_calibration *calibration,
                             struct qyi_calibrated *result, struct qy_error *err)
{
    memset(result, 0, sizeof *result);
    enum qy_status st = qy_codebook_train_present(err);
    struct run *run = st == QY_OK ? calloc(1, sizeof *run) : NULL;
    if (run == NULL) {
        return st != QY_OK ? st : qy_error_set(err, QY_ERR_NOMEM, "calibrate: out of memory");
    }
    run->app = app;
    run->ask = *calibration;
    const uint32_t usual = amounts[calibration->kind][calibration->quality].n_tokens;
    if (run->ask.n_tokens == 0) {
        run->ask.n_tokens =
            calibration->n_texts > 0 || usual < WRITTEN_TOKENS ? usual : WRITTEN_TOKENS;
    }
    if (run->ask.iterations == 0) {
        run->ask.iterations = amounts[calibration->kind][calibration->quality].iterations;
    }
    snprintf(run->part, sizeof run->part, "%s.part", calibration->out);
    st = run_all(run, result, err);
    qy_codebook_close(run->codebook);
    qyi_samples_close(&run->samples);
    qyi_contexts_free(&run->contexts);
    qyi_engine_close(&run->engine);
    free(run);
    return st;
}
