/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu: devices. Memory, dense products on GGUF weights, and the kernels of a decoder with a
 * KV cache: norms, rotation, row append, attention over rows, scoring, top-k.
 *
 * The host backend (gpu/host/) runs them on the CPU with AVX-512, AVX2 or plain C, chosen at run
 * time. This layer knows rows (K and V of one token for one KV head) but no block, no sequence
 * and no file.
 *
 * Terms: m rows of activations; g = query heads per KV head (group), at most 64 in row kernels;
 * d = head dimension.
 * Every pointer given to a kernel is device memory (on a unified device: any memory).
 * Kernels are [owner] [noalloc] and complete in call order; temporaries come from the arena that
 * the caller passes (QY_ERR_NOMEM when it is full; nothing was written then).
 */
#ifndef QY_GPU_H
#define QY_GPU_H

#include "gpu/tensor_type.h"
#include "runtime/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- device -------------------------------------------------------------------------------- */

struct qy_device;

enum qy_compute { QY_COMPUTE_F32 = 0, QY_COMPUTE_BF16 = 1 };

/* What the link between host and device can do. All 0: as the machine's memory. */
struct qy_link {
    double gbps;      /* 10^9 bytes per second in each direction; 0: not limited              */
    uint64_t copy_ns; /* what each command takes on top of its bytes                          */
};

struct qy_device_params {
    const char *spec;        /* "host", "host-discrete:<bytes>", "host-discrete:auto"      */
    enum qy_compute compute; /* of dense products with m above the matrix-vector range; bf16
                                loses accuracy (logits move by up to 0.5)                    */
    int deterministic;       /* dense products use one kernel and panel height whatever m      */
    uint32_t max_m;          /* largest m of a multiply                                     */
    struct qy_link link;     /* what the copies of its streams are slowed down to            */
};

struct qy_device_caps {
    char name[64];       /* "host (avx512)"                                             */
    const char *kernels; /* kernel set: "plain", "avx2", "avx512"                        */
    const char *dense;   /* library of dense products: "oneDNN 2.6.3", "OpenBLAS", "plain" */
    int unified;         /* host memory is device memory                                  */
    int deterministic;   /* as it was opened                                              */
    size_t alignment;    /* of rows and activations                                      */
};

/* rt is kept. QY_ERR_UNSUPPORTED names the specs this build has. [setup] [alloc] */
QY_MUST enum qy_status qy_device_open(const struct qy_runtime *rt,
                                      const struct qy_device_params *params, struct qy_device **dev,
                                      struct qy_error *err);
/* Another link for what is queued from now on, for measuring: say, one that is slow only after the
 * cache has been filled. Costs that were measured before are of the link before. [owner] */
QY_MUST enum qy_status qy_device_set_link(struct qy_device *dev, const struct qy_link *link,
                                          struct qy_error *err);
void qy_device_close(struct qy_device *dev);
const struct qy_device_caps *qy_device_caps(const struct qy_device *dev);
/* Zeroed device memory; returned, freed with qy_device_free. [setup] [alloc] */
QY_MUST enum qy_status qy_device_alloc(struct qy_device *dev, size_t bytes, void **ptr,
                                       struct qy_error *err);
void qy_device_free(struct qy_device *dev, void *ptr);

/* ---- weights and dense products -------------------------------------------------------------- */

/* A matrix as the file holds it: n_out rows of n_in elements, row-major. */
struct qy_matrix {
    const char *name;
    const void *data; /* kept (the file's mapping) until the weight closes */
    enum qy_tensor_type type;
    uint32_t n_out, n_in;
};

struct qy_weight;

enum qy_weight_use {
    QY_WEIGHT_MULTIPLY = 1, /* y = x W^T */
    QY_WEIGHT_ROWS = 2      /* qy_weight_rows (embedding) */
};

/* Prepares one product made of n_parts matrices of the same n_in, stacked by output rows (q, k, v
 * become one). Packs one copy that serves every m. [setup] [alloc] */
QY_MUST enum qy_status qy_weight_open(struct qy_device *dev, const struct qy_matrix *parts,
                                      size_t n_parts, unsigned use, struct qy_weight **weight,
                                      struct qy_error *err);
void qy_weight_close(struct qy_device *dev, struct qy_weight *weight);
uint32_t qy_weight_n_out(const struct qy_weight *weight);
uint32_t qy_weight_n_in(const struct qy_weight *weight);
size_t qy_weight_bytes(const struct qy_weight *weight); /* memory it takes beside the file */

/* y [m][n_out] = x [m][n_in] W^T in f32 accumulation; x and y are dense and do not overlap.
 * Small m: our matrix-vector kernels on the file's blocks with f32 activations; larger m: the
 * library on the packed copy. */
