/* SPDX-License-Identifier: Apache-2.0 */
/*
 * offload: the KV cache. Everything that knows what a block is: homes, sequences, selection, the
 * steps of attention. This is the header that an integrator with a model of his own includes.
 *
 *   qy_cache_open      pools, policy, scratch: all memory of the decode path is reserved here
 *   qy_sequence_open   one context
 *   qy_step_begin      what this step adds to which sequences      (QY_AGAIN: no room)
 *   qy_step_attend     for each layer: q, k, v in, attention out
 *   qy_step_end        lengths advance, full blocks are sealed     (or qy_step_abort)
 *
 * Layout of a block: [layer][kv_head] slabs of [token][2][d] rows (coded, where cache.home_codec says
 * so), then [layer][kv_head] slabs of the policy's index bytes, then a footer: id, generation, chain
 * hash of the token ids, XXH3 of each slab of either kind. Sealed blocks do not change any more.
 */
#ifndef QY_OFFLOAD_H
#define QY_OFFLOAD_H

#include "retrieval/retrieval.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* cache.eviction: whose slot a row that comes to the device gets, when none is free. */
enum qy_eviction {
    QY_EVICT_LRU = 0, /* the one not asked for in the most steps  */
    QY_EVICT_LFU,     /* the one asked for least, of late         */
    QY_EVICT_CLOCK    /* second chance                            */
};

/* plan.mode: how rows that are chosen and not on the device are attended to. */
enum qy_plan_mode {
    QY_PLAN_AUTO = 0, /* whichever the measured costs say ends earlier             */
    QY_PLAN_PULL,     /* copied to the device                                    */
    QY_PLAN_PUSH      /* where they are: the query goes there, a partial comes back */
};
enum { QY_MICRO_BATCHES = 3 }; /* at most */
/* cache.home_group: elements of a coded row that share a low and a step. */
enum qy_home_group { QY_HOME_GROUP_32 = 0, QY_HOME_GROUP_64 };
/* step.prefetch: rows that come to a discrete device before they are chosen. */
enum qy_prefetch {
    QY_PREFETCH_OFF = 0,
    QY_PREFETCH_PREVIOUS, /* what the last step chose in the layer            */
    QY_PREFETCH_SPECULATE /* what is chosen for a guess of the layer's queries */
};

struct qy_cache_settings {
    int64_t block_tokens; /* a power of two, 8..4096 */
    int64_t sinks, window;
    int row_type;          /* enum qy_row_type        */
    uint64_t host_bytes;   /* 0 = what the request needs, under the memory that is usable; with
                              memory servers: what must be here, and the blocks of two steps */
    uint64_t device_bytes; /* rows, index and staging of a discrete device; 0: what its spec says */
    uint64_t index_bytes;  /* of index, and of a discrete device's map of rows; 0: what is needed */
    uint64_t disk_bytes;   /* of a file under host memory, of a discrete device; 0: none */
    char disk_path[QY_SETTING_TEXT_BYTES]; /* the folder of the file              */
    int disk_engine;         /* 0: io_uring or threads; 1: io_uring, or an error; 2: threads */
    int eviction;            /* enum qy_eviction      */
    int plan_mode;           /* enum qy_plan_mode */
    int overlap;             /* 0: pulls are waited for at once, one micro-batch */
    int64_t micro_batches;   /* 1 .. QY_MICRO_BATCHES; 0: as measured */
    int prefetch;            /* enum qy_prefetch */
    int64_t prefetch_rows;   /* of one (sequence, layer, KV head), at most; 0: all */
    int64_t copy_timeout_ms; /* a copy between home and device that takes longer has failed */
    int64_t verify_steps;    /* each block is verified once in so many steps; 0: never */
    /* The form of full blocks' rows at home, see offload/codec.h; "" is f16. */
    char home_codec[QY_SETTING_TEXT_BYTES];
    int home_group; /* enum qy_home_group */
};
extern const struct qy_setting qy_cache_setting_rows[];
extern const size_t qy_cache_setting_count;

