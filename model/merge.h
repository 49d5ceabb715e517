/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging of neighbours by priority, which both tokenizers share: a linked list of symbols and a
 * heap of possible merges, so n symbols take O(n log n) whatever the text.
 *
 *   symbols   a - b - c - d        heap   (b c) first, then (a b), (c d)
 *             a - bc  -  d                entries about b or c alone are stale and dropped
 */
#ifndef QY_MODEL_MERGE_H
#define QY_MODEL_MERGE_H

#include "model/grow.h"

/* Ids of symbols that are no token. */
enum {
    QYI_SYMBOL_NONE = -1, /* may become part of one          */
    QYI_SYMBOL_LONE = -2  /* never merges with a neighbour  */
};

struct qyi_symbol {
    uint32_t begin,
        bytes; /* in the text being merged; bytes 0 = gone, merged into an earlier one */
    int32_t id;
    uint32_t prev, next; /* UINT32_MAX = none */
};

/* Whether two neighbours merge: 1, with the priority (lower is merged first) and the merged id. */
typedef int (*qyi_merge_fn)(const void *ctx, const struct qyi_symbol *left,
                            const struct qyi_symbol *right, uint32_t *priority, int32_t *id);

/* A possible merge, as the heap keeps it. */
struct qyi_merge {
    uint64_t order; /* priority, then the left symbol: the first of equals wins */
    uint32_t bytes; /* of both symbols then: another number now means stale      */
    int32_t id;
};

/* Scratch, kept between words. symbols holds struct qyi_symbol, heap struct qyi_merge. */
struct qyi_merger {
    struct qyi_array symbols, heap;
};

void qyi_merger_init(struct qyi_merger *merger, const struct qy_allocator *mem);
void qyi_merger_fini(struct qyi_merger *merger);

/* Room for n symbols: afterwards merging them needs no memory. Returns symbols [n] to fill in
 * (begin, bytes, id), or NULL when there is no memory. n is below UINT32_MAX / 2. */
struct qyi_symbol *qyi_merger_begin(struct qyi_merger *merger, size_t n);
/* Merges the n symbols; those left have bytes above 0 and keep their order. */
void qyi_merger_run(struct qyi_merger *merger, qyi_merge_fn find, const void *ctx);

#endif
