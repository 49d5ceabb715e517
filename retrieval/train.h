/* SPDX-License-Identifier: Apache-2.0 */
/* What the learning of both kinds of codebook shares. */
#ifndef QY_RETRIEVAL_TRAIN_H
#define QY_RETRIEVAL_TRAIN_H

#include "retrieval/kmeans.h"

/* One (layer, KV head) to learn. */
struct qyi_train {
    const struct qy_codebook_info *info;
    const struct qy_train_params *params;
    const struct qy_train_samples *samples;
    uint64_t seed;     /* of this (layer, KV head) */
    float *x;          /* [n][d]: samples as f32; then what is clustered */
    float *points;     /* [n][d / m]: those of one sub-vector (PQ4)      */
    float *words;      /* [m][n_words][d / m]                            */
    double distortion; /* written                                        */
};

/* PQ4: fills words, scale [d] and order [d]. */
QY_MUST enum qy_status qyi_train_pq4(struct qyi_train *train, float *scale, uint16_t *order,
                                     struct qy_error *err);
/* VQ: fills words and root [d][d]; the caller passes on no root when the metric is plain. */
QY_MUST enum qy_status qyi_train_vq(struct qyi_train *train, float *root, struct qy_error *err);

/* The lower triangle of a [d][d], symmetric, becomes its factor L, a = L L^T. Not 0: it has none. */
int qyi_cholesky(double *a, uint32_t d);

/* Elements a and b of rotary pair f. */
static inline void qyi_rope_pair(const struct qy_rope *rope, uint32_t f, uint32_t *a, uint32_t *b)
{
    *a = rope->pairs == QY_ROPE_ADJACENT ? 2 * f : f;
    *b = rope->pairs == QY_ROPE_ADJACENT ? 2 * f + 1 : f + rope->dim / 2;
}

/* Next number of a seeded series. Source: splitmix64, Steele et al. 2014. */
static inline uint64_t qyi_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Sum over points [n][d] of |point - their mean|^2. */
double qyi_train_variance(const float *points, size_t n, uint32_t d);

#endif
