/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was chosen last, per (sequence, layer, KV head): ids without sinks and window, and how many
 * tokens the sequence had. Rows are pulled ahead by it (step.prefetch = previous), and choices are used
 * again (reuse.h). Bookkeeping only; memory is taken at open.
 */
#ifndef QYI_OFFLOAD_LAST_LISTS_H
#define QYI_OFFLOAD_LAST_LISTS_H

#include "runtime/runtime.h"

struct qyi_last_list {
    uint32_t n;    /* tokens of the sequence in that step, the new one included; 0: nothing kept */
    uint32_t hi;   /* ids were chosen below                                          */
    uint32_t used; /* n of the last step that attended to it                         */
    uint32_t n_ids;
    uint32_t *ids; /* [capacity] ascending                                           */
};

/* [n_sequences][n_layers][n_heads] */
struct qyi_last_lists {
    uint32_t n_sequences, n_layers, n_heads, capacity;
    struct qyi_last_list *lists; /* NULL: none are kept */
    uint32_t *ids;
};

/* Bytes that open takes. Pure. */
uint64_t qyi_last_lists_bytes(const struct qyi_last_lists *sizes);
/* The sizes are set by the caller, capacity above 0. QY_ERR_NOMEM: closing is still right.
 * [setup] [alloc] */
QY_MUST enum qy_status qyi_last_lists_open(const struct qy_allocator *mem,
                                           struct qyi_last_lists *lists);
void qyi_last_lists_close(const struct qy_allocator *mem, struct qyi_last_lists *lists);

static inline struct qyi_last_list *qyi_last_list(const struct qyi_last_lists *lists,
                                                  uint32_t sequence, uint32_t layer, uint32_t head)
{
    return &lists->lists[((size_t)sequence * lists->n_layers + layer) * lists->n_heads + head];
}

/* ids [n_ids], at most capacity, are copied. [noalloc] */
void qyi_last_list_keep(struct qyi_last_list *list, uint32_t n, uint32_t hi, const uint32_t *ids,
                        uint32_t n_ids);
/* The sequence has only n_tokens: what was chosen with more is forgotten (0: everything). [noalloc] */
void qyi_last_lists_forget(struct qyi_last_lists *lists, uint32_t sequence, uint32_t n_tokens);
/* dst gets what src has. [noalloc] */
void qyi_last_lists_copy(struct qyi_last_lists *lists, uint32_t dst, uint32_t src);

#endif
