/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small server for the fault tests of net: it echoes, sums, and keeps a few values. Everything that it is
 * given or gives away lies in memory of its own, freed in `done`, so that AddressSanitizer sees who comes
 * too late; its counters say whether `done` and `left` came once for each.
 */
#ifndef QY_TESTS_FAULT_NET_SERVICE_H
#define QY_TESTS_FAULT_NET_SERVICE_H

#include "net/net.h"

enum net_op {
    NET_ECHO = 1, /* payload -> the same, each byte xor 0x5a                              */
    NET_SUM,      /* payload -> u64 in the head: the sum of its bytes                     */
    NET_PUT,      /* head: u64 key, u64 value; kept                                       */
    NET_GET       /* head: u64 key -> head: u64 key, u64 value, u64 incarnation           */
};
enum {
    NET_KEYS = 8,
    NET_CALL_BYTES = 2048,   /* payloads up to it go to the node's buffer */
    NET_ANSWER_BYTES = 6000, /* echoes up to it are written into the node's buffer */
    NET_LARGEST = 30000,
    NET_PLACES = 2, /* payloads above NET_CALL_BYTES at once */
    NET_FULL = 7    /* code: there are as many already        */
};

struct net_server {
    struct qy_service service;
    struct qy_node *node;
    char address[16];
    uint64_t values[NET_KEYS];
    void *places[NET_PLACES];
    uint32_t served, placed, owed, joined, left, wrong;
};

/* A node at `address`, with nothing in its memory. */
void net_server_open(struct net_server *server, const struct qy_runtime *rt,
                     struct qy_fabric *fabric, const char *address, uint64_t timeout_ns);
/* Closes it, and checks that everything it was owed came. */
void net_server_close(struct net_server *server);
/* Everything of params but the server's own: key, timeout, sizes. */
struct qy_node_params net_node_params(const struct qy_runtime *rt, struct qy_fabric *fabric,
                                      uint64_t timeout_ns);

#endif
