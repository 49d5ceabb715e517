/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: questions that we ask. A request is done when its answer is here (or its connection is not) and
 * the wire has given the message back: only then does nobody touch the caller's memory any more.
 *
 * A question's id holds its place among the peer's, and a number that grows.
 */
#include "net/node.h"

#include <string.h>

/* ---- places ------------------------------------------------------------------------------------ */

enum qy_status qyi_asks_open(struct qy_peer *peer)
{
    const struct qy_node *node = peer->node;

    if (!peer->all_asks) {
        peer->all_asks = qy_alloc_zero(&node->rt->mem, node->depth * sizeof(*peer->all_asks));
    }
    if (!peer->all_asks) {
        return QY_ERR_NOMEM;
    }
    memset(peer->all_asks, 0, node->depth * sizeof(*peer->all_asks));
    peer->free_asks = NULL;
    for (uint32_t i = node->depth; i-- > 0;) {
        peer->all_asks[i].next = peer->free_asks;
        peer->free_asks = &peer->all_asks[i];
    }
    peer->n_asks = 0;
    return QY_OK;
}

static struct qyi_ask *find(const struct qy_peer *peer, uint64_t id)
{
    const uint64_t place = id & (QYI_ASKS - 1);

    if (place >= peer->node->depth) {
        return NULL;
    }
    struct qyi_ask *ask = &peer->all_asks[place];
    return ask->request && ask->request->id == id ? ask : NULL;
}

/* The last thing that is done to a request. */
static void finish(struct qyi_ask *ask, enum qy_status status)
{
    struct qy_peer *peer = ask->out.peer;
    struct qy_request *r = ask->request;

    ask->request = NULL;
    ask->next = peer->free_asks;
    peer->free_asks = ask;
    peer->n_asks--;
    if (peer->n_asks == 0) { /* idle from now on: pings have their turn */
        qyi_node_due(peer->node, peer->heard + peer->node->timeout / QYI_PINGS);
    }
    if (status == QY_OK) {
        peer->stats.requests++;
        peer->stats.sent_bytes += r->payload_bytes;
        peer->stats.received_bytes += r->reply_bytes;
    }
    r->took_ns = peer->node->last - r->took_ns;
    r->message = NULL;
    if (r->counts) {
        r->counts->pending--;
        if (r->counts->status == QY_OK) {
            r->counts->status = status;
        }
    }
    r->status = status;
}

static void finish_when_sent(struct qyi_ask *ask, enum qy_status status)
{
    if (!ask->out.busy) {
        finish(ask, status);
    } else if (!ask->over) {
        ask->over = 1;
        ask->result = status;
    }
}

/* ---- asking -------------------------------------------------------------------------------------- */

static int sizes_fit(const struct qy_request *r)
{
    return r->head_bytes <= QY_NET_HEAD_BYTES && (r->payload || r->payload_bytes == 0) &&
           (r->reply || r->reply_capacity == 0);
}

/* Under an id of its own each time: an answer to an earlier one is not waited for any more. */
static void send_question(struct qyi_ask *ask)
{
    struct qy_peer *peer = ask->out.peer;
    struct qyi_message *message = &ask->out.message;

    ask->request->id = ++peer->node->serial * QYI_ASKS + (uint64_t)(ask - peer->all_asks);
    message->head.id = ask->request->id;
    qyi_node_seal(peer->node, &message->head, message->payload);
    qyi_out_send(&ask->out);
}

enum qy_status qy_request_post(struct qy_peer *peer, struct qy_request *request)
{
    struct qy_node *node = peer->node;
    struct qyi_ask *ask = peer->free_asks;

    if (!sizes_fit(request)) {
        return QY_ERR_INVALID;
    }
    if (peer->state != QY_PEER_UP || peer->doomed) {
        return QY_ERR_PEER;
    }
    if (!ask || peer->n_asks >= peer->depth) {
        return QY_AGAIN;
    }
    qyi_node_clock(node);
    const uint64_t timeout = request->timeout_ns ? request->timeout_ns : node->timeout;
    peer->free_asks = ask->next;
    peer->n_asks++;
    memset(ask, 0, sizeof(*ask));
    qyi_out_init(&ask->out, peer, QYI_OUT_ASK);
    ask->request = request;
    request->status = QY_PENDING;
    request->code = 0;
    request->reply_head_bytes = 0;
    request->reply_bytes = 0;
    request->took_ns = node->last; /* when it began */
    request->peer = peer;
    request->deadline_ns = timeout < UINT64_MAX - node->time ? node->time + timeout : UINT64_MAX;
    request->state = 0;
    request->asked_again = 0;
    request->next = NULL;
    request->message = ask;
    if (request->counts) {
        request->counts->pending++;
    }
    qyi_node_due(node, request->deadline_ns);

