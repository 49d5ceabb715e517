/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where blocks lie that host memory has no room for: numbered slots of one block each, read and written
 * asynchronously. A table of functions with two things behind it: a file (disk.h), and memory servers
 * (servers.h). It knows no sequence; what it is told of a block is a name to hand on.
 *
 * A *batch* of requests is submitted and waited for. One owner thread.
 */
#ifndef QYI_OFFLOAD_STORE_H
#define QYI_OFFLOAD_STORE_H

#include "offload/offload.h"

struct qyi_store;
struct qyi_store_batch;

enum qyi_store_op {
    QYI_STORE_READ = 0,
    QYI_STORE_WRITE,
    QYI_STORE_ROWS,   /* where the store has rows_bytes: rows of a block, one after another       */
    QYI_STORE_ATTEND, /* where it has places: attention over rows of several slots, at one of them */
    QYI_STORE_CHUNK,  /* the same of many tokens' queries, to all rows of the slots           */
    QYI_STORE_SCORE   /* the same: the best of these slots' tokens, by their index bytes          */
};

/* What others call the block that is written: content is known by all five numbers. */
struct qyi_store_name {
    uint64_t serial;     /* of the sequences that had the slot of the table, from 1 on */
    uint64_t generation; /* of the block */
    uint32_t sequence, block;
};

/* Rows of one KV head in a layer. What it names is borrowed until the batch is done. */
struct qyi_store_list {
    const uint32_t *ids;   /* [n] tokens of the sequence; of rows, all in the request's slot   */
    const uint32_t *slots; /* [n] of each; of rows NULL                                        */
    uint32_t n, layer, head;
    /* of attention: */
    uint32_t place; /* below the store's n_places       */
    const float *q; /* [group][d]                       */
    float *lse;     /* [group] written, as the request's data [group][d] is */
    /* of a chunk, of all heads of the layer: ids NULL, n slots of one sequence; q and data
     * [n_q][heads][d], lse [n_q][heads] */
    uint32_t n_q;
    /* of scores, whose slots are in the order of their blocks: q as above; of each query head the k best,
     * or all tokens of the slots: data is ids [group][best], ascending, then scores [group][best] */
    uint32_t k, n_tokens; /* n_tokens: of the sequence */
};

/* Bytes from or to one slot. The caller sets what comes before `error`. */
struct qyi_store_request {
    enum qyi_store_op op;
    uint32_t slot;
    uint64_t at;  /* in the slot; multiples of the store's granule, as data and bytes */
    void *data;   /* borrowed until the batch is done                                */
    size_t bytes; /* 1 granule .. 1 GiB; a write is of the whole block. Rows: n times their bytes
                     at home, at most the store's rows_bytes. Attention, chunks: of data and lse */
    struct qyi_store_name name; /* of a write                                        */
    struct qyi_store_list list; /* of rows, and attention                            */
    int error;                  /* when done: 0, or why it failed (errno). Of attention EAGAIN: that
                                   place cannot now; the rows may be had by QYI_STORE_ROWS, of scores
                                   the index bytes by QYI_STORE_READ. Of a chunk also E2BIG: the place
                                   never could, of as much */
    size_t done;                /* bytes so far                                      */
    struct qyi_store_batch *batch;
    struct qyi_store_request *next;
    /* the store's own */
    uint64_t tried;
    uint32_t left;
};

/* Borrowed until it is done, that is n_left is 0, or a reset. The zero value is done. */
struct qyi_store_batch {
    struct qyi_store_request *requests;
    uint32_t n;
    uint32_t n_left; /* not done yet                            */
    int failed;      /* 1: `first_bad` names the first that did */
    uint32_t first_bad;
};

struct qyi_store_stats {
    uint64_t reads, read_bytes, writes, written_bytes; /* requests that were done */
    uint64_t rows;                                     /* of those reads, that were of rows */
    uint64_t attends, attended_rows;
    uint64_t chunks; /* questions of them */
    uint64_t scores, scored_blocks;
    uint64_t failures; /* requests                */
    int uring, direct; /* of a file: which engine; O_DIRECT */
};

/* Requests that wait, in order. */
struct qyi_store_queue {
    struct qyi_store_request *first, *last; /* last: only where there is a first */
};

