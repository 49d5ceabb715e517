/* SPDX-License-Identifier: Apache-2.0 */
/* The checksums of a block, wherever it lies: of each slab of rows, and of index bytes. */
#include "offload/block.h"

enum { MAX_THREADS = 256 };

struct sum_job {
    const struct qyi_layout *layout;
    uint8_t *block;
    size_t bad[MAX_THREADS]; /* first sum of a thread that differs */
};

uint64_t qyi_block_sum(const struct qyi_layout *l, const uint8_t *block, size_t i)
{
    if (i < l->n_slabs) {
        const uint32_t layer = (uint32_t)(i / l->n_kv_heads);
        const size_t at = qyi_layout_home_at(l, layer, (uint32_t)(i % l->n_kv_heads));

        return qy_checksum(block + at, qyi_layout_home_slab(l, layer), i);
    }
    return qy_checksum(block + l->index_at + (i - l->n_slabs) * l->index_slab_bytes,
                       l->index_slab_bytes, i);
}

static void check_sums(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct sum_job *job = arg;
    const uint64_t *sums = qyi_block_sums(job->layout, job->block);
    size_t begin;
    size_t end;

    qy_team_range(job->layout->n_sums, thread, n_threads, &begin, &end);
    job->bad[thread] = SIZE_MAX;
    for (size_t i = begin; i < end; i++) {
        if (sums[i] != qyi_block_sum(job->layout, job->block, i)) {
            job->bad[thread] = i;
            return;
        }
    }
}

size_t qyi_block_bad_sum(struct qy_team *team, const struct qyi_layout *layout, uint8_t *block)
{
    const uint32_t n_threads = qy_team_size(team);
    struct sum_job job = {.layout = layout, .block = block};
    size_t bad = SIZE_MAX;

    qy_team_run(team, check_sums, &job);
    for (uint32_t i = 0; i < n_threads; i++) {
        bad = job.bad[i] < bad ? job.bad[i] : bad;
    }
    return bad;
}
