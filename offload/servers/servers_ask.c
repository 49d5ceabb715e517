/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to memory servers that carry many requests of one kind: READ, ranges of blocks; ROWS and ATTEND,
 * lists of rows of one layer; SCORE, lists of blocks (CHUNK: servers_chunk.c). See servers.h.
 *
 * A question is filled with requests to one server in the order in which they wait, until one does not fit
 * any more; its answer holds what they get, one after another.
 */
#include "offload/servers/servers_internal.h"

#include <errno.h>
#include <string.h>

static const struct qyi_store_name *name_of(const struct qyi_servers *s,
                                            const struct qyi_store_request *r)
{
    return &s->places[r->slot].name;
}

/* ROWS: are both of one KV head of one sequence, so that their ids can be one item? */
static int same_list(const struct qyi_servers *s, const struct qyi_store_request *a,
                     const struct qyi_store_request *b)
{
    const struct qyi_store_name *x = name_of(s, a);
    const struct qyi_store_name *y = name_of(s, b);

    return x->sequence == y->sequence && x->serial == y->serial && a->list.head == b->list.head;
}

static int joins(const struct qyi_servers *s, const struct qyi_servers_message *m,
                 const struct qyi_store_request *r)
{
    return r->op == QYI_STORE_ROWS && m->n_parts > 0 && same_list(s, m->parts[m->n_parts - 1], r);
}

static enum qyi_message_kind kind_of(const struct qyi_store_request *r)
{
    return r->op == QYI_STORE_READ    ? QYI_MESSAGE_READ
           : r->op == QYI_STORE_ROWS  ? QYI_MESSAGE_ROWS
           : r->op == QYI_STORE_SCORE ? QYI_MESSAGE_SCORE
                                      : QYI_MESSAGE_ATTEND;
}

static struct qyi_remote_parts parts_of(const struct qyi_servers *s, enum qyi_message_kind kind,
                                        uint32_t n_items, uint32_t n_ids)
{
    return kind == QYI_MESSAGE_SCORE
               ? qyi_remote_score_parts(n_items, n_ids, s->query_floats)
               : qyi_remote_parts(n_items, n_ids, kind == QYI_MESSAGE_ATTEND ? s->query_floats : 0);
}

/* ---- filled ----------------------------------------------------------------------------------- */

static int fits(const struct qyi_servers *s, const struct qyi_servers_message *m,
                const struct qyi_store_request *r)
{
    if (m->kind != kind_of(r) || m->n_parts == s->max_parts ||
        m->bytes + r->bytes > s->params.answer_bytes) {
        return 0;
    }
    if (r->op == QYI_STORE_READ) {
        return 1;
    }
    const uint32_t n_items = m->n_items + !joins(s, m, r);

    return m->layer == r->list.layer &&
           parts_of(s, m->kind, n_items, m->n_ids + r->list.n).bytes <= s->params.call_bytes;
}

void qyi_range_add(struct qyi_servers_message *m, const struct qyi_store_name *name, uint64_t at,
                   uint64_t bytes)
{
    const struct qyi_remote_read range = {.serial = name->serial,
                                          .at = at,
                                          .bytes = bytes,
                                          .sequence = name->sequence,
                                          .block = name->block};

    memcpy(m->payload + m->n_parts * sizeof(range), &range, sizeof(range));
    m->fold = qyi_remote_fold(m->fold, name->generation);
}

/* What is asked is written when it is complete (pack_lists): where ids begin is known then. */
static void add_list(const struct qyi_servers *s, struct qyi_servers_message *m,
                     const struct qyi_store_request *r)
{
    const struct qyi_store_list *list = &r->list;
    const int joined = joins(s, m, r);
    uint32_t last = joined ? m->parts[m->n_parts - 1]->slot : UINT32_MAX;

    m->layer = list->layer;
    m->n_items += (uint32_t)!joined;
    m->n_ids += list->n;
    for (uint32_t i = 0; i < (list->slots ? list->n : 1); i++) {
        const uint32_t slot = list->slots ? list->slots[i] : r->slot;

        if (slot != last) { /* a run of ids in one block */
            m->fold = qyi_remote_fold(m->fold, s->places[slot].name.generation);
            last = slot;
        }
    }
}

