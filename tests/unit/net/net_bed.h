/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bed for tests of nodes: a fabric, servers that keep a store of bytes, and clients that ask them. All in
 * one thread; time is the fabric's.
 */
#ifndef QY_TESTS_UNIT_NET_NET_BED_H
#define QY_TESTS_UNIT_NET_NET_BED_H

#include "tests/support/test.h"

#include "net/net.h"

#define BED_MS ((uint64_t)1000000)

enum { BED_TIMEOUT_MS = 100, BED_DEPTH = 8, BED_STORE = 1 << 20, BED_LOG = 512 };

/* What a server can be asked; the head is a struct bed_ask. */
enum bed_op {
    BED_ECHO = 1, /* the payload comes back, written into the node's buffer  */
    BED_GET,      /* a part of the store, from where it lies           */
    BED_PUT,      /* into the store, where the payload is placed at once    */
    BED_CODE,     /* answered by the code `at`                        */
    BED_REFUSE,   /* the peer is sent away                           */
    BED_SILENT    /* the service forgets to answer                      */
};

struct bed_ask {
    uint64_t at, bytes;
};

enum { BED_BAD_PLACE = 77 }; /* code of a put that does not fit the store */

struct bed_server {
    struct qy_service service;
    struct qy_node *node;
    uint8_t *store; /* [BED_STORE] byte i is bed_byte(i) at first */
    uint32_t n_served, n_placed, n_refused_places, n_done, n_joined, n_left;
    char order[BED_LOG]; /* first byte of each served call's session */
    char events[64];     /* J joined, L left                      */
    char why[200];       /* somebody left                          */
};

struct bed {
    struct qy_runtime rt;
    struct qy_fabric *fabric;
    uint8_t key[QY_NET_KEY_BYTES];
    uint32_t n_warnings; /* lines of the log, level warn or worse */
};

uint8_t bed_byte(uint64_t i);
/* order, latency and speed of params; NULL: in order, 1 us, no limit. */
void bed_open(struct bed *bed, const struct qy_fabric_params *params);
void bed_close(struct bed *bed);
/* Params of a server at `address`, to be changed at will. */
struct qy_node_params bed_server_params(struct bed *bed, struct bed_server *server,
                                        const char *address);
void bed_server_open(struct bed *bed, struct bed_server *server, const char *address);
void bed_server_start(struct bed_server *server, const struct qy_node_params *params);
void bed_server_close(struct bed_server *server);
/* A node that only asks; its session is its name, padded. */
struct qy_node_params bed_client_params(struct bed *bed, const char *name);
struct qy_node *bed_client(struct bed *bed, const char *name);
struct qy_peer *bed_connect(struct qy_node *node, const char *address);
/* Lets the fabric's time go on by ns, with everything that happens meanwhile. */
void bed_pass(struct qy_node *node, uint64_t ns);
/* Until it has that state; at most ns. */
void bed_until(struct qy_node *node, const struct qy_peer *peer, enum qy_peer_state state,
               uint64_t ns);
/* Fills in a request that asks for op at, bytes. */
void bed_ask(struct qy_request *request, enum bed_op op, uint64_t at, uint64_t bytes);
/* Posts one request, and waits for its end. */
enum qy_status bed_try(struct qy_peer *peer, struct qy_node *node, struct qy_request *request);
/* A get of `bytes` from `at` works, and gives what the store has at first. */
void bed_get_works(struct qy_node *node, struct qy_peer *peer, uint64_t at, size_t bytes);
void bed_rule(struct bed *bed, const char *from, const char *to, enum qy_fabric_fault fault,
              uint32_t after, uint32_t count);

#endif
