/* SPDX-License-Identifier: Apache-2.0 */
/* What a command needs to run a model: file, tokenizer, device, weights, cache; and prefill. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/codebook.h"
#include "serve/memory/memory_link.h"

static const char default_model[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

enum qy_status qyi_model_path(const struct qyi_app *app, char *path, size_t path_bytes,
                              struct qy_error *err)
{
    if (app->program.model[0] != '\0') {
        snprintf(path, path_bytes, "%s", app->program.model);
        return QY_OK;
    }
    char folder[480];
    qyi_cache_folder(folder, sizeof folder);
    snprintf(path, path_bytes, "%s/%s", folder, default_model);
    if (access(path, R_OK) != 0) {
        return qy_error_set(err, QY_ERR_NOT_FOUND,
                            "model '%s': not there; give -m FILE.gguf or run scripts/fetch-model",
                            path);
    }
    return QY_OK;
}

struct qy_link qyi_link(const struct qyi_app *app)
{
    return (struct qy_link){.gbps = app->program.link_gbps,
                            .copy_ns = (uint64_t)(app->program.link_copy_us * 1e3 + 0.5)};
}

/* retrieval.budget; auto is the policy's own. */
static enum qy_status choose_budget(struct qyi_engine *engine, struct qy_error *err)
{
    const struct qy_retrieval_settings *settings = &engine->app->retrieval;
    const char *text = settings->budget;
    if (strcmp(text, "auto") == 0) {
        text = engine->policy->budget != NULL ? engine->policy->budget(settings) : "0.05";
    }
    engine->budget_text = text;
    return qy_budget_parse(text, &engine->budget, err);
}

enum qy_status qyi_engine_open_file(struct qyi_app *app, struct qyi_engine *engine,
                                    struct qy_error *err)
{
    memset(engine, 0, sizeof *engine);
    engine->app = app;
    const uint64_t begin = qy_clock_ns();
    char path[512];
    enum qy_status st = qy_policy_choose(app->retrieval.policy, &engine->policy, err);
    if (st == QY_OK) {
        st = choose_budget(engine, err);
    }
    if (st == QY_OK) {
        st = qyi_model_path(app, path, sizeof path, err);
    }
    if (st == QY_OK) {
        st = qy_gguf_open(&app->rt.mem, path, &engine->gguf, err);
    }
    if (st == QY_OK) {
        st = qy_tokenizer_open(&app->rt.mem, engine->gguf, &engine->tokenizer, err);
    }
    engine->load_ns = qy_clock_ns() - begin;
    if (st != QY_OK) {
        qyi_engine_close(engine);
    }
    return st;
}

/* Node and peers of memory servers. */
static enum qy_status open_memory(struct qyi_engine *engine, struct qy_error *err)
{
    struct qyi_app *app = engine->app;
    if (!qyi_memory_link_wanted(app)) {
        return QY_OK;
    }
    engine->memory = qy_alloc_zero(&app->rt.mem, sizeof *engine->memory);
    return engine->memory == NULL
               ? qy_error_set(err, QY_ERR_NOMEM, "net.memory: out of memory at open")
               : qyi_memory_link_open(app, engine->memory, err);
}

/* device.spec. Rows on memory servers are copied to a device that has memory of its own; with them the
 * host plays one. chosen: as large as the cache finds when it is opened, which knows the request. */
static const char *device_spec(const struct qyi_app *app)
{
    const char *spec = app->program.device;
    return strcmp(spec, "host") == 0 && qyi_memory_link_wanted(app) ? "host-discrete:auto" : spec;
}

static enum qy_status open_cache(struct qyi_engine *engine, const struct qyi_engine_params *params,
                                 struct qy_error *err)
{
    struct qyi_app *app = engine->app;
    const struct qy_cache_params cache = {
        .rt = &app->rt,
        .dev = engine->dev,
        .shape = qy_model_kv_shape(engine->model),
        .rope = qy_model_rope(engine->model),
        .scale = qy_model_scale(engine->model),
        .settings = app->cache,
        .policy = engine->policy,
        .policy_argument = qy_policy_argument(app->retrieval.policy),
        .codebook = engine->codebook,
        .retrieval = params->retrieval != NULL ? params->retrieval : &app->retrieval,
        .budget = engine->budget,
        .servers = engine->memory != NULL ? &engine->memory->servers : NULL,
        .max_sequences = params->max_sequences,
        .max_tokens = engine->max_tokens,
        .max_step_tokens = params->max_step_tokens,
        .total_tokens = params->total_tokens,
        .on_selection = params->on_selection,
        .selection_ctx = params->selection_ctx};
    return qy_cache_open(&cache, &engine->cache, err);
}

