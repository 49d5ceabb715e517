/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the slabs of 4-bit codes, group by group and four heads at a time. */
#include "gpu/host/code.h"

enum { AHEAD = 2 /* slabs: one takes less time than memory needs to answer */ };

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
            scan(&group);
        }
    }
}

void qyi_code_sizes_add(struct qyi_code_sizes *sizes, uint32_t n, uint32_t m, uint32_t group)
{
    /* from the start of a group to the end of one, and what a kernel of short slabs writes past it */
    const size_t stride = qyi_round64((size_t)n + 3 * QYI_CODE_SPLIT);

    sizes->entries = qyi_larger(sizes->entries, qyi_code_entries_bytes(m, group));
    sizes->heads = qyi_larger(sizes->heads, qyi_code_heads_bytes(group));
    sizes->stride = qyi_larger(sizes->stride, stride);
    sizes->group = group > sizes->group ? group : sizes->group;
}
