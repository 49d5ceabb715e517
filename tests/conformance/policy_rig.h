/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of any shape and policy over made-up keys that are as uneven as those of real models:
 * a mean far from zero, a few elements that vary much more than the others. Policies that need a
 * codebook get one whose words are keys of the same kind.
 *
 * A *stream* is a text: its number and a token's place give the token's q, k and v. `edit` may
 * change them.
 */
#ifndef QY_TESTS_CONFORMANCE_POLICY_RIG_H
#define QY_TESTS_CONFORMANCE_POLICY_RIG_H

#include "tests/support/test.h"

#include "offload/offload.h"

enum { PRIG_LAYERS = 2, PRIG_KV_HEADS = 2, PRIG_MAX_FEEDS = 4 };

struct prig_row {
    uint32_t stream, layer, token;
    float *q, *k, *v; /* [heads][d], [kv_heads][d] twice */
};

struct prig_options {
    const char *policy; /* with its argument: "faiss:Flat" */
    const char *budget;
    uint32_t d, group, block_tokens;
    enum qy_cpu_level level;
    uint32_t threads;    /* 0: 1   */
    uint32_t max_tokens; /* 0: 512 */
    int no_rope;
    void (*edit)(struct prig_row *row); /* may be NULL */
    void (*set)(struct qy_retrieval_settings *settings);
};

struct prig {
    struct prig_options o;
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_retrieval_settings settings;
    struct qy_codebook *codebook;
    struct qy_policy_ops ops; /* the policy's, with a select that checks what comes out */
    const struct qy_policy_ops *inner;
    struct qy_cache *cache;
    float *inv_freq;
    uint32_t heads, stride, out; /* floats of a row of q, k, v; of an output */
    uint64_t selects;            /* items that the policy chose for          */
};

/* 0 when this build lacks what the policy needs (nothing is open then); fails on other errors. */
int prig_open(struct prig *rig, const struct prig_options *options);
void prig_close(struct prig *rig);
struct qy_sequence *prig_sequence(struct prig *rig);

struct prig_feed {
    struct qy_sequence *seq;
    uint32_t stream, n;
    enum qy_attend_mode mode;
};
/* One whole step; out [PRIG_LAYERS][tokens][rig->out], may be NULL. The first status that is not
 * QY_OK, after which the step is aborted. */
enum qy_status prig_step(struct prig *rig, const struct prig_feed *feeds, uint32_t n_feeds,
                         float *out);
/* n tokens in dense steps of chunk; they must work. */
void prig_fill(struct prig *rig, struct qy_sequence *seq, uint32_t stream, uint32_t n,
               uint32_t chunk);
/* One token that selects; it must work. out [PRIG_LAYERS][rig->out]. */
void prig_next(struct prig *rig, struct qy_sequence *seq, uint32_t stream, float *out);

/* Turns the token's k (before RoPE) as the cache will. For codebooks after RoPE. */
void prig_rotate(const struct prig *rig, float *x, uint32_t position);

#endif
