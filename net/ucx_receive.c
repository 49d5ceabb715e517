/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages in. An eager payload is copied to where the sink wants it while UCX's handler runs; one by
 * rendezvous is fetched there by UCX, and told when it is whole. While a connection is being closed the sink
 * may not be called: what comes for others then is held until the next `progress`.
 */
#include "net/ucx.h"

#include <string.h>

static void push_receive(struct qyi_ucx_receives *list, struct qyi_ucx_receive *receive)
{
    receive->next = NULL;
    if (list->last != NULL) {
        list->last->next = receive;
    } else {
        list->first = receive;
    }
    list->last = receive;
}

static void free_receive(struct qyi_ucx_receive *receive)
{
    receive->next = receive->conn->free;
    receive->conn->free = receive;
}

static void receive_done(void *request, ucs_status_t status, size_t length, void *user_data)
{
    struct qyi_ucx_receive *receive = user_data;
    struct qyi_ucx_conn *conn = receive->conn;

    ucp_request_free(request);
    conn->n_in--;
    if (conn->state != QYI_UCX_OPEN) {
        free_receive(receive);
        return;
    }
    receive->status = status == UCS_OK && length != receive->head.payload_bytes
                          ? UCS_ERR_MESSAGE_TRUNCATED
                          : status;
    push_receive(&conn->wire->arrived, receive);
}

/* Has a payload come to where the sink wants it. data is given. */
static void fetch(struct qyi_ucx_conn *conn, const struct qyi_head *head, void *data, void *payload,
                  void *token)
{
    struct qyi_ucx *wire = conn->wire;
    struct qyi_ucx_receive *receive = conn->free;
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                        UCP_OP_ATTR_FIELD_USER_DATA |
                                                        UCP_OP_ATTR_FIELD_MEMORY_TYPE,
                                        .cb = {.recv_am = receive_done},
                                        .user_data = receive,
                                        .memory_type = UCS_MEMORY_TYPE_HOST};
    ucs_status_ptr_t request;

    conn->free = receive->next;
    receive->head = *head;
    receive->payload = payload;
    receive->token = token;
    conn->n_in++;
    request =
        ucp_am_recv_data_nbx(wire->worker, data, payload, (size_t)head->payload_bytes, &params);
    if (!UCS_PTR_IS_PTR(request)) { /* it is here, or failed */
        conn->n_in--;
        receive->status = UCS_PTR_STATUS(request);
        push_receive(&wire->arrived, receive);
    }
}

/* A message that is here, or whose payload can be fetched now. 1: data was given away. */
static int deliver(struct qyi_ucx_conn *conn, const struct qyi_head *head, void *data,
                   int rendezvous)
{
    const struct qyi_sink *sink = &conn->wire->sink;
    const size_t bytes = (size_t)head->payload_bytes;
    void *token = NULL;
    void *payload;

    if (rendezvous && conn->free == NULL) {
        qyi_ucx_conn_break(conn, "more messages at once than was agreed");
        return 0;
    }
    payload = sink->begins(sink->ctx, &conn->base, head, &token);
    if (payload != NULL && bytes != 0 && rendezvous) {
        fetch(conn, head, data, payload, token);
        return 1;
    }
    if (payload != NULL && bytes != 0) {
        memcpy(payload, data, bytes);
    }
    sink->arrived(sink->ctx, &conn->base, head, payload, token);
    return 0;
}