/* ---- sent ------------------------------------------------------------------------------------- */

static void pack_lists(const struct qyi_servers *s, struct qyi_servers_message *m)
{
    const int attends = m->kind == QYI_MESSAGE_ATTEND;
    const struct qyi_remote_ask ask = {.layer = m->layer,
                                       .n_items = m->n_items,
                                       .n_ids = m->n_ids,
                                       .scale = attends ? s->params.scale : 0.0F};
    const struct qyi_remote_parts at = parts_of(s, m->kind, m->n_items, m->n_ids);
    struct qyi_remote_item *items = (struct qyi_remote_item *)(void *)m->payload;
    float *q = (float *)(void *)(m->payload + at.q_at);
    uint32_t *ids = (uint32_t *)(void *)(m->payload + at.ids_at);
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n_parts; i++) {
        const struct qyi_store_request *r = m->parts[i];
        const struct qyi_store_name *name = name_of(s, r);

        if (i == 0 || attends || !same_list(s, m->parts[i - 1], r)) {
            items[n++] = (struct qyi_remote_item){
                .serial = name->serial, .sequence = name->sequence, .head = r->list.head};
        }
        items[n - 1].n += r->list.n;
        memcpy(ids, r->list.ids, r->list.n * sizeof(*ids));
        ids += r->list.n;
        if (attends) {
            memcpy(q, r->list.q, s->query_floats * sizeof(*q));
            q += s->query_floats;
        }
    }
    memcpy(m->request.head, &ask, sizeof(ask));
    m->request.op = attends ? QYI_REMOTE_ATTEND : QYI_REMOTE_ROWS;
    m->request.head_bytes = sizeof(ask);
    m->request.payload_bytes = at.bytes;
}

static void pack_scores(const struct qyi_servers *s, struct qyi_servers_message *m)
{
    const struct qyi_remote_ask ask = {.layer = m->layer, .n_items = m->n_items, .n_ids = m->n_ids};
    const struct qyi_remote_parts at = parts_of(s, m->kind, m->n_items, m->n_ids);
    struct qyi_remote_score *items = (struct qyi_remote_score *)(void *)m->payload;
    float *q = (float *)(void *)(m->payload + at.q_at);
    uint32_t *blocks = (uint32_t *)(void *)(m->payload + at.ids_at);

    for (uint32_t i = 0; i < m->n_parts; i++, q += s->query_floats) {
        const struct qyi_store_list *list = &m->parts[i]->list;
        const struct qyi_store_name *name = name_of(s, m->parts[i]);

        items[i] = (struct qyi_remote_score){.serial = name->serial,
                                             .sequence = name->sequence,
                                             .head = list->head,
                                             .n_blocks = list->n,
                                             .n_tokens = list->n_tokens,
                                             .k = list->k};
        memcpy(q, list->q, s->query_floats * sizeof(*q));
        for (uint32_t b = 0; b < list->n; b++) {
            *blocks++ = s->places[list->slots[b]].name.block;
        }
    }
    memcpy(m->request.head, &ask, sizeof(ask));
    m->request.op = QYI_REMOTE_SCORE;
    m->request.head_bytes = sizeof(ask);
    m->request.payload_bytes = at.bytes;
}

void qyi_ranges_pack(struct qyi_servers_message *m, uint32_t n)
{
    const struct qyi_remote_count count = {.n = n};

    memcpy(m->request.head, &count, sizeof(count));
    m->request.op = QYI_REMOTE_READ;
    m->request.head_bytes = sizeof(count);
    m->request.payload = m->payload;
    m->request.payload_bytes = n * sizeof(struct qyi_remote_read);
}

/* Do the requests' places follow each other as the answer's bytes do? */
static int in_one_piece(const struct qyi_servers_message *m)
{
    for (uint32_t i = 1; i < m->n_parts; i++) {
        if ((uint8_t *)m->parts[i - 1]->data + m->parts[i - 1]->bytes != m->parts[i]->data) {
            return 0;
        }
    }
    return 1;
}

