/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state behind struct qy_cache and struct qy_sequence, shared by the files of this module.
 *
 * One owner thread. Everything below is reserved by qy_cache_open; sequences are slots of an
 * array, so opening one takes no memory.
 */
#ifndef QYI_OFFLOAD_CACHE_H
#define QYI_OFFLOAD_CACHE_H

#include "offload/block.h"
#include "offload/home/home_far.h"
#include "offload/policy_open.h"
#include "offload/step/last_lists.h"
#include "offload/step/micro_choice.h"
#include "offload/step/reuse.h"
#include "offload/step/selection.h"
#include "offload/tier/tier.h"

struct qy_sequence {
    struct qy_cache *cache;
    uint32_t slot;       /* place in cache->sequences           */
    int is_open;         /* handed out                           */
    int in_step;         /* named by a slice of the running step  */
    uint32_t n_tokens;   /* finished: the running step's not counted */
    uint32_t n_blocks;   /* held, the running step's included        */
    uint32_t n_sealed;   /* blocks 0 .. n_sealed - 1 are sealed      */
    uint32_t n_down;     /* blocks that lie in the file of the disk tier */
    uint32_t *blocks;    /* [max_blocks] ids in the home    */
    uint8_t **addresses; /* [max_blocks] where the rows are: the home, or a device block until the
                            block is sealed                 */
    uint8_t **homes;     /* [max_blocks] in the home; unified: addresses. NULL, as addresses: on the
                            disk, see home_far.h                       */
    uint8_t **index;     /* [max_blocks] index bytes on the device; unified: addresses */
    int32_t *ids;        /* [max_tokens] token ids          */
    uint8_t *origins;    /* [max_tokens] enum qy_token_origin */
    uint64_t failed_in;  /* step.serial of the step in which its rows did not move */
    uint32_t checked;    /* block where the next qy_sequence_check begins */
    /* Of a discrete device; see tier.h. */
    uint8_t **device;     /* [max_blocks] device blocks, from device_from on; else NULL */
    uint32_t device_from; /* blocks */
    uint32_t generation;  /* goes up when the slot is given to another sequence */
    uint32_t n_sent;      /* blocks 0 .. n_sent - 1 are home, or on their way: by `sent` */
    struct qy_event sent;
};

/* One slice of the running step, with what it attends to: the same for all layers. */
struct qyi_slice {
    struct qy_sequence *seq;
    uint32_t first; /* position of its first token           */
    uint32_t n_tokens;
    uint32_t row;               /* of its first token in the step's rows */
    int counted;                /* one token, QY_ATTEND_POLICY           */
    struct qyi_selection reach; /* n_tokens == 1             */
};

/* Rows, and their bytes, of counted slices. As in struct qy_cache_stats. */
struct qyi_counts {
    uint64_t attended_rows, total_rows, sparse_attended_rows, sparse_total_rows;
    uint64_t index_read_bytes, read_bytes, dense_read_bytes;
};

/* The audit of a cache with retrieval.audit_rate above 0. */
struct qyi_audit {
    double rate;
    struct qy_audit_sums *sums;    /* [n_layers]                    */
    struct qy_audit_item *items;   /* [max_sequences * n_kv_heads]  */
    struct qy_select_item *select; /* of the items                  */
};

/* A run of the step's slices, and their rows. */
struct qyi_micro_batch {
    uint32_t begin, end;
    struct qy_row_range rows;
};

/* What is merged, in this order: attention over the ids, the policy's estimate of what it leaves out,
 * and attention at the home. With step.deterministic a list is cut where the open block begins, and
 * what is below the cut is always a part of its own, whoever attends to it: pushed or pulled, the
 * bits are the same. */
enum qyi_part { QYI_PART_IDS = 0, QYI_PART_ESTIMATE, QYI_PART_PUSHED, QYI_PARTS };

/* Of the trace; NULL: none. */
struct qyi_lanes {
    struct qy_trace_lane *steps, *micro[QY_MICRO_BATCHES];
};

/* Rows that did not move. */
struct qyi_failure {
    enum qy_status status; /* QY_OK: none */
    uint32_t layer;
};

