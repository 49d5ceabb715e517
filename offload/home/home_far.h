/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far home: sealed blocks that host memory has no room for lie in a store (store.h): today a file
 * (disk.h). Of a discrete device only, whose index bytes are on the device: choosing never reads the
 * store. Source: LeoAM.
 *
 *   host memory   frames: the open blocks, sinks, window, and the sealed blocks read last
 *   the store     slots: whole blocks, as they lay in their frame
 *
 * homes[b] and addresses[b] of a block that lies in the store are NULL; its footer stays in memory, and,
 * where the store does not check what it reads, a checksum of each of its granules.
 *
 *   down   (far_down.c)  when few frames are free at the end of a step, the blocks read longest ago are
 *                        written; their frames are free when the writes are done. A step that needs a
 *                        frame now waits for that. A write that fails leaves the block where it was.
 *   rows   (far_rows.c)  pulls read the granules that hold the chosen rows into staging, and gather there;
 *                        of a store that hands out rows, these alone (far_rows_lists.c)
 *   push   (far_push.c)  queries go to the memory servers that have the rows
 *   score  (far_score*.c)  with retrieval.index_at = home: the same to choose: servers score index bytes
 *   parts  (far_up.c)    what attends to everything reads its layer's part of blocks, a stage ahead
 *   chunk  (far_chunk.c) or, of prefill, queries go to the memory servers that have the blocks
 *   tend   (far_down.c)  between steps memory servers hand blocks on to each other (servers_keep.c)
 *   up     (far_up.c)    blocks that are open again after a cut, or in the window, come back whole
 *
 * chosen: a block that is read often from the store stays there; its rows are in slots of the device.
 */
#ifndef QYI_OFFLOAD_HOME_FAR_H
#define QYI_OFFLOAD_HOME_FAR_H

#include "offload/disk/disk.h"
#include "offload/layout.h"
#include "offload/memory/remote_wire.h"
#include "offload/servers/servers.h"
#include "offload/tier/plan_chunk.h"

enum { QYI_FAR_WRITES = 16, QYI_FAR_PARTS = 2, QYI_FAR_RUNS = 2 };

struct qy_cache;
struct qy_sequence;

/* A block on its way down. */
struct qyi_far_write {
    int busy;
    struct qy_sequence *seq; /* NULL: nobody wants what it writes any more          */
    uint32_t block, slot;
    uint32_t frame; /* whose block was given back; QYI_NO_FRAME: not so  */
    uint64_t begin_ns;
    struct qyi_store_request request;
    struct qyi_store_batch batch;
};

/* Reads into staging, checked when they have arrived. */
struct qyi_far_reads {
    struct qyi_store_batch batch;
    struct qyi_store_request *requests; /* [capacity]                    */
    const struct qy_sequence **seqs;    /* [capacity] of each; for errors */
    uint32_t *blocks;                   /* [capacity]                    */
    uint32_t n, capacity;
    uint8_t *staging;
    size_t bytes, used;
};

/* Rows of a micro-batch's layer, as many at a time as the staging holds. */
struct qyi_far_rows {
    int active;
    uint32_t layer;
    uint32_t end;              /* items of the micro-batch: place .. end - 1 are left */
    uint32_t place, at;        /* the next row: `at` of the item's rows on the disk     */
    uint32_t n_gathers;        /* of the running round                              */
    uint32_t block, next_page; /* of the item: where the last row was (pages)      */
    uint8_t *span;             /* its block's pages in the staging                 */
    struct qyi_far_reads reads;
};

/* Rows of a pushed item that lie at one place: host memory (0), or a place of the store (1 + its number). */
struct qyi_far_part {
    uint32_t place, first, n; /* of its list of ids */
};

/* Pushes to places of the store; see far_push.c. */
struct qyi_far_push {
    uint32_t n_places; /* host memory included; 0: nothing is pushed there, nothing below is set */
    struct qyi_far_part *parts;                       /* [items][n_places]          */
    uint32_t *n_parts;                                /* [items]                    */
    float *out, *lse;                                 /* [items][n_places] partials */
    struct qyi_far_reads questions[QY_MICRO_BATCHES]; /* without staging */
};

/* Tokens first .. first + n - 1 of a chunk, asked of all servers that have rows of it. */
struct qyi_far_run {
    uint32_t first, n; /* n 0: none is under way */
    struct qyi_store_batch batch;
    struct qyi_store_request *requests; /* [n_places]                                           */
    float *out, *lse; /* [servers asked][n][heads][d] partials, and [servers asked][n][heads] */
};

