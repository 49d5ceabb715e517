/* SPDX-License-Identifier: Apache-2.0 */
/* Random rows, for measurements of speed: a context of any length without a prefill. The values
 * have the scale of real ones (about normal, variance 1), nothing else. */
#include "offload/cache.h"

#include <string.h>

enum { TABLE_BITS = 12, TABLE = 1 << TABLE_BITS };

struct fill_job {
    const struct qy_sequence *seq;
    uint32_t first, n; /* tokens */
    uint64_t seed;
    uint16_t f16[TABLE]; /* a sample of the distribution, drawn from with equal chances */
    float f32[TABLE];
};

/* splitmix64 (Steele et al. 2014): any state gives a usable stream. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The sum of 12 uniform numbers less 6: mean 0, variance 1. */
static float near_normal(uint64_t *state)
{
    float sum = -6.0F;

    for (int i = 0; i < 6; i++) {
        const uint64_t r = next_random(state);

        sum += (float)(r & 0xffffff) * 0x1p-24F + (float)(r >> 40) * 0x1p-24F;
    }
    return sum;
}

static void fill_row(const struct fill_job *job, uint8_t *row, size_t n_values, uint64_t state)
{
    const int half = job->seq->cache->layout.row_type == QY_ROW_F16;

    for (size_t i = 0; i < n_values;) {
        uint64_t r = next_random(&state);

        for (int j = 0; j < 5 && i < n_values; j++, i++, r >>= TABLE_BITS) {
            const size_t pick = r & (TABLE - 1);

            if (half) {
                memcpy(row + i * sizeof(uint16_t), &job->f16[pick], sizeof(uint16_t));
            } else {
                memcpy(row + i * sizeof(float), &job->f32[pick], sizeof(float));
            }
        }
    }
}

/* Threads share the slabs; the bits depend on seed, layer, head and token alone. */
static void fill_slabs(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct fill_job *job = arg;
    const struct qyi_layout *l = &job->seq->cache->layout;
    size_t begin;
    size_t end;

    qy_team_range(l->n_slabs, thread, n_threads, &begin, &end);
    for (size_t slab = begin; slab < end; slab++) {
        const struct qy_rows rows = qyi_sequence_rows(job->seq, (uint32_t)(slab / l->n_kv_heads),
                                                      (uint32_t)(slab % l->n_kv_heads));

        for (uint32_t t = job->first; t < job->first + job->n; t++) {
            uint64_t state = job->seed ^ ((uint64_t)slab << 40) ^ t;

            fill_row(job, qy_row_at(&rows, t), (size_t)2 * l->head_dim, next_random(&state));
        }
    }
}

enum qy_status qy_sequence_fill_random(struct qy_sequence *seq, uint32_t n, uint64_t seed)
{
    struct qy_cache *cache = seq->cache;

    if (seq->in_step || n > cache->params.max_tokens - seq->n_tokens) {
        return QY_ERR_INVALID;
    }
    const enum qy_status st = qyi_sequence_reserve(seq, seq->n_tokens + n);
    if (st != QY_OK) {
        return st;
    }
    struct fill_job job = {.seq = seq, .first = seq->n_tokens, .n = n, .seed = seed};
    uint64_t state = seed;
    for (int i = 0; i < TABLE; i++) {
        job.f32[i] = near_normal(&state);
        job.f16[i] = qy_f16_from_f32(job.f32[i]);
    }
    qy_team_run(cache->rt->team, fill_slabs, &job);
    for (uint32_t i = 0; i < n; i++) {
        seq->ids[seq->n_tokens + i] = (int32_t)(next_random(&state) & 0xffff);
    }
    seq->n_tokens += n;
    qyi_sequence_seal(seq);
    return QY_OK;
}