struct qy_kv_shape {
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
};

struct qy_cache;
struct qy_sequence;

struct qy_node;
struct qy_peer;

/* Memory servers (net/net.h, memory.h) that hold the sealed blocks of a cache. */
struct qy_cache_servers {
    struct qy_node *node;            /* kept until close; of the cache's owner thread          */
    struct qy_peer *const *peers;    /* [n] kept until close; the array is copied               */
    uint32_t n, copies;              /* copies of each block, on as many servers: 1 .. 4        */
    uint32_t depth;                  /* as the node has it                                      */
    size_t call_bytes, answer_bytes; /* what servers take and give; a message of each is reserved
                                        for every question that may be under way                */
    uint64_t timeout_ns;             /* of a question, as the node has it                       */
};

struct qy_cache_params {
    const struct qy_runtime *rt; /* kept until close                               */
    struct qy_device *dev;       /* kept until close                               */
    struct qy_kv_shape shape;
    struct qy_rope rope; /* applied to q and k by the step; inv_freq kept    */
    float scale;         /* of q . k; 0 = 1/sqrt(head_dim)                   */
    struct qy_cache_settings settings;
    const struct qy_policy_ops *policy; /* kept                                           */
    const char *policy_argument;        /* kept; what follows the colon of its name, or NULL */
    const struct qy_codebook *codebook; /* kept; what policy->codebook asks for           */
    const struct qy_retrieval_settings *retrieval; /* kept; NULL: the defaults             */
    struct qy_budget budget;
    const struct qy_cache_servers *servers; /* borrowed; NULL: none                          */
    uint32_t max_sequences;                 /* open at once                                    */
    uint32_t max_tokens;                    /* of one sequence                                 */
    uint32_t max_step_tokens;               /* of one step, all sequences together               */
    uint64_t total_tokens;                  /* that all sequences together may need; 0 =
                                 max_sequences * max_tokens. Sizes the pool when
                                 settings.host_bytes is 0                          */
    /* Watches selections; NULL: nobody does. Called by the owner after select, for each (slice of
     * one token, KV head) of a layer that attends to a list: ids [n] is the whole list (sinks,
     * chosen, window), ascending, borrowed for the call. sequence is a slot, below max_sequences.
     * Not called where all rows are attended. */
    void (*on_selection)(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head,
                         const uint32_t *ids, uint32_t n);
    void *selection_ctx;
};

/* QY_ERR_NOMEM with numbers (needed, given, what to change) when the request cannot fit in
 * cache.host_bytes or in usable memory: before any work starts. [setup] [alloc] */
QY_MUST enum qy_status qy_cache_open(const struct qy_cache_params *params, struct qy_cache **cache,
                                     struct qy_error *err);
void qy_cache_close(struct qy_cache *cache); /* sequences are closed first, by the caller */

/* Bytes of home memory that n_tokens of one sequence take (whole blocks). */
uint64_t qy_cache_bytes_for(const struct qy_cache *cache, uint64_t n_tokens);

/* ---- sequences ------------------------------------------------------------------------------ */

/* QY_AGAIN: max_sequences are open. [owner] */
QY_MUST enum qy_status qy_sequence_open(struct qy_cache *cache, struct qy_sequence **seq,
                                        struct qy_error *err);
/* Gives the blocks back, zeroed before anyone else gets them. A step that names it is aborted. */
void qy_sequence_close(struct qy_sequence *seq);
uint32_t qy_sequence_tokens(const struct qy_sequence *seq);
/* Forgets all tokens from n_tokens on. The block that holds the cut is open again.
 * QY_ERR_INVALID: n_tokens is above its length, or a running step names it. [owner] */