/* Since open. Rows of all KV heads. */
struct qyi_far_chunk_counts {
    uint64_t pulled, pushed; /* (sequence, chunk, layer) with blocks in the store         */
    uint64_t failed;         /* of those pulled: a push of it came to nothing             */
    uint64_t rows_pulled, rows_pushed, pushed_bytes;
};

/* Pushes of chunks; see far_chunk.c. Memory is home memory. */
struct qyi_far_chunk {
    struct qyi_far_chunk_counts counts;
    uint32_t n_places; /* servers; 0: chunks are never pushed, nothing below is set */
    enum qy_plan_mode mode;
    int measured;
    struct qyi_chunk_costs costs;
    uint32_t most_tokens; /* of a run */
    float *q, *out, *lse; /* of a chunk: [tokens][heads][d]; merged partials; [tokens][heads] */
    uint8_t *place;       /* [max_blocks] of the slice: 1 + the server that is asked, or 0    */
    uint32_t *slots;      /* [max_blocks] those of each server, one after another             */
    uint8_t *done;        /* [max_sequences] the slice was pushed in this layer               */
    struct qy_copy_item *copies; /* [max_step_tokens + 1] */
    struct qyi_far_run runs[QYI_FAR_RUNS];
    /* Of the chunk that is looked at, or under way. */
    uint32_t first_slot[QYI_SERVERS_MOST + 1];
    uint32_t run_tokens, layer, n_tokens;
    uint32_t next;   /* token that no run has yet  */
    uint32_t oldest; /* run: it is waited for first */
    int failed;      /* a question came to nothing, so all did */
};

/* The best of some tokens of an item, [group][n] each, ids ascending. */
struct qyi_far_list {
    uint32_t *ids;
    float *scores;
    uint32_t n;
};

/* Choices by index bytes that lie at several places; see far_score.c. Of a sequence: its blocks that a choice is
 * made of, by place. */
struct qyi_far_score {
    uint32_t
        n_places; /* host memory included; 0: all index bytes are here, and nothing below is set */
    struct qyi_remote_scorer scorer;
    const struct qy_codebook *codebook; /* the policy's; NULL: none           */
    uint32_t *blocks, *slots;           /* [sequences][max_blocks]; slots: of the store */
    uint8_t **index;             /* [sequences][max_blocks] of the first place's, on the device */
    uint8_t *where;              /* [max_blocks] place of each         */
    struct qyi_far_part *parts;  /* [sequences][n_places]              */
    uint32_t *n_parts;           /* [sequences]                        */
    float *q;                    /* [items][group][d] in home memory   */
    struct qy_copy_item *asks;   /* [items]                            */
    struct qyi_far_list *lists;  /* [items][n_places]                  */
    uint32_t *n_lists;           /* [items]                            */
    struct qyi_far_list *merged; /* [items]                            */
    struct qy_best_item *bests;  /* [items] of those that are here     */
    struct qyi_far_list **own;   /* [items] where these go             */
    uint8_t *memory;             /* of lists, and merged ones: two halves */
    size_t half, used;           /* bytes of a half                    */
    struct qyi_far_reads questions, standin; /* questions: without staging         */
    uint8_t **standin_index;                 /* [max_blocks]                       */
};

struct qyi_home_far {
    struct qyi_store *store; /* NULL: there is no disk tier, and nothing below is set */
    uint32_t n_slots, slot_pages;
    size_t footer_bytes;
    uint32_t *free_slots; /* stack */
    uint32_t n_free;
    uint32_t *slots;    /* [ids of blocks] slot + 1; 0: in host memory */
    uint64_t *last_use; /* [ids of blocks] step that read or sealed it */
    uint8_t *footers;   /* [n_slots][footer_bytes]                     */
    uint64_t *sums;     /* [n_slots * slot_pages]; NULL: the store checks what it reads */
    uint64_t n_named;   /* blocks that were written: each has a generation of its own */
    uint64_t serials;   /* above those of caches that the process had before: theirs are below */
    uint32_t low_water; /* frames that are to be free after a step      */
    struct qyi_far_write writes[QYI_FAR_WRITES];
    struct qyi_far_rows rows[QY_MICRO_BATCHES];
    struct qyi_far_reads parts[QYI_FAR_PARTS];
    struct qyi_far_push push;
    struct qyi_far_chunk chunk;
    struct qyi_far_score score;
    int in_lists;       /* the store hands out rows: staging has them alone      */
    uint32_t *n_ram;    /* [items] pulls whose block is in host memory: they come first */
    uint8_t **tables;   /* [items][max_blocks] rows in the staging; in_lists: [items]    */
    uint32_t *in_order; /* [ids_capacity] 0, 1, ...                                */
    struct qy_gather_item *gathers; /* [items]                                               */
    uint32_t *scratch;              /* [2 * ids_capacity]                                    */
    uint64_t write_failures;        /* blocks that stayed in host memory because of one         */
    struct qy_node_checks checks;   /* of the servers' node, when counters were reset last  */
    uint64_t timeout_ns;
    char fault[256]; /* what failed last, in words */
    /* What the last read that nobody could answer was of; seq NULL: none since the step began. */
    struct {
        const struct qy_sequence *seq;
        uint32_t block;
    } nobody;
};

