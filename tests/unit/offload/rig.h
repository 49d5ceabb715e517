/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache with a device and a team, endless repeatable q, k and v, and the same attention in double
 * precision, written from the formulas alone.
 *
 * A *stream* is a text: its number and a token's place give the token's id and its q, k, v.
 */
#ifndef QY_TESTS_OFFLOAD_RIG_H
#define QY_TESTS_OFFLOAD_RIG_H

#include "tests/support/test.h"

#include "offload/offload.h"

enum {
    RIG_LAYERS = 2,
    RIG_HEADS = 6,
    RIG_KV_HEADS = 2,
    RIG_GROUP = RIG_HEADS / RIG_KV_HEADS,
    RIG_D = 64,
    RIG_OUT = RIG_HEADS * RIG_D, /* floats of one token's output */
    RIG_K_AT = RIG_OUT,          /* where k and v begin in a token's row of q, k, v */
    RIG_V_AT = RIG_K_AT + RIG_KV_HEADS * RIG_D,
    RIG_STRIDE = RIG_V_AT + RIG_KV_HEADS * RIG_D
};

/* Zero means the default in the comment. */
struct rig_options {
    const char *policy;                                  /* dense                */
    const char *budget;                                  /* 1.0                  */
    const struct qy_policy_ops *ops;                     /* instead of policy */
    const struct qy_retrieval_settings *retrieval;       /* NULL: the defaults */
    const struct qy_codebook *codebook;                  /* NULL: none */
    uint32_t block_tokens;                               /* 16               */
    uint32_t sinks;                                      /* 4                    */
    uint32_t window;                                     /* 8                    */
    int f16;                                             /* f32 rows             */
    uint32_t max_sequences, max_tokens, max_step_tokens; /* 4, 512, 512 */
    uint64_t host_bytes, total_tokens;
    uint32_t threads; /* 1                    */
    enum qy_rope_pairs pairs;
    int deterministic;     /* of the device         */
    const char *device;    /* host                 */
    uint64_t device_bytes; /* of a discrete device; 0: what the device's spec says */
    struct qy_link link;
    const struct qy_cache_servers *servers;
    uint64_t disk_bytes;      /* of a file in /var/tmp; 0: none */
    int disk_engine;          /* auto */
    enum qy_plan_mode plan;   /* auto */
    uint32_t micro_batches;   /* 1 */
    uint32_t copy_timeout_ms; /* 10000 */
    const char *home_codec;   /* f16 */
    int even;        /* no RoPE, and keys and values on 16 levels that a 4-bit code has exactly */
    const char *cpu; /* auto: a kernel set, which the machine must have */
};

struct rig {
    struct qy_runtime rt;
    struct qy_device *dev;
    float inv_freq[RIG_D / 2];
    int even;
    struct qy_cache_params params;
    struct qy_cache *cache;
};

/* Everything but the cache; params are ready for qy_cache_open. */
void rig_prepare(struct rig *rig, const struct rig_options *options);
/* And the cache. */
void rig_open(struct rig *rig, const struct rig_options *options);
void rig_close(struct rig *rig);
struct qy_sequence *rig_sequence(struct rig *rig);

int32_t rig_token(uint32_t stream, uint32_t token);
/* q, k, v [RIG_STRIDE] of a token, before RoPE. */
void rig_qkv(uint32_t stream, uint32_t layer, uint32_t token, float *row);

/* What one sequence adds in a step: its next n tokens of a stream. */
struct rig_feed {
    struct qy_sequence *seq;
    uint32_t stream, n;
    enum qy_attend_mode mode;
    float *out; /* [RIG_LAYERS][n][RIG_OUT] written; may be NULL */
};
/* One whole step. The status is qy_step_begin's; everything after it must work. */
enum qy_status rig_step(struct rig *rig, const struct rig_feed *feeds, uint32_t n_feeds);
/* n tokens of a stream, in steps of chunk; out [n][RIG_OUT] of the last layer, may be NULL. */
void rig_prefill(struct rig *rig, struct qy_sequence *seq, uint32_t stream, uint32_t n,
                 uint32_t chunk, float *out);

/* Rotated keys, and values, of n tokens of one layer of a stream. */
struct rig_reference {
    uint32_t stream, layer, n;
    enum qy_rope_pairs pairs;
    double *k, *v; /* [n][RIG_KV_HEADS][RIG_D] */
};
void rig_reference_open(struct rig_reference *ref, uint32_t stream, uint32_t layer, uint32_t n,
                        enum qy_rope_pairs pairs);
void rig_reference_close(struct rig_reference *ref);
/* Attention of `token` for KV head h over ids [n_ids] (NULL: 0 .. token): out [RIG_GROUP][RIG_D].
 */
void rig_reference_attend(const struct rig_reference *ref, uint32_t token, uint32_t h,
                          const uint32_t *ids, uint32_t n_ids, double *out);
/* Mean over the group of the softmax over 0 .. token: pooled [token + 1]. */
void rig_reference_pool(const struct rig_reference *ref, uint32_t token, uint32_t h,
                        double *pooled);
/* Largest difference of n values. */
double rig_difference(const float *a, const double *b, size_t n);

#endif
