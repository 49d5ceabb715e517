/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What workers ask memory servers, and what these answer: the heads and payloads of net's questions,
 * packed by one side and parsed by the other. Pure functions; nothing here knows a connection.
 *
 *   op      head              payload                                      answer's payload
 *   OPEN    -                 qyi_remote_open, 4 bytes a layer if coded    -
 *   PUT     qyi_remote_put    a sealed block                               -
 *   DROP    count             qyi_remote_drop [n]                          -
 *   READ    count             qyi_remote_read [n]                          the bytes, one after another
 *   ROWS    qyi_remote_ask    qyi_remote_item [n], ids                     rows as they lie at home
 *   ATTEND  qyi_remote_ask    qyi_remote_item [n], queries, ids            out [n][g][d], lse [n][g], f32
 *   STATE   -                 -                                            qyi_remote_state
 *   CHUNK   qyi_remote_chunk  queries [n][h * g][d], blocks                out [n][h * g][d], lse [n][h * g]
 *   BOOK    qyi_remote_book   a piece of a scorer's image                  -
 *   SCORE   qyi_remote_ask    qyi_remote_score [n], queries, blocks        of each: ids [g][best], scores [g][best]
 *
 * A block is named (sequence, serial, block): a slot of the worker's table of sequences, which sequence
 * it is that has the slot, and the block's place in it. Its content is named by a generation. Serials (of
 * a slot) and generations (of a block of a sequence) are from 1 on and only go up: the server takes
 * nothing that is older than what it has seen, so questions may be asked twice, and may come late.
 *
 * Numbers are little endian, as all our machines are (net checks it), and lie where structs have them.
 * Parsers take any bytes: NULL, and all that they write is within the bounds; or what is wrong, a
 * literal, and nothing was written.
 */
#ifndef QYI_OFFLOAD_REMOTE_WIRE_H
#define QYI_OFFLOAD_REMOTE_WIRE_H

#include "net/net.h"
#include "offload/layout.h"

enum { QYI_REMOTE_VERSION = 3 };

enum qyi_remote_op {
    QYI_REMOTE_OPEN = 1,
    QYI_REMOTE_PUT,
    QYI_REMOTE_DROP,
    QYI_REMOTE_READ,
    QYI_REMOTE_ROWS,
    QYI_REMOTE_ATTEND,
    QYI_REMOTE_STATE,
    QYI_REMOTE_CHUNK,
    QYI_REMOTE_BOOK,
    QYI_REMOTE_SCORE
};

enum qyi_remote_code {
    QYI_REMOTE_DONE = 0,
    QYI_REMOTE_HELD,      /* PUT, BOOK: this content is here already; as good as done          */
    QYI_REMOTE_FULL,      /* no free block; OPEN: no free session                              */
    QYI_REMOTE_UNKNOWN,   /* a block that is not here: reply.item and reply.block say which    */
    QYI_REMOTE_STALE,     /* the serial, or a PUT's generation, is older than what was seen;
                             BOOK: not the piece that comes next: begin again                  */
    QYI_REMOTE_TOO_LARGE, /* the answer, or what it takes to make it: ask for less at a time;
                             OPEN: not one block, table or item of this shape would fit        */
    QYI_REMOTE_BUSY,      /* OPEN, PUT: blocks of another layout are held                      */
    QYI_REMOTE_NOT_OPEN,  /* there is no session: it was never opened, or its time was over    */
    QYI_REMOTE_CORRUPT,   /* PUT: the block's checksums differ: send it again                  */
    QYI_REMOTE_MALFORMED, /* a PUT that is none, known by its head; others close the peer      */
    QYI_REMOTE_FAILED,    /* the server could not; its log says why                            */
    QYI_REMOTE_CODES
};
/* "done", "unknown block", ... for people; "code outside the list" of others. */
const char *qyi_remote_code_name(uint16_t code);