QY_MUST enum qy_status qy_weight_multiply(struct qy_device *dev, const struct qy_weight *weight,
                                          const float *x, uint32_t m, float *y);
/* out [m][n_in] = rows ids [m] of the weight's first part. An id >= n_out is QY_ERR_INVALID. */
QY_MUST enum qy_status qy_weight_rows(struct qy_device *dev, const struct qy_weight *weight,
                                      const int32_t *ids, uint32_t m, float *out);

/* ---- element-wise kernels --------------------------------------------------------------------- */

/* out [m][dim] = x / rms(x) * weight; out may be x. Zhang and Sennrich 2019, eq. 4. */
QY_MUST enum qy_status qy_device_norm(struct qy_device *dev, const float *x, uint32_t m,
                                      uint32_t dim, const float *weight, float eps, float *out);
/* x += y, then out = norm(x). One pass. */
QY_MUST enum qy_status qy_device_add_norm(struct qy_device *dev, float *x, const float *y,
                                          uint32_t m, uint32_t dim, const float *weight, float eps,
                                          float *out);
/* Norm of each head: x [m][stride], the first heads*d of each row; in place. */
QY_MUST enum qy_status qy_device_head_norm(struct qy_device *dev, float *x, uint32_t m,
                                           size_t stride, uint32_t heads, uint32_t d,
                                           const float *weight, float eps);
/* y [m][n] += bias [n]. */
QY_MUST enum qy_status qy_device_bias(struct qy_device *dev, float *y, uint32_t m, uint32_t n,
                                      const float *bias);
/* out [m][n] = silu(gate) * up, gate_up [m][2n] holds gate then up. Shazeer 2020. */
QY_MUST enum qy_status qy_device_swiglu(struct qy_device *dev, const float *gate_up, uint32_t m,
                                        uint32_t n, float *out);

/* Rotary position embedding. Su et al. 2021, arXiv:2104.09864, sec. 3.4. */
enum qy_rope_pairs {
    QY_ROPE_ADJACENT, /* (0,1), (2,3), ...: GGUF `llama`        */
    QY_ROPE_HALVES    /* (0,d/2), (1,d/2+1), ...: qwen2, qwen3  */
};

struct qy_rope {
    uint32_t dim; /* rotated elements of a head, even, <= d; 0 = no rotation     */
    enum qy_rope_pairs pairs;
    const float *inv_freq; /* [dim/2] angle per position of each pair (scaling applied); kept */
};

/* table [m][dim] = cos, sin per pair (interleaved) of positions [m]; angles in f64. A negative
 * position turns back. */
QY_MUST enum qy_status qy_device_rope_table(struct qy_device *dev, const struct qy_rope *rope,
                                            const int32_t *positions, uint32_t m, float *table);
/* Rotates x [m][stride], heads heads of d elements each, in place. */
QY_MUST enum qy_status qy_device_rope(struct qy_device *dev, const struct qy_rope *rope,
                                      const float *table, float *x, uint32_t m, size_t stride,
                                      uint32_t heads, uint32_t d);

/* ---- rows -------------------------------------------------------------------------------------- */

enum qy_row_type { QY_ROW_F16 = 0, QY_ROW_F32 = 1 };

/* Where the rows of one (sequence, layer, KV head) lie: row t is at
 * blocks[t >> shift] + offset + (t & (2^shift - 1)) * row_bytes, K[d] then V[d].
 *
 * With a codec, rows below n_coded are f16 in a coded form (gpu/row_codec.h): offset is then
 * coded_offset, and row_bytes the codec's. Attend, score and gathers take such rows, and give what
 * they would give of the decoded ones; all others want rows as they are (QY_ERR_INVALID). */
struct qy_row_codec;
struct qy_rows {
    uint8_t *const *blocks;
    size_t offset;
    uint32_t shift;
    uint32_t d;
    enum qy_row_type type;
    uint32_t n_coded;
    const struct qy_row_codec *codec; /* NULL: none is coded */
    size_t coded_offset;
};
static inline size_t qy_row_bytes(enum qy_row_type type, uint32_t d)
{
    return (size_t)2 * d * (type == QY_ROW_F16 ? 2 : 4);
}
/* Of one that is not coded. */
static inline uint8_t *qy_row_at(const struct qy_rows *rows, uint32_t token)
{
    const uint32_t mask = ((uint32_t)1 << rows->shift) - 1;
    return rows->blocks[token >> rows->shift] + rows->offset +
           (size_t)(token & mask) * qy_row_bytes(rows->type, rows->d);
}

#include "gpu/row_codec.h"

