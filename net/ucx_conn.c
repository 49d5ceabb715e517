/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: endpoints with peer error handling. Their records are reserved at open, and a table finds the
 * record of an endpoint, because UCX 1.13 gives no way from an endpoint to what we know of it.
 */
#include "net/ucx.h"

#include <string.h>

/* How long UCX may take to give back what it has of a connection that is closed by force. It needs nobody
 * for that, so this never passes; but a wait without an end is worse than a line in the log. */
static const uint64_t close_ns = 2000000000u;

/* ---- the table of endpoints: open addressing, linear probing ------------------------------------ */

static uint32_t home_of(const struct qyi_ucx *wire, ucp_ep_h ep)
{
    const uint64_t spread = (uint64_t)(uintptr_t)ep * 0x9e3779b97f4a7c15u;

    return (uint32_t)(spread >> (64 - wire->map_bits));
}

static uint32_t map_mask(const struct qyi_ucx *wire)
{
    return (1u << wire->map_bits) - 1;
}

static void map_add(struct qyi_ucx *wire, struct qyi_ucx_conn *conn)
{
    uint32_t at = home_of(wire, conn->ep);

    while (wire->map[at] != NULL) { /* at most half of it is used */
        at = (at + 1) & map_mask(wire);
    }
    wire->map[at] = conn;
}

/* Takes an entry out and moves those behind it that would not be found across the gap. */
static void map_remove(struct qyi_ucx *wire, const struct qyi_ucx_conn *conn)
{
    uint32_t gap = home_of(wire, conn->ep);

    while (wire->map[gap] != conn) {
        if (wire->map[gap] == NULL) {
            return;
        }
        gap = (gap + 1) & map_mask(wire);
    }
    for (uint32_t at = (gap + 1) & map_mask(wire); wire->map[at] != NULL;
         at = (at + 1) & map_mask(wire)) {
        const uint32_t home = home_of(wire, wire->map[at]->ep);

        if (((at - home) & map_mask(wire)) >= ((at - gap) & map_mask(wire))) {
            wire->map[gap] = wire->map[at];
            gap = at;
        }
    }
    wire->map[gap] = NULL;
}

struct qyi_ucx_conn *qyi_ucx_conn_of(const struct qyi_ucx *wire, ucp_ep_h ep)
{
    for (uint32_t at = home_of(wire, ep); wire->map[at] != NULL; at = (at + 1) & map_mask(wire)) {
        if (wire->map[at]->ep == ep) {
            return wire->map[at];
        }
    }
    return NULL;
}

/* ---- records --------------------------------------------------------------------------------- */

struct qyi_ucx_conn *qyi_ucx_conn_take(struct qyi_ucx *wire)
{
    struct qyi_ucx_conn *conn = wire->free;

    if (conn != NULL) {
        wire->free = conn->next;
        conn->next = NULL;
        conn->base.user = NULL;
        conn->to.bytes = 0;
        conn->state = QYI_UCX_OPEN;
    }
    return conn;
}

void qyi_ucx_conn_put(struct qyi_ucx_conn *conn)
{
    struct qyi_ucx *wire = conn->wire;

    qyi_ucx_forget_sends(conn);
    qyi_ucx_forget_receives(conn);
    conn->state = QYI_UCX_FREE;
    conn->asked = 0;
    conn->broken = NULL;
    conn->next = wire->free;
    wire->free = conn;
}

/* ---- made and broken ------------------------------------------------------------------------- */

void qyi_ucx_conn_break(struct qyi_ucx_conn *conn, const char *why)
{
    if (conn->broken != NULL || conn->state != QYI_UCX_OPEN) {
        return;
    }
    conn->broken = why;
    conn->tell_broken = 1;
    conn->wire->n_events++;
    qyi_ucx_give_up_queue(conn);
}

/* chosen: words of ours for what people meet, UCX's for the rest. */
static const char *reason(ucs_status_t status)
{
    switch (status) {
    case UCS_ERR_NOT_CONNECTED:
        return qyi_nobody_listens;
    case UCS_ERR_REJECTED:
        return "it has no room for one more connection";
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_ENDPOINT_TIMEOUT:
        return "the connection was closed from the other side";
    default:
        return ucs_status_string(status);
    }
}

/* UCX calls it once, inside its progress. A record may have got another endpoint since. */
static void endpoint_failed(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct qyi_ucx_conn *conn = arg;

    if (conn->ep == ep) {
        qyi_ucx_conn_break(conn, reason(status));
    }
}

/* Tells who asked that the connection stands: UCX has no such event. A failure comes as one of the
 * endpoint. */
static void say_here(struct qyi_ucx_conn *conn)
{
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                        .flags = UCP_AM_SEND_FLAG_REPLY};
    ucs_status_ptr_t request =
        ucp_am_send_nbx(conn->ep, QYI_UCX_AM_HERE, NULL, 0, NULL, 0, &params);

    if (UCS_PTR_IS_PTR(request)) {
        ucp_request_free(request); /* it goes on by itself */
    } else if (UCS_PTR_IS_ERR(request)) {
        qyi_ucx_conn_break(conn, reason(UCS_PTR_STATUS(request)));
    }
}

