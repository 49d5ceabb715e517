/* SPDX-License-Identifier: Apache-2.0 */
/* Learning: each thread takes head after head until none is left, or until Ctrl-C. */
#include <stdatomic.h>
#include <stdlib.h>

#include "serve/calibrate/calibrate.h"

struct job {
    struct qy_codebook *codebook;
    const struct qy_train_params *params;
    const struct qyi_samples *samples;
    double *distortion; /* [heads] */
    uint32_t heads;
    atomic_uint next, done, failed;
    struct qyi_progress progress;
    struct qy_error err; /* of the first that failed */
};

static void learn_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;
    const struct qy_kv_shape *shape = &job->samples->shape;
    const size_t d = shape->head_dim;
    (void)n_threads;
    for (;;) {
        const uint32_t i = atomic_fetch_add(&job->next, 1);
        if (i >= job->heads || atomic_load(&job->failed) || qyi_interrupted()) {
            return;
        }
        const uint32_t layer = i / shape->n_kv_heads, kv_head = i % shape->n_kv_heads;
        const struct qy_train_samples samples = {
            .k = job->samples->keys + i * job->samples->room * d,
            .n = job->samples->n,
            .query = job->samples->query != NULL ? job->samples->query + i * d * d : NULL};
        struct qy_error err;
        if (!qy_codebook_has(job->codebook, layer, kv_head) &&
            qy_codebook_train(job->codebook, layer, kv_head, job->params, &samples,
                              &job->distortion[i], &err) != QY_OK) {
            if (atomic_exchange(&job->failed, 1) == 0) {
                job->err = err;
            }
            return;
        }
        const uint32_t done = atomic_fetch_add(&job->done, 1) + 1;
        if (thread == 0) {
            qyi_progress_update(&job->progress, done);
        }
    }
}

enum qy_status qyi_samples_learn(struct qyi_app *app, struct qy_codebook *codebook,
                                 const struct qy_train_params *params,
                                 const struct qyi_samples *samples, double *distortion,
                                 struct qy_error *err)
{
    struct job job = {.codebook = codebook,
                      .params = params,
                      .samples = samples,
                      .heads = samples->shape.n_layers * samples->shape.n_kv_heads};
    job.distortion = calloc(job.heads, sizeof *job.distortion);
    if (job.distortion == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "calibrate: out of memory");
    }
    qyi_progress_start(&job.progress, "learning", "heads", job.heads);
    qy_team_run(app->rt.team, learn_share, &job);
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < job.heads; i++) {
        sum += job.distortion[i];
        n += job.distortion[i] > 0;
    }
    *distortion = n > 0 ? sum / n : 0;
    free(job.distortion);
    if (atomic_load(&job.failed)) {
        return qy_error_set(err, job.err.status, "%s", job.err.text);
    }
    qyi_progress_end(&job.progress, atomic_load(&job.done));
    return QY_OK;
}
