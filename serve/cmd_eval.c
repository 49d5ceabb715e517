/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval: the quality of one or several policies against dense attention on the same tokens.
 * Each run opens the engine anew with the run's settings; the text or task is made once. Policies
 * choose from the first token on: retrieval.min_tokens = -1, which attends to everything where
 * choosing would not pay, counts as 0 here.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

static const struct qyi_eval_kind *const kinds[] = {
    &qyi_eval_ppl, &qyi_eval_recall, &qyi_eval_needle, &qyi_eval_aggregate, &qyi_eval_turns};

static const struct qyi_eval_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i]->name, name) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

/* The settings that runs may change, as the command line left them. */
struct settings {
    struct qy_cache_settings cache;
    struct qy_retrieval_settings retrieval;
    struct qyi_settings program;
};

static enum qy_status apply(struct qyi_app *app, const struct settings *base,
                            const struct qyi_eval_kind *kind, const struct qyi_eval_run *run,
                            struct qy_error *err)
{
    app->cache = base->cache;
    app->retrieval = base->retrieval;
    app->program = base->program;
    if (app->retrieval.min_tokens < 0) { /* what choosing gives, also where it would not pay */
        app->retrieval.min_tokens = 0;
    }
    if (kind->audit && !(app->retrieval.audit_rate > 0)) {
        app->retrieval.audit_rate = 1;
    }
    enum qy_status st =
        qy_config_set_value(app->config, "retrieval.policy", run->policy, "--policies", err);
    if (st == QY_OK) {
        st = qy_config_set_value(app->config, "retrieval.budget", run->budget, "--policies", err);
    }
    for (size_t i = 0; st == QY_OK && i < run->n_sets; i++) {
        st = qy_config_set(app->config, run->sets[i], "--policies", err);
    }
    return st;
}

/* A dense pass is the same whatever the policy beside it is. */
static void check_dense(const struct qyi_eval *eval, const struct qyi_eval_result *result,
                        double *first)
{
    if (isnan(*first)) {
        *first = result->dense_check;
    } else if (!qyi_interrupted() &&
               fabs(result->dense_check - *first) > 1e-3 * (1 + fabs(*first))) {
        qy_log_write(&eval->app->rt.log, QY_LOG_WARN, "eval",
                     "%s: the dense pass differs from the first run's (ln p %.4f, %.4f): settings "
                     "that dense attention depends on differ",
                     result->run->label, result->dense_check, *first);
    }
}

static void common_json(const struct qyi_eval *eval, struct qyi_eval_result *result)
{
    const struct qy_cache_stats *stats = &result->stats;
    cJSON *object = result->json = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "kind", eval->app->args->topic);
    cJSON_AddStringToObject(object, "policy", result->run->policy);
    cJSON_AddStringToObject(object, "budget", result->run->budget);
    cJSON_AddStringToObject(object, "label", result->run->label);
    cJSON_AddNumberToObject(object, "ctx", (double)eval->app->args->ctx);
    cJSON_AddNumberToObject(object, "attended", qyi_attended(stats));
    cJSON_AddNumberToObject(object, "attended_sparse", qyi_attended_sparse(stats));
    qyi_audit_json(eval->engine.cache, qy_model_info(eval->engine.model)->n_layers, object);
    qyi_home_json(eval->engine.cache, stats, object);
    cJSON_AddNumberToObject(object, "read_bytes", (double)stats->read_bytes);
    cJSON_AddNumberToObject(object, "index_read_bytes", (double)stats->index_read_bytes);
    cJSON_AddNumberToObject(object, "dense_read_bytes", (double)stats->dense_read_bytes);
    cJSON_AddNumberToObject(object, "index_bytes", (double)stats->index_bytes);
    cJSON_AddBoolToObject(object, "interrupted", qyi_interrupted());
}

/* Prints the run's row, or adds it to the list. */
static void report(struct qyi_eval *eval, const struct qyi_eval_kind *kind,
                   struct qyi_eval_result *result, size_t place, cJSON *list)
{
    if (isnan(eval->yardstick)) {
        eval->yardstick = result->n > 0 ? result->kl_sum / (double)result->n : 0;
    }
    if (eval->app->args->json) {
        common_json(eval, result);
        kind->json(eval, result);
        cJSON_AddItemToArray(list, result->json);
        return;
    }
    if (place == 0) {
        kind->head(eval);
    }
    if (result->n > 0) {
        kind->row(eval, result);
    }
    fflush(stdout);
}

/* One run with the engine open. */
static enum qy_status measure(struct qyi_eval *eval, const struct qyi_eval_kind *kind,
                              struct qyi_eval_result *result, struct qy_error *err)
{
    struct qyi_engine_params params = {0};
    kind->size(eval, &params);
    enum qy_status st = qyi_engine_open_model(&eval->engine, &params, err);
    if (st == QY_OK) {
        st = qy_sequence_open(eval->engine.cache, &eval->dense, err);
    }
    if (st == QY_OK && params.max_sequences > 1) {
        st = qy_sequence_open(eval->engine.cache, &eval->policy, err);
    }
    if (st == QY_OK) {
        st = kind->run(eval, result, err);
    }
    if (st == QY_OK) {
        qy_cache_stats(eval->engine.cache, &result->stats);
        result->audit =
            qyi_audit_total(eval->engine.cache, qy_model_info(eval->engine.model)->n_layers);
    }
    return st;
}

