/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of selection on the host, private to gpu/host: one item each, on one thread. Each set is
 * one `static const` table made of topk_body.h and union_body.h with other compaction words.
 */
#ifndef QY_GPU_HOST_TOPK_H
#define QY_GPU_HOST_TOPK_H

#include "gpu/gpu.h"

enum {
    QYI_TOPK_SPARE = 16, /* words written past the end of a scratch array */
    QYI_UNION_LISTS = 64 /* lists of one union at most                    */
};

struct qyi_topk_kernels {
    /* scratch [item->n + QYI_TOPK_SPARE] */
    void (*topk)(const struct qy_topk_item *item, uint32_t *scratch);
    void (*unite)(const struct qy_union_item *item);
};

extern const struct qyi_topk_kernels qyi_topk_plain;
#if defined(__x86_64__)
extern const struct qyi_topk_kernels qyi_topk_avx2;
extern const struct qyi_topk_kernels qyi_topk_avx512;
#endif

const struct qyi_topk_kernels *qyi_topk_for(enum qy_cpu_level level);

#endif