QY_MUST enum qy_status qy_sequence_truncate(struct qy_sequence *seq, uint32_t n_tokens);
/* dst (empty) becomes a copy of src, with blocks of its own. QY_AGAIN: no room.
 * QY_ERR_INVALID: dst is not empty, of another cache, or a running step names one. [owner] */
QY_MUST enum qy_status qy_sequence_copy(struct qy_sequence *dst, const struct qy_sequence *src);
/* Appends n tokens of random rows, with the index of them: for measurements of speed only. QY_AGAIN:
 * no room.
 * QY_ERR_INVALID: more than max_tokens, or a running step names it, or, on a discrete device, its last
 * block is not full. [owner] */
QY_MUST enum qy_status qy_sequence_fill_random(struct qy_sequence *seq, uint32_t n, uint64_t seed);
/* Recomputes the checksums of all sealed blocks, and the chain of token ids. QY_ERR_CORRUPT names
 * block, layer and head. [owner] */
QY_MUST enum qy_status qy_sequence_verify(const struct qy_sequence *seq, struct qy_error *err);
/* Where sealed blocks were found changed. */
struct qy_damage {
    uint32_t block, first_token; /* the sequence's first that is not as it was sealed */
    int ids; /* 1: somewhere the token ids, or the footer that vouches for them: the sequence can be
                computed again from ids that the caller kept, not from qy_sequence_ids */
};
/* Verifies the next max_blocks of its sealed blocks, from where the last call ended, and around.
 * QY_ERR_CORRUPT: as qy_sequence_verify, and *damage is written, of the whole sequence: nothing from
 * damage->first_token on is to be trusted (see qy_model_recompute). [owner] [noalloc] */
QY_MUST enum qy_status qy_sequence_check(struct qy_sequence *seq, uint32_t max_blocks,
                                         struct qy_damage *damage, struct qy_error *err);
/* As many as cache.verify_steps asks for when it is called once before each step. [owner] [noalloc] */
QY_MUST enum qy_status qy_sequence_check_step(struct qy_sequence *seq, struct qy_damage *damage,
                                              struct qy_error *err);
/* How a token came into its sequence. */
enum qy_token_origin {
    QY_TOKEN_CHUNK = 0, /* with others of its sequence, attending to everything        */
    QY_TOKEN_DENSE,     /* alone, QY_ATTEND_DENSE                                      */
    QY_TOKEN_POLICY,    /* alone, QY_ATTEND_POLICY                                     */
    QY_TOKEN_RANDOM     /* by qy_sequence_fill_random: its rows do not come from its id */
};
/* Ids of its tokens, and enum qy_token_origin of each: [qy_sequence_tokens], borrowed until the
 * sequence changes. */
const int32_t *qy_sequence_ids(const struct qy_sequence *seq);
const uint8_t *qy_sequence_origins(const struct qy_sequence *seq);
/* Chain hash of the token ids of sealed block i; 0 when block i is not sealed. */
uint64_t qy_sequence_block_hash(const struct qy_sequence *seq, uint32_t block);

/* ---- steps ----------------------------------------------------------------------------------- */

enum qy_attend_mode {
    QY_ATTEND_POLICY = 0, /* one new token attends as the policy says            */
    QY_ATTEND_DENSE = 1   /* to everything (prefill, or the dense reference)      */
};

/* What one sequence adds in this step. n_tokens > 1 is always dense (prefill is exact). */
struct qy_step_slice {
    struct qy_sequence *seq;
    uint32_t n_tokens;
    const int32_t *ids; /* [n_tokens] token ids, for the chain hash */
    enum qy_attend_mode mode;
};

/* Reserves blocks for all slices. QY_AGAIN: not enough free blocks (nothing changed); a sequence
 * may appear once. A policy that learns from its sequence does so here (prepare): it may allocate,
 * and its failure refuses the step. [owner] [noalloc] but for prepare */
QY_MUST enum qy_status qy_step_begin(struct qy_cache *cache, const struct qy_step_slice *slices,
                                     uint32_t n_slices, struct qy_error *err);
