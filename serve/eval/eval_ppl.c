/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval ppl: how well a policy predicts a text, against dense attention on the same positions.
 * Tokens start .. start + ctx are read densely; then count tokens are fed one by one
 * (teacher-forced), so that errors pass through the layers and through the keys and values of the
 * tokens fed. --count 0: plain dense perplexity of the first ctx tokens.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum { DENSE_CHUNK = 128 }; /* rows of logits held at once by --count 0 */

/* A line of the dump: position in the file, id, ln p dense, ln p of the policy. */
static void dump_line(struct qyi_eval *eval, size_t position, int32_t id, double dense,
                      double policy)
{
    if (eval->dump != NULL) {
        fprintf(eval->dump, "%zu\t%d\t%.6f\t%.6f\n", position, id, dense, policy);
    }
}

/* KL(dense || policy) in nats; a and b are the log-sum-exps of the two rows. */
static double divergence(const float *dense, double a, const float *policy, double b, uint32_t n)
{
    double kl = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double lp = dense[i] - a;
        kl += exp(lp) * (lp - (policy[i] - b));
    }
    return kl > 0 ? kl : 0;
}

static enum qy_status prepare(struct qyi_eval *eval, struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    enum qy_status st = qyi_eval_need(eval, 0, err);
    const uint64_t places = args->count > 0 ? args->count : args->ctx;
    if (st == QY_OK && args->from >= places) {
        st = qy_error_set(err, QY_ERR_CONFIG, "option '--from': %llu leaves none of %llu positions",
                          (unsigned long long)args->from, (unsigned long long)places);
    }
    return st == QY_OK ? qyi_eval_read_file(
                             eval, 1, args->ctx + (args->count > 0 ? args->count + 1 : 0), err)
                       : st;
}

static void size(const struct qyi_eval *eval, struct qyi_engine_params *params)
{
    const struct qyi_args *args = eval->app->args;
    const int plain = args->count == 0;
    params->max_sequences = plain ? 1 : 2;
    params->max_tokens = (uint32_t)(args->ctx + args->count + 1);
    params->max_step_tokens = plain ? DENSE_CHUNK : (uint32_t)eval->app->program.chunk + 2;
    params->max_logits = plain ? DENSE_CHUNK : 2;
}

/* Books the predictions of one chunk of run_dense. */
static void book_dense(struct qyi_eval *eval, struct qyi_eval_result *result, size_t at,
                       uint32_t take)
{
    const struct qyi_args *args = eval->app->args;
    const uint32_t n_vocab = qy_model_info(eval->engine.model)->n_vocab;
    const int32_t *ids = eval->ids + args->start;
    for (uint32_t i = 0; i < take && at + i + 1 < args->ctx; i++) {
        const size_t position = at + i + 1; /* the one that is predicted */
        const double lp =
            qy_log_prob(eval->engine.logits + (size_t)i * n_vocab, n_vocab, ids[position]);
        dump_line(eval, args->start + position, ids[position], lp, lp);
        if (position >= args->from) {
            result->n++;
            result->same_top++;
            result->nll -= lp;
            result->dense_nll -= lp;
        }
    }
}

/* All positions of the first ctx tokens, densely. */
static enum qy_status run_dense(struct qyi_eval *eval, struct qyi_eval_result *result,
                                struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    const int32_t *ids = eval->ids + args->start;
    const size_t n = args->ctx;
    uint32_t rows[DENSE_CHUNK];
    struct qyi_progress progress;
    qyi_progress_start(&progress, "evaluating", "tokens", n);
    for (uint32_t i = 0; i < DENSE_CHUNK; i++) {
        rows[i] = i;
    }
    for (size_t at = 0; at < n && !qyi_interrupted(); at += DENSE_CHUNK) {
        const uint32_t take = (uint32_t)(n - at < DENSE_CHUNK ? n - at : DENSE_CHUNK);
        const struct qy_step_slice slice = {
            .seq = eval->dense, .n_tokens = take, .ids = ids + at, .mode = QY_ATTEND_DENSE};
        const enum qy_status st = qyi_engine_forward(&eval->engine, &slice, 1, rows, take, err);
        if (st != QY_OK) {
            return st;
        }
        book_dense(eval, result, at, take);
        qyi_progress_update(&progress, at + take);
    }
    qyi_progress_end(&progress, n);
    return QY_OK;
}

/* Books one teacher-forced position from two rows of logits: dense, policy. */
static void book(struct qyi_eval *eval, struct qyi_eval_result *result, size_t position,
                 uint64_t place)
{
    const uint32_t n_vocab = qy_model_info(eval->engine.model)->n_vocab;
    const float *dense = eval->engine.logits, *policy = dense + n_vocab;
    const int32_t id = eval->ids[position];
    const double a = qy_log_prob(dense, n_vocab, id), b = qy_log_prob(policy, n_vocab, id);
    dump_line(eval, position, id, a, b);
    result->dense_check += a;
    if (place >= eval->app->args->from) {
        /* ln p = logit - log-sum-exp */
        const double kl = divergence(dense, dense[id] - a, policy, policy[id] - b, n_vocab);
        result->dense_nll -= a;
        result->nll -= b;
        result->kl_sum += kl;
        result->kl[result->n++] = kl;
        result->same_top += qyi_eval_top(dense, n_vocab) == qyi_eval_top(policy, n_vocab);
    }
}

