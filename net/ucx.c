/* SPDX-License-Identifier: Apache-2.0 */
/* The wire over UCX: open and close, progress, sleep. */
#include "net/ucx.h"

#include <poll.h>
#include <time.h>

static const uint64_t second = 1000000000u;

enum qy_status qyi_ucx_failed(struct qy_error *err, const char *what, ucs_status_t status)
{
    return qy_error_set(
        err, status == UCS_ERR_NO_MEMORY ? QY_ERR_NOMEM : QY_ERR_DEVICE,
        "network transport: %s failed in UCX %s (%s); see what UCX_LOG_LEVEL set to "
        "info tells",
        what, ucp_get_version_string(), ucs_status_string(status));
}

/* ---- open and close -------------------------------------------------------------------------- */

static enum qy_status make_worker(struct qyi_ucx *wire, struct qy_error *err)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER};
    ucs_status_t status = ucp_worker_create(wire->context, &params, &wire->worker);

    if (status != UCS_OK) {
        return qyi_ucx_failed(err, "making a worker", status);
    }
    status = ucp_worker_query(wire->worker, &attr);
    if (status != UCS_OK || attr.max_am_header < sizeof(struct qyi_head)) {
        return qyi_ucx_failed(err, "sending heads of our size", UCS_ERR_UNSUPPORTED);
    }
    status = ucp_worker_get_efd(wire->worker, &wire->fd);
    if (status != UCS_OK) {
        return qyi_ucx_failed(err, "sleeping until something comes", status);
    }
    status = qyi_ucx_handle(wire, 0);
    return status == UCS_OK ? QY_OK : qyi_ucx_failed(err, "taking messages", status);
}

static enum qy_status make_context(struct qyi_ucx *wire, const char *device, struct qy_error *err)
{
    const ucp_params_t params = {.field_mask =
                                     UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED,
                                 .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
                                 .mt_workers_shared = 0};
    ucp_config_t *config;
    ucs_status_t status;
    enum qy_status st = qyi_ucx_config(wire->rt, device, &config, err);

    if (st != QY_OK) {
        return st;
    }
    status = ucp_init(&params, config, &wire->context);
    ucp_config_release(config);
    return status == UCS_OK ? make_worker(wire, err) : qyi_ucx_failed(err, "its start", status);
}

static void ucx_close(void *w)
{
    struct qyi_ucx *wire = w;

    if (wire == NULL) {
        return;
    }
    for (uint32_t c = 0; c < wire->max_conns; c++) {
        if (wire->conns[c].state == QYI_UCX_OPEN) {
            qyi_ucx_close_conn(wire, &wire->conns[c].base);
        }
    }
    (void)qyi_ucx_tell_held(wire); /* of closed connections: only released */
    qyi_ucx_unlisten(wire);
    if (wire->worker != NULL) {
        ucp_worker_destroy(wire->worker);
    }
    if (wire->context != NULL) {
        ucp_cleanup(wire->context);
    }
    qyi_ucx_free_records(wire);
}

static enum qy_status ucx_open(const struct qyi_wire_params *params, void **out,
                               struct qy_error *err)
{
    struct qyi_ucx_address at;
    struct qyi_ucx_address *listen = params->listen != NULL ? &at : NULL;
    char device[QYI_UCX_DEVICE_BYTES] = "";
    struct qyi_ucx *wire;
    enum qy_status st = QY_OK;

    if (params->max_conns == 0 || params->max_conns > 1u << 20 || params->depth == 0 ||
        params->depth > 1u << 16) {
        return qy_error_set(
            err, QY_ERR_INVALID,
            "network transport: %u connections of depth %u refused; up to 2^20 of up "
            "to 2^16 are accepted",
            params->max_conns, params->depth);
    }
    qy_net_give_signals_back();
    if (listen != NULL) {
        st = qyi_ucx_resolve(NULL, params->listen, listen, err);
    }
    if (st == QY_OK) {
        st = qyi_ucx_choose_device(params->device, listen, device, err);
    }
    if (st != QY_OK) {
        return st;
    }
    wire = qyi_ucx_make_records(params);
    if (wire == NULL) {
        return qy_error_set(
            err, QY_ERR_NOMEM,
            "network transport: no memory for %u connections of depth %u; ask for fewer",
            params->max_conns, params->depth);
    }
    st = make_context(wire, device, err);
    if (st == QY_OK && listen != NULL) {
        st = qyi_ucx_listen(wire, listen, params->listen, err);
    }
    if (st != QY_OK) {
        ucx_close(wire);
        return st;
    }
    *out = wire;
    return QY_OK;
}

