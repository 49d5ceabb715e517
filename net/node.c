/* SPDX-License-Identifier: Apache-2.0 */
/* A node: opening and closing, its clock, its work, its sleep. See node.h for how the parts fit. */
#include "net/node.h"

#include <assert.h>
#include <string.h>

enum { MOST_DEPTH = QYI_ASKS, MOST_PEERS = 65536 };

/* ---- clock and work ------------------------------------------------------------------------------ */

void qyi_node_clock(struct qy_node *node)
{
    const uint64_t now = node->ops->now(node->wire);
    const uint64_t gap = now > node->last ? now - node->last : 0;
    uint64_t most = node->timeout / 8;

    if (node->watched && node->due > node->time) {
        const uint64_t until = node->due - node->time;
        most = until < UINT64_MAX - most ? until + most : UINT64_MAX;
    }
    node->time += gap < most ? gap : most;
    node->last = now;
    node->watched = 0;
}

void qyi_node_due(struct qy_node *node, uint64_t time)
{
    if (time < node->due) {
        node->due = time;
    }
}

/* The sink's: when there is work, on the wire's clock. Who asks will wake us then. */
static uint64_t due(void *ctx)
{
    struct qy_node *node = ctx;

    qyi_node_clock(node);
    node->watched = 1;
    if (node->n_doomed > 0 || node->n_joining > 0 || node->due <= node->time ||
        qyi_calls_are_due(node)) {
        return node->last;
    }
    return node->due - node->time < UINT64_MAX - node->last ? node->last + (node->due - node->time)
                                                            : UINT64_MAX;
}

static uint32_t sweep(struct qy_node *node)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < node->n_places && node->n_doomed > 0; i++) {
        if (node->peers[i].doomed) {
            qyi_peer_end(&node->peers[i]);
            n++;
        }
    }
    for (uint32_t i = 0; i < node->n_places && node->n_joining > 0; i++) {
        if (node->peers[i].joins) {
            qyi_peer_join(&node->peers[i]);
            n++;
        }
    }
    return n;
}

static void tick(struct qy_node *node)
{
    node->due = UINT64_MAX;
    for (uint32_t i = 0; i < node->n_places; i++) {
        if (node->peers[i].used) {
            qyi_node_due(node, qyi_peer_tick(&node->peers[i]));
        }
    }
}

/* The sink's: everything that is not taking note of a message. */
static uint32_t work(void *ctx)
{
    struct qy_node *node = ctx;
    const int quiet = node->n_events == 0;
    uint32_t n;

    node->n_events = 0;
    qyi_node_clock(node);
    n = sweep(node);
    n += qyi_outs_flush(node);
    n += qyi_calls_serve(node);
    /* What has come but was not read yet is not late: deadlines are for moments when nothing comes. */
    if (node->time >= node->due && (quiet || node->time - node->due > node->timeout / 4)) {
        tick(node);
        n++;
    }
    return n + sweep(node);
}

uint32_t qy_node_progress(struct qy_node *node)
{
    return node->ops->progress(node->wire);
}

void qy_node_wait(struct qy_node *node, uint64_t until_ns)
{
    const uint64_t next = due(node);

    if (next > node->last) {
        node->ops->wait(node->wire, until_ns < next ? until_ns : next, node->spin_ns);
        qyi_node_clock(node); /* all of the sleep counts, and no more than that */
    }
}

uint64_t qy_node_now(const struct qy_node *node)
{
    return node->ops->now(node->wire);
}

int qy_node_fd(const struct qy_node *node)
{
    return node->ops->fd(node->wire);
}

enum qy_status qy_node_arm(struct qy_node *node)
{
    return due(node) <= node->last ? QY_AGAIN : node->ops->arm(node->wire);
}

const char *qy_node_address(const struct qy_node *node)
{
    return node->ops->address(node->wire);
}

uint64_t qy_node_incarnation(const struct qy_node *node)
{
    return node->identity.incarnation;
}

/* ---- open and close -------------------------------------------------------------------------------- */

static enum qy_status check_params(const struct qy_node_params *params, struct qy_error *err)
{
    const uint16_t one = 1;
    const int answers = params->listen != NULL;

    if (*(const uint8_t *)&one != 1) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "network: this machine is big endian; only little endian is spoken");
    }
    if (params->depth < 1 || params->depth > MOST_DEPTH) {
        return qy_error_set(err, QY_ERR_INVALID, "node depth '%u': must be 1 to %d",
                            (unsigned)params->depth, MOST_DEPTH);
    }
    if (params->max_peers < 1 || params->max_peers > MOST_PEERS) {
        return qy_error_set(err, QY_ERR_INVALID, "node peers '%u': must be 1 to %d",
                            (unsigned)params->max_peers, MOST_PEERS);
    }
    if (params->timeout_ns < 16) {
        return qy_error_set(err, QY_ERR_INVALID, "node timeout: %llu ns; must be at least 16 ns",
                            (unsigned long long)params->timeout_ns);
    }
    if (answers && (!params->service || !params->service->serve || params->n_answers < 1)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "node '%s': listens without a service that serves, or without answers",
                            params->listen);
    }
    if (answers && (params->call_bytes > SIZE_MAX / params->depth ||
                    params->answer_bytes > SIZE_MAX / params->n_answers)) {
        return qy_error_set(err, QY_ERR_INVALID, "node '%s': sizes of calls or answers overflow",
                            params->listen);
    }
    return QY_OK;
}

static const struct qyi_wire_ops *wire_of(const struct qy_node_params *params)
{
#ifdef QY_HAVE_UCX
    return params->fabric ? &qyi_wire_loopback : &qyi_wire_ucx;
#else
    return params->fabric ? &qyi_wire_loopback : NULL;
#endif
}

