/* SPDX-License-Identifier: Apache-2.0 */
/* FAISS's calls, for policy_faiss.c: one index, made, fed and asked. FAISS runs one thread in each
 * call, the caller's. Functions return FAISS's code, 0: done; all allocate. */
#ifndef QYI_RETRIEVAL_FAISS_INDEX_H
#define QYI_RETRIEVAL_FAISS_INDEX_H

#include "retrieval/faiss_string.h"

struct qyi_faiss_index; /* a FaissIndex */

/* Makes an index by inner product, trains it on keys [n][d] where it wants that, and adds them.
 * flat: a Flat one, whatever the string says. *index NULL on failure. */
int qyi_faiss_index_make(const struct qyi_faiss_string *string, int flat, uint32_t d, uint32_t n,
                         const float *keys, struct qyi_faiss_index **index);
void qyi_faiss_index_free(struct qyi_faiss_index *index); /* accepts NULL */
int qyi_faiss_index_add(struct qyi_faiss_index *index, uint32_t n, const float *keys);
/* scores, labels [n][k] of the k largest of each of q [n][d]; label -1: no more. */
int qyi_faiss_index_search(const struct qyi_faiss_index *index, uint32_t n, const float *q,
                           uint32_t k, float *scores, int64_t *labels);
/* Why the last call of this thread failed. */
const char *qyi_faiss_index_why(void);

#endif
