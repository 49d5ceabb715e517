/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: begin reserves, attend serves one layer, end advances. On a unified device rows are
 * attended where they lie, so the step of one layer is
 *
 *   append   rotate q and k, write the rows of k and v      (every slice)
 *   select   ask the policy for token ids                   (slices of one token, QY_ATTEND_POLICY)
 *   attend   over all rows, or over the ids                 (every slice)
 *
 * What a slice attends to is planned once, at begin: it is the same for all layers.
 */
#include "offload/cache.h"

#include <string.h>

static enum qy_status check_slice(const struct qy_cache *cache, const struct qy_step_slice *slice,
                                  struct qy_error *err)
{
    const struct qy_sequence *seq = slice->seq;

    if (!seq || seq->cache != cache || !seq->is_open) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "step: a slice names no open sequence of this cache");
    }
    if (seq->in_step) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "step: sequence %u appears twice; once in a step is accepted; join its "
                            "tokens into one slice",
                            seq->slot);
    }
    if (slice->n_tokens == 0 || !slice->ids) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "step: sequence %u adds no tokens, or no token ids are given; leave it "
                            "out of the step",
                            seq->slot);
    }
    if (slice->n_tokens > cache->params.max_tokens - seq->n_tokens) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "step: sequence %u has %u tokens and cannot take %u more; the cache "
                            "was opened for %u of one sequence; raise --ctx or truncate it",
                            seq->slot, seq->n_tokens, slice->n_tokens, cache->params.max_tokens);
    }
    return QY_OK;
}

/* Checks all slices; marks their sequences, so that a second mention is seen. */
static enum qy_status check_slices(const struct qy_cache *cache, const struct qy_step_slice *slices,
                                   uint32_t n_slices, struct qy_error *err)
{
    uint64_t n_rows = 0;

    for (uint32_t i = 0; i < n_slices; i++) {
        const enum qy_status st = check_slice(cache, &slices[i], err);

        if (st != QY_OK) {
            while (i > 0) {
                slices[--i].seq->in_step = 0;
            }
            return st;
        }
        slices[i].seq->in_step = 1;
        n_rows += slices[i].n_tokens;
    }
    if (n_rows > cache->params.max_step_tokens) {
        for (uint32_t i = 0; i < n_slices; i++) {
            slices[i].seq->in_step = 0;
        }
        return qy_error_set(err, QY_ERR_INVALID,
                            "step: %llu tokens; the cache was opened for steps of at most %u; "
                            "take fewer at a time",
                            (unsigned long long)n_rows, cache->params.max_step_tokens);
    }
    return QY_OK;
}

/* Blocks for every slice, or QY_AGAIN and nothing taken. */
static enum qy_status reserve_slices(struct qy_cache *cache, const struct qy_step_slice *slices,
                                     uint32_t n_slices, struct qy_error *err)
{
    uint64_t need = 0;

    for (uint32_t i = 0; i < n_slices; i++) {
        const struct qy_sequence *seq = slices[i].seq;

        need +=
            qyi_layout_blocks(&cache->layout, seq->n_tokens + slices[i].n_tokens) - seq->n_blocks;
    }
    enum qy_status st = need > qy_pool_free_count(cache->home.pool) ? QY_AGAIN : QY_OK;
    for (uint32_t i = 0; st == QY_OK && i < n_slices; i++) {
        st = qyi_sequence_reserve(slices[i].seq, slices[i].seq->n_tokens + slices[i].n_tokens);
    }
    if (st == QY_OK) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < n_slices; i++) {
        qyi_sequence_release(slices[i].seq, slices[i].seq->n_tokens, 1);
        slices[i].seq->in_step = 0;
    }
    if (st == QY_AGAIN) {
        return qy_error_set(err, QY_AGAIN,
                            "step: %llu more blocks are needed and %u of %u are free; close or "
                            "truncate a sequence, or raise cache.host_bytes",
                            (unsigned long long)need, qy_pool_free_count(cache->home.pool),
                            qy_pool_total(cache->home.pool));
    }
    return st;
}

static void plan_slices(struct qy_cache *cache, const struct qy_step_slice *slices,
                        uint32_t n_slices)
{
    struct qyi_step *step = &cache->step;

    step->n_rows = 0;
    for (uint32_t i = 0; i < n_slices; i++) {
        const struct qy_step_slice *in = &slices[i];
        struct qyi_slice *s = &step->slices[i];

        *s = (struct qyi_slice){.seq = in->seq,
                                .first = in->seq->n_tokens,
                                .n_tokens = in->n_tokens,
                                .row = step->n_rows,
                                .counted = in->n_tokens == 1 && in->mode == QY_ATTEND_POLICY};
        if (in->n_tokens == 1) {
            s->reach = qyi_selection_plan(&cache->rule, in->mode, s->first + 1);
        }
        for (uint32_t t = 0; t < in->n_tokens; t++) {
            step->positions[s->row + t] = (int32_t)(s->first + t);
        }
        memcpy(&in->seq->ids[s->first], in->ids, in->n_tokens * sizeof(*in->ids));
        step->n_rows += in->n_tokens;
    }
    step->n_slices = n_slices;
    step->n_layers_done = 0;
    step->counts = (struct qyi_counts){0};
    memset(step->layer_done, 0, cache->layout.n_layers);
}

