/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the node's on their way out. What the wire has no room for waits here, in order. */
#include "net/node.h"

#include <assert.h>
#include <string.h>

void qyi_out_init(struct qyi_out *out, struct qy_peer *peer, enum qyi_role role)
{
    memset(out, 0, sizeof(*out));
    out->message.user = out;
    out->peer = peer;
    out->role = role;
}

/* 0: there is no room. */
static int sends(struct qyi_out *out)
{
    struct qy_peer *peer = out->peer;
    const struct qyi_wire_ops *ops = peer->node->ops;
    const enum qy_status status = ops->send(peer->node->wire, peer->conn, &out->message);

    if (status != QY_OK && status != QY_AGAIN) {
        qyi_peer_doom(peer, "the connection broke");
    }
    return status != QY_AGAIN;
}

void qyi_out_send(struct qyi_out *out)
{
    struct qy_peer *peer = out->peer;

    assert(!out->busy);
    out->busy = 1; /* on a doomed connection, too: until its end */
    if (peer->doomed || (!peer->waits && sends(out))) {
        return;
    }
    out->next = NULL;
    *peer->waits_end = out;
    peer->waits_end = &out->next;
    peer->node->n_waiting++;
}

static uint32_t flush(struct qy_peer *peer)
{
    uint32_t n = 0;

    while (peer->waits && !peer->doomed && sends(peer->waits)) {
        peer->waits = peer->waits->next;
        peer->node->n_waiting--;
        n++;
    }
    if (!peer->waits) {
        peer->waits_end = &peer->waits;
    }
    return n;
}

uint32_t qyi_outs_flush(struct qy_node *node)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < node->n_places && node->n_waiting > 0; i++) {
        if (node->peers[i].waits) {
            n += flush(&node->peers[i]);
        }
    }
    return n;
}

void qyi_outs_forget(struct qy_peer *peer)
{
    for (; peer->waits; peer->waits = peer->waits->next) {
        peer->node->n_waiting--;
    }
    peer->waits_end = &peer->waits;
}
