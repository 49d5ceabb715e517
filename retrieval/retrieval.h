/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retrieval: which tokens a query needs. A *policy* is an index plus a selector; it is asked once
 * per step and layer for a batch of (sequence, KV head) queries and answers with token ids.
 *
 * It drives kernels through gpu/gpu.h. It never touches homes, blocks or the network: rows and
 * index bytes reach it as qy_rows and qy_slab.
 *
 * Two kinds of index. One that is a pure function of keys and a frozen codebook lives in the blocks
 * (index_bytes), is written by append, and goes wherever the block goes. One that is learnt from
 * the sequence itself lives in the policy's own state and is brought up to date by prepare.
 */
#ifndef QY_RETRIEVAL_H
#define QY_RETRIEVAL_H

#include "gpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* How many tokens a selection may have, per KV head. */
struct qy_budget {
    double ratio;     /* share of N, 0..1; 0 = not given         */
    uint32_t tokens;  /* absolute; 0 = not given                 */
    double mass;      /* top-p: attention mass to reach under the cap; 0 = not given */
    uint32_t mass_at; /* tokens up to which `mass` is meant, see qy_budget_mass; 0 = any number */
};

/* "0.03" (share of N, at most 1.0), "2048" (tokens, above 1), "p0.95:0.10" (mass under a cap that
 * is itself a share or a count), "p0.95~4096:0.10" (mass of up to 4,096 tokens, more of more). QY_ERR_CONFIG says
 * what is accepted. [any] */
QY_MUST enum qy_status qy_budget_parse(const char *text, struct qy_budget *budget,
                                       struct qy_error *err);
/* Tokens that the budget allows of n (rounded up, at most n); the cap when mass is given. [noalloc]
 */
uint32_t qy_budget_tokens(const struct qy_budget *budget, uint32_t n);
/* Mass to reach among n tokens; 0: none was given. Beyond mass_at tokens the mass left out per token
 * stays what it is there: of a longer context a budget that is a share takes more tokens, and a
 * fixed mass would fall behind it. [noalloc] */
double qy_budget_mass(const struct qy_budget *budget, uint32_t n);

/* ---- codebooks ------------------------------------------------------------------------------- */

/* What a policy may need that was learnt before: a quantizer per (layer, KV head). */
enum qy_codebook_kind {
    QY_CODEBOOK_NONE = 0,
    QY_CODEBOOK_PQ4, /* keys after RoPE, 4-bit sub-vectors: a2ats+        */
    QY_CODEBOOK_VQ   /* keys before RoPE, one code of up to 16 bits: a2ats */
};

struct qy_codebook_info {
    enum qy_codebook_kind kind;
    uint64_t model_hash; /* of the file it was learnt for            */
    char model_name[96]; /* for messages                             */
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t m, bits, n_words;
    uint64_t seed, n_tokens; /* it was learnt from                    */
    char metric[32];         /* how distances are weighed, for people */
};

struct qy_codebook;

/* Reads a file. QY_ERR_NOT_FOUND, QY_ERR_CORRUPT (cut, damaged: checksums), QY_ERR_UNSUPPORTED (a
 * later version). [setup] [alloc] */
QY_MUST enum qy_status qy_codebook_open(const struct qy_allocator *mem, const char *path,
                                        struct qy_codebook **codebook, struct qy_error *err);
/* What a file says of itself, without its tables. Errors as qy_codebook_open. [any] */
QY_MUST enum qy_status qy_codebook_read_info(const char *path, struct qy_codebook_info *info,
                                             struct qy_error *err);
/* An empty one to fill: tables are zero. [setup] [alloc] */
QY_MUST enum qy_status qy_codebook_new(const struct qy_allocator *mem,
                                       const struct qy_codebook_info *info,
                                       struct qy_codebook **codebook, struct qy_error *err);
void qy_codebook_close(struct qy_codebook *codebook);
const struct qy_codebook_info *qy_codebook_info(const struct qy_codebook *codebook);
/* The tables of (layer, KV head); they live as long as the codebook. [any] [noalloc] */
struct qy_quantizer qy_codebook_quantizer(const struct qy_codebook *codebook, uint32_t layer,
                                          uint32_t kv_head);
/* Sets the tables of (layer, KV head): words [m][n_words][d / m] in the space z of the metric, where
 * z_j = the sub-vector j of (k transform) and transform is given as
 *   scale [d] (PQ4): z = scale * k[order], order a permutation; or
 *   root [d][d] lower triangular (VQ): z = k root, H = root root^T; NULL: z = k.
 * QY_ERR_INVALID: not finite, or a root that cannot be inverted. */
