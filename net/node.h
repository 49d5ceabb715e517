/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a node, shared by node.c, sink.c, peer.c, greet.c, request.c and call.c. Private to net/.
 *
 *   peer    a place for one connection at a time: to somebody we ask (`asks`), or of somebody who asks
 *   out     a message of the node's: idle, waiting for room in the wire, or with the wire
 *   ask     a place for a question under way: its message, and who waits for the answer
 *   call    a place for a question of somebody else's: received, queued, served, answered
 *
 * The sink's functions (called by the wire) only take note; what closes connections, lets peers in, serves
 * calls or looks at deadlines is done by `work`. A peer whose connection must go is *doomed* until then.
 *
 * Deadlines go by node->time, which stands still while the owner does not come: a process that was
 * stopped, or computed for long, must not find everybody else late.
 */
#ifndef QYI_NET_NODE_H
#define QYI_NET_NODE_H

#include "net/hello.h"

enum {
    QYI_STRANGERS = 8,      /* chosen: connections that have not proved themselves, at once   */
    QYI_SPARE_MESSAGES = 4, /* of a connection beside `depth`: hello and ping                  */
    QYI_GREETINGS = 3,      /* a side says two things, and may refuse then              */
    QYI_GONE_TIMEOUTS = 3,
    /* chosen: an idle peer is pinged after this part of a timeout, so that its loss is known not much
     * later than that of one who owes an answer. */
    QYI_PINGS = 8,
    QYI_SILENT_TIMEOUTS = 30, /* chosen: silent_ns where none is given */
    QYI_ASKS = 64             /* places of questions that an id can tell */
};

enum qyi_role { QYI_OUT_GREET, QYI_OUT_BEAT, QYI_OUT_ASK, QYI_OUT_ANSWER };

struct qyi_out {
    struct qyi_message message; /* its `user` is this */
    struct qy_peer *peer;
    struct qyi_out *next; /* of those that wait for room */
    enum qyi_role role;
    int busy; /* waiting, or with the wire */
};

struct qyi_ask {
    struct qyi_out out;         /* first: an out of this role is an ask */
    struct qy_request *request; /* NULL: free */
    struct qyi_ask *next;       /* of those that are free */
    int receiving;              /* its answer is coming in: no other is taken */
    int damaged, too_large;     /* of that answer */
    int again;                  /* to be sent again when the wire gives the message back */
    int over;                   /* ends with `result` when the wire gives the message back */
    enum qy_status result;
};

enum qyi_call_state {
    QYI_CALL_FREE,
    QYI_CALL_RECEIVING,
    QYI_CALL_QUEUED,
    QYI_CALL_SERVING,
    QYI_CALL_SENDING
};

struct qyi_call {
    struct qyi_out out;    /* first: an out of this role is a call */
    struct qy_call call;   /* what the service sees */
    struct qyi_call *next; /* free, or queued */
    uint64_t id;
    enum qyi_call_state state;
    int owed;        /* the service is to hear `done` */
    uint16_t code;   /* of `place`: other than 0 */
    uint8_t *buffer; /* of the peer's, that the payload goes to; NULL: none */
    uint8_t *answer; /* of the node's, that the answer is written into; NULL: none */
    uint8_t head[QY_NET_HEAD_BYTES];
};

struct qy_peer {
    struct qy_node *node;
    struct qyi_conn *conn; /* NULL: none */
    int used, asks;        /* asks: we ask it; else it asks us */
    enum qy_peer_state state;
    int doomed, joins; /* to be closed; proved and to be let in: by the next work */
    int timed_out;     /* that is why */
    int ended;         /* nobody listens where it was */
    int lingers;       /* a refusal was sent: waits for the other end to close */
    char why[192];     /* it was doomed, or an attempt failed */
    char name[64], address[QY_NET_ADDRESS_BYTES];
    uint64_t due;      /* of an attempt, of a hello, or when to try again */
    uint64_t heard;    /* the last good message */
    uint64_t heard_at; /* the same, on the wire's clock */
    uint64_t lost_at;  /* or opened */
    uint64_t incarnation;
    void *user;

