/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of offload.h, not to be included alone: what a memory server does. It keeps sealed blocks of other
 * processes' caches in this process's memory, hands out rows of them, and attends to rows where they lie.
 *
 * A *session* is one worker process, by the name that it gives itself in net's hello. Its blocks outlive its
 * connections: they are freed, and cleared, when it has been away for the grace time. No session can name
 * another one's blocks.
 *
 * The server's loop, of one owner thread:
 *
 *   node of qy_memory_service(memory)    (net/net.h)
 *   for (;;) { qy_node_progress(node); more = qy_memory_tend(memory, qy_node_now(node));
 *              if (!more) qy_node_wait(node, ...) }
 */
#ifndef QY_OFFLOAD_MEMORY_H
#define QY_OFFLOAD_MEMORY_H

#ifndef QY_OFFLOAD_H
#error "include offload/offload.h"
#endif

struct qy_memory;
struct qy_service;

struct qy_memory_params {
    const struct qy_runtime *rt; /* kept                                                      */
    struct qy_device *dev;       /* kept; a unified one, for attention; NULL: one of its own   */
    uint64_t bytes;              /* of blocks; the first session's layout cuts it into frames  */
    uint64_t table_bytes;        /* of all sessions' tables; 0: a sixteenth of `bytes`, 16 MiB
                                    at least                                                  */
    uint64_t grace_ns;           /* a session that is away for longer is forgotten             */
    size_t call_bytes, answer_bytes; /* as the node has them; multiples of 64                 */
    size_t scratch_bytes;            /* of attention; 0: enough for lists of usual length     */
    uint64_t
        book_bytes; /* of what a session scores index bytes by, a codebook for the most part, as
                            it comes, beside `bytes`; its tables take a few times as much; 0: 1 GiB */
    uint32_t max_sessions;
};

/* The memory of the blocks is mapped when the first session opens; touched as it is used.
 * QY_ERR_INVALID: sizes of 0, or a device whose memory is not the host's. [setup] [alloc] */
QY_MUST enum qy_status qy_memory_open(const struct qy_memory_params *params,
                                      struct qy_memory **memory, struct qy_error *err);
/* After the node that has its service. */
void qy_memory_close(struct qy_memory *memory);
/* What a node needs to answer workers; lives as long as memory. Only a worker's first questions (OPEN,
 * BOOK) allocate. */
const struct qy_service *qy_memory_service(const struct qy_memory *memory);
/* To be called between progress and wait: forgets who is over its grace time, and clears some of the
 * blocks that were given back. 1: there is more to clear. now_ns: of the node's clock. [owner] */
int qy_memory_tend(struct qy_memory *memory, uint64_t now_ns);

/* It will be closed before long: from now on it takes no block (as if it were full), and every answer tells
 * workers to take theirs elsewhere, which their caches do (qy_cache_tend). Blocks are handed out as before. [owner] */
void qy_memory_drain(struct qy_memory *memory);

struct qy_memory_stats {
    uint64_t block_bytes; /* 0: no session has been opened            */
    uint32_t blocks_total, blocks_free;
    uint32_t sessions, sessions_away; /* away: of them, without a connection */
    uint64_t sessions_forgotten;
    uint64_t calls, refused, turned_down; /* refused: peers closed; turned_down: codes above 0 */
    uint64_t puts, puts_corrupt;
    uint64_t moved; /* blocks given back because another server has them from now on */
    uint64_t rows, rows_attended, tokens_scored; /* tokens: of (item, block) in reach of a choice */
    uint64_t in_bytes, out_bytes; /* blocks put; answers' payloads                            */
};
void qy_memory_stats(const struct qy_memory *memory, struct qy_memory_stats *stats);

#endif