/* Keeps a message for `progress`. 1: data was kept. */
static int hold(struct qyi_ucx_conn *conn, const struct qyi_head *head, void *data,
                uint64_t attributes)
{
    struct qyi_ucx *wire = conn->wire;
    const int rendezvous = (attributes & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    const int keeps = rendezvous || (attributes & UCP_AM_RECV_ATTR_FLAG_DATA) != 0;

    if (wire->n_held == QYI_UCX_HELD || (head->payload_bytes != 0 && !keeps)) {
        qyi_ucx_conn_break(conn, "too much came while another connection was closed");
        return 0;
    }
    wire->held[wire->n_held++] = (struct qyi_ucx_held){
        .conn = conn, .head = *head, .data = keeps ? data : NULL, .rendezvous = rendezvous};
    return keeps;
}

/* UCX's handler of messages. What belongs to no open connection is dropped: it is late, or forged. */
static ucs_status_t message_came(void *arg, const void *header, size_t header_length, void *data,
                                 size_t length, const ucp_am_recv_param_t *param)
{
    struct qyi_ucx *wire = arg;
    struct qyi_ucx_conn *conn = NULL;
    struct qyi_head head;
    int kept;

    if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0) {
        conn = qyi_ucx_conn_of(wire, param->reply_ep);
    }
    if (conn == NULL || conn->broken != NULL) {
        return UCS_OK;
    }
    if (header_length != sizeof(head)) {
        qyi_ucx_conn_break(conn, "a message without a head of ours");
        return UCS_OK;
    }
    memcpy(&head, header, sizeof(head));
    if (head.payload_bytes != length) {
        qyi_ucx_conn_break(conn, "a payload of another size than its head says");
        return UCS_OK;
    }
    if (wire->holding) {
        kept = hold(conn, &head, data, param->recv_attr);
    } else {
        if (conn->tell_connected) {
            (void)qyi_ucx_conn_tell(wire); /* before its first message */
        }
        kept = deliver(conn, &head, data, (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
    }
    return kept ? UCS_INPROGRESS : UCS_OK;
}

static ucs_status_t here_came(void *arg, const void *header, size_t header_length, void *data,
                              size_t length, const ucp_am_recv_param_t *param)
{
    struct qyi_ucx *wire = arg;
    struct qyi_ucx_conn *conn = NULL;

    (void)header;
    (void)header_length;
    (void)data;
    (void)length;
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0) {
        conn = qyi_ucx_conn_of(wire, param->reply_ep);
    }
    if (conn != NULL && conn->asked && conn->broken == NULL) {
        conn->asked = 0;
        conn->tell_connected = 1;
        wire->n_events++;
    }
    return UCS_OK;
}

ucs_status_t qyi_ucx_handle(struct qyi_ucx *wire, int keep)
{
    ucp_am_handler_param_t param = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = QYI_UCX_AM_HERE,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = here_came,
        .arg = wire};
    ucs_status_t status = ucp_worker_set_am_recv_handler(wire->worker, &param);

    if (status == UCS_OK) {
        param.id = QYI_UCX_AM_MESSAGE;
        param.cb = message_came;
        param.flags |= keep ? UCP_AM_FLAG_PERSISTENT_DATA : 0;
        status = ucp_worker_set_am_recv_handler(wire->worker, &param);
    }
    return status;
}

/* ---- told and forgotten ----------------------------------------------------------------------- */

uint32_t qyi_ucx_tell_arrived(struct qyi_ucx *wire)
{
    struct qyi_ucx_receive *receive = wire->arrived.first;
    uint32_t n = 0;

    wire->arrived = (struct qyi_ucx_receives){NULL, NULL};
    for (; receive != NULL; n++) {
        struct qyi_ucx_receive *next = receive->next;
        struct qyi_ucx_conn *conn = receive->conn;

        if (receive->status != UCS_OK) {
            qyi_ucx_conn_break(conn, ucs_status_string(receive->status));
        } else if (conn->broken == NULL) {
            wire->sink.arrived(wire->sink.ctx, &conn->base, &receive->head, receive->payload,
                               receive->token);
        }
        free_receive(receive);
        receive = next;
    }
    return n;
}

uint32_t qyi_ucx_tell_held(struct qyi_ucx *wire)
{
    const uint32_t n = wire->n_held;

    for (uint32_t i = 0; i < n; i++) {
        struct qyi_ucx_held *held = &wire->held[i];
        int given = 0;

        if (held->conn != NULL && held->conn->broken == NULL) {
            if (held->conn->tell_connected) {
                (void)qyi_ucx_conn_tell(wire);
            }
            given = deliver(held->conn, &held->head, held->data, held->rendezvous);
        }
        if (!given && held->data != NULL) {
            ucp_am_data_release(wire->worker, held->data);
        }
    }
    wire->n_held = 0;
    return n;
}

static void drop_receives(struct qyi_ucx_receives *list, const struct qyi_ucx_conn *conn)
{
    struct qyi_ucx_receives kept = {NULL, NULL};

    for (struct qyi_ucx_receive *receive = list->first, *next; receive != NULL; receive = next) {
        next = receive->next;
        if (receive->conn == conn) {
            free_receive(receive);
        } else {
            push_receive(&kept, receive);
        }
    }
    *list = kept;
}

void qyi_ucx_forget_receives(struct qyi_ucx_conn *conn)
{
    struct qyi_ucx *wire = conn->wire;

    drop_receives(&wire->arrived, conn);
    for (uint32_t i = 0; i < wire->n_held; i++) {
        if (wire->held[i].conn == conn) {
            wire->held[i].conn = NULL; /* its data is released with that of the others */
        }
    }
}
