/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval: what every kind does with the engine. Reads a context densely, copies it, and feeds
 * one token after the other to both copies. */
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum qy_status qyi_eval_need(const struct qyi_eval *eval, int file_optional, struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    if ((args->file == NULL && !file_optional) || args->ctx < 2) {
        return qy_error_set(err, QY_ERR_CONFIG, "eval %s: %s--ctx N of at least 2 tokens %s needed",
                            args->topic, file_optional ? "" : "a text (-f FILE) and ",
                            file_optional ? "is" : "are");
    }
    if (args->ctx > UINT32_MAX / 4) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '--ctx': at most %u tokens are accepted",
                            UINT32_MAX / 4);
    }
    return QY_OK;
}

enum qy_status qyi_eval_read_file(struct qyi_eval *eval, int bos, uint64_t need,
                                  struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    char *text = NULL;
    size_t bytes = 0;
    enum qy_status st;
    if (bos) {
        st = qyi_read_ids(&eval->engine, args->file, &eval->ids, &eval->n_ids, err);
    } else {
        st = qyi_read_file(args->file, &text, &bytes, err);
        if (st == QY_OK) {
            st = qy_tokenizer_encode(eval->engine.tokenizer, text, bytes,
                                     args->special ? QY_ENCODE_SPECIAL : 0, &eval->ids,
                                     &eval->n_ids, err);
        }
        free(text);
    }
    if (st == QY_OK && args->start + need > eval->n_ids) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "file '%s': has %zu tokens; --start, --ctx and --count need %llu; give a "
                          "longer text or smaller numbers",
                          args->file, eval->n_ids, (unsigned long long)(args->start + need));
    }
    return st;
}

enum qy_status qyi_eval_read(struct qyi_eval *eval, const int32_t *ids, size_t n, size_t *done,
                             struct qy_error *err)
{
    struct qyi_progress progress;
    qyi_progress_start(&progress, "reading", "tokens", n);
    enum qy_status st =
        qyi_engine_prefill(&eval->engine, eval->dense, ids, n, 0, &progress, done, err);
    if (st != QY_OK) {
        return st;
    }
    qyi_progress_end(&progress, *done);
    if (*done == n) {
        st = qyi_engine_copy(&eval->engine, eval->policy, eval->dense, err);
    }
    return st == QY_AGAIN
               ? qy_error_set(err, QY_ERR_NOMEM,
                              "no room for two copies of %zu tokens; raise cache.host_bytes", n)
               : st;
}

enum qy_status qyi_eval_feed(struct qyi_eval *eval, const int32_t *id, struct qy_error *err)
{
    const struct qy_step_slice slices[] = {
        {.seq = eval->dense, .n_tokens = 1, .ids = id, .mode = QY_ATTEND_DENSE},
        {.seq = eval->policy, .n_tokens = 1, .ids = id, .mode = QY_ATTEND_POLICY}};
    const uint32_t rows[] = {0, 1};
    const enum qy_status st = qyi_engine_forward(&eval->engine, slices, 2, rows, 2, err);
    return st == QY_AGAIN ? qy_error_set(err, QY_ERR_NOMEM,
                                         "cache full; raise cache.host_bytes or lower --ctx")
                          : st;
}

int32_t qyi_eval_top(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return (int32_t)best;
}
