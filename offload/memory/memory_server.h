/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state behind struct qy_memory, and what a server answers to each question, without the network:
 * memory_server.c ties it to net's service.
 *
 *   memory_session.c   sessions: OPEN, and being forgotten
 *   memory_blocks.c    their tables of blocks: PUT, DROP
 *   memory_rows.c      READ, ROWS: bytes and rows, gathered into an answer
 *   memory_attend.c    ATTEND: attention over rows where they lie
 *   memory_chunk.c     CHUNK: the same of many queries, over whole blocks
 *   memory_scorer.c    BOOK: what index bytes are scored by
 *   memory_score.c     SCORE: index bytes scored where they lie
 *
 * Questions were checked by their parsers (remote_wire.h) before anything here acts on them.
 */
#ifndef QYI_OFFLOAD_MEMORY_SERVER_H
#define QYI_OFFLOAD_MEMORY_SERVER_H

#include "net/net.h"
#include "offload/block.h"
#include "offload/memory/memory_frames.h"
#include "offload/memory/remote_wire.h"

enum { QYI_MEMORY_BATCH = 256 }; /* items of one call of the kernel */

/* A worker's policy here, for index bytes alone. */
struct qyi_scorer {
    struct qyi_remote_book book; /* its image; at: how much of it is here */
    struct qyi_remote_scorer said;
    uint64_t codebook_at; /* in the image */
    const struct qy_policy_ops *ops;
    struct qy_policy *policy;
    struct qy_codebook *codebook; /* NULL: none */
    struct qy_retrieval_settings settings;
    float *inv_freq;
    uint32_t batch; /* items that scratch is for, of any length */
    void *scratch;
    struct qy_arena arena;
};

/* A worker process. Places of an array: pointers to them stay good while they have peers. */
struct qyi_session {
    int is_open;
    uint8_t name[QY_NET_SESSION_BYTES];
    uint32_t n_peers; /* connections                                  */
    int away;         /* none was there when it was last looked       */
    uint64_t away_ns; /* since when                                   */
    struct qyi_layout layout;
    struct qyi_home_layer *home; /* [n_layers]; NULL: rows are not coded */
    uint32_t group;
    struct qyi_remote_bounds bounds;
    uint64_t *serials;     /* [max_sequences] the newest seen; 0: none         */
    uint8_t **blocks;      /* [max_sequences][max_blocks]; NULL: not here      */
    uint64_t *generations; /* the same; of what is here, or was dropped        */
    uint64_t table_bytes;
    uint32_t n_held;
    uint64_t in_bytes, out_bytes;
    struct qyi_scorer *scorer; /* NULL: it asks for no scores            */
    struct qyi_scorer *coming; /* of which more pieces are to come, or NULL */
};

struct qy_memory {
    struct qy_memory_params params;
    const struct qy_runtime *rt;
    struct qy_device *dev, *own_dev;
    struct qy_service service;
    struct qyi_frames frames;
    int draining;
    struct qyi_session *sessions; /* [max_sessions]    */
    uint64_t table_bytes;         /* of open sessions  */
    void *scratch;                /* behind arena      */
    struct qy_arena arena;
    struct qy_attend_item *items; /* [QYI_MEMORY_BATCH] */
    struct qy_memory_stats counts;
};

/* A question, as it came. */
struct qyi_question {
    uint16_t op;
    size_t head_bytes, payload_bytes;
    const void *head, *payload;
    void *answer; /* [answer_bytes] of the params */
};

/* An answer; zero to begin with. */
struct qyi_memory_reply {
    uint16_t code;       /* enum qyi_remote_code */
    const char *refused; /* the peer broke the rules: a literal says how */
    struct qyi_remote_reply head;
    const void *payload;
    size_t payload_bytes;
    uint8_t *pinned; /* the frame that payload lies in; else NULL */
};

/* ---- memory_session.c ---- */
/* name [QY_NET_SESSION_BYTES]; returns NULL: there is none. */
struct qyi_session *qyi_session_find(const struct qy_memory *memory, const uint8_t *name);
/* OPEN. The session, new or as it was; NULL: answer says why. [alloc] */
struct qyi_session *qyi_session_open(struct qy_memory *memory, const uint8_t *name,
                                     const struct qyi_question *question,
                                     struct qyi_memory_reply *answer);
void qyi_session_close(struct qy_memory *memory, struct qyi_session *session);
/* Closes those that are over the grace time. */
void qyi_sessions_tend(struct qy_memory *memory, uint64_t now_ns);

