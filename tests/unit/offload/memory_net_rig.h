/* SPDX-License-Identifier: Apache-2.0 */
/* A memory server and its workers over net, all in this thread: memory_rig.h on a fabric (net/loopback.h) or
 * on the network. */
#ifndef QY_TESTS_OFFLOAD_MEMORY_NET_RIG_H
#define QY_TESTS_OFFLOAD_MEMORY_NET_RIG_H

#include "tests/unit/offload/memory_rig.h"

enum {
    NET_WORKERS = 2,
    NET_TIMEOUT = 1000000,
    NET_REAL_TIMEOUT = 1000000000,
    NET_GRACE = 50000000
};

struct net_bed;

/* A worker's end. */
struct net_line {
    struct net_bed *bed;
    struct qy_node *node;
    struct qy_peer *peer;
    enum qy_status status; /* of the last question */
};

struct net_bed {
    struct memory_rig rig;
    struct qy_fabric *fabric; /* NULL: the network */
    struct qy_node *server;
    struct net_line lines[NET_WORKERS];
    struct memory_worker workers[NET_WORKERS];
};
extern const char *const net_addresses[NET_WORKERS];

/* Worker 0 is connected and open. params: of the fabric, but for its allocator; NULL: the network. */
struct memory_worker *net_bed_open(struct net_bed *bed, const struct memory_form *form,
                                   const struct qy_fabric_params *params);
void net_bed_close(struct net_bed *bed);
void net_bed_start(struct net_bed *bed, uint32_t i, const struct memory_form *form);
/* Its node alone, which the test has closed before. */
void net_bed_connect(struct net_bed *bed, uint32_t i);
/* ns on the fabric's clock, in which the server does its work. */
void net_bed_pass(struct net_bed *bed, uint64_t ns);
void net_bed_inject(struct net_bed *bed, enum qy_fabric_fault fault, const char *from,
                    const char *to, uint32_t after, uint32_t count);
/* Rows, attention and a block of worker i, compared with its own. Everything must be answered. */
void net_bed_compare(struct net_bed *bed, uint32_t i, uint32_t sequence, uint32_t n_blocks);

#endif
