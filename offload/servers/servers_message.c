/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to memory servers: sent when there is room, settled when they are answered, or are not. What
 * an answer says of its server is kept. See servers.h.
 */
#include "offload/servers/servers_internal.h"

#include <errno.h>
#include <string.h>

/* ---- on their way ---------------------------------------------------------------------------- */

struct qyi_servers_message *qyi_message_take(struct qyi_servers *s, enum qyi_message_kind kind,
                                             uint32_t server)
{
    struct qyi_servers_message *m = s->free;

    if (m == NULL) {
        return NULL;
    }
    s->free = m->next;
    m->next = NULL;
    m->kind = kind;
    m->server = server;
    m->epoch = s->servers[server].epoch;
    m->posted = 0;
    m->n_parts = 0;
    m->n_items = 0;
    m->n_ids = 0;
    m->bytes = 0;
    m->fold = 0;
    m->move = NULL;
    memset(&m->request, 0, sizeof(m->request));
    s->servers[server].under_way++;
    return m;
}

static void give_back(struct qyi_servers *s, struct qyi_servers_message *m)
{
    s->servers[m->server].under_way--;
    m->posted = 0;
    m->next = s->free;
    s->free = m;
}

static void settle(struct qyi_servers *s, struct qyi_servers_message *m);

/* 1: it is with the node, or settled. */
static int post(struct qyi_servers *s, struct qyi_servers_message *m)
{
    struct qyi_server *v = &s->servers[m->server];
    const enum qy_status st = qy_request_post(v->peer, &m->request);

    if (st == QY_AGAIN) {
        return 0;
    }
    if (st == QY_OK) {
        m->posted = 1;
        v->stats.questions++;
        return 1;
    }
    m->request.status = st;
    settle(s, m);
    return 1;
}

void qyi_message_send(struct qyi_servers *s, struct qyi_servers_message *m)
{
    m->next = s->ready;
    s->ready = m;
}

/* ---- answered -------------------------------------------------------------------------------- */

/* What the server held is gone: it started again, or forgot the session. */
static void lose(struct qyi_server *v)
{
    v->incarnation = 0;
    v->epoch++;
    v->held_blocks = 0;
    v->n_drops = 0;
}

/* The code of an answer, after what its head says of the server was noted; or QYI_REMOTE_CODES: none came. */
static uint16_t heard(struct qyi_servers *s, struct qyi_servers_message *m,
                      struct qyi_remote_reply *reply)
{
    struct qyi_server *v = &s->servers[m->server];
    const struct qy_request *r = &m->request;

    *reply = (struct qyi_remote_reply){0};
    if (r->status != QY_OK) {
        return QYI_REMOTE_CODES;
    }
    if (m->epoch == v->epoch &&
        qyi_remote_reply_parse(r->reply_head, r->reply_head_bytes, reply) == QY_OK) {
        v->free_blocks = reply->free_blocks;
        v->held_blocks = reply->held_blocks;
        v->draining = reply->draining != 0;
        v->heard_ns = qy_node_now(s->params.node);
    }
    if (r->code == QYI_REMOTE_NOT_OPEN && m->epoch == v->epoch && m->kind != QYI_MESSAGE_OPEN) {
        lose(v);
    }
    return r->code;
}

/* 1: the message goes on, with a piece of the book. */
static int settle_open(struct qyi_servers *s, struct qyi_servers_message *m, uint16_t code)
{
    struct qyi_server *v = &s->servers[m->server];
    int more = -1;

    if (m->epoch == v->epoch && m->kind == QYI_MESSAGE_OPEN && code == QYI_REMOTE_DONE) {
        v->book_at = 0;
        more = s->params.book.bytes > 0;
    } else if (m->epoch == v->epoch && m->kind == QYI_MESSAGE_BOOK) {
        more = qyi_book_heard(s, m->server, &m->request, code);
    }
    if (more == 0) {
        v->incarnation = qy_peer_incarnation(v->peer);
    }
    if (more > 0 && !s->resetting) {
        m->kind = QYI_MESSAGE_BOOK;
        m->posted = 0;
        qyi_book_ask(s, m->server, m->payload, &m->request);
        qyi_message_send(s, m);
        return 1;
    }
    v->opening = 0;
    return 0;
}

