/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device tier: what a discrete device holds of the cache. Homes hold the full copy; a unified
 * device has no tier, its kernels read the homes. Everything is reserved at open, from
 * cache.device_bytes:
 *
 *   row store   [slots of set 0 | of set 1 | ...][device block 0 | device block 1 | ...]
 *   index       an index block per block of a home; with retrieval.index_at = home, per frame of host memory
 *   staging     two segments of blocks that only pass through (prefill, dense attention)
 *   scratch     of a step (reserve.c), and the residency cache's map
 *
 * A row number names a row of the store: (address - base) / row bytes. A *slot* holds one row and is
 * given out by the residency cache. A *device block* holds the rows of one block in the block's own
 * order; those of a sequence are its last ones, from block seq->device_from on: the open tail, blocks
 * that are on their way home, and as many of the older ones as tier.keep says.
 *
 * A block is written to its device block, goes home when it is full (tier_home.c), and is sealed
 * there once it has arrived. Until then the sequence's `addresses` name the device block, afterwards
 * the home.
 */
#ifndef QYI_OFFLOAD_TIER_H
#define QYI_OFFLOAD_TIER_H

#include "offload/block.h"
#include "offload/step/ahead.h"
#include "offload/tier/plan.h"
#include "offload/tier/residency.h"

enum { QYI_SEGMENT_TOKENS = 512, QYI_STAGES = 2, QYI_ASKED_BLOCKS = 4 };

/* Sizes, in bytes and counts. */
struct qyi_tier_plan {
    uint32_t slots_per_set, n_sets;
    uint32_t n_blocks, keep; /* device blocks; of one sequence, beside those of a step */
    uint32_t segment_blocks; /* of one stage                                           */
    size_t slot_bytes, block_bytes, index_bytes, stage_bytes, map_bytes, scratch_bytes;
};

/* Counted over single new tokens that attend to a list. */
struct qyi_tier_counts {
    uint64_t asked, found;           /* rows in reach of the residency cache; found there */
    uint64_t pulled, pushed;         /* of the others */
    uint64_t failures;               /* of copies home, done again                        */
    uint64_t ahead, ahead_used;      /* rows pulled by a guess; of them, then asked for    */
    uint64_t guessed, guessed_right; /* rows chosen where there was a guess; it had them   */
};

/* Pulls of one micro-batch, in one layer. */
struct qyi_fetch {
    int is_open; /* under way */
    uint32_t layer;
    uint32_t n_push; /* (slice, KV head) that push */
    struct qy_event asked, here;
};

/* Attention at the home: queries there, partials back. Arrays are [max_sequences * n_kv_heads]. */
struct qyi_push {
    struct qyi_plan_params params, far; /* far: of sequences that have rows on memory servers */
    struct qyi_plan_item *items;
    uint8_t *chosen;         /* 1: the item pushes. NULL, as all others: nothing ever does */
    uint8_t *far_chosen;     /* of a plan by `far`           */
    uint32_t *n_rows;        /* that it attends to at their home */
    uint32_t *n_host;        /* of them, those in host memory    */
    float *q, *out;          /* in home memory: [group][d] each */
    float *lse;              /* [group]                          */
    double pull_ns, push_ns; /* what the last plans expect */
    struct qy_copy_item *asks, *answers; /* one, and two, of an item */
};

struct qyi_tier {
    int present; /* 0: unified, nothing below is set */
    struct qyi_tier_plan plan;
    void *memory;    /* device memory behind the next three */
    uint8_t *rows;   /* row store                            */
    uint8_t *index;  /* [blocks of the home, or frames][n_slabs][index_slab_bytes]; NULL: none */
    uint8_t *stages; /* [QYI_STAGES][segment_blocks][n_kv_heads][slab_bytes]         */
    uint8_t *row_blocks[1]; /* rows, as struct qy_rows wants it           */
    uint32_t *free_blocks;  /* stack */
    uint32_t n_free;
    struct qyi_residency *residency;
    struct qy_stream *in, *out;
    uint64_t timeout_ns;
    /* Of a layer: rows to pull. [max_sequences * n_kv_heads] and lists as step.ids. */
    struct qy_gather_item *gathers;
    uint32_t *numbers; /* row numbers of a list */
    uint32_t *misses;  /* places in the list     */
    uint32_t *pull_ids, *pull_slots;
    uint32_t *n_found, *n_missed, *n_taken; /* per item; taken: missed, with slots */
    uint32_t *n_numbers;                    /* of its list of row numbers          */
    uint16_t
        *asked; /* [max_sequences][n_slabs][QYI_ASKED_BLOCKS][block_tokens] step in which a row of
                        a device block was last asked for, see tier_hot.c */
    struct qyi_push push;
    enum qy_status *slice_status; /* [max_sequences] */
    uint64_t *stamps; /* [slots] what lies in each; NULL but in debug builds, see tier_check.c */
    struct qyi_fetch fetches[QY_MICRO_BATCHES];
    struct qyi_ahead ahead;
    struct qy_copy_item *copies;      /* [max_sequences][(n_runs + 1) * max_blocks]: blocks' way */
    struct qy_copy_item *pass_copies; /* [QYI_STAGES][segment_blocks]                         */
    uint8_t **pass_blocks;            /* [QYI_STAGES][max_blocks]: segments' tables */
    struct qyi_tier_counts counts;
    struct qyi_tier_counts *layers; /* [n_layers] of each layer; failures are not told apart */
    struct qyi_plan_made plans;     /* of all steps */
};