struct qy_codebook_words {
    const float *words;
    const uint16_t *order;
    const float *scale;
    const float *root;
};
QY_MUST enum qy_status qy_codebook_set(struct qy_codebook *codebook, uint32_t layer,
                                       uint32_t kv_head, const struct qy_codebook_words *words,
                                       struct qy_error *err);
/* Writes the file, whole or not at all. */
QY_MUST enum qy_status qy_codebook_save(const struct qy_codebook *codebook, const char *path,
                                        struct qy_error *err);
/* A codebook as bytes, those of its file, for another process: how many, and bytes at .. at + bytes - 1 of
 * them. All tables must be there. [any] [noalloc] */
uint64_t qy_codebook_image_bytes(const struct qy_codebook *codebook);
void qy_codebook_image(const struct qy_codebook *codebook, uint64_t at, size_t bytes, void *to);
/* The codebook of such bytes, as they come: the first ones, of `bytes` in all, begin it; those behind are added
 * in order, in pieces of any size, and make tables as soon as one is whole. When all are there, so are all
 * tables. QY_ERR_CORRUPT: they are none, or damaged; QY_ERR_UNSUPPORTED: of a later version. No more is
 * reserved than a few times their number. begin: [setup] [alloc]; add: [noalloc] */
enum { QY_CODEBOOK_HEADER_BYTES = 256 };
QY_MUST enum qy_status qy_codebook_begin(const struct qy_allocator *mem, const void *header,
                                         uint64_t bytes, struct qy_codebook **codebook,
                                         struct qy_error *err);
QY_MUST enum qy_status qy_codebook_add(struct qy_codebook *codebook, uint64_t at, const void *piece,
                                       size_t bytes, struct qy_error *err);
/* A number for what its tables hold. [any] [noalloc] */
uint64_t qy_codebook_hash(const struct qy_codebook *codebook);
/* Is it of this kind, model and shape? What is 0 or empty in want is not compared (the cache does not
 * know whose model it serves: model_hash 0). QY_ERR_CONFIG names what differs. */
QY_MUST enum qy_status qy_codebook_check(const struct qy_codebook *codebook,
                                         const struct qy_codebook_info *want, struct qy_error *err);

/* ---- learning codebooks ---------------------------------------------------------------------- */

/* How errors of a key are weighed: by the queries that it will meet, as far as they are known. */
enum qy_metric {
    QY_METRIC_AUTO = 0,     /* PQ4: rotary; VQ: query-avg                                        */
    QY_METRIC_ROTARY,       /* PQ4: each rotary pair by the mean length of queries in it         */
    QY_METRIC_PLAIN,        /* every element alike                                               */
    QY_METRIC_QUERY,        /* VQ: by E[q^T q], queries turned to one distance: A2ATS, eq. 13-18  */
    QY_METRIC_QUERY_AVERAGE /* VQ: the same, averaged over seven distances                       */
};
const char *qy_metric_name(enum qy_metric metric); /* "auto", "rotary", "plain", "query", ... */
/* QY_ERR_CONFIG lists the names. */
QY_MUST enum qy_status qy_metric_parse(const char *name, enum qy_metric *metric,
                                       struct qy_error *err);

struct qy_train_params {
    struct qy_rope rope;
    enum qy_metric metric;
    uint32_t max_position; /* PQ4: keys are learnt at positions below this                    */
    uint32_t distance;     /* QY_METRIC_QUERY: how far queries are from keys; 0 = 2048         */
    uint32_t iterations;   /* of k-means                                                      */
    uint64_t seed;
};

/* What was seen of one (layer, KV head), all before RoPE. */
struct qy_train_samples {
    const uint16_t *k;   /* [n][d] f16                                                     */
    size_t n;            /* more than there are words, to be of use                        */
    const double *query; /* [d][d]: mean of q^T q over tokens and the group; NULL: unknown */
};

/* Can this build learn codebooks? QY_ERR_UNSUPPORTED says how to get it. [any] */
QY_MUST enum qy_status qy_codebook_train_present(struct qy_error *err);
/* Learns the tables of (layer, KV head) and sets them. *distortion (may be NULL): share of the keys'
 * variance, in the metric's space, that the words do not catch. Runs on the calling thread alone:
 * heads are learnt side by side, each by one thread. [any] [alloc] */
QY_MUST enum qy_status qy_codebook_train(struct qy_codebook *codebook, uint32_t layer,
                                         uint32_t kv_head, const struct qy_train_params *params,
                                         const struct qy_train_samples *samples, double *distortion,
                                         struct qy_error *err);