struct qyi_step {
    int active;
    uint64_t serial; /* steps begun */
    struct qyi_failure failure;
    int appended; /* the policy has seen new tokens of it */
    uint32_t n_slices, n_rows;
    uint32_t n_layers_done;
    uint32_t n_micro;
    struct qyi_micro_batch micro[QY_MICRO_BATCHES];
    uint32_t now; /* the micro-batch whose part of a layer runs */
    struct qyi_micro_choice choice;
    uint64_t begin_ns;        /* on the clock */
    struct qyi_slice *slices; /* [max_sequences]                  */
    uint8_t *layer_done;      /* [n_layers] bit i: micro-batch i started; bit 4 + i: finished */
    int32_t *positions;       /* [max_step_tokens]                */
    float *rope_table;        /* [max_step_tokens][rope.dim]      */
    struct qy_append_item *appends; /* [max_sequences * n_kv_heads], as the next six */
    struct qy_append_view *views;
    struct qy_select_item *selects;
    struct qy_attend_item *attends; /* twice as many where lists are cut */
    struct qy_chunk_item *chunks;
    uint32_t *n_chosen; /* ids that the policy wrote                    */
    uint32_t *n_listed; /* ids of the whole list                        */
    uint32_t *ids;      /* [max_sequences * n_kv_heads][ids_capacity]   */
    /* Parts of (slice, KV head), of enum qyi_part. NULL when nothing but attention over the ids can be. */
    float *part_out; /* [max_sequences * n_kv_heads][QYI_PARTS][group][d]    */
    float *part_lse; /* [max_sequences * n_kv_heads][QYI_PARTS][group]       */
    struct qyi_counts counts;
};

struct qy_cache {
    struct qy_cache_params params; /* scale and sizes made definite */
    const struct qy_runtime *rt;
    struct qy_device *dev;
    struct qyi_layout layout;
    struct qyi_home_layer *home_layers; /* [n_layers]; NULL: no layer's rows at home are coded */
    struct qyi_home home;
    struct qyi_tier tier;
    struct qyi_home_far far;
    struct qy_cache_servers servers; /* params.servers */
    struct qyi_selection_rule rule;
    struct qy_cache_cost cost; /* behind rule.min_tokens */
    struct qyi_audit audit;
    struct qyi_last_lists last; /* what was chosen last; empty when nobody asks */
    struct qyi_reuse reuse;
    struct qy_retrieval_settings retrieval; /* the defaults, when none are given */
    struct qy_policy *policy;               /* state; NULL when the policy has none */
    uint32_t group;                         /* query heads of a KV head             */
    uint32_t dense_layers;                  /* first layers that attend to all      */
    int cuts_lists;                         /* see enum qyi_part                    */
    uint64_t n_steps;                       /* finished, since open                 */
    uint32_t max_blocks;                    /* of one sequence                      */
    uint32_t ids_capacity;                  /* of one list                          */
    struct qy_sequence *sequences;          /* [max_sequences] */
    uint32_t n_open;
    uint32_t *block_ids; /* backing of the sequences' arrays */
    uint8_t **block_addresses;
    int32_t *token_ids;
    uint8_t *token_origins;
    struct qyi_step step;
    void *scratch; /* device memory behind arena */
    struct qy_arena arena;
    struct qyi_counts counts;
    uint64_t stage_ns[QY_STAGE_COUNT];
    struct qyi_lanes lanes;
};

/* The footer of a block, and the checksums of its slabs, wherever its rows lie. */
static inline struct qyi_footer *qyi_sequence_footer(const struct qy_sequence *seq, uint32_t b)
{
    return seq->homes[b] ? qyi_block_footer(&seq->cache->layout, seq->homes[b])
                         : qyi_home_far_footer(seq, b);
}

static inline struct qy_rows qyi_sequence_rows(const struct qy_sequence *seq, uint32_t layer,
                                               uint32_t kv_head)
{
    const struct qyi_layout *l = &seq->cache->layout;

    return (struct qy_rows){.blocks = seq->addresses,
                            .offset = qyi_layout_slab_at(l, layer, kv_head),
                            .shift = l->shift,
                            .d = l->head_dim,
                            .type = l->row_type,
                            .n_coded = seq->n_sealed << l->shift,
                            .codec = qyi_layout_codec(l, layer),
                            .coded_offset = qyi_layout_home_at(l, layer, kv_head)};
}

/* The same at their home alone: of sealed blocks. */
static inline struct qy_rows qyi_home_rows(const struct qy_sequence *seq, uint32_t layer,
                                           uint32_t kv_head)
{
    struct qy_rows rows = qyi_sequence_rows(seq, layer, kv_head);

    rows.blocks = seq->homes;
    rows.offset = rows.coded_offset;
    rows.n_coded = UINT32_MAX;
    return rows;
}

static inline struct qy_slab qyi_sequence_index(const struct qy_sequence *seq, uint32_t layer,
                                                uint32_t kv_head)
{
    const struct qyi_layout *l = &seq->cache->layout;

    const size_t before = seq->cache->tier.present ? l->index_at : 0;

    return (struct qy_slab){.blocks = l->index_slab_bytes > 0 ? seq->index : NULL,
                            .offset = qyi_layout_index_at(l, layer, kv_head) - before,
                            .shift = l->shift};
}