static void clear_step(struct qy_cache *cache)
{
    for (uint32_t i = 0; i < cache->step.n_slices; i++) {
        cache->step.slices[i].seq->in_step = 0;
    }
    cache->step.n_slices = 0;
    cache->step.active = 0;
}

enum qy_status qy_step_begin(struct qy_cache *cache, const struct qy_step_slice *slices,
                             uint32_t n_slices, struct qy_error *err)
{
    struct qyi_step *step = &cache->step;

    if (step->active || n_slices == 0 || !slices) {
        return qy_error_set(err, QY_ERR_INVALID,
                            step->active ? "step: one is running; end or abort it first"
                                         : "step: no slices; at least one is accepted");
    }
    enum qy_status st = check_slices(cache, slices, n_slices, err);
    if (st != QY_OK) {
        return st;
    }
    st = reserve_slices(cache, slices, n_slices, err);
    if (st != QY_OK) {
        return st;
    }
    plan_slices(cache, slices, n_slices);
    step->active = 1;
    if (cache->params.rope.dim > 0) {
        st = qy_device_rope_table(cache->dev, &cache->params.rope, step->positions, step->n_rows,
                                  step->rope_table);
        if (st != QY_OK) {
            qy_step_abort(cache);
            return qy_error_set(err, st, "step: the device refused the table of rotations");
        }
    }
    return QY_OK;
}

static void count_layer(struct qy_cache *cache)
{
    const struct qyi_layout *l = &cache->layout;
    struct qyi_step *step = &cache->step;
    struct qyi_counts *c = &step->counts;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        const struct qyi_slice *s = &step->slices[i];

        if (!s->counted) {
            continue;
        }
        const uint64_t all = (uint64_t)s->reach.n * l->n_kv_heads;
        c->total_rows += all;
        c->dense_read_bytes += all * l->row_bytes;
        if (s->reach.reach == QYI_REACH_SELECT && cache->rule.caps.reads_all_keys) {
            c->read_bytes += all * l->row_bytes / 2; /* the key half of each row */
        }
    }
}

enum qy_status qy_step_attend(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;

    if (!step->active || layer >= shape->n_layers || step->layer_done[layer] || !qkv->q ||
        !qkv->k || !qkv->v || !qkv->out || qkv->stride < (size_t)shape->n_heads * shape->head_dim) {
        return QY_ERR_INVALID;
    }
    const struct qyi_counts before = step->counts;
    const size_t mark = qy_arena_mark(&cache->arena);
    uint64_t now = qy_clock_ns();

    enum qy_status st = qyi_layer_append(cache, layer, qkv);
    now = qyi_stage_end(cache, QY_STAGE_APPEND, now, layer, step->n_rows);
    if (st == QY_OK) {
        st = qyi_layer_select(cache, layer, qkv);
        now = qyi_stage_end(cache, QY_STAGE_SELECT, now, layer, step->n_slices);
    }
    if (st == QY_OK) {
        st = qyi_layer_attend(cache, layer, qkv);
        qyi_stage_end(cache, QY_STAGE_ATTEND, now, layer, step->n_slices);
    }
    qy_arena_rewind(&cache->arena, mark);
    if (st != QY_OK) {
        step->counts = before;
        return st;
    }
    count_layer(cache);
    step->layer_done[layer] = 1;
    step->n_layers_done++;
    return QY_OK;
}

enum qy_status qy_step_end(struct qy_cache *cache)
{
    struct qyi_step *step = &cache->step;
    const uint64_t begin = qy_clock_ns();

    if (!step->active || step->n_layers_done != cache->layout.n_layers) {
        return QY_ERR_INVALID;
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
        struct qy_sequence *seq = step->slices[i].seq;

        seq->n_tokens += step->slices[i].n_tokens;
        qyi_sequence_seal(seq);
    }
    cache->counts.attended_rows += step->counts.attended_rows;
    cache->counts.total_rows += step->counts.total_rows;
    cache->counts.read_bytes += step->counts.read_bytes;
    cache->counts.dense_read_bytes += step->counts.dense_read_bytes;
    qyi_stage_end(cache, QY_STAGE_SEAL, begin, 0, step->n_slices);
    clear_step(cache);
    return QY_OK;
}

void qy_step_abort(struct qy_cache *cache)
{
    struct qyi_step *step = &cache->step;

    if (!step->active) {
        return;
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
        struct qy_sequence *seq = step->slices[i].seq;

        qyi_sequence_release(seq, seq->n_tokens, 0);
    }
    clear_step(cache);
}
