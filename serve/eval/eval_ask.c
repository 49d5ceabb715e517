/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval needle, aggregate, turns: contexts with questions. Token accuracy and log-probability
 * of the answers, of dense attention and of the policy, over the same tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

static enum qy_status encode(void *arg, const char *text, size_t bytes, int32_t **ids, size_t *n,
                             struct qy_error *err)
{
    const struct qyi_eval *eval = arg;
    return qy_tokenizer_encode(eval->engine.tokenizer, text, bytes, 0, ids, n, err);
}

static void free_ids(void *arg, int32_t *ids)
{
    const struct qyi_eval *eval = arg;
    qy_free(&eval->app->rt.mem, ids);
}

typedef enum qy_status make_task(const struct qyi_eval_recipe *, struct qyi_eval_task *,
                                 struct qy_error *);

static enum qy_status prepare(struct qyi_eval *eval, int file_optional, make_task *make,
                              struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    int32_t *prefix = NULL;
    size_t n_prefix = 0;
    enum qy_status st = qyi_eval_need(eval, file_optional, err);
    if (st == QY_OK && args->file != NULL) {
        st = qyi_eval_read_file(eval, 0, 1, err);
    }
    if (st == QY_OK) { /* an empty text: BOS alone, where the model has one */
        st = qy_tokenizer_encode(eval->engine.tokenizer, "", 0, QY_ENCODE_BOS, &prefix, &n_prefix,
                                 err);
    }
    if (st == QY_OK) {
        const struct qyi_eval_recipe recipe = {
            .encoder = {.arg = eval, .encode = encode, .free_ids = free_ids},
            .prefix = prefix,
            .n_prefix = n_prefix,
            .hay = args->file != NULL ? eval->ids + args->start : NULL,
            .n_hay = args->file != NULL ? eval->n_ids - args->start : 0,
            .ctx = args->ctx,
            .count = args->count,
            .seed = (uint64_t)eval->app->program.seed,
            .task = args->task};
        st = make(&recipe, &eval->task, err);
    }
    qy_free(&eval->app->rt.mem, prefix);
    return st;
}

static enum qy_status prepare_needle(struct qyi_eval *eval, struct qy_error *err)
{
    const char *task = eval->app->args->task;
    return prepare(eval, task != NULL && strcmp(task, "copy") == 0, qyi_eval_make_needle, err);
}

static enum qy_status prepare_aggregate(struct qyi_eval *eval, struct qy_error *err)
{
    return prepare(eval, 1, qyi_eval_make_aggregate, err);
}

static enum qy_status prepare_turns(struct qyi_eval *eval, struct qy_error *err)
{
    return prepare(eval, 0, qyi_eval_make_turns, err);
}

static void size(const struct qyi_eval *eval, struct qyi_engine_params *params)
{
    params->max_sequences = 2;
    params->max_tokens = (uint32_t)eval->task.max_tokens;
    params->max_step_tokens = (uint32_t)eval->app->program.chunk + 2;
    params->max_logits = 2;
}

static void add_score(struct qyi_eval_score *to, const struct qyi_eval_score *from)
{
    to->cases += from->cases;
    to->tokens += from->tokens;
    to->right += from->right;
    to->dense_right += from->dense_right;
    to->whole += from->whole;
    to->dense_whole += from->dense_whole;
    to->log_prob += from->log_prob;
    to->dense_log_prob += from->dense_log_prob;
}

/* Feeds the question and its answer; the last token of the answer only where it stays. */
static enum qy_status ask(struct qyi_eval *eval, const struct qyi_eval_text *text,
                          const struct qyi_eval_question *q, struct qyi_eval_score *score,
                          struct qy_error *err)
{
    const uint32_t n_vocab = qy_model_info(eval->engine.model)->n_vocab;
    const float *dense = eval->engine.logits, *policy = dense + n_vocab;
    const int32_t *ids = text->asked.ids + q->first;
    const uint32_t n = q->n_ask + q->n_answer;
    memset(score, 0, sizeof *score);
    for (uint32_t i = 0; i < n - !text->grows; i++) {
        const enum qy_status st = qyi_eval_feed(eval, &ids[i], err);
        if (st != QY_OK) {
            return st;
        }
        if (i + 1 >= q->n_ask && i + 1 < n) {
            const int32_t next = ids[i + 1];
            score->tokens++;
            score->right += qyi_eval_top(policy, n_vocab) == next;
            score->dense_right += qyi_eval_top(dense, n_vocab) == next;
            score->log_prob += qy_log_prob(policy, n_vocab, next);
            score->dense_log_prob += qy_log_prob(dense, n_vocab, next);
        }
    }
    score->cases = 1;
    score->whole = score->right == score->tokens;
    score->dense_whole = score->dense_right == score->tokens;
    return QY_OK;
}

/* Back to the context alone. */
static enum qy_status take_back(struct qyi_eval *eval, size_t n, struct qy_error *err)
{
    const enum qy_status st = qyi_engine_truncate(&eval->engine, eval->dense, (uint32_t)n, err);
    return st == QY_OK ? qyi_engine_truncate(&eval->engine, eval->policy, (uint32_t)n, err) : st;
}

