/* SPDX-License-Identifier: Apache-2.0 */
/* The small server of net's fault tests: echo, sum, and a few values. */
#include "tests/fault/net_service.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *place(void *ctx, const struct qy_call *call, uint16_t *code)
{
    struct net_server *server = ctx;
    if (call->payload_bytes <= NET_CALL_BYTES) {
        server->owed++;
        return NULL;
    }
    for (int i = 0; i < NET_PLACES; i++) {
        if (server->places[i] == NULL) {
            server->places[i] = malloc(call->payload_bytes);
            assert_non_null(server->places[i]);
            server->placed++;
            server->owed++;
            return server->places[i];
        }
    }
    *code = NET_FULL;
    return NULL;
}

static void echo(struct qy_call *call)
{
    const uint8_t *from = call->payload;
    uint8_t *to = call->answer;
    if (call->payload_bytes > NET_ANSWER_BYTES) { /* memory of the service's, until `done` */
        to = malloc(call->payload_bytes);
        assert_non_null(to);
        call->user = to;
    }
    for (size_t i = 0; i < call->payload_bytes; i++) {
        to[i] = from[i] ^ 0x5a;
    }
    qy_call_answer(call, 0, call->head, call->head_bytes, to, call->payload_bytes);
}

static void sum(struct qy_call *call)
{
    const uint8_t *from = call->payload;
    uint64_t total = 0;
    for (size_t i = 0; i < call->payload_bytes; i++) {
        total += from[i];
    }
    qy_call_answer(call, 0, &total, sizeof(total), NULL, 0);
}

static void serve(void *ctx, struct qy_call *call)
{
    struct net_server *server = ctx;
    uint64_t words[3] = {0};
    server->served++;
    server->owed += call->payload_bytes == 0; /* the others were placed */
    memcpy(words, call->head, call->head_bytes < 16 ? call->head_bytes : 16);
    switch (call->op) {
    case NET_ECHO:
        echo(call);
        return;
    case NET_SUM:
        sum(call);
        return;
    case NET_PUT:
        server->wrong += words[0] >= NET_KEYS;
        server->values[words[0] % NET_KEYS] = words[1];
        qy_call_answer(call, 0, words, 16, NULL, 0);
        return;
    case NET_GET:
        server->wrong += words[0] >= NET_KEYS;
        words[1] = server->values[words[0] % NET_KEYS];
        words[2] = qy_node_incarnation(server->node);
        qy_call_answer(call, 0, words, 24, NULL, 0);
        return;
    default:
        server->wrong++;
        qy_call_refuse(call, "no such question");
    }
}

static void done(void *ctx, struct qy_call *call)
{
    struct net_server *server = ctx;
    server->owed--;
    free(call->user);
    for (int i = 0; i < NET_PLACES; i++) {
        if (call->payload != NULL && call->payload == server->places[i]) {
            free(server->places[i]);
            server->places[i] = NULL;
            server->placed--;
        }
    }
}

static void joined(void *ctx, struct qy_peer *peer)
{
    struct net_server *server = ctx;
    server->joined++;
    server->wrong += server->joined != server->left + 1; /* who comes back has left before */
    qy_peer_set_user(peer, server);
}

static void left(void *ctx, struct qy_peer *peer, const char *why)
{
    struct net_server *server = ctx;
    server->left++;
    server->wrong += why == NULL || qy_peer_user(peer) != server;
}

struct qy_node_params net_node_params(const struct qy_runtime *rt, struct qy_fabric *fabric,
                                      uint64_t timeout_ns)
{
    struct qy_node_params params = {.rt = rt,
                                    .fabric = fabric,
                                    .timeout_ns = timeout_ns,
                                    .max_peers = 4,
                                    .depth = 6,
                                    .call_bytes = NET_CALL_BYTES,
                                    .answer_bytes = NET_ANSWER_BYTES,
                                    .n_answers = 2};
    memset(params.key, 0x42, sizeof(params.key));
    return params;
}

void net_server_open(struct net_server *server, const struct qy_runtime *rt,
                     struct qy_fabric *fabric, const char *address, uint64_t timeout_ns)
{
    struct qy_node_params params = net_node_params(rt, fabric, timeout_ns);
    struct qy_error err = {.text = ""};
    memset(server, 0, sizeof(*server));
    (void)snprintf(server->address, sizeof(server->address), "%s", address);
    server->service = (struct qy_service){.ctx = server,
                                          .place = place,
                                          .serve = serve,
                                          .done = done,
                                          .joined = joined,
                                          .left = left};
    params.listen = server->address;
    params.service = &server->service;
    if (qy_node_open(&params, &server->node, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void net_server_close(struct net_server *server)
{
    qy_node_close(server->node);
    server->node = NULL;
    assert_int_equal(server->owed, 0);
    assert_int_equal(server->placed, 0);
    assert_int_equal(server->wrong, 0);
    assert_int_equal(server->joined, server->left);
}
