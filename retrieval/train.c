/* SPDX-License-Identifier: Apache-2.0 */
/* Learning the tables of one (layer, KV head) from samples: what both kinds share. */
#include "retrieval/train.h"

#include <stdlib.h>
#include <string.h>

static const char *const metric_names[] = {"auto", "rotary", "plain", "query", "query-avg"};
enum { N_METRICS = sizeof metric_names / sizeof metric_names[0] };

const char *qy_metric_name(enum qy_metric metric)
{
    return (unsigned)metric < N_METRICS ? metric_names[metric] : "?";
}

enum qy_status qy_metric_parse(const char *name, enum qy_metric *metric, struct qy_error *err)
{
    for (int i = 0; i < N_METRICS; i++) {
        if (strcmp(name, metric_names[i]) == 0) {
            *metric = (enum qy_metric)i;
            return QY_OK;
        }
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "metric '%s': refused; auto, rotary, plain, query and query-avg are "
                        "accepted",
                        name);
}

enum qy_status qy_codebook_train_present(struct qy_error *err)
{
    return qyi_kmeans_present(err);
}

double qyi_train_variance(const float *points, size_t n, uint32_t d)
{
    double sum[1024] = {0}, squares[1024] = {0}, variance = 0;

    for (size_t i = 0; i < n; i++) {
        for (uint32_t e = 0; e < d; e++) {
            const double off = points[i * d + e] - points[e]; /* from the first: far means cancel */

            sum[e] += off;
            squares[e] += off * off;
        }
    }
    for (uint32_t e = 0; e < d; e++) {
        variance += squares[e] - sum[e] * sum[e] / (double)n;
    }
    return variance;
}

static enum qy_status check(const struct qy_codebook_info *info,
                            const struct qy_train_params *params,
                            const struct qy_train_samples *samples, struct qy_error *err)
{
    const enum qy_metric metric = params->metric;
    const int pq4 =
        metric == QY_METRIC_AUTO || metric == QY_METRIC_PLAIN || metric == QY_METRIC_ROTARY;
    const int vq = metric != QY_METRIC_ROTARY;

    if (info->kind == QY_CODEBOOK_PQ4 ? !pq4 : !vq) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "metric '%s': not of this kind of codebook; %s are accepted",
                            qy_metric_name(metric),
                            info->kind == QY_CODEBOOK_PQ4 ? "auto, rotary and plain"
                                                          : "auto, plain, query and query-avg");
    }
    if (samples->n == 0 || params->iterations == 0 || params->rope.dim > info->head_dim ||
        (info->kind == QY_CODEBOOK_PQ4 && params->max_position == 0)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "learning from %zu keys, %u iterations, positions below %u: at least "
                            "one of each is needed",
                            samples->n, params->iterations, params->max_position);
    }
    return QY_OK;
}

/* Learns with all memory at hand. root is NULL where none is wanted. */
static enum qy_status learn(struct qy_codebook *codebook, uint32_t layer, uint32_t kv_head,
                            struct qyi_train *train, float *root, struct qy_error *err)
{
    const uint32_t d = train->info->head_dim;
    float scale[1024];
    uint16_t order[1024];
    struct qy_codebook_words set = {.words = train->words};
    enum qy_status st;

    for (size_t i = 0; i < train->samples->n * d; i++) {
        train->x[i] = qy_f32_from_f16(train->samples->k[i]);
    }
    if (train->info->kind == QY_CODEBOOK_PQ4) {
        st = qyi_train_pq4(train, scale, order, err);
        set.scale = scale;
        set.order = order;
    } else {
        st = qyi_train_vq(train, root, err);
        set.root = root;
    }
    return st == QY_OK ? qy_codebook_set(codebook, layer, kv_head, &set, err) : st;
}

enum qy_status qy_codebook_train(struct qy_codebook *codebook, uint32_t layer, uint32_t kv_head,
                                 const struct qy_train_params *params,
                                 const struct qy_train_samples *samples, double *distortion,
                                 struct qy_error *err)
{
    const struct qy_codebook_info *info = qy_codebook_info(codebook);
    const size_t d = info->head_dim, n = samples->n;
    enum qy_status st = qyi_kmeans_present(err);

    if (st == QY_OK) {
        st = check(info, params, samples, err);
    }
    if (st != QY_OK) {
        return st;
    }
    const uint64_t place[2] = {layer, kv_head};
    struct qyi_train train = {.info = info,
                              .params = params,
                              .samples = samples,
                              .seed = qy_checksum(place, sizeof place, params->seed),
                              .x = malloc(n * d * sizeof(float)),
                              .points = malloc(n * (d / info->m) * sizeof(float)),
                              .words = malloc(d * info->n_words * sizeof(float))};
    const int plain = params->metric == QY_METRIC_PLAIN || samples->query == NULL;
    float *root = info->kind == QY_CODEBOOK_VQ && !plain ? malloc(d * d * sizeof *root) : NULL;

    if (train.x == NULL || train.points == NULL || train.words == NULL ||
        (info->kind == QY_CODEBOOK_VQ && !plain && root == NULL)) {
        st = qy_error_set(err, QY_ERR_NOMEM, "learning from %zu keys: out of memory", n);
    } else {
        st = learn(codebook, layer, kv_head, &train, root, err);
    }
    if (st != QY_OK) {
        st = qy_error_wrap(err, st, "layer %u, KV head %u", layer, kv_head);
    } else if (distortion != NULL) {
        *distortion = train.distortion;
    }
    free(train.x);
    free(train.points);
    free(train.words);
    free(root);
    return st;
}
