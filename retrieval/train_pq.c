/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PQ4: a product quantizer of keys after RoPE that no request has to learn anew.
 *
 *   1. Keys are turned to random positions, so that the words know every position.
 *   2. Each rotary pair f is scaled by w_f = sqrt(E|q_f|^2 / 2): what is left of the error of a score,
 *      E[(q . k - q . k^)^2], once it is averaged over all relative angles. A scale per pair commutes
 *      with the rotation, so one scale serves all positions. Elements that are not rotated: by
 *      sqrt(E q_e^2).
 *   3. Pairs are dealt to the m sub-vectors so that each gets the same energy: sorted, then dealt to
 *      and fro.
 *   4. k-means of 16 words per sub-vector.
 * Product quantization: Jegou et al. 2011. Query-aware weights: A2ATS, arXiv 2502.12665, sec. 3.2;
 * differs: after RoPE, with the diagonal of H alone, as a scale.
 */
#include "retrieval/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Turns each sample to a position of its own. */
static void turn_samples(struct qyi_train *train)
{
    const struct qy_rope *rope = &train->params->rope;
    const uint32_t d = train->info->head_dim;
    uint64_t state = train->seed;

    for (size_t i = 0; i < train->samples->n; i++) {
        const uint64_t position = qyi_random(&state) % train->params->max_position;
        float *x = train->x + i * d;

        for (uint32_t f = 0; f < rope->dim / 2; f++) {
            const double angle = (double)position * rope->inv_freq[f];
            const float c = (float)cos(angle), s = (float)sin(angle);
            uint32_t a, b;

            qyi_rope_pair(rope, f, &a, &b);
            const float xa = x[a], xb = x[b];
            x[a] = xa * c - xb * s;
            x[b] = xa * s + xb * c;
        }
    }
}

/* weight [d] of each element, before dealing. */
static void find_weights(const struct qyi_train *train, float *weight)
{
    const struct qy_rope *rope = &train->params->rope;
    const double *query = train->samples->query;
    const uint32_t d = train->info->head_dim;
    float most = 0;

    for (uint32_t e = 0; e < d; e++) {
        const int known = query != NULL && train->params->metric != QY_METRIC_PLAIN;

        weight[e] = known ? (float)query[(size_t)e * d + e] : 1.0f;
    }
    for (uint32_t f = 0; f < rope->dim / 2; f++) {
        uint32_t a, b;

        qyi_rope_pair(rope, f, &a, &b);
        weight[a] = weight[b] = (weight[a] + weight[b]) / 2;
    }
    for (uint32_t e = 0; e < d; e++) {
        weight[e] = sqrtf(weight[e]);
        most = weight[e] > most ? weight[e] : most;
    }
    /* What no query looks at costs nothing to get wrong, but has to be divided by. */
    for (uint32_t e = 0; e < d; e++) {
        weight[e] = most > 0 ? fmaxf(weight[e], 1e-4f * most) : 1.0f;
    }
}

/* Elements that stay together: a rotary pair, two that are not rotated, or one alone. */
struct unit {
    double energy;
    uint32_t element[2];
};

static int more_energy(const void *a, const void *b)
{
    const struct unit *x = a, *y = b;

    if (x->energy != y->energy) {
        return x->energy < y->energy ? 1 : -1;
    }
    return x->element[0] < y->element[0] ? -1
                                         : x->element[0] > y->element[0]; /* any machine's qsort */
}

static double element_energy(const struct qyi_train *train, uint32_t element, float weight)
{
    const uint32_t d = train->info->head_dim;
    double sum = 0;

    for (size_t i = 0; i < train->samples->n; i++) {
        const double x = train->x[i * d + element];

        sum += x * x;
    }
    return sum * weight * weight;
}

/* order [d]: element e of the scaled vector is element order[e] of the key. */
static void deal(const struct qyi_train *train, const float *weight, uint16_t *order)
{
    const struct qy_rope *rope = &train->params->rope;
    const uint32_t d = train->info->head_dim, m = train->info->m, sub = d / m;
    const uint32_t size = sub % 2 == 0 ? 2 : 1, n_units = d / size;
    struct unit units[1024];

    for (uint32_t u = 0; u < n_units; u++) {
        uint32_t a = u * size, b = u * size + size - 1;

        if (size == 2 && u < rope->dim / 2) {
            qyi_rope_pair(rope, u, &a, &b);
        }
        units[u].element[0] = a;
        units[u].element[1] = b;
        units[u].energy = element_energy(train, a, weight[a]);
        if (size == 2) {
            units[u].energy += element_energy(train, b, weight[b]);
        }
    }
    qsort(units, n_units, sizeof units[0], more_energy);
    for (uint32_t u = 0; u < n_units; u++) {
        const uint32_t round = u / m;
        const uint32_t j = round % 2 == 0 ? u % m : m - 1 - u % m;

        for (uint32_t e = 0; e < size; e++) {
            order[j * sub + round * size + e] = (uint16_t)units[u].element[e];
        }
    }
}

/* Clusters sub-vector j; objective and variance are added to. */
static enum qy_status cluster(struct qyi_train *train, uint32_t j, const float *scale,
                              const uint16_t *order, double *objective, double *variance,
                              struct qy_error *err)
{
    const struct qy_codebook_info *info = train->info;
    const uint32_t d = info->head_dim, sub = d / info->m;
    const size_t n = train->samples->n;
    double sum = 0;

    for (size_t i = 0; i < n; i++) {
        for (uint32_t e = 0; e < sub; e++) {
            const uint32_t at = j * sub + e;

            train->points[i * sub + e] = scale[at] * train->x[i * d + order[at]];
        }
    }
    const struct qyi_kmeans_params kmeans = {.d = sub,
                                             .n_words = info->n_words,
                                             .iterations = train->params->iterations,
                                             .seed = train->seed + j};
    const enum qy_status st = qyi_kmeans(&kmeans, train->points, n,
                                         train->words + (size_t)j * info->n_words * sub, &sum, err);

    *objective += sum;
    *variance += qyi_train_variance(train->points, n, sub);
    return st;
}

enum qy_status qyi_train_pq4(struct qyi_train *train, float *scale, uint16_t *order,
                             struct qy_error *err)
{
    const uint32_t d = train->info->head_dim;
    float weight[1024];
    double objective = 0, variance = 0;
    enum qy_status st = QY_OK;

    turn_samples(train);
    find_weights(train, weight);
    deal(train, weight, order);
    for (uint32_t e = 0; e < d; e++) {
        scale[e] = weight[order[e]];
    }
    for (uint32_t j = 0; st == QY_OK && j < train->info->m; j++) {
        st = cluster(train, j, scale, order, &objective, &variance, err);
    }
    train->distortion = variance > 0 ? objective / variance : 0;
    return st;
}