/* A calibration that was interrupted: as qy_codebook_open and qy_codebook_save, but tables may be
 * missing, and a tag tells what the calibration was asked for. */
QY_MUST enum qy_status qy_codebook_open_part(const struct qy_allocator *mem, const char *path,
                                             struct qy_codebook **codebook, uint64_t *tag,
                                             struct qy_error *err);
QY_MUST enum qy_status qy_codebook_save_part(const struct qy_codebook *codebook, uint64_t tag,
                                             const char *path, struct qy_error *err);
/* Are the tables of (layer, KV head) there? */
int qy_codebook_has(const struct qy_codebook *codebook, uint32_t layer, uint32_t kv_head);

/* ---- policies -------------------------------------------------------------------------------- */

enum qy_key_form { QY_KEYS_AFTER_ROPE = 0, QY_KEYS_BEFORE_ROPE = 1 };

/* Tokens first .. first + n - 1 of one (sequence, layer, KV head), as they enter the cache. */
struct qy_append_view {
    const float *k; /* [n][stride] in the form that caps.append_form asks for */
    const float *q; /* [n][stride], group * d elements each, same form         */
    size_t stride;
    uint32_t group, first, n;
    uint32_t layer, kv_head, sequence;
    struct qy_rows rows;  /* already written; with QY_KEYS_BEFORE_ROPE not yet: not to be read */
    struct qy_slab index; /* of this (sequence, layer, KV head)      */
};

/* The rows of a whole sequence: those of (layer, KV head) are `slab_bytes` after those of the one
 * before, heads innermost. */
struct qy_sequence_view {
    struct qy_rows rows; /* of layer 0, KV head 0 */
    size_t slab_bytes;
    uint32_t sequence, n_tokens;
    uint32_t lo, hi; /* what may be chosen from in the step that follows */
};

static inline struct qy_rows qy_sequence_view_rows(const struct qy_sequence_view *view,
                                                   uint32_t slab)
{
    struct qy_rows rows = view->rows;

    rows.offset += slab * view->slab_bytes;
    return rows;
}

/* One (sequence, KV head) of a layer in one step. */
struct qy_select_item {
    const float *q;       /* [group][d] f32, after RoPE                                     */
    struct qy_rows rows;  /* of the sequence, this layer and KV head                        */
    struct qy_slab index; /* index bytes of the same; blocks NULL when the policy has none  */
    uint32_t group;
    uint32_t n;      /* tokens in the cache, the new one (position n - 1) included          */
    uint32_t lo, hi; /* may be chosen: lo <= id < hi (sinks before, window behind)          */
    uint32_t k;      /* at most so many per KV head; per query head with caps.per_head      */
    float mass;      /* fewer where they, sinks and window reach this mass; 0: k alone counts */
    uint32_t layer, kv_head, sequence; /* sequence: a slot, below max_sequences             */
    uint32_t *ids;   /* written, ascending; room for k, or group * k with caps.per_head     */
    uint32_t *n_ids; /* written                                                         */
    /* Attention over tokens that are not in ids, as an estimate: merged by log-sum-exp with that
     * over ids, sinks and window. NULL unless caps.partial; lse -inf (as found): none. */
    float *part_out; /* [group][d] */
    float *part_lse; /* [group]    */
};

/* Tokens of a select item that are scored apart from its others: those of some blocks, side by side. The
 * index says where they lie, not their ids. */
struct qy_best_item {
    const float *q;           /* as the select item's, as the next four */
    struct qy_slab index;     /* blocks: of these tokens alone, in the order of their ids */
    uint32_t group, n_tokens; /* n_tokens: the select item's n */
    uint32_t layer, kv_head, sequence;
    uint32_t first, n; /* first .. first + n - 1 of the index are scored */
    uint32_t k;        /* of each query head, at most n                  */
    uint32_t *places;  /* [group][k] written, ascending: first <= place < first + n */
    float *scores;     /* [group][k] written                             */
};

struct qy_policy; /* the state of one policy: the implementation's own */