static void fill(struct qy_node *node, const struct qy_node_params *params)
{
    node->rt = params->rt;
    node->serves = params->listen != NULL;
    if (node->serves) {
        node->service = *params->service;
    }
    do {
        qyi_random(&node->identity.incarnation, sizeof(node->identity.incarnation));
    } while (node->identity.incarnation == 0);
    memcpy(node->identity.session, params->session, sizeof(node->identity.session));
    memcpy(node->key, params->key, sizeof(node->key));
    node->timeout = params->timeout_ns;
    node->silent =
        params->silent_ns > 0 ? params->silent_ns : QYI_SILENT_TIMEOUTS * params->timeout_ns;
    node->spin_ns = params->spin_ns;
    node->depth = params->depth;
    node->max_peers = params->max_peers;
    node->call_bytes = params->call_bytes;
    node->answer_bytes = params->answer_bytes;
    node->due = UINT64_MAX;
    node->n_places = params->max_peers + (node->serves ? (uint32_t)QYI_STRANGERS : 0);
}

/* Places of peers, and buffers that answers are written into. */
static enum qy_status reserve(struct qy_node *node, const struct qy_node_params *params,
                              struct qy_error *err)
{
    const struct qy_allocator *mem = &node->rt->mem;
    const uint32_t n_answers = node->serves ? params->n_answers : 0;

    node->peers = qy_alloc_zero(mem, node->n_places * sizeof(*node->peers));
    node->free_answers = qy_alloc_zero(mem, n_answers * sizeof(*node->free_answers));
    /* Not cleared: pages that no answer needs are never touched. */
    node->answers = mem->alloc(mem->ctx, n_answers * node->answer_bytes + 1, 64);
    if (!node->peers || !node->free_answers || !node->answers) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "node: no memory for %u peers and %u answers of %zu bytes",
                            (unsigned)params->max_peers, (unsigned)n_answers, node->answer_bytes);
    }
    for (uint32_t i = 0; i < n_answers; i++) {
        node->free_answers[i] = node->answers + (n_answers - 1 - i) * node->answer_bytes;
    }
    node->n_free_answers = n_answers;
    return QY_OK;
}

static enum qy_status open_wire(struct qy_node *node, const struct qy_node_params *params,
                                struct qy_error *err)
{
    struct qyi_wire_params wire = {.rt = params->rt,
                                   .fabric = params->fabric,
                                   .device = params->device,
                                   .listen = params->listen,
                                   .max_conns = node->n_places,
                                   .depth = node->depth + QYI_SPARE_MESSAGES};

    qyi_sink_fill(&wire.sink, node);
    wire.sink.work = work;
    wire.sink.due = due;
    const enum qy_status status = node->ops->open(&wire, &node->wire, err);
    if (status == QY_OK) {
        node->last = node->ops->now(node->wire);
    }
    return status;
}

static void free_node(struct qy_node *node)
{
    const struct qy_allocator *mem = &node->rt->mem;

    qy_free(mem, node->answers);
    qy_free(mem, node->free_answers);
    qy_free(mem, node->peers);
    explicit_bzero(node->key, sizeof(node->key));
    qy_free(mem, node);
}

enum qy_status qy_node_open(const struct qy_node_params *params, struct qy_node **node,
                            struct qy_error *err)
{
    enum qy_status status = check_params(params, err);
    const struct qyi_wire_ops *ops = wire_of(params);

    if (status != QY_OK) {
        return status;
    }
    if (!ops) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "network: this build has no UCX; install libucx-dev and configure with "
                            "-DQY_NET=ON");
    }
    struct qy_node *made = qy_alloc_zero(&params->rt->mem, sizeof(*made));
    if (!made) {
        return qy_error_set(err, QY_ERR_NOMEM, "node: no memory for %zu bytes", sizeof(*made));
    }
    fill(made, params);
    made->ops = ops;
    status = reserve(made, params, err);
    if (status == QY_OK) {
        status = open_wire(made, params, err);
    }
    if (status != QY_OK) {
        free_node(made);
        return status;
    }
    *node = made;
    return QY_OK;
}

void qy_node_close(struct qy_node *node)
{
    if (!node) {
        return;
    }
    node->closing = 1;
    for (uint32_t i = 0; i < node->n_places; i++) {
        struct qy_peer *peer = &node->peers[i];
        if (peer->used) {
            qyi_peer_doom(peer, "this node closes");
            qyi_peer_end(peer);
        }
        qyi_peer_free(peer);
    }
    node->ops->close(node->wire);
    free_node(node);
}

/* ---- regions ------------------------------------------------------------------------------------- */

struct qy_region {
    struct qy_node *node;
    void *handle; /* the wire's */
};

enum qy_status qy_region_open(struct qy_node *node, void *memory, size_t bytes,
                              struct qy_region **region, struct qy_error *err)
{
    struct qy_region *made = qy_alloc_zero(&node->rt->mem, sizeof(*made));

    if (!made) {
        return qy_error_set(err, QY_ERR_NOMEM, "region: no memory for %zu bytes", sizeof(*made));
    }
    made->node = node;
    const enum qy_status status =
        node->ops->remember(node->wire, memory, bytes, &made->handle, err);
    if (status != QY_OK) {
        qy_free(&node->rt->mem, made);
        return status;
    }
    *region = made;
    return QY_OK;
}

void qy_region_close(struct qy_region *region)
{
    if (region) {
        region->node->ops->forget(region->node->wire, region->handle);
        qy_free(&region->node->rt->mem, region);
    }
}
