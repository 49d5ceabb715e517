/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net: connections between the processes of a job, and questions with answers over them. It moves
 * bytes and knows no block.
 *
 *   node      this process's place on the network: its key, its listener, its peers
 *   peer      another node: one that we ask (by address), or one that came to ask us
 *   request   a question: head and payload out, head and payload back, before a deadline
 *   call      the same at the other end, where a *service* answers it
 *   fabric    several nodes in one process, with faults: the ground of tests (net/loopback.h)
 *
 * A node has one owner thread and is polled: qy_node_progress moves what can be moved, ends what is
 * over its deadline and calls back; nothing happens between two calls. Transports do not report a
 * process that stopped or a cable that was cut, so every request has a deadline of ours, and a peer
 * that missed one is LOST until it answers again.
 *
 * Both ends of a connection prove that they know the job's key before anything else is said
 * (net/hello.h). Every message carries a checksum of its head and payload. Neither is encryption.
 */
#ifndef QY_NET_H
#define QY_NET_H

#include "runtime/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- node ---------------------------------------------------------------------------------- */

enum {
    QY_NET_PROTOCOL = 1, /* both ends must speak the same */
    QY_NET_KEY_BYTES = 32,
    QY_NET_SESSION_BYTES = 16,
    QY_NET_ADDRESS_BYTES = 128, /* "host:port", with its 0 */
    QY_NET_HEAD_BYTES = 64      /* of a question or an answer, beside the payload */
};

struct qy_node;
struct qy_peer;
struct qy_call;
struct qy_fabric;

/* Who answers. Called inside qy_node_progress; none may call it again. */
struct qy_service {
    void *ctx;
    /* Where the payload of a call goes, known by its head alone: call->payload_bytes bytes there until
     * `done`. Not asked when there is no payload. Return NULL for the node's own buffer; *code other than
     * 0: the payload is dropped, the call answered with that code, and nothing more is heard of it. The
     * payload may come damaged or not at all: then `done` follows without `serve`. May be NULL. */
    void *(*place)(void *ctx, const struct qy_call *call, uint16_t *code);
    /* The call has arrived whole. Answers it with qy_call_answer, at once. */
    void (*serve)(void *ctx, struct qy_call *call);
    /* The answer was sent, or the call given up because the peer left: what `place` gave and the answer's
     * payload are free. Once for every call that `place` accepted or `serve` saw. May be NULL. */
    void (*done)(void *ctx, struct qy_call *call);
    /* A peer that asks us proved itself, or is no longer connected (whatever the reason; silence of 30
     * timeouts is one). May be NULL. The session (qy_peer_session) of a peer that comes back is the same;
     * it may come back before its old connection is known to be gone, which then leaves first. */
    void (*joined)(void *ctx, struct qy_peer *peer);
    void (*left)(void *ctx, struct qy_peer *peer, const char *why);
};

struct qy_node_params {
    const struct qy_runtime *rt; /* kept */
    struct qy_fabric *fabric;    /* kept; NULL: the network, by UCX                              */
    const char *device;          /* network device to use and to listen on, "eth0"; NULL: any    */
    const char *listen;          /* "host:port", port 0: any that is free; NULL: nobody comes    */
    const struct qy_service *service;      /* kept; with `listen` */
    uint8_t key[QY_NET_KEY_BYTES];         /* the job's */
    uint8_t session[QY_NET_SESSION_BYTES]; /* names this process to those it asks, across
                                              connections: random bytes of its own      */
    uint64_t timeout_ns; /* of a request, and of a connection's hello                       */
    uint64_t silent_ns;  /* who asks us and says nothing for so long has left, though its connection
                            stands; 0: 30 timeouts. An owner who computes does not come to its node */
    uint64_t spin_ns;    /* qy_node_wait polls so long before it sleeps                      */
    uint32_t max_peers;  /* that we ask and that ask us, together                            */
    uint32_t depth;      /* requests of one peer under way at once, 1 .. 64                  */
    size_t call_bytes;   /* largest payload of a call that `place` does not place            */
    size_t answer_bytes; /* of the buffers that answers may be written into                  */
    uint32_t n_answers;  /* such buffers; calls wait in turn, peer by peer, until one is free */
};

/* Opens a node; it has its address when this returns. QY_ERR_CONFIG: an address or device that cannot be;
 * QY_ERR_DEVICE: the port is in use. [setup] [alloc] */