static enum qy_status run_all(struct qyi_eval *eval, const struct qyi_eval_kind *kind,
                              const struct settings *base, cJSON *list, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    double dense_check = NAN;
    for (size_t i = 0; st == QY_OK && i < eval->runs.n && !qyi_interrupted(); i++) {
        struct qyi_eval_result *result = calloc(1, sizeof *result);
        if (result == NULL) {
            return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory");
        }
        result->run = &eval->runs.run[i];
        if (eval->runs.n > 1) {
            fprintf(stderr, "%s (%zu of %zu)\n", result->run->label, i + 1, eval->runs.n);
        }
        st = apply(eval->app, base, kind, result->run, err);
        if (st == QY_OK) {
            st = qyi_engine_open_file(eval->app, &eval->engine, err);
        }
        if (st == QY_OK && i == 0) {
            st = kind->prepare(eval, err);
        }
        if (st == QY_OK) {
            st = measure(eval, kind, result, err);
        }
        if (st == QY_OK) {
            report(eval, kind, result, i, list);
            check_dense(eval, result, &dense_check);
        }
        qy_sequence_close(eval->policy);
        qy_sequence_close(eval->dense);
        eval->policy = eval->dense = NULL;
        qyi_engine_close(&eval->engine);
        free(result->kl);
        free(result);
    }
    return st;
}

/* One run: its object. Several: {"runs": [...]}. */
static int print_json(const struct qyi_eval *eval, cJSON *list)
{
    if (eval->runs.n == 1 && cJSON_GetArraySize(list) == 1) {
        cJSON *only = cJSON_DetachItemFromArray(list, 0);
        cJSON_Delete(list);
        return qyi_print_json(only);
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "kind", eval->app->args->topic);
    cJSON_AddItemToObject(object, "runs", list);
    return qyi_print_json(object);
}

/* All runs are checked before the first one starts. */
static enum qy_status check_runs(struct qyi_eval *eval, const struct qyi_eval_kind *kind,
                                 const struct settings *base, struct qy_error *err)
{
    struct qyi_app *app = eval->app;
    enum qy_status st = qyi_eval_runs_parse(app->args->policies, app->args->budgets,
                                            &base->retrieval, &eval->runs, err);
    eval->label_width = 12;
    for (size_t i = 0; st == QY_OK && i < eval->runs.n; i++) {
        const int width = (int)strlen(eval->runs.run[i].label);
        eval->label_width = width > eval->label_width ? width : eval->label_width;
        st = apply(app, base, kind, &eval->runs.run[i], err);
    }
    if (st == QY_OK && kind == &qyi_eval_ppl && !app->args->count) { /* plain dense perplexity */
        const struct qyi_eval_run dense = {.label = "dense", .policy = "dense", .budget = "auto"};
        eval->runs.run[0] = dense;
        eval->runs.n = 1;
    }
    if (st == QY_OK && app->args->dump != NULL) {
        if (eval->runs.n > 1) {
            return qy_error_set(err, QY_ERR_CONFIG, "option '--dump': of one policy only");
        }
        eval->dump = fopen(app->args->dump, "w");
        if (eval->dump == NULL) {
            st = qy_error_set(err, QY_ERR_NOT_FOUND, "option '--dump': '%s' cannot be written: %s",
                              app->args->dump, strerror(errno));
        }
    }
    return st;
}

int qyi_cmd_eval(struct qyi_app *app)
{
    struct qy_error err = {0};
    const struct qyi_eval_kind *kind = find_kind(app->args->topic);
    const struct settings base = {app->cache, app->retrieval, app->program};
    struct qyi_eval *eval = calloc(1, sizeof *eval);
    cJSON *list = cJSON_CreateArray();
    enum qy_status st = QY_OK;
    if (kind == NULL || eval == NULL || list == NULL) {
        st = qy_error_set(&err, QY_ERR_NOMEM, "eval: out of memory");
    }
    if (st == QY_OK) {
        eval->app = app;
        eval->yardstick = NAN;
        st = check_runs(eval, kind, &base, &err);
    }
    if (st == QY_OK) {
        st = run_all(eval, kind, &base, list, &err);
    }
    if (eval != NULL && eval->dump != NULL && fclose(eval->dump) != 0 && st == QY_OK) {
        st = qy_error_set(&err, QY_ERR_NOT_FOUND, "option '--dump': writing '%s' failed: %s",
                          app->args->dump, strerror(errno));
    }
    int code = st == QY_OK ? 0 : qyi_fail(&err);
    if (code == 0 && app->args->json) {
        code = print_json(eval, list);
    } else {
        cJSON_Delete(list);
    }
    if (eval != NULL) {
        qyi_eval_task_close(&eval->task);
        qy_free(&app->rt.mem, eval->ids);
    }
    free(eval);
    return code == 0 && qyi_interrupted() ? 130 : code;
}