/* A step may be run in micro-batches, runs of its slices: while the rows of one are on their way,
 * another computes. How many the running step has (step.micro_batches), and its rows of each: the
 * caller runs the fixed part of a layer (products, norms) on these rows alone. [owner] [noalloc] */
uint32_t qy_step_micro_batches(const struct qy_cache *cache);
struct qy_row_range {
    uint32_t first, n;
};
struct qy_row_range qy_step_rows(const struct qy_cache *cache, uint32_t micro_batch);

/* One layer. Rows are the slices' tokens in order, total m.
 *   q [m][stride] n_heads * head_dim at the start of each row, before RoPE; rotated in place
 *   k [m][stride] n_kv_heads * head_dim, before RoPE; rotated in place
 *   v [m][stride] n_kv_heads * head_dim
 *   out [m][n_heads * head_dim], written
 * Query head h reads KV head h / (n_heads / n_kv_heads). Layers in any order, each once.
 * QY_ERR_CORRUPT: a value of k or v is not finite. QY_ERR_INVALID also: what the policy answered is
 * no list of ids in reach, or no estimate. [owner] [noalloc] */
struct qy_qkv {
    float *q, *k;
    const float *v;
    size_t stride;
    float *out;
};
QY_MUST enum qy_status qy_step_attend(struct qy_cache *cache, uint32_t layer,
                                      const struct qy_qkv *qkv);
/* The same in two halves, for one micro-batch: start writes rows, chooses, and starts the pulls;
 * finish waits for them and writes out. qkv names the rows of the whole step, as above; those of other
 * micro-batches are not touched. q, k and v stay as they are until finish. A micro-batch finishes a
 * layer before it starts the next one. Errors as above. [owner] [noalloc] */
QY_MUST enum qy_status qy_step_attend_start(struct qy_cache *cache, uint32_t micro_batch,
                                            uint32_t layer, const struct qy_qkv *qkv);
QY_MUST enum qy_status qy_step_attend_finish(struct qy_cache *cache, uint32_t micro_batch,
                                             uint32_t layer, const struct qy_qkv *qkv);
/* A guess of a layer's queries, before the layer before it is done: the policy chooses for it, and what
 * the device lacks is pulled ahead (step.prefetch = speculate). It changes no answer. wants_guess: is
 * one of `layer` of use now, after the micro-batch started the layer before? (0: never in a step with
 * prefill, nor on a unified device.)
 *   q [rows of the micro-batch][stride] n_heads * head_dim at the start of each row, before RoPE;
 *     rotated in place, and not needed afterwards
 * QY_ERR_INVALID: no guess is wanted. QY_ERR_DEVICE: as of a pull, the step has failed. Source:
 * InfiniGen, arXiv:2406.19707, section 4; differs: the layer chooses once more with its own queries.
 * [owner] [noalloc] */
int qy_step_wants_guess(const struct qy_cache *cache, uint32_t micro_batch, uint32_t layer);
QY_MUST enum qy_status qy_step_speculate(struct qy_cache *cache, uint32_t micro_batch,
                                         uint32_t layer, float *q, size_t stride);
/* Lengths advance; blocks that became full are sealed. QY_ERR_INVALID: a layer was not attended
 * (or failed); the step goes on, and qy_step_abort leaves it. [owner] [noalloc] */
QY_MUST enum qy_status qy_step_end(struct qy_cache *cache);
/* Forgets what the step added. */
void qy_step_abort(struct qy_cache *cache);
/* Between steps, while the owner waits for something else: takes note of blocks that reached memory servers,
 * takes those of a server that is about to end to others, and copies those that have too few copies left. Steps do
 * the same when they end; who does not come here for long is taken for dead by servers. 1: there is more
 * to do soon; 0: in 100 ms is early enough. Nothing while a step runs. [owner] [noalloc] */
