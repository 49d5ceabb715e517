/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire over UCX (1.13 or later): one context, one worker, one listener, endpoints made by socket
 * address. Private to net/ucx*.c.
 *
 *   ucx.c           open and close, progress, sleep
 *   ucx_settings.c  what is asked of UCX, and why
 *   ucx_address.c   "host:port" and socket addresses
 *   ucx_device.c    which device of this host has an address
 *   ucx_listen.c    the listener, and who came
 *   ucx_conn.c      connections: made, found by their endpoint, broken, closed
 *   ucx_send.c      messages out
 *   ucx_receive.c   messages in
 *   ucx_signals.c   what UCX did to signals, undone
 *   ucx_memory.c    records reserved at open; registered memory
 *   ucx_inventory.c what UCX finds on this host, for people
 *
 * A message of ours is an active message: qyi_head is its header, the payload its data. Each carries its
 * sender's endpoint (UCP_AM_SEND_FLAG_REPLY), which arrives as the endpoint that stands for it here: that
 * is how a message finds its connection, on both sides.
 *
 * UCX calls back inside ucp_worker_progress. The sink may then send, but nothing is handed to UCX before
 * that call is over (`inside`): a message sent from a callback could overtake those that wait within
 * UCX. What is done is put on lists, and the sink is told from them. Only payloads that come with their
 * message are handed over at once, for their memory ends with the callback.
 */
#ifndef QYI_NET_UCX_H
#define QYI_NET_UCX_H

#include "net/wire.h"

#include <sys/socket.h>
#include <ucp/api/ucp.h>

enum {
    QYI_UCX_AM_MESSAGE = 1, /* of the sink                                                   */
    QYI_UCX_AM_HERE = 2,    /* from who accepted to who asked: the connection stands          */
    QYI_UCX_HELD = 1024,    /* messages of others that may come while a connection is closed   */
    QYI_UCX_DEVICE_BYTES = 64
};

struct qyi_ucx;
struct qyi_ucx_conn;

/* A payload on its way in, by rendezvous. */
struct qyi_ucx_receive {
    struct qyi_head head;
    struct qyi_ucx_conn *conn;
    void *payload, *token;
    ucs_status_t status;
    struct qyi_ucx_receive *next;
};

/* Lists, first in first out. */
struct qyi_ucx_messages {
    struct qyi_message *first, *last;
};
struct qyi_ucx_receives {
    struct qyi_ucx_receive *first, *last;
};

enum qyi_ucx_state {
    QYI_UCX_FREE,
    QYI_UCX_OPEN,
    QYI_UCX_CLOSING,
    QYI_UCX_LOST /* UCX did not give everything back: never used again */
};

struct qyi_ucx_address {
    struct sockaddr_storage at;
    socklen_t bytes;
};

struct qyi_ucx_conn {
    struct qyi_conn base;
    struct qyi_ucx *wire;
    enum qyi_ucx_state state;
    ucp_ep_h ep;               /* NULL: there is none (any more) */
    int asked;                 /* by us, and not known to stand yet */
    struct qyi_ucx_address to; /* bytes 0: it came to us */
    int tell_connected, tell_broken;
    const char *broken;            /* why, borrowed from UCX or a literal; NULL: it is not */
    uint32_t n_open;               /* messages out that the sink was not told of            */
    uint32_t n_out, n_in;          /* what UCX has of them, and of receives               */
    struct qyi_ucx_messages queue; /* to be handed to UCX                         */
    int in_queued;                 /* on the wire's list of connections with a queue */
    struct qyi_ucx_receive *free;  /* [2 * depth] at first                        */
    struct qyi_ucx_conn *next;     /* as the wire's list; of free ones else        */
};

/* A message that came while a connection was being closed. */
struct qyi_ucx_held {
    struct qyi_ucx_conn *conn; /* NULL: it was closed since */
    struct qyi_head head;
    void *data; /* UCX's, to be released; NULL: none */
    int rendezvous;
};

