/* SPDX-License-Identifier: Apache-2.0 */
/* Index bytes of new tokens: codes, codes of keys turned back to before RoPE, 4-bit keys. */
#include "retrieval/policy_a2ats.h"

#include "retrieval/rank_pass.h"

#include <string.h>

enum { TURN_TOKENS = 256 /* turned back together */ };

static const struct qy_quantizer *quantizer_of(const struct qyi_a2ats *a,
                                               const struct qy_append_view *view)
{
    return &a->quantizers[view->layer * a->params->n_kv_heads + view->kv_head];
}

enum qy_status qyi_a2ats_append_codes(const struct qyi_a2ats *a, const struct qy_append_view *views,
                                      uint32_t n_views, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_encode_item *items = qyi_rank_take(arena, n_views * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_views; i++) {
        items[i] = (struct qy_encode_item){.quantizer = quantizer_of(a, &views[i]),
                                           .k = views[i].k,
                                           .stride = views[i].stride,
                                           .codes = views[i].index,
                                           .first = views[i].first,
                                           .n = views[i].n};
    }
    const enum qy_status st = qy_device_encode(a->params->dev, items, n_views);
    qy_arena_rewind(arena, mark);
    return st;
}

enum qy_status qyi_a2ats_append_keys(const struct qyi_a2ats *a, const struct qy_append_view *views,
                                     uint32_t n_views, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct qy_key4_item *items = qyi_rank_take(arena, n_views * sizeof(*items));

    if (!items) {
        return QY_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n_views; i++) {
        items[i] = (struct qy_key4_item){.k = views[i].k,
                                         .stride = views[i].stride,
                                         .d = a->params->head_dim,
                                         .keys = views[i].index,
                                         .first = views[i].first,
                                         .n = views[i].n};
        items[i].keys.offset += a->code_bytes;
    }
    const enum qy_status st = qy_device_key4_append(a->params->dev, items, n_views);
    qy_arena_rewind(arena, mark);
    return st;
}

/* Keys of up to TURN_TOKENS tokens, of one view or of parts of several. */
struct turning {
    const struct qyi_a2ats *a;
    float *k, *table;              /* [TURN_TOKENS][head_dim], [TURN_TOKENS][rope.dim] */
    int32_t *positions;            /* [TURN_TOKENS] */
    struct qy_encode_item *pieces; /* [TURN_TOKENS] */
    uint32_t n, n_pieces;
};

static enum qy_status turning_take(struct turning *t, struct qy_arena *arena)
{
    const struct qy_policy_params *p = t->a->params;

    t->k = qyi_rank_take(arena, (size_t)TURN_TOKENS * p->head_dim * sizeof(*t->k));
    t->table = qyi_rank_take(arena, (size_t)TURN_TOKENS * p->rope.dim * sizeof(*t->table));
    t->positions = qyi_rank_take(arena, TURN_TOKENS * sizeof(*t->positions));
    t->pieces = qyi_rank_take(arena, TURN_TOKENS * sizeof(*t->pieces));
    return t->k && t->table && t->positions && t->pieces ? QY_OK : QY_ERR_NOMEM;
}

/* Turns what is there back by its positions, and encodes it. */
static enum qy_status turning_flush(struct turning *t)
{
    const struct qy_policy_params *p = t->a->params;
    enum qy_status st = QY_OK;

    if (p->rope.dim > 0) {
        st = qy_device_rope_table(p->dev, &p->rope, t->positions, t->n, t->table);
    }
    if (st == QY_OK) {
        st = qy_device_rope(p->dev, &p->rope, t->table, t->k, t->n, p->head_dim, 1, p->head_dim);
    }
    if (st == QY_OK) {
        st = qy_device_encode(p->dev, t->pieces, t->n_pieces);
    }
    t->n = 0;
    t->n_pieces = 0;
    return st;
}

/* Adds tokens from `at` of the view on, as many as there is room for. Returns their number. */
static uint32_t turning_add(struct turning *t, const struct qy_append_view *view, uint32_t at)
{
    const uint32_t d = t->a->params->head_dim;
    const uint32_t room = TURN_TOKENS - t->n;
    const uint32_t n = view->n - at < room ? view->n - at : room;
    float *to = t->k + (size_t)t->n * d;

    t->pieces[t->n_pieces++] = (struct qy_encode_item){.quantizer = quantizer_of(t->a, view),
                                                       .k = to,
                                                       .stride = d,
                                                       .codes = view->index,
                                                       .first = view->first + at,
                                                       .n = n};
    for (uint32_t i = 0; i < n; i++) {
        memcpy(to + (size_t)i * d, view->k + (at + i) * view->stride, d * sizeof(*to));
        t->positions[t->n + i] = -(int32_t)(view->first + at + i);
    }
    t->n += n;
    return n;
}

enum qy_status qyi_a2ats_append_turned(const struct qyi_a2ats *a,
                                       const struct qy_append_view *views, uint32_t n_views,
                                       struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct turning t = {.a = a};
    enum qy_status st = turning_take(&t, arena);

    for (uint32_t i = 0; st == QY_OK && i < n_views; i++) {
        for (uint32_t at = 0; st == QY_OK && at < views[i].n;) {
            at += turning_add(&t, &views[i], at);
            if (t.n == TURN_TOKENS) {
                st = turning_flush(&t);
            }
        }
    }
    if (st == QY_OK && t.n > 0) {
        st = turning_flush(&t);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qyi_a2ats_append_scratch(const struct qyi_a2ats *a, uint32_t n_views)
{
    const size_t codes = qyi_rank_pad(n_views * sizeof(struct qy_encode_item));
    const size_t keys = qyi_rank_pad(n_views * sizeof(struct qy_key4_item));
    const size_t floats = (size_t)a->params->head_dim + a->params->rope.dim;
    const size_t turned =
        TURN_TOKENS * (floats * sizeof(float) + sizeof(int32_t) + sizeof(struct qy_encode_item)) +
        (size_t)4 * QYI_RANK_ALIGN;
    size_t bytes = codes > keys ? codes : keys;

    if (a->n_bands > 0 && turned > bytes) {
        bytes = turned;
    }
    return bytes + QYI_RANK_ALIGN;
}
