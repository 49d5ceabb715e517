/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: begin (step_begin.c) reserves, attend serves one layer, end advances. The step of one
 * layer is as follows; on a unified device rows are attended where they lie, without fetch and wait.
 *
 *   append   rotate q and k, write the rows of k and v      (every slice)
 *   encode   let the policy write index bytes               (every slice)
 *   select   ask the policy for token ids                   (slices of one token, QY_ATTEND_POLICY)
 *   fetch    find the rows on a discrete device, pull others (the same; tier_rows.c)
 *   push     attend at the home to rows that were not pulled (the same; tier_push.c)
 *   wait     until they have come                            (the same)
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

    if (cache->tier.present) {
        qyi_push_quiet(cache);
    }
    /* where guesses fail, all pulls were given up */
    const int waits = cache->tier.present && qyi_ahead_settle(cache) == QY_OK;

    for (step->now = 0; waits && step->now < step->n_micro; step->now++) {
        if (qyi_tier_wait(cache) != QY_OK) {
            break; /* all pulls were given up */
        }
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
        struct qy_sequence *seq = step->slices[i].seq;

        qyi_sequence_release(seq, seq->n_tokens, clean);
        if (step->appended) {
            qyi_policy_forget(cache, seq->slot, seq->n_tokens);
        }
        qyi_last_lists_forget(&cache->last, seq->slot, seq->n_tokens);
    }
    clear_step(cache);
}

static void count_layer(struct qy_cache *cache, uint32_t layer)
{
    const struct qyi_layout *l = &cache->layout;
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_step *step = &cache->step;
    struct qyi_counts *c = &step->counts;

    for (uint32_t i = now->begin; i < now->end; i++) {
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
        [QY_STAGE_SELECT] = qyi_layer_select, [QY_STAGE_FETCH] = qyi_layer_fetch,
        [QY_STAGE_PUSH] = qyi_layer_push,     [QY_STAGE_WAIT] = qyi_layer_wait,
        [QY_STAGE_ATTEND] = qyi_layer_attend, [QY_STAGE_AUDIT] = qyi_layer_audit,
    };
    const struct qy_policy_ops *ops = cache->params.policy;

    if ((stage == QY_STAGE_ENCODE && !ops->append) ||
        (stage == QY_STAGE_AUDIT && !(cache->audit.rate > 0.0)) ||
        ((stage == QY_STAGE_FETCH || stage == QY_STAGE_PUSH || stage == QY_STAGE_WAIT) &&
         !cache->tier.present)) {
        return QY_OK;
    }
    const size_t mark = qy_arena_mark(&cache->arena);
    const uint64_t begin = qy_clock_ns();
    const enum qy_status st = parts[stage](cache, layer, qkv);

    qy_arena_rewind(&cache->arena, mark);
    qyi_stage_end(cache, stage, begin, layer);
    return st;
}

/* Parts of a layer, in order, for one micro-batch. What failed is not counted. */
static enum qy_status run_parts(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer,
                                const struct qy_qkv *qkv, const enum qy_stage *order, int n)
{
    const struct qyi_counts before = cache->step.counts;
    enum qy_status st = QY_OK;

    cache->step.now = micro_batch;
    for (int i = 0; st == QY_OK && i < n; i++) {
        st = run_part(cache, order[i], layer, qkv);
    }
    if (st != QY_OK) {
        cache->step.counts = before;
        qyi_step_fail(cache, st, layer);
    }
    return st;
}

/* Bits of layer_done. */
static uint8_t started(uint32_t micro_batch)
{
    return (uint8_t)(1U << micro_batch);
}

static uint8_t finished(uint32_t micro_batch)
{
    return (uint8_t)(16U << micro_batch);
}

static int is_valid(const struct qy_cache *cache, uint32_t micro_batch, uint32_t layer,
                    const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;

    return cache->step.active && layer < shape->n_layers && micro_batch < cache->step.n_micro &&
           qkv->q && qkv->k && qkv->v && qkv->out &&
           qkv->stride >= (size_t)shape->n_heads * shape->head_dim;
}

enum qy_status qy_step_attend_start(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer,
                                    const struct qy_qkv *qkv)
{
    static const enum qy_stage orders[2][4] = {
        [QY_KEYS_AFTER_ROPE] = {QY_STAGE_APPEND, QY_STAGE_ENCODE, QY_STAGE_SELECT, QY_STAGE_FETCH},
        [QY_KEYS_BEFORE_ROPE] = {QY_STAGE_ENCODE, QY_STAGE_APPEND, QY_STAGE_SELECT, QY_STAGE_FETCH},
    };
    const int form = cache->params.policy->caps.append_form == QY_KEYS_BEFORE_ROPE;

    if (!is_valid(cache, micro_batch, layer, qkv) ||
        (cache->step.layer_done[layer] & started(micro_batch))) {
        return QY_ERR_INVALID;
    }
    enum qy_status st = run_parts(cache, micro_batch, layer, qkv, orders[form], 4);
    if (st == QY_OK && cache->tier.present) {
        st = qyi_ahead_previous(cache, layer + 1);
    }
    if (st == QY_OK) {
        cache->step.layer_done[layer] |= started(micro_batch);
    }
    return st;
}

enum qy_status qy_step_attend_finish(struct qy_cache *cache, uint32_t micro_batch, uint32_t layer,
                                     const struct qy_qkv *qkv)
{
    static const enum qy_stage order[4] = {QY_STAGE_PUSH, QY_STAGE_WAIT, QY_STAGE_ATTEND,
                                           QY_STAGE_AUDIT};
    struct qyi_step *step = &cache->step;

    if (!is_valid(cache, micro_batch, layer, qkv) ||
        (step->layer_done[layer] & (started(micro_batch) | finished(micro_batch))) !=
            started(micro_batch)) {
        return QY_ERR_INVALID;
    }
    const enum qy_status st = run_parts(cache, micro_batch, layer, qkv, order, 4);
    if (st != QY_OK) {
        step->layer_done[layer] &= (uint8_t)~started(micro_batch);
        return st;
    }
    count_layer(cache, layer);
    step->layer_done[layer] |= finished(micro_batch);
    step->n_layers_done++;
    return QY_OK;
}

enum qy_status qy_step_attend(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    enum qy_status st = cache->step.active ? QY_OK : QY_ERR_INVALID;

    for (uint32_t i = 0; st == QY_OK && i < cache->step.n_micro; i++) {
        st = qy_step_attend_start(cache, i, layer, qkv);
    }
    for (uint32_t i = 0; st == QY_OK && i < cache->step.n_micro; i++) {
        st = qy_step_attend_finish(cache, i, layer, qkv);
    }
    return st;
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

    if (!step->active || step->n_layers_done != cache->layout.n_layers * step->n_micro) {
        return QY_ERR_INVALID;
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
        struct qy_sequence *seq = step->slices[i].seq;

        seq->n_tokens += step->slices[i].n_tokens;
        if (!cache->tier.present) {
            qyi_sequence_seal(seq, seq->n_tokens >> cache->layout.shift);
        } else {
            qyi_tier_step_end(seq);
        }
    }
    (void)qyi_home_far_step_end(cache);
    add_counts(&cache->counts, &step->counts);
    cache->n_steps++;
    qyi_micro_batches_end(cache);
    qyi_trace_step(cache, qyi_stage_end(cache, QY_STAGE_SEAL, begin, 0));
    clear_step(cache);
    return QY_OK;
}

void qy_step_abort(struct qy_cache *cache)
{
    if (cache->step.active) {
        qyi_step_leave(cache, 0);
    }
}
