/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VQ: one code per key before RoPE, learnt in the metric of the queries.
 *
 * The error of a score, E[(q~ k - q~ k^)^2], is (k - k^) H (k - k^)^T with H = E[q~^T q~]; with
 * H = L L^T it is |k L - c|^2: plain k-means on k L. q~ is the query turned to the distance at which
 * keys are met. Only E[q^T q] of queries as they are is needed: a rotation R turns it into
 * R E[q^T q] R^T, for as many distances as one likes.
 * Source: A2ATS, arXiv 2502.12665, eq. 13-18; H is divided by the root of its mean square and 1e-6 I
 * is added, as in its code. differs: by default H is averaged over seven distances, since the words
 * of one distance fit that distance (and the text) too closely.
 */
#include "retrieval/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DISTANCES = 7, FAR = 2048 };

/* h += weight * R m R^T, R turning by `distance`; m and h [d][d], work [d][d]. */
static void add_turned(const struct qy_rope *rope, uint32_t d, const double *m, double distance,
                       double weight, double *work, double *h)
{
    memcpy(work, m, (size_t)d * d * sizeof *work);
    for (uint32_t f = 0; f < rope->dim / 2; f++) { /* rows */
        const double c = cos(distance * rope->inv_freq[f]), s = sin(distance * rope->inv_freq[f]);
        uint32_t a, b;

        qyi_rope_pair(rope, f, &a, &b);
        for (uint32_t j = 0; j < d; j++) {
            const double x = work[(size_t)a * d + j], y = work[(size_t)b * d + j];

            work[(size_t)a * d + j] = x * c - y * s;
            work[(size_t)b * d + j] = x * s + y * c;
        }
    }
    for (uint32_t f = 0; f < rope->dim / 2; f++) { /* columns */
        const double c = cos(distance * rope->inv_freq[f]), s = sin(distance * rope->inv_freq[f]);
        uint32_t a, b;

        qyi_rope_pair(rope, f, &a, &b);
        for (uint32_t i = 0; i < d; i++) {
            const double x = work[(size_t)i * d + a], y = work[(size_t)i * d + b];

            work[(size_t)i * d + a] = x * c - y * s;
            work[(size_t)i * d + b] = x * s + y * c;
        }
    }
    for (size_t i = 0; i < (size_t)d * d; i++) {
        h[i] += weight * work[i];
    }
}

/* h [d][d], divided by the root of its mean square. */
static void find_metric(const struct qyi_train *train, double *work, double *h)
{
    const struct qy_train_params *params = train->params;
    const uint32_t d = train->info->head_dim;
    double squares = 0;

    memset(h, 0, (size_t)d * d * sizeof *h);
    if (params->metric == QY_METRIC_QUERY) {
        add_turned(&params->rope, d, train->samples->query,
                   params->distance > 0 ? params->distance : FAR, 1, work, h);
    }
    for (int i = 0; i < DISTANCES && params->metric != QY_METRIC_QUERY; i++) {
        /* The middle of the band 64 * 2^i .. 64 * 2^(i + 1), on a logarithmic scale. */
        add_turned(&params->rope, d, train->samples->query, 64 * pow(2, i + 0.5), 1.0 / DISTANCES,
                   work, h);
    }
    for (size_t i = 0; i < (size_t)d * d; i++) {
        squares += h[i] * h[i];
    }
    const double scale = sqrt(squares / ((double)d * d));
    for (size_t i = 0; i < (size_t)d * d && scale > 0; i++) {
        h[i] /= scale;
    }
}

/* root [d][d] lower, root root^T = h + a little I. */
static enum qy_status factorise(const double *h, uint32_t d, double *work, float *root,
                                struct qy_error *err)
{
    int info = 1;

    for (double extra = 1e-6; extra < 0.1 && info != 0; extra *= 10) {
        memcpy(work, h, (size_t)d * d * sizeof *work);
        for (uint32_t i = 0; i < d; i++) {
            work[(size_t)i * d + i] += extra;
        }
        info = qyi_cholesky(work, d);
    }
    if (info != 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "the queries' second moments have no Cholesky factor (dpotrf: %d)",
                            info);
    }
    for (uint32_t i = 0; i < d; i++) {
        for (uint32_t j = 0; j < d; j++) {
            root[(size_t)i * d + j] = j <= i ? (float)work[(size_t)i * d + j] : 0.0f;
        }
    }
    return QY_OK;
}

/* x = x root, row by row. */
static void transform(const float *root, uint32_t d, float *x, size_t n)
{
    float z[1024];

    for (size_t i = 0; i < n; i++, x += d) {
        memset(z, 0, d * sizeof *z);
        for (uint32_t e = 0; e < d; e++) {
            for (uint32_t j = 0; j <= e; j++) {
                z[j] += x[e] * root[(size_t)e * d + j];
            }
        }
        memcpy(x, z, d * sizeof *z);
    }
}

enum qy_status qyi_train_vq(struct qyi_train *train, float *root, struct qy_error *err)
{
    const struct qy_codebook_info *info = train->info;
    const uint32_t d = info->head_dim;
    const size_t n = train->samples->n;
    enum qy_status st = QY_OK;

    if (root != NULL) {
        double *h = malloc((size_t)2 * d * d * sizeof *h);

        if (h == NULL) {
            return qy_error_set(err, QY_ERR_NOMEM, "metric of %u elements: out of memory", d);
        }
        find_metric(train, h + (size_t)d * d, h);
        st = factorise(h, d, h + (size_t)d * d, root, err);
        free(h);
        if (st == QY_OK) {
            transform(root, d, train->x, n);
        }
    }
    const struct qyi_kmeans_params kmeans = {.d = d,
                                             .n_words = info->n_words,
                                             .iterations = train->params->iterations,
                                             .seed = train->seed};
    double objective = 0;
    if (st == QY_OK) {
        st = qyi_kmeans(&kmeans, train->x, n, train->words, &objective, err);
    }
    const double variance = st == QY_OK ? qyi_train_variance(train->x, n, d) : 0;
    train->distortion = variance > 0 ? objective / variance : 0;
    return st;
}
