/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of net.h, not to be included alone: a fabric, which is a network inside one process. Nodes that
 * were opened on it talk to each other by address ("a", "b:1": any text), all in one thread: progress
 * of any node moves the whole fabric.
 *
 * Time is the fabric's own. It stands still while messages can be delivered, and jumps to the next
 * delivery or deadline when a node waits: tests of timeouts take no time, and with one seed
 * everything happens in one order.
 */
#ifndef QY_NET_LOOPBACK_H
#define QY_NET_LOOPBACK_H

#ifndef QY_NET_H
#error "include net/net.h"
#endif

enum qy_fabric_order { QY_FABRIC_IN_ORDER, QY_FABRIC_REVERSED, QY_FABRIC_RANDOM };

/* Order is of messages of different connections, and of the payloads of large messages: those of one
 * connection begin in the order in which they were sent. */
struct qy_fabric_params {
    const struct qy_allocator *mem; /* kept */
    uint64_t seed;
    enum qy_fabric_order order;
    uint64_t latency_ns; /* of every message                                  */
    double gbps;         /* of every node's link, each way; 0: not limited    */
};

QY_MUST enum qy_status qy_fabric_open(const struct qy_fabric_params *params,
                                      struct qy_fabric **fabric, struct qy_error *err);
/* After all its nodes. */
void qy_fabric_close(struct qy_fabric *fabric);
uint64_t qy_fabric_now(const struct qy_fabric *fabric);

/* What is done to messages from one address to another (NULL: any). A message is 1-based: `after`
 * passes first. */
enum qy_fabric_fault {
    QY_FABRIC_DROP,      /* `count` messages never arrive                          */
    QY_FABRIC_DELAY,     /* `count` messages come `ns` later                       */
    QY_FABRIC_DUPLICATE, /* `count` messages come twice                            */
    QY_FABRIC_CORRUPT    /* a bit of `count` messages' payloads (or heads) is flipped */
};
struct qy_fabric_rule {
    const char *from, *to; /* borrowed */
    enum qy_fabric_fault fault;
    uint32_t after, count; /* count UINT32_MAX: all from then on */
    uint64_t ns;
};
QY_MUST enum qy_status qy_fabric_inject(struct qy_fabric *fabric,
                                        const struct qy_fabric_rule *rule);
/* Takes all rules back. */
void qy_fabric_heal(struct qy_fabric *fabric);
/* The node at an address: KILL: its connections break, as when a process dies; the node itself must be
 * closed by its owner, and another may open at the address. STOP: neither sends nor receives, and nobody
 * is told. CUT: the same, but the node's own progress goes on. RESUME: ends STOP and CUT; what was sent
 * meanwhile over a connection that still stands arrives now. */
enum qy_fabric_event { QY_FABRIC_KILL, QY_FABRIC_STOP, QY_FABRIC_CUT, QY_FABRIC_RESUME };
QY_MUST enum qy_status qy_fabric_happens(struct qy_fabric *fabric, const char *address,
                                         enum qy_fabric_event event);

#endif