    struct qyi_hello hello;
    struct qyi_out greets[QYI_GREETINGS]; /* what this side says */
    uint8_t greetings[QYI_GREETINGS][QYI_HELLO_BYTES];
    uint8_t greeted[QYI_HELLO_BYTES]; /* what the other side says */
    uint32_t n_said, n_heard;
    size_t welcome_bytes; /* of the last greeting, which waits until the peer is let in */
    int greeting;         /* `greeted` is being written */

    struct qyi_out beat;                /* a ping, or a pong                              */
    uint64_t beat_due;                  /* of a ping: 0, nobody waits for an answer       */
    uint64_t pong_id;                   /* to be sent when `beat` is idle; 0: none         */
    struct qyi_out *waits, **waits_end; /* in order, for room in the wire */

    struct qyi_ask *all_asks, *free_asks; /* [node->depth]: asks */
    uint32_t depth, n_asks;               /* that it accepts; under way */

    struct qyi_call *all_calls, *free_calls; /* [2 depth]: half may wait for the wire to be sent */
    struct qyi_call *queue, **queue_end;
    uint64_t last_ids[QYI_ASKS];     /* the last question of each place */
    uint8_t *buffers;                /* [depth][call_bytes] */
    uint8_t **free_buffers;          /* [n_free_buffers] */
    uint32_t n_free_buffers, n_open; /* calls received or queued */
    uint32_t n_answers;              /* of the node's, that its calls have */

    struct qy_peer_stats stats;
};

struct qy_node {
    const struct qy_runtime *rt;
    const struct qyi_wire_ops *ops;
    void *wire;
    struct qy_service service;
    int serves, closing;
    struct qyi_identity identity;
    uint8_t key[QY_NET_KEY_BYTES];
    uint64_t timeout, silent, spin_ns;
    uint32_t depth, max_peers, n_peers; /* n_peers: opened and let in */
    size_t call_bytes, answer_bytes;

    uint64_t time, last; /* see above; the wire's clock when it was read last */
    uint64_t due;        /* no deadline before it                   */
    int watched;         /* somebody sleeps for us until `due`      */
    uint32_t n_events;   /* of the sink, since the last work        */
    uint32_t n_doomed, n_joining, n_waiting, n_queued, n_strangers;
    uint64_t serial; /* of ids */
    struct qy_node_checks checks;
    uint32_t n_small_checks; /* of the sampling: wraps */

    uint8_t *answers;       /* [n_answers][answer_bytes] */
    uint8_t **free_answers; /* [n_free_answers] */
    uint32_t n_free_answers;
    uint32_t n_answered;   /* peers whose calls have some */
    uint32_t turn;         /* the peer to be served first */
    struct qy_peer *peers; /* [n_places] */
    uint32_t n_places;
};

/* ---- check.c: heads and payloads ----------------------------------------------------------------- */

/* Fills in all but kind, op, id and the head's own bytes. payload [head->payload_bytes]. */
void qyi_head_seal(struct qyi_head *head, const void *payload);
/* Is this something that a node could have said? NULL: yes; else why not, a literal. Everything is
 * possible as input. */
const char *qyi_head_check(const struct qyi_head *head);
/* Is the head not what was sent? */
int qyi_head_damaged(const struct qyi_head *head);
/* Is the payload what was sent? payload NULL: it was dropped, and nobody knows: 1. */
int qyi_payload_check(const struct qyi_head *head, const void *payload);
/* The same three for a node, which counts what they take and find. */
void qyi_node_seal(struct qy_node *node, struct qyi_head *head, const void *payload);
const char *qyi_node_check_head(struct qy_node *node, const struct qyi_head *head);
int qyi_node_check_payload(struct qy_node *node, const struct qyi_head *head, const void *payload);

/* ---- node.c ------------------------------------------------------------------------------------ */

/* Reads the clock: node->time goes on. */
void qyi_node_clock(struct qy_node *node);
/* Work is due at `time`, too. */
void qyi_node_due(struct qy_node *node, uint64_t time);

