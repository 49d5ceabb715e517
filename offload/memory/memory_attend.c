/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATTEND (a push): queries come, the threads of this process attend to rows where they lie, and partials go
 * back. The kernel is that of a unified device, so the bits are those of a worker that has the rows itself.
 * See memory_server.h.
 */
#include "offload/memory/memory_server.h"

size_t qyi_attend_need(const struct qy_memory *m, const struct qyi_session *s, uint32_t n_items,
                       uint32_t max_n)
{
    const size_t coded =
        s->layout.home ? qy_device_attend_coded_scratch(m->dev, s->layout.head_dim) : 0;

    return qy_device_attend_scratch(m->dev, n_items, max_n, s->group, s->layout.head_dim) + coded;
}

/* How many of the items from `first` on the arena is large enough for. */
static uint32_t batch(const struct qy_memory *m, const struct qyi_session *s,
                      const struct qyi_remote_list *list, uint32_t first)
{
    uint32_t max_n = 0;
    uint32_t n = 0;

    for (; n < QYI_MEMORY_BATCH && first + n < list->n_items; n++) {
        const uint32_t rows = list->items[first + n].n;

        max_n = rows > max_n ? rows : max_n;
        if (qyi_attend_need(m, s, n + 1, max_n) > m->arena.bytes) {
            break;
        }
    }
    return n;
}

static struct qy_attend_item make_item(const struct qyi_session *s, uint32_t layer,
                                       const struct qyi_remote_item *item)
{
    const struct qyi_layout *l = &s->layout;
    const size_t at = qyi_layout_home_at(l, layer, item->head);

    return (struct qy_attend_item){
        .rows = {.blocks = s->blocks + qyi_block_place(s, item->sequence, 0),
                 .offset = at,
                 .shift = l->shift,
                 .d = l->head_dim,
                 .type = l->row_type,
                 .n_coded = UINT32_MAX,
                 .codec = qyi_layout_codec(l, layer),
                 .coded_offset = at},
        .n = item->n,
        .group = s->group};
}

/* out [n_items][group][d], lse [n_items][group]. */
static enum qyi_remote_code attend(struct qy_memory *m, const struct qyi_session *s,
                                   const struct qyi_remote_list *list, float *out, float *lse)
{
    const size_t floats = s->bounds.query_floats;
    const uint32_t *ids = list->ids;
    uint32_t n;

    for (uint32_t first = 0; first < list->n_items; first += n) {
        n = batch(m, s, list, first);
        if (n == 0) {
            return QYI_REMOTE_TOO_LARGE;
        }
        for (uint32_t i = 0; i < n; i++) {
            const size_t at = first + i;

            m->items[i] = make_item(s, list->layer, &list->items[at]);
            m->items[i].q = list->q + at * floats;
            m->items[i].ids = ids;
            m->items[i].out = out + at * floats;
            m->items[i].lse = lse + at * s->group;
            ids += list->items[at].n;
        }
        const enum qy_status st = qy_device_attend(m->dev, m->items, n, list->scale, &m->arena);
        if (st != QY_OK) {
            return QYI_REMOTE_FAILED;
        }
    }
    return QYI_REMOTE_DONE;
}

void qyi_memory_attend(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                       struct qyi_memory_reply *answer)
{
    struct qyi_remote_list list;

    answer->refused = qyi_remote_attend_parse(&s->bounds, q->head, q->head_bytes, q->payload,
                                              q->payload_bytes, &list);
    if (answer->refused) {
        return;
    }
    const size_t item_bytes = (s->bounds.query_floats + s->group) * sizeof(float);
    if (list.n_items > m->params.answer_bytes / item_bytes) {
        answer->code = QYI_REMOTE_TOO_LARGE;
        return;
    }
    if (!qyi_list_known(s, &list, answer)) {
        return;
    }
    float *out = q->answer;
    answer->code =
        (uint16_t)attend(m, s, &list, out, out + (size_t)list.n_items * s->bounds.query_floats);
    if (answer->code == QYI_REMOTE_DONE) {
        m->counts.rows_attended += list.n_ids;
        answer->payload = q->answer;
        answer->payload_bytes = list.n_items * item_bytes;
    }
}
