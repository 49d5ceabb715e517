/* SPDX-License-Identifier: Apache-2.0 */
/* The argument of policy faiss: a factory string, and what to set on the index made of it. */
#ifndef QYI_RETRIEVAL_FAISS_STRING_H
#define QYI_RETRIEVAL_FAISS_STRING_H

#include "retrieval/retrieval.h"

enum { QYI_FAISS_TEXT = 200 };

/* chosen: a PQ without a suffix gets FAISS's "np": the order of its codes, which takes seconds per
 * index to find, serves a filter that is not used. */
struct qyi_faiss_string {
    char factory[QYI_FAISS_TEXT];    /* "IVF64,PQ8"                                          */
    char parameters[QYI_FAISS_TEXT]; /* what follows the '@': "nprobe=8"; ""                 */
    uint32_t least_points;           /* that training wants: lists, words of a sub-quantizer */
};

/* Reads "factory" or "factory@name=value,..." for vectors of d elements. FAISS prints what it
 * refuses and often says no more than "std::exception", so what is commonly wrong is found here:
 * QY_ERR_CONFIG. What is unknown here but looks like a component is left to FAISS. [any] */
QY_MUST enum qy_status qyi_faiss_string_read(const char *argument, uint32_t d,
                                             struct qyi_faiss_string *string, struct qy_error *err);

#endif