/* Addresses of names that were looked up. */
struct qyi_ucx_name {
    char text[QY_NET_ADDRESS_BYTES + 8]; /* with the port */
    struct qyi_ucx_address address;
};
struct qyi_ucx_names {
    struct qyi_ucx_name *names; /* [max] */
    uint32_t max, n, next;
};

struct qyi_ucx {
    const struct qy_runtime *rt;
    struct qyi_sink sink;
    uint32_t max_conns, depth;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_listener_h listener;
    int fd;
    char address[QY_NET_ADDRESS_BYTES];
    struct qyi_ucx_conn *conns; /* [max_conns] */
    struct qyi_ucx_conn *free;
    struct qyi_ucx_receive *receives; /* [max_conns][2 * depth] */
    struct qyi_ucx_conn **map;        /* [1 << map_bits], by endpoint */
    uint32_t map_bits;
    ucp_conn_request_h *came; /* [max_conns]: who connected and was not answered yet */
    uint32_t n_came;
    int inside;                /* in ucp_worker_progress                           */
    int holding;               /* for close_conn: the sink may not be called there  */
    struct qyi_ucx_held *held; /* [QYI_UCX_HELD] */
    uint32_t n_held;
    struct qyi_ucx_messages sent, unsent; /* to be told: gone; given up   */
    struct qyi_ucx_receives arrived;      /* to be told                   */
    uint32_t n_events;                    /* tell_... that are set        */
    struct qyi_ucx_names names;           /* of max_conns addresses       */
    struct qyi_ucx_conn *queued;          /* connections with a queue     */
};

/* ---- ucx.c ----------------------------------------------------------------------------------- */

/* The error of a call to UCX that failed. [setup] */
enum qy_status qyi_ucx_failed(struct qy_error *err, const char *what, ucs_status_t status);
/* UCX's progress without the sink: messages that come are held.
 *
 * Needed whenever a socket was closed. A thread of UCX 1.13 notes what happens to sockets by their number, and
 * a note that is read only when a new socket has that number ends the process, by an assertion. For the same
 * reason a process should have one wire. */
void qyi_ucx_drain(struct qyi_ucx *wire);

/* ---- ucx_settings.c -------------------------------------------------------------------------- */

/* AF_INET, or AF_INET6 when the user chose that by UCX_TCP_AF_PRIO: addresses of one family are accepted. [any] */
int qyi_ucx_family(void);
/* UCX's configuration with our settings. device: for UCX_NET_DEVICES; "" : any. Returned, by
 * ucp_config_release. QY_ERR_CONFIG: UCX refuses the environment or a setting. [setup] [alloc] */
QY_MUST enum qy_status qyi_ucx_config(const struct qy_runtime *rt, const char *device,
                                      ucp_config_t **config, struct qy_error *err);

/* ---- ucx_address.c --------------------------------------------------------------------------- */

/* "host:port", "[2001:db8::1]:port". names: those known already (a name is looked up once, for that may take
 * long, and connections are made again while steps run); NULL: for listening, where ":port", "*:port" and port 0
 * are accepted too. QY_ERR_CONFIG: not of this form, or of the other family; QY_ERR_NOT_FOUND: no such host.
 * [alloc] */
QY_MUST enum qy_status qyi_ucx_resolve(struct qyi_ucx_names *names, const char *text,
                                       struct qyi_ucx_address *address, struct qy_error *err);
/* Does the host there say, within a moment, that nobody listens at that port? Whoever listens sees a connection
 * that ends at once. */
int qyi_ucx_is_refused(const struct qyi_ucx_address *to);
/* "10.0.0.2:41873", "[::1]:41873". */
void qyi_ucx_format(const struct sockaddr_storage *at, char out[QY_NET_ADDRESS_BYTES]);

/* ---- ucx_device.c ---------------------------------------------------------------------------- */

/* Which device to use, "" for any: `wanted` (NULL: none), else the one that has the address to listen on.
 * With a device, an address that names no host becomes the device's own. QY_ERR_CONFIG: no such device, or the
 * address is not on it. listen: NULL when nobody comes. [setup] [alloc] */
