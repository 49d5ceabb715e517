/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beginning a step: the checks, the blocks, the plan. What a slice attends to is planned once: it is
 * the same for all layers but the first ones that may attend to all.
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
    if (!qyi_home_far_is_whole(seq)) {
        return qy_error_set(err, QY_ERR_DEVICE,
                            "step: the last blocks of sequence %u could not be read (%s) when it "
                            "was cut; cut it again, or close it",
                            seq->slot, cache->far.store->word);
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
    enum qy_status st = qyi_home_far_room(cache, need);
    for (uint32_t i = 0; st == QY_OK && i < n_slices; i++) {
        struct qy_sequence *seq = slices[i].seq;

        st = qyi_sequence_reserve(seq, seq->n_tokens + slices[i].n_tokens);
        if (st == QY_OK && cache->tier.present) {
            st = qyi_tier_reserve(seq, seq->n_tokens >> cache->layout.shift,
                                  seq->n_tokens + slices[i].n_tokens);
        }
    }
    if (st == QY_OK) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < n_slices; i++) {
        qyi_sequence_release(slices[i].seq, slices[i].seq->n_tokens, 1);
        slices[i].seq->in_step = 0;
    }
    if (st == QY_AGAIN && cache->far.store) {
        return qyi_home_far_full(cache, need, err);
    }
    if (st == QY_AGAIN) {
        return qy_error_set(err, QY_AGAIN,
                            "step: %llu more blocks are needed and %u of %u are free; close or "
                            "truncate a sequence, or raise cache.host_bytes",
                            (unsigned long long)need, qy_pool_free_count(cache->home.pool),
                            qy_pool_total(cache->home.pool));
    }
    return qy_error_set(
        err, st,
        "step: full blocks on their way home from the device did not arrive%s; nothing "
        "is lost, they are sent again; try the step again",
        st == QY_ERR_TIMEOUT ? " within cache.copy_timeout_ms" : "");
}

static enum qy_token_origin origin_of(const struct qy_step_slice *slice)
{
    if (slice->n_tokens > 1) {
        return QY_TOKEN_CHUNK;
    }
    return slice->mode == QY_ATTEND_DENSE ? QY_TOKEN_DENSE : QY_TOKEN_POLICY;
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
        memset(&in->seq->origins[s->first], origin_of(in), in->n_tokens);
        step->n_rows += in->n_tokens;
    }
    step->n_slices = n_slices;
    qyi_micro_batches_cut(cache);
    step->n_layers_done = 0;
    step->failure = (struct qyi_failure){0};
    step->serial++;
    step->appended = 0;
    step->counts = (struct qyi_counts){0};
    memset(step->layer_done, 0, cache->layout.n_layers);
}

/* Lets the policy bring up to date what it keeps for the sequences that will select. */
static enum qy_status prepare_slices(struct qy_cache *cache, struct qy_error *err)
{
    const struct qy_policy_ops *ops = cache->params.policy;
    struct qyi_step *step = &cache->step;
    const uint64_t begin = qy_clock_ns();

    if (!ops->prepare || cache->dense_layers >= cache->layout.n_layers) {
        return QY_OK;
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
        const struct qyi_slice *s = &step->slices[i];

        if (s->reach.reach != QYI_REACH_SELECT) {
            continue;
        }
        const struct qy_sequence_view view = {.rows = qyi_sequence_rows(s->seq, 0, 0),
                                              .slab_bytes = cache->layout.slab_bytes,
                                              .sequence = s->seq->slot,
                                              .n_tokens = s->first,
                                              .lo = s->reach.lo,
                                              .hi = s->reach.hi};
        const enum qy_status st = ops->prepare(cache->policy, &view, err);
        if (st != QY_OK) {
            return qy_error_wrap(err, st, "policy '%.60s': sequence %u", ops->name, s->seq->slot);
        }
    }
    qyi_stage_end(cache, QY_STAGE_PREPARE, begin, 0);
    return QY_OK;
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
    cache->far.fault[0] = '\0';
    cache->far.nobody.seq = NULL;
    enum qy_status st = check_slices(cache, slices, n_slices, err);
    if (st != QY_OK) {
        return st;
    }
    st = reserve_slices(cache, slices, n_slices, err);
    if (st != QY_OK) {
        return st;
    }
    plan_slices(cache, slices, n_slices);
    st = prepare_slices(cache, err);
    if (st == QY_OK && cache->params.rope.dim > 0) {
        st = qy_device_rope_table(cache->dev, &cache->params.rope, step->positions, step->n_rows,
                                  step->rope_table);
        if (st != QY_OK) {
            st = qy_error_set(err, st, "step: the device refused the table of rotations");
        }
    }
    step->active = 1;
    if (st != QY_OK) {
        qyi_step_leave(cache, 1);
    }
    return st;
}
