/* SPDX-License-Identifier: Apache-2.0 */
/*
 * k-means of keys of a running sequence, for indexes learnt per request (pq, clusters).
 *
 * Points are assigned by the device's encode kernel, so this runs on the cache's own team and in
 * builds without FAISS. Codebooks learnt beforehand, from much text, are trained elsewhere.
 * Source: Lloyd 1982; an empty cell takes half of the largest one, as in FAISS (Clustering.cpp).
 */
#ifndef QYI_RETRIEVAL_LLOYD_H
#define QYI_RETRIEVAL_LLOYD_H

#include "retrieval/retrieval.h"

/* One set of points, cut into m sub-vectors that are clustered each on its own. */
struct qyi_lloyd {
    const float *x; /* [n][d]                                                             */
    uint32_t n;     /* 0: nothing is done                                                 */
    /* Where its encode and bias point is written. spherical: words begin at evenly spaced points,
     * have length 1 and bias 0, and points go to the largest inner product (Dhillon and Modha 2001).
     * Else words begin at points drawn by k-means++ (Arthur and Vassilvitskii 2007), points go to
     * the nearest word, and decode may be the same table. */
    const struct qy_quantizer *quantizer;
    float *words;         /* [m][d / m][n_words], the table behind quantizer->encode            */
    float *bias;          /* [m][n_words], the table behind quantizer->bias                     */
    struct qy_slab codes; /* room for n tokens: receives the last assignment                    */
    int spherical;
};

/* Runs all of them, iterations updates each, over the team. The result
 * depends on the points alone: what is drawn has a fixed seed. QY_ERR_NOMEM. [owner] [alloc] */
QY_MUST enum qy_status qyi_lloyd_run(const struct qy_runtime *rt, struct qy_device *dev,
                                     const struct qyi_lloyd *sets, uint32_t n_sets,
                                     uint32_t iterations);

#endif