/* Other payloads than OPEN's are read where they lie, and refused where that is not so. */
static inline int qyi_remote_aligned(const void *payload)
{
    return (uintptr_t)payload % 8 == 0;
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* The head of every answer but those to a PUT that was turned down by its head, which have none. */
struct qyi_remote_reply {
    uint64_t fold;                /* READ, ROWS, ATTEND, CHUNK: see qyi_remote_fold   */
    uint64_t in_bytes, out_bytes; /* of blocks put and of answers, of this session     */
    uint32_t free_blocks, total_blocks;
    uint32_t held_blocks;  /* by this session                                         */
    uint32_t item, block;  /* UNKNOWN, STALE: which of the question's list             */
    uint32_t call_bytes;   /* largest payload of a question, but of PUT               */
    uint32_t answer_bytes; /* largest payload of an answer, but of READ of one range  */
    uint32_t draining;     /* 1: it will end, and takes no block any more             */
};
_Static_assert(sizeof(struct qyi_remote_reply) == 56, "goes over the network as it is");

/* QY_ERR_CORRUPT: it is none. */
QY_MUST enum qy_status qyi_remote_reply_parse(const void *head, size_t head_bytes,
                                              struct qyi_remote_reply *reply);

/* STATE: what the server is. Told to all who know its key; the code says whether they have a session. */
struct qyi_remote_state {
    uint32_t version, sessions;  /* QYI_REMOTE_VERSION                                   */
    uint64_t bytes, block_bytes; /* for blocks; of a block, 0: no session was opened yet  */
};
_Static_assert(sizeof(struct qyi_remote_state) == 24, "goes over the network as it is");

/* QY_ERR_CORRUPT: it is none. */
QY_MUST enum qy_status qyi_remote_state_parse(const void *payload, size_t bytes,
                                              struct qyi_remote_state *state);

/* What both sides make of the generations of the blocks that an answer was made from, starting with 0.
 * Each step is a bijection of what was before, so one generation that is not the one that the worker
 * means always shows. */
static inline uint64_t qyi_remote_fold(uint64_t fold, uint64_t generation)
{
    fold = ((fold + 0x9e3779b97f4a7c15u) ^ generation) * 0xbf58476d1ce4e5b9u;
    return fold ^ fold >> 31;
}
/* Of an item's list: a step for each run of ids in one block. generations: [blocks] of the sequence. */
uint64_t qyi_remote_fold_ids(uint64_t fold, const uint32_t *ids, uint32_t n, uint32_t shift,
                             const uint64_t *generations);

/* ---- OPEN: remote_open.c ---------------------------------------------------------------------- */

/* A worker's layout, and the size of its table. */
struct qyi_remote_open {
    uint32_t version;
    uint32_t n_layers, n_kv_heads, head_dim, group;
    uint32_t block_tokens, row_type;
    uint32_t in_pages, coded; /* 0 or 1 */
    uint32_t max_sequences, max_blocks;
    uint32_t zero;
    uint64_t index_slab_bytes, index_at, footer_at, block_bytes;
};
_Static_assert(sizeof(struct qyi_remote_open) == 80, "goes over the network as it is");

size_t qyi_remote_open_bytes(const struct qyi_layout *layout);
/* to: [qyi_remote_open_bytes]. group: query heads of a KV head. */
void qyi_remote_open_pack(const struct qyi_layout *layout, uint32_t group, uint32_t max_sequences,
                          uint32_t max_blocks, void *to);
/* Checks all but what the layout comes to. */
const char *qyi_remote_open_parse(const void *payload, size_t bytes, struct qyi_remote_open *open);
/* The layout of a payload that was parsed, computed here; it must come to the offsets that the worker
 * says. layers: [open->n_layers] written, and kept by the layout, where rows are coded. */
const char *qyi_remote_open_layout(const struct qyi_remote_open *open, const void *payload,
                                   struct qyi_home_layer *layers, struct qyi_layout *layout);

/* What a session may name. */
struct qyi_remote_bounds {
    uint32_t n_layers, n_kv_heads;
    uint32_t query_floats; /* group * head_dim */
    uint32_t shift;
    uint32_t max_sequences, max_blocks;
    uint64_t block_bytes;
};

/* ---- blocks ----------------------------------------------------------------------------------- */

struct qyi_remote_put {
    uint64_t serial, generation;
    uint32_t sequence, block;
};
_Static_assert(sizeof(struct qyi_remote_put) == 24, "goes over the network as it is");

const char *qyi_remote_put_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                 size_t head_bytes, uint64_t payload_bytes,
                                 struct qyi_remote_put *put);