/* ---- memory_blocks.c ---- */
/* Where a PUT's block goes; NULL: *code says why. [noalloc] */
void *qyi_memory_place(struct qy_memory *memory, const struct qyi_session *session,
                       const struct qyi_question *question, uint16_t *code);
/* The block is in its frame. [noalloc] */
void qyi_memory_put(struct qy_memory *memory, struct qyi_session *session,
                    const struct qyi_question *question, struct qyi_memory_reply *answer);
void qyi_memory_drop(struct qy_memory *memory, struct qyi_session *session,
                     const struct qyi_question *question, struct qyi_memory_reply *answer);
/* Frees blocks first .. end - 1 of a sequence whose generation is not above this one. */
void qyi_blocks_free(struct qy_memory *memory, struct qyi_session *session, uint32_t sequence,
                     uint32_t first, uint32_t end, uint64_t generation);

static inline size_t qyi_block_place(const struct qyi_session *session, uint32_t sequence,
                                     uint32_t block)
{
    return (size_t)sequence * session->bounds.max_blocks + block;
}
/* Is that sequence the one that has the slot? Else the code. */
static inline enum qyi_remote_code qyi_serial_check(const struct qyi_session *session,
                                                    uint32_t sequence, uint64_t serial)
{
    if (serial == session->serials[sequence]) {
        return QYI_REMOTE_DONE;
    }
    return serial < session->serials[sequence] ? QYI_REMOTE_STALE : QYI_REMOTE_UNKNOWN;
}

/* ---- memory_rows.c ---- */
void qyi_memory_read(struct qy_memory *memory, struct qyi_session *session,
                     const struct qyi_question *question, struct qyi_memory_reply *answer);
void qyi_memory_rows(struct qy_memory *memory, struct qyi_session *session,
                     const struct qyi_question *question, struct qyi_memory_reply *answer);
/* Rows of one KV head of one sequence, in its blocks. */
struct qyi_row_source {
    uint8_t *const *blocks;
    size_t at, row_bytes; /* at: in each block */
    uint32_t shift, mask;
};
/* Copies the rows of ids [n], neighbours as one copy; returns where the next list's rows go. [noalloc] */
uint8_t *qyi_rows_gather(const struct qyi_row_source *source, const uint32_t *ids, uint32_t n,
                         uint8_t *to);
/* Are all blocks of the lists here? answer gets their fold; 0: its code says what is missing. */
int qyi_list_known(const struct qyi_session *session, const struct qyi_remote_list *list,
                   struct qyi_memory_reply *answer);

/* ---- memory_attend.c ---- */
void qyi_memory_attend(struct qy_memory *memory, struct qyi_session *session,
                       const struct qyi_question *question, struct qyi_memory_reply *answer);
/* Arena bytes that attention of n_items of up to max_n rows of a session takes. */
size_t qyi_attend_need(const struct qy_memory *memory, const struct qyi_session *session,
                       uint32_t n_items, uint32_t max_n);

/* ---- memory_chunk.c ---- */
void qyi_memory_chunk(struct qy_memory *memory, struct qyi_session *session,
                      const struct qyi_question *question, struct qyi_memory_reply *answer);

/* ---- memory_scorer.c ---- */
/* BOOK. [alloc] */
void qyi_memory_book(struct qy_memory *memory, struct qyi_session *session,
                     const struct qyi_question *question, struct qyi_memory_reply *answer);
/* NULL is accepted. */
void qyi_scorer_close(struct qy_memory *memory, struct qyi_scorer *scorer);

/* ---- memory_score.c ---- */
void qyi_memory_score(struct qy_memory *memory, struct qyi_session *session,
                      const struct qyi_question *question, struct qyi_memory_reply *answer);

/* ---- memory_server.c ---- */
/* Answers any question of the worker of that name. *session: its session, or NULL; OPEN writes it.
 * [owner] [noalloc] but for OPEN and BOOK */
void qyi_memory_answer(struct qy_memory *memory, const uint8_t *name, struct qyi_session **session,
                       const struct qyi_question *question, struct qyi_memory_reply *answer);
/* An answer's payload was sent. */
static inline void qyi_memory_sent(struct qy_memory *memory, const struct qyi_memory_reply *answer)
{
    if (answer->pinned) {
        qyi_frames_unpin(&memory->frames, answer->pinned);
    }
}

#endif
