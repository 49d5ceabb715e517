/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of one layer of a step, less the choice (step_select.c): each gathers its items over all slices and KV heads and calls
 * the device once. Items of a slice are [kv_head]; the items of slices follow each other.
 */
#include "offload/cache.h"

#include <math.h>

static enum qy_status rotate(struct qy_cache *cache, const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const struct qy_rope *rope = &cache->params.rope;
    const struct qy_row_range rows = qyi_step_now(cache)->rows;
    const float *table = cache->step.rope_table + (size_t)rows.first * rope->dim;
    const size_t at = rows.first * qkv->stride;

    if (rope->dim == 0) {
        return QY_OK;
    }
    const enum qy_status st = qy_device_rope(cache->dev, rope, table, qkv->q + at, rows.n,
                                             qkv->stride, shape->n_heads, shape->head_dim);
    if (st != QY_OK) {
        return st;
    }
    return qy_device_rope(cache->dev, rope, table, qkv->k + at, rows.n, qkv->stride,
                          shape->n_kv_heads, shape->head_dim);
}

enum qy_status qyi_layer_append(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;
    uint32_t n = 0;

    qyi_reuse_note(cache, qkv);
    const enum qy_status st = rotate(cache, qkv);

    if (st != QY_OK) {
        return st;
    }
    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &step->slices[i];

        for (uint32_t h = 0; h < shape->n_kv_heads; h++) {
            const size_t at = s->row * qkv->stride + (size_t)h * shape->head_dim;

            step->appends[n++] =
                (struct qy_append_item){.k = qkv->k + at,
                                        .v = qkv->v + at,
                                        .stride = qkv->stride,
                                        .rows = qyi_sequence_rows(s->seq, layer, h),
                                        .first = s->first,
                                        .n = s->n_tokens};
        }
    }
    return qy_device_append(cache->dev, step->appends, n);
}

float *qyi_group_out(const struct qy_cache *cache, const struct qy_qkv *qkv,
                     const struct qyi_slice *s, uint32_t h)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const size_t head = (size_t)s->row * shape->n_heads + (size_t)h * cache->group;

    return qkv->out + head * shape->head_dim;
}

enum qy_status qyi_layer_encode(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;
    uint32_t n = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &step->slices[i];

        for (uint32_t h = 0; h < shape->n_kv_heads; h++) {
            const size_t at = s->row * qkv->stride + (size_t)h * shape->head_dim;

            step->views[n++] =
                (struct qy_append_view){.k = qkv->k + at,
                                        .q = qyi_group_q(cache, qkv, s, h),
                                        .stride = qkv->stride,
                                        .group = cache->group,
                                        .first = s->first,
                                        .n = s->n_tokens,
                                        .layer = layer,
                                        .kv_head = h,
                                        .sequence = s->seq->slot,
                                        .rows = qyi_sequence_rows(s->seq, layer, h),
                                        .index = qyi_sequence_index(s->seq, layer, h)};
        }
    }
    step->appended = 1;
    return cache->params.policy->append(cache->policy, step->views, n, &cache->arena);
}

/* Did the policy estimate what (slice, KV head) leaves out? QY_ERR_INVALID: it is no estimate. */
static enum qy_status estimated(const struct qy_cache *cache, size_t place, int *is)
{
    const float *lse = qyi_part_lse(cache, place, QYI_PART_ESTIMATE);

    *is = 0;
    for (uint32_t g = 0; g < cache->group; g++) {
        if (!(lse[g] < INFINITY)) {
            return QY_ERR_INVALID;
        }
        *is |= lse[g] > -INFINITY;
    }
    return QY_OK;
}

static void clear_part(const struct qy_cache *cache, size_t place, enum qyi_part part)
{
    float *lse = qyi_part_lse(cache, place, part);

    for (uint32_t g = 0; g < cache->group; g++) {
        lse[g] = -INFINITY;
    }
}

/* The output of a list, or of what is left of it, becomes a part where there is another to merge it
 * with. */
static enum qy_status split_output(const struct qy_cache *cache, size_t place, int selects,
                                   struct qy_attend_item *item)
{
    const int pushed = qyi_pushes(&cache->tier, place);
    int is_estimated;

