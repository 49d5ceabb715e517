/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store (store.h) on memory servers: each slot is a block that one server holds, or several copies of it.
 *
 *   write   to as many servers as there are to be copies: in turn along a sequence, from a place of its
 *           own, past servers that are full. Done when all have answered and one at least has it.
 *           Where nobody takes it, a server that is LOST is waited for.
 *   read    ranges of blocks, or rows of one layer, of the same server travel together as one question
 *           (remote_wire.h), and come back in one answer: straight into their places where these follow
 *           each other. A server that fails is passed over for the next copy.
 *
 *   attend  the same with queries: a partial comes back for each. It is asked of one server, and not again.
 *   chunk   queries of many tokens, to all rows of blocks: a question each, of one server, and not again.
 *   score   the same: the best tokens of blocks by their index bytes.
 *
 * A server that is LOST is waited for where it has the only copy; one that is GONE, has ended, or has started
 * again, has lost what it held. Reads of what nobody has fail (ENODATA): it must be computed again.
 * Between steps blocks of a server that is about to end go to others, and so do copies of those that have too
 * few left (servers_keep.c).
 *
 * What is read is what was written: net checks each answer's bytes, and the fold of the blocks'
 * generations says that they are the blocks that were meant.
 */
#ifndef QYI_OFFLOAD_SERVERS_H
#define QYI_OFFLOAD_SERVERS_H

#include "net/net.h"
#include "offload/home/store.h"
#include "offload/layout.h"

enum { QYI_SERVERS_MOST = 64, QYI_COPIES_MOST = 4, QYI_SERVERS_GRANULE = 64 };

/* What servers score index bytes by: told to each whenever it has no session of ours yet. */
struct qyi_servers_book {
    uint64_t bytes, hash; /* bytes 0: nothing is told */
    void (*read)(const void *ctx, uint64_t at, size_t bytes, void *to);
    const void *ctx;
};

struct qyi_servers_params {
    const struct qy_runtime *rt;        /* kept */
    struct qy_node *node;               /* kept */
    struct qy_peer *const *peers;       /* [n] kept; the array is copied                  */
    uint32_t n, copies;                 /* copies: 1 .. QYI_COPIES_MOST, at most n        */
    uint32_t depth;                     /* questions to one server under way, as the node has it */
    size_t call_bytes, answer_bytes;    /* likewise                                       */
    const struct qyi_layout *layout;    /* borrowed */
    uint32_t group;                     /* query heads of a KV head */
    float scale;                        /* of q . k                 */
    uint32_t max_sequences, max_blocks; /* of the cache's table     */
    struct qyi_servers_book book;       /* kept; with QYI_STORE_SCORE */
    uint64_t timeout_ns;                /* for all servers to open  */
};

/* Opens a session at every server, with this layout: all must be there. QY_ERR_TIMEOUT, QY_ERR_PEER: one
 * is not; QY_ERR_CONFIG: one does not take blocks like these. err names it. [setup] [alloc] */
QY_MUST enum qy_status qyi_servers_open(const struct qyi_servers_params *params,
                                        struct qyi_store **store, struct qy_error *err);
/* Blocks that all servers together had room for when they were last heard, copies counted once. */
uint64_t qyi_servers_room(const struct qyi_store *store);
/* Servers that take blocks now, or would if they were not full; *room: copies of blocks that they have
 * room for. */
uint32_t qyi_servers_present(const struct qyi_store *store, uint64_t *room);
/* Bytes of the frames in which blocks go from one server to another; taken by qyi_servers_reserve. */
uint64_t qyi_servers_move_bytes(uint32_t n_servers, size_t block_bytes);
/* Slots that may be named from now on: 0 .. n - 1. Before the first batch. [setup] [alloc] */
QY_MUST enum qy_status qyi_servers_reserve(struct qyi_store *store, uint32_t n_slots,
                                           struct qy_error *err);

struct qyi_servers_stats {
    uint64_t blocks; /* that a server holds now, by its last answer   */
    uint64_t free_blocks;
    int draining; /* it said that it is about to end */
    uint64_t puts, questions;
    uint64_t again;  /* ranges that were asked of another copy        */
    uint64_t moved;  /* copies that left it because it is about to end */
    uint64_t copied; /* that it got because another server's was lost  */
};
uint32_t qyi_servers_count(const struct qyi_store *store);
/* Of server i. */
void qyi_servers_stats(const struct qyi_store *store, uint32_t i, struct qyi_servers_stats *stats);
const struct qy_peer *qyi_servers_peer(const struct qyi_store *store, uint32_t i);

#endif
