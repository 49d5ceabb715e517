/* SPDX-License-Identifier: Apache-2.0 */
/* What the query heads of a group found, as one list. Private to policy_faiss.c. */
#ifndef QYI_RETRIEVAL_FAISS_MERGE_H
#define QYI_RETRIEVAL_FAISS_MERGE_H

#include "retrieval/policies.h"

struct qyi_faiss_found {
    const float *scores;   /* [group][stride] inner products     */
    const int64_t *labels; /* [group][stride] token - base; -1: none */
    uint32_t group, stride;
    uint32_t base, lo, hi;
    float scale;
    enum qy_pooling pooling;
    float *pooled; /* [hi - lo] written: the group's share of each token; -inf: nobody found it */
};

/* Softmax of each head over what it found, summed over the group or the largest. [any] [noalloc] */
void qyi_faiss_pool(const struct qyi_faiss_found *found);
/* Drops ids [n], ascending, that nobody found; returns how many stay. [any] [noalloc] */
uint32_t qyi_faiss_keep(const struct qyi_faiss_found *found, uint32_t *ids, uint32_t n);

#endif
