/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry generate --prompts: the prompts of a list, one after another, each in a sequence of its own. Of the
 * workers of a job each answers those whose place in the list, modulo the number of workers, is its rank;
 * rank 0 writes all answers, in the order of the list (answer_list.h, serve/job/job_answers.h).
 */
#include <stdlib.h>
#include <string.h>

#include "serve/job/job_answers.h"
#include "serve/list/answer_list.h"
#include "serve/list/generate.h"
#include "serve/list/prompt_list.h"

struct run {
    struct qyi_app *app;
    struct qyi_job_answers *answers; /* of several workers; NULL: this process is alone */
    struct qyi_answer_list alone;    /* then */
    uint32_t rank, n_workers;
    struct qyi_prompt_list list;
    struct qyi_prompt *prompts; /* [list.n]; those of other workers are empty */
    struct qyi_engine engine;
};

/* ---- one answer ------------------------------------------------------------------------------------ */

static cJSON *as_json(const struct run *r, size_t i, const struct qyi_generated *generated)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "prompt", (double)i + 1);
    cJSON_AddNumberToObject(object, "rank", r->rank);
    qyi_generate_json(&r->engine, generated, object);
    return object;
}

/* What is written of it; freed with free. NULL: out of memory. */
static char *render(const struct run *r, size_t i, const struct qyi_generated *generated,
                    size_t *bytes)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, bytes);
    if (out == NULL) {
        return NULL;
    }
    if (r->app->args->json) {
        cJSON *object = as_json(r, i, generated);
        char *line = cJSON_PrintUnformatted(object);
        fprintf(out, "%s\n", line != NULL ? line : "");
        cJSON_free(line);
        cJSON_Delete(object);
    } else {
        fprintf(out, "== %zu of %zu\n", i + 1, r->list.n);
        fwrite(generated->answer.text, 1, generated->answer.text_bytes, out);
        fputc('\n', out);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static enum qy_status give(struct run *r, size_t i, const struct qyi_generated *generated,
                           struct qy_error *err)
{
    size_t bytes = 0;
    enum qy_status st = QY_ERR_NOMEM;
    char *text = render(r, i, generated, &bytes);
    if (text != NULL && r->answers != NULL) {
        st = qyi_job_answers_give(r->answers, i, text, bytes);
    } else if (text != NULL) {
        st = qyi_answer_list_put(&r->alone, 0, i, text, bytes, 0, bytes);
        st = qyi_answer_list_write(&r->alone) ? QY_ERR_NOT_FOUND : st;
    }
    free(text);
    return st == QY_OK              ? st
           : st == QY_ERR_NOT_FOUND ? qy_error_set(err, st, "stdout: writing failed")
                                    : qy_error_set(err, st, "prompt %zu: out of memory", i + 1);
}

/* Was it interrupted? Part of an answer is none. */
static int is_whole(const struct qyi_answer *answer)
{
    return answer->ended || answer->n == answer->room;
}

static enum qy_status answer_one(struct run *r, size_t i, struct qy_error *err)
{
    struct qyi_generated generated = {0};
    r->engine.n_mended = 0; /* events are told with the prompt in which they were */
    enum qy_status st = qyi_generate_one(&r->engine, &r->prompts[i], NULL, &generated, err);
    if (st != QY_OK) {
        st = qy_error_wrap(err, st, "prompt %zu", i + 1);
    } else if (is_whole(&generated.answer)) {
        st = give(r, i, &generated, err);
    }
    qyi_generated_close(&generated);
    return st;
}

/* ---- all of them ------------------------------------------------------------------------------------ */

static int is_mine(const struct run *r, size_t i)
{
    return i % r->n_workers == r->rank;
}

/* Opens what is needed for the longest of this worker's prompts. */
static enum qy_status open_engine(struct run *r, struct qy_error *err)
{
    size_t longest = 1;
    enum qy_status st = qyi_engine_open_file(r->app, &r->engine, err);
    r->prompts = st == QY_OK ? calloc(r->list.n, sizeof *r->prompts) : NULL;
    if (st == QY_OK && r->prompts == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "%zu prompts: out of memory", r->list.n);
    }
    for (size_t i = 0; st == QY_OK && i < r->list.n; i++) {
        if (is_mine(r, i)) {
            st = qyi_prompt_build(&r->engine, r->list.texts[i], &r->prompts[i], err);
            longest = r->prompts[i].n > longest ? r->prompts[i].n : longest;
        }
    }
    return st == QY_OK ? qyi_generate_open(&r->engine, longest, err) : st;
}

static enum qy_status open_run(struct run *r, struct qy_error *err)
{
    const struct qyi_args *args = r->app->args;
    enum qy_status st = qyi_prompt_list_read(args->prompts, &r->list, err);
    if (st == QY_OK && r->answers != NULL) {
        st = qyi_job_answers_expect(r->answers, r->list.n, args->json, err);
    } else if (st == QY_OK) {
        st = qyi_answer_list_open(&r->alone, 1, stdout, err);
        st = st == QY_OK ? qyi_answer_list_expect(&r->alone, r->list.n, args->json, err) : st;
    }
    return st == QY_OK ? open_engine(r, err) : st;
}

static enum qy_status answer_all(struct run *r, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (size_t i = 0; st == QY_OK && i < r->list.n && !qyi_interrupted(); i++) {
        if (is_mine(r, i)) {
            st = answer_one(r, i, err);
        }
    }
    return st;
}

/* ---- the end ---------------------------------------------------------------------------------------- */

static int end_alone(struct run *r, int code, const char *why)
{
    struct qy_error err = {0};
    qyi_answer_list_end(&r->alone, 0, code, why);
    qyi_answer_list_write(&r->alone);
    if (qyi_answer_list_missing(&r->alone, 0, &err) != QY_OK) {
        (void)!qyi_fail(&err);
    } else {
        qyi_answer_list_print(&r->alone, stderr);
    }
    return qyi_answer_list_code(&r->alone);
}

static void close_run(struct run *r)
{
    for (size_t i = 0; r->prompts != NULL && i < r->list.n; i++) {
        qy_free(&r->app->rt.mem, r->prompts[i].ids);
    }
    free(r->prompts);
    qyi_engine_close(&r->engine);
    qyi_prompt_list_free(&r->list);
    if (r->answers == NULL) {
        qyi_answer_list_close(&r->alone);
    }
}

static int exit_code(enum qy_status st)
{
    return st == QY_ERR_CONFIG ? 2 : st != QY_OK ? 1 : qyi_interrupted() ? 130 : 0;
}

int qyi_generate_list(struct qyi_app *app)
{
    struct run r = {.app = app, .n_workers = 1};
    struct qy_error err = {0};
    r.answers = qyi_job_answers_of(app, &r.rank, &r.n_workers);
    enum qy_status st = open_run(&r, &err);
    const int opened = st == QY_OK;
    st = opened ? answer_all(&r, &err) : st;
    int code = exit_code(st);
    const char *why = st != QY_OK ? err.text : code != 0 ? "interrupted" : "";
    if (r.answers != NULL) { /* rank 0 says what is wrong on any rank */
        qyi_job_answers_why(r.answers, why);
    } else if (opened) {
        code = end_alone(&r, code, why);
    } else {
        code = qyi_fail(&err);
    }
    close_run(&r);
    return code;
}