/* home_far.c: are blocks to go to memory servers? */
static inline int qyi_home_far_is_remote(const struct qy_cache_params *params)
{
    return params->servers != NULL && params->servers->n > 0;
}
/* Opens the store on memory servers, which says how much they hold; without servers nothing.
 * [setup] [alloc] */
QY_MUST enum qy_status qyi_home_far_connect(struct qy_cache *cache, struct qy_error *err);
/* QY_ERR_CONFIG: a unified device, or a policy that reads rows, cannot have a disk tier.
 * Nothing when cache.disk_bytes is 0. [setup] */
QY_MUST enum qy_status qyi_home_far_check(const struct qy_cache *cache, struct qy_error *err);
/* Blocks that must be in host memory at once, at the least: sinks, windows, and those of a step. */
uint64_t qyi_home_far_least(const struct qy_cache *cache);
/* Blocks that host memory has with memory servers when nobody says how many: the least, and room for
 * those that leave. chosen: while the blocks of a step are filled, those of the step before come home from
 * the device, and those of the one before that go to the servers. */
uint64_t qyi_home_far_usual(const struct qy_cache *cache);
/* Blocks that the file holds. */
uint64_t qyi_home_far_blocks(const struct qy_cache *cache);
/* Bytes of host memory beside the frames, for n_slots of them. */
uint64_t qyi_home_far_bytes(const struct qy_cache *cache, uint64_t n_slots, uint64_t n_ids);
/* n_slots: 0 opens nothing. [setup] [alloc] */
QY_MUST enum qy_status qyi_home_far_open(struct qy_cache *cache, uint32_t n_slots,
                                         struct qy_error *err);
void qyi_home_far_close(struct qy_cache *cache);
/* The footer, with its checksums behind it, of a block that lies in the file. */
struct qyi_footer *qyi_home_far_footer(const struct qy_sequence *seq, uint32_t b);
/* Writes cache.fault, and returns status: of a read of a sequence's block. */
enum qy_status qyi_home_far_failed(struct qy_cache *cache, enum qy_status status,
                                   const struct qy_sequence *seq, uint32_t block, const char *why);

/* far_lost.c: why a read failed (errno), in words; where nobody holds the block, it is noted. [noalloc] */
const char *qyi_home_far_why(struct qy_cache *cache, const struct qy_sequence *seq, uint32_t block,
                             int error);
/* The error of a step that finds no room for `need` blocks, with the numbers of all places. QY_AGAIN. */
enum qy_status qyi_home_far_full(const struct qy_cache *cache, uint64_t need, struct qy_error *err);

/* far_down.c: n frames and ids for new blocks. Without a disk tier a look; with one, blocks are written
 * down and waited for. QY_AGAIN: not so many can be had. [noalloc] */
QY_MUST enum qy_status qyi_home_far_room(struct qy_cache *cache, uint64_t n);
/* A frame, for a block that comes up. [noalloc] */
QY_MUST enum qy_status qyi_home_far_frame(struct qy_cache *cache);
/* A step ended: takes note of finished writes, starts new ones; the store sees to its blocks. 1: it has more to do
 * soon. [noalloc] */
int qyi_home_far_step_end(struct qy_cache *cache);
/* Blocks from `first` on are about to change: none of them is read on its way down any more. QY_ERR_TIMEOUT: one
 * is still. [noalloc] */
QY_MUST enum qy_status qyi_home_far_quiet(struct qy_sequence *seq, uint32_t first);
/* A block that is in host memory stays there, though it may be on its way down. [noalloc] */
void qyi_home_far_keep(struct qy_sequence *seq, uint32_t b);
/* A block is about to be given back, or opened: nothing of it is on its way down any more, and nothing
 * in the file. [noalloc] */