ucs_status_t qyi_ucx_conn_make(struct qyi_ucx_conn *conn, const struct qyi_ucx_address *to,
                               ucp_conn_request_h came)
{
    ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                            UCP_EP_PARAM_FIELD_ERR_HANDLER,
                              .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                              .err_handler = {.cb = endpoint_failed, .arg = conn}};
    ucs_status_t status;

    if (to != NULL) {
        params.field_mask |= UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
        params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
        params.sockaddr =
            (ucs_sock_addr_t){.addr = (const struct sockaddr *)&to->at, .addrlen = to->bytes};
    } else {
        params.field_mask |= UCP_EP_PARAM_FIELD_CONN_REQUEST;
        params.conn_request = came;
    }
    status = ucp_ep_create(conn->wire->worker, &params, &conn->ep);
    if (status != UCS_OK) {
        conn->ep = NULL;
        return status;
    }
    map_add(conn->wire, conn);
    if (came != NULL) {
        say_here(conn);
    }
    return UCS_OK;
}

enum qy_status qyi_ucx_connect(void *w, const char *address, void *user, struct qyi_conn **out,
                               struct qy_error *err)
{
    struct qyi_ucx *wire = w;
    struct qyi_ucx_address to;
    struct qyi_ucx_conn *conn;
    ucs_status_t status;
    enum qy_status st = qyi_ucx_resolve(&wire->names, address, &to, err);

    if (st != QY_OK) {
        return st;
    }
    conn = qyi_ucx_conn_take(wire);
    if (conn == NULL) {
        return qy_error_set(
            err, QY_ERR_NOMEM,
            "address '%s': all %u connections of this process are in use; close one, or "
            "reserve more",
            address, wire->max_conns);
    }
    conn->base.user = user;
    conn->asked = 1;
    conn->to = to;
    status = qyi_ucx_conn_make(conn, &to, NULL);
    if (status == UCS_ERR_NO_MEMORY) {
        qyi_ucx_conn_put(conn);
        return qy_error_set(err, QY_ERR_NOMEM, "address '%s': no memory for a connection", address);
    }
    if (status != UCS_OK) { /* no way there now: told like everything that shows later */
        qyi_ucx_conn_break(conn, reason(status));
    }
    *out = &conn->base;
    return QY_OK;
}

uint32_t qyi_ucx_conn_tell(struct qyi_ucx *wire)
{
    const struct qyi_sink *sink = &wire->sink;
    uint32_t n = 0;

    if (wire->n_events == 0) {
        return 0;
    }
    for (uint32_t c = 0; c < wire->max_conns; c++) {
        struct qyi_ucx_conn *conn = &wire->conns[c];

        if (conn->tell_connected) {
            conn->tell_connected = 0;
            wire->n_events--;
            n++;
            if (conn->broken == NULL) {
                sink->connected(sink->ctx, &conn->base);
            }
        }
        if (conn->tell_broken) {
            conn->tell_broken = 0;
            wire->n_events--;
            n++;
            if (conn->broken == qyi_nobody_listens && !qyi_ucx_is_refused(&conn->to)) {
                conn->broken = "it cannot be reached"; /* UCX has one word for both */
            }
            sink->broke(sink->ctx, &conn->base, conn->broken);
        }
    }
    return n;
}

/* ---- closed ---------------------------------------------------------------------------------- */

static int is_under_way(ucs_status_ptr_t request)
{
    return UCS_PTR_IS_PTR(request) && ucp_request_check_status(request) == UCS_INPROGRESS;
}

/* Until UCX has nothing of the connection any more. */
static void settle(struct qyi_ucx_conn *conn, ucs_status_ptr_t request)
{
    const uint64_t until = qy_clock_ns() + close_ns;

    do {
        qyi_ucx_drain(conn->wire);
    } while ((conn->n_out != 0 || conn->n_in != 0 || is_under_way(request)) &&
             qy_clock_ns() < until);
}

void qyi_ucx_close_conn(void *w, struct qyi_conn *base)
{
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                        .flags = UCP_EP_CLOSE_FLAG_FORCE};
    struct qyi_ucx *wire = w;
    struct qyi_ucx_conn *conn = (struct qyi_ucx_conn *)base;
    ucs_status_ptr_t request = NULL;

    if (conn->state != QYI_UCX_OPEN) {
        return;
    }
    conn->state = QYI_UCX_CLOSING;
    qyi_ucx_forget_sends(conn);
    qyi_ucx_forget_receives(conn);
    wire->n_events -= (uint32_t)(conn->tell_connected + conn->tell_broken);
    conn->tell_connected = conn->tell_broken = 0;
    if (conn->ep != NULL) {
        map_remove(wire, conn);
        request = ucp_ep_close_nbx(conn->ep, &params);
        conn->ep = NULL;
        settle(conn, request);
    }
    if (UCS_PTR_IS_PTR(request)) {
        ucp_request_free(request);
    }
    if (conn->n_out != 0 || conn->n_in != 0) {
        conn->state = QYI_UCX_LOST;
        qy_log_write(
            &wire->rt->log, QY_LOG_ERROR, "net",
            "UCX still has %u messages and %u receives of a connection that was closed by force; "
            "their memory may still be used",
            conn->n_out, conn->n_in);
        return;
    }
    qyi_ucx_conn_put(conn);
}
