/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a store on memory servers share. Private to servers*.c. */
#ifndef QYI_OFFLOAD_SERVERS_INTERNAL_H
#define QYI_OFFLOAD_SERVERS_INTERNAL_H

#include "offload/memory/remote_wire.h"
#include "offload/servers/servers.h"

/* Where a copy of a slot's block is. */
struct qyi_copy {
    uint32_t server;
    uint32_t epoch; /* of the server, when it took the copy */
};

struct qyi_place {
    struct qyi_store_name name;
    int writing; /* a write of it is not done yet: copies come */
    uint32_t n;  /* copies */
    struct qyi_copy copies[QYI_COPIES_MOST];
};

enum qyi_message_kind {
    QYI_MESSAGE_OPEN,
    QYI_MESSAGE_BOOK,
    QYI_MESSAGE_DROP,
    QYI_MESSAGE_STATE,
    QYI_MESSAGE_MOVE_READ,
    QYI_MESSAGE_MOVE_PUT,
    QYI_MESSAGE_PUT, /* from here on they name memory of the caller's */
    QYI_MESSAGE_READ,
    QYI_MESSAGE_ROWS,
    QYI_MESSAGE_ATTEND,
    QYI_MESSAGE_CHUNK,
    QYI_MESSAGE_SCORE
};

/* A question on its way, or ready to go. */
struct qyi_servers_message {
    struct qy_request request;
    enum qyi_message_kind kind;
    uint32_t server, epoch;
    int posted;
    uint8_t *payload;                 /* [call_bytes]   */
    uint8_t *reply;                   /* [answer_bytes] */
    struct qyi_store_request **parts; /* [max_parts] of a READ, or ROWS; one of a PUT, or CHUNK */
    uint32_t n_parts;
    uint32_t layer, n_items,
        n_ids; /* of ROWS: parts of one list that follow each other are one item; SCORE: blocks */
    size_t bytes;          /* of the answer to a READ, or ROWS */
    uint64_t fold;         /* that it must have                */
    struct qyi_move *move; /* of MOVE_READ, MOVE_PUT */
    struct qyi_servers_message *next;
};

struct qyi_server {
    struct qy_peer *peer;
    uint64_t incarnation; /* of the peer when the session was opened; 0: it is not */
    uint32_t epoch;       /* goes up when what it held is lost                     */
    int opening;
    uint64_t book_at;                  /* bytes of the book that it has    */
    uint32_t under_way;                /* questions                        */
    uint32_t free_blocks, held_blocks; /* by its last answer; free: less what is on its way */
    int draining;
    uint64_t heard_ns;             /* its last answer */
    struct qyi_remote_drop *drops; /* [max_drops] to be told */
    uint32_t n_drops;
    struct qyi_servers_stats stats;
};

enum { QYI_MOVES_MOST = 8 };

enum qyi_move_state {
    QYI_MOVE_FREE = 0,
    QYI_MOVE_READ, /* it is asked for                     */
    QYI_MOVE_HERE, /* in its frame, and waits for a message */
    QYI_MOVE_PUT,  /* on its way to the other server       */
    QYI_MOVE_DONE  /* there, and its place does not say so yet */
};

/* A block on its way from one server to another. */
struct qyi_move {
    enum qyi_move_state state;
    uint32_t slot;      /* UINT32_MAX: nobody wants it any more */
    uint32_t to, epoch; /* the server; of it, when it took the block */
    struct qyi_store_name name;
    uint8_t *frame; /* [block_bytes] */
};

struct qyi_mover {
    struct qyi_move moves[QYI_MOVES_MOST];
    uint32_t n; /* of them, with frames; 0: there is one server */
    uint8_t *frames;
    uint32_t n_busy;             /* moves under way                              */
    uint64_t began_ns, ended_ns; /* the last ones that set out together           */
    uint32_t at, left;           /* the next slot to look at; how many from there on */
    uint64_t seen;               /* of the servers, when slots were looked at    */
};

struct qyi_servers {
    struct qyi_store store;
    struct qyi_servers_params params;
    const struct qy_allocator *mem;
    struct qyi_server servers[QYI_SERVERS_MOST];
    size_t block_bytes;
    uint32_t query_floats;          /* of a list: group * head_dim */
    uint32_t n_heads, chunk_floats; /* of a chunk's token: query heads, and their * head_dim */
    uint32_t shift;                 /* of a block's tokens         */
    size_t open_bytes;
    uint8_t *open_payload;
    struct qyi_place *places; /* [n_slots] */
    uint32_t n_slots, max_drops, max_parts;
    struct qyi_servers_message *messages; /* [n_messages] */
    uint32_t n_messages;
    struct qyi_servers_message *free, *ready; /* lists; ready: not taken by the node yet */
    struct qyi_store_queue waiting;           /* for a message */
    int resetting;
    struct qyi_mover mover;
    struct qyi_store_stats counts;
};

/* servers_message.c */
/* A free message, off its list; NULL: all are in use. */
struct qyi_servers_message *qyi_message_take(struct qyi_servers *s, enum qyi_message_kind kind,
                                             uint32_t server);
