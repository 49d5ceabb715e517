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
#include "offload/selection.h"

struct qy_sequence {
    struct qy_cache *cache;
    uint32_t slot;       /* place in cache->sequences           */
    int is_open;         /* handed out                           */
    int in_step;         /* named by a slice of the running step  */
    uint32_t n_tokens;   /* finished: the running step's not counted */
    uint32_t n_blocks;   /* held, the running step's included        */
    uint32_t n_sealed;   /* blocks 0 .. n_sealed - 1 are sealed      */
    uint32_t *blocks;    /* [max_blocks] ids in the home    */
    uint8_t **addresses; /* [max_blocks]                    */
    int32_t *ids;        /* [max_tokens] token ids          */
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

/* Rows, and their bytes, of counted slices. */
struct qyi_counts {
    uint64_t attended_rows, total_rows, read_bytes, dense_read_bytes;
};

struct qyi_step {
    int active;
    uint32_t n_slices, n_rows;
    uint32_t n_layers_done;
    struct qyi_slice *slices;       /* [max_sequences]                  */
    uint8_t *layer_done;            /* [n_layers]                       */
    int32_t *positions;             /* [max_step_tokens]                */
    float *rope_table;              /* [max_step_tokens][rope.dim]      */
    struct qy_append_item *appends; /* [max_sequences * n_kv_heads], as the next four */
    struct qy_select_item *selects;
    struct qy_attend_item *attends;
    struct qy_chunk_item *chunks;
    uint32_t *n_chosen;
    uint32_t *ids; /* [max_sequences * n_kv_heads][ids_capacity] */
    struct qyi_counts counts;
};

struct qy_cache {
    struct qy_cache_params params; /* scale and sizes made definite */
    const struct qy_runtime *rt;
    struct qy_device *dev;
    struct qyi_layout layout;
    struct qyi_home home;
    struct qyi_selection_rule rule;
    struct qy_policy *policy;      /* state; NULL when the policy has none */
    uint32_t max_blocks;           /* of one sequence                      */
    uint32_t ids_capacity;         /* of one list                          */
    struct qy_sequence *sequences; /* [max_sequences] */
    uint32_t n_open;
    uint32_t *block_ids; /* backing of the sequences' arrays */
    uint8_t **block_addresses;
    int32_t *token_ids;
    struct qyi_step step;
    void *scratch; /* device memory behind arena */
    struct qy_arena arena;
    struct qyi_counts counts;
    uint64_t stage_ns[QY_STAGE_COUNT];
};

static inline struct qy_rows qyi_sequence_rows(const struct qy_sequence *seq, uint32_t layer,
                                               uint32_t kv_head)
{
    const struct qyi_layout *l = &seq->cache->layout;

    return (struct qy_rows){.blocks = seq->addresses,
                            .offset = qyi_layout_slab_at(l, layer, kv_head),
                            .shift = l->shift,
                            .d = l->head_dim,
                            .type = l->row_type};
}

/* sequence.c: blocks for n_tokens in all; QY_AGAIN when so many are not free. [noalloc] */
QY_MUST enum qy_status qyi_sequence_reserve(struct qy_sequence *seq, uint32_t n_tokens);
/* Gives back the blocks that n_tokens do not need. clean: nothing was written to them. */
void qyi_sequence_release(struct qy_sequence *seq, uint32_t n_tokens, int clean);

/* integrity.c: seals the full blocks of a sequence of n_tokens tokens. [noalloc] */
void qyi_sequence_seal(struct qy_sequence *seq);
/* Opens block i (the last sealed one to stay) again, as the tail. */
void qyi_sequence_unseal(struct qy_sequence *seq, uint32_t n_sealed);

/* stats.c: adds the time since begin_ns to a stage, and a span to the trace. Returns now. */
uint64_t qyi_stage_end(struct qy_cache *cache, enum qy_stage stage, uint64_t begin_ns,
                       uint32_t layer, uint32_t value);

/* step_layer.c: the parts of qy_step_attend, in their order. */
QY_MUST enum qy_status qyi_layer_append(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_select(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);
QY_MUST enum qy_status qyi_layer_attend(struct qy_cache *cache, uint32_t layer,
                                        const struct qy_qkv *qkv);

#endif