int qy_cache_tend(struct qy_cache *cache);
/* After a qy_step_attend* that failed because rows did not move (QY_ERR_DEVICE, QY_ERR_TIMEOUT), until the
 * next step begins: what failed, for people, and of which sequences; returns text. "": nothing of the
 * kind. The micro-batch whose rows they were is concerned; a step of the others may go on at once, and
 * a step of those concerned may be tried again. [owner] [noalloc] */
enum { QY_FAILURE_BYTES = 400 }; /* enough for any */
const char *qy_step_failure(const struct qy_cache *cache, char *text, size_t bytes);
int qy_sequence_failed(const struct qy_sequence *seq); /* 1: it was one of them */
/* Blocks of a sequence that nobody holds any more, because memory servers are gone. */
struct qy_lost {
    uint32_t
        first_token; /* of the first of them: from here on the sequence must be computed again */
    uint32_t n_blocks;
    uint64_t servers; /* bit i: qy_cache_servers.peers[i] held one of them */
};
/* After a step, a cut or a copy that failed with QY_ERR_DEVICE: is that why? 1, and *lost is written: cut
 * the sequence to first_token, which needs none of them, and add its tokens again (qy_model_replay); the
 * token ids must be taken before the cut. 0: no, and *lost is not touched. What a server held that is
 * away for less than three timeouts is not lost, unless its process has ended. [owner] [noalloc] */
int qy_sequence_lost(const struct qy_sequence *seq, struct qy_lost *lost);

/* ---- what happened --------------------------------------------------------------------------- */

enum qy_stage {
    QY_STAGE_APPEND,  /* rotate, write rows                              */
    QY_STAGE_ENCODE,  /* write index bytes                               */
    QY_STAGE_PREPARE, /* bring indexes learnt from a sequence up to date */
    QY_STAGE_SELECT,
    QY_STAGE_FETCH, /* find chosen rows on the device, start to pull the others */
    QY_STAGE_PUSH,  /* attend to rows at their home                       */
    QY_STAGE_AHEAD, /* choose by a guess, start to pull what it says    */
    QY_STAGE_WAIT,  /* for rows under way                               */
    QY_STAGE_ATTEND,
    QY_STAGE_AUDIT,
    QY_STAGE_SEAL,
    QY_STAGE_COUNT
};
const char *qy_stage_name(enum qy_stage stage);

