/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval recall: what a policy finds, layer by layer, while a text is fed (teacher-forced):
 * every selection is measured against exact attention of the same query. */
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum { POSITIONS = 64 };

static uint64_t positions(const struct qyi_eval *eval)
{
    return eval->app->args->count > 0 ? eval->app->args->count : POSITIONS;
}

static enum qy_status prepare(struct qyi_eval *eval, struct qy_error *err)
{
    const enum qy_status st = qyi_eval_need(eval, 0, err);
    return st == QY_OK ? qyi_eval_read_file(eval, 1, eval->app->args->ctx + positions(eval), err)
                       : st;
}

static void size(const struct qyi_eval *eval, struct qyi_engine_params *params)
{
    params->max_sequences = 1;
    params->max_tokens = (uint32_t)(eval->app->args->ctx + positions(eval));
    params->max_step_tokens = (uint32_t)eval->app->program.chunk;
    params->max_logits = 1;
}

static enum qy_status run(struct qyi_eval *eval, struct qyi_eval_result *result,
                          struct qy_error *err)
{
    const struct qyi_args *args = eval->app->args;
    const int32_t *ids = eval->ids + args->start;
    struct qyi_progress progress;
    size_t done = 0;
    qyi_progress_start(&progress, "reading", "tokens", args->ctx);
    enum qy_status st =
        qyi_engine_prefill(&eval->engine, eval->dense, ids, args->ctx, 0, &progress, &done, err);
    if (st != QY_OK || done < args->ctx) {
        return st;
    }
    qyi_progress_end(&progress, done);
    qy_cache_stats_reset(eval->engine.cache);
    qyi_progress_start(&progress, "evaluating", "tokens", positions(eval));
    for (uint64_t i = 0; i < positions(eval) && !qyi_interrupted(); i++) {
        const struct qy_step_slice slice = {.seq = eval->dense,
                                            .n_tokens = 1,
                                            .ids = ids + args->ctx + i,
                                            .mode = QY_ATTEND_POLICY};
        st = qyi_engine_forward(&eval->engine, &slice, 1, NULL, 0, err);
        if (st != QY_OK) {
            return st;
        }
        result->n++;
        qyi_progress_update(&progress, i + 1);
    }
    qyi_progress_end(&progress, result->n);
    return QY_OK;
}

static void json(const struct qyi_eval *eval, struct qyi_eval_result *result)
{
    (void)eval; /* recall, mass and the layers are in every result that was audited */
    cJSON_AddNumberToObject(result->json, "positions", (double)result->n);
}

static void head(const struct qyi_eval *eval)
{
    printf("%-*s %9s %7s %7s %9s %8s\n", eval->label_width, "policy", "positions", "recall", "mass",
           "attended", "sparse");
}

static void means(char *out, size_t bytes, const struct qy_audit_sums *sums)
{
    if (sums->n > 0) {
        snprintf(out, bytes, "%7.3f %7.3f", sums->recall / (double)sums->n,
                 sums->mass / (double)sums->n);
    } else {
        snprintf(out, bytes, "%7s %7s", "-", "-");
    }
}

/* recall/mass of each layer, a few to a line */
static void print_layers(const struct qyi_eval *eval)
{
    enum { PER_LINE = 6 };
    const uint32_t n = qy_model_info(eval->engine.model)->n_layers;
    printf("  recall/mass by layer\n");
    for (uint32_t l = 0; l < n; l++) {
        struct qy_audit_sums one;
        char text[24] = "  -  /  -  ";
        qy_cache_audit(eval->engine.cache, l, &one);
        if (one.n > 0) {
            snprintf(text, sizeof text, "%.3f/%.3f", one.recall / (double)one.n,
                     one.mass / (double)one.n);
        }
        printf("  %3u %s%s", l, text, (l + 1) % PER_LINE == 0 || l + 1 == n ? "\n" : "");
    }
}

static void row(struct qyi_eval *eval, const struct qyi_eval_result *result)
{
    char text[32];
    means(text, sizeof text, &result->audit);
    printf("%-*s %9llu %s %8.2f%% %7.2f%%\n", eval->label_width, result->run->label,
           (unsigned long long)result->n, text, 100.0 * qyi_attended(&result->stats),
           100.0 * qyi_attended_sparse(&result->stats));
    if (result->audit.n > 0) {
        print_layers(eval);
    }
}

const struct qyi_eval_kind qyi_eval_recall = {.name = "recall",
                                              .prepare = prepare,
                                              .size = size,
                                              .run = run,
                                              .json = json,
                                              .head = head,
                                              .row = row,
                                              .audit = 1};
