/* SPDX-License-Identifier: Apache-2.0 */
/* See net_bed.h. */
#include "tests/unit/net/net_bed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t bed_byte(uint64_t i)
{
    return (uint8_t)(i * 131 + (i >> 8) * 7 + 5);
}

static void count_warnings(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    struct bed *bed = ctx;

    (void)module;
    (void)text;
    bed->n_warnings += level <= QY_LOG_WARN ? 1 : 0;
}

void bed_open(struct bed *bed, const struct qy_fabric_params *params)
{
    struct qy_fabric_params p = {.seed = 1, .order = QY_FABRIC_IN_ORDER, .latency_ns = 1000};
    struct qy_error err = {0};

    memset(bed, 0, sizeof(*bed));
    bed->rt.mem = qy_allocator_system();
    bed->rt.log = (struct qy_log){.ctx = bed, .write = count_warnings, .level = QY_LOG_DEBUG};
    memset(bed->key, 'k', sizeof(bed->key));
    if (params) {
        p = *params;
    }
    p.mem = &bed->rt.mem;
    if (qy_fabric_open(&p, &bed->fabric, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void bed_close(struct bed *bed)
{
    qy_fabric_close(bed->fabric);
}

/* ---- the service -------------------------------------------------------------------------------- */

static int in_store(const struct bed_ask *ask)
{
    return ask->at <= BED_STORE && ask->bytes <= BED_STORE - ask->at;
}

static struct bed_ask ask_of(const struct qy_call *call)
{
    struct bed_ask ask = {0};

    memcpy(&ask, call->head, call->head_bytes < sizeof(ask) ? call->head_bytes : sizeof(ask));
    return ask;
}

static void *place(void *ctx, const struct qy_call *call, uint16_t *code)
{
    struct bed_server *server = ctx;
    const struct bed_ask ask = ask_of(call);

    assert_null(call->payload);
    if (call->op == BED_PUT && (!in_store(&ask) || ask.bytes != call->payload_bytes)) {
        server->n_refused_places++;
        *code = BED_BAD_PLACE;
        return NULL;
    }
    server->n_placed++;
    return call->op == BED_PUT ? server->store + ask.at : NULL;
}

static void serve(void *ctx, struct qy_call *call)
{
    struct bed_server *server = ctx;
    const struct bed_ask ask = ask_of(call);

    if (server->n_served < BED_LOG) {
        server->order[server->n_served] = (char)qy_peer_session(call->peer)[0];
    }
    server->n_served++;
    if (call->payload_bytes == 0) { /* those with a payload were counted when placed */
        server->n_placed++;
    }
    if (call->op == BED_ECHO) {
        if (call->payload_bytes > 0) {
            memcpy(call->answer, call->payload, call->payload_bytes);
        }
        qy_call_answer(call, 0, call->head, call->head_bytes, call->answer, call->payload_bytes);
    } else if (call->op == BED_GET && in_store(&ask)) {
        qy_call_answer(call, 0, &ask, sizeof(ask), server->store + ask.at, ask.bytes);
    } else if (call->op == BED_PUT) {
        qy_call_answer(call, 0, NULL, 0, NULL, 0);
    } else if (call->op == BED_CODE) {
        qy_call_answer(call, (uint16_t)ask.at, NULL, 0, NULL, 0);
    } else if (call->op != BED_SILENT) {
        qy_call_refuse(call, "no such thing here");
    }
}

static void done(void *ctx, struct qy_call *call)
{
    struct bed_server *server = ctx;

    (void)call;
    server->n_done++;
}

static void event(struct bed_server *server, char what)
{
    const size_t n = strlen(server->events);

    if (n + 1 < sizeof(server->events)) {
        server->events[n] = what;
    }
}

static void joined(void *ctx, struct qy_peer *peer)
{
    struct bed_server *server = ctx;

    assert_int_equal(qy_peer_state(peer), QY_PEER_UP);
    assert_null(qy_peer_user(peer));
    qy_peer_set_user(peer, server);
    server->n_joined++;
    event(server, 'J');
}

static void left(void *ctx, struct qy_peer *peer, const char *why)
{
    struct bed_server *server = ctx;

    assert_ptr_equal(qy_peer_user(peer), server);
    server->n_left++;
    event(server, 'L');
    (void)snprintf(server->why, sizeof(server->why), "%s", why);
}

/* ---- nodes ---------------------------------------------------------------------------------------- */

struct qy_node_params bed_client_params(struct bed *bed, const char *name)
{
    struct qy_node_params p = {.rt = &bed->rt,
                               .fabric = bed->fabric,
                               .device = name,
                               .timeout_ns = BED_TIMEOUT_MS * BED_MS,
                               .max_peers = 4,
                               .depth = BED_DEPTH};

    memcpy(p.key, bed->key, sizeof(p.key));
    memcpy(p.session, name, strnlen(name, sizeof(p.session)));
    return p;
}

struct qy_node_params bed_server_params(struct bed *bed, struct bed_server *server,
                                        const char *address)
{
    struct qy_node_params p = bed_client_params(bed, address);

    memset(server, 0, sizeof(*server));
    server->service = (struct qy_service){.ctx = server,
                                          .place = place,
                                          .serve = serve,
                                          .done = done,
                                          .joined = joined,
                                          .left = left};
    p.device = NULL;
    p.listen = address;
    p.service = &server->service;
    p.call_bytes = 64 << 10;
    p.answer_bytes = 64 << 10;
    p.n_answers = 4;
    return p;
}

static uint8_t as_at_first[BED_STORE]; /* filled once: beds are opened very often */
static uint32_t n_filled;

void bed_server_start(struct bed_server *server, const struct qy_node_params *params)
{
    struct qy_error err = {0};

    server->store = malloc(BED_STORE);
    assert_non_null(server->store);
    for (; n_filled < BED_STORE; n_filled++) {
        as_at_first[n_filled] = bed_byte(n_filled);
    }
    memcpy(server->store, as_at_first, BED_STORE);
    if (qy_node_open(params, &server->node, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void bed_server_open(struct bed *bed, struct bed_server *server, const char *address)
{
    const struct qy_node_params p = bed_server_params(bed, server, address);

    bed_server_start(server, &p);
}

void bed_server_close(struct bed_server *server)
{
    qy_node_close(server->node);
    free(server->store);
    assert_int_equal(server->n_done, server->n_placed);
    assert_int_equal(server->n_joined, server->n_left);
}

struct qy_node *bed_client(struct bed *bed, const char *name)
{
    const struct qy_node_params p = bed_client_params(bed, name);
    struct qy_error err = {0};
    struct qy_node *node = NULL;

    if (qy_node_open(&p, &node, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return node;
}

struct qy_peer *bed_connect(struct qy_node *node, const char *address)
{
    struct qy_error err = {0};
    struct qy_peer *peer = NULL;

    if (qy_peer_open(node, address, address, &peer, &err) != QY_OK ||
        qy_peer_wait(peer, UINT64_MAX, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return peer;
}

void bed_pass(struct qy_node *node, uint64_t ns)
{
    const uint64_t until = qy_node_now(node) + ns;

    while (qy_node_now(node) < until) {
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, until);
        }
    }
    while (qy_node_progress(node) > 0) {
    }
}

void bed_until(struct qy_node *node, const struct qy_peer *peer, enum qy_peer_state state,
               uint64_t ns)
{
    const uint64_t until = qy_node_now(node) + ns;

    while (qy_peer_state(peer) != state && qy_node_now(node) < until) {
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, until);
        }
    }
    assert_int_equal(qy_peer_state(peer), state);
}

void bed_ask(struct qy_request *request, enum bed_op op, uint64_t at, uint64_t bytes)
{
    const struct bed_ask ask = {.at = at, .bytes = bytes};

    memset(request, 0, sizeof(*request));
    request->op = (uint16_t)op;
    request->head_bytes = sizeof(ask);
    memcpy(request->head, &ask, sizeof(ask));
}

enum qy_status bed_try(struct qy_peer *peer, struct qy_node *node, struct qy_request *request)
{
    struct qy_op op = {0};

    request->counts = &op;
    assert_int_equal(qy_request_post(peer, request), QY_OK);
    assert_int_equal(op.pending, 1);
    const enum qy_status status = qy_op_wait(node, &op);
    assert_int_equal(status, request->status);
    return status;
}

void bed_get_works(struct qy_node *node, struct qy_peer *peer, uint64_t at, size_t bytes)
{
    uint8_t *reply = malloc(bytes + 1);
    struct qy_request r;

    assert_non_null(reply);
    bed_ask(&r, BED_GET, at, bytes);
    r.reply = reply;
    r.reply_capacity = bytes;
    assert_int_equal(bed_try(peer, node, &r), QY_OK);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.reply_bytes, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (reply[i] != bed_byte(at + i)) {
            fail_msg("byte %zu of %zu: %u", i, bytes, reply[i]);
        }
    }
    free(reply);
}

void bed_rule(struct bed *bed, const char *from, const char *to, enum qy_fabric_fault fault,
              uint32_t after, uint32_t count)
{
    const struct qy_fabric_rule rule = {
        .from = from, .to = to, .fault = fault, .after = after, .count = count};

    assert_int_equal(qy_fabric_inject(bed->fabric, &rule), QY_OK);
}