void qyi_home_far_forget(struct qy_sequence *seq, uint32_t b);
/* Rows of a block are read now. [noalloc] */
void qyi_home_far_touch(const struct qy_sequence *seq, uint32_t b);
/* First token of the sequence whose rows must be in host memory: the window's, for policies. */
uint32_t qyi_home_far_hot(const struct qy_sequence *seq);

/* Are the blocks that policies and the step write to or read themselves in host memory? 0: a cut could not
 * read them. [noalloc] */
int qyi_home_far_is_whole(const struct qy_sequence *seq);

/* far_up.c: starts what was put into the list; waits, and checks it. [noalloc] */
QY_MUST enum qy_status qyi_far_reads_start(struct qy_cache *cache, struct qyi_far_reads *reads);
QY_MUST enum qy_status qyi_far_reads_wait(struct qy_cache *cache, struct qyi_far_reads *reads);
/* Puts bytes `at` .. at + bytes - 1 of a block in the file into the list; where they will be, or NULL:
 * the list is full. [noalloc] */
const uint8_t *qyi_far_reads_add(struct qyi_far_reads *reads, const struct qy_sequence *seq,
                                 uint32_t b, size_t at, size_t bytes);
/* Nothing of the disk's is under way any more, and nothing is left of what was. QY_ERR_TIMEOUT: something
 * is. [noalloc] */
QY_MUST enum qy_status qyi_home_far_drop(struct qy_cache *cache);
/* Blocks that must be in host memory again come up, after a cut; and those of *from .. below - 1, the
 * last first, as long as frames are free: *from is the first that did. */
QY_MUST enum qy_status qyi_home_far_bring(struct qy_sequence *seq, uint32_t below, uint32_t *from);
/* Blocks of dst's own, with what src's hold, one after another. QY_AGAIN: no room; some may be there. */
QY_MUST enum qy_status qyi_home_far_copy(struct qy_sequence *dst, const struct qy_sequence *src);
/* First checksum of blocks first .. first + n - 1 that lie in the file that differs, counted as in
 * integrity.c; SIZE_MAX: none. */
size_t qyi_home_far_bad_sum(const struct qy_sequence *seq, uint32_t first, uint32_t n);

/* far_rows.c: of an item's pulls, those in host memory are put first; their number. [noalloc] */
uint32_t qyi_far_rows_split(struct qy_cache *cache, uint32_t slice, uint32_t head);
/* Starts to read the others of the running micro-batch. 0: there are none. [noalloc] */
QY_MUST enum qy_status qyi_far_rows_start(struct qy_cache *cache, uint32_t layer, int *any);
/* Waits for them, and has them pulled. [noalloc] */
QY_MUST enum qy_status qyi_far_rows_wait(struct qy_cache *cache);

/* far_rows_lists.c: room for rows of n ids of one (layer, KV head) of a sequence, of blocks that are in
 * the store, one after another from *to on; as many as the list and the staging hold, which is returned.
 * [noalloc] */
uint32_t qyi_far_lists_add(struct qyi_far_reads *reads, const struct qy_sequence *seq,
                           uint32_t layer, uint32_t head, const uint32_t *ids, uint32_t n,
                           uint8_t **to);
/* Such rows of a layer from *at on (borrowed), as rows of tokens 0, 1, ... */
struct qy_rows qyi_far_lists_rows(const struct qy_cache *cache, uint32_t layer, uint8_t *const *at);
/* Of rows that were gathered: which lies in which slot, for checks. */
void qyi_far_lists_stamp(struct qy_cache *cache, const struct qy_gather_item *items, uint32_t n);

/* far_cost.c: where plan.mode is auto, what rows on memory servers cost, by a trial; one that fails is
 * told, and these rows are pulled. QY_ERR_NOMEM. [setup] */
QY_MUST enum qy_status qyi_far_cost_measure(struct qy_cache *cache, struct qy_error *err);
/* Runs requests of a trial; nothing of them is under way afterwards, whatever came of them. *ns (NULL: not
 * wanted): the least of `times` runs. */
QY_MUST enum qy_status qyi_far_cost_run(const struct qy_cache *cache,
                                        struct qyi_store_request *requests, uint32_t n, int times,
                                        double *ns);
/* far_chunk_cost.c: the same of chunks, with a block of zeros in slot 0. [setup] */
QY_MUST enum qy_status qyi_far_chunk_measure(struct qy_cache *cache);