enum qy_status qyi_engine_open_model(struct qyi_engine *engine,
                                     const struct qyi_engine_params *params, struct qy_error *err)
{
    struct qyi_app *app = engine->app;
    const uint64_t begin = qy_clock_ns();
    const struct qy_device_params device = {.spec = device_spec(app),
                                            .compute = (enum qy_compute)app->program.compute,
                                            .deterministic = app->program.deterministic,
                                            .max_m = params->max_step_tokens,
                                            .link = qyi_link(app)};
    if (params->policy != NULL) {
        engine->policy = params->policy;
    }
    enum qy_status st = qyi_codebook_find(engine, err); /* first: it may have to be learnt */
    if (st == QY_OK) {
        st = qy_device_open(&app->rt, &device, &engine->dev, err);
    }
    if (st == QY_OK) {
        const struct qy_model_params model = {.rt = &app->rt,
                                              .dev = engine->dev,
                                              .max_step_tokens = params->max_step_tokens,
                                              .max_logits = params->max_logits};
        st = qy_model_open(&model, engine->gguf, &engine->model, err);
    }
    if (st == QY_OK) {
        const uint32_t trained = qy_model_info(engine->model)->n_ctx_train;
        engine->max_tokens = params->max_tokens > 0 ? params->max_tokens
                             : trained < 32768      ? trained
                                                    : 32768;
        if (engine->max_tokens > trained) {
            qy_log_write(
                &app->rt.log, QY_LOG_WARN, "model",
                "context of %u tokens: the model was trained on %u; answers get worse beyond",
                engine->max_tokens, trained);
        }
        st = open_memory(engine, err);
    }
    if (st == QY_OK) {
        st = open_cache(engine, params, err);
    }
    if (st == QY_OK) {
        engine->logits =
            qy_alloc_zero(&app->rt.mem, (size_t)params->max_logits *
                                            qy_model_info(engine->model)->n_vocab * sizeof(float));
        if (engine->logits == NULL) {
            st = qy_error_set(err, QY_ERR_NOMEM, "logits of %u rows: out of memory",
                              params->max_logits);
        }
    }
    engine->load_ns += qy_clock_ns() - begin;
    return st; /* the caller closes the engine either way */
}

void qyi_engine_close(struct qyi_engine *engine)
{
    if (engine->app == NULL) {
        return;
    }
    qy_free(&engine->app->rt.mem, engine->logits);
    qy_cache_close(engine->cache);
    if (engine->memory != NULL) {
        qyi_memory_link_close(engine->memory);
        qy_free(&engine->app->rt.mem, engine->memory);
    }
    qy_codebook_close(engine->codebook);
    qy_model_close(engine->model);
    qy_device_close(engine->dev);
    qy_tokenizer_close(engine->tokenizer);
    qy_gguf_close(engine->gguf);
    memset(engine, 0, sizeof *engine);
}

enum qy_status qyi_engine_prefill(struct qyi_engine *engine, struct qy_sequence *seq,
                                  const int32_t *ids, size_t n, int want_logits,
                                  struct qyi_progress *progress, size_t *done, struct qy_error *err)
{
    const size_t chunk = (size_t)engine->app->program.chunk;
    *done = 0;
    for (size_t at = 0; at < n && !qyi_interrupted(); at = *done) {
        const size_t take = n - at < chunk ? n - at : chunk;
        const struct qy_step_slice slice = {
            .seq = seq, .n_tokens = (uint32_t)take, .ids = ids + at, .mode = QY_ATTEND_DENSE};
        const uint32_t last = (uint32_t)take - 1;
        const int logits = want_logits && at + take == n;
        enum qy_status st = qyi_engine_forward(engine, &slice, 1, &last, logits ? 1 : 0, err);
        if (st == QY_AGAIN) {
            struct qy_cache_stats stats;
            qy_cache_stats(engine->cache, &stats);
            st = qy_error_set(err, QY_ERR_NOMEM,
                              "cache full after %zu of %zu tokens: %u of %u blocks are used; raise "
                              "cache.host_bytes or shorten the text",
                              at, n, stats.blocks_used, stats.blocks_total);
        }
        if (st != QY_OK) {
            return st;
        }
        *done = at + take;
        if (progress != NULL) {
            qyi_progress_update(progress, *done);
        }
    }
    return QY_OK;
}