struct qy_cache;
struct qy_sequence;
struct qy_qkv;

/* Bytes of the rows of one block, on the device. */
static inline size_t qyi_tier_block_bytes(const struct qyi_layout *l)
{
    return (size_t)l->n_slabs * l->slab_bytes;
}

/* tier_size.c: sizes for what the cache was opened for. QY_ERR_NOMEM with numbers when device_bytes do
 * not hold the least, or index_bytes not its index. scratch_bytes: of a step. */
QY_MUST enum qy_status qyi_tier_size(const struct qy_cache *cache, size_t scratch_bytes,
                                     struct qyi_tier_plan *plan, struct qy_error *err);
struct qyi_residency_params qyi_tier_residency(const struct qy_cache *cache,
                                               const struct qyi_tier_plan *plan);

/* tier.c */
QY_MUST enum qy_status qyi_tier_open(struct qy_cache *cache, const struct qyi_tier_plan *plan,
                                     struct qy_error *err);
void qyi_tier_close(struct qy_cache *cache);
/* Device blocks for blocks `first` and following of a sequence, up to n_tokens. QY_AGAIN: they are all
 * in use. Waits for blocks that are on their way home when it has to. [noalloc] */
QY_MUST enum qy_status qyi_tier_reserve(struct qy_sequence *seq, uint32_t first, uint32_t n_tokens);
/* Gives back device blocks of a sequence that now ends at n_blocks. */
void qyi_tier_release(struct qy_sequence *seq, uint32_t n_blocks);

/* Gives back one device block; *address becomes NULL. [noalloc] */
void qyi_tier_give_block(struct qy_cache *cache, uint8_t **address);

/* tier_home.c: a step of the sequence ended: full blocks start on their way home, those that arrived are
 * sealed. What fails is tried again when the next step ends. [noalloc] */
void qyi_tier_step_end(struct qy_sequence *seq);
/* The way home failed: everything on it is given up, and will be sent again. Nothing is lost, for a
 * device block is kept until its home has arrived. QY_ERR_TIMEOUT: a write may still land. */
QY_MUST enum qy_status qyi_tier_give_up(struct qy_cache *cache);
/* Copies on a stream, and waits for them; QY_ERR_DEVICE also where it has no room. send: on the way home, of
 * which a failure gives up everything, as above. [noalloc] */
QY_MUST enum qy_status qyi_tier_copy_now(struct qy_cache *cache, struct qy_stream *stream,
                                         const struct qy_copy_item *items, uint32_t n);
QY_MUST enum qy_status qyi_tier_send_now(struct qy_cache *cache, const struct qy_copy_item *items,
                                         uint32_t n);
/* Seals what has arrived; wait != 0: waits for all. Gives device blocks back. [noalloc] */
QY_MUST enum qy_status qyi_tier_settle(struct qy_sequence *seq, int wait);
/* Tokens from n_tokens on are about to be cut: waits for what is on its way home, and forgets slots.
 * A failure: a write may still land in the sequence's blocks, which must not be given back. */
QY_MUST enum qy_status qyi_tier_forget(struct qy_sequence *seq, uint32_t n_tokens);
/* Blocks that the sequence keeps on the device, its open one at least, come back from their homes where
 * they are not there: after a cut, or a fill. */
QY_MUST enum qy_status qyi_tier_bring(struct qy_sequence *seq);
/* dst, whose homes are a copy of src's, gets src's length, and index and kept blocks on the device. */
QY_MUST enum qy_status qyi_tier_copy(struct qy_sequence *dst, const struct qy_sequence *src);
/* Where the index bytes of a block that is here are on the device; NULL: it has none. [noalloc] */
uint8_t *qyi_tier_index(const struct qy_cache *cache, uint32_t id);
/* They go there from its frame; waited for. [noalloc] */
QY_MUST enum qy_status qyi_tier_load_index(struct qy_cache *cache, uint32_t id,
                                           const uint8_t *frame);