static const char *ucx_address(const void *w)
{
    return ((const struct qyi_ucx *)w)->address;
}

/* ---- progress and sleep ---------------------------------------------------------------------- */

void qyi_ucx_drain(struct qyi_ucx *wire)
{
    wire->holding = 1;
    (void)qyi_ucx_handle(wire, 1);
    wire->inside = 1;
    (void)ucp_worker_progress(wire->worker);
    wire->inside = 0;
    (void)qyi_ucx_handle(wire, 0);
    wire->holding = 0;
}

static uint32_t ucx_progress(void *w)
{
    struct qyi_ucx *wire = w;
    uint32_t n = qyi_ucx_tell_held(wire);

    wire->inside = 1;
    n += ucp_worker_progress(wire->worker);
    wire->inside = 0;
    n += qyi_ucx_flush(wire);
    n += qyi_ucx_accept(wire);
    n += qyi_ucx_conn_tell(wire);
    n += qyi_ucx_tell_sent(wire);
    n += qyi_ucx_tell_arrived(wire);
    if (wire->sink.work != NULL) {
        n += wire->sink.work(wire->sink.ctx);
    }
    return n;
}

/* Whether progress has something to do that UCX does not know of. */
static int has_work(const struct qyi_ucx *wire)
{
    return wire->n_held != 0 || wire->n_came != 0 || wire->n_events != 0 || wire->queued != NULL ||
           wire->sent.first != NULL || wire->unsent.first != NULL || wire->arrived.first != NULL;
}

static enum qy_status ucx_arm(void *w)
{
    struct qyi_ucx *wire = w;
    ucs_status_t status;

    if (has_work(wire)) {
        return QY_AGAIN;
    }
    status = ucp_worker_arm(wire->worker);
    if (status == UCS_ERR_BUSY) {
        return QY_AGAIN;
    }
    return status == UCS_OK ? QY_OK : QY_ERR_DEVICE;
}

static int ucx_fd(const void *w)
{
    return ((const struct qyi_ucx *)w)->fd;
}

static uint64_t ucx_now(const void *w)
{
    (void)w;
    return qy_clock_ns();
}

/* Only looks whether something came, because the sink is called in progress alone: spinning polls the armed
 * descriptor. With tcp that costs what an empty progress costs, a system call. */
static void ucx_wait(void *w, uint64_t until_ns, uint64_t spin_ns)
{
    struct qyi_ucx *wire = w;
    struct pollfd event = {.fd = wire->fd, .events = POLLIN};
    const uint64_t begin = qy_clock_ns();
    uint64_t now = begin, left;
    struct timespec timeout;

    if (now >= until_ns || ucx_arm(wire) != QY_OK) {
        return;
    }
    while (now - begin < spin_ns && now < until_ns) {
        if (poll(&event, 1, 0) != 0) {
            return;
        }
        now = qy_clock_ns();
    }
    if (now >= until_ns) {
        return;
    }
    left = until_ns - now < second ? until_ns - now : second; /* returning early is allowed */
    timeout =
        (struct timespec){.tv_sec = (time_t)(left / second), .tv_nsec = (long)(left % second)};
    (void)ppoll(&event, 1, &timeout, NULL); /* a signal is a reason to return, too */
}

const struct qyi_wire_ops qyi_wire_ucx = {.open = ucx_open,
                                          .close = ucx_close,
                                          .address = ucx_address,
                                          .connect = qyi_ucx_connect,
                                          .close_conn = qyi_ucx_close_conn,
                                          .send = qyi_ucx_send,
                                          .progress = ucx_progress,
                                          .wait = ucx_wait,
                                          .now = ucx_now,
                                          .fd = ucx_fd,
                                          .arm = ucx_arm,
                                          .remember = qyi_ucx_remember,
                                          .forget = qyi_ucx_forget};