QY_MUST enum qy_status qyi_ucx_choose_device(const char *wanted, struct qyi_ucx_address *listen,
                                             char device[QYI_UCX_DEVICE_BYTES],
                                             struct qy_error *err);

/* ---- ucx_memory.c ---------------------------------------------------------------------------- */

/* A wire with all that progress and send need; NULL: no memory. */
struct qyi_ucx *qyi_ucx_make_records(const struct qyi_wire_params *params);
void qyi_ucx_free_records(struct qyi_ucx *wire);
QY_MUST enum qy_status qyi_ucx_remember(void *wire, void *memory, size_t bytes, void **handle,
                                        struct qy_error *err);
void qyi_ucx_forget(void *wire, void *handle);

/* ---- ucx_listen.c ---------------------------------------------------------------------------- */

/* Opens the listener and fills wire->address. QY_ERR_CONFIG: the address is in use, or not this host's. */
QY_MUST enum qy_status qyi_ucx_listen(struct qyi_ucx *wire, const struct qyi_ucx_address *at,
                                      const char *text, struct qy_error *err);
/* Asks the sink about those who came; how many. */
uint32_t qyi_ucx_accept(struct qyi_ucx *wire);
void qyi_ucx_unlisten(struct qyi_ucx *wire);

/* ---- ucx_conn.c ------------------------------------------------------------------------------ */

/* A connection without an endpoint; NULL: all are in use. */
struct qyi_ucx_conn *qyi_ucx_conn_take(struct qyi_ucx *wire);
void qyi_ucx_conn_put(struct qyi_ucx_conn *conn);
/* Makes its endpoint: to an address, or for somebody who came (given). */
ucs_status_t qyi_ucx_conn_make(struct qyi_ucx_conn *conn, const struct qyi_ucx_address *to,
                               ucp_conn_request_h came);
/* NULL: no open connection has this endpoint. */
struct qyi_ucx_conn *qyi_ucx_conn_of(const struct qyi_ucx *wire, ucp_ep_h ep);
/* Nothing goes over it any more; the sink is told. why: kept. The first reason counts. */
void qyi_ucx_conn_break(struct qyi_ucx_conn *conn, const char *why);
/* Tells the sink what became of connections; how many things. */
uint32_t qyi_ucx_conn_tell(struct qyi_ucx *wire);
QY_MUST enum qy_status qyi_ucx_connect(void *wire, const char *address, void *user,
                                       struct qyi_conn **conn, struct qy_error *err);
void qyi_ucx_close_conn(void *wire, struct qyi_conn *conn);

/* ---- ucx_send.c ------------------------------------------------------------------------------ */

QY_MUST enum qy_status qyi_ucx_send(void *wire, struct qyi_conn *conn, struct qyi_message *message);
/* Hands queued messages to UCX; how many. */
uint32_t qyi_ucx_flush(struct qyi_ucx *wire);
/* Tells the sink what was sent, and what was not; how many. */
uint32_t qyi_ucx_tell_sent(struct qyi_ucx *wire);
/* What is queued will be told as not sent. */
void qyi_ucx_give_up_queue(struct qyi_ucx_conn *conn);
/* The sink hears no more of what this connection sends. */
void qyi_ucx_forget_sends(struct qyi_ucx_conn *conn);

/* ---- ucx_receive.c --------------------------------------------------------------------------- */

/* Sets the handlers of messages. keep: their data outlives the handler, for what is held. */
ucs_status_t qyi_ucx_handle(struct qyi_ucx *wire, int keep);
/* Tells the sink which payloads were fetched; how many. */
uint32_t qyi_ucx_tell_arrived(struct qyi_ucx *wire);
/* Hands over what was held; how many. */
uint32_t qyi_ucx_tell_held(struct qyi_ucx *wire);
/* The sink hears no more of what comes over this connection. */
void qyi_ucx_forget_receives(struct qyi_ucx_conn *conn);

#endif
