/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hello over a connection, and pings. A greeting's id is its number (hello.h, 1 to 4): one that comes
 * twice is known by it. After a refusal the other end is given time to read it, and closes.
 */
#include "net/node.h"

#include <assert.h>
#include <string.h>

/* ---- hello -------------------------------------------------------------------------------------- */

void qyi_greet_open(struct qy_peer *peer)
{
    const struct qy_node *node = peer->node;
    const struct qyi_terms terms = {
        .call_bytes = node->call_bytes, .answer_bytes = node->answer_bytes, .depth = node->depth};

    qyi_hello_open(&peer->hello, peer->asks, &node->identity, &terms);
    for (uint32_t i = 0; i < QYI_GREETINGS; i++) {
        qyi_out_init(&peer->greets[i], peer, QYI_OUT_GREET);
    }
    peer->n_said = 0;
    peer->n_heard = 0;
    peer->greeting = 0;
    peer->lingers = 0;
}

void qyi_greet_say(struct qy_peer *peer, size_t bytes)
{
    const uint32_t n = peer->n_said++;
    struct qyi_message *message = &peer->greets[n].message;

    assert(n < QYI_GREETINGS && bytes <= QYI_HELLO_BYTES);
    message->head.kind = QYI_KIND_HELLO;
    message->head.id = 2 * (uint64_t)n + (peer->asks ? 1 : 2);
    message->head.payload_bytes = bytes;
    message->payload = peer->greetings[n];
    qyi_node_seal(peer->node, &message->head, message->payload);
    qyi_out_send(&peer->greets[n]);
}

void qyi_greet_begin(struct qy_peer *peer)
{
    qyi_greet_say(peer, qyi_hello_begin(&peer->hello, peer->greetings[0]));
}

void *qyi_greet_begins(struct qy_peer *peer, const struct qyi_head *head)
{
    const uint64_t expected = 2 * (uint64_t)peer->n_heard + (peer->asks ? 2 : 1);
    const enum qyi_hello_stage stage = peer->hello.stage;

    if (head->id < expected || (head->id == expected && peer->greeting)) {
        return NULL; /* again */
    }
    if (head->id > expected || stage == QYI_HELLO_DONE || stage == QYI_HELLO_REFUSED) {
        qyi_peer_doom(peer, "a hello at the wrong time");
        return NULL;
    }
    peer->greeting = 1;
    return peer->greeted;
}

static void refuse(struct qy_peer *peer, size_t bytes)
{
    const char *who = peer->asks ? peer->address : "somebody who connected";

    qy_log_write(&peer->node->rt->log, QY_LOG_WARN, "net", "%s: refused: %s", who, peer->hello.why);
    if (peer->asks) {
        peer->state = QY_PEER_REFUSED;
        memcpy(peer->why, peer->hello.why, sizeof(peer->hello.why));
    }
    if (bytes > 0) { /* they are to read why before the connection closes */
        qyi_greet_say(peer, bytes);
        peer->lingers = 1;
    } else {
        qyi_peer_doom(peer, "%s", peer->hello.why);
    }
}

void qyi_greet_arrived(struct qy_peer *peer, const struct qyi_head *head, const void *payload)
{
    struct qyi_hello *hello = &peer->hello;

    if (!payload) {
        return; /* what `begins` did not want */
    }
    peer->greeting = 0;
    peer->n_heard++;
    if (!qyi_node_check_payload(peer->node, head, payload)) {
        qyi_peer_doom(peer, "a hello came damaged");
        return;
    }
    const size_t bytes = qyi_hello_take(hello, peer->node->key, payload, head->payload_bytes,
                                        peer->greetings[peer->n_said]);
    if (hello->stage == QYI_HELLO_REFUSED) {
        refuse(peer, bytes);
    } else if (hello->stage != QYI_HELLO_DONE) {
        qyi_greet_say(peer, bytes);
    } else if (peer->asks) {
        qyi_peer_up(peer);
    } else { /* the welcome is sent when there is room for it, and its old connection is gone */
        peer->welcome_bytes = bytes;
        peer->joins = 1;
        peer->node->n_joining++;
    }
}

/* ---- pings ---------------------------------------------------------------------------------------- */

void qyi_beat_send(struct qy_peer *peer, enum qyi_kind kind, uint64_t id)
{
    struct qyi_head *head = &peer->beat.message.head;

    if (peer->beat.busy) {
        peer->pong_id = id; /* the last one asked for stands for all */
        return;
    }
    memset(head, 0, sizeof(*head));
    head->kind = (uint8_t)kind;
    head->id = id;
    qyi_node_seal(peer->node, head, NULL);
    qyi_out_send(&peer->beat);
}

void qyi_beat_sent(struct qy_peer *peer)
{
    const uint64_t id = peer->pong_id;

    if (id != 0 && !peer->asks) {
        peer->pong_id = 0;
        qyi_beat_send(peer, QYI_KIND_PONG, id);
    }
}