/* retrieval.* ; see settings.c for what each means */
struct qy_retrieval_settings {
    char policy[QY_SETTING_TEXT_BYTES];
    char budget[QY_SETTING_TEXT_BYTES]; /* auto: the policy's own */
    int preset;                         /* enum qy_preset          */
    char codebook[QY_SETTING_TEXT_BYTES];
    int auto_calibrate;
    double audit_rate;
    int64_t dense_layers; /* -1: the preset's */
    int64_t min_tokens;   /* below so many a step attends to all; -1: see caps.skip_short */
    int first_stage;      /* enum qy_first_stage  */
    int rerank;           /* enum qy_rerank       */
    int pooling;          /* enum qy_pool_choice  */
    double overfetch;     /* candidates of a rerank, times k; 0: the preset's */
    int64_t estimate;     /* tokens drawn per query head for those not chosen; 0: none */
    int64_t wrope_window, wrope_distance; /* a2ats, and the bands of a2ats+ */
    int64_t quest_page;
    int64_t pq_m, pq_bits;
    int64_t cluster_tokens, cluster_segment, cluster_iterations;
    double cluster_estimated;                 /* share of the clusters in the estimation zone */
    int reuse;                                /* enum qy_reuse: choices used again in later steps */
    double reuse_cosine;                      /* of queries before RoPE, at least */
    int64_t reuse_every;                      /* steps that a choice serves, at most */
    char reuse_layers[QY_SETTING_TEXT_BYTES]; /* "4:3,5:3": layer 4 takes what layer 3 attends to */
    int index_at;                             /* enum qy_index_at */
};
enum qy_index_at { QY_INDEX_AT_WORKER = 0, QY_INDEX_AT_HOME };
enum qy_reuse { QY_REUSE_OFF = 0, QY_REUSE_COSINE, QY_REUSE_EVERY };
enum qy_preset { QY_PRESET_FAITHFUL = 0, QY_PRESET_FAST = 1 };
enum qy_first_stage {
    QY_STAGE1_PQ4 = 0, /* frozen 4-bit product quantizer after RoPE        */
    QY_STAGE1_BANDS,   /* a2ats's codes, scored in distance bands          */
    QY_STAGE1_WROPE,   /* a2ats's codes, one far angle                     */
    QY_STAGE1_KEYS,    /* every 4-bit key                                  */
    QY_STAGE1_EXACT    /* every key: an oracle to measure later stages by  */
};
enum qy_rerank { QY_RERANK_AUTO = 0, QY_RERANK_OFF, QY_RERANK_KEYS4, QY_RERANK_EXACT };
/* auto: as published, or a sum */
enum qy_pool_choice { QY_POOLED_SUM = 0, QY_POOLED_MAX, QY_POOLED_UNION, QY_POOLED_AUTO };
extern const struct qy_setting qy_retrieval_setting_rows[];
extern const size_t qy_retrieval_setting_count;

struct qy_policy_params {
    const struct qy_runtime *rt; /* kept                                                    */
    struct qy_device *dev;       /* kept                                                    */
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
    uint32_t max_sequences, max_tokens; /* of one sequence                                   */
    uint32_t block_tokens;              /* of one index slab                                 */
    uint32_t sinks, window;
    struct qy_rope rope;  /* of the cache; inv_freq kept                                     */
    float scale;          /* of q . k                                                        */
    const char *argument; /* what follows the colon of its name; ""   */
    const struct qy_codebook *codebook;           /* kept; NULL when caps ask for none         */
    const struct qy_retrieval_settings *settings; /* kept                                      */
};

struct qy_policy_caps {
    int dense;           /* attends to everything: select is not called                     */
    int select_nothing;  /* sinks and window only: select is not called                     */
    int index_shareable; /* the index is a pure function of keys and a frozen codebook       */
    int reads_all_keys;  /* select reads every key (counted in the bytes read)               */
    int per_head;        /* the budget counts per query head: ids may be group times as many */
    int partial;         /* select may write an estimate of what it leaves out               */
    int skip_short;      /* with retrieval.min_tokens = -1, sequences too short for a selection
                            to pay attend to all; the policy needs no prepare                */
    enum qy_key_form append_form; /* what append wants to see                                */
};

/* A policy's table. One file each; `qy_policy_find` knows the built-in ones, an integrator passes
 * his own to qy_cache_open. Later versions add slots at the end: abi_size says what is there. */