    struct qyi_message *message = &ask->out.message;
    message->head.kind = QYI_KIND_ASK;
    message->head.op = request->op;
    message->head.payload_bytes = request->payload_bytes;
    message->head.head_bytes = request->head_bytes;
    memcpy(message->head.head, request->head, request->head_bytes);
    message->payload = request->payload_bytes ? request->payload : NULL;
    send_question(ask);
    return QY_OK;
}

enum qy_status qy_op_wait(struct qy_node *node, struct qy_op *op)
{
    while (op->pending > 0) {
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, UINT64_MAX);
        }
    }
    return op->status;
}

static void ask_again(struct qyi_ask *ask)
{
    struct qy_peer *peer = ask->out.peer;

    peer->stats.corrupt++;
    if (ask->request->asked_again) {
        finish_when_sent(ask, QY_ERR_CORRUPT);
        return;
    }
    ask->request->asked_again = 1;
    peer->stats.again++;
    peer->node->checks.again++;
    if (ask->out.busy) {
        ask->again = 1;
    } else {
        send_question(ask);
    }
}

void qyi_ask_sent(struct qyi_ask *ask)
{
    if (ask->over) {
        finish(ask, ask->result);
    } else if (ask->again) {
        ask->again = 0;
        send_question(ask);
    }
}

/* ---- answers -------------------------------------------------------------------------------------- */

/* The question that this answers, when an answer is still waited for: not one that came twice. */
static struct qyi_ask *waits_for(const struct qy_peer *peer, const struct qyi_head *head)
{
    struct qyi_ask *ask = find(peer, head->id);

    if (ask && (ask->receiving || ask->over || ask->again)) {
        ask = NULL;
    }
    if (ask) {
        ask->receiving = 1;
        ask->damaged = 0;
        ask->too_large = 0;
    }
    return ask;
}

void *qyi_ask_begins(struct qy_peer *peer, const struct qyi_head *head, void **token)
{
    struct qyi_ask *ask = waits_for(peer, head);

    *token = ask;
    if (!ask) {
        return NULL;
    }
    ask->damaged = head->kind == QYI_KIND_DAMAGED;
    ask->too_large = head->payload_bytes > ask->request->reply_capacity;
    return ask->too_large || head->payload_bytes == 0 ? NULL : ask->request->reply;
}

int qyi_ask_damaged(struct qy_peer *peer, const struct qyi_head *head, void **token)
{
    struct qyi_ask *ask = peer->state == QY_PEER_UP ? waits_for(peer, head) : NULL;

    *token = ask;
    if (ask) {
        ask->damaged = 1;
    }
    return ask != NULL;
}

/* Is what came what was sent? Of an answer that was too large only the head is known. */
static int came_whole(const struct qyi_ask *ask, const struct qyi_head *head, const void *payload)
{
    if (ask->damaged || ask->too_large) {
        return !ask->damaged;
    }
    return (payload || head->payload_bytes == 0) &&
           qyi_node_check_payload(ask->out.peer->node, head, payload);
}

void qyi_ask_arrived(struct qyi_ask *ask, const struct qyi_head *head, const void *payload)
{
    struct qy_request *r = ask->request;

    ask->receiving = 0;
    if (!came_whole(ask, head, payload)) {
        ask_again(ask);
    } else if (ask->too_large) {
        finish_when_sent(ask, QY_ERR_INVALID);
    } else {
        r->code = head->op;
        r->reply_head_bytes = head->head_bytes;
        memcpy(r->reply_head, head->head, head->head_bytes);
        r->reply_bytes = head->payload_bytes;
        finish_when_sent(ask, QY_OK);
    }
}

/* ---- ends ---------------------------------------------------------------------------------------- */

uint32_t qyi_asks_late(const struct qy_peer *peer, uint64_t *next)
{
    uint32_t late = 0;

    for (uint32_t i = 0; i < peer->node->depth && peer->n_asks > 0; i++) {
        const struct qy_request *r = peer->all_asks[i].request;
        if (r && peer->node->time >= r->deadline_ns) {
            late++;
        } else if (r && r->deadline_ns < *next) {
            *next = r->deadline_ns;
        }
    }
    return late;
}

void qyi_asks_fail(struct qy_peer *peer)
{
    for (uint32_t i = 0; i < peer->node->depth && peer->n_asks > 0; i++) {
        struct qyi_ask *ask = &peer->all_asks[i];
        if (ask->request) {
            const int late = peer->node->time >= ask->request->deadline_ns;
            /* What was answered already has its answer: the wire only kept the question. */
            finish(ask, ask->over ? ask->result : late ? QY_ERR_TIMEOUT : QY_ERR_PEER);
        }
    }
}
