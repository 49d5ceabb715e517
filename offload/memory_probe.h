/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of offload.h, not to be included alone: questions to one memory server for their own sake, to see that
 * it is there, how long it takes, and whether what comes back is right.
 *
 * A *probe* is a session with one sequence of blocks of made-up rows (f16), of which it keeps a copy. Answers are
 * compared with the copy, and the same work done on it is what they are measured against.
 */
#ifndef QY_OFFLOAD_MEMORY_PROBE_H
#define QY_OFFLOAD_MEMORY_PROBE_H

#ifndef QY_OFFLOAD_H
#error "include offload/offload.h"
#endif

/* What a server tells anybody who knows its key. */
struct qy_memory_state {
    uint32_t protocol; /* of questions about blocks                                     */
    int draining;      /* 1: it will end, and takes no block any more                   */
    uint32_t sessions;
    uint64_t bytes, block_bytes; /* that it gives; of a block, 0: nobody had one there yet    */
    uint32_t total_blocks, free_blocks;
    uint64_t took_ns; /* there and back */
};
/* The peer is UP. QY_ERR_TIMEOUT, QY_ERR_PEER, QY_ERR_CORRUPT: err says what to do. [owner] */
QY_MUST enum qy_status qy_memory_ask_state(struct qy_node *node, struct qy_peer *peer,
                                           struct qy_memory_state *state, struct qy_error *err);

/* Bytes of a block of f16 rows without an index; 0: there is no such shape. [any] */
uint64_t qy_memory_block_bytes(const struct qy_kv_shape *shape, uint32_t block_tokens);

struct qy_memory_probe;

struct qy_memory_probe_params {
    const struct qy_runtime *rt; /* kept                                                          */
    struct qy_node *node;        /* kept                                                          */
    struct qy_peer *peer;        /* kept; nobody else asks it                                     */
    struct qy_device *dev;       /* kept; a unified one, for attention over the copy              */
    struct qy_kv_shape shape;
    uint32_t block_tokens; /* a power of two, 8 .. 4096                                     */
    uint32_t n_blocks;     /* of the sequence; `depth` at least                            */
    uint32_t depth;        /* questions under way at once, as many as the node allows at most */
    uint32_t max_rows;     /* of one question; no more of a KV head than the sequence has tokens */
    size_t call_bytes, answer_bytes; /* that the server takes and gives                       */
    uint64_t timeout_ns;             /* of a question, and until the peer is UP                  */
    uint64_t seed;                   /* of rows, lists and queries                               */
};

/* Opens the session and puts all blocks; waits until the peer is UP, for timeout_ns. Memory for the blocks and
 * for one answer of each question is taken. QY_ERR_INVALID: sizes; QY_ERR_CONFIG: the server does not take
 * blocks like these; QY_ERR_TIMEOUT, QY_ERR_PEER: it is not there; QY_ERR_NOMEM. [setup] [alloc] */
QY_MUST enum qy_status qy_memory_probe_open(const struct qy_memory_probe_params *params,
                                            struct qy_memory_probe **probe, struct qy_error *err);
/* Gives the blocks back; waits for that no longer than for any answer. Before its peer and node. */
void qy_memory_probe_close(struct qy_memory_probe *probe);

enum qy_probe_kind {
    QY_PROBE_STATE, /* nothing but the question                                   */
    QY_PROBE_PUT,   /* a block goes there                                         */
    QY_PROBE_READ,  /* a block comes back                                         */
    QY_PROBE_ROWS,  /* a pull: rows of a layer, a share of them of each KV head    */
    QY_PROBE_ATTEND /* a push: the same rows are attended to there                 */
};

/* Questions of one kind, one after another, each about something else. */
struct qy_probe_batch {
    enum qy_probe_kind kind;
    uint32_t n, depth; /* how many, and how many under way at once                             */
    uint32_t rows;     /* of one question, of ROWS and ATTEND                                  */
    uint64_t *each;    /* [n] ns of each question, as they were answered; NULL: not wanted     */
    /* Written. */
    uint64_t ns;    /* from the first question to the last answer, on the node's clock          */
    uint64_t bytes; /* of the blocks put or read, and of the rows that came or were attended to  */
};
/* Each answer's form is checked, and the bytes of the last `depth`, after the time was taken.
 * QY_ERR_INVALID: numbers beyond those of open. QY_ERR_CORRUPT: an answer is not what it must be.
 * QY_ERR_TIMEOUT, QY_ERR_PEER: a question was not answered. QY_ERR_CONFIG: it was turned down. After these
 * close alone is left. [owner] */
QY_MUST enum qy_status qy_memory_probe_run(struct qy_memory_probe *probe,
                                           struct qy_probe_batch *batch, struct qy_error *err);
/* What a server and the way to it would do at no cost, done on the copy by this thread (and the device's):
 * one memcpy of a block, one gather of the rows, attention to them. `ns` is of that work alone; depth does not
 * matter. QY_ERR_INVALID: also of STATE, which is no work. [owner] */
QY_MUST enum qy_status qy_memory_probe_local(struct qy_memory_probe *probe,
                                             struct qy_probe_batch *batch, struct qy_error *err);

#endif