    if (!selects || !cache->params.policy->caps.partial) {
        clear_part(cache, place, QYI_PART_ESTIMATE);
    }
    if (!pushed) {
        clear_part(cache, place, QYI_PART_PUSHED);
    }
    const enum qy_status st = estimated(cache, place, &is_estimated);
    if (st == QY_OK &&
        (is_estimated || pushed || cache->cuts_lists)) { /* all parts lie together, to be merged */
        item->out = qyi_part_out(cache, place, QYI_PART_IDS);
        item->lse = qyi_part_lse(cache, place, QYI_PART_IDS);
    }
    return st;
}

void qyi_count_attended(struct qy_cache *cache, uint32_t layer, uint32_t n)
{
    struct qyi_counts *c = &cache->step.counts;

    c->attended_rows += n;
    c->sparse_attended_rows += layer < cache->dense_layers ? 0 : n;
    c->read_bytes += n * cache->layout.row_bytes;
}

/* Rows of a slice that attends to all of them, where all are at hand. */
static struct qy_rows whole_rows(const struct qy_cache *cache, const struct qy_sequence *seq,
                                 uint32_t layer, uint32_t h)
{
    struct qy_rows rows = qyi_sequence_rows(seq, layer, h);

    if (cache->tier.present) {
        rows.blocks = seq->device;
        rows.codec = NULL; /* which those at home have */
    }
    return rows;
}

/* The rows of a list, by token ids or, on a discrete device, by row numbers; of a list that is cut
 * those from the cut on. */
static void name_rows(const struct qy_cache *cache, uint32_t slice, uint32_t h,
                      struct qy_attend_item *item)
{
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + h;
    const uint32_t below = qyi_list_below(cache, slice, h);

    item->n = cache->step.n_listed[place] - below;
    item->ids = qyi_step_list(cache, slice, h) + below;
    if (cache->tier.present) {
        item->n = cache->tier.n_numbers[place];
        item->ids = qyi_tier_numbers(cache, slice, h);
        if (!qyi_pushes(&cache->tier, place)) { /* else these are left out already */
            item->n -= below;
            item->ids += below;
        }
        item->rows.blocks = cache->tier.row_blocks;
        item->rows.offset = 0;
        item->rows.shift = 31;
    }
}

/* The item of one (slice of one token, KV head). QY_ERR_INVALID: the policy's estimate is none. */
static enum qy_status attend_item(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv,
                                  uint32_t slice, uint32_t h, struct qy_attend_item *item)
{
    struct qyi_step *step = &cache->step;
    const struct qyi_slice *s = &step->slices[slice];
    const struct qyi_selection reach = qyi_slice_reach(cache, s, layer);
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + h;

    *item = (struct qy_attend_item){.q = qyi_group_q(cache, qkv, s, h),
                                    .rows = whole_rows(cache, s->seq, layer, h),
                                    .n = reach.n,
                                    .group = cache->group,
                                    .out = qyi_group_out(cache, qkv, s, h)};
    if (reach.reach != QYI_REACH_ALL) {
        name_rows(cache, slice, h, item);
    }
    if (s->counted) {
        qyi_count_attended(cache, layer,
                           reach.reach == QYI_REACH_ALL ? reach.n : step->n_listed[place]);
    }
    if (step->part_lse && reach.reach != QYI_REACH_ALL) {
        return split_output(cache, place, reach.reach == QYI_REACH_SELECT, item);
    }
    return QY_OK;
}

/* The rest of the lists that are cut, but for what is pushed, as items from `items` on. */
static uint32_t items_below(struct qy_cache *cache, const struct qyi_micro_batch *now,
                            uint32_t layer, const struct qy_qkv *qkv, struct qy_attend_item *items)
{
    uint32_t n = 0;

    for (uint32_t i = now->begin; cache->cuts_lists && i < now->end; i++) {
        const struct qyi_slice *s = &cache->step.slices[i];
        const int lists = qyi_slice_lists(cache, s, layer);

        for (uint32_t h = 0; lists && h < cache->layout.n_kv_heads; h++) {
            const size_t place = (size_t)i * cache->layout.n_kv_heads + h;
            const uint32_t below = qyi_list_below(cache, i, h);
            struct qy_attend_item *item = &items[n];

            if (below == 0 || qyi_pushes(&cache->tier, place)) {
                continue;
            }
            *item = (struct qy_attend_item){.q = qyi_group_q(cache, qkv, s, h),
                                            .rows = whole_rows(cache, s->seq, layer, h),
                                            .group = cache->group,
                                            .out = qyi_part_out(cache, place, QYI_PART_PUSHED),
                                            .lse = qyi_part_lse(cache, place, QYI_PART_PUSHED)};
            name_rows(cache, i, h, item);
            item->ids -= below;
            item->n = below;
            n++;
        }
    }
    return n;
}