/* ---- out.c ------------------------------------------------------------------------------------- */

/* A message to be filled in: kind, op, id, head, payload. */
void qyi_out_init(struct qyi_out *out, struct qy_peer *peer, enum qyi_role role);
/* Goes to the wire, now or when there is room. Sealed before (qyi_head_seal). */
void qyi_out_send(struct qyi_out *out);
/* Sends what waited for room; how many. */
uint32_t qyi_outs_flush(struct qy_node *node);
/* After the connection has gone: nothing waits. */
void qyi_outs_forget(struct qy_peer *peer);

/* ---- sink.c ------------------------------------------------------------------------------------ */

/* The sink for a wire, but for work and due, which are node.c's. */
void qyi_sink_fill(struct qyi_sink *sink, struct qy_node *node);

/* ---- peer.c ------------------------------------------------------------------------------------- */

/* A free place, or NULL. */
struct qy_peer *qyi_peer_take(struct qy_node *node, int asks);
/* Its connection is to be closed. The first reason counts. */
void qyi_peer_doom(struct qy_peer *peer, const char *format, ...) QY_PRINTF(2, 3);
/* Closes its connection: requests fail, calls are given up. A peer that we ask will be tried again; the place
 * of another is free. */
void qyi_peer_end(struct qy_peer *peer);
/* One that we ask is UP. */
void qyi_peer_up(struct qy_peer *peer);
/* Lets one in that asks us and proved itself, or sends it away: there is no room. */
void qyi_peer_join(struct qy_peer *peer);
/* Deadlines and attempts; the time of the next. */
uint64_t qyi_peer_tick(struct qy_peer *peer);
/* Memory that the place has kept. */
void qyi_peer_free(struct qy_peer *peer);

/* ---- greet.c: hello and pings over a connection ------------------------------------------------------ */

void qyi_greet_open(struct qy_peer *peer);
void qyi_greet_begin(struct qy_peer *peer); /* the one who asks speaks first */
void *qyi_greet_begins(struct qy_peer *peer, const struct qyi_head *head);
void qyi_greet_arrived(struct qy_peer *peer, const struct qyi_head *head, const void *payload);
void qyi_greet_say(struct qy_peer *peer, size_t bytes); /* what is in greetings[n_said] */
void qyi_beat_send(struct qy_peer *peer, enum qyi_kind kind, uint64_t id);
void qyi_beat_sent(struct qy_peer *peer);

/* ---- request.c --------------------------------------------------------------------------------- */

QY_MUST enum qy_status qyi_asks_open(struct qy_peer *peer);
void *qyi_ask_begins(struct qy_peer *peer, const struct qyi_head *head, void **token);
/* An answer whose head is damaged: 1, it is known which. */
int qyi_ask_damaged(struct qy_peer *peer, const struct qyi_head *head, void **token);
void qyi_ask_arrived(struct qyi_ask *ask, const struct qyi_head *head, const void *payload);
void qyi_ask_sent(struct qyi_ask *ask);
/* How many are over their deadline; *next: the earliest of the others. */
uint32_t qyi_asks_late(const struct qy_peer *peer, uint64_t *next);
/* After the connection has gone. */
void qyi_asks_fail(struct qy_peer *peer);

/* ---- call.c ---------------------------------------------------------------------------------------- */

/* Reserves what calls of the peer need; kept with the place. */
QY_MUST enum qy_status qyi_calls_open(struct qy_peer *peer);
void *qyi_call_begins(struct qy_peer *peer, const struct qyi_head *head, void **token);
void qyi_call_arrived(struct qyi_call *call, const struct qyi_head *head, const void *payload);
void qyi_call_sent(struct qyi_call *call);
/* After the connection has gone. */
void qyi_calls_give_up(struct qy_peer *peer);
/* Serves what waits, peer by peer; how many. */
uint32_t qyi_calls_serve(struct qy_node *node);
/* Would that serve one? */
int qyi_calls_are_due(const struct qy_node *node);

#endif