/* Hands it to the node, now or when there is room. */
void qyi_message_send(struct qyi_servers *s, struct qyi_servers_message *m);
/* Those that are ready go; those that are done are settled. */
void qyi_messages_poll(struct qyi_servers *s);
/* Is there anything that a server, which can be told, must forget? */
int qyi_server_has_drops(const struct qyi_server *server);

/* servers_book.c */
/* The question with the next piece of the book; payload [call_bytes] is its own. */
void qyi_book_ask(const struct qyi_servers *s, uint32_t server, uint8_t *payload,
                  struct qy_request *request);
/* Its answer's code: 1, there are more pieces; 0, it has the book; -1, it does not take it. */
int qyi_book_heard(struct qyi_servers *s, uint32_t server, const struct qy_request *request,
                   uint16_t code);

/* servers_ask.c */
/* Puts a READ, ROWS, ATTEND or SCORE into a question to a server that has the block. open: [servers] the questions
 * that are being filled. 1: it waits no more. */
int qyi_servers_ask(struct qyi_servers *s, struct qyi_store_request *r,
                    struct qyi_servers_message **open);
/* Those that were filled go. */
void qyi_servers_send_open(struct qyi_servers *s, struct qyi_servers_message **open);
/* The next range of a READ; and its head, for n of them. */
void qyi_range_add(struct qyi_servers_message *m, const struct qyi_store_name *name, uint64_t at,
                   uint64_t bytes);
void qyi_ranges_pack(struct qyi_servers_message *m, uint32_t n);

/* servers_chunk.c */
int qyi_servers_chunk_valid(const struct qyi_servers *s, const struct qyi_store_request *r);
/* A question of its own. 1: it waits no more. */
int qyi_servers_ask_chunk(struct qyi_servers *s, struct qyi_store_request *r);
/* Its answer into its places. */
void qyi_servers_chunk_answered(const struct qyi_servers *s, const struct qyi_servers_message *m);

/* servers.c */
int qyi_servers_are_busy(const struct qyi_servers *s, int all);
/* PUT, with a block at data. */
void qyi_put_pack(struct qyi_servers_message *m, const struct qyi_store_name *name,
                  const void *data, size_t bytes);
/* A write is done: error as qyi_store_finish. */
void qyi_write_finish(struct qyi_servers *s, struct qyi_store_request *r, int error);
/* A server is told, when that can be, to forget its copy of a block. moved: as of a drop. */
void qyi_server_drop(struct qyi_servers *s, uint32_t server, const struct qyi_store_name *name,
                     uint32_t moved);

/* servers_move.c */
/* Frames. 1: out of memory. [setup] [alloc] */
int qyi_mover_open(struct qyi_servers *s);
/* A block sets out: it is read from one server, to be put to another. 0: no message is free. */
int qyi_move_start(struct qyi_servers *s, struct qyi_move *move, uint32_t slot, uint32_t from,
                   uint32_t to);
/* Blocks that are here are put, as far as there are messages. */
void qyi_moves_go_on(struct qyi_servers *s);
/* What was asked for a move is answered; good: with what was asked for. epoch: of the server then. */
void qyi_move_was_read(struct qyi_servers *s, struct qyi_move *move, int good);
void qyi_move_was_put(struct qyi_servers *s, struct qyi_move *move, uint32_t epoch, int good);
/* A slot gets another block, or none: what is on its way for it is nobody's. */
void qyi_moves_forget(struct qyi_servers *s, uint32_t slot);

/* servers_keep.c */
/* As qyi_store_tend. */
int qyi_servers_tend(struct qyi_store *store);
/* All slots are to be looked at, from the next one on. */
void qyi_moves_look(struct qyi_servers *s);

/* servers_open.c */
void qyi_servers_close(struct qyi_store *store);
extern const struct qyi_store_ops qyi_servers_ops; /* servers.c */

/* servers_place.c */
/* Can a block be sent there now? Is what it took still there? */
int qyi_server_takes(const struct qyi_servers *s, uint32_t server);
int qyi_copy_is_there(const struct qyi_servers *s, const struct qyi_copy *copy);
/* The server for the next copy of a block that `place` has no copy of yet and that was not `tried` (bits);
 * UINT32_MAX: none takes it. */
uint32_t qyi_place_choose(const struct qyi_servers *s, const struct qyi_place *place,
                          uint64_t tried);
/* Is the server UP, with a copy of the block? */
int qyi_place_answers(const struct qyi_servers *s, const struct qyi_place *place, uint32_t server);
uint32_t qyi_servers_where(const struct qyi_store *store, uint32_t slot);
/* The copy to read: its server is UP, and was not `tried` (bits). *may_come: 1, one could be read once its
 * server is back. UINT32_MAX: none now. */
uint32_t qyi_place_readable(const struct qyi_servers *s, const struct qyi_place *place,
                            uint64_t tried, int *may_come);

/* servers_lost.c */
/* A copy whose server is away for too long, has ended, or began anew. */
int qyi_copy_is_gone(const struct qyi_servers *s, const struct qyi_copy *copy);
/* Nobody takes a block now (qyi_place_choose): may a server that was not `tried` when it is back? */
int qyi_place_may_take(const struct qyi_servers *s, uint64_t tried);
/* As qyi_store_lost. */
int qyi_servers_lost(const struct qyi_store *store, uint32_t slot, uint64_t *servers);

#endif
