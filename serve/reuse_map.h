/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layers may take what an earlier layer chose (retrieval.reuse_layers), learnt from choices that
 * were made: two layers that choose the same tokens need but one choice. After TidalDecode
 * (arXiv:2410.05076) and LycheeDecode; differs: these fix a few layers that choose for all behind them,
 * here each layer takes the earlier one that agrees with it most, if it agrees well enough.
 */
#ifndef QY_SERVE_REUSE_MAP_H
#define QY_SERVE_REUSE_MAP_H

#include "runtime/runtime.h"

#include <stddef.h>
#include <stdint.h>

#define QYI_OWN_CHOICE UINT32_MAX

/* Choices of one sequence, step by step, and what they had in common. */
struct qyi_agreement {
    uint32_t n_layers, n_heads, capacity;
    uint32_t *ids;      /* [n_layers][n_heads][capacity] of the running step           */
    uint32_t *n_ids;    /* [n_layers][n_heads]; 0: the layer chose nothing             */
    uint64_t *common;   /* [n_layers][n_layers]: of layer l's ids, those that layer m had */
    uint64_t *n_chosen; /* [n_layers]                                                  */
};
/* QY_ERR_NOMEM. Closing is right after a failure. [alloc] */
QY_MUST enum qy_status qyi_agreement_open(const struct qy_allocator *mem, uint32_t n_layers,
                                          uint32_t n_heads, uint32_t capacity,
                                          struct qyi_agreement *agreement);
void qyi_agreement_close(const struct qy_allocator *mem, struct qyi_agreement *agreement);
/* What (layer, head) chose: ids [n] ascend, and are copied. Layers come in order; layer 0, or the first
 * one that chooses, begins a step. */
void qyi_agreement_add(struct qyi_agreement *agreement, uint32_t layer, uint32_t head,
                       const uint32_t *ids, uint32_t n);
/* A new step: nothing is chosen yet. */
void qyi_agreement_step(struct qyi_agreement *agreement);
/* Share of layer's choices that `from` made, too; 0 when it made none. */
double qyi_agreement_share(const struct qyi_agreement *agreement, uint32_t layer, uint32_t from);

/* source [n_layers]: of each layer the earlier one, itself without a source, that has the greatest
 * share, where that is at least `least`; else QYI_OWN_CHOICE. Returns how many layers got one. Pure. */
uint32_t qyi_reuse_map(const struct qyi_agreement *agreement, double least, uint32_t *source);
/* "4:3,5:3", or "off". 0: it does not fit into bytes. Pure. */
int qyi_reuse_map_print(const uint32_t *source, uint32_t n_layers, char *text, size_t bytes);

#endif