/* Blocks first .. first + n - 1 of a sequence (n UINT32_MAX: all from first on), as far as their
 * generation is not above this one: what was put later stays, and what is put late stays out. */
struct qyi_remote_drop {
    uint64_t serial, generation;
    uint32_t sequence, first, n;
    uint32_t moved; /* 1: another server has them, the sequence goes on; 0: nobody needs them */
};
_Static_assert(sizeof(struct qyi_remote_drop) == 32, "goes over the network as it is");

/* The head of DROP and READ. */
struct qyi_remote_count {
    uint32_t n, zero;
};

struct qyi_remote_drops {
    const struct qyi_remote_drop *items; /* in the payload */
    uint32_t n;
};
/* n of each is cut to the end of the sequence. What all name together is no more than the table has. */
const char *qyi_remote_drop_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_drops *drops);
static inline uint32_t qyi_remote_drop_end(const struct qyi_remote_bounds *bounds,
                                           const struct qyi_remote_drop *drop)
{
    return drop->n > bounds->max_blocks - drop->first ? bounds->max_blocks : drop->first + drop->n;
}

struct qyi_remote_read {
    uint64_t serial, at, bytes; /* of the block's */
    uint32_t sequence, block;
};
_Static_assert(sizeof(struct qyi_remote_read) == 32, "goes over the network as it is");

struct qyi_remote_reads {
    const struct qyi_remote_read *items; /* in the payload */
    uint32_t n;
    uint64_t bytes; /* of the answer */
};
const char *qyi_remote_read_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_reads *reads);

/* ---- lists of rows ---------------------------------------------------------------------------- */

/* The head of ROWS, ATTEND and SCORE (n_ids: blocks). */
struct qyi_remote_ask {
    uint32_t layer, n_items, n_ids;
    float scale; /* ATTEND; else 0 */
};
_Static_assert(sizeof(struct qyi_remote_ask) == 16, "goes over the network as it is");

/* n token ids, in any order, of one KV head of a sequence; the lists lie one after another. */
struct qyi_remote_item {
    uint64_t serial;
    uint32_t sequence, head, n, zero;
};
_Static_assert(sizeof(struct qyi_remote_item) == 24, "goes over the network as it is");

/* Where the parts of a list's payload begin. */
struct qyi_remote_parts {
    size_t q_at, ids_at, bytes;
};
/* query_floats: 0 of ROWS. */
static inline struct qyi_remote_parts qyi_remote_parts(uint32_t n_items, uint32_t n_ids,
                                                       uint32_t query_floats)
{
    struct qyi_remote_parts parts = {.q_at = (size_t)n_items * sizeof(struct qyi_remote_item)};

    parts.ids_at = parts.q_at + (size_t)n_items * query_floats * sizeof(float);
    parts.bytes = parts.ids_at + (size_t)n_ids * sizeof(uint32_t);
    return parts;
}

struct qyi_remote_list {
    uint32_t layer, n_items, n_ids;
    float scale;
    const struct qyi_remote_item *items; /* in the payload, as the next two */
    const float *q;                      /* [n_items][group][d]; ROWS: NULL */
    const uint32_t *ids;                 /* [n_ids]                         */
};
const char *qyi_remote_rows_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_list *list);
const char *qyi_remote_attend_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                    size_t head_bytes, const void *payload, size_t payload_bytes,
                                    struct qyi_remote_list *list);

/* ---- chunks: remote_chunk.c --------------------------------------------------------------------- */

/* chosen: multiply-adds of the scores of a question at most, that is n_queries times their query heads, times
 * d, times rows: some tens of milliseconds of one core. Others wait that long, and the one who asks must not
 * take the server for lost. More is TOO_LARGE. */
enum { QYI_REMOTE_CHUNK_WORK = 1 << 28 };

/* The head of CHUNK: queries of all heads of one layer, which attend to all rows of n_blocks blocks of a
 * sequence, in their order. */
struct qyi_remote_chunk {
    uint64_t serial;
    uint32_t sequence, layer;
    uint32_t n_queries, n_blocks;
    float scale;
    uint32_t zero;
};
_Static_assert(sizeof(struct qyi_remote_chunk) == 32, "goes over the network as it is");

