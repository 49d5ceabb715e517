/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the wire reports. Everything that comes is checked and handed to whom it concerns; nothing is
 * closed here, and no service is called but for `place`.
 */
#include "net/node.h"

/* The first thing since the last work: what follows goes by the time at which it came. */
static void note(struct qy_node *node)
{
    if (node->n_events++ == 0) {
        qyi_node_clock(node);
    }
}

static int accepted(void *ctx, struct qyi_conn *conn)
{
    struct qy_node *node = ctx;
    struct qy_peer *peer = NULL;

    note(node);
    if (node->serves && node->n_strangers < QYI_STRANGERS) {
        peer = qyi_peer_take(node, 0);
    }
    if (!peer) {
        return 0;
    }
    node->n_strangers++;
    conn->user = peer;
    peer->conn = conn;
    peer->due = node->time + node->timeout;
    qyi_node_due(node, peer->due);
    qyi_greet_open(peer);
    return 1;
}

static void connected(void *ctx, struct qyi_conn *conn)
{
    struct qy_peer *peer = conn->user;

    note(ctx);
    if (peer && peer->asks && !peer->doomed && peer->n_said == 0) {
        qyi_greet_begin(peer);
    }
}

/* May this side be told such a thing now? */
static int expects(const struct qy_peer *peer, uint8_t kind)
{
    switch ((enum qyi_kind)kind) {
    case QYI_KIND_HELLO:
        return 1;
    case QYI_KIND_ASK:
    case QYI_KIND_PING:
        return !peer->asks && peer->state == QY_PEER_UP;
    case QYI_KIND_ANSWER:
    case QYI_KIND_PONG:
    case QYI_KIND_DAMAGED:
        return peer->asks && peer->state == QY_PEER_UP;
    }
    return 0;
}

static void *begins(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token)
{
    struct qy_peer *peer = conn->user;
    struct qy_node *node = ctx;

    note(node);
    *token = NULL;
    if (!peer || peer->doomed || peer->lingers) {
        return NULL;
    }
    const char *why = qyi_node_check_head(node, head);
    if (why) {
        if (!qyi_head_damaged(head) || !peer->asks || !qyi_ask_damaged(peer, head, token)) {
            qyi_peer_doom(peer, "%s", why);
        }
        return NULL;
    }
    if (!expects(peer, head->kind)) {
        qyi_peer_doom(peer, "a message of kind %u at the wrong time", (unsigned)head->kind);
        return NULL;
    }
    peer->heard = node->time;
    peer->heard_at = node->last;
    peer->beat_due = 0;
    switch (head->kind) {
    case QYI_KIND_HELLO:
        return qyi_greet_begins(peer, head);
    case QYI_KIND_ASK:
        return qyi_call_begins(peer, head, token);
    case QYI_KIND_ANSWER:
    case QYI_KIND_DAMAGED:
        return qyi_ask_begins(peer, head, token);
    default:
        return NULL;
    }
}

static void arrived(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token)
{
    struct qy_peer *peer = conn->user;
    struct qy_node *node = ctx;

    note(node);
    if (!peer || peer->doomed || peer->lingers) {
        return;
    }
    peer->heard = node->time;
    peer->heard_at = node->last;
    peer->beat_due = 0;
    if (token) { /* also of a head that is damaged: only this says what it is */
        if (peer->asks) {
            qyi_ask_arrived(token, head, payload);
        } else {
            qyi_call_arrived(token, head, payload);
        }
    } else if (head->kind == QYI_KIND_HELLO) {
        qyi_greet_arrived(peer, head, payload);
    } else if (head->kind == QYI_KIND_PING) {
        qyi_beat_send(peer, QYI_KIND_PONG, head->id);
    }
}

static void sent(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                 enum qy_status status)
{
    struct qyi_out *out = message->user;
    struct qy_peer *peer = out->peer;

    (void)conn;
    note(ctx);
    if (status != QY_OK) {
        qyi_peer_doom(peer, "the connection broke");
    }
    if (peer->doomed) {
        return; /* the end of the connection takes all messages back */
    }
    out->busy = 0;
    switch (out->role) {
    case QYI_OUT_GREET:
        break;
    case QYI_OUT_BEAT:
        qyi_beat_sent(peer);
        break;
    case QYI_OUT_ASK:
        qyi_ask_sent((struct qyi_ask *)out);
        break;
    case QYI_OUT_ANSWER:
        qyi_call_sent((struct qyi_call *)out);
        break;
    }
}

const char qyi_nobody_listens[] = "nobody listens there";

static void broke(void *ctx, struct qyi_conn *conn, const char *why)
{
    struct qy_peer *peer = conn->user;

    note(ctx);
    if (peer) {
        peer->ended |= why == qyi_nobody_listens;
        qyi_peer_doom(peer, "%s", why ? why : "the connection broke");
    }
}

int qy_peer_has_ended(const struct qy_peer *peer)
{
    return peer->ended;
}

void qyi_sink_fill(struct qyi_sink *sink, struct qy_node *node)
{
    *sink = (struct qyi_sink){.ctx = node,
                              .accepted = accepted,
                              .connected = connected,
                              .begins = begins,
                              .arrived = arrived,
                              .sent = sent,
                              .broke = broke};
}
