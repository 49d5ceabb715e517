/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the slabs of 4-bit codes, group by group and four heads at a time. */
#include <string.h>

#include "gpu/host/code.h"

enum { AHEAD = 2 /* slabs: one takes less time than memory needs to answer */ };

/* A slab that is shorter than a group: the kernel writes sums of a whole group, of which the slab's own
 * count. What is behind them belongs to the next slab, or to another thread. */
static void scan_short(qyi_code_scan_fn scan, struct qyi_code_group *group, uint32_t n_tokens)
{
    uint16_t whole[QYI_CODE_HEADS * 2 * QYI_CODE_MAX_LANE];
    uint16_t *to = group->sums;
    const size_t stride = group->stride;

    group->sums = whole;
    group->stride = (size_t)2 * group->lane;
    scan(group);
    for (uint32_t h = 0; h < group->n_heads; h++) {
        memcpy(to + h * stride, whole + h * group->stride, n_tokens * sizeof(*to));
    }
    group->stride = stride;
}

void qyi_code_sums(const struct qyi_code_sums *s, uint64_t begin, uint64_t end)
{
    const struct qy_slab *slab = s->codes;
    const uint32_t block = (uint32_t)1 << slab->shift;
    const uint32_t lane = qyi_code4_lane(block);
    const uint32_t step = qyi_code4_step(block);
    const qyi_code_scan_fn scan = s->kernels->scan[lane / 32];
    const uint64_t last = s->last >> slab->shift;
    struct qyi_code_group group = {.lane = lane, .m = s->m, .stride = s->stride};

    for (uint64_t at = begin; at < end; at += step) {
        const uint64_t b = at >> slab->shift;
        const size_t inside =
            slab->offset + (at & (block - 1)) / (2 * lane) * ((size_t)s->m * lane);
        group.codes = slab->blocks[b] + inside;
        group.next = b + AHEAD <= last ? slab->blocks[b + AHEAD] + inside : NULL;
        for (uint32_t h = 0; h < s->group; h += group.n_heads) {
            const uint32_t left = s->group - h;
            group.n_heads = left < QYI_CODE_HEADS ? left : QYI_CODE_HEADS;
            group.entries = s->entries + (size_t)h * s->m * 16;
            group.sums = s->sums + h * s->stride + (at - begin);
            if (step < 2 * lane) {
                scan_short(scan, &group, step);
            } else {
                scan(&group);
            }
        }
    }
}

void qyi_code_sizes_add(struct qyi_code_sizes *sizes, uint32_t n, uint32_t m, uint32_t group)
{
    /* from the start of a group to the end of one */
    const size_t stride = qyi_round64((size_t)n + 3 * QYI_CODE_SPLIT);

    sizes->entries = qyi_larger(sizes->entries, qyi_code_entries_bytes(m, group));
    sizes->heads = qyi_larger(sizes->heads, qyi_code_heads_bytes(group));
    sizes->stride = qyi_larger(sizes->stride, stride);
    sizes->group = group > sizes->group ? group : sizes->group;
}
