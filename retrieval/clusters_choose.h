/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of one item of policy clusters, once its units are scored. Private to
 * policy_clusters.c. */
#ifndef QYI_RETRIEVAL_CLUSTERS_CHOOSE_H
#define QYI_RETRIEVAL_CLUSTERS_CHOOSE_H

#include "retrieval/clusters_index.h"

/* Units are clusters 0 .. n_clusters - 1, then tokens pending .. pending + n_pending - 1, each its
 * own. */
struct qyi_clusters_choice {
    const struct qyi_clusters_slab *slab;
    const float *pooled; /* [n_clusters + n_pending] */
    uint32_t n_clusters, n_pending, pending;
    uint32_t lo, hi, k;
    double estimated; /* share of the clusters that are not empty */
    /* Scratch. */
    uint32_t *heap; /* [n_clusters + n_pending]                   */
    uint64_t *bits; /* [max(hi - lo, n_clusters) / 64 + 1]        */
    /* Written. */
    uint32_t *ids, *n_ids; /* [k], ascending                      */
    uint32_t *estimates;   /* [n_clusters] clusters of the estimation zone, ascending */
    float *bias;           /* [n_clusters] log of their sizes     */
    uint32_t n_estimates;
};

/* Exact zone: the best units until k tokens are taken; estimation zone: the next clusters.
 * [any] [noalloc] */
void qyi_clusters_choose(struct qyi_clusters_choice *choice);

#endif