static void settle_put(struct qyi_servers *s, struct qyi_servers_message *m, uint16_t code)
{
    struct qyi_server *v = &s->servers[m->server];
    struct qyi_store_request *r = m->parts[0];
    struct qyi_place *place = &s->places[r->slot];

    if (code == QYI_REMOTE_FULL) {
        v->free_blocks = 0;
    }
    if ((code == QYI_REMOTE_DONE || code == QYI_REMOTE_HELD) && m->epoch == v->epoch) {
        place->copies[place->n++] = (struct qyi_copy){.server = m->server, .epoch = m->epoch};
        v->stats.puts++;
    }
    if (m->request.status == QY_ERR_TIMEOUT || m->request.status == QY_ERR_PEER) {
        r->tried &= ~((uint64_t)1 << m->server); /* it may be back */
    }
    if (--r->left > 0) {
        return;
    }
    /* Another server is tried while there are others; then what there is must do. */
    if (place->n < s->params.copies && !s->resetting &&
        (qyi_place_choose(s, place, r->tried) != UINT32_MAX ||
         (place->n == 0 && qyi_place_may_take(s, r->tried)))) {
        qyi_store_queue_put(&s->waiting, r);
        return;
    }
    r->done = place->n > 0 ? r->bytes : 0;
    qyi_write_finish(s, r,
                     place->n > 0                          ? 0
                     : code == QYI_REMOTE_FULL             ? ENOSPC
                     : m->request.status == QY_ERR_TIMEOUT ? ETIMEDOUT
                                                           : EIO);
}

static void settle_move_put(struct qyi_servers *s, const struct qyi_servers_message *m,
                            uint16_t code)
{
    struct qyi_server *v = &s->servers[m->server];
    const int good = (code == QYI_REMOTE_DONE || code == QYI_REMOTE_HELD) && m->epoch == v->epoch;

    if (code == QYI_REMOTE_FULL) {
        v->free_blocks = 0;
    }
    v->stats.puts += good ? 1 : 0;
    qyi_move_was_put(s, m->move, m->epoch, good);
}

/* Is the answer what was asked for? */
static int is_good(const struct qyi_servers_message *m, uint16_t code,
                   const struct qyi_remote_reply *reply)
{
    return code == QYI_REMOTE_DONE && m->request.reply_bytes == m->bytes && reply->fold == m->fold;
}

/* Its bytes into their places. */
static void scatter(const struct qyi_servers_message *m)
{
    const uint8_t *from = m->reply;

    for (uint32_t i = 0; m->request.reply == m->reply && i < m->n_parts; i++) {
        struct qyi_store_request *r = m->parts[i];

        memcpy(r->data, from, r->bytes);
        from += r->bytes;
    }
}

/* out of all, then lse of all. */
static void scatter_partials(const struct qyi_servers *s, const struct qyi_servers_message *m)
{
    const size_t out_bytes = s->query_floats * sizeof(float);
    const size_t lse_bytes = s->params.group * sizeof(float);
    const uint8_t *out = m->reply;
    const uint8_t *lse = out + m->n_parts * out_bytes;

    for (uint32_t i = 0; i < m->n_parts; i++, out += out_bytes, lse += lse_bytes) {
        memcpy(m->parts[i]->data, out, out_bytes);
        memcpy(m->parts[i]->list.lse, lse, lse_bytes);
    }
}

static void settle_read(struct qyi_servers *s, struct qyi_servers_message *m, uint16_t code,
                        const struct qyi_remote_reply *reply)
{
    const int good = is_good(m, code, reply);

    if (good) {
        scatter(m);
    }
    for (uint32_t i = 0; i < m->n_parts; i++) {
        struct qyi_store_request *r = m->parts[i];

        if (good) {
            r->done = r->bytes;
            qyi_store_finish(&s->counts, r, 0);
        } else if (s->resetting) {
            qyi_store_finish(&s->counts, r, ECANCELED);
        } else {
            /* the next copy, or this one again when its server is back */
            s->servers[m->server].stats.again++;
            r->tried |= m->request.status != QY_ERR_TIMEOUT && m->request.status != QY_ERR_PEER
                            ? (uint64_t)1 << m->server
                            : 0;
            qyi_store_queue_put(&s->waiting, r);
        }
    }
}

/* What was given up may have no place any more. */
static void settle_attend(struct qyi_servers *s, struct qyi_servers_message *m, uint16_t code,
                          const struct qyi_remote_reply *reply)
{
    const int good = !s->resetting && is_good(m, code, reply);

    if (good && m->kind == QYI_MESSAGE_ATTEND) {
        scatter_partials(s, m);
    } else if (good) {
        scatter(m);
    }
    for (uint32_t i = 0; i < m->n_parts; i++) {
        struct qyi_store_request *r = m->parts[i];

        r->done = good ? r->bytes : 0;
        s->servers[m->server].stats.again += !good && !s->resetting;
        qyi_store_finish(&s->counts, r, good ? 0 : s->resetting ? ECANCELED : EAGAIN);
    }
}

