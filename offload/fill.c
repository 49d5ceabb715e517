/* SPDX-License-Identifier: Apache-2.0 */
/* Random rows, for measurements of speed: a context of any length without a prefill. The values
 * have the scale of real ones (about normal, variance 1), nothing else. The policy is given the
 * stored keys, whatever form it asks for, so that its index bytes are there too. */
#include "offload/cache.h"

#include <string.h>

enum { TABLE_BITS = 12, TABLE = 1 << TABLE_BITS, PIECE = 256, ALIGN = 64 };

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

/* Elements of one token's q and k in a piece. */
static size_t piece_stride(const struct qy_cache *cache)
{
    const struct qy_kv_shape *shape = &cache->params.shape;

    return (size_t)(shape->n_heads + shape->n_kv_heads) * shape->head_dim;
}

size_t qyi_fill_scratch(const struct qy_cache *cache)
{
    if (!cache->params.policy->append) {
        return 0;
    }
    return PIECE * piece_stride(cache) * sizeof(float) + ALIGN;
}

/* Tokens first .. first + n - 1 of one layer: q, then the keys of all KV heads, per token. */
struct piece_job {
    const struct fill_job *fill;
    uint32_t layer, first, n;
    float *rows; /* [n][piece_stride] */
};

static void read_piece(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct piece_job *job = arg;
    const struct qy_cache *cache = job->fill->seq->cache;
    const struct qyi_layout *l = &cache->layout;
    const size_t n_q = (size_t)cache->params.shape.n_heads * l->head_dim;
    size_t begin;
    size_t end;

    qy_team_range(job->n, thread, n_threads, &begin, &end);
    for (size_t t = begin; t < end; t++) {
        float *out = job->rows + t * piece_stride(cache);

        for (size_t i = 0; i < n_q; i++) {
            out[i] = job->fill->f32[(t * n_q + i) & (TABLE - 1)];
        }
        for (uint32_t h = 0; h < l->n_kv_heads; h++) {
            const struct qy_rows rows = qyi_sequence_rows(job->fill->seq, job->layer, h);
            const uint8_t *key = qy_row_at(&rows, job->first + (uint32_t)t);
            float *k = out + n_q + (size_t)h * l->head_dim;

            for (uint32_t i = 0; l->row_type == QY_ROW_F16 && i < l->head_dim; i++) {
                uint16_t half;

                memcpy(&half, key + i * sizeof(half), sizeof(half));
                k[i] = qy_f32_from_f16(half);
            }
            if (l->row_type == QY_ROW_F32) {
                memcpy(k, key, l->head_dim * sizeof(float));
            }
        }
    }
}

static enum qy_status append_piece(struct qy_cache *cache, const struct piece_job *job)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qy_sequence *seq = job->fill->seq;
    const float *keys = job->rows + (size_t)cache->params.shape.n_heads * l->head_dim;
    const size_t mark = qy_arena_mark(&cache->arena);

    for (uint32_t h = 0; h < l->n_kv_heads; h++) {
        cache->step.views[h] =
            (struct qy_append_view){.k = keys + (size_t)h * l->head_dim,
                                    .q = job->rows + (size_t)h * cache->group * l->head_dim,
                                    .stride = piece_stride(cache),
                                    .group = cache->group,
                                    .first = job->first,
                                    .n = job->n,
                                    .layer = job->layer,
                                    .kv_head = h,
                                    .sequence = seq->slot,
                                    .rows = qyi_sequence_rows(seq, job->layer, h),
                                    .index = qyi_sequence_index(seq, job->layer, h)};
    }
    const enum qy_status st = cache->params.policy->append(cache->policy, cache->step.views,
                                                           l->n_kv_heads, &cache->arena);
    qy_arena_rewind(&cache->arena, mark);
    return st;
}

/* Index bytes of the new rows, layer by layer. */
static enum qy_status fill_index(struct qy_cache *cache, const struct fill_job *fill)
{
    const size_t mark = qy_arena_mark(&cache->arena);
    enum qy_status st = QY_OK;

    if (!cache->params.policy->append) {
        return QY_OK;
    }
    struct piece_job job = {.fill = fill,
                            .rows = qy_arena_take(&cache->arena, qyi_fill_scratch(cache), ALIGN)};
    if (!job.rows) {
        return QY_ERR_NOMEM;
    }
    for (; st == QY_OK && job.layer < cache->layout.n_layers; job.layer++) {
        for (uint32_t done = 0; st == QY_OK && done < fill->n; done += job.n) {
            job.first = fill->first + done;
            job.n = fill->n - done < PIECE ? fill->n - done : PIECE;
            qy_team_run(cache->rt->team, read_piece, &job);
            st = append_piece(cache, &job);
        }
    }
    qy_arena_rewind(&cache->arena, mark);
    return st;
}

