/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory server with workers that ask it, and what each worker knows its blocks to hold. The worker says
 * what it wants by the functions below; how that reaches the server is the line's: by calls of its
 * functions (memory_rig.c), or over a fabric (test_memory_net.c).
 */
#ifndef QY_TESTS_OFFLOAD_MEMORY_RIG_H
#define QY_TESTS_OFFLOAD_MEMORY_RIG_H

#include "tests/support/test.h"

#include "offload/codec.h"
#include "offload/memory/memory_server.h"

enum {
    MR_LAYERS = 2,
    MR_KV_HEADS = 2,
    MR_GROUP = 3,
    MR_D = 64,
    MR_TOKENS = 32, /* of a block */
    MR_SEQUENCES = 3,
    MR_BLOCKS = 12, /* of a sequence */
    MR_FLOATS = MR_GROUP * MR_D,
    MR_CALL = 64 << 10,
    MR_ANSWER = 256 << 10,
    MR_REPLY = 256 << 10 /* the largest answer that a worker takes */
};

static const float memory_scale = 0.125F; /* of q . k */

struct memory_rig {
    struct qy_runtime rt;
    struct qy_device *dev; /* the worker's own: the reference */
    struct qy_memory *memory;
};
/* Zero means the default in the comment. */
struct memory_options {
    uint32_t n_blocks;     /* 48, of the default layout */
    uint32_t max_sessions; /* 2 */
    uint64_t table_bytes;
    size_t scratch_bytes;
    uint64_t grace_ns; /* 100 */
    uint32_t threads;  /* 1 */
};
void memory_rig_open(struct memory_rig *rig, const struct memory_options *options);
void memory_rig_close(struct memory_rig *rig);

/* The form of a worker's blocks. Zero: f16 rows without an index. */
struct memory_form {
    enum qy_row_type type;
    const char *codec; /* NULL: f16 */
    size_t index_bytes;
};

/* What came back. */
struct memory_said {
    int lost; /* no answer: the peer was closed */
    uint16_t code;
    int has_head; /* reply is set */
    struct qyi_remote_reply reply;
    size_t bytes;
    _Alignas(64) uint8_t payload[MR_REPLY];
};

struct memory_worker;
typedef void (*memory_line)(struct memory_worker *worker, const struct qyi_question *question,
                            struct memory_said *said);

struct memory_worker {
    memory_line ask;
    void *line; /* the line's own */
    const struct qy_runtime *rt;
    uint8_t name[QY_NET_SESSION_BYTES];
    struct qyi_layout layout;
    struct qyi_home_layer home[MR_LAYERS];
    uint64_t serials[MR_SEQUENCES];
    uint8_t *blocks[MR_SEQUENCES][MR_BLOCKS]; /* as it made them; NULL: none */
    uint64_t generations[MR_SEQUENCES][MR_BLOCKS];
    uint64_t made;    /* blocks: the newest generation */
    uint64_t counter; /* of random numbers */
    struct memory_said said;
};

/* The line that calls the server's functions. `line` is a struct memory_direct. */
struct memory_direct {
    struct qy_memory *memory;
    struct qyi_session *session;
};
void memory_ask_direct(struct memory_worker *worker, const struct qyi_question *question,
                       struct memory_said *said);

/* n: names it, if it is not 0. Nothing is asked yet. */
void memory_worker_init(struct memory_worker *worker, const struct memory_rig *rig, uint8_t n,
                        const struct memory_form *form, memory_line ask, void *line);
void memory_worker_free(struct memory_worker *worker);
uint64_t memory_random(struct memory_worker *worker);

/* All return the code, or UINT16_MAX when the peer was closed; worker->said has the rest. */
uint16_t memory_open(struct memory_worker *worker);
/* Makes a block of random rows (in place of the one before), of a new generation, and puts it. */
void memory_make(struct memory_worker *worker, uint32_t sequence, uint32_t block);
uint16_t memory_put(struct memory_worker *worker, uint32_t sequence, uint32_t block);
/* n blocks of a sequence, made and put; all must be taken. */
void memory_fill(struct memory_worker *worker, uint32_t sequence, uint32_t n);
/* generation 0: the newest. */
uint16_t memory_drop(struct memory_worker *worker, uint32_t sequence, uint32_t first, uint32_t n,
                     uint64_t generation);
uint16_t memory_read(struct memory_worker *worker, const struct qyi_remote_read *reads, uint32_t n);
uint16_t memory_state(struct memory_worker *worker);

/* A list of a layer, with queries. */
enum { MR_ITEMS = 8, MR_IDS = 1100 };
struct memory_list {
    uint32_t layer, n_items, n_ids;
    struct qyi_remote_item items[MR_ITEMS];
    float q[MR_ITEMS * MR_FLOATS];
    uint32_t ids[MR_IDS];
};
/* Adds an item of n ids: random ones of the first n_blocks blocks, or the first n in order. */
void memory_list_add(struct memory_worker *worker, struct memory_list *list, uint32_t sequence,
                     uint32_t head, uint32_t n, uint32_t n_blocks, int in_order);
uint16_t memory_rows(struct memory_worker *worker, const struct memory_list *list);
uint16_t memory_attend(struct memory_worker *worker, const struct memory_list *list);
/* What the answers have to be, from the worker's own blocks: bytes. */
size_t memory_expect_rows(const struct memory_worker *worker, const struct memory_list *list,
                          uint8_t *rows);
size_t memory_expect_attend(const struct memory_worker *worker, struct qy_device *dev,
                            const struct memory_list *list, float *answer);
uint64_t memory_expect_fold(const struct memory_worker *worker, const struct memory_list *list);

/* Does the server have this content of the block? */
int memory_holds(struct memory_worker *worker, uint32_t sequence, uint32_t block);

/* A server and two workers, by direct lines. */
struct memory_bed {
    struct memory_rig rig;
    struct memory_direct lines[2];
    struct memory_worker workers[2];
};
/* Worker 0 has f16 rows and is open; worker 1 is there when it was started. */
struct memory_worker *memory_bed_open(struct memory_bed *bed, const struct memory_options *options);
struct memory_worker *memory_bed_start(struct memory_bed *bed, uint32_t i,
                                       const struct memory_form *form);
void memory_bed_close(struct memory_bed *bed);

#endif
