/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers: how one that we ask comes up, is lost and is tried again, and how one that asks us comes and goes.
 *
 *   CONNECTING --hello--> UP --deadline, broken--> LOST --3 timeouts--> GONE
 *        |                ^---------hello-----------'-------------------'
 *        '--wrong key, other protocol--> REFUSED (from LOST and GONE, too)
 *
 * An attempt may take one timeout. The next follows after a sixteenth of it, and after three timeouts once a
 * second. An idle peer is pinged, so that its loss is known before it is needed: a ping has the deadline of a
 * request.
 */
#include "net/node.h"

#include <stdio.h>
#include <string.h>

static const uint64_t second = 1000000000;

/* ---- places ------------------------------------------------------------------------------------ */

struct qy_peer *qyi_peer_take(struct qy_node *node, int asks)
{
    for (uint32_t i = 0; i < node->n_places; i++) {
        struct qy_peer *peer = &node->peers[i];
        if (!peer->used) {
            const struct qy_peer kept = {.node = node,
                                         .used = 1,
                                         .asks = asks,
                                         .heard = node->time,
                                         .lost_at = node->time,
                                         .all_asks = peer->all_asks,
                                         .all_calls = peer->all_calls,
                                         .buffers = peer->buffers,
                                         .free_buffers = peer->free_buffers};
            *peer = kept;
            peer->waits_end = &peer->waits;
            peer->queue_end = &peer->queue;
            qyi_out_init(&peer->beat, peer, QYI_OUT_BEAT);
            return peer;
        }
    }
    return NULL;
}

void qyi_peer_free(struct qy_peer *peer)
{
    if (peer->node) { /* it was used once */
        const struct qy_allocator *mem = &peer->node->rt->mem;
        qy_free(mem, peer->all_asks);
        qy_free(mem, peer->all_calls);
        qy_free(mem, peer->buffers);
        qy_free(mem, peer->free_buffers);
    }
    memset(peer, 0, sizeof(*peer));
}

void qyi_peer_doom(struct qy_peer *peer, const char *format, ...)
{
    va_list args;

    if (peer->doomed || !peer->conn) {
        return;
    }
    peer->doomed = 1;
    peer->node->n_doomed++;
    if (peer->asks && peer->state == QY_PEER_REFUSED) {
        return; /* why it was refused stays */
    }
    va_start(args, format);
    (void)vsnprintf(peer->why, sizeof(peer->why), format, args);
    va_end(args);
}

/* ---- the end of a connection ------------------------------------------------------------------------ */

/* When the next attempt is made. */
static void try_later(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;
    const int quick = node->time - peer->lost_at < QYI_GONE_TIMEOUTS * node->timeout;
    const uint64_t pause = node->timeout / 16;

    peer->due = node->time + (quick && pause < second ? pause : second);
    qyi_node_due(node, peer->due);
}

/* Behind its name in messages: where it is, unless the name says so. */
static int is_named(const struct qy_peer *peer)
{
    return strcmp(peer->name, peer->address) != 0;
}

static const char *at(const struct qy_peer *peer)
{
    return is_named(peer) ? " at " : "";
}

static const char *at_address(const struct qy_peer *peer)
{
    return is_named(peer) ? peer->address : "";
}

static void end_asked(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;

    if (peer->state == QY_PEER_UP) {
        peer->state = QY_PEER_LOST;
        peer->lost_at = node->time;
        peer->stats.lost_ns = node->last;
        peer->stats.broken += peer->timed_out ? 0 : 1;
        qy_log_write(&node->rt->log, node->closing ? QY_LOG_DEBUG : QY_LOG_WARN, "net",
                     "peer '%s'%s%s: lost: %s, %llu ms after it was last heard", peer->name,
                     at(peer), at_address(peer), peer->why,
                     (unsigned long long)(node->last - peer->heard_at) / 1000000);
    }
    peer->timed_out = 0;
    qyi_asks_fail(peer);
    if (peer->state != QY_PEER_REFUSED) {
        try_later(peer);
    }
}

static void end_accepted(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;

    if (peer->state == QY_PEER_UP) {
        qyi_calls_give_up(peer);
        node->n_peers--;
        if (node->service.left) {
            node->service.left(node->service.ctx, peer, peer->why);
        }
    } else {
        node->n_strangers--;
    }
    qy_log_write(&node->rt->log, QY_LOG_DEBUG, "net", "%s left: %s",
                 peer->state == QY_PEER_UP ? peer->name : "somebody who did not prove himself",
                 peer->why);
    peer->used = 0;
}

void qyi_peer_end(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;

    node->n_doomed -= peer->doomed ? 1 : 0;
    node->n_joining -= peer->joins ? 1 : 0;
    peer->doomed = 0;
    peer->joins = 0;
    peer->lingers = 0;
    if (peer->conn) {
        node->ops->close_conn(node->wire, peer->conn);
        peer->conn = NULL;
    }
    qyi_outs_forget(peer);
    peer->beat.busy = 0;
    peer->beat_due = 0;
    peer->pong_id = 0;
    if (peer->asks) {
        end_asked(peer);
    } else {
        end_accepted(peer);
    }
}