/* Of a payload; floats: of a token's queries, n_kv_heads * group * head_dim. */
static inline size_t qyi_remote_chunk_bytes(uint32_t n_queries, uint32_t n_blocks, uint32_t floats)
{
    return (size_t)n_queries * floats * sizeof(float) + (size_t)n_blocks * sizeof(uint32_t);
}

struct qyi_remote_chunk_parts {
    struct qyi_remote_chunk ask;
    const float *q;         /* in the payload, as blocks    */
    const uint32_t *blocks; /* [n_blocks] in any order      */
};
const char *qyi_remote_chunk_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                   size_t head_bytes, const void *payload, size_t payload_bytes,
                                   struct qyi_remote_chunk_parts *chunk);
/* ---- scores: remote_score.c ------------------------------------------------------------------- */

/* BOOK: what a session's index bytes are scored by, an image that comes in pieces, in order. */
struct qyi_remote_book {
    uint64_t hash;      /* of the whole image: qyi_remote_scorer_hash */
    uint64_t bytes, at; /* of the whole; where the piece begins       */
};
_Static_assert(sizeof(struct qyi_remote_book) == 24, "goes over the network as it is");

/* An image: this, inv_freq f32 [rope_dim / 2], and codebook_bytes of the codebook's own image. The first
 * piece has all but the codebook's tables. */
struct qyi_remote_scorer {
    char policy[32];
    uint32_t preset, first_stage, rerank, pooling; /* as struct qy_retrieval_settings has them */
    uint32_t wrope_window, wrope_distance;
    uint32_t sinks, window;
    uint32_t rope_dim, rope_pairs;
    float scale;
    uint32_t zero;
    uint64_t codebook_bytes; /* 0: none */
};
_Static_assert(sizeof(struct qyi_remote_scorer) == 88, "goes over the network as it is");
enum { QYI_REMOTE_ROPE_MOST = 1024, QYI_REMOTE_BOOK_CALL = 4096 /* least call_bytes */ };

/* Of an image whose codebook has this hash (0: there is none). */
uint64_t qyi_remote_scorer_hash(const struct qyi_remote_scorer *scorer, const float *inv_freq,
                                uint64_t codebook_hash);
const char *qyi_remote_book_parse(const void *head, size_t head_bytes, size_t payload_bytes,
                                  struct qyi_remote_book *book);
/* The first piece of an image of so many bytes. inv_freq, codebook: in it, not aligned; its first
 * QY_CODEBOOK_HEADER_BYTES of the codebook are there, if it has one. */
const char *qyi_remote_scorer_parse(const uint8_t *piece, size_t piece_bytes, uint64_t bytes,
                                    struct qyi_remote_scorer *scorer, const uint8_t **inv_freq,
                                    const uint8_t **codebook);

/* All tokens of some blocks of one KV head of a sequence are scored; the best of each query head are
 * answered, ids ascending, and their scores. */
struct qyi_remote_score {
    uint64_t serial;
    uint32_t sequence, head;
    uint32_t n_blocks; /* of the list of blocks, ascending */
    uint32_t n_tokens; /* of the sequence: the query is its last one's */
    uint32_t k, zero;
};
_Static_assert(sizeof(struct qyi_remote_score) == 32, "goes over the network as it is");

static inline struct qyi_remote_parts qyi_remote_score_parts(uint32_t n_items, uint32_t n_blocks,
                                                             uint32_t query_floats)
{
    struct qyi_remote_parts parts = {.q_at = (size_t)n_items * sizeof(struct qyi_remote_score)};

    parts.ids_at = parts.q_at + (size_t)n_items * query_floats * sizeof(float);
    parts.bytes = parts.ids_at + (size_t)n_blocks * sizeof(uint32_t);
    return parts;
}
/* How many are answered of each query head. */
static inline uint32_t qyi_remote_best(uint32_t k, uint32_t n_blocks, uint32_t shift)
{
    return k < n_blocks << shift ? k : n_blocks << shift;
}

struct qyi_remote_scores {
    uint32_t layer, n_items, n_blocks;
    const struct qyi_remote_score *items; /* in the payload, as the next two */
    const float *q;                       /* [n_items][group][d] */
    const uint32_t *blocks;               /* [n_blocks]          */
};
const char *qyi_remote_score_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                   size_t head_bytes, const void *payload, size_t payload_bytes,
                                   struct qyi_remote_scores *scores);

#endif