/* Rows are home already, index bytes are not: sends these, and seals. */
QY_MUST enum qy_status qyi_tier_send_index(struct qy_sequence *seq, uint32_t n_blocks);

/* tier_rows.c: rows of the layer's lists: looks up, takes slots, starts the pulls. [noalloc] */
QY_MUST enum qy_status qyi_tier_fetch(struct qy_cache *cache, uint32_t layer);
/* Waits for the pulls. On failure what was pulled is forgotten. [noalloc] */
QY_MUST enum qy_status qyi_tier_wait(struct qy_cache *cache);
/* tier_hot.c: where the last use of the rows of a sequence's block b is written, and what is written. */
uint16_t *qyi_tier_asked(const struct qy_sequence *seq, uint32_t layer, uint32_t head, uint32_t b);
uint16_t qyi_tier_now(const struct qy_cache *cache);
/* Device block b is about to be given back: rows of it that were asked for of late get slots. [noalloc] */
void qyi_tier_keep_hot(struct qy_sequence *seq, uint32_t b);
/* tier_check.c: names the rows of (sequence, layer, KV head); do those of the running lists lie where
 * they are looked for? */
uint64_t qyi_tier_stamp(const struct qy_sequence *seq, uint32_t layer, uint32_t head);
void qyi_tier_check(const struct qy_cache *cache, uint32_t layer);
/* tier_push.c: memory, and the costs that a plan goes by. Nothing when plan.mode is pull. [setup] */
QY_MUST enum qy_status qyi_push_open(struct qy_cache *cache, struct qy_error *err);
void qyi_push_close(struct qy_cache *cache);
/* Decides for the lists of the running micro-batch, which were looked up. [noalloc] */
void qyi_push_plan(struct qy_cache *cache, uint32_t layer);
/* Starts the queries of what pushes on their way, and asks servers that have rows; attends at the homes,
 * and starts the partials on their way back, which qyi_tier_wait waits for. [noalloc] */
QY_MUST enum qy_status qyi_push_ask(struct qy_cache *cache, uint32_t layer,
                                    const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_push_answer(struct qy_cache *cache, uint32_t layer);
/* A step that is left: queries of micro-batches that were not answered are read no more. [noalloc] */
void qyi_push_quiet(struct qy_cache *cache);
/* Were costs measured, so that plans have estimates? */
int qyi_plan_measured(const struct qy_cache *cache);
static inline int qyi_pushes(const struct qyi_tier *tier, size_t place)
{
    return tier->present && tier->push.chosen && tier->push.chosen[place];
}

/* Row numbers of the list of (slice, KV head), in its order; of what is pushed only those that are on
 * the device. */
const uint32_t *qyi_tier_numbers(const struct qy_cache *cache, uint32_t slice, uint32_t head);

/* Gives up what is under way on the stream to the device; what was pulled is forgotten. */
QY_MUST enum qy_status qyi_tier_reset(struct qy_cache *cache);

/* tier_pass.c: does a slice pass through the stages in this layer? */
int qyi_tier_passes(const struct qy_cache *cache, uint32_t slice, uint32_t layer);
/* A chunk of which blocks are left out, whole units of what the kernel takes a part of; device memory. */
struct qyi_pass_part {
    const uint8_t *left_out; /* [device_from] other than 0: the block is; borrowed             */
    float *out, *lse;        /* [n_tokens][n_heads][d], [n_tokens][n_heads]: where the rest goes */
};
/* Attention of such a slice to the rest of its rows, in its arena as it is. [noalloc] */
QY_MUST enum qy_status qyi_tier_pass_part(struct qy_cache *cache, uint32_t layer,
                                          const struct qy_qkv *qkv, uint32_t slice,
                                          const struct qyi_pass_part *part);
/* Arena bytes of qyi_tier_attend_all. */
size_t qyi_tier_pass_scratch(const struct qy_cache *cache);
/* Attention of such slices to all their rows: chunks of prefill, and single tokens that attend
 * to all. Blocks that are not on the device pass through the stages. [noalloc] */
QY_MUST enum qy_status qyi_tier_attend_all(struct qy_cache *cache, uint32_t layer,
                                           const struct qy_qkv *qkv);

/* tier_chunk.c: chunks of the running micro-batch whose earlier blocks memory servers attend to, and what
 * became of them: far.chunk.done. [noalloc] */
QY_MUST enum qy_status qyi_tier_push_chunks(struct qy_cache *cache, uint32_t layer,
                                            const struct qy_qkv *qkv);
/* Arena bytes of that beside those of a pass. */
size_t qyi_tier_chunk_scratch(const struct qy_cache *cache);

#endif