/* far_push.c: memory, in bytes; opened (1: out of memory); freed. Nothing without memory servers, or where
 * plan.mode is pull. */
uint64_t qyi_far_push_bytes(const struct qy_cache *cache);
int qyi_far_push_open(struct qy_cache *cache);
void qyi_far_push_close(struct qy_cache *cache);
/* May the looked-up item of the running micro-batch push? With step.deterministic only where its rows lie
 * at one place, so that the bits are those of one list. [noalloc] */
int qyi_far_push_may(const struct qy_cache *cache, uint32_t layer, uint32_t slice, uint32_t head);
/* Asks servers about what the micro-batch pushes; its queries are on their way to the host. The lists of
 * what is pushed begin with the rows in host memory then. [noalloc] */
QY_MUST enum qy_status qyi_far_push_ask(struct qy_cache *cache, uint32_t layer);
/* Where attention over the rows in host memory goes: [group][d], and [group]. */
float *qyi_far_push_out(const struct qy_cache *cache, size_t place, float **lse);
/* Waits for the answers, and merges what an item got. QY_ERR_DEVICE, QY_ERR_TIMEOUT: as of pulls.
 * [noalloc] */
QY_MUST enum qy_status qyi_far_push_answer(struct qy_cache *cache);
/* Nothing is under way any more: of a step that is left. [noalloc] */
QY_MUST enum qy_status qyi_far_push_settle(struct qy_cache *cache);

/* far_chunk.c: may chunks of this cache be pushed? memory, in bytes; opened (1: out of memory); freed. */
int qyi_far_chunk_wanted(const struct qy_cache *cache);
uint64_t qyi_far_chunk_bytes(const struct qy_cache *cache);
int qyi_far_chunk_open(struct qy_cache *cache);
void qyi_far_chunk_close(struct qy_cache *cache);
/* Where the earlier blocks of a slice lie: chunk.place, and the work that a plan goes by. [noalloc] */
struct qyi_chunk_work qyi_far_chunk_look(struct qy_cache *cache, uint32_t layer, uint32_t slice);
/* Asks servers about the slice that was looked at last; chunk.q has its queries. [noalloc] */
void qyi_far_chunk_ask(struct qy_cache *cache, uint32_t layer, uint32_t n_tokens);
/* Takes note of answers, and asks on; waits for nothing. [noalloc] */
void qyi_far_chunk_poll(struct qy_cache *cache);
/* Waits for all. *good: chunk.out and chunk.lse have what the servers found; else a server could not, nothing
 * is under way, and the blocks are to be pulled. QY_ERR_TIMEOUT: as of pulls. [noalloc] */
QY_MUST enum qy_status qyi_far_chunk_answer(struct qy_cache *cache, int *good);
/* Is something under way? It is forgotten: a reset of the store follows. */
int qyi_far_chunk_drop(struct qy_cache *cache);

/* far_score_open.c: are index bytes of blocks to lie where these lie, and there alone? */
int qyi_far_score_wanted(const struct qy_cache_params *params);
/* QY_ERR_CONFIG: retrieval.index_at = home, and this policy or this cache cannot. [setup] */
QY_MUST enum qy_status qyi_far_score_check(const struct qy_cache *cache, struct qy_error *err);
/* What servers are told to score by; names memory of the cache's. bytes 0: nothing. */
struct qyi_servers_book qyi_far_score_book(struct qy_cache *cache);
/* Memory, in bytes; opened (1: out of memory); freed. Arena bytes of a choice. */
uint64_t qyi_far_score_bytes(const struct qy_cache *cache);
int qyi_far_score_open(struct qy_cache *cache);
void qyi_far_score_close(struct qy_cache *cache);
size_t qyi_far_score_scratch(const struct qy_cache *cache);

/* far_score.c: as the policy's select, of items of which some have index bytes on servers; their order
 * changes. QY_ERR_DEVICE, QY_ERR_TIMEOUT: as of pulls. [noalloc] */
QY_MUST enum qy_status qyi_far_score_select(struct qy_cache *cache, struct qy_select_item *items,
                                            uint32_t n);
/* far_score_merge.c: the lists of n items become what they choose. QY_ERR_DEVICE: a server's list is none.
 * [noalloc] */
QY_MUST enum qy_status qyi_far_score_merge(struct qy_cache *cache,
                                           const struct qy_select_item *items, uint32_t n);

#endif
