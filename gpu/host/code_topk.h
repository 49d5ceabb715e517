/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choice of the best tokens by 4-bit codes, one item at a time, in four steps. Private to
 * code_topk*.c: code_topk.c shares the steps out over the team, code_topk_steps.c is their work.
 *
 *   tables    of each head's query
 *   sums      of the scan, in 16 bits
 *   head      the largest score and the mass of the softmax; from them the factor of its shares
 *   choose    pools the heads' shares and takes the k largest
 */
#ifndef QY_GPU_HOST_CODE_TOPK_H
#define QY_GPU_HOST_CODE_TOPK_H

#include "gpu/host/code.h"
#include "gpu/host/topk.h"

enum { QYI_CODE_RANGE = 2048 /* tokens of a unit of sums, a multiple of every group */ };

/* What is made of one item. */
struct qyi_code_item_memory {
    uint8_t *entries;            /* [group][m][16]                            */
    struct qyi_code_head *heads; /* [group]: of scores, then of pooled shares */
    uint32_t *most;              /* [group]: largest sums                     */
    uint16_t *sums;              /* [group][stride]                           */
};

/* What choosing takes. */
struct qyi_code_thread_memory {
    float *pooled; /* [stride + QYI_TOPK_SPARE], as the other */
    uint32_t *keys;
};

struct qyi_code_topk {
    const struct qyi_code_kernels *codes;
    const struct qyi_topk_kernels *topk;
    size_t stride; /* of sums */
    float scale;
};

/* First token of the group that holds the item's first. */
static inline uint64_t qyi_code_topk_start(const struct qy_code_topk_item *item)
{
    const uint32_t step = qyi_code4_step((uint32_t)1 << item->codes.shift);
    return item->first / step * step;
}

void qyi_code_topk_tables(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                          const struct qyi_code_item_memory *memory, uint32_t head);
void qyi_code_topk_sums(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                        const struct qyi_code_item_memory *memory, uint32_t range);
void qyi_code_topk_head(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                        const struct qyi_code_item_memory *memory, uint32_t head);
/* k > 0 */
void qyi_code_topk_choose(const struct qyi_code_topk *c, const struct qy_code_topk_item *item,
                          const struct qyi_code_item_memory *memory,
                          const struct qyi_code_thread_memory *thread);

#endif