/* ---- the end of a hello -------------------------------------------------------------------------------- */

void qyi_peer_up(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;
    const int again = peer->state != QY_PEER_CONNECTING;

    peer->state = QY_PEER_UP;
    peer->ended = 0;
    peer->incarnation = peer->hello.theirs.incarnation;
    peer->depth = peer->hello.terms.depth < node->depth ? peer->hello.terms.depth : node->depth;
    peer->heard = node->time;
    qyi_node_due(node, node->time + node->timeout / QYI_PINGS);
    qy_log_write(&node->rt->log, again ? QY_LOG_WARN : QY_LOG_DEBUG, "net", "peer '%s'%s%s: %s",
                 peer->name, at(peer), at_address(peer), again ? "back again" : "connected");
}

static struct qy_peer *same_session(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;

    for (uint32_t i = 0; i < node->n_places; i++) {
        struct qy_peer *other = &node->peers[i];
        if (other != peer && other->used && !other->asks && other->state == QY_PEER_UP &&
            memcmp(other->hello.theirs.session, peer->hello.theirs.session, QY_NET_SESSION_BYTES) ==
                0) {
            return other;
        }
    }
    return NULL;
}

void qyi_peer_join(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;
    const uint8_t *session = peer->hello.theirs.session;
    struct qy_peer *old = same_session(peer);

    peer->joins = 0;
    node->n_joining--;
    if (old) {
        qyi_peer_doom(old, "it came back over another connection");
        qyi_peer_end(old);
    }
    if (node->n_peers >= node->max_peers || qyi_calls_open(peer) != QY_OK) {
        qy_log_write(&node->rt->log, QY_LOG_WARN, "net",
                     "somebody who knows the key connected: no room; this node has %u peers of %u",
                     (unsigned)node->n_peers, (unsigned)node->max_peers);
        qyi_peer_doom(peer, "there is no room for it");
        qyi_peer_end(peer);
        return;
    }
    node->n_strangers--;
    node->n_peers++;
    peer->state = QY_PEER_UP;
    peer->incarnation = peer->hello.theirs.incarnation;
    peer->heard = node->time;
    qyi_node_due(node, node->time + node->silent);
    (void)snprintf(peer->name, sizeof(peer->name), "session %02x%02x%02x%02x", session[0],
                   session[1], session[2], session[3]);
    qy_log_write(&node->rt->log, QY_LOG_DEBUG, "net", "%s joined", peer->name);
    if (node->service.joined) {
        node->service.joined(node->service.ctx, peer);
    }
    qyi_greet_say(peer, peer->welcome_bytes);
}

/* ---- deadlines --------------------------------------------------------------------------------------- */

static uint64_t tick_accepted(struct qy_peer *peer)
{
    const struct qy_node *node = peer->node;
    const int up = peer->state == QY_PEER_UP;
    const uint64_t due = up ? peer->heard + node->silent : peer->due;

    if (node->time < due) {
        return due;
    }
    qyi_peer_doom(peer, up ? "it is silent" : "no hello in time");
    return UINT64_MAX;
}

static enum qy_status attempt(struct qy_peer *peer, struct qy_error *err)
{
    struct qy_node *node = peer->node;

    peer->due = node->time + node->timeout;
    qyi_node_due(node, peer->due);
    qyi_greet_open(peer);
    return node->ops->connect(node->wire, peer->address, peer, &peer->conn, err);
}

static void missed(struct qy_peer *peer, uint32_t n)
{
    peer->stats.timeouts += n;
    peer->timed_out = 1;
    qyi_peer_doom(peer, "no answer in time");
}

static uint64_t tick_up(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;
    uint64_t next = UINT64_MAX;
    const uint32_t late = qyi_asks_late(peer, &next);

    if (late > 0) {
        missed(peer, late);
    } else if (peer->n_asks == 0 && peer->beat_due != 0) {
        if (node->time >= peer->beat_due) {
            missed(peer, 1);
        }
        next = peer->beat_due;
    } else if (peer->n_asks == 0) {
        next = peer->heard + node->timeout / QYI_PINGS;
        if (node->time >= next) {
            next = node->time + node->timeout;
            if (!peer->beat.busy) {
                peer->beat_due = next;
                qyi_beat_send(peer, QYI_KIND_PING, ++node->serial);
            }
        }
    }
    return next;
}

