/* SPDX-License-Identifier: Apache-2.0 */
/* quarry generate: read, answer, say what it took. */
#include <string.h>

#include "serve/list/generate.h"

enum qy_status qyi_generate_open(struct qyi_engine *engine, size_t n_prompt, struct qy_error *err)
{
    const struct qyi_args *args = engine->app->args;
    uint64_t need = n_prompt + args->n;
    if (args->interactive) {
        need = args->ctx; /* 0: the model's own */
    } else if (args->ctx > 0 && need > args->ctx) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "--ctx %llu: the prompt has %zu tokens and -n asks for %llu more; raise "
            "--ctx to %llu, or shorten with --prompt-tokens or -n",
            (unsigned long long)args->ctx, n_prompt, (unsigned long long)args->n,
            (unsigned long long)need);
    }
    if (need > UINT32_MAX / 2) {
        return qy_error_set(err, QY_ERR_CONFIG, "context of %llu tokens: at most %u are accepted",
                            (unsigned long long)need, UINT32_MAX / 2);
    }
    const struct qyi_engine_params params = {.max_sequences = args->compare ? 2 : 1,
                                             .max_tokens = (uint32_t)need,
                                             .max_step_tokens =
                                                 (uint32_t)engine->app->program.chunk,
                                             .max_logits = 1};
    return qyi_engine_open_model(engine, &params, err);
}

enum qy_status qyi_generate_one(struct qyi_engine *engine, const struct qyi_prompt *prompt,
                                FILE *stream, struct qyi_generated *generated, struct qy_error *err)
{
    struct qyi_answer *answer = &generated->answer;
    struct qyi_report *report = &generated->report;
    report->prompt_tokens = prompt->n;
    report->prefill_tokens = prompt->n - 1;
    enum qy_status st = qy_sequence_open(engine->cache, &generated->seq, err);
    if (st == QY_OK) {
        st = qyi_answer_open(answer, engine->app->args->n, stream, err);
    }
    if (st == QY_OK) {
        st = qyi_prompt_prefill(engine, generated->seq, prompt, &report->prefill_ns, err);
    }
    if (st == QY_OK) {
        st = qyi_answer_generate(engine, generated->seq, prompt->ids[prompt->n - 1],
                                 QY_ATTEND_POLICY, answer, err);
    }
    if (st == QY_OK) {
        report->new_tokens = answer->n;
        report->n_steps = answer->steps;
        report->decode_ns = answer->ns;
        qyi_report_read(engine, report);
    }
    return st;
}

void qyi_generated_close(struct qyi_generated *generated)
{
    qyi_answer_close(&generated->answer);
    qy_sequence_close(generated->seq);
    generated->seq = NULL;
}

void qyi_generate_json(const struct qyi_engine *engine, const struct qyi_generated *generated,
                       cJSON *object)
{
    qyi_answer_json(&generated->answer, object);
    qyi_report_json(engine, &generated->report, object);
    qyi_plan_json(engine->cache, qy_model_info(engine->model)->n_layers, object);
    qyi_events_json(engine, object);
    cJSON_AddBoolToObject(object, "interrupted", qyi_interrupted());
}

static enum qy_status print_result(struct qyi_engine *engine, const struct qyi_generated *generated)
{
    if (engine->app->args->json) {
        cJSON *object = cJSON_CreateObject();
        qyi_generate_json(engine, generated, object);
        return qyi_print_json(object) == 0 ? QY_OK : QY_ERR_NOT_FOUND;
    }
    putchar('\n');
    fflush(stdout);
    fprintf(stderr, "\nsummary%s\n", qyi_interrupted() ? " (interrupted)" : "");
    qyi_report_print(engine, &generated->report, stderr);
    return QY_OK;
}

/* One prompt, one answer. */
static enum qy_status answer_once(struct qyi_engine *engine, const struct qyi_prompt *prompt,
                                  struct qy_error *err)
{
    struct qyi_generated generated = {0};
    FILE *stream = engine->app->args->json ? NULL : stdout;
    enum qy_status st = qyi_generate_one(engine, prompt, stream, &generated, err);
    if (st == QY_OK) {
        st = print_result(engine, &generated);
    }
    qyi_generated_close(&generated);
    return st;
}

static enum qy_status check_args(const struct qyi_args *args, struct qy_error *err)
{
    if (args->interactive && (args->compare || args->json)) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '-i': not together with --compare or --json; choose one");
    }
    if (args->interactive && args->file != NULL && strcmp(args->file, "-") == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '-i': reads questions from stdin, so -f - cannot; give a file");
    }
    if (args->prompts != NULL && (args->interactive || args->compare || args->prompt != NULL)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--prompts': not together with -p, -i or --compare; choose one");
    }
    if (args->prompts != NULL && args->file != NULL && strcmp(args->file, "-") == 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '-f -': the text is read again for each of --prompts, and stdin "
            "can be read once; give a file");
    }
    if (!args->interactive && args->file == NULL && args->prompt == NULL && args->prompts == NULL) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "generate: nothing to read; give -f FILE, -p TEXT, --prompts FILE or -i");
    }
    return QY_OK;
}

int qyi_cmd_generate(struct qyi_app *app)
{
    struct qy_error err = {0};
    struct qyi_engine engine;
    struct qyi_prompt prompt = {0};
    enum qy_status st = check_args(app->args, &err);
    if (st == QY_OK && app->args->prompts != NULL) {
        return qyi_generate_list(app);
    }
    if (st == QY_OK) {
        st = qyi_engine_open_file(app, &engine, &err);
    }
    if (st != QY_OK) {
        return qyi_fail(&err);
    }
    if (!app->args->interactive) {
        const char *question = app->args->prompt != NULL ? app->args->prompt : "";
        st = qyi_prompt_build(&engine, question, &prompt, &err);
    }
    if (st == QY_OK) {
        st = qyi_generate_open(&engine, prompt.n, &err);
    }
    if (st == QY_OK) {
        st = app->args->interactive ? qyi_conversation(&engine, &err)
             : app->args->compare   ? qyi_compare(&engine, &prompt, &err)
                                    : answer_once(&engine, &prompt, &err);
    }
    int code = st == QY_OK ? 0 : qyi_fail(&err);
    if (code == 0 && qyi_interrupted() && !app->args->interactive) {
        code = 130;
    }
    qy_free(&app->rt.mem, prompt.ids);
    qyi_engine_close(&engine);
    return code;
}
