/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages out: active messages, eager or by rendezvous, as UCX chooses by their size. The sink hears of
 * what was sent from `progress` alone, also when it was gone at once.
 */
#include "net/ucx.h"

static void push_message(struct qyi_ucx_messages *list, struct qyi_message *message)
{
    message->next = NULL;
    if (list->last != NULL) {
        list->last->next = message;
    } else {
        list->first = message;
    }
    list->last = message;
}

static struct qyi_message *pop_message(struct qyi_ucx_messages *list)
{
    struct qyi_message *message = list->first;

    list->first = message->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    message->next = NULL;
    return message;
}

/* The connection of a message on its way. */
static struct qyi_ucx_conn *conn_of(const struct qyi_message *message)
{
    return message->request;
}

/* UCX has done with a message. The sink hears of it from `progress`. */
static void done(struct qyi_ucx_conn *conn, struct qyi_message *message, ucs_status_t status)
{
    conn->n_out--;
    if (conn->state == QYI_UCX_OPEN) {
        push_message(status == UCS_OK ? &conn->wire->sent : &conn->wire->unsent, message);
    }
}

static void message_done(void *request, ucs_status_t status, void *user_data)
{
    struct qyi_message *message = user_data;

    ucp_request_free(request);
    done(conn_of(message), message, status);
}

/* The head is part of the message and stays until it is sent: UCX reads it when it sends. */
static void hand_over(struct qyi_ucx_conn *conn, struct qyi_message *message)
{
    const ucp_request_param_t params = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        .flags = UCP_AM_SEND_FLAG_REPLY,
        .cb = {.send = message_done},
        .user_data = message,
        .memory_type = UCS_MEMORY_TYPE_HOST};
    ucs_status_ptr_t request;

    conn->n_out++;
    request = ucp_am_send_nbx(conn->ep, QYI_UCX_AM_MESSAGE, &message->head, sizeof(message->head),
                              message->payload, message->head.payload_bytes, &params);
    if (UCS_PTR_IS_PTR(request)) {
        return;
    }
    done(conn, message, UCS_PTR_STATUS(request));
    if (UCS_PTR_IS_ERR(request)) {
        qyi_ucx_conn_break(conn, ucs_status_string(UCS_PTR_STATUS(request)));
    }
}

enum qy_status qyi_ucx_send(void *w, struct qyi_conn *base, struct qyi_message *message)
{
    struct qyi_ucx *wire = w;
    struct qyi_ucx_conn *conn = (struct qyi_ucx_conn *)base;

    if (conn->state != QYI_UCX_OPEN || conn->broken != NULL) {
        return QY_ERR_PEER;
    }
    if (conn->n_open == wire->depth) {
        return QY_AGAIN;
    }
    conn->n_open++;
    message->request = conn;
    if (!wire->inside && conn->queue.first == NULL && conn->ep != NULL) {
        hand_over(conn, message);
        return QY_OK;
    }
    push_message(&conn->queue, message);
    if (!conn->in_queued) {
        conn->in_queued = 1;
        conn->next = wire->queued;
        wire->queued = conn;
    }
    return QY_OK;
}

uint32_t qyi_ucx_flush(struct qyi_ucx *wire)
{
    struct qyi_ucx_conn *conn = wire->queued;
    uint32_t n = 0;

    wire->queued = NULL;
    while (conn != NULL) {
        struct qyi_ucx_conn *next = conn->next;

        conn->in_queued = 0;
        conn->next = NULL;
        while (conn->queue.first != NULL) {
            hand_over(conn, pop_message(&conn->queue));
            n++;
        }
        conn = next;
    }
    return n;
}

void qyi_ucx_give_up_queue(struct qyi_ucx_conn *conn)
{
    while (conn->queue.first != NULL) {
        push_message(&conn->wire->unsent, pop_message(&conn->queue));
    }
}

/* ---- told and forgotten ----------------------------------------------------------------------- */

static uint32_t tell_messages(struct qyi_ucx *wire, struct qyi_ucx_messages *list,
                              enum qy_status status)
{
    struct qyi_ucx_messages now = *list; /* the sink may send, which adds to the list */
    uint32_t n = 0;

    *list = (struct qyi_ucx_messages){NULL, NULL};
    for (; now.first != NULL; n++) {
        struct qyi_message *message = pop_message(&now);
        struct qyi_ucx_conn *conn = conn_of(message);

        conn->n_open--;
        wire->sink.sent(wire->sink.ctx, &conn->base, message, status);
    }
    return n;
}

uint32_t qyi_ucx_tell_sent(struct qyi_ucx *wire)
{
    return tell_messages(wire, &wire->sent, QY_OK) +
           tell_messages(wire, &wire->unsent, QY_ERR_PEER);
}

static void drop_messages(struct qyi_ucx_messages *list, const struct qyi_ucx_conn *conn)
{
    struct qyi_ucx_messages kept = {NULL, NULL};

    while (list->first != NULL) {
        struct qyi_message *message = pop_message(list);

        if (conn_of(message) != conn) {
            push_message(&kept, message);
        }
    }
    *list = kept;
}

void qyi_ucx_forget_sends(struct qyi_ucx_conn *conn)
{
    struct qyi_ucx *wire = conn->wire;

    conn->queue = (struct qyi_ucx_messages){NULL, NULL};
    if (conn->in_queued) {
        struct qyi_ucx_conn **at = &wire->queued;

        while (*at != conn) {
            at = &(*at)->next;
        }
        *at = conn->next;
        conn->in_queued = 0;
    }
    drop_messages(&wire->sent, conn);
    drop_messages(&wire->unsent, conn);
    conn->n_open = 0;
}
