/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes without a node layer: wires of one fabric whose sinks write down what they are called with. A
 * message is known by its id, and its payload follows from that; every payload lies in memory of its own,
 * which is freed as soon as the contract allows, so that AddressSanitizer sees who touches it later.
 */
#ifndef QY_TESTS_UNIT_NET_RAW_WIRE_H
#define QY_TESTS_UNIT_NET_RAW_WIRE_H

#include "net/wire.h"
#include "tests/support/fail_alloc.h"

enum { RAW_NODES = 6, RAW_CONNS = 8, RAW_LOG = 2048 };

/* What a sink was called with, in one letter: A accepted, C connected, b begins, a arrived,
 * s sent, B broke. */
struct raw_event {
    int node;
    char what;
    uint64_t id, ns;
    enum qy_status status; /* s */
    int intact;            /* a: head and payload are what was sent */
    size_t wrong_bits;     /* a: of the payload */
};

struct raw_ground;

struct raw_node {
    struct raw_ground *ground;
    int index;
    void *wire;
    struct qyi_conn *conns[RAW_CONNS]; /* in the order in which they came to be */
    int n_conns;
    int refuses;      /* `accepted` returns 0                   */
    int drops;        /* `begins` returns NULL                  */
    uint64_t replies; /* `arrived` sends id + replies back      */
    uint32_t works;   /* calls of `work`                        */
    uint64_t due;     /* what `due` says                        */
};

struct raw_ground {
    struct fail_alloc heap;
    struct qy_allocator mem;
    struct qy_runtime rt;
    struct qy_fabric *fabric;
    struct raw_node nodes[RAW_NODES];
    struct raw_event log[RAW_LOG];
    uint32_t n_log;
    struct raw_sent *sent; /* messages whose memory the wire may still need */
    struct raw_inbox *inboxes;
};

/* order, latency, gbps and seed of params are used. */
void raw_open(struct raw_ground *g, struct qy_fabric_params params);
/* Closes all, and checks that no memory is left. */
void raw_close(struct raw_ground *g);
/* Opens node i; listen NULL: it does not. depth 4, RAW_CONNS connections. */
struct raw_node *raw_node(struct raw_ground *g, int i, const char *listen);
void raw_node_close(struct raw_node *node);
/* node->conns[n] is the new one. */
struct qyi_conn *raw_connect(struct raw_node *node, const char *address);
void raw_close_conn(struct raw_node *node, struct qyi_conn *conn);
/* Sends message `id` with a payload of `bytes`. */
enum qy_status raw_send(struct raw_node *node, struct qyi_conn *conn, uint64_t id, size_t bytes);
/* Nodes 0 and 1 listen at "a" and "b"; 2, at "c", is connected to both. */
void raw_open_three(struct raw_ground *g, struct qy_fabric_params params);
/* There: node 2 sends message `id` to node `to`. */
void raw_post(struct raw_ground *g, int to, uint64_t id, size_t bytes);
/* Rounds until nothing is left to happen at this time. */
void raw_round(struct raw_ground *g);
/* Rounds and waits until nothing happens any more. */
void raw_settle(struct raw_ground *g);
/* The log's events of these kinds, as "1a7 2a8 ": node, kind, id. out [1024] */
const char *raw_text(const struct raw_ground *g, const char *kinds, char *out);
/* The first event of this kind with this id at this node; NULL: none. */
const struct raw_event *raw_find(const struct raw_ground *g, int node, char what, uint64_t id);
uint32_t raw_count(const struct raw_ground *g, int node, char what);

#endif
