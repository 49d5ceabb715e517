/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of one layer of a step: each gathers its items over all slices and KV heads and calls
 * the device once. Items of a slice are [kv_head]; the items of slices follow each other.
 */
#include "offload/cache.h"

static enum qy_status rotate(struct qy_cache *cache, const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const struct qy_rope *rope = &cache->params.rope;
    const struct qyi_step *step = &cache->step;

    if (rope->dim == 0) {
        return QY_OK;
    }
    const enum qy_status st =
        qy_device_rope(cache->dev, rope, step->rope_table, qkv->q, step->n_rows, qkv->stride,
                       shape->n_heads, shape->head_dim);
    if (st != QY_OK) {
        return st;
    }
    return qy_device_rope(cache->dev, rope, step->rope_table, qkv->k, step->n_rows, qkv->stride,
                          shape->n_kv_heads, shape->head_dim);
}

enum qy_status qyi_layer_append(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;
    uint32_t n = 0;
    const enum qy_status st = rotate(cache, qkv);

    if (st != QY_OK) {
        return st;
    }
    for (uint32_t i = 0; i < step->n_slices; i++) {
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

/* The queries of the group that reads KV head h, of the slice's row t. */
static const float *group_q(const struct qy_cache *cache, const struct qy_qkv *qkv,
                            const struct qyi_slice *s, uint32_t h)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const uint32_t group = shape->n_heads / shape->n_kv_heads;

    return qkv->q + s->row * qkv->stride + (size_t)h * group * shape->head_dim;
}

/* The list of ids of (slice, KV head h). */
static uint32_t *list_of(const struct qy_cache *cache, uint32_t slice, uint32_t h)
{
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + h;

    return cache->step.ids + place * cache->ids_capacity;
}

enum qy_status qyi_layer_select(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;
    uint32_t n = 0;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        const struct qyi_slice *s = &step->slices[i];
        const struct qyi_selection *r = &s->reach;

        for (uint32_t h = 0; h < shape->n_kv_heads; h++) {
            uint32_t *n_chosen = &step->n_chosen[i * shape->n_kv_heads + h];

            *n_chosen = 0;
            if (r->reach != QYI_REACH_SELECT) {
                continue;
            }
            step->selects[n++] =
                (struct qy_select_item){.q = group_q(cache, qkv, s, h),
                                        .rows = qyi_sequence_rows(s->seq, layer, h),
                                        .group = shape->n_heads / shape->n_kv_heads,
                                        .n = r->n,
                                        .lo = r->lo,
                                        .hi = r->hi,
                                        .k = r->k,
                                        .layer = layer,
                                        .kv_head = h,
                                        .sequence = s->seq->slot,
                                        .ids = list_of(cache, i, h) + r->lo,
                                        .n_ids = n_chosen};
        }
    }
    if (n == 0) {
        return QY_OK;
    }
    return cache->params.policy->select(cache->policy, step->selects, n, &cache->arena);
}

/* The item of one (slice of one token, KV head). QY_ERR_INVALID: the policy's ids are no list. */
static enum qy_status attend_item(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv,
                                  uint32_t slice, uint32_t h, struct qy_attend_item *item)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    struct qyi_step *step = &cache->step;
    const struct qyi_slice *s = &step->slices[slice];
    const uint32_t group = shape->n_heads / shape->n_kv_heads;
    const size_t out_at = (size_t)s->row * shape->n_heads + (size_t)h * group;

    *item = (struct qy_attend_item){.q = group_q(cache, qkv, s, h),
                                    .rows = qyi_sequence_rows(s->seq, layer, h),
                                    .n = s->reach.n,
                                    .group = group,
                                    .out = qkv->out + out_at * shape->head_dim};
    if (s->reach.reach != QYI_REACH_ALL) {
        uint32_t *ids = list_of(cache, slice, h);

        item->n =
            qyi_selection_merge(&s->reach, step->n_chosen[slice * shape->n_kv_heads + h], ids);
        item->ids = ids;
        if (item->n == 0) {
            return QY_ERR_INVALID;
        }
    }
    if (s->counted) {
        step->counts.attended_rows += item->n;
        step->counts.read_bytes += item->n * cache->layout.row_bytes;
    }
    return QY_OK;
}

static struct qy_chunk_item chunk_item(const struct qy_cache *cache, uint32_t layer,
                                       const struct qy_qkv *qkv, uint32_t slice, uint32_t h)
{
    const struct qy_kv_shape *shape = &cache->params.shape;
    const struct qyi_slice *s = &cache->step.slices[slice];
    const uint32_t group = shape->n_heads / shape->n_kv_heads;
    const size_t out_at = (size_t)s->row * shape->n_heads + (size_t)h * group;

    return (struct qy_chunk_item){.q = group_q(cache, qkv, s, h),
                                  .q_stride = qkv->stride,
                                  .rows = qyi_sequence_rows(s->seq, layer, h),
                                  .first = s->first,
                                  .n_q = s->n_tokens,
                                  .group = group,
                                  .out = qkv->out + out_at * shape->head_dim,
                                  .out_stride = (size_t)shape->n_heads * shape->head_dim};
}

enum qy_status qyi_layer_attend(struct qy_cache *cache, uint32_t layer, const struct qy_qkv *qkv)
{
    struct qyi_step *step = &cache->step;
    const float scale = cache->params.scale;
    uint32_t n_attends = 0;
    uint32_t n_chunks = 0;
    enum qy_status st = QY_OK;

    for (uint32_t i = 0; i < step->n_slices; i++) {
        for (uint32_t h = 0; h < cache->layout.n_kv_heads; h++) {
            if (step->slices[i].n_tokens > 1) {
                step->chunks[n_chunks++] = chunk_item(cache, layer, qkv, i, h);
                continue;
            }
            st = attend_item(cache, layer, qkv, i, h, &step->attends[n_attends++]);
            if (st != QY_OK) {
                return st;
            }
        }
    }
    if (n_attends > 0) {
        st = qy_device_attend(cache->dev, step->attends, n_attends, scale, &cache->arena);
    }
    if (st == QY_OK && n_chunks > 0) {
        st = qy_device_attend_chunk(cache->dev, step->chunks, n_chunks, scale, &cache->arena);
    }
    return st;
}
