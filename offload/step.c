/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: begin (step_begin.c) reserves, attend serves one layer, end advances. On a unified
 * device rows are attended where they lie, so the step of one layer is
 *
 *   append   rotate q and k, write the rows of k and v      (every slice)
 *   encode   let the policy write index bytes               (every slice)
 *   select   ask the policy for token ids                   (slices of one token, QY_ATTEND_POLICY)
 *   attend   over all rows, or over the ids                 (every slice)
 *   audit    measure a share of the choices                 (retrieval.audit_rate)
 *
 * A policy that wants keys before RoPE encodes before the rotation, so first of all.
 */
#include "offload/cache.h"

static void clear_step(struct qy_cache *cache)
{
    for (uint32_t i = 0; i < cache->step.n_slices; i++) {
        cache->step.slices[i].seq->in_step = 0;
    }
    cache->step.n_slices = 0;
    cache->step.active = 0;
}

void qyi_step_leave(struct qy_cache *cache, int clean)
{
    struct qyi_step *step = &cache->step;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        struct qy_sequence *seq = step->slices[i].seq;

        qyi_sequence_release(seq, seq->n_tokens, clean);
        if (step->appended) {
            qyi_policy_forget(cache, seq->slot, seq->n_tokens);
        }
    }
    clear_step(cache);
}

static void count_layer(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_layout *l = &cache->layout;
    struct qyi_step *step = &cache->step;
    struct qyi_counts *c = &step->counts;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        const struct qyi_slice *s = &step->slices[i];
        const uint64_t all = (uint64_t)s->reach.n * l->n_kv_heads;

        if (!s->counted) {
            continue;
        }
        c->total_rows += all;
        c->sparse_total_rows += layer < cache->dense_layers ? 0 : all;
        c->dense_read_bytes += all * l->row_bytes;
        if (qyi_slice_reach(cache, s, layer).reach == QYI_REACH_SELECT) {
            const uint64_t range = (uint64_t)(s->reach.hi - s->reach.lo) * l->n_kv_heads;

            c->index_read_bytes += range * l->index_slab_bytes / l->block_tokens;
            if (cache->rule.caps.reads_all_keys) {
                c->read_bytes += all * l->row_bytes / 2; /* the key half of each row */
            }
        }
    }
}

/* One part of a layer: its time, and the arena as it was. */
static enum qy_status run_part(struct qy_cache *cache, enum qy_stage stage, uint32_t layer,
                               const struct qy_qkv *qkv)
{
    static enum qy_status (*const parts[QY_STAGE_COUNT])(struct qy_cache *, uint32_t,
                                                         const struct qy_qkv *) = {
        [QY_STAGE_APPEND] = qyi_layer_append, [QY_STAGE_ENCODE] = qyi_layer_encode,
        [QY_STAGE_SELECT] = qyi_layer_select, [QY_STAGE_ATTEND] = qyi_layer_attend,
        [QY_STAGE_AUDIT] = qyi_layer_audit,
    };
    const size_t mark = qy_arena_mark(&cache->arena);
    const uint64_t begin = qy_clock_ns();
    const enum qy_status st = parts[stage](cache, layer, qkv);

    qy_arena_rewind(&cache->arena, mark);
    qyi_stage_end(cache, stage, begin, layer, cache->step.n_rows);
    return st;
}

static enum qy_status run_layer(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    static const enum qy_stage orders[2][5] = {
        [QY_KEYS_AFTER_ROPE] = {QY_STAGE_APPEND, QY_STAGE_ENCODE, QY_STAGE_SELECT, QY_STAGE_ATTEND,
                                QY_STAGE_AUDIT},
        [QY_KEYS_BEFORE_ROPE] = {QY_STAGE_ENCODE, QY_STAGE_APPEND, QY_STAGE_SELECT, QY_STAGE_ATTEND,
                                 QY_STAGE_AUDIT},
    };
    const struct qy_policy_ops *ops = cache->params.policy;
    const enum qy_stage *order = orders[ops->caps.append_form == QY_KEYS_BEFORE_ROPE];

    for (int i = 0; i < 5; i++) {
        if ((order[i] == QY_STAGE_ENCODE && !ops->append) ||
            (order[i] == QY_STAGE_AUDIT && !(cache->audit.rate > 0.0))) {
            continue;
        }
        const enum qy_status st = run_part(cache, order[i], layer, qkv);
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
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
    const enum qy_status st = run_layer(cache, layer, qkv);

    if (st != QY_OK) {
        step->counts = before;
        return st;
    }
    count_layer(cache, layer);
    step->layer_done[layer] = 1;
    step->n_layers_done++;
    return QY_OK;
}

/* Adds the counts of a finished step. */
static void add_counts(struct qyi_counts *sum, const struct qyi_counts *step)
{
    sum->attended_rows += step->attended_rows;
    sum->total_rows += step->total_rows;
    sum->sparse_attended_rows += step->sparse_attended_rows;
    sum->sparse_total_rows += step->sparse_total_rows;
    sum->index_read_bytes += step->index_read_bytes;
    sum->read_bytes += step->read_bytes;
    sum->dense_read_bytes += step->dense_read_bytes;
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
    add_counts(&cache->counts, &step->counts);
    cache->n_steps++;
    qyi_stage_end(cache, QY_STAGE_SEAL, begin, 0, step->n_slices);
    clear_step(cache);
    return QY_OK;
}

void qy_step_abort(struct qy_cache *cache)
{
    if (cache->step.active) {
        qyi_step_leave(cache, 0);
    }
}
