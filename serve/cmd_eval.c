/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval ppl: how well a policy predicts a text, against dense attention on the same
 * positions. Tokens start .. start + ctx are prefilled densely; then count tokens are fed one by
 * one (teacher-forced), twice in one batch: once densely, once by the policy. --count 0: plain
 * dense perplexity of the first ctx tokens.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

enum { DENSE_CHUNK = 128 }; /* rows of logits held at once by --count 0 */

struct sums {
    uint64_t n, same_top;
    double nll, dense_nll, kl;
};

struct eval {
    struct qyi_engine engine;
    int32_t *ids;
    size_t n_ids;
    FILE *dump;
    struct sums sums;
};

/* A line of the dump: position in the file, id, ln p dense, ln p of the policy. */
static void dump_line(struct eval *eval, size_t position, int32_t id, double dense, double policy)
{
    if (eval->dump != NULL) {
        fprintf(eval->dump, "%zu\t%d\t%.6f\t%.6f\n", position, id, dense, policy);
    }
}

static int32_t top(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return (int32_t)best;
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

/* All positions of the first ctx tokens, densely. */
static enum qy_status run_dense(struct eval *eval, struct qy_sequence *seq, struct qy_error *err)
{
    const struct qyi_args *args = eval->engine.app->args;
    const uint32_t n_vocab = qy_model_info(eval->engine.model)->n_vocab;
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
            .seq = seq, .n_tokens = take, .ids = ids + at, .mode = QY_ATTEND_DENSE};
        const enum qy_status st = qy_model_forward(eval->engine.model, eval->engine.cache, &slice,
                                                   1, rows, take, eval->engine.logits, err);
        if (st != QY_OK) {
            return st;
        }
        for (uint32_t i = 0; i < take && at + i + 1 < n; i++) {
            const size_t position = at + i + 1; /* the one that is predicted */
            const double lp =
                qy_log_prob(eval->engine.logits + (size_t)i * n_vocab, n_vocab, ids[position]);
            dump_line(eval, args->start + position, ids[position], lp, lp);
            if (position >= args->from) {
                eval->sums.n++;
                eval->sums.nll -= lp;
                eval->sums.dense_nll -= lp;
            }
        }
        qyi_progress_update(&progress, at + take);
    }
    eval->sums.same_top = eval->sums.n;
    qyi_progress_end(&progress, n);
    return QY_OK;
}

/* Books one teacher-forced position from two rows of logits: dense, policy. */
static void book(struct eval *eval, size_t position, uint64_t place)
{
    const uint32_t n_vocab = qy_model_info(eval->engine.model)->n_vocab;
    const float *dense = eval->engine.logits, *policy = dense + n_vocab;
    const int32_t id = eval->ids[position];
    const double a = qy_log_prob(dense, n_vocab, id), b = qy_log_prob(policy, n_vocab, id);
    dump_line(eval, position, id, a, b);
    if (place >= eval->engine.app->args->from) {
        eval->sums.n++;
        eval->sums.dense_nll -= a;
        eval->sums.nll -= b;
        /* ln p = logit - log-sum-exp */
        eval->sums.kl += divergence(dense, dense[id] - a, policy, policy[id] - b, n_vocab);
        eval->sums.same_top += top(dense, n_vocab) == top(policy, n_vocab);
    }
}

static enum qy_status run_policy(struct eval *eval, struct qy_sequence *dense,
                                 struct qy_sequence *policy, struct qy_error *err)
{
    struct qyi_engine *engine = &eval->engine;
    const struct qyi_args *args = engine->app->args;
    struct qyi_progress progress;
    size_t done = 0;
    qyi_progress_start(&progress, "reading", "tokens", args->ctx);
    enum qy_status st = qyi_engine_prefill(engine, dense, eval->ids + args->start, args->ctx, 0,
                                           &progress, &done, err);
    if (st != QY_OK) {
        return st;
    }
    qyi_progress_end(&progress, done);
    if (qy_sequence_copy(policy, dense) != QY_OK) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "no room for two copies of %llu tokens; raise cache.host_bytes",
                            (unsigned long long)args->ctx);
    }
    qy_cache_stats_reset(engine->cache);
    qyi_progress_start(&progress, "evaluating", "tokens", args->count);
    for (uint64_t i = 0; i < args->count && !qyi_interrupted(); i++) {
        const size_t position = args->start + args->ctx + i;
        const struct qy_step_slice slices[] = {
            {.seq = dense, .n_tokens = 1, .ids = &eval->ids[position], .mode = QY_ATTEND_DENSE},
            {.seq = policy, .n_tokens = 1, .ids = &eval->ids[position], .mode = QY_ATTEND_POLICY}};
        const uint32_t rows[] = {0, 1};
        st =
            qy_model_forward(engine->model, engine->cache, slices, 2, rows, 2, engine->logits, err);
        if (st != QY_OK) {
            return st;
        }
        book(eval, position + 1, i);
        qyi_progress_update(&progress, i + 1);
    }
    qyi_progress_end(&progress, args->count);
    return QY_OK;
}