struct qy_cache_stats {
    uint64_t attended_rows, total_rows; /* of QY_ATTEND_POLICY slices; attended = the ratio */
    uint64_t sparse_attended_rows,
        sparse_total_rows;     /* the same without the first layers that attend to all
                                  (retrieval.dense_layers) */
    uint64_t index_read_bytes; /* index bytes in reach of select, those slices     */
    uint64_t read_bytes;       /* rows read by attend and select, those slices      */
    uint64_t dense_read_bytes; /* what dense would have read, those slices          */
    uint64_t stage_ns[QY_STAGE_COUNT];
    uint64_t device_bytes, host_bytes, index_bytes; /* KV in use now, by tier: on a unified
                                                       device everything is host            */
    uint64_t reserved_bytes; /* the pool                                        */
    /* Rows of one token, of all layers and KV heads: on the device, and at home (cache.home_codec). */
    uint64_t token_bytes, home_token_bytes;
    uint32_t blocks_used, blocks_total;
    uint32_t sequences;
    /* Of a discrete device; else 0. Rows of lists that may or may not be on the device (not those of
     * open blocks): asked for, and found there. */
    uint64_t rows_asked, rows_found;
    uint64_t to_device_bytes, to_host_bytes; /* copied                                       */
    uint64_t rows_pulled, rows_pushed;       /* of those not found                         */
    uint64_t rows_prefetched,
        rows_prefetched_used; /* pulled by a guess; of them, chosen in the same step. They count as
                                 found when they are                                            */
    uint64_t rows_guessed, rows_guessed_right; /* chosen where there was a guess; it named them  */
    uint64_t copy_failures;                    /* of copies home; they were done again       */
    uint64_t device_reserved_bytes;            /* all that the cache took of the device        */
    /* Of a disk tier; else 0. */
    uint64_t disk_bytes, disk_reserved_bytes; /* in use, and the file's                       */
    uint64_t disk_reads, disk_read_bytes, disk_writes,
        disk_written_bytes;      /* requests that were done */
    uint64_t disk_failures;      /* blocks that stayed in host memory, because writing failed    */
    int disk_uring, disk_direct; /* 1: io_uring, 0: threads; 1: O_DIRECT, 0: buffered        */
    /* Of memory servers; else 0: blocks' bytes there (copies counted once), and what was done. */
    uint64_t remote_bytes;
    uint64_t remote_reads, remote_read_bytes, remote_writes, remote_written_bytes;
    uint64_t remote_rows_pulled, remote_rows_pushed; /* read from there; attended to there   */
    uint64_t remote_pushed_bytes; /* of pushes: ids and queries there, partials back          */
    uint64_t remote_scores;   /* lists of blocks scored there (retrieval.index_at = home)      */
    uint64_t remote_failures; /* blocks that stayed in host memory, because nobody took them   */
    /* Checksums of messages here, sent and received (struct qy_node_checks): servers have as many. */
    uint64_t remote_check_ns, remote_check_bytes, remote_damaged, remote_again;
    /* Memory servers that hold blocks (qy_cache_server); that do not, for host memory has room for all. */
    uint32_t servers, servers_idle;
    /* At the most, since open: blocks of host memory that were in use; and what all that grows with
     * max_tokens on a discrete device was reserved for: the index, and the map of its rows. */
    uint64_t host_peak_bytes, index_reserved_bytes;
};
void qy_cache_stats(const struct qy_cache *cache, struct qy_cache_stats *stats);
/* Memory server i, 0 .. servers - 1. */
struct qy_cache_server {
    const char *name;  /* of its peer; borrowed until close                          */
    const char *state; /* "up", or as net calls it (net/net.h)                        */
    int draining;      /* 1: it is about to end, and takes no more     */
    uint64_t block_bytes;
    uint64_t blocks, free_blocks; /* by its last answer: of this cache; for anybody   */
    /* Since open: a reset leaves them. */
    uint64_t puts, questions; /* blocks that it took; all questions           */
    uint64_t again;           /* reads that were then asked of another copy, or once more */
    uint64_t moved, copied;   /* copies of blocks that left it because it is about to end; that it
                                 got because another server's were lost */
    uint64_t sent_bytes, received_bytes; /* of answered questions, without heads         */
    uint64_t timeouts, broken, corrupt;  /* questions not answered in time; connections that broke;
                                            answers that were not what was sent          */
};
void qy_cache_server(const struct qy_cache *cache, uint32_t i, struct qy_cache_server *server);
/* What failed last in a step, where there are words for it (reads of the disk tier: sequence, block, place
 * in the file), or "". Borrowed until close. */
const char *qy_cache_fault(const struct qy_cache *cache);
/* Rows of one layer on a discrete device, as in struct qy_cache_stats; else 0. */
struct qy_layer_stats {
    uint64_t rows_asked, rows_found, rows_pulled, rows_pushed;
    uint64_t pulled_bytes;
};
void qy_cache_layer_stats(const struct qy_cache *cache, uint32_t layer,
                          struct qy_layer_stats *stats);
/* What plans of a discrete device go by and came to since the reset; one plan is of one layer and
 * micro-batch, an item is a (sequence, KV head). */
