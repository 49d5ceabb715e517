/* SPDX-License-Identifier: Apache-2.0 */
/* The state behind struct qyi_residency, shared by residency.c (steps) and residency_open.c. Slots of
 * a set are counted from 1 here, because 0 in the map says "not resident". */
#ifndef QYI_OFFLOAD_RESIDENCY_STATE_H
#define QYI_OFFLOAD_RESIDENCY_STATE_H

#include "offload/tier/residency.h"

/* The byte of a slot that decides: see residency.c. */
enum { QYI_ORDER_PINNED = 0, QYI_ORDER_FREE = 255 };
enum { QYI_RESIDENCY_LINE = 64 };

/* Counters of a set, on a line of their own: other threads work on the neighbours. */
struct qyi_resident_set {
    _Alignas(QYI_RESIDENCY_LINE) uint32_t n_used;
    uint32_t n_pinned;
    uint32_t level, cursor; /* where the search for victims goes on */
    uint32_t hand;          /* of the clock: the slot it looks at next */
    uint32_t n_steps;
    uint32_t is_ahead; /* the step has begun, for a guess */
};

struct qyi_residency {
    struct qyi_residency_params params;
    struct qy_allocator mem;
    size_t bytes_stride,
        words_stride;              /* of a set: elements of order and score; of token and head */
    struct qyi_resident_set *sets; /* [n_sets]                                                 */
    uint32_t *map;                 /* [n_sets][n_heads][max_tokens]                            */
    uint8_t *order, *score;        /* [n_sets][bytes_stride], by slot from 1                   */
    uint32_t *token, *head;        /* [n_sets][words_stride], by slot from 1                   */
};

static inline uint32_t *qyi_residency_map(const struct qyi_residency *r, uint32_t set,
                                          uint32_t head)
{
    return r->map + ((size_t)set * r->params.n_heads + head) * r->params.max_tokens;
}

/* The search for victims begins with the free slots. */
static inline void qyi_residency_restart(struct qyi_resident_set *s)
{
    s->level = QYI_ORDER_FREE;
    s->cursor = 1;
}

#endif
