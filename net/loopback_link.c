/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of a fabric and what flies over them: made, put on the way, given up, freed. */
#include "net/loopback_internal.h"

#include <assert.h>
#include <string.h>

void qyi_link_push(struct qyi_link *link, int side, struct qyi_flight *flight, uint64_t far_ns)
{
    flight->next = NULL;
    flight->stage = QYI_FLIGHT_WAITS;
    flight->far_ns = far_ns;
    flight->far_turn = link->fabric->turns++;
    if (link->last[side] != NULL) {
        link->last[side]->next = flight;
    } else {
        link->first[side] = flight;
    }
    link->last[side] = flight;
}

struct qyi_link *qyi_link_open(struct qyi_loop *asker, struct qyi_place *to, void *user)
{
    struct qy_fabric *fabric = asker->fabric;
    struct qyi_link *link = qy_alloc_zero(fabric->mem, sizeof(*link));
    if (link == NULL) {
        return NULL;
    }
    link->fabric = fabric;
    link->places[0] = asker->place;
    link->places[1] = to;
    for (int side = 0; side < 2; side++) {
        link->ends[side].link = link;
        link->ends[side].side = side;
        link->greeting[side].kind = side == 0 ? QYI_FLIGHT_CONNECT : QYI_FLIGHT_ACCEPT;
        link->greeting[side].ours = 1;
        link->farewell[side].kind = QYI_FLIGHT_BREAK;
        link->farewell[side].ours = 1;
    }
    link->ends[0].loop = asker;
    link->ends[0].state = QYI_END_OPEN;
    link->ends[0].conn.user = user;
    link->after = fabric->links;
    if (link->after != NULL) {
        link->after->before = link;
    }
    fabric->links = link;
    asker->n_conns++;
    qyi_link_push(link, 0, &link->greeting[0], fabric->now_ns + fabric->latency_ns);
    return link;
}

struct qyi_flight *qyi_flight_open(struct qyi_link *link, const struct qyi_message *message,
                                   int lent)
{
    size_t bytes = (size_t)message->head.payload_bytes;
    struct qyi_flight *flight =
        qy_alloc_zero(link->fabric->mem, sizeof(*flight) + (lent ? 0 : bytes));
    if (flight == NULL) {
        return NULL;
    }
    flight->kind = QYI_FLIGHT_MESSAGE;
    flight->lent = lent;
    flight->head = message->head;
    flight->payload_bytes = bytes;
    flight->payload = message->payload;
    flight->flip = SIZE_MAX;
    flight->seal = qyi_flight_seal(flight, message);
    if (!lent && bytes > 0) {
        memcpy(flight + 1, message->payload, bytes);
        flight->payload = (const uint8_t *)(flight + 1);
    }
    return flight;
}

uint64_t qyi_flight_seal(const struct qyi_flight *flight, const struct qyi_message *message)
{
    uint64_t head = qy_checksum(&message->head, sizeof(message->head), 0);
    return flight->lent ? qy_checksum(message->payload, flight->payload_bytes, head) : head;
}

void qyi_flight_close(struct qyi_link *link, struct qyi_flight *flight)
{
    if (!flight->ours) {
        qy_free(link->fabric->mem, flight);
    }
}

void qyi_flight_free_at(struct qyi_link *link, struct qyi_flight *flight, uint64_t ns)
{
    struct qy_fabric *fabric = link->fabric;
    int late = fabric->order == QY_FABRIC_RANDOM;
    flight->near_ns = ns + (late ? qyi_fabric_draw(fabric, 2 * fabric->latency_ns + 1) : 0);
    flight->near_turn = fabric->turns++;
}

void qyi_link_depart(struct qyi_link *link, int side, struct qyi_flight *flight, uint64_t delay_ns)
{
    struct qy_fabric *fabric = link->fabric;
    struct qyi_place *from = link->places[side];
    uint64_t start = from->out_free_ns > fabric->now_ns ? from->out_free_ns : fabric->now_ns;
    double bits = 8.0 * (double)(sizeof(flight->head) + flight->payload_bytes);
    flight->wire_ns = fabric->gbps > 0 ? (uint64_t)(bits / fabric->gbps + 0.5) : 0;
    from->out_free_ns = start + flight->wire_ns;
    /* What was copied is the sender's no more once it left; what is lent, when it was read. */
    flight->near_ns = UINT64_MAX;
    if (!flight->lent) {
        qyi_flight_free_at(link, flight, from->out_free_ns);
    }
    qyi_link_push(link, side, flight, start + fabric->latency_ns + delay_ns);
}

void qyi_link_sweep(struct qyi_link *link, int side)
{
    struct qyi_flight **at = &link->first[side];
    link->last[side] = NULL;
    while (*at != NULL) {
        struct qyi_flight *flight = *at;
        if (flight->stage == QYI_FLIGHT_OVER && flight->message == NULL) {
            *at = flight->next;
            qyi_flight_close(link, flight);
        } else {
            link->last[side] = flight;
            at = &flight->next;
        }
    }
}

void qyi_link_leave(struct qyi_link *link, int side, const char *why)
{
    struct qyi_end *end = &link->ends[side];
    if (end->state != QYI_END_OPEN) {
        return;
    }
    end->state = QYI_END_BROKEN;
    end->under_way = 0;
    for (struct qyi_flight *flight = link->first[side]; flight != NULL; flight = flight->next) {
        flight->message = NULL;
        if (flight->lent) {
            flight->stage = QYI_FLIGHT_OVER;
        }
    }
    qyi_link_sweep(link, side);
    if (link->ends[1 - side].state == QYI_END_OPEN) {
        link->farewell[side].why = why;
        qyi_link_push(link, side, &link->farewell[side],
                      link->fabric->now_ns + link->fabric->latency_ns);
    }
}

static void link_free(struct qyi_link *link)
{
    for (int side = 0; side < 2; side++) {
        while (link->first[side] != NULL) {
            struct qyi_flight *flight = link->first[side];
            link->first[side] = flight->next;
            qyi_flight_close(link, flight);
        }
    }
    if (link->after != NULL) {
        link->after->before = link->before;
    }
    if (link->before != NULL) {
        link->before->after = link->after;
    } else {
        link->fabric->links = link->after;
    }
    qy_free(link->fabric->mem, link);
}

void qyi_link_close_end(struct qyi_link *link, int side)
{
    struct qyi_end *end = &link->ends[side];
    assert(end->state != QYI_END_NONE);
    qyi_link_leave(link, side, "the other end closed the connection");
    end->state = QYI_END_NONE;
    end->loop->n_conns--;
    if (link->ends[1 - side].state == QYI_END_NONE) {
        link_free(link);
    }
}