struct qy_policy_ops {
    size_t abi_size;     /* sizeof(struct qy_policy_ops)                         (required) */
    const char *name;    /* as in --policy                                       (required) */
    const char *summary; /* one sentence for --help                              (required) */
    struct qy_policy_caps caps;
    /* Opens state for params; called once per cache. NULL: no state.             [setup] */
    enum qy_status (*open)(const struct qy_policy_params *params, struct qy_policy **policy,
                           struct qy_error *err);
    void (*close)(struct qy_policy *policy);
    /* Arena bytes that one select or append call of n_items over max_n tokens may take. NULL: none. */
    size_t (*scratch)(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n);
    /* Index bytes of one slab: params.block_tokens tokens of one (layer, KV head), kept inside the
     * blocks. 0 or NULL: none. */
    size_t (*index_bytes)(const struct qy_policy *policy);
    /* Chooses for all items. Required unless caps say dense or select_nothing. [owner] [noalloc] */
    enum qy_status (*select)(struct qy_policy *policy, const struct qy_select_item *items,
                             uint32_t n_items, struct qy_arena *arena);
    /* New tokens of one layer: writes index bytes. NULL: nothing to do.         [owner] [noalloc] */
    enum qy_status (*append)(struct qy_policy *policy, const struct qy_append_view *views,
                             uint32_t n_views, struct qy_arena *arena);
    /* Called before a step that will select from the sequence: brings what the policy keeps for it
     * up to date with n_tokens (without the new one). May take long the first time.
     * NULL: nothing is kept.                                                     [owner] [alloc] */
    enum qy_status (*prepare)(struct qy_policy *policy, const struct qy_sequence_view *view,
                              struct qy_error *err);
    /* Tokens from n_tokens on are gone (cut, closed, or a slot filled anew: 0). NULL: nothing kept.
     */
    void (*forget)(struct qy_policy *policy, uint32_t sequence, uint32_t n_tokens);
    /* Codebook that the settings ask for; NULL: none. Called before open.       */
    enum qy_codebook_kind (*codebook)(const struct qy_retrieval_settings *settings);
    /* Budget text when retrieval.budget is auto; NULL: 0.05.                    */
    const char *(*budget)(const struct qy_retrieval_settings *settings);
    /* First layers that attend to all when retrieval.dense_layers is auto; NULL: 0. */
    uint32_t (*dense_layers)(const struct qy_retrieval_settings *settings);
    /* With these settings, do select or prepare read rows other than sinks and window? Rows on a disk
     * (cache.disk_bytes) are for attention alone: the addresses of their blocks are NULL, and such a
     * policy is refused there. NULL: they do.                                              */
    int (*reads_rows)(const struct qy_retrieval_settings *settings, uint32_t window);
    /* With these settings, is a choice the union of each query head's best tokens, where a token's score
     * follows from the query, its position and the token's index bytes alone? Then tokens may be scored in
     * parts, by whoever has their index bytes, and the best of all parts' best are those of one select, ties
     * and all. NULL: they may not; else the next three are there.                          */
    int (*scores_apart)(const struct qy_retrieval_settings *settings, uint32_t window);
    /* How many of each query head the item's choice unites.                      [any] [noalloc] */
    uint32_t (*best_k)(const struct qy_policy *policy, const struct qy_select_item *item);
    /* The best of each query head, by the scores of select; ties to the lower place, NaN last.
     * [owner] [noalloc] */
    enum qy_status (*best)(struct qy_policy *policy, const struct qy_best_item *items,
                           uint32_t n_items, struct qy_arena *arena);
    /* Arena bytes of it, of n_items with up to max_n tokens each.                               */
    size_t (*best_scratch)(const struct qy_policy *policy, uint32_t n_items, uint32_t max_n);
};

/* The built-in policy of that name; NULL when there is none. [any] */
const struct qy_policy_ops *qy_policy_find(const char *name);
/* Policy i of the built-in ones, NULL past the end. [any] */
const struct qy_policy_ops *qy_policy_at(size_t i);
/* As qy_policy_find, with an error that lists the names. */
QY_MUST enum qy_status qy_policy_choose(const char *name, const struct qy_policy_ops **ops,
                                        struct qy_error *err);

/* Text after the colon of a policy's name ("faiss:IVF64,Flat"), "" without one. */
const char *qy_policy_argument(const char *name);

/* ---- audit ----------------------------------------------------------------------------------- */

/* How good selections were, against exact attention of the same query. */
struct qy_audit_sums {
    uint64_t n; /* (sequence, layer, KV head, step) looked at        */
    /* sum of: share of the best ids, as many as were chosen, that were chosen. None chosen: 1, or 0
     * when none could be (k = 0). */
    double recall;
    double mass; /* sum of: mean over the group of the attention mass of all attended ids   */
};

/* Measures one layer's items after select: attended lists [n_items] hold sinks, chosen and window.
 * sums += the results. Scratch as qy_audit_scratch says. [owner] [noalloc] */
struct qy_audit_item {
    const struct qy_select_item *select;
    const uint32_t *ids; /* all attended ids, ascending */
    uint32_t n_ids;
};
QY_MUST enum qy_status qy_audit(struct qy_device *dev, const struct qy_audit_item *items,
                                uint32_t n_items, float scale, struct qy_arena *arena,
                                struct qy_audit_sums *sums);
size_t qy_audit_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t group,
                        uint32_t max_n);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
