/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry generate --compare: one dense prefill, two copies of the context, two answers. Dense is
 * the measure: the policy's answer, the share of rows that it attended to and the bytes that it
 * read stand beside it.
 */
#include <string.h>

#include "serve/serve.h"

static size_t same_prefix(const struct qyi_answer *a, const struct qyi_answer *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n]) {
        n++;
    }
    return n;
}

static void print_text(struct qyi_engine *engine, const struct qyi_answer *dense,
                       const struct qyi_answer *sparse, struct qyi_report *report)
{
    char title[400], text[80];
    snprintf(title, sizeof title, "policy %s, budget %s", engine->app->retrieval.policy,
             engine->budget_text);
    qyi_print_columns(stdout, "dense", dense->text, title, sparse->text);
    printf("\n%-22s %14s %14s\n", "", "dense", engine->app->retrieval.policy);
    printf("%-22s %13.1f%% %13.1f%%\n", "tokens attended", 100.0,
           100.0 * qyi_attended(&report->cache));
    printf("%-22s %14s ", "KV bytes read",
           qy_format_size(report->cache.dense_read_bytes, text, sizeof text));
    printf("%14s\n", qy_format_size(report->cache.read_bytes, text, sizeof text));
    printf("%-22s %14.1f %14.1f\n", "decode tokens/s", qyi_per_second(dense->n, dense->ns),
           qyi_per_second(sparse->n, sparse->ns));
    const size_t same = same_prefix(dense, sparse);
    if (same == dense->n && same == sparse->n) {
        printf("the answers are the same, all %zu tokens\n", same);
    } else {
        printf("the answers agree for %zu of %zu tokens, then part", same, dense->n);
        if (same < dense->n) {
            printf(" (gap between dense's first and second choice there: %.2f)",
                   (double)dense->gaps[same]);
        }
        putchar('\n');
    }
    printf("the model is tiny (%.0f M parameters): dense is the measure here, not the truth\n\n",
           (double)qy_model_info(engine->model)->n_params * 1e-6);
    printf("summary (of the policy's run)\n");
    fflush(stdout);
    qyi_report_print(engine, report, stdout);
}

static int print_json(struct qyi_engine *engine, const struct qyi_answer *dense,
                      const struct qyi_answer *sparse, const struct qyi_report *report)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *a = cJSON_AddObjectToObject(object, "dense");
    qyi_answer_json(dense, a);
    cJSON_AddNumberToObject(a, "decode_tps", qyi_per_second(dense->n, dense->ns));
    qyi_answer_json(sparse, object);
    qyi_report_json(engine, report, object);
    cJSON_AddNumberToObject(object, "same_prefix", (double)same_prefix(dense, sparse));
    qyi_events_json(engine, object);
    return qyi_print_json(object);
}

/* Opens the answer, generates in that mode from the last token of the prompt. */
static enum qy_status run(struct qyi_engine *engine, struct qy_sequence *seq, int32_t id,
                          enum qy_attend_mode mode, struct qyi_answer *answer, struct qy_error *err)
{
    qy_model_times_reset(engine->model);
    qy_cache_stats_reset(engine->cache);
    const enum qy_status st = qyi_answer_open(answer, engine->app->args->n, NULL, err);
    return st == QY_OK ? qyi_answer_generate(engine, seq, id, mode, answer, err) : st;
}

enum qy_status qyi_compare(struct qyi_engine *engine, const struct qyi_prompt *prompt,
                           struct qy_error *err)
{
    struct qy_sequence *first = NULL, *second = NULL;
    struct qyi_answer dense = {0}, sparse = {0};
    struct qyi_report report = {.prompt_tokens = prompt->n, .prefill_tokens = prompt->n - 1};
    enum qy_status st = qy_sequence_open(engine->cache, &first, err);
    if (st == QY_OK) {
        st = qy_sequence_open(engine->cache, &second, err);
    }
    if (st == QY_OK) {
        st = qyi_prompt_prefill(engine, first, prompt, &report.prefill_ns, err);
    }
    if (st == QY_OK) {
        st = qyi_engine_copy(engine, second, first, err);
        st = st != QY_AGAIN ? st
                            : qy_error_set(err, QY_ERR_NOMEM,
                                           "--compare: no room for two copies of %zu tokens; raise "
                                           "cache.host_bytes",
                                           prompt->n);
    }
    const int32_t last = prompt->ids[prompt->n - 1];
    if (st == QY_OK) {
        st = run(engine, first, last, QY_ATTEND_DENSE, &dense, err);
    }
    if (st == QY_OK) {
        st = run(engine, second, last, QY_ATTEND_POLICY, &sparse, err);
    }
    if (st == QY_OK) {
        report.new_tokens = sparse.n;
        report.n_steps = sparse.steps;
        report.decode_ns = sparse.ns;
        qyi_report_read(engine, &report);
        if (engine->app->args->json) {
            st = print_json(engine, &dense, &sparse, &report) == 0 ? QY_OK : QY_ERR_NOT_FOUND;
        } else {
            print_text(engine, &dense, &sparse, &report);
        }
    }
    qyi_answer_close(&dense);
    qyi_answer_close(&sparse);
    qy_sequence_close(second);
    qy_sequence_close(first);
    return st;
}
