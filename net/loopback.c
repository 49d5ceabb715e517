/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire of a fabric: one node's view of it. What a connection is lies in loopback_link.c, what happens
 * when in loopback_time.c, faults and events in loopback_fabric.c.
 */
#include "net/loopback_internal.h"

#include <assert.h>
#include <string.h>

/* ---- open and close ------------------------------------------------------------------------ */

/* The place of a node: by what it listens on, or its device, or one without a name. */
static enum qy_status take_place(struct qy_fabric *fabric, const char *address,
                                 struct qyi_place **place, struct qy_error *err)
{
    if (strlen(address) >= QY_NET_ADDRESS_BYTES) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "address '%.32s...': too long; at most %d characters are accepted",
                            address, QY_NET_ADDRESS_BYTES - 1);
    }
    struct qyi_place *found = qyi_fabric_place(fabric, address);
    if (found == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "fabric: no memory for address '%s'", address);
    }
    if (found->loop != NULL) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "address '%s': another node of this fabric has it; close that one first", address);
    }
    *place = found;
    return QY_OK;
}

static enum qy_status loop_open(const struct qyi_wire_params *params, void **wire,
                                struct qy_error *err)
{
    struct qy_fabric *fabric = params->fabric;
    const char *address = params->listen != NULL   ? params->listen
                          : params->device != NULL ? params->device
                                                   : "";
    struct qyi_place *place = NULL;
    enum qy_status st = take_place(fabric, address, &place, err);
    if (st != QY_OK) {
        return st;
    }
    void *loops = fabric->loops;
    struct qyi_loop *loop = qy_alloc_zero(fabric->mem, sizeof(*loop));
    if (loop == NULL || !qyi_fabric_grow(fabric, &loops, fabric->n_loops, &fabric->loops_room,
                                         sizeof(struct qyi_loop *))) {
        qy_free(fabric->mem, loop);
        return qy_error_set(err, QY_ERR_NOMEM, "fabric: no memory for a node at '%s'", address);
    }
    loop->fabric = fabric;
    loop->place = place;
    loop->sink = params->sink;
    loop->max_conns = params->max_conns;
    loop->depth = params->depth;
    loop->listens = params->listen != NULL;
    place->loop = loop;
    fabric->loops = loops;
    fabric->loops[fabric->n_loops++] = loop;
    *wire = loop;
    return QY_OK;
}

static void loop_close(void *wire)
{
    struct qyi_loop *loop = wire;
    if (loop == NULL) {
        return;
    }
    struct qy_fabric *fabric = loop->fabric;
    assert(loop->n_conns == 0 && !fabric->moving);
    if (loop->place->loop == loop) {
        loop->place->loop = NULL;
        loop->place->stopped = 0;
    }
    uint32_t at = 0;
    while (fabric->loops[at] != loop) {
        at++;
    }
    fabric->n_loops--;
    memmove(&fabric->loops[at], &fabric->loops[at + 1],
            (fabric->n_loops - at) * sizeof(struct qyi_loop *));
    qy_free(fabric->mem, loop);
}

static const char *loop_address(const void *wire)
{
    const struct qyi_loop *loop = wire;
    return loop->listens ? loop->place->address : "";
}

/* ---- connections and messages ------------------------------------------------------------------ */

static enum qy_status loop_connect(void *wire, const char *address, void *user,
                                   struct qyi_conn **conn, struct qy_error *err)
{
    struct qyi_loop *loop = wire;
    if (address == NULL || address[0] == '\0' || strlen(address) >= QY_NET_ADDRESS_BYTES) {
        return qy_error_set(err, QY_ERR_INVALID, "address '%.32s': 1 to %d characters are accepted",
                            address == NULL ? "" : address, QY_NET_ADDRESS_BYTES - 1);
    }
    if (loop->dead) {
        return qy_error_set(err, QY_ERR_PEER, "address '%s': this node was killed; close it",
                            address);
    }
    if (loop->n_conns >= loop->max_conns) {
        return qy_error_set(err, QY_AGAIN,
                            "address '%s': all %u connections are in use; close one of them",
                            address, loop->max_conns);
    }
    struct qyi_place *to = qyi_fabric_place(loop->fabric, address);
    struct qyi_link *link = to == NULL ? NULL : qyi_link_open(loop, to, user);
    if (link == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "address '%s': no memory for a connection", address);
    }
    *conn = &link->ends[0].conn;
    return QY_OK;
}

