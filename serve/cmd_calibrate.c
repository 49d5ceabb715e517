/* SPDX-License-Identifier: Apache-2.0 */
/* quarry calibrate: learns the codebook of a model, or its map of layers, from texts. */
#include <string.h>

#include "serve/calibrate/calibrate.h"
#include "serve/codebook.h"

static enum qy_status read_quality(const char *name, enum qyi_quality *quality,
                                   struct qy_error *err)
{
    static const char *const names[] = {"low", "default", "high"};
    for (int i = 0; i < 3; i++) {
        if (name == NULL || strcmp(name, names[i]) == 0) {
            *quality = name == NULL ? QYI_QUALITY_DEFAULT : (enum qyi_quality)i;
            return QY_OK;
        }
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "--quality '%s': refused; low, default and high are accepted", name);
}

/* The kind that the policy needs; without one given: that of a2ats+. */
static enum qy_status read_kind(struct qyi_app *app, enum qy_codebook_kind *kind,
                                struct qy_error *err)
{
    const struct qy_policy_ops *ops = NULL;
    if (strcmp(app->retrieval.policy, "dense") == 0) {
        snprintf(app->retrieval.policy, sizeof app->retrieval.policy, "a2ats+");
    }
    const enum qy_status st = qy_policy_choose(app->retrieval.policy, &ops, err);
    if (st != QY_OK) {
        return st;
    }
    *kind = ops->codebook != NULL ? ops->codebook(&app->retrieval) : QY_CODEBOOK_NONE;
    if (*kind == QY_CODEBOOK_NONE) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "--policy '%s': needs no codebook; a2ats+ and a2ats are accepted",
                            app->retrieval.policy);
    }
    return QY_OK;
}

static enum qy_status read_request(struct qyi_app *app, struct qyi_calibration *ask,
                                   struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    *ask = (struct qyi_calibration){.out = args->output,
                                    .texts = args->texts,
                                    .n_texts = args->n_texts,
                                    .n_tokens = args->tokens,
                                    .iterations = (uint32_t)args->iterations,
                                    .sub_vectors = (uint32_t)args->sub_vectors,
                                    .n_words = (uint32_t)args->words,
                                    .seed = (uint64_t)app->program.seed};
    enum qy_status st = read_kind(app, &ask->kind, err);
    if (st == QY_OK) {
        st = read_quality(args->quality, &ask->quality, err);
    }
    if (st == QY_OK && args->metric != NULL) {
        st = qy_metric_parse(args->metric, &ask->metric, err);
    }
    return st;
}

/* Without -o: where runs look for it. */
static enum qy_status place_output(struct qyi_app *app, struct qyi_calibration *ask, char *path,
                                   size_t bytes, struct qy_error *err)
{
    struct qyi_engine engine;
    if (ask->out != NULL) {
        return QY_OK;
    }
    enum qy_status st = qyi_engine_open_file(app, &engine, err);
    if (st == QY_OK) {
        st = qyi_codebook_path(&engine, ask->kind, path, bytes, err);
        qyi_engine_close(&engine);
    }
    ask->out = path;
    return st;
}

static int print_result(const struct qyi_app *app, const struct qyi_calibration *ask,
                        const struct qyi_calibrated *result)
{
    const double seconds = result->read_seconds + result->learn_seconds;
    if (app->args->json) {
        cJSON *object = cJSON_CreateObject();
        qyi_json_add_text(object, "file", ask->out);
        cJSON_AddStringToObject(object, "policy", qyi_codebook_policy(ask->kind));
        cJSON_AddNumberToObject(object, "tokens", (double)result->n_tokens);
        cJSON_AddNumberToObject(object, "seconds", seconds);
        cJSON_AddNumberToObject(object, "read_seconds", result->read_seconds);
        cJSON_AddNumberToObject(object, "learn_seconds", result->learn_seconds);
        cJSON_AddNumberToObject(object, "distortion", result->distortion);
        cJSON_AddNumberToObject(object, "tables", result->n_tables);
        cJSON_AddNumberToObject(object, "resumed", result->n_resumed);
        cJSON_AddNumberToObject(object, "bytes", (double)result->bytes);
        return qyi_print_json(object);
    }
    printf(
        "%s: %llu tokens, %.1f s (reading %.1f, learning %.1f), mean distortion %.4f, %llu "
        "bytes\n",
        ask->out, (unsigned long long)result->n_tokens, seconds, result->read_seconds,
        result->learn_seconds, result->distortion, (unsigned long long)result->bytes);
    return fflush(stdout) == 0 ? 0 : 1;
}

int qyi_cmd_calibrate(struct qyi_app *app)
{
    struct qyi_calibration ask;
    struct qyi_calibrated result;
    struct qy_error err = {0};
    char path[1024];
    if (app->args->reuse) {
        if (strcmp(app->retrieval.policy, "dense") == 0) { /* which chooses nothing */
            snprintf(app->retrieval.policy, sizeof app->retrieval.policy, "exact");
        }
        const enum qy_status learnt = qyi_calibrate_reuse(app, &err);
        return learnt == QY_OK ? 0 : qyi_fail(&err);
    }
    enum qy_status st = read_request(app, &ask, &err);
    if (st == QY_OK) {
        st = place_output(app, &ask, path, sizeof path, &err);
    }
    if (st == QY_OK && ask.n_texts == 0) {
        fprintf(stderr,
                "calibrate: no text is given (-t): learning from text that the model writes "
                "itself\n");
    }
    if (st == QY_OK) {
        st = qyi_calibrate(app, &ask, &result, &err);
    }
    return st == QY_OK ? print_result(app, &ask, &result) : qyi_fail(&err);
}
