/* SPDX-License-Identifier: Apache-2.0 */
/* What an event on a fabric does: who is called, with what, and what follows from it. */
#include "net/loopback_internal.h"

#include <assert.h>
#include <string.h>

/* The sender of a flight hears that its memory is free. */
static void tell(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    struct qyi_end *end = &link->ends[side];
    struct qyi_message *message = flight->message;
    assert(qyi_flight_seal(flight, message) == flight->seal); /* kept until now */
    flight->message = NULL;
    end->under_way--;
    end->loop->sink.sent(end->loop->sink.ctx, &end->conn, message, flight->status);
}

/* The node of an open end learns that its connection broke. */
static void break_end(struct qyi_link *link, int side, const char *why)
{
    struct qyi_end *end = &link->ends[side];
    struct qyi_sink *sink = &end->loop->sink;
    struct qy_fabric *fabric = link->fabric;
    int broke_first = fabric->order == QY_FABRIC_REVERSED ||
                      (fabric->order == QY_FABRIC_RANDOM && qyi_fabric_draw(fabric, 2) == 0);
    end->state = QYI_END_BROKEN; /* from here on nothing can be sent, whatever the sink does */
    if (broke_first) {
        sink->broke(sink->ctx, &end->conn, why);
    }
    for (struct qyi_flight *flight = link->first[side]; flight != NULL; flight = flight->next) {
        if (flight->message != NULL) {
            flight->status = QY_ERR_PEER;
            tell(link, side, flight);
        }
    }
    if (!broke_first) {
        sink->broke(sink->ctx, &end->conn, why);
    }
    end->state = QYI_END_OPEN; /* who leaves must have been there */
    qyi_link_leave(link, side, why);
}

static void flight_ends(struct qyi_link *link, struct qyi_flight *flight, enum qy_status status)
{
    struct qy_fabric *fabric = link->fabric;
    flight->stage = QYI_FLIGHT_OVER;
    if (flight->lent) {
        flight->status = status;
        qyi_flight_free_at(link, flight, fabric->now_ns + fabric->latency_ns);
    }
}

/* The connection's request reaches the other place. */
static void knock(struct qyi_link *link, struct qyi_flight *flight)
{
    struct qy_fabric *fabric = link->fabric;
    struct qyi_loop *loop = link->places[1]->loop;
    struct qyi_end *end = &link->ends[1];
    struct qyi_flight *answer = &link->greeting[1];
    const char *why = NULL;
    flight->stage = QYI_FLIGHT_OVER;
    if (link->ends[0].state != QYI_END_OPEN) {
        return;
    }
    qyi_link_push(link, 1, answer, fabric->now_ns + fabric->latency_ns);
    if (loop == NULL || !loop->listens) {
        why = qyi_nobody_listens;
    } else if (loop->n_conns >= loop->max_conns) {
        why = "the node has no room for another connection";
    } else {
        end->loop = loop;
        end->state = QYI_END_OPEN;
        loop->n_conns++;
        if (!loop->sink.accepted(loop->sink.ctx, &end->conn)) {
            why = "the node has no room for another connection";
            qyi_link_leave(link, 1, why); /* with what it may have sent */
            end->state = QYI_END_NONE;
            loop->n_conns--;
        }
    }
    if (why != NULL) {
        answer->kind = QYI_FLIGHT_BREAK;
        answer->why = why;
    }
}

/* The bytes of a message reach the link of its receiver's place; when all of them are in. */
static uint64_t all_in(struct qyi_link *link, int side, const struct qyi_flight *flight)
{
    struct qyi_place *at = link->places[1 - side];
    uint64_t now = link->fabric->now_ns;
    uint64_t start = at->in_free_ns > now ? at->in_free_ns : now;
    at->in_free_ns = start + flight->wire_ns;
    return at->in_free_ns;
}

static void payload_arrives(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    struct qyi_end *end = &link->ends[1 - side];
    struct qyi_sink *sink = &end->loop->sink;
    uint8_t *to = flight->to;
    if (to != NULL) {
        memcpy(to, flight->payload, flight->payload_bytes);
        if (flight->flip != SIZE_MAX) {
            to[flight->flip / 8] ^= (uint8_t)(1u << flight->flip % 8);
        }
    }
    flight_ends(link, flight, QY_OK);
    sink->arrived(sink->ctx, &end->conn, &flight->head, to, flight->token);
}

static void message_begins(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    struct qyi_end *end = &link->ends[1 - side];
    struct qyi_sink *sink = &end->loop->sink;
    if (flight->head.payload_bytes != flight->payload_bytes) {
        flight_ends(link, flight, QY_OK);
        break_end(link, 1 - side, "a message came whose length is not what its head says");
        return;
    }
    uint8_t *to = sink->begins(sink->ctx, &end->conn, &flight->head, &flight->token);
    flight->to = flight->payload_bytes > 0 ? to : NULL;
    if (!flight->lent) {
        payload_arrives(link, side, flight);
        return;
    }
    if (flight->to != NULL) { /* one that is given up now leaves half of itself there */
        memcpy(flight->to, flight->payload, flight->payload_bytes / 2);
    }
    flight->stage = QYI_FLIGHT_BEGUN;
    flight->far_ns = all_in(link, side, flight);
    flight->far_turn = link->fabric->turns++;
}

static void message_moves(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    if (flight->dropped) {
        flight_ends(link, flight, QY_OK);
    } else if (link->ends[1 - side].state != QYI_END_OPEN) {
        flight_ends(link, flight, QY_ERR_PEER);
    } else if (flight->stage == QYI_FLIGHT_BEGUN) {
        payload_arrives(link, side, flight);
    } else if (flight->stage == QYI_FLIGHT_WAITS && !flight->lent && flight->wire_ns > 0) {
        flight->stage = QYI_FLIGHT_COMES;
        flight->far_ns = all_in(link, side, flight);
        flight->far_turn = link->fabric->turns++;
    } else {
        message_begins(link, side, flight);
    }
}

void qyi_flight_tell(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    tell(link, side, flight);
    qyi_link_sweep(link, side);
}

void qyi_flight_move(struct qyi_link *link, int side, struct qyi_flight *flight)
{
    struct qyi_end *far = &link->ends[1 - side];
    switch (flight->kind) {
    case QYI_FLIGHT_CONNECT:
        knock(link, flight);
        break;
    case QYI_FLIGHT_ACCEPT:
        flight->stage = QYI_FLIGHT_OVER;
        if (far->state == QYI_END_OPEN) {
            far->loop->sink.connected(far->loop->sink.ctx, &far->conn);
        }
        break;
    case QYI_FLIGHT_MESSAGE:
        message_moves(link, side, flight);
        break;
    case QYI_FLIGHT_BREAK:
        flight->stage = QYI_FLIGHT_OVER;
        if (far->state == QYI_END_OPEN) {
            break_end(link, 1 - side, flight->why);
        }
        break;
    }
    qyi_link_sweep(link, side);
}