/* Merges attention over the ids with other parts, where there are some. */
static enum qy_status merge_parts(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_step *step = &cache->step;
    const uint32_t d = cache->params.shape.head_dim;
    uint32_t a = 0;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const struct qyi_slice *s = &step->slices[i];

        const int in_items = s->n_tokens == 1 && !qyi_tier_passes(cache, i, layer);

        for (uint32_t h = 0; in_items && h < cache->layout.n_kv_heads; h++) {
            const struct qy_attend_item *item = &step->attends[a++];

            if (!item->lse) {
                continue;
            }
            const enum qy_status st =
                qy_device_merge(cache->dev, item->out, item->lse, QYI_PARTS, cache->group, d,
                                qyi_group_out(cache, qkv, s, h), NULL);
            if (st != QY_OK) {
                return st;
            }
        }
    }
    return QY_OK;
}

struct qy_chunk_item qyi_chunk_item(const struct qy_cache *cache, uint32_t layer,
                                    const struct qy_qkv *qkv, uint32_t slice, uint32_t h)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const struct qyi_slice *s = &cache->step.slices[slice];

    return (struct qy_chunk_item){.q = qyi_group_q(cache, qkv, s, h),
                                  .q_stride = qkv->stride,
                                  .rows = whole_rows(cache, s->seq, layer, h),
                                  .first = s->first,
                                  .n_q = s->n_tokens,
                                  .group = cache->group,
                                  .out = qyi_group_out(cache, qkv, s, h),
                                  .out_stride = (size_t)shape->n_heads * shape->head_dim};
}

enum qy_status qyi_layer_attend(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qyi_micro_batch *now = qyi_step_now(cache);
    struct qyi_step *step = &cache->step;
    const float scale = cache->params.scale;
    uint32_t n_attends = 0;
    uint32_t n_chunks = 0;
    enum qy_status st = QY_OK;

    for (uint32_t i = now->begin; i < now->end; i++) {
        const int passes = qyi_tier_passes(cache, i, layer);

        for (uint32_t h = 0; !passes && h < cache->layout.n_kv_heads; h++) {
            if (step->slices[i].n_tokens > 1) {
                step->chunks[n_chunks++] = qyi_chunk_item(cache, layer, qkv, i, h);
                continue;
            }
            st = attend_item(cache, layer, qkv, i, h, &step->attends[n_attends++]);
            if (st != QY_OK) {
                return st;
            }
        }
    }
    n_attends += items_below(cache, now, layer, qkv, step->attends + n_attends);
    if (n_attends > 0) {
        st = qy_device_attend(cache->dev, step->attends, n_attends, scale, &cache->arena);
    }
    if (st == QY_OK && step->part_lse) {
        st = merge_parts(cache, layer, qkv);
    }
    if (st == QY_OK && n_chunks > 0) {
        st = qy_device_attend_chunk(cache->dev, step->chunks, n_chunks, scale, &cache->arena);
    }
    if (st == QY_OK && cache->tier.present) {
        st = qyi_tier_attend_all(cache, layer, qkv);
    }
    return st;
}

enum qy_status qyi_layer_fetch(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const enum qy_status st = qyi_tier_fetch(cache, layer);

    return st == QY_OK ? qyi_push_ask(cache, layer, qkv) : st;
}

enum qy_status qyi_layer_push(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    (void)qkv;
    return qyi_push_answer(cache, layer);
}

enum qy_status qyi_layer_wait(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const enum qy_status st = qyi_tier_wait(cache);

    (void)qkv;
    if (cache->far.store && qyi_home_far_is_remote(&cache->params)) {
        /* what is on its way to servers moves only when it is looked at, and it has a deadline */
        qyi_store_poll(cache->far.store);
    }
    if (st == QY_OK) {
        qyi_tier_check(cache, layer);
    }
    return st;
}
