/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The asking side of net's fault tests: random questions to the servers of net_service.h, and what their
 * answers must be. Every question, payload and reply lies in memory of its own, freed when it is done.
 */
#ifndef QY_TESTS_FAULT_NET_ASKER_H
#define QY_TESTS_FAULT_NET_ASKER_H

#include "tests/fault/net_service.h"
#include "tests/support/fail_alloc.h"

enum {
    SERVERS = 3,
    SLOTS = 12,
    RUNS = 200,
    STEPS = 250,
    CANDIDATES = 6,
    MS = 1000000,
    TIMEOUT_MS = 100
};

/* What a request may end by, and what was done to its server last before that. */
enum outcome { ENDED_OK, ENDED_FULL, ENDED_TIMEOUT, ENDED_PEER, ENDED_CORRUPT, N_OUTCOMES };
enum trouble {
    T_NONE,
    T_DROP,
    T_DELAY,
    T_TWICE,
    T_CORRUPT,
    T_GARBLE,
    T_KILL,
    T_STOP,
    T_CUT,
    T_UNPLUGGED,
    N_TROUBLES
};
/* Of all runs. */
struct tally {
    uint32_t happened[N_TROUBLES], ended[N_TROUBLES][N_OUTCOMES];
    uint64_t again, lost, slowest_ns, back_ns;
};

/* What a key may hold: what was put and answered last, or put since then with an unknown end. */
struct key {
    uint64_t values[CANDIDATES];
    int n; /* 0: anything */
    int busy;
};

struct far_server {
    struct net_server server; /* node NULL: killed, and not yet there again */
    struct qy_peer *peer;
    struct key keys[NET_KEYS];
    uint32_t epoch; /* of its memory */
    enum trouble trouble;
    int held; /* stopped or cut */
};

struct slot {
    struct qy_request *request; /* NULL: free. All three are memory of their own */
    uint8_t *payload, *reply;
    struct far_server *far;
    struct key *key; /* of PUT and GET */
    uint64_t value;
    uint32_t epoch;
};

struct run {
    struct fail_alloc heap;
    struct qy_runtime rt;
    struct qy_fabric *fabric;
    struct qy_node *client;
    struct far_server far[SERVERS];
    struct slot slots[SLOTS];
    struct qy_op op;
    struct tally *tally;
    int unplugged; /* the client's link is cut */
    uint64_t random, seed, serial;
};

/* [0, n), n above 0. */
uint64_t net_draw(struct run *run, uint64_t n);
/* Some question to a server, with a payload of at most `bytes`, if there is room. 1: it is on its way. */
int net_post(struct run *run, struct far_server *far, size_t bytes);
/* Looks at the requests that are done. */
void net_collect(struct run *run);

#endif