static void print_result(struct eval *eval)
{
    const struct sums *s = &eval->sums;
    const double n = s->n > 0 ? (double)s->n : 1;
    struct qy_cache_stats stats;
    qy_cache_stats(eval->engine.cache, &stats);
    const double attended = qyi_attended(&stats);
    const char *policy = eval->engine.app->args->count == 0 ? "dense" : eval->engine.policy->name;
    if (eval->engine.app->args->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "policy", policy);
        cJSON_AddNumberToObject(object, "positions", (double)s->n);
        cJSON_AddNumberToObject(object, "nll", s->nll / n);
        cJSON_AddNumberToObject(object, "ppl", exp(s->nll / n));
        cJSON_AddNumberToObject(object, "dense_ppl", exp(s->dense_nll / n));
        cJSON_AddNumberToObject(object, "kl", s->kl / n);
        cJSON_AddNumberToObject(object, "top1", (double)s->same_top / n);
        cJSON_AddNumberToObject(object, "attended", attended);
        cJSON_AddNumberToObject(object, "read_bytes", (double)stats.read_bytes);
        cJSON_AddNumberToObject(object, "dense_read_bytes", (double)stats.dense_read_bytes);
        qyi_print_json(object);
        return;
    }
    printf("%-10s %10s %10s %10s %10s %8s %9s\n", "policy", "positions", "ppl", "dense ppl", "KL",
           "top-1", "attended");
    printf("%-10s %10llu %10.4f %10.4f %10.5f %7.1f%% %8.1f%%\n", policy, (unsigned long long)s->n,
           exp(s->nll / n), exp(s->dense_nll / n), s->kl / n, 100.0 * (double)s->same_top / n,
           100.0 * attended);
}

/* Reads the text and checks that the tokens reach. */
static enum qy_status read_ids(struct eval *eval, struct qy_error *err)
{
    const struct qyi_args *args = eval->engine.app->args;
    enum qy_status st = qyi_read_ids(&eval->engine, args->file, &eval->ids, &eval->n_ids, err);
    const uint64_t need = args->start + args->ctx + (args->count > 0 ? args->count + 1 : 0);
    if (st == QY_OK && need > eval->n_ids) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "file '%s': has %zu tokens; --start, --ctx and --count need %llu; give a "
                          "longer text or smaller numbers",
                          args->file, eval->n_ids, (unsigned long long)need);
    }
    return st;
}

static enum qy_status check_args(const struct qyi_args *args, struct qy_error *err)
{
    if (args->file == NULL || args->ctx < 2) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "eval ppl: a text (-f FILE) and --ctx N of at least 2 tokens are needed");
    }
    const uint64_t places = args->count > 0 ? args->count : args->ctx;
    if (args->from >= places) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--from': %llu leaves none of %llu positions",
                            (unsigned long long)args->from, (unsigned long long)places);
    }
    return QY_OK;
}

static enum qy_status run(struct eval *eval, struct qy_error *err)
{
    struct qyi_engine *engine = &eval->engine;
    const struct qyi_args *args = engine->app->args;
    const int plain = args->count == 0;
    const struct qyi_engine_params params = {
        .max_sequences = plain ? 1 : 2,
        .max_tokens = (uint32_t)(args->ctx + args->count + 1),
        .max_step_tokens = plain ? DENSE_CHUNK : (uint32_t)engine->app->program.chunk + 2,
        .max_logits = plain ? DENSE_CHUNK : 2};
    struct qy_sequence *dense = NULL, *policy = NULL;
    enum qy_status st = qyi_engine_open_model(engine, &params, err);
    if (st == QY_OK) {
        st = qy_sequence_open(engine->cache, &dense, err);
    }
    if (st == QY_OK && !plain) {
        st = qy_sequence_open(engine->cache, &policy, err);
    }
    if (st == QY_OK) {
        st = plain ? run_dense(eval, dense, err) : run_policy(eval, dense, policy, err);
    }
    if (st == QY_OK) {
        print_result(eval);
    }
    qy_sequence_close(policy);
    qy_sequence_close(dense);
    return st;
}

int qyi_cmd_eval(struct qyi_app *app)
{
    struct qy_error err = {0};
    struct eval eval = {0};
    enum qy_status st = check_args(app->args, &err);
    if (st == QY_OK) {
        st = qyi_engine_open_file(app, &eval.engine, &err);
    }
    if (st == QY_OK) {
        st = read_ids(&eval, &err);
    }
    if (st == QY_OK && app->args->dump != NULL) {
        eval.dump = fopen(app->args->dump, "w");
        if (eval.dump == NULL) {
            st = qy_error_set(&err, QY_ERR_NOT_FOUND, "option '--dump': '%s' cannot be written: %s",
                              app->args->dump, strerror(errno));
        }
    }
    if (st == QY_OK) {
        st = run(&eval, &err);
    }
    if (eval.dump != NULL && (fclose(eval.dump) != 0 && st == QY_OK)) {
        st = qy_error_set(&err, QY_ERR_NOT_FOUND, "option '--dump': writing '%s' failed: %s",
                          app->args->dump, strerror(errno));
    }
    int code = st == QY_OK ? 0 : qyi_fail(&err);
    qy_free(&app->rt.mem, eval.ids);
    qyi_engine_close(&eval.engine);
    return code == 0 && qyi_interrupted() ? 130 : code;
}