struct qy_cache_plan {
    enum qy_plan_mode mode;
    /* Costs, in ns: with QY_PLAN_AUTO; else 0, as the estimates below. The link's per byte, command and
     * row; a push's per item and row; a pulled row's attention; and how often a pulled row is found. */
    int measured;
    double link_byte_ns, link_copy_ns, link_row_ns, push_ns, push_row_ns, pull_row_ns, reuse;
    /* The same of rows on memory servers, where these differ; 0: there are none, or no trial. */
    double far_row_ns, far_push_ns, far_push_row_ns;
    uint32_t row_bytes; /* of a pull */
    uint64_t plans, items, items_pulled, items_pushed, rows_pulled, rows_pushed;
    double pulls_ns, pushes_ns; /* that all of them were expected to take */
};
void qy_cache_plan(const struct qy_cache *cache, struct qy_cache_plan *plan);
/* The form of rows at home (cache.home_codec), as it was asked for; lives as long as the cache. */
const char *qy_cache_home_codec(const struct qy_cache *cache);
/* What choosing costs on this machine, per (sequence, KV head) with all threads at work, and from
 * what length on it pays. Measured at open when retrieval.min_tokens is -1 and the policy asks for
 * it (caps.skip_short). */
struct qy_cache_cost {
    int measured;                        /* 0: the times are 0                                */
    double select_ns, select_token_ns;   /* a selection: fixed, and per token of the context   */
    double attend_row_ns, gather_row_ns; /* attention: rows in order, rows of a list           */
    uint32_t min_tokens;                 /* shorter sequences attend to all                   */
};
void qy_cache_cost(const struct qy_cache *cache, struct qy_cache_cost *cost);
/* What the audit saw in one layer since the reset (retrieval.audit_rate); layers that attend to all
 * are not looked at. */
void qy_cache_audit(const struct qy_cache *cache, uint32_t layer, struct qy_audit_sums *sums);
/* Changes step.overlap from the next step on: what movement takes alone can be measured with what it
 * costs beside compute. [owner] */
void qy_cache_set_overlap(struct qy_cache *cache, int overlap);
void qy_cache_stats_reset(struct qy_cache *cache); /* counters and times, not what is in use */

/* ---- eviction on paper ----------------------------------------------------------------------- */

/* What the steps of one sequence attended to (qy_cache_params.on_selection). List (step, layer, KV
 * head) is ids[begins[i]] .. ids[begins[i + 1]], ascending, i = (step * n_layers + layer) *
 * n_kv_heads + kv_head; empty where all rows were attended. Everything is borrowed. */
struct qy_selection_trace {
    uint32_t n_steps, n_layers, n_kv_heads;
    uint32_t max_tokens;    /* ids are below                          */
    uint32_t sinks, window; /* ids below sinks, and the last ones, were not chosen by the policy */
    uint32_t n_tokens;      /* of the first step, its new token included; one more at each step  */
    const uint32_t *ids;
    const uint64_t *begins; /* [n_steps * n_layers * n_kv_heads + 1] */
};
struct qy_replay_params {
    enum qy_eviction eviction;
    uint32_t slots;   /* of a layer, shared by its KV heads */
    uint32_t warm_up; /* first steps, not counted           */
};
struct qy_replay_result {
    uint64_t rows, hits;               /* asked for; of them, on the device already          */
    uint64_t chosen_rows, chosen_hits; /* without sinks and window                           */
    uint64_t taken; /* rows that got a slot; a miss does not when all are pinned */
    uint64_t begin_ns, find_ns, take_ns; /* one thread: of all steps' beginnings, rows, taken */
};
/* What a residency cache would have done with a trace: nothing is moved. QY_ERR_INVALID: the trace
 * names a row that is not below max_tokens, or lists are not in order. [alloc] */
QY_MUST enum qy_status qy_residency_replay(const struct qy_allocator *mem,
                                           const struct qy_selection_trace *trace,
                                           const struct qy_replay_params *params,
                                           struct qy_replay_result *result, struct qy_error *err);

#include "offload/chunks.h"
#include "offload/memory.h"
#include "offload/memory_probe.h"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