/* The residency cache's set of a sequence's layer. */
static inline uint32_t qyi_sequence_set(const struct qy_sequence *seq, uint32_t layer)
{
    return seq->slot * seq->cache->layout.n_layers + layer;
}

/* What a slice attends to in one layer. */
static inline struct qyi_selection qyi_slice_reach(const struct qy_cache *cache,
                                                   const struct qyi_slice *slice, uint32_t layer)
{
    struct qyi_selection reach = slice->reach;

    if (layer < cache->dense_layers) {
        reach.reach = QYI_REACH_ALL;
        reach.k = 0;
    }
    return reach;
}

/* Where the lists of a slice are cut; 0: not at all. */
static inline uint32_t qyi_slice_cut(const struct qy_cache *cache, const struct qyi_slice *slice)
{
    const uint32_t shift = cache->layout.shift;

    return cache->cuts_lists ? slice->first >> shift << shift : 0;
}

/* Items of one device call at most: (slice, KV head). */
static inline size_t qyi_cache_items(const struct qy_cache *cache)
{
    return (size_t)cache->params.max_sequences * cache->layout.n_kv_heads;
}

/* Does a slice attend to lists in this layer? */
static inline int qyi_slice_lists(const struct qy_cache *cache, const struct qyi_slice *slice,
                                  uint32_t layer)
{
    return slice->n_tokens == 1 && qyi_slice_reach(cache, slice, layer).reach != QYI_REACH_ALL;
}

/* The list of ids of (slice, KV head). */
static inline uint32_t *qyi_step_list(const struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;

    return cache->step.ids + place * cache->ids_capacity;
}

/* How much of the complete list of (slice, KV head) lies below the cut. */
static inline uint32_t qyi_list_below(const struct qy_cache *cache, uint32_t slice, uint32_t head)
{
    const size_t place = (size_t)slice * cache->layout.n_kv_heads + head;

    return qyi_selection_place(qyi_step_list(cache, slice, head), cache->step.n_listed[place],
                               qyi_slice_cut(cache, &cache->step.slices[slice]));
}

/* The slices that the running part of a layer is about. */
static inline const struct qyi_micro_batch *qyi_step_now(const struct qy_cache *cache)
{
    return &cache->step.micro[cache->step.now];
}

/* Floats of a token's queries: of the group that reads one KV head, and of all heads. */
static inline size_t qyi_group_floats(const struct qy_cache *cache)
{
    return (size_t)cache->group * cache->layout.head_dim;
}

static inline size_t qyi_token_floats(const struct qy_cache *cache)
{
    return (size_t)cache->params.shape.n_heads * cache->layout.head_dim;
}

/* The slot of the store that block b is in. */
static inline uint32_t qyi_far_slot(const struct qy_sequence *seq, uint32_t b)
{
    return seq->cache->far.slots[seq->blocks[b]] - 1;
}

/* 0: block b is in host memory; 1 + a server's number. Nobody can now: the first is asked, who will not. */
static inline uint32_t qyi_far_place(const struct qy_sequence *seq, uint32_t b)
{
    const uint32_t server =
        seq->homes[b] ? 0 : qyi_store_where(seq->cache->far.store, qyi_far_slot(seq, b));

    return seq->homes[b] ? 0 : 1 + (server == UINT32_MAX ? 0 : server);
}

/* The queries of the group that reads KV head `head`, of the slice's first row. */
static inline const float *qyi_group_q(const struct qy_cache *cache, const struct qy_qkv *qkv,
                                       const struct qyi_slice *slice, uint32_t head)
{
    return qkv->q + slice->row * qkv->stride +
           (size_t)head * cache->group * cache->params.shape.head_dim;
}

/* Part 0 .. QYI_PARTS - 1 of (slice, KV head) `place`: [group][d], and its [group] log-sum-exps. */
static inline float *qyi_part_out(const struct qy_cache *cache, size_t place, uint32_t part)
{
    return cache->step.part_out +
           (QYI_PARTS * place + part) * cache->group * cache->layout.head_dim;
}

static inline float *qyi_part_lse(const struct qy_cache *cache, size_t place, uint32_t part)
{
    return cache->step.part_lse + (QYI_PARTS * place + part) * cache->group;
}