struct qyi_store_ops {
    QY_MUST enum qy_status (*submit)(struct qyi_store *store, struct qyi_store_batch *batch);
    void (*poll)(struct qyi_store *store);
    QY_MUST enum qy_status (*wait)(struct qyi_store *store, const struct qyi_store_batch *batch,
                                   uint64_t timeout_ns);
    QY_MUST enum qy_status (*reset)(struct qyi_store *store, uint64_t timeout_ns);
    void (*release)(struct qyi_store *store, uint32_t slot);         /* NULL: nothing to do */
    uint32_t (*where)(const struct qyi_store *store, uint32_t slot); /* NULL: there are no places */
    int (*lost)(const struct qyi_store *store, uint32_t slot, uint64_t *servers); /* NULL: never */
    int (*tend)(struct qyi_store *store); /* NULL: nothing to do */
    struct qyi_store_stats *(*stats)(struct qyi_store *store);
    void (*close)(struct qyi_store *store);
};

/* The store's own struct begins with it. */
struct qyi_store {
    const struct qyi_store_ops *ops;
    const char *word;  /* what it is, for messages: "disk"                 */
    size_t granule;    /* bytes; reads and writes are of whole ones        */
    size_t rows_bytes; /* of one request for rows, at most; 0: it has none */
    uint32_t n_places; /* that attend to rows                              */
    uint64_t
        chunk_work; /* of a chunk, at most: floats of its queries times rows; 0: there are none */
    uint64_t bytes; /* of all slots                                     */
};

/* Waits for what is under way, without a limit: memory it names may be written until then. NULL is
 * accepted. */
static inline void qyi_store_close(struct qyi_store *store)
{
    if (store) {
        store->ops->close(store);
    }
}

/* Starts a batch; batch->requests and batch->n are set. QY_ERR_INVALID: a request is not in whole
 * granules of the store, or nothing that it does. QY_ERR_DEVICE: a reset has not come through yet. [owner] [noalloc] */
QY_MUST static inline enum qy_status qyi_store_submit(struct qyi_store *store,
                                                      struct qyi_store_batch *batch)
{
    return store->ops->submit(store, batch);
}

/* Takes note of what is done, and starts what waits. [owner] [noalloc] */
static inline void qyi_store_poll(struct qyi_store *store)
{
    store->ops->poll(store);
}

/* Waits for a batch. QY_ERR_DEVICE: a request failed. QY_ERR_TIMEOUT: not done in time; its memory is in
 * use until qyi_store_reset returned QY_OK. [owner] [noalloc] */
QY_MUST static inline enum qy_status
qyi_store_wait(struct qyi_store *store, const struct qyi_store_batch *batch, uint64_t timeout_ns)
{
    return store->ops->wait(store, batch, timeout_ns);
}

/* Gives up all requests of all batches (error ECANCELED); those that cannot be recalled are waited for.
 * QY_ERR_TIMEOUT: one is still there; try again. [owner] [noalloc] */
QY_MUST static inline enum qy_status qyi_store_reset(struct qyi_store *store, uint64_t timeout_ns)
{
    return store->ops->reset(store, timeout_ns);
}

/* Nobody will read the slot any more before it is written again. [owner] [noalloc] */
static inline void qyi_store_release(struct qyi_store *store, uint32_t slot)
{
    if (store->ops->release) {
        store->ops->release(store, slot);
    }
}

/* The place that would attend to rows of the slot now: the same one each time, while that has the block and
 * answers. UINT32_MAX: none. [owner] [noalloc] */
static inline uint32_t qyi_store_where(const struct qyi_store *store, uint32_t slot)
{
    return store->ops->where ? store->ops->where(store, slot) : UINT32_MAX;
}

/* Of a slot that was written: 1: what it held is nowhere any more, and will not come back by waiting.
 * *servers: bit i, server i was to hold it; written either way. [owner] [noalloc] */
static inline int qyi_store_lost(const struct qyi_store *store, uint32_t slot, uint64_t *servers)
{
    *servers = 0;
    return store->ops->lost && store->ops->lost(store, slot, servers);
}

/* Between steps, while nothing that is read is under way: blocks may change their places in the store. 1: there
 * is more to do soon. [owner] [noalloc] */
static inline int qyi_store_tend(struct qyi_store *store)
{
    return store->ops->tend ? store->ops->tend(store) : 0;
}

/* What stores have in common (store.c). A request behind all others; the first, off the queue, or NULL.
 * [noalloc] */
void qyi_store_queue_put(struct qyi_store_queue *queue, struct qyi_store_request *request);
struct qyi_store_request *qyi_store_queue_take(struct qyi_store_queue *queue);
/* All requests of a batch, as new. [noalloc] */
void qyi_store_queue_batch(struct qyi_store_queue *queue, struct qyi_store_batch *batch);
/* A request is done, well where error is 0: its batch and counts are told. [noalloc] */
void qyi_store_finish(struct qyi_store_stats *counts, struct qyi_store_request *request, int error);

/* Counts; the caller may clear them. [owner] */
static inline struct qyi_store_stats *qyi_store_stats(struct qyi_store *store)
{
    return store->ops->stats(store);
}

#endif
