/* SPDX-License-Identifier: Apache-2.0 */
/* Several workers of a job: what each must have the same of, told by checksums before they work. */
#include <string.h>

#include "serve/codebook.h"
#include "serve/job/job.h"

static const char *const words[QYI_SAME_COUNT] = {
    [QYI_SAME_MODEL] = "model file",
    [QYI_SAME_CODEBOOK] = "codebook",
    [QYI_SAME_TEXT] = "text (-f)",
    [QYI_SAME_PROMPTS] = "list of prompts (--prompts)",
    [QYI_SAME_OPTIONS] =
        "options (-n, --ctx, --prompt-tokens, --chat, --system, --special, --json)",
};

/* ---- one worker ---------------------------------------------------------------------------------- */

static uint64_t options_checksum(const struct qyi_args *args)
{
    const uint64_t numbers[] = {args->n,
                                args->ctx,
                                args->prompt_tokens,
                                (uint64_t)args->chat,
                                (uint64_t)args->special,
                                (uint64_t)args->json};
    const uint64_t sum = qy_checksum(numbers, sizeof numbers, args->system != NULL);
    return args->system != NULL ? qy_checksum(args->system, strlen(args->system), sum) : sum;
}

static enum qy_status sum_file(const char *what, const char *path, uint64_t *sum,
                               struct qy_error *err)
{
    *sum = qyi_file_checksum(path);
    return *sum != 0
               ? QY_OK
               : qy_error_set(err, QY_ERR_NOT_FOUND,
                              "%s '%s': cannot be read, or is empty; every worker reads it, so "
                              "it must be a file on every host that has one",
                              what, path);
}

/* The codebook that the policy would take; learning one is for a single process. */
static enum qy_status sum_codebook(struct qyi_app *app, uint64_t *sum, struct qy_error *err)
{
    struct qyi_engine engine;
    char path[QYI_CODEBOOK_PATH_BYTES];
    enum qy_status st = qyi_engine_open_file(app, &engine, err);
    if (st != QY_OK) {
        return st;
    }
    if (qyi_codebook_file(&engine, path)) {
        st = sum_file("codebook", path, sum, err);
    } else if (qyi_codebook_needed(&engine)) {
        st = qy_error_set(err, QY_ERR_NOT_FOUND,
                          "policy '%s': no codebook of this model is at hand, and several workers "
                          "do not learn one; make it first with: quarry calibrate",
                          engine.policy->name);
    }
    qyi_engine_close(&engine);
    return st;
}

static enum qy_status sum_all(struct qyi_app *app, uint64_t *same, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    char path[512];
    enum qy_status st = qyi_model_path(app, path, sizeof path, err);
    if (st == QY_OK) {
        st = sum_file("model", path, &same[QYI_SAME_MODEL], err);
    }
    if (st == QY_OK) {
        st = sum_codebook(app, &same[QYI_SAME_CODEBOOK], err);
    }
    if (st == QY_OK && args->file != NULL) {
        st = sum_file("-f", args->file, &same[QYI_SAME_TEXT], err);
    }
    if (st == QY_OK) {
        st = sum_file("--prompts", args->prompts, &same[QYI_SAME_PROMPTS], err);
    }
    same[QYI_SAME_OPTIONS] = options_checksum(args);
    return st;
}

void qyi_job_describe_worker(struct qyi_app *app, struct qyi_job_rank *rank)
{
    struct qy_error err = {0};
    const enum qy_status st = sum_all(app, rank->same, &err);
    if (st != QY_OK) {
        rank->failed = (int32_t)st;
        snprintf(rank->why, sizeof rank->why, "%s", err.text);
    }
}

/* ---- all of them ----------------------------------------------------------------------------------- */

enum qy_status qyi_job_same_work(const struct qyi_job_rank *ranks, int n_workers,
                                 struct qy_error *err)
{
    for (int what = 0; what < QYI_SAME_COUNT; what++) {
        char names[120] = "";
        size_t used = 0;
        int first = 0;
        for (int i = 1; i < n_workers; i++) {
            if (ranks[i].same[what] != ranks[0].same[what]) {
                first = first == 0 ? i : first;
                if (used < sizeof names) {
                    used += (size_t)snprintf(names + used, sizeof names - used, "%s%d",
                                             used > 0 ? ", " : "", i);
                }
            }
        }
        if (first > 0) {
            return qy_error_set(
                err, QY_ERR_CONFIG,
                "job: the %s of rank%s %s differs from rank 0's (checksum %016llx on "
                "rank %d, %016llx on rank 0); give all workers the same",
                words[what], strchr(names, ',') != NULL ? "s" : "", names,
                (unsigned long long)ranks[first].same[what], first,
                (unsigned long long)ranks[0].same[what]);
        }
    }
    return QY_OK;
}
