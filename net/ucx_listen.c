/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listener. Who connects is noted inside UCX's progress and answered after it, by the sink's word: an
 * endpoint is made, or the request is rejected, which its asker is told.
 */
#include "net/ucx.h"

#include <string.h>

static void somebody_came(ucp_conn_request_h request, void *arg)
{
    struct qyi_ucx *wire = arg;

    if (wire->n_came == wire->max_conns) {
        (void)ucp_listener_reject(wire->listener, request);
        return;
    }
    wire->came[wire->n_came++] = request;
}

enum qy_status qyi_ucx_listen(struct qyi_ucx *wire, const struct qyi_ucx_address *at,
                              const char *text, struct qy_error *err)
{
    const ucp_listener_params_t params = {
        .field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
        .sockaddr = {.addr = (const struct sockaddr *)&at->at, .addrlen = at->bytes},
        .conn_handler = {.cb = somebody_came, .arg = wire}};
    ucp_listener_attr_t attr = {.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR};
    ucs_status_t status = ucp_listener_create(wire->worker, &params, &wire->listener);

    if (status == UCS_ERR_BUSY) {
        return qy_error_set(
            err, QY_ERR_DEVICE,
            "listen '%s': the port is in use; end who uses it, or choose port 0 for any "
            "that is free",
            text);
    }
    if (status == UCS_OK) {
        status = ucp_listener_query(wire->listener, &attr);
    }
    if (status != UCS_OK) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "listen '%s': refused (%s); an address of this host and a port that this "
            "user may open are accepted",
            text, ucs_status_string(status));
    }
    qyi_ucx_format(&attr.sockaddr, wire->address);
    return QY_OK;
}

/* One who came; came is given. */
static void answer(struct qyi_ucx *wire, ucp_conn_request_h came)
{
    struct qyi_ucx_conn *conn = qyi_ucx_conn_take(wire);
    ucs_status_t status;

    if (conn == NULL || !wire->sink.accepted(wire->sink.ctx, &conn->base)) {
        if (conn != NULL) {
            qyi_ucx_conn_put(conn);
        }
        status = ucp_listener_reject(wire->listener, came);
        if (status != UCS_OK) {
            qy_log_write(&wire->rt->log, QY_LOG_DEBUG, "net", "who came was not rejected (%s)",
                         ucs_status_string(status));
        }
        qyi_ucx_drain(wire);
        return;
    }
    status = qyi_ucx_conn_make(conn, NULL, came);
    if (status != UCS_OK) {
        qyi_ucx_conn_break(conn, ucs_status_string(status));
    }
}

uint32_t qyi_ucx_accept(struct qyi_ucx *wire)
{
    const uint32_t n = wire->n_came;

    for (uint32_t i = 0; i < n; i++) { /* more may come meanwhile, and wait for the next time */
        ucp_conn_request_h came = wire->came[0];

        wire->n_came--;
        memmove(wire->came, wire->came + 1, wire->n_came * sizeof(*wire->came));
        answer(wire, came);
    }
    return n;
}

void qyi_ucx_unlisten(struct qyi_ucx *wire)
{
    for (uint32_t i = 0; i < wire->n_came; i++) {
        (void)ucp_listener_reject(wire->listener, wire->came[i]);
    }
    wire->n_came = 0;
    if (wire->listener != NULL) {
        ucp_listener_destroy(wire->listener);
        wire->listener = NULL;
    }
}