QY_MUST enum qy_status qy_node_open(const struct qy_node_params *params, struct qy_node **node,
                                    struct qy_error *err);
/* Ends all connections at once, without waiting for anybody, and closes its peers: requests under way end
 * with QY_ERR_PEER, the service hears `done` and `left`. */
void qy_node_close(struct qy_node *node);
/* Where it listens, "10.0.0.2:41873"; "" when it does not. */
const char *qy_node_address(const struct qy_node *node);
/* Which start of the process this is: drawn at open, never 0, told in the hello. */
uint64_t qy_node_incarnation(const struct qy_node *node);
/* Moves what can be moved without waiting; how many things happened. A time in which the owner did not
 * come here counts for deadlines as an eighth of the timeout at most. [owner] [noalloc], but for
 * connections that come and go, and the transport's own */
uint32_t qy_node_progress(struct qy_node *node);
/* Nothing to do: sleeps until something happens, or until the clock shows until_ns, or a deadline comes;
 * may return early. [owner] */
void qy_node_wait(struct qy_node *node, uint64_t until_ns);
/* The clock that deadlines go by: qy_clock_ns, or the fabric's. */
uint64_t qy_node_now(const struct qy_node *node);
/* Becomes readable when qy_node_progress has work, if the caller called qy_node_arm and got QY_OK; QY_AGAIN:
 * there is work now. -1: the transport has none. [owner] */
int qy_node_fd(const struct qy_node *node);
QY_MUST enum qy_status qy_node_arm(struct qy_node *node);
/* Checksums of messages, sent and received, since open: what they cost this process, and what they found. */
struct qy_node_checks {
    uint64_t ns;      /* estimated, rather too much: small ones are sampled */
    uint64_t bytes;   /* of heads and payloads                              */
    uint64_t damaged; /* messages that were not what was sent, each once    */
    uint64_t again;   /* questions asked once more, damaged here or there   */
};
void qy_node_checks(const struct qy_node *node, struct qy_node_checks *checks);

/* The transport's library takes signals as it is loaded, whether a node is opened or not: SIGHUP does not
 * end the process then, and a crash writes to stdout. This gives them back what they had; a program calls it
 * first, and opening a node on the network does. [setup] */
void qy_net_give_signals_back(void);

/* ---- peers --------------------------------------------------------------------------------- */

enum qy_peer_state {
    QY_PEER_CONNECTING, /* for the first time                                               */
    QY_PEER_UP,
    QY_PEER_LOST,   /* missed a deadline, or the connection broke; it is tried again and again  */
    QY_PEER_GONE,   /* not back within three timeouts: nobody should wait for it. Still tried,
                       once a second; may be UP again                                            */
    QY_PEER_REFUSED /* wrong key, or another protocol: not tried again                          */
};

/* Begins to connect to address ("host:port"); qy_peer_wait tells how it went. name is for messages
 * (copied). [owner] [alloc] */
QY_MUST enum qy_status qy_peer_open(struct qy_node *node, const char *address, const char *name,
                                    struct qy_peer **peer, struct qy_error *err);
/* Requests under way end with QY_ERR_PEER. Only of peers that were opened. */
void qy_peer_close(struct qy_peer *peer);
/* Waits until it is UP: QY_OK, QY_ERR_TIMEOUT, or QY_ERR_PEER: refused. err says why in words. [owner] */
QY_MUST enum qy_status qy_peer_wait(struct qy_peer *peer, uint64_t timeout_ns,
                                    struct qy_error *err);
enum qy_peer_state qy_peer_state(const struct qy_peer *peer);
/* 1: it is not UP, and its host said that nobody listens at its address: the process that was there has
 * ended, and what it held is lost, whoever may begin there. Of a host that says nothing, 0. [any] */
int qy_peer_has_ended(const struct qy_peer *peer);
/* "connecting", "up", "lost", "gone" or "refused". [any] */
const char *qy_peer_state_name(enum qy_peer_state state);
const char *qy_peer_name(const struct qy_peer *peer);
/* Which start of the peer's process this is; another number than before: what it held is lost. 0 until
 * it was UP. */
uint64_t qy_peer_incarnation(const struct qy_peer *peer);
/* Of a peer that asks us: [QY_NET_SESSION_BYTES]. */
const uint8_t *qy_peer_session(const struct qy_peer *peer);
/* The service's own: kept with the connection, NULL at first. */
void qy_peer_set_user(struct qy_peer *peer, void *user);
void *qy_peer_user(const struct qy_peer *peer);