static enum qy_status run_text(struct qyi_eval *eval, const struct qyi_eval_text *text,
                               struct qyi_eval_result *result, struct qy_error *err)
{
    struct qyi_progress progress;
    size_t done = 0;
    enum qy_status st = take_back(eval, 0, err);
    if (st == QY_OK) {
        st = qyi_eval_read(eval, text->context.ids, text->context.n, &done, err);
    }
    if (st != QY_OK || done < text->context.n) {
        return st;
    }
    qyi_progress_start(&progress, "asking", "questions", text->n_questions);
    size_t i = 0;
    for (; st == QY_OK && i < text->n_questions && !qyi_interrupted(); i++) {
        const struct qyi_eval_question *q = &text->questions[i];
        struct qyi_eval_score score;
        if (!text->grows && i > 0) {
            st = take_back(eval, text->context.n, err);
        }
        if (st == QY_OK) {
            st = ask(eval, text, q, &score, err);
        }
        if (st == QY_OK) {
            result->dense_check += score.dense_log_prob;
            add_score(&result->total, &score);
            if (q->group != QYI_EVAL_NO_GROUP) {
                add_score(&result->group[q->group], &score);
            }
            if (q->group2 != QYI_EVAL_NO_GROUP) {
                add_score(&result->group[q->group2], &score);
            }
        }
        qyi_progress_update(&progress, i + 1);
    }
    qyi_progress_end(&progress, i);
    return st;
}

static enum qy_status run(struct qyi_eval *eval, struct qyi_eval_result *result,
                          struct qy_error *err)
{
    enum qy_status st = QY_OK;
    qy_cache_stats_reset(eval->engine.cache);
    for (size_t t = 0; st == QY_OK && t < eval->task.n_texts && !qyi_interrupted(); t++) {
        st = run_text(eval, &eval->task.texts[t], result, err);
    }
    result->n = result->total.cases;
    return st;
}

static void add_json(cJSON *object, const struct qyi_eval_score *score)
{
    const double tokens = score->tokens > 0 ? (double)score->tokens : NAN;
    const double cases = score->cases > 0 ? (double)score->cases : NAN;
    cJSON_AddNumberToObject(object, "cases", (double)score->cases);
    cJSON_AddNumberToObject(object, "tokens", (double)score->tokens);
    cJSON_AddNumberToObject(object, "accuracy", (double)score->right / tokens);
    cJSON_AddNumberToObject(object, "dense_accuracy", (double)score->dense_right / tokens);
    cJSON_AddNumberToObject(object, "log_prob", score->log_prob / tokens);
    cJSON_AddNumberToObject(object, "dense_log_prob", score->dense_log_prob / tokens);
    cJSON_AddNumberToObject(object, "whole", (double)score->whole / cases);
    cJSON_AddNumberToObject(object, "dense_whole", (double)score->dense_whole / cases);
}

static void json(const struct qyi_eval *eval, struct qyi_eval_result *result)
{
    add_json(result->json, &result->total);
    cJSON *tasks = cJSON_AddObjectToObject(result->json, "tasks");
    for (size_t g = 0; g < eval->task.n_groups; g++) {
        add_json(cJSON_AddObjectToObject(tasks, eval->task.groups[g]), &result->group[g]);
    }
}

static void head(const struct qyi_eval *eval)
{
    printf("%-*s %-10s %5s %7s %8s %8s %8s %7s %7s %8s %8s %9s %8s\n", eval->label_width, "policy",
           "task", "cases", "tokens", "accuracy", "dense", "of dense", "whole", "dense", "log p",
           "dense", "attended", "sparse");
}

static void print_score(const struct qyi_eval *eval, const char *label, const char *task,
                        const struct qyi_eval_score *score)
{
    const double n = (double)score->tokens, cases = (double)score->cases;
    char ratio[16] = "-";
    if (score->dense_right > 0) {
        snprintf(ratio, sizeof ratio, "%.3f", (double)score->right / (double)score->dense_right);
    }
    printf("%-*s %-10s %5llu %7llu %8.3f %8.3f %8s %6.0f%% %6.0f%% %8.3f %8.3f", eval->label_width,
           label, task, (unsigned long long)score->cases, (unsigned long long)score->tokens,
           (double)score->right / n, (double)score->dense_right / n, ratio,
           100.0 * (double)score->whole / cases, 100.0 * (double)score->dense_whole / cases,
           score->log_prob / n, score->dense_log_prob / n);
}

static void row(struct qyi_eval *eval, const struct qyi_eval_result *result)
{
    for (size_t g = 0; g < eval->task.n_groups; g++) {
        if (result->group[g].cases > 0 && eval->task.n_groups > 1) {
            print_score(eval, result->run->label, eval->task.groups[g], &result->group[g]);
            putchar('\n');
        }
    }
    print_score(eval, result->run->label, eval->task.n_groups > 1 ? "all" : eval->task.groups[0],
                &result->total);
    printf(" %8.2f%% %7.2f%%\n", 100.0 * qyi_attended(&result->stats),
           100.0 * qyi_attended_sparse(&result->stats));
}

const struct qyi_eval_kind qyi_eval_needle = {.name = "needle",
                                              .prepare = prepare_needle,
                                              .size = size,
                                              .run = run,
                                              .json = json,
                                              .head = head,
                                              .row = row};
const struct qyi_eval_kind qyi_eval_aggregate = {.name = "aggregate",
                                                 .prepare = prepare_aggregate,
                                                 .size = size,
                                                 .run = run,
                                                 .json = json,
                                                 .head = head,
                                                 .row = row};
const struct qyi_eval_kind qyi_eval_turns = {.name = "turns",
                                             .prepare = prepare_turns,
                                             .size = size,
                                             .run = run,
                                             .json = json,
                                             .head = head,
                                             .row = row};