#include "gpu/copies.h"

/* Writes n tokens' k and v (already rotated), converting to the row type. A value that is not
 * finite after conversion makes the call return QY_ERR_CORRUPT (all rows are still written). */
struct qy_append_item {
    const float *k, *v; /* [n][stride], the head's d elements at the start of each row */
    size_t stride;
    struct qy_rows rows;
    uint32_t first, n;
};
QY_MUST enum qy_status qy_device_append(struct qy_device *dev, const struct qy_append_item *items,
                                        uint32_t n_items);

/* Attention of one new token's group of query heads over rows of one KV head: decode.
 *   q    [g][d] f32      out [g][d] f32, written      lse [g] f32, written; may be NULL
 * ids [n] in any order, or NULL: rows first .. first + n - 1. n = 0: out = 0, lse = -inf.
 * bias [n] (NULL: none) is added to the scaled scores of every head: the natural logarithm of a
 * row's weight, for rows that stand for several tokens.
 * Scores are scaled by `scale`; softmax in f32. Rows are taken in fixed pieces in token order and
 * merged in that order by log-sum-exp, so the bits depend on the item alone, not on threads: items
 * of the pieces, merged by qy_device_merge, give the same bits as one of them all. */
enum { QY_ATTEND_PIECE = 256 }; /* rows */
struct qy_attend_item {
    const float *q;
    struct qy_rows rows;
    const uint32_t *ids;
    uint32_t first, n, group;
    const float *bias;
    float *out, *lse;
};
QY_MUST enum qy_status qy_device_attend(struct qy_device *dev, const struct qy_attend_item *items,
                                        uint32_t n_items, float scale, struct qy_arena *arena);
/* Bytes of arena that qy_device_attend needs at most for n_items of up to max_n rows; and beside
 * these where some rows are coded. */
size_t qy_device_attend_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                uint32_t group, uint32_t d);
size_t qy_device_attend_coded_scratch(const struct qy_device *dev, uint32_t d);

/* Causal attention of a chunk (prefill): query i (of n_q) attends rows 0 .. first + i.
 *   q [n_q][stride] with the group's g*d elements at the start of each row; out likewise.
 * Rows first .. first + n_q - 1 were appended before. With `earlier` no row is a query's own: rows
 * end at first - 1, and every query attends to all of them.
 * Rows may come in parts, in ascending order: a call takes rows key_begin .. key_end - 1, both
 * multiples of 64 but for the last key_end, first + n_q (or first); key_end = 0 stands for that. What
 * is to be gone on with is kept in out and state between the calls; the bits are those of a single
 * call. Rows between parts may be left out, those before the first one too (`starts`). */
struct qy_chunk_item {
    const float *q;
    size_t q_stride;
    struct qy_rows rows;
    uint32_t first, n_q, group;
    float *out;
    size_t out_stride;
    uint32_t key_begin, key_end;
    float *state; /* [n_q][group][2], written and read again; NULL: all rows in one call */
    int earlier;  /* 1: see above                                                         */
    int starts;   /* 1: no part came before, though key_begin is above 0                  */
    float *lse;   /* [n_q][lse_stride] written with the last part, the group's at the start of each
                     row; NULL: not wanted */
    size_t lse_stride;
};
QY_MUST enum qy_status qy_device_attend_chunk(struct qy_device *dev,
                                              const struct qy_chunk_item *items, uint32_t n_items,
                                              float scale, struct qy_arena *arena);
size_t qy_device_attend_chunk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                      uint32_t max_q, uint32_t group, uint32_t d);

/* Merges n_parts partials in order: out [heads][d], lse [heads] (may be NULL) from parts_out
 * [n_parts][heads][d], parts_lse [n_parts][heads]. A partial with lse -inf counts for nothing. */
QY_MUST enum qy_status qy_device_merge(struct qy_device *dev, const float *parts_out,
                                       const float *parts_lse, uint32_t n_parts, uint32_t heads,
                                       uint32_t d, float *out, float *lse);

#include "gpu/index_bytes.h"

/* ---- selection ---------------------------------------------------------------------------------- */

/* scores[h * stride + i] = scale * q[h] . k of row ids[i], or first + i when ids is NULL. */
struct qy_score_item {
    const float *q; /* [g][d] */
    struct qy_rows rows;
    const uint32_t *ids;
    uint32_t first, n, group;
    float *scores;
    size_t stride; /* floats from head to head; 0 = n */
};
QY_MUST enum qy_status qy_device_score(struct qy_device *dev, const struct qy_score_item *items,
                                       uint32_t n_items, float scale);

