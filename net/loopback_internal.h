/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fabric is made of. Private to loopback*.c.
 *
 *   place    an address: its link, and what was done to it; outlives the nodes that were there
 *   loop     the wire of one node
 *   link     a connection: two ends, each with the flights that it sent
 *   flight   a message, or the making or breaking of a connection, on its way
 *
 * A flight has a *far* clock, of what happens at its receiver, and a *near* one, of when its sender is told:
 *
 *   copied:  WAITS --reached--> COMES --all bytes are in--> begins + arrived, OVER;  `sent`: it left
 *   lent:    WAITS --reached--> begins, BEGUN --all bytes are in--> arrived, OVER;   `sent`: after that
 *
 * Flights of one end begin in the order in which they were sent; all else goes by the fabric's order.
 */
#ifndef QYI_NET_LOOPBACK_INTERNAL_H
#define QYI_NET_LOOPBACK_INTERNAL_H

#include "net/wire.h"

struct qyi_place {
    struct qyi_place *next;
    struct qyi_loop *loop; /* the node that lives here; NULL: none */
    int stopped, cut;
    uint64_t out_free_ns, in_free_ns;   /* when its link has carried what it took, each way */
    char address[QY_NET_ADDRESS_BYTES]; /* "": has none, and is found by nobody */
};

struct qyi_loop {
    struct qy_fabric *fabric;
    struct qyi_place *place;
    struct qyi_sink sink;
    uint32_t max_conns, n_conns, depth;
    int listens, dead;
};

enum qyi_flight_kind {
    QYI_FLIGHT_CONNECT,
    QYI_FLIGHT_ACCEPT,
    QYI_FLIGHT_MESSAGE,
    QYI_FLIGHT_BREAK
};

enum qyi_flight_stage { QYI_FLIGHT_WAITS, QYI_FLIGHT_COMES, QYI_FLIGHT_BEGUN, QYI_FLIGHT_OVER };

struct qyi_flight {
    struct qyi_flight *next;
    enum qyi_flight_kind kind;
    enum qyi_flight_stage stage;
    uint64_t far_ns, far_turn;
    uint64_t near_ns, near_turn; /* near_ns UINT64_MAX: not known yet */
    uint64_t wire_ns;            /* its bytes take so long on a link */
    struct qyi_message *message; /* NULL: nobody is to be told (any more) */
    enum qy_status status;       /* that its sender is told */
    int ours;                    /* its memory is the link's, not a piece of its own */
    int lent;                    /* payload is the sender's memory, not ours */
    int dropped;
    size_t payload_bytes; /* as sent, whatever head says after a fault */
    const uint8_t *payload;
    size_t flip;      /* bit of a lent payload to flip on arrival; SIZE_MAX: none */
    uint64_t seal;    /* of the memory that the sender must keep until it is told */
    void *to, *token; /* of `begins` */
    const char *why;  /* BREAK: a literal */
    struct qyi_head head;
};

enum qyi_end_state {
    QYI_END_NONE, /* nobody: not accepted yet, or closed       */
    QYI_END_OPEN,
    QYI_END_BROKEN /* to be closed by its node; carries nothing */
};

struct qyi_end {
    struct qyi_conn conn; /* first: what the node holds */
    struct qyi_link *link;
    struct qyi_loop *loop;
    int side; /* 0: it asked for the connection */
    enum qyi_end_state state;
    uint32_t under_way; /* messages whose sender has not been told */
};

struct qyi_link {
    struct qy_fabric *fabric;
    struct qyi_link *before, *after;
    struct qyi_end ends[2];
    struct qyi_place *places[2];
    struct qyi_flight *first[2], *last[2]; /* by the end that sent them, in that order */
    struct qyi_flight greeting[2], farewell[2];
};

struct qyi_rule {
    enum qy_fabric_fault fault;
    uint64_t seen, after, last; /* messages: met so far; without it before; the last one with it */
    uint64_t ns;
    int from_any, to_any;
    char from[QY_NET_ADDRESS_BYTES], to[QY_NET_ADDRESS_BYTES];
};

struct qy_fabric {
    const struct qy_allocator *mem;
    enum qy_fabric_order order;
    uint64_t latency_ns, now_ns, random;
    double gbps;
    uint64_t
        turns;  /* drawn by everything that is to happen: what was begun later has a higher one */
    int moving; /* inside progress */
    struct qyi_place *places;
    struct qyi_link *links;
    struct qyi_loop **loops; /* by time of opening */
    struct qyi_rule *rules;
    uint32_t n_loops, loops_room, n_rules, rules_room;
};

/* What the rules do to one message. */
struct qyi_faults {
    int drop, duplicate, corrupt, garble;
    uint64_t delay_ns;
};

/* [0, n), n above 0. */
uint64_t qyi_fabric_draw(struct qy_fabric *fabric, uint64_t n);
/* The place of an address, made if there is none yet; NULL: no memory. */
struct qyi_place *qyi_fabric_place(struct qy_fabric *fabric, const char *address);
/* Room for one more item of `bytes` in an array of the fabric's; 0: no memory. */
int qyi_fabric_grow(struct qy_fabric *fabric, void **array, uint32_t n, uint32_t *room,
                    size_t bytes);
/* Counts a message and tells what is done to it. */
struct qyi_faults qyi_fabric_meet(struct qy_fabric *fabric, const struct qyi_place *from,
                                  const struct qyi_place *to);

/* A connection that is being made; its CONNECT is on its way. NULL: no memory. */
struct qyi_link *qyi_link_open(struct qyi_loop *asker, struct qyi_place *to, void *user);
/* Puts a flight behind those that this end sent; far_ns: when its first byte reaches the other end. */
void qyi_link_push(struct qyi_link *link, int side, struct qyi_flight *flight, uint64_t far_ns);
/* A message with our copy of its payload, or with the sender's memory (lent). NULL: no memory. */
struct qyi_flight *qyi_flight_open(struct qyi_link *link, const struct qyi_message *message,
                                   int lent);
/* Of what the sender of a flight must keep: the message, and a payload that is lent. */
uint64_t qyi_flight_seal(const struct qyi_flight *flight, const struct qyi_message *message);
void qyi_flight_close(struct qyi_link *link, struct qyi_flight *flight);
/* The sender of a flight is to be told at ns, or later where the order is random. */
void qyi_flight_free_at(struct qyi_link *link, struct qyi_flight *flight, uint64_t ns);
/* Puts a message on the link of its sender's place. */
void qyi_link_depart(struct qyi_link *link, int side, struct qyi_flight *flight, uint64_t delay_ns);
/* Frees the flights of this end that have nothing to do any more. */
void qyi_link_sweep(struct qyi_link *link, int side);
/* This end leaves: nothing of its memory is touched any more, its sink is not called, and the other end
 * will hear why. What was copied still goes. Not open any more: nothing. */
void qyi_link_leave(struct qyi_link *link, int side, const char *why);
/* This end is closed by its node; frees the link with its second end. */
void qyi_link_close_end(struct qyi_link *link, int side);

/* A flight's near event: its sender hears that the message's memory is free. */
void qyi_flight_tell(struct qyi_link *link, int side, struct qyi_flight *flight);
/* Its far event: the next thing that happens to it at the other end. */
void qyi_flight_move(struct qyi_link *link, int side, struct qyi_flight *flight);

/* The time of the next event, from now on; UINT64_MAX: none. */
uint64_t qyi_fabric_next(struct qy_fabric *fabric);
uint32_t qyi_fabric_progress(struct qy_fabric *fabric);
void qyi_fabric_wait(struct qy_fabric *fabric, uint64_t until_ns);

#endif
