/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of prefill with earlier blocks on memory servers: pulled, so that these pass through the stages as
 * all others do (tier_pass.c), or pushed (plan_chunk.c decides, for each sequence and layer):
 *
 *   queries go home, and to the servers                       (stream to the host; far_chunk.c)
 *   the device attends to all rows but those of the servers   (tier_pass.c)
 *   the servers' partials, merged, come to the device         (stream to the device)
 *   both are merged: first the device's
 *
 * A push that comes to nothing is a pull.
 */
#include "offload/cache.h"

/* Two parts of a chunk's output, and its log-sum-exps. */
size_t qyi_tier_chunk_scratch(const struct qy_cache *cache)
{
    return qyi_far_chunk_wanted(cache)
               ? 2 * ((size_t)cache->params.max_step_tokens *
                          (qyi_token_floats(cache) + cache->params.shape.n_heads) * sizeof(float) +
                      64)
               : 0;
}

/* ---- decided, and counted --------------------------------------------------------------------- */

/* Bytes of a push: questions and answers. */
static uint64_t pushed_bytes(const struct qy_cache *cache, const struct qyi_chunk_work *w)
{
    const size_t token =
        (2 * qyi_token_floats(cache) + cache->params.shape.n_heads) * sizeof(float);
    const uint64_t blocks = w->far_rows >> cache->layout.shift;

    return (uint64_t)w->n_tokens * w->n_places * token + w->n_runs * blocks * sizeof(uint32_t);
}

static void count(struct qy_cache *cache, const struct qyi_chunk_work *w, int pushes, int done)
{
    struct qyi_far_chunk_counts *c = &cache->far.chunk.counts;
    const uint64_t rows = (uint64_t)w->far_rows * cache->layout.n_kv_heads;

    c->pushed += done != 0;
    c->pulled += !done;
    c->failed += pushes && !done;
    c->rows_pushed += done ? rows : 0;
    c->rows_pulled += done ? 0 : rows;
    c->pushed_bytes += done ? pushed_bytes(cache, w) : 0;
}

/* ---- pushed ----------------------------------------------------------------------------------- */

static enum qy_status send_queries(struct qy_cache *cache, const struct qy_qkv *qkv,
                                   const struct qyi_slice *s)
{
    const size_t floats = qyi_token_floats(cache);
    struct qyi_far_chunk *c = &cache->far.chunk;

    for (uint32_t i = 0; i < s->n_tokens; i++) {
        c->copies[i] = (struct qy_copy_item){.from = qkv->q + (s->row + i) * qkv->stride,
                                             .to = c->q + i * floats,
                                             .bytes = floats * sizeof(float)};
    }
    return qyi_tier_send_now(cache, c->copies, s->n_tokens);
}

/* The servers' part beside the device's, and the output made of both. */
static enum qy_status merge(struct qy_cache *cache, const struct qy_qkv *qkv,
                            const struct qyi_slice *s, float *out, float *lse)
{
    const uint32_t heads = s->n_tokens * cache->params.shape.n_heads;
    const size_t floats = (size_t)heads * cache->layout.head_dim;
    struct qyi_far_chunk *c = &cache->far.chunk;

    c->copies[0] =
        (struct qy_copy_item){.from = c->out, .to = out + floats, .bytes = floats * sizeof(float)};
    c->copies[1] =
        (struct qy_copy_item){.from = c->lse, .to = lse + heads, .bytes = heads * sizeof(float)};
    const enum qy_status st = qyi_tier_copy_now(cache, cache->tier.in, c->copies, 2);
    return st == QY_OK ? qy_device_merge(cache->dev, out, lse, 2, heads, cache->layout.head_dim,
                                         qyi_group_out(cache, qkv, s, 0), NULL)
                       : st;
}

static enum qy_status wait_for_answers(struct qy_cache *cache, uint32_t layer,
                                       const struct qyi_slice *s, int *good)
{
    const uint64_t begin = qy_clock_ns();
    const enum qy_status st = qyi_far_chunk_answer(cache, good);

    qyi_stage_end(cache, QY_STAGE_WAIT, begin, layer);
    return st == QY_OK ? QY_OK
                       : qyi_home_far_failed(cache, st, s->seq, 0,
                                             "a chunk was not attended to within "
                                             "cache.copy_timeout_ms; try again");
}

static enum qy_status push(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv,
                           uint32_t slice, int *done)
{
    const struct qyi_slice *s = &cache->step.slices[slice];
    const size_t heads = (size_t)s->n_tokens * cache->params.shape.n_heads;
    const size_t mark = qy_arena_mark(&cache->arena);
    float *out =
        qy_arena_take(&cache->arena, 2 * heads * cache->layout.head_dim * sizeof(float), 64);
    float *lse = qy_arena_take(&cache->arena, 2 * heads * sizeof(float), 64);
    const struct qyi_pass_part part = {.left_out = cache->far.chunk.place, .out = out, .lse = lse};
    enum qy_status st = out && lse ? send_queries(cache, qkv, s) : QY_ERR_NOMEM;

    if (st == QY_OK) {
        qyi_far_chunk_ask(cache, layer, s->n_tokens);
        st = qyi_tier_pass_part(cache, layer, qkv, slice, &part);
    }
    if (st == QY_OK) {
        st = wait_for_answers(cache, layer, s, done);
    }
    if (st == QY_OK && *done) {
        st = merge(cache, qkv, s, out, lse);
    }
    for (uint32_t b = 0; st == QY_OK && *done && b < s->seq->device_from; b++) {
        if (cache->far.chunk.place[b] > 0) {
            qyi_home_far_touch(s->seq, b);
        }
    }
    qy_arena_rewind(&cache->arena, mark);
    return st;
}

enum qy_status qyi_tier_push_chunks(struct qy_cache *cache, uint32_t layer,
                                    const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_far_chunk *c = &cache->far.chunk;
    enum qy_status st = QY_OK;

    for (uint32_t i = now->begin; c->n_places > 0 && st == QY_OK && i < now->end; i++) {
        int done = 0;

        c->done[i] = 0;
        if (cache->step.slices[i].n_tokens == 1 || !qyi_tier_passes(cache, i, layer)) {
            continue;
        }
        const uint64_t begin = qy_clock_ns();
        const struct qyi_chunk_work work = qyi_far_chunk_look(cache, layer, i);
        const struct qyi_chunk_choice choice = qyi_plan_chunk(c->mode, &c->costs, &work);

        if (work.far_rows == 0) {
            continue;
        }
        qyi_trace_chunk(cache, &work, &choice, begin, layer);
        if (choice.push) {
            st = push(cache, layer, qkv, i, &done);
        }
        if (st == QY_OK) {
            count(cache, &work, choice.push, done);
        }
        c->done[i] = (uint8_t)(done != 0);
    }
    return st;
}