static void send_filled(struct qyi_servers *s, struct qyi_servers_message *m)
{
    const int straight =
        m->kind != QYI_MESSAGE_ATTEND && m->kind != QYI_MESSAGE_SCORE && in_one_piece(m);

    if (m->kind == QYI_MESSAGE_READ) {
        qyi_ranges_pack(m, m->n_parts);
    } else if (m->kind == QYI_MESSAGE_SCORE) {
        pack_scores(s, m);
    } else {
        pack_lists(s, m);
    }
    m->request.payload = m->payload;
    m->request.reply = straight ? m->parts[0]->data : m->reply;
    m->request.reply_capacity = straight ? m->bytes : s->params.answer_bytes;
    qyi_message_send(s, m);
}

void qyi_servers_send_open(struct qyi_servers *s, struct qyi_servers_message **open)
{
    for (uint32_t i = 0; i < s->params.n; i++) {
        if (open[i] != NULL) {
            send_filled(s, open[i]);
            open[i] = NULL;
        }
    }
}

/* A question to the server that has room for the request; NULL: none is free. */
static struct qyi_servers_message *message_for(struct qyi_servers *s,
                                               struct qyi_servers_message **open, uint32_t server,
                                               const struct qyi_store_request *r)
{
    struct qyi_servers_message *m = open[server];

    if (m != NULL && !fits(s, m, r)) {
        send_filled(s, m);
        open[server] = m = NULL;
    }
    if (m == NULL) {
        open[server] = m = qyi_message_take(s, kind_of(r), server);
    }
    return m;
}

/* The server that is asked; UINT32_MAX: none, now or, if *done, at all. */
static uint32_t choose_copy(struct qyi_servers *s, struct qyi_store_request *r, int *done)
{
    const struct qyi_place *place = &s->places[r->slot];
    int may_come;
    const uint32_t copy = qyi_place_readable(s, place, r->tried, &may_come);

    *done = copy == UINT32_MAX && !may_come;
    if (*done) {
        qyi_store_finish(&s->counts, r, ENODATA);
    }
    return copy == UINT32_MAX ? UINT32_MAX : place->copies[copy].server;
}

/* The same of an ATTEND or SCORE, which is for one server: it has all blocks, and the question is not too long. */
static uint32_t check_place(struct qyi_servers *s, struct qyi_store_request *r, int *done)
{
    const struct qyi_store_list *list = &r->list;

    *done = parts_of(s, kind_of(r), 1, list->n).bytes > s->params.call_bytes ||
            r->bytes > s->params.answer_bytes;
    for (uint32_t i = 0; !*done && i < list->n; i++) {
        *done = (i == 0 || list->slots[i] != list->slots[i - 1]) &&
                !qyi_place_answers(s, &s->places[list->slots[i]], list->place);
    }
    if (*done) {
        qyi_store_finish(&s->counts, r, EAGAIN);
    }
    return *done ? UINT32_MAX : list->place;
}

int qyi_servers_ask(struct qyi_servers *s, struct qyi_store_request *r,
                    struct qyi_servers_message **open)
{
    int done;
    const int one_server = r->op == QYI_STORE_ATTEND || r->op == QYI_STORE_SCORE;

    if (r->op == QYI_STORE_CHUNK) {
        return qyi_servers_ask_chunk(s, r);
    }
    const uint32_t server = one_server ? check_place(s, r, &done) : choose_copy(s, r, &done);
    struct qyi_servers_message *m = server == UINT32_MAX ? NULL : message_for(s, open, server, r);

    if (m == NULL) {
        return done;
    }
    if (r->op == QYI_STORE_READ) {
        qyi_range_add(m, name_of(s, r), r->at, r->bytes);
    } else {
        add_list(s, m, r);
    }
    m->parts[m->n_parts++] = r;
    m->bytes += r->bytes;
    return 1;
}