struct qy_peer_stats {
    uint64_t requests, sent_bytes, received_bytes; /* of answered requests                    */
    uint64_t timeouts, broken, corrupt, again;     /* again: asked once more after a bad answer */
    uint64_t lost_ns; /* when it was last LOST, on qy_node_now; 0: never                       */
};
void qy_peer_stats(const struct qy_peer *peer, struct qy_peer_stats *stats);

/* ---- requests ------------------------------------------------------------------------------ */

/* Counts requests until the last is done. A plain value; begin, post any number with it, look. */
struct qy_op {
    uint32_t pending;
    enum qy_status status; /* of the first that failed; QY_OK: none did */
};

/* A question. The caller fills the first part and keeps all of it, payload and reply as well, until
 * status is not QY_PENDING any more; after that nobody touches them. */
struct qy_request {
    uint16_t op; /* what is asked: the service's own numbers */
    uint16_t head_bytes;
    uint8_t head[QY_NET_HEAD_BYTES];
    const void *payload;
    size_t payload_bytes;
    void *reply; /* the answer's payload goes there */
    size_t reply_capacity;
    uint64_t timeout_ns;  /* 0: the node's */
    struct qy_op *counts; /* NULL: none; pending goes down when it is done */
    /* Written when it is done. */
    enum qy_status status; /* QY_OK: answered. QY_ERR_TIMEOUT, QY_ERR_PEER (the connection broke).
                                QY_ERR_CORRUPT: the answer was not what was sent, twice. QY_ERR_INVALID:
                                the answer does not fit into reply */
    uint16_t code;         /* the service's; 0: done */
    uint16_t reply_head_bytes;
    uint8_t reply_head[QY_NET_HEAD_BYTES];
    size_t reply_bytes;
    uint64_t took_ns;
    /* The node's own. */
    struct qy_peer *peer;
    uint64_t id, deadline_ns;
    uint32_t state;
    int asked_again;
    struct qy_request *next;
    void *message; /* of the transport */
};

/* Sends it on its way: status is QY_PENDING, counts goes up. A bad answer is asked for once more by
 * itself, so questions must bear being asked twice. QY_AGAIN: `depth` requests are under way; progress
 * first. QY_ERR_PEER: the peer is not UP. QY_ERR_INVALID: sizes. [owner] [noalloc] */
QY_MUST enum qy_status qy_request_post(struct qy_peer *peer, struct qy_request *request);
/* Progresses until op->pending is 0: op->status. Ends, for requests have deadlines. [owner] */
QY_MUST enum qy_status qy_op_wait(struct qy_node *node, struct qy_op *op);

/* ---- calls --------------------------------------------------------------------------------- */

/* A question that somebody asked us. */
struct qy_call {
    struct qy_peer *peer;
    uint16_t op;
    uint16_t head_bytes;
    const uint8_t *head;
    size_t payload_bytes;
    const void
        *payload; /* where `place` said, or in the node's buffer until `serve` returns; NULL in
                            `place` */
    void *answer; /* in `serve`: [answer_bytes] to write an answer's payload into, if wanted */
    void *user;   /* the service's own, NULL at first */
};

/* Answers: a code of the service's (0: done), a head, and a payload, which is either call->answer or
 * other memory of the service's, kept until `done`. Inside `serve` only. [owner] [noalloc] */
void qy_call_answer(struct qy_call *call, uint16_t code, const void *head, size_t head_bytes,
                    const void *payload, size_t payload_bytes);
/* The caller broke the rules (sizes, ids that are not its own): closes that peer, and nothing else. Instead
 * of an answer. why: for the log. */
void qy_call_refuse(struct qy_call *call, const char *why);

/* ---- memory that is sent from and received into ------------------------------------------------ */

/* Registered memory moves faster where the hardware can take it by itself; everything works without.
 * memory is kept until close. [setup] [alloc] */
struct qy_region;
QY_MUST enum qy_status qy_region_open(struct qy_node *node, void *memory, size_t bytes,
                                      struct qy_region **region, struct qy_error *err);
void qy_region_close(struct qy_region *region);

#include "net/inventory.h"
#include "net/loopback.h"
#include "net/ranks.h"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
