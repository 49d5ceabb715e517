/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts cut from a text, answered greedily as one batch; prints what same_answer.py compares: ids,
 * and a checksum of every row of logits.
 *
 * usage: same_answer FILE PROMPTS TOKENS STEPS [options of quarry generate]
 *
 * Prompts begin at equal distances in the file and differ in length. Under mpirun all ranks but the first
 * keep blocks, as with quarry.
 */
#include <stdlib.h>
#include <string.h>

#include "net/net.h"
#include "serve/job/job.h"
#include "serve/memory/memory_server.h"

enum { MOST = 64, MOST_WORDS = 96 };

struct batch {
    struct qyi_engine engine;
    uint32_t n, n_tokens, n_steps;
    int32_t *text;
    size_t n_text;
    struct qy_sequence *seqs[MOST];
    int32_t next[MOST];
    cJSON *ids[MOST], *sums[MOST];
};

static enum qy_status read_prompts(struct batch *b, struct qy_error *err)
{
    const size_t stride = (b->n_text - b->n_tokens) / b->n;
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; st == QY_OK && i < b->n; i++) {
        const int32_t *ids = b->text + i * stride;
        const uint32_t n = b->n_tokens - 7 * (i % 16);
        size_t done = 0;

        b->ids[i] = cJSON_CreateArray();
        b->sums[i] = cJSON_CreateArray();
        b->next[i] = ids[n - 1];
        st = qy_sequence_open(b->engine.cache, &b->seqs[i], err);
        if (st == QY_OK) {
            st = qyi_engine_prefill(&b->engine, b->seqs[i], ids, n - 1, 0, NULL, &done, err);
        }
    }
    return st;
}

/* The next token of each, and what it was chosen from. */
static void take(struct batch *b)
{
    const uint32_t n_vocab = qy_model_info(b->engine.model)->n_vocab;

    for (uint32_t i = 0; i < b->n; i++) {
        const float *logits = b->engine.logits + (size_t)i * n_vocab;
        char sum[20];
        uint32_t best = 0;

        for (uint32_t v = 1; v < n_vocab; v++) {
            best = logits[v] > logits[best] ? v : best;
        }
        snprintf(sum, sizeof sum, "%016llx",
                 (unsigned long long)qy_checksum(logits, n_vocab * sizeof *logits, 0));
        b->next[i] = (int32_t)best;
        cJSON_AddItemToArray(b->ids[i], cJSON_CreateNumber(best));
        cJSON_AddItemToArray(b->sums[i], cJSON_CreateString(sum));
    }
}

static enum qy_status answer(struct batch *b, struct qy_error *err)
{
    struct qy_step_slice slices[MOST];
    uint32_t rows[MOST];
    enum qy_status st = QY_OK;

    for (uint32_t s = 0; st == QY_OK && s < b->n_steps; s++) {
        for (uint32_t i = 0; i < b->n; i++) {
            slices[i] =
                (struct qy_step_slice){.seq = b->seqs[i], .n_tokens = 1, .ids = &b->next[i]};
            rows[i] = i;
        }
        st = qy_model_forward(b->engine.model, b->engine.cache, slices, b->n, rows, b->n,
                              b->engine.logits, err);
        if (st == QY_OK) {
            take(b);
        }
    }
    return st;
}

static void print(struct batch *b)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *ids = cJSON_AddArrayToObject(object, "ids");
    cJSON *sums = cJSON_AddArrayToObject(object, "sums");
    struct qyi_report report = {0};

    for (uint32_t i = 0; i < b->n; i++) {
        cJSON_AddItemToArray(ids, b->ids[i]);
        cJSON_AddItemToArray(sums, b->sums[i]);
    }
    qyi_report_read(&b->engine, &report);
    qyi_report_json(&b->engine, &report, object);
    qyi_print_json(object);
}

static enum qy_status run(struct batch *b, struct qyi_app *app, const char *file,
                          struct qy_error *err)
{
    const uint32_t chunk = (uint32_t)app->program.chunk;
    const struct qyi_engine_params params = {.max_sequences = b->n,
                                             .max_tokens = b->n_tokens + b->n_steps,
                                             .max_step_tokens = chunk > b->n ? chunk : b->n,
                                             .max_logits = b->n};
    enum qy_status st = qyi_engine_open_file(app, &b->engine, err);

    if (st == QY_OK) {
        st = qyi_engine_open_model(&b->engine, &params, err);
    }
    if (st == QY_OK) {
        st = qyi_read_ids(&b->engine, file, &b->text, &b->n_text, err);
    }
    if (st == QY_OK && b->n_text < (size_t)2 * b->n_tokens) {
        st = qy_error_set(err, QY_ERR_CONFIG, "file '%s': %zu tokens; at least %u are needed", file,
                          b->n_text, 2 * b->n_tokens);
    }
    if (st == QY_OK) {
        st = read_prompts(b, err);
    }
    if (st == QY_OK) {
        st = answer(b, err);
    }
    if (st == QY_OK) {
        print(b);
    }
    for (uint32_t i = 0; i < b->n; i++) {
        qy_sequence_close(b->seqs[i]);
    }
    qy_free(&app->rt.mem, b->text);
    qyi_engine_close(&b->engine);
    return st;
}

static struct batch batch;
static const char *file;

/* app has its settings. */
static int work(struct qyi_app *app)
{
    struct qy_error err = {0};
    enum qy_status st = qyi_app_start(app, &err);

    if (st == QY_OK) {
        st = run(&batch, app, file, &err);
        qyi_app_close(app);
    }
    return st == QY_OK ? 0 : qyi_fail(&err);
}

int main(int argc, char **argv)
{
    char *words[MOST_WORDS] = {"quarry", "generate", "-p", "x"};
    struct qyi_args args;
    struct qyi_app app;
    struct qy_error err = {0};
    int n = 4;

    qy_net_give_signals_back();
    if (argc == 1 && strcmp(argv[0], QYI_MEMORY_CHILD_NAME) == 0) {
        return qyi_memory_child_main();
    }
    for (int i = 5; i < argc && n < MOST_WORDS - 1; i++) {
        words[n++] = argv[i];
    }
    batch.n = argc > 4 ? (uint32_t)atoi(argv[2]) : 0;
    batch.n_tokens = argc > 4 ? (uint32_t)atoi(argv[3]) : 0;
    batch.n_steps = argc > 4 ? (uint32_t)atoi(argv[4]) : 0;
    if (batch.n < 1 || batch.n > MOST || batch.n_tokens < 120 || batch.n_steps < 1) {
        fprintf(stderr,
                "usage: same_answer FILE PROMPTS TOKENS STEPS [options of quarry generate]; 1 to "
                "%d prompts of at least 120 tokens\n",
                MOST);
        return 2;
    }
    file = argv[1];
    enum qy_status st = qyi_args_parse(n, words, &args, &err);
    if (st == QY_OK) {
        st = qyi_app_settings(&args, &app, &err);
    }
    if (st == QY_OK && qyi_job_wanted(&args)) {
        return qyi_job_main(&args, &app, NULL, work);
    }
    return st == QY_OK ? work(&app) : qyi_fail(&err);
}