static enum qy_status run(struct qyi_eval *eval, struct qyi_eval_result *result,
                          struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    if (args->count == 0) {
        return run_dense(eval, result, err);
    }
    result->kl = calloc(args->count, sizeof *result->kl);
    if (result->kl == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for %llu positions",
                            (unsigned long long)args->count);
    }
    struct qyi_progress progress;
    size_t done = 0;
    enum qy_status st = qyi_eval_read(eval, eval->ids + args->start, args->ctx, &done, err);
    if (st != QY_OK || done < args->ctx) {
        return st;
    }
    qy_cache_stats_reset(eval->engine.cache);
    qyi_progress_start(&progress, "evaluating", "tokens", args->count);
    uint64_t i = 0;
    for (; i < args->count && !qyi_interrupted(); i++) {
        const size_t position = args->start + args->ctx + i;
        st = qyi_eval_feed(eval, &eval->ids[position], err);
        if (st != QY_OK) {
            return st;
        }
        book(eval, result, position + 1, i);
        qyi_progress_update(&progress, i + 1);
    }
    qyi_progress_end(&progress, i);
    return QY_OK;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What the KL of single positions says beside its mean. */
struct spread {
    double mean, error, p90, quarter[4];
};

/* error: standard error of the mean, positions taken as independent. */
static struct spread spread_of(const struct qyi_eval_result *result)
{
    struct spread s = {0};
    const uint64_t n = result->n;
    double squares = 0, *sorted = result->kl != NULL ? calloc(n + 1, sizeof *sorted) : NULL;
    if (n == 0 || sorted == NULL) {
        free(sorted);
        return s;
    }
    s.mean = result->kl_sum / (double)n;
    for (uint64_t i = 0; i < n; i++) {
        squares += (result->kl[i] - s.mean) * (result->kl[i] - s.mean);
        sorted[i] = result->kl[i];
    }
    s.error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : 0;
    qsort(sorted, n, sizeof *sorted, ascending);
    s.p90 = sorted[(n - 1) * 9 / 10];
    for (uint64_t q = 0; q < 4 && n >= 4; q++) {
        const uint64_t begin = n * q / 4, end = n * (q + 1) / 4;
        for (uint64_t i = begin; i < end; i++) {
            s.quarter[q] += result->kl[i] / (double)(end - begin);
        }
    }
    free(sorted);
    return s;
}

static void json(const struct qyi_eval *eval, struct qyi_eval_result *result)
{
    const double n = result->n > 0 ? (double)result->n : NAN;
    const struct spread s = spread_of(result);
    cJSON *object = result->json;
    cJSON_AddNumberToObject(object, "positions", (double)result->n);
    cJSON_AddNumberToObject(object, "nll", result->nll / n);
    cJSON_AddNumberToObject(object, "ppl", exp(result->nll / n));
    cJSON_AddNumberToObject(object, "dense_ppl", exp(result->dense_nll / n));
    cJSON_AddNumberToObject(object, "ratio", exp((result->nll - result->dense_nll) / n));
    cJSON_AddNumberToObject(object, "kl", s.mean);
    cJSON_AddNumberToObject(object, "kl_error", s.error);
    cJSON_AddNumberToObject(object, "kl_p90", s.p90);
    cJSON_AddNumberToObject(object, "kl_to_first", s.mean / eval->yardstick);
    cJSON_AddNumberToObject(object, "top1", (double)result->same_top / n);
    cJSON_AddItemToObject(object, "kl_quarters",
                          cJSON_CreateDoubleArray(s.quarter, result->n >= 4 ? 4 : 0));
}

static void head(const struct qyi_eval *eval)
{
    printf("%-*s %9s %9s %9s %7s %9s %8s %9s %8s %7s %9s %8s %7s %7s\n", eval->label_width,
           "policy", "positions", "ppl", "dense ppl", "ratio", "KL", "+-", "p90", "KL/first",
           "top-1", "attended", "sparse", "recall", "mass");
}

static void row(struct qyi_eval *eval, const struct qyi_eval_result *result)
{
    enum { QUARTERS_FROM = 512 }; /* positions: fewer say nothing about drift */
    const double n = (double)result->n;
    const struct spread s = spread_of(result);
    char recall[16] = "-", mass[16] = "-", to_first[16] = "-";
    if (result->audit.n > 0) {
        snprintf(recall, sizeof recall, "%.3f", result->audit.recall / (double)result->audit.n);
        snprintf(mass, sizeof mass, "%.3f", result->audit.mass / (double)result->audit.n);
    }
    if (eval->yardstick > 0) {
        snprintf(to_first, sizeof to_first, "%.2f", s.mean / eval->yardstick);
    }
    printf("%-*s %9llu %9.4f %9.4f %7.4f %9.5f %8.5f %9.5f %8s %6.1f%% %8.2f%% %7.2f%% %7s %7s\n",
           eval->label_width, result->run->label, (unsigned long long)result->n,
           exp(result->nll / n), exp(result->dense_nll / n),
           exp((result->nll - result->dense_nll) / n), s.mean, s.error, s.p90, to_first,
           100.0 * (double)result->same_top / n, 100.0 * qyi_attended(&result->stats),
           100.0 * qyi_attended_sparse(&result->stats), recall, mass);
    if (result->n >= QUARTERS_FROM && result->kl != NULL) {
        printf("%-*s KL by quarter of the positions: %.5f %.5f %.5f %.5f\n", eval->label_width, "",
               s.quarter[0], s.quarter[1], s.quarter[2], s.quarter[3]);
    }
}

const struct qyi_eval_kind qyi_eval_ppl = {.name = "ppl",
                                           .prepare = prepare,
                                           .size = size,
                                           .run = run,
                                           .json = json,
                                           .head = head,
                                           .row = row};