/* Tells the policy that a sequence's tokens from n_tokens on are gone. */
static inline void qyi_policy_forget(const struct qy_cache *cache, uint32_t slot, uint32_t n_tokens)
{
    if (cache->params.policy->forget) {
        cache->params.policy->forget(cache->policy, slot, n_tokens);
    }
}

/* reserve.c: what the memory of a step takes beside the blocks, and the reservations. */
uint64_t qyi_reserve_bytes(const struct qy_cache *cache);
size_t qyi_reserve_scratch_bytes(const struct qy_cache *cache); /* of them, device memory */
QY_MUST enum qy_status qyi_reserve(struct qy_cache *cache, struct qy_error *err);
void qyi_reserve_free(struct qy_cache *cache);

/* sequence.c: blocks for n_tokens in all; QY_AGAIN when so many are not free. [noalloc] */
QY_MUST enum qy_status qyi_sequence_reserve(struct qy_sequence *seq, uint32_t n_tokens);
/* Gives back the blocks that n_tokens do not need. clean: nothing was written to them. */
void qyi_sequence_release(struct qy_sequence *seq, uint32_t n_tokens, int clean);

/* integrity.c: seals blocks n_sealed .. full - 1, which are full and home. [noalloc] */
void qyi_sequence_seal(struct qy_sequence *seq, uint32_t full);
/* Opens block i (the last sealed one to stay) again, as the tail. */
void qyi_sequence_unseal(struct qy_sequence *seq, uint32_t n_sealed);

/* stats.c: adds the time since begin_ns to a stage, and a span to the trace. Returns now. */
uint64_t qyi_stage_end(struct qy_cache *cache, enum qy_stage stage, uint64_t begin_ns,
                       uint32_t layer);

/* lanes.c: what the trace gets to see. [noalloc] but for open */
QY_MUST enum qy_status qyi_lanes_open(struct qy_cache *cache, struct qy_error *err);
void qyi_lanes_close(struct qy_cache *cache);
void qyi_trace_stage(const struct qy_cache *cache, enum qy_stage stage, uint64_t begin_ns,
                     uint64_t end_ns, uint32_t layer);
void qyi_trace_step(const struct qy_cache *cache, uint64_t end_ns);
void qyi_trace_plan(const struct qy_cache *cache, const struct qyi_plan_made *made,
                    uint64_t begin_ns, uint32_t layer);
void qyi_trace_chunk(const struct qy_cache *cache, const struct qyi_chunk_work *work,
                     const struct qyi_chunk_choice *choice, uint64_t begin_ns, uint32_t layer);

/* fill.c: arena bytes of one piece of fill_random's index (0: the policy has no append). */
size_t qyi_fill_scratch(const struct qy_cache *cache);

/* step_failure.c: rows of the micro-batch that runs did not move. */
void qyi_step_fail(struct qy_cache *cache, enum qy_status status, uint32_t layer);

/* step.c: leaves the running step, and forgets what it added. clean: nothing was written to its
 * blocks. */
void qyi_step_leave(struct qy_cache *cache, int clean);

/* micro_batch.c: cuts the slices of a planned step; and learns from its time when it ends. */
void qyi_micro_batches_cut(struct qy_cache *cache);
void qyi_micro_batches_end(struct qy_cache *cache);

/* step_layer.c: of (slice, KV head): the item of a chunk; where the outputs of the group go, of the
 * slice's first row; and the count of rows that a single token attended to. */
struct qy_chunk_item qyi_chunk_item(const struct qy_cache *cache, uint32_t layer,
                                    const struct qy_qkv *qkv, uint32_t slice, uint32_t head);
float *qyi_group_out(const struct qy_cache *cache, const struct qy_qkv *qkv,
                     const struct qyi_slice *slice, uint32_t head);
void qyi_count_attended(struct qy_cache *cache, uint32_t layer, uint32_t n);

/* step_select.c: what the policy is asked of (slice, KV head), for the group's queries q. */
struct qy_select_item qyi_select_item(const struct qy_cache *cache, uint32_t layer, uint32_t slice,
                                      uint32_t h, const float *q);

/* step_layer.c, step_select.c: the parts of qy_step_attend. Encode is first for a policy that wants
 * keys before RoPE; then append, encode for the others, select, fetch, push, wait, attend, audit. */
QY_MUST enum qy_status qyi_layer_encode(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_append(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_select(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_fetch(struct qy_cache *cache, uint32_t layer,
                                       const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_push(struct qy_cache *cache, uint32_t layer,
                                      const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_wait(struct qy_cache *cache, uint32_t layer,
                                      const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_attend(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_audit(struct qy_cache *cache, uint32_t layer,
                                       const struct qy_qkv *qkv);

#endif