/* pooled [hi - lo] of softmax(scores of head h) over all n, restricted to lo <= i < hi: what is
 * always attended takes its share of the mass. The scores [g][stride] are overwritten.
 *   QY_POOL_MEAN the mean over the group; QY_POOL_MAX the largest of the group
 * *mass (may be NULL) receives the mean over the group of the mass of lo .. hi - 1. NaN scores
 * count as the least. */
enum qy_pooling { QY_POOL_MEAN = 0, QY_POOL_MAX = 1 };
struct qy_pool_item {
    float *scores;
    size_t stride; /* 0 = n */
    uint32_t n, group, lo, hi;
    enum qy_pooling pooling;
    float *pooled;
    float *mass;
};
QY_MUST enum qy_status qy_device_pool(struct qy_device *dev, const struct qy_pool_item *items,
                                      uint32_t n_items);

/* The k largest of scores [n]: places in ascending order, ties to the lower place, NaN last. ids
 * [k] receives map[place] (ascending, given) or, when map is NULL, id_base + place; *n_ids the
 * count. mass > 0: scores are shares of a mass, *candidate_mass (as qy_device_pool wrote it) is
 * what they have together, the rest of 1 is attended anyway; only the largest are taken until
 * together with it they reach mass, at most k (Twilight's top-p). */
struct qy_topk_item {
    const float *scores;
    uint32_t n, k;
    float mass;
    const float *candidate_mass;
    uint32_t id_base;
    const uint32_t *map;
    uint32_t *ids, *n_ids;
};
QY_MUST enum qy_status qy_device_topk(struct qy_device *dev, const struct qy_topk_item *items,
                                      uint32_t n_items, struct qy_arena *arena);
size_t qy_device_topk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n);

/* qy_device_code_score, qy_device_pool and qy_device_topk in one, without the scores and shares
 * between, for 4-bit codes: of tokens first .. first + n - 1 the k of the largest pooled softmax, the
 * heads' `resident` scores [group][resident_stride], n_resident of each, in the denominators. Takes
 * what the three would take but for the rounding of their sums. A head whose query is not finite
 * counts for nothing. */
struct qy_code_topk_item {
    const struct qy_quantizer *quantizer;
    const float *q; /* [group][d] */
    struct qy_slab codes;
    uint32_t first, n, group, k;
    const float *resident;
    size_t resident_stride;
    uint32_t n_resident;
    enum qy_pooling pooling;
    uint32_t *ids, *n_ids;
};
QY_MUST enum qy_status qy_device_code_topk(struct qy_device *dev,
                                           const struct qy_code_topk_item *items, uint32_t n_items,
                                           float scale, struct qy_arena *arena);
/* Arena bytes of a call of n_items of one quantizer, each of up to max_n tokens. */
size_t qy_device_code_topk_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                   const struct qy_quantizer *quantizer, uint32_t group);

/* Attention over those of tokens first .. first + n - 1 that are not in ids, estimated by 4-bit codes
 * and the values of a few rows: a token's weight is exp(scale * q . its decoded key). Each head draws
 * `samples` tokens (1 .. 4096), at equal steps of the weights summed up in the order of tokens; each
 * drawn stands for an equal part of the whole weight.
 *   out [group][d], lse [group]   as qy_device_attend writes them; no token left, or a query that is
 *                                 not finite: 0 and -inf
 * Drawing by weight: MagicPIG, arXiv:2410.16179. */
struct qy_code_estimate_item {
    const struct qy_quantizer *quantizer;
    const float *q; /* [group][d] */
    struct qy_slab codes;
    struct qy_rows rows;
    const uint32_t *ids; /* [n_ids] ascending, of first .. first + n - 1 */
    uint32_t first, n, n_ids, group, samples;
    float *out, *lse;
};
QY_MUST enum qy_status qy_device_code_estimate(struct qy_device *dev,
                                               const struct qy_code_estimate_item *items,
                                               uint32_t n_items, float scale,
                                               struct qy_arena *arena);
/* Arena bytes of a call of items of one quantizer, each of up to max_n tokens. */
size_t qy_device_code_estimate_scratch(const struct qy_device *dev, uint32_t max_n,
                                       uint32_t samples, const struct qy_quantizer *quantizer,
                                       uint32_t group);

/* Union of n_lists ascending lists: list j has counts[j] <= stride ids at lists + j * stride. ids
 * receives each id once, ascending (room for all of them). */
struct qy_union_item {
    const uint32_t *lists, *counts;
    uint32_t n_lists, stride;
    uint32_t *ids, *n_ids;
};
QY_MUST enum qy_status qy_device_union(struct qy_device *dev, const struct qy_union_item *items,
                                       uint32_t n_items);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
