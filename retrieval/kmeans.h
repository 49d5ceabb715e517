/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k-means of codebooks that are learnt beforehand, from much text: FAISS's clustering.
 *
 * One call runs on the calling thread alone and touches nothing that is shared: many clusterings
 * are run side by side by the threads of a team (qy_team_run), one call each. It allocates: from a
 * policy only in open or prepare. Indexes that are learnt per request, or must work in a build
 * without FAISS, use retrieval/lloyd.h.
 */
#ifndef QY_RETRIEVAL_KMEANS_H
#define QY_RETRIEVAL_KMEANS_H

#include "retrieval/retrieval.h"

struct qyi_kmeans_params {
    uint32_t d, n_words;
    uint32_t iterations; /* at least 1                                                          */
    uint64_t seed;       /* same seed, points and FAISS: same words                             */
    int spherical;       /* words have length 1: points go to the largest inner product         */
    uint32_t max_points; /* per word, drawn at random when there are more; 0 = all              */
};

/* words [n_words][d] of points [n][d]; *objective (may be NULL): sum of |point - its word|^2.
 * Every word is the nearest of some point and no two are equal, unless there are fewer different
 * points than words: then words repeat. Source: Lloyd 1982; initial words are random points
 * (chosen: FAISS's own; A2ATS used k-means++).
 * QY_ERR_INVALID: no point, or one that is not finite. QY_ERR_UNSUPPORTED: built without FAISS.
 * [any] [alloc] */
QY_MUST enum qy_status qyi_kmeans(const struct qyi_kmeans_params *params, const float *points,
                                  size_t n, float *words, double *objective, struct qy_error *err);

/* Is k-means there? QY_ERR_UNSUPPORTED says how to get it. */
QY_MUST enum qy_status qyi_kmeans_present(struct qy_error *err);

#endif