static void loop_close_conn(void *wire, struct qyi_conn *conn)
{
    struct qyi_end *end = (struct qyi_end *)conn;
    assert(end->loop == wire);
    (void)wire;
    qyi_link_close_end(end->link, end->side);
}

static void flip(void *bytes, uint64_t bit)
{
    ((uint8_t *)bytes)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* One bit of what a message says, or (garble) of anything in its head. */
static void damage(struct qy_fabric *fabric, struct qyi_flight *flight, int garble)
{
    struct qyi_head *head = &flight->head;
    if (garble) {
        flip(head, qyi_fabric_draw(fabric, 8 * sizeof(*head)));
    } else if (flight->payload_bytes > 0) {
        flight->flip = (size_t)qyi_fabric_draw(fabric, 8 * flight->payload_bytes);
    } else if (head->head_bytes > 0 && head->head_bytes <= QY_NET_HEAD_BYTES) {
        flip(head->head, qyi_fabric_draw(fabric, 8u * head->head_bytes));
    } else {
        flip(&head->op, qyi_fabric_draw(fabric, 8 * sizeof(head->op)));
    }
}

static enum qy_status loop_send(void *wire, struct qyi_conn *conn, struct qyi_message *message)
{
    struct qyi_loop *loop = wire;
    struct qyi_end *end = (struct qyi_end *)conn;
    struct qyi_link *link = end->link;
    if (end->state != QYI_END_OPEN) {
        return QY_ERR_PEER;
    }
    if (end->under_way >= loop->depth) {
        return QY_AGAIN;
    }
    int lent = message->head.payload_bytes > QY_FABRIC_COPIED_BYTES;
    struct qyi_faults faults =
        qyi_fabric_meet(loop->fabric, link->places[end->side], link->places[1 - end->side]);
    struct qyi_flight *flight = qyi_flight_open(link, message, lent);
    struct qyi_flight *twin = faults.duplicate ? qyi_flight_open(link, message, 0) : NULL;
    if (flight == NULL || (faults.duplicate && twin == NULL)) {
        qy_free(loop->fabric->mem, flight);
        qy_free(loop->fabric->mem, twin);
        return QY_ERR_NOMEM;
    }
    flight->message = message;
    flight->dropped = faults.drop;
    if (faults.corrupt) {
        damage(loop->fabric, flight, 0);
    }
    if (faults.garble) {
        damage(loop->fabric, flight, 1);
    }
    end->under_way++;
    qyi_link_depart(link, end->side, flight, faults.delay_ns);
    if (twin != NULL) {
        twin->dropped = faults.drop;
        qyi_link_depart(link, end->side, twin, faults.delay_ns);
    }
    return QY_OK;
}

/* ---- progress ------------------------------------------------------------------------------ */

static uint32_t loop_progress(void *wire)
{
    return qyi_fabric_progress(((struct qyi_loop *)wire)->fabric);
}

static void loop_wait(void *wire, uint64_t until_ns, uint64_t spin_ns)
{
    (void)spin_ns; /* there is nothing to poll for: time is ours */
    qyi_fabric_wait(((struct qyi_loop *)wire)->fabric, until_ns);
}

static uint64_t loop_now(const void *wire)
{
    return ((const struct qyi_loop *)wire)->fabric->now_ns;
}

static int loop_fd(const void *wire)
{
    (void)wire;
    return -1;
}

static enum qy_status loop_arm(void *wire)
{
    struct qy_fabric *fabric = ((struct qyi_loop *)wire)->fabric;
    return qyi_fabric_next(fabric) <= fabric->now_ns ? QY_AGAIN : QY_OK;
}

static enum qy_status loop_remember(void *wire, void *memory, size_t bytes, void **handle,
                                    struct qy_error *err)
{
    (void)wire;
    (void)bytes;
    (void)err;
    *handle = memory; /* all memory of this process is within reach */
    return QY_OK;
}

static void loop_forget(void *wire, void *handle)
{
    (void)wire;
    (void)handle;
}

const struct qyi_wire_ops qyi_wire_loopback = {
    .open = loop_open,
    .close = loop_close,
    .address = loop_address,
    .connect = loop_connect,
    .close_conn = loop_close_conn,
    .send = loop_send,
    .progress = loop_progress,
    .wait = loop_wait,
    .now = loop_now,
    .fd = loop_fd,
    .arm = loop_arm,
    .remember = loop_remember,
    .forget = loop_forget,
};