static uint64_t tick_asked(struct qy_peer *peer)
{
    struct qy_node *node = peer->node;
    const uint64_t gone = peer->lost_at + QYI_GONE_TIMEOUTS * node->timeout;
    struct qy_error err = {0};

    if (peer->state == QY_PEER_UP) {
        return tick_up(peer);
    }
    if (peer->state == QY_PEER_LOST && node->time >= gone) {
        peer->state = QY_PEER_GONE;
        qy_log_write(&node->rt->log, QY_LOG_WARN, "net", "peer '%s'%s%s: gone: %s", peer->name,
                     at(peer), at_address(peer), peer->why);
    }
    if (node->time >= peer->due) {
        if (peer->conn) {
            qyi_peer_doom(peer, "no answer to a hello in time");
        } else if (peer->state != QY_PEER_REFUSED && attempt(peer, &err) != QY_OK) {
            (void)snprintf(peer->why, sizeof(peer->why), "%s", err.text);
            try_later(peer);
        }
    }
    if (peer->doomed || (peer->state == QY_PEER_REFUSED && !peer->conn)) {
        return UINT64_MAX; /* its end says when there is more to do */
    }
    return peer->state == QY_PEER_LOST && gone < peer->due ? gone : peer->due;
}

uint64_t qyi_peer_tick(struct qy_peer *peer)
{
    return peer->asks ? tick_asked(peer) : tick_accepted(peer);
}

/* ---- public -------------------------------------------------------------------------------------- */

enum qy_status qy_peer_open(struct qy_node *node, const char *address, const char *name,
                            struct qy_peer **peer, struct qy_error *err)
{
    if (strlen(address) >= QY_NET_ADDRESS_BYTES) {
        return qy_error_set(err, QY_ERR_INVALID, "peer '%s': an address has at most %d characters",
                            address, QY_NET_ADDRESS_BYTES - 1);
    }
    qyi_node_clock(node);
    struct qy_peer *made = node->n_peers < node->max_peers ? qyi_peer_take(node, 1) : NULL;
    if (!made) {
        return qy_error_set(err, QY_ERR_INVALID, "peer '%s': this node has its %u peers", address,
                            (unsigned)node->max_peers);
    }
    (void)snprintf(made->name, sizeof(made->name), "%s", name);
    (void)snprintf(made->address, sizeof(made->address), "%s", address);
    enum qy_status status = qyi_asks_open(made);
    if (status != QY_OK) {
        (void)qy_error_set(err, status, "peer '%s': no memory for %u requests", address,
                           (unsigned)node->depth);
    } else {
        status = attempt(made, err);
    }
    if (status != QY_OK) {
        made->used = 0;
        return status;
    }
    node->n_peers++;
    *peer = made;
    return QY_OK;
}

void qy_peer_close(struct qy_peer *peer)
{
    if (peer) {
        peer->state = QY_PEER_REFUSED; /* nothing is to be said of its end */
        qyi_peer_end(peer);
        peer->node->n_peers--;
        peer->used = 0;
    }
}

enum qy_status qy_peer_wait(struct qy_peer *peer, uint64_t timeout_ns, struct qy_error *err)
{
    struct qy_node *node = peer->node;
    const uint64_t now = qy_node_now(node);
    const uint64_t until = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;

    while (peer->state != QY_PEER_UP && peer->state != QY_PEER_REFUSED &&
           qy_node_now(node) < until) {
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, until);
        }
    }
    if (peer->state == QY_PEER_UP) {
        return QY_OK;
    }
    if (peer->state == QY_PEER_REFUSED) {
        return qy_error_set(err, QY_ERR_PEER, "peer '%s'%s%s: refused: %s", peer->name, at(peer),
                            at_address(peer), peer->why);
    }
    return qy_error_set(
        err, QY_ERR_TIMEOUT,
        "peer '%s'%s%s: not reached within %llu ms (%s); is it running there, and is "
        "the address right?",
        peer->name, at(peer), at_address(peer), (unsigned long long)(timeout_ns / 1000000),
        peer->why[0] ? peer->why : "no answer");
}

enum qy_peer_state qy_peer_state(const struct qy_peer *peer)
{
    return peer->state;
}

const char *qy_peer_state_name(enum qy_peer_state state)
{
    switch (state) {
    case QY_PEER_CONNECTING:
        return "connecting";
    case QY_PEER_UP:
        return "up";
    case QY_PEER_LOST:
        return "lost";
    case QY_PEER_GONE:
        return "gone";
    case QY_PEER_REFUSED:
        return "refused";
    }
    return "?";
}

const char *qy_peer_name(const struct qy_peer *peer)
{
    return peer->name;
}

uint64_t qy_peer_incarnation(const struct qy_peer *peer)
{
    return peer->incarnation;
}

const uint8_t *qy_peer_session(const struct qy_peer *peer)
{
    return peer->hello.theirs.session;
}

void qy_peer_set_user(struct qy_peer *peer, void *user)
{
    peer->user = user;
}

void *qy_peer_user(const struct qy_peer *peer)
{
    return peer->user;
}

void qy_peer_stats(const struct qy_peer *peer, struct qy_peer_stats *stats)
{
    *stats = peer->stats;
}