static void settle_chunk(struct qyi_servers *s, struct qyi_servers_message *m, uint16_t code,
                         const struct qyi_remote_reply *reply)
{
    const int good = !s->resetting && is_good(m, code, reply);
    struct qyi_store_request *r = m->parts[0];

    if (good) {
        qyi_servers_chunk_answered(s, m);
    }
    r->done = good ? r->bytes : 0;
    s->servers[m->server].stats.again += !good && !s->resetting;
    qyi_store_finish(&s->counts, r,
                     good                           ? 0
                     : s->resetting                 ? ECANCELED
                     : code == QYI_REMOTE_TOO_LARGE ? E2BIG
                                                    : EAGAIN);
}

static void settle(struct qyi_servers *s, struct qyi_servers_message *m)
{
    struct qyi_remote_reply reply;
    const uint16_t code = heard(s, m, &reply);

    switch (m->kind) {
    case QYI_MESSAGE_OPEN:
    case QYI_MESSAGE_BOOK:
        if (settle_open(s, m, code)) {
            return;
        }
        break;
    case QYI_MESSAGE_PUT:
        settle_put(s, m, code);
        break;
    case QYI_MESSAGE_READ:
    case QYI_MESSAGE_ROWS:
        settle_read(s, m, code, &reply);
        break;
    case QYI_MESSAGE_ATTEND:
    case QYI_MESSAGE_SCORE:
        settle_attend(s, m, code, &reply);
        break;
    case QYI_MESSAGE_CHUNK:
        settle_chunk(s, m, code, &reply);
        break;
    case QYI_MESSAGE_MOVE_READ:
        qyi_move_was_read(s, m->move, is_good(m, code, &reply));
        break;
    case QYI_MESSAGE_MOVE_PUT:
        settle_move_put(s, m, code);
        break;
    case QYI_MESSAGE_STATE: /* its head said what there is to know */
        break;
    case QYI_MESSAGE_DROP: /* not heard: the server's memory is poorer until the sequence ends */
        break;
    }
    give_back(s, m);
}

/* ---- what the store does when it is polled ---------------------------------------------------- */

/* A server that is up and has no session of ours (any more) gets one. */
static void open_again(struct qyi_servers *s, uint32_t i)
{
    struct qyi_server *v = &s->servers[i];

    if (qy_peer_state(v->peer) != QY_PEER_UP || v->opening) {
        return;
    }
    if (v->incarnation != 0 && v->incarnation != qy_peer_incarnation(v->peer)) {
        lose(v);
    }
    if (v->incarnation != 0) {
        return;
    }
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_OPEN, i);
    if (m != NULL) {
        v->opening = 1;
        m->request.op = QYI_REMOTE_OPEN;
        m->request.payload = s->open_payload;
        m->request.payload_bytes = s->open_bytes;
        qyi_message_send(s, m);
    }
}

int qyi_server_has_drops(const struct qyi_server *v)
{
    return v->n_drops > 0 && v->incarnation != 0 && qy_peer_state(v->peer) == QY_PEER_UP &&
           qy_peer_incarnation(v->peer) == v->incarnation;
}

static void tell_drops(struct qyi_servers *s, uint32_t i)
{
    struct qyi_server *v = &s->servers[i];
    const size_t most = s->params.call_bytes / sizeof(struct qyi_remote_drop);

    if (!qyi_server_has_drops(v)) {
        return;
    }
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_DROP, i);
    if (m == NULL) {
        return;
    }
    const uint32_t n = v->n_drops < most ? v->n_drops : (uint32_t)most;
    const struct qyi_remote_count count = {.n = n};
    v->n_drops -= n;
    memcpy(m->payload, v->drops + v->n_drops, n * sizeof(*v->drops));
    memcpy(m->request.head, &count, sizeof(count));
    m->request.op = QYI_REMOTE_DROP;
    m->request.head_bytes = sizeof(count);
    m->request.payload = m->payload;
    m->request.payload_bytes = n * sizeof(*v->drops);
    qyi_message_send(s, m);
}

void qyi_messages_poll(struct qyi_servers *s)
{
    (void)qy_node_progress(s->params.node);
    for (uint32_t i = 0; i < s->n_messages; i++) {
        struct qyi_servers_message *m = &s->messages[i];

        if (m->posted && m->request.status != QY_PENDING) {
            m->posted = 0;
            settle(s, m);
        }
    }
    for (uint32_t i = 0; i < s->params.n; i++) {
        open_again(s, i);
        tell_drops(s, i);
    }
    qyi_moves_go_on(s);
    struct qyi_servers_message *m = s->ready;
    for (s->ready = NULL; m != NULL;) {
        struct qyi_servers_message *next = m->next;

        if (!post(s, m)) {
            qyi_message_send(s, m);
        }
        m = next;
    }
}