/* Rows went straight to the homes, index bytes to the device: each gets what the other has. */
static enum qy_status fill_device(struct qy_sequence *seq)
{
    qyi_tier_release(seq, 0);
    seq->device_from = seq->n_blocks; /* what was there is brought again, with what is new */
    const enum qy_status st = qyi_tier_bring(seq);

    return st == QY_OK ? qyi_tier_send_index(seq, seq->n_tokens >> seq->cache->layout.shift) : st;
}

/* Coded homes: block by block, as steps would, through a device block that goes home when it is full;
 * so the index is that of rows as they were before they were coded. */
static enum qy_status fill_coded(struct qy_sequence *seq, struct fill_job *job, uint32_t n)
{
    struct qy_cache *cache = seq->cache;
    const uint32_t before = seq->n_tokens;
    enum qy_status st = QY_OK;

    for (uint32_t done = 0; st == QY_OK && done < n; done += job->n) {
        job->first = before + done;
        job->n = n - done < cache->layout.block_tokens ? n - done : cache->layout.block_tokens;
        st = qyi_tier_reserve(seq, job->first >> cache->layout.shift, job->first + job->n);
        if (st != QY_OK) {
            break;
        }
        qy_team_run(cache->rt->team, fill_slabs, job);
        st = fill_index(cache, job);
        seq->n_tokens += job->n;
        qyi_tier_step_end(seq);
        if (st == QY_OK) {
            st = qyi_tier_settle(seq, 1);
        }
    }
    if (st != QY_OK) {
        (void)!qy_sequence_truncate(seq, before); /* on a dead link nothing helps */
    }
    return st;
}

static void draw_ids(struct qy_sequence *seq, uint32_t n, uint64_t *state)
{
    for (uint32_t i = 0; i < n; i++) {
        seq->ids[seq->n_tokens + i] = (int32_t)(next_random(state) & 0xffff);
        seq->origins[seq->n_tokens + i] = QY_TOKEN_RANDOM;
    }
}

/* The next job->n tokens; state: of the ids. */
static enum qy_status fill_some(struct qy_sequence *seq, struct fill_job *job, uint64_t *state)
{
    struct qy_cache *cache = seq->cache;
    const uint32_t n = job->n;
    const uint64_t blocks = qyi_layout_blocks(&cache->layout, (uint64_t)seq->n_tokens + n);
    enum qy_status st = cache->tier.present ? qyi_tier_settle(seq, 1) : QY_OK;

    if (st == QY_OK) {
        st = qyi_home_far_room(cache, blocks - seq->n_blocks);
    }
    if (st == QY_OK) {
        st = qyi_sequence_reserve(seq, seq->n_tokens + n);
    }
    if (st != QY_OK) {
        return st;
    }
    draw_ids(seq, n, state); /* blocks that are sealed as they fill need them before */
    if (cache->home_layers) {
        return fill_coded(seq, job, n);
    }
    job->first = seq->n_tokens;
    qy_team_run(cache->rt->team, fill_slabs, job);
    st = fill_index(cache, job);
    seq->n_tokens += n;
    if (st == QY_OK && cache->tier.present) {
        st = fill_device(seq);
    }
    if (st != QY_OK) {
        seq->n_tokens -= n;
        qyi_policy_forget(cache, seq->slot, seq->n_tokens);
        qyi_sequence_release(seq, seq->n_tokens, 0);
        return st;
    }
    qyi_sequence_seal(seq, seq->n_tokens >> cache->layout.shift);
    return QY_OK;
}

/* Tokens that are filled at once: with a disk tier blocks go down between. */
static uint32_t fill_tokens(const struct qy_cache *cache, uint32_t n)
{
    const uint32_t blocks = qy_pool_total(cache->home.pool) / 4;
    const uint64_t most = (uint64_t)(blocks > 0 ? blocks : 1) << cache->layout.shift;

    return cache->far.store && n > most ? (uint32_t)most : n;
}

enum qy_status qy_sequence_fill_random(struct qy_sequence *seq, uint32_t n, uint64_t seed)
{
    const struct qy_cache *cache = seq->cache;
    const uint32_t before = seq->n_tokens;
    struct fill_job job = {.seq = seq, .seed = seed};
    uint64_t state = seed;
    enum qy_status st = QY_OK;

    if (seq->in_step || n > cache->params.max_tokens - seq->n_tokens ||
        (cache->tier.present && seq->n_tokens % cache->layout.block_tokens != 0)) {
        return QY_ERR_INVALID;
    }
    for (int i = 0; i < TABLE; i++) {
        job.f32[i] = near_normal(&state);
        job.f16[i] = qy_f16_from_f32(job.f32[i]);
    }
    for (uint32_t done = 0; st == QY_OK && done < n; done = seq->n_tokens - before) {
        job.n = fill_tokens(cache, n - done);
        st = fill_some(seq, &job, &state);
    }
    if (st != QY_OK && seq->n_tokens > before && qy_sequence_truncate(seq, before) != QY_OK) {
        return QY_ERR_DEVICE;
    }
    return st;
}
