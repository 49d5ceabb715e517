/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to memory servers with the queries of a chunk of prefill: CHUNK, one request each. Who asks cuts
 * chunks so that a question and its answer fit. See servers.h.
 */
#include "offload/servers/servers_internal.h"

#include <errno.h>
#include <string.h>

int qyi_servers_chunk_valid(const struct qyi_servers *s, const struct qyi_store_request *r)
{
    const struct qyi_store_list *l = &r->list;

    if (l->slots == NULL || l->q == NULL || l->lse == NULL || r->data == NULL || l->n == 0 ||
        l->n_q == 0 || l->place >= s->params.n || l->slots[0] != r->slot ||
        r->bytes != (size_t)l->n_q * (s->chunk_floats + s->n_heads) * sizeof(float)) {
        return 0;
    }
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->slots[i] >= s->n_slots) {
            return 0;
        }
    }
    return 1;
}

/* Can the place answer it? Else why not (errno). */
static int refused(const struct qyi_servers *s, const struct qyi_store_request *r)
{
    const struct qyi_store_list *l = &r->list;

    if (qyi_remote_chunk_bytes(l->n_q, l->n, s->chunk_floats) > s->params.call_bytes ||
        r->bytes > s->params.answer_bytes) {
        return E2BIG;
    }
    for (uint32_t i = 0; i < l->n; i++) {
        if (!qyi_place_answers(s, &s->places[l->slots[i]], l->place)) {
            return EAGAIN;
        }
    }
    return 0;
}

static void pack(const struct qyi_servers *s, struct qyi_servers_message *m,
                 const struct qyi_store_request *r)
{
    const struct qyi_store_list *l = &r->list;
    const struct qyi_store_name *name = &s->places[r->slot].name;
    const size_t q_bytes = (size_t)l->n_q * s->chunk_floats * sizeof(float);
    const struct qyi_remote_chunk head = {.serial = name->serial,
                                          .sequence = name->sequence,
                                          .layer = l->layer,
                                          .n_queries = l->n_q,
                                          .n_blocks = l->n,
                                          .scale = s->params.scale};
    uint32_t *blocks = (uint32_t *)(void *)(m->payload + q_bytes);

    memcpy(m->payload, l->q, q_bytes);
    for (uint32_t i = 0; i < l->n; i++) {
        const struct qyi_store_name *block = &s->places[l->slots[i]].name;

        blocks[i] = block->block;
        m->fold = qyi_remote_fold(m->fold, block->generation);
    }
    memcpy(m->request.head, &head, sizeof(head));
    m->request.op = QYI_REMOTE_CHUNK;
    m->request.head_bytes = sizeof(head);
    m->request.payload = m->payload;
    m->request.payload_bytes = q_bytes + l->n * sizeof(*blocks);
    m->request.reply = m->reply;
    m->request.reply_capacity = s->params.answer_bytes;
}

int qyi_servers_ask_chunk(struct qyi_servers *s, struct qyi_store_request *r)
{
    const int error = refused(s, r);

    if (error != 0) {
        qyi_store_finish(&s->counts, r, error);
        return 1;
    }
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_CHUNK, r->list.place);
    if (m == NULL) {
        return 0;
    }
    m->parts[m->n_parts++] = r;
    m->bytes = r->bytes;
    pack(s, m, r);
    qyi_message_send(s, m);
    return 1;
}

void qyi_servers_chunk_answered(const struct qyi_servers *s, const struct qyi_servers_message *m)
{
    const struct qyi_store_request *r = m->parts[0];
    const size_t out_bytes = (size_t)r->list.n_q * s->chunk_floats * sizeof(float);

    memcpy(r->data, m->reply, out_bytes);
    memcpy(r->list.lse, m->reply + out_bytes, (size_t)r->list.n_q * s->n_heads * sizeof(float));
}
