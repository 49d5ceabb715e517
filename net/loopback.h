/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of net.h, not to be included alone: a fabric, which is a network inside one process. Nodes that
 * were opened on it talk to each other by address ("a", "b:1": any text), all in one thread: progress
 * of any node moves the whole fabric, and does every node's own work (deadlines, calls, services) too.
 * A node that does not listen is known by its `device`, if it has one.
 *
 * Time is the fabric's own. It stands still while messages can be delivered, and jumps to the next
 * delivery or deadline (of any node) when a node waits: tests of timeouts take no time, and with one
 * seed everything happens in one order.
 *
 * Payloads up to QY_FABRIC_COPIED_BYTES are copied when they are sent; longer ones are read from the
 * sender's memory when they arrive, as real transports do.
 */
#ifndef QY_NET_LOOPBACK_H
#define QY_NET_LOOPBACK_H

#ifndef QY_NET_H
#error "include net/net.h"
#endif

enum { QY_FABRIC_COPIED_BYTES = 4096 }; /* chosen: what UCX sends eagerly is about that */

enum qy_fabric_order { QY_FABRIC_IN_ORDER, QY_FABRIC_REVERSED, QY_FABRIC_RANDOM };

/* Order is of messages of different connections, and of the payloads of large messages: those of one
 * connection begin in the order in which they were sent. With RANDOM a sender also learns up to two latencies
 * late that its memory is free again. */
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

/* What is done to messages from one address to another (NULL: any); making a connection is no message.
 * `after` messages pass first. Of several rules for a message each does its own; what is dropped is
 * counted by all. */
enum qy_fabric_fault {
    /* `count` messages never arrive; their sender is not told. */
    QY_FABRIC_DROP,
    /* `count` messages begin `ns` later; those behind them on the connection not before them. */
    QY_FABRIC_DELAY,
    /* `count` messages come twice, one after the other. */
    QY_FABRIC_DUPLICATE,
    /* A bit of `count` messages is flipped: of the payload; without one, of the head bytes that a question
     * or answer has; without those, of its code. */
    QY_FABRIC_CORRUPT,
    /* The same, but any bit of the whole head: kind, id, sizes, code. */
    QY_FABRIC_GARBLE
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
 * closed by its owner, and another may open at the address. STOP: neither sends nor receives nor does its
 * work, and nobody is told; a KILL ends it. CUT: its link carries nothing, which nobody is told, whatever
 * else happens to the node; its own work goes on. RESUME: ends STOP and CUT; what was sent meanwhile over
 * a connection that still stands arrives now. A node that is stopped or killed must not be waited on: its
 * deadlines do not come. QY_ERR_NOT_FOUND: no such node (CUT and RESUME: none was ever there). QY_AGAIN:
 * inside a callback of a node; after it. */
enum qy_fabric_event { QY_FABRIC_KILL, QY_FABRIC_STOP, QY_FABRIC_CUT, QY_FABRIC_RESUME };
QY_MUST enum qy_status qy_fabric_happens(struct qy_fabric *fabric, const char *address,
                                         enum qy_fabric_event event);

#endif
