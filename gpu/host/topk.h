/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels of selection on the host, private to gpu/host: one item each, on one thread. Each set is
 * one `static const` table made of topk_body.h and union_body.h with other compaction words.
 */
#ifndef QY_GPU_HOST_TOPK_H
#define QY_GPU_HOST_TOPK_H

#include "gpu/gpu.h"

enum {
    QYI_TOPK_SPARE = 16,  /* words written past the end of a scratch array */
    QYI_UNION_LISTS = 64, /* lists of one union at most                    */
    QYI_TOPK_SAMPLE = 512 /* scores looked at to guess a bound             */
};

struct qyi_topk_kernels {
    /* scratch [item->n + QYI_TOPK_SPARE] */
    void (*topk)(const struct qy_topk_item *item, uint32_t *scratch);
    void (*unite)(const struct qy_union_item *item);
    /* The k-th largest of n <= QYI_TOPK_SAMPLE scores, 1 <= k <= n; NaN is the least and gives -inf. */
    float (*nth)(const float *scores, uint32_t n, uint32_t k);
    /* Places, ascending, where any of the lists has an element not below its list's least: lists
     * [n_lists][stride] of n elements, n_lists <= QYI_UNION_LISTS. places [n + QYI_TOPK_SPARE]; returns
     * how many. */
    uint32_t (*any_not_below)(const uint16_t *lists, size_t stride, uint32_t n_lists, uint32_t n,
                              const uint16_t *least, uint32_t *places);
};

extern const struct qyi_topk_kernels qyi_topk_plain;
#if defined(__x86_64__)
extern const struct qyi_topk_kernels qyi_topk_avx2;
extern const struct qyi_topk_kernels qyi_topk_avx512;
#endif

const struct qyi_topk_kernels *qyi_topk_for(enum qy_cpu_level level);

/* How many of a sample of QYI_TOPK_SAMPLE of n scores lie, for all but surely, at or above the k-th
 * largest of all n: three deviations of how many of the k best the sample holds, and a little for
 * small k. QYI_TOPK_SAMPLE and more: the sample says nothing. */
double qyi_topk_sample_rank(uint32_t n, uint32_t k);

#endif
