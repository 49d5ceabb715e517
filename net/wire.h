/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries messages between nodes, behind one table: UCX (ucx*.c) or a fabric in this process
 * (loopback*.c). Private to net/.
 *
 * A wire knows connections and messages (a head of fixed size and a payload), and nothing of peers,
 * keys, requests or deadlines, which are the node's (node.c, peer.c, hello.c, request.c, call.c). It
 * calls the sink below from inside `progress` and nowhere else (`due` from `wait`, too). Inside the
 * sink's functions `send` may be called; `close_conn`, `connect` and `progress` not, but for `work`.
 */
#ifndef QYI_NET_WIRE_H
#define QYI_NET_WIRE_H

#include "net/net.h"

enum { QYI_NET_MAGIC = 0x314e5951 }; /* "QYN1" */

enum qyi_kind {
    QYI_KIND_HELLO = 1, /* hello.c: four messages, before anything else */
    QYI_KIND_ASK,
    QYI_KIND_ANSWER,
    QYI_KIND_PING, /* answered by PONG with the same id */
    QYI_KIND_PONG,
    QYI_KIND_DAMAGED /* instead of an answer: the question's payload was not what was sent */
};

/* Little endian, as all our machines are (checked when a node opens). */
struct qyi_head {
    uint32_t magic;
    uint8_t protocol, kind;
    uint16_t op; /* of a question, or the code of an answer */
    uint64_t id; /* low 6 bits: a question's place among those under way; above them a number that
                    grows: what comes with an old one came twice. Of a hello: its number, 1 to 4 */
    uint64_t payload_bytes;
    uint16_t head_bytes; /* of `head` that count */
    uint16_t zero;
    /* Low half of qy_checksum of this struct with head_sum 0: nobody acts on a head before it was
     * checked, and the payload comes later. */
    uint32_t head_sum;
    uint64_t sum; /* qy_checksum of the payload, seeded by the id; 0: there is none */
    uint8_t head[QY_NET_HEAD_BYTES];
};
_Static_assert(sizeof(struct qyi_head) == 40 + QY_NET_HEAD_BYTES, "goes over the network as it is");

/* A connection; the wire's own struct begins with it. */
struct qyi_conn {
    void *user; /* the node's */
};

/* A message on its way. All of it, payload too, is kept until `sent`. */
struct qyi_message {
    struct qyi_head head;
    const void *payload;
    void *user;               /* the node's                   */
    struct qyi_message *next; /* the wire's, as the next one   */
    void *request;
};

struct qyi_sink {
    void *ctx;
    /* Somebody connected to the listener. conn->user is NULL; setting it is the node's business. Returns 0:
     * there is no room for it, and the wire closes it. */
    int (*accepted)(void *ctx, struct qyi_conn *conn);
    /* A connection that we asked for stands: messages may be sent (they may be queued before, too). */
    void (*connected)(void *ctx, struct qyi_conn *conn);
    /* A message begins, with a payload or without: the payload of head->payload_bytes goes to the memory
     * returned, which stays until `arrived`, or until close_conn. NULL with payload_bytes above 0: the
     * payload is dropped, and `arrived` is called without it. *token is handed to `arrived`. The head is not
     * trusted: the wire has checked no more than that it has its size, and that the payload is
     * payload_bytes long (else the connection breaks). */
    void *(*begins)(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token);
    void (*arrived)(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token);
    /* The wire needs the message's memory no more. status other than QY_OK: it may not have gone. */
    void (*sent)(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                 enum qy_status status);
    /* The connection broke, or could not be made: the node closes it (later, with close_conn). why: words
     * of the transport, borrowed; qyi_nobody_listens (that pointer): the host at the address says so. Called
     * once at most; what was under way is `sent` with QY_ERR_PEER just before or after it, unless close_conn
     * comes first. */
    void (*broke)(void *ctx, struct qyi_conn *conn, const char *why);
    /* The node's own work: what is over its deadline, connections to close or to make again, calls whose
     * turn has come. Every wire calls it at the end of its `progress`, and here everything of the wire
     * may be called but `progress` and `wait`; returns how many things happened. A fabric calls it for
     * all its nodes, whichever of them is polled: those who answer must get on while the one who asks waits
     * in the same thread. NULL: none. */
    uint32_t (*work)(void *ctx);
    /* When `work` has something to do by the clock alone: a fabric's time does not jump over it.
     * UINT64_MAX: never. NULL: never. */
    uint64_t (*due)(void *ctx);
};

extern const char qyi_nobody_listens[]; /* "nobody listens there" */

struct qyi_wire_params {
    const struct qy_runtime *rt;
    struct qy_fabric *fabric;
    const char *device, *listen; /* NULL: any; nobody comes     */
    uint32_t max_conns, depth;   /* messages of a connection under way at once, each way */
    struct qyi_sink sink;
};

struct qyi_wire_ops {
    QY_MUST enum qy_status (*open)(const struct qyi_wire_params *params, void **wire,
                                   struct qy_error *err);
    /* After its connections. */
    void (*close)(void *wire);
    const char *(*address)(const void *wire);
    /* Begins to connect. The address is checked here, whether anybody is there is told by `connected` or
     * `broke`. [alloc] */
    QY_MUST enum qy_status (*connect)(void *wire, const char *address, void *user,
                                      struct qyi_conn **conn, struct qy_error *err);
    /* Ends a connection at once. What is under way is given up without calling the sink; when it returns
     * nothing of its messages and payloads is touched any more. Never waits for the other end. */
    void (*close_conn)(void *wire, struct qyi_conn *conn);
    /* QY_AGAIN: too much is under way on it. QY_ERR_PEER: it broke. [noalloc] of ours */
    QY_MUST enum qy_status (*send)(void *wire, struct qyi_conn *conn, struct qyi_message *message);
    uint32_t (*progress)(void *wire); /* how many things happened */
    void (*wait)(void *wire, uint64_t until_ns, uint64_t spin_ns);
    uint64_t (*now)(const void *wire);
    int (*fd)(const void *wire); /* -1: none */
    QY_MUST enum qy_status (*arm)(void *wire);
    /* *handle: for forget. */
    QY_MUST enum qy_status (*remember)(void *wire, void *memory, size_t bytes, void **handle,
                                       struct qy_error *err);
    void (*forget)(void *wire, void *handle);
};
extern const struct qyi_wire_ops qyi_wire_loopback;
#ifdef QY_HAVE_UCX
extern const struct qyi_wire_ops qyi_wire_ucx;
#endif

#endif
