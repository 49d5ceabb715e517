/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state behind struct qy_memory_probe (memory_probe.h).
 *
 *   memory_probe.c        opening and closing; the state that a server tells
 *   memory_probe_batch.c  batches of questions
 *   memory_probe_work.c   one question: what it is about, its message, its answer; the same done here
 */
#ifndef QYI_OFFLOAD_MEMORY_PROBE_INTERNAL_H
#define QYI_OFFLOAD_MEMORY_PROBE_INTERNAL_H

#include "net/net.h"
#include "offload/block.h"
#include "offload/memory/remote_wire.h"

enum qyi_probe_slot_state { QYI_PROBE_IDLE, QYI_PROBE_READY, QYI_PROBE_ASKED };

/* One question that may be under way. */
struct qyi_probe_slot {
    enum qyi_probe_slot_state state;
    int answered;                /* there is an answer of this batch to compare    */
    uint32_t layer, block, rows; /* what it is about                               */
    uint32_t *ids;               /* [max_rows] of its heads' lists, one after another */
    struct qy_request request;
    uint8_t *payload; /* of a list or of a READ                        */
    uint8_t *reply;   /* [reply_bytes]                                  */
};

struct qy_memory_probe {
    struct qy_memory_probe_params params;
    struct qy_allocator mem;
    struct qyi_layout layout;
    uint32_t group, n_tokens;
    size_t payload_bytes, reply_bytes;
    uint8_t *memory;              /* of the blocks */
    uint8_t **blocks;             /* [n_blocks] */
    uint64_t *generations;        /* [n_blocks] as the server has them */
    uint64_t serial, made;        /* of the sequence; the newest generation */
    struct qyi_probe_slot *slots; /* [depth] */
    float *q;                     /* [n_kv_heads][group][d] */
    uint8_t *expected;            /* [reply_bytes] */
    struct qy_attend_item *items; /* [n_kv_heads] */
    struct qy_arena arena;
    uint64_t random;
    uint32_t turn; /* blocks are put in turn: no two at once that are the same */
    int is_open;   /* there is a session */
};

/* The rows of head i when `rows` are shared out over the KV heads. */
static inline uint32_t qyi_probe_share(const struct qy_memory_probe *probe, uint32_t rows,
                                       uint32_t i)
{
    const uint64_t n = probe->layout.n_kv_heads;

    return (uint32_t)((uint64_t)rows * (i + 1) / n - (uint64_t)rows * i / n);
}

/* The error of a question that got no answer. */
QY_MUST enum qy_status qyi_probe_not_answered(const struct qy_peer *peer, const char *what,
                                              enum qy_status status, struct qy_error *err);
/* Random rows and queries; blocks are sealed as a cache's are. */
void qyi_probe_make(struct qy_memory_probe *probe);
/* What the slot's next question is about. [noalloc] */
void qyi_probe_choose(struct qy_memory_probe *probe, enum qy_probe_kind kind, uint32_t rows,
                      struct qyi_probe_slot *slot);
/* Its message. A PUT's content is newer than what the server has from then on. [noalloc] */
void qyi_probe_compose(struct qy_memory_probe *probe, enum qy_probe_kind kind,
                       struct qyi_probe_slot *slot);
/* The work of it, done on the copy; the answer goes to `to`. [noalloc] */
QY_MUST enum qy_status qyi_probe_do(struct qy_memory_probe *probe, enum qy_probe_kind kind,
                                    const struct qyi_probe_slot *slot, uint8_t *to);
/* Bytes of the answer's payload. */
size_t qyi_probe_answer_bytes(const struct qy_memory_probe *probe, enum qy_probe_kind kind,
                              uint32_t rows);
/* NULL: the answer is what it must be. Else what is wrong, a literal. */
const char *qyi_probe_compare(struct qy_memory_probe *probe, enum qy_probe_kind kind,
                              const struct qyi_probe_slot *slot);

#endif
