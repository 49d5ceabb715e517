/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bed for policies that score single tokens: made-up texts whose keys before RoPE are words of a
 * small vocabulary (with noise, when asked), a codebook of these words, and calls of a policy's
 * append and select with scratch of exactly the size it asks for.
 */
#ifndef QY_TESTS_UNIT_RETRIEVAL_TOKEN_BED_H
#define QY_TESTS_UNIT_RETRIEVAL_TOKEN_BED_H

#include "tests/support/test.h"

#include "retrieval/retrieval.h"

enum {
    BED_D = 32,
    BED_GROUP = 3,
    BED_KV = 2,
    BED_SHIFT = 5,
    BED_TEXTS = 5,
    BED_MAX_N = 800,
    BED_MAX_BLOCKS = (BED_MAX_N >> BED_SHIFT) + 1,
    BED_MAX_ITEMS = BED_TEXTS * BED_KV,
    BED_WORDS = 64,
    BED_SINKS = 4,
    BED_WINDOW = 32
};

/* One text: the newest token is the one that asks. */
struct bed_text {
    uint32_t n;
    float k_before[BED_MAX_N][BED_KV][BED_D], k[BED_MAX_N][BED_KV][BED_D];
    float q_before[BED_KV * BED_GROUP * BED_D], q[BED_KV * BED_GROUP * BED_D];
    uint8_t *blocks[BED_MAX_BLOCKS]; /* [KV][rows], then [KV][index bytes] */
};

struct bed {
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_arena arena;
    struct qy_retrieval_settings settings;
    struct qy_policy_params params;
    float mass; /* of the items that bed_item makes */
    float inv_freq[BED_D / 2];
    float words[BED_KV][BED_WORDS][BED_D];
    struct bed_text *texts; /* [BED_TEXTS] */

    const struct qy_policy_ops *ops;
    struct qy_policy *policy;
    struct qy_codebook *codebook;
    size_t slab_bytes;

    struct qy_select_item items[BED_MAX_ITEMS];
    uint32_t ids[BED_MAX_ITEMS][BED_GROUP * BED_MAX_N], n_ids[BED_MAX_ITEMS];
};

/* A bed on the heap with the default settings. */
struct bed *bed_new(uint32_t threads);
void bed_free(struct bed *bed);
/* Replaces text i by one of n tokens: keys are words plus uniform noise in -noise .. noise. */
void bed_text(struct bed *bed, uint32_t i, uint32_t n, float noise);
/* Item `at` asks for k tokens of text i and KV head h. */
void bed_item(struct bed *bed, uint32_t at, uint32_t i, uint32_t h, uint32_t k);
struct qy_arena *bed_arena(struct bed *bed, size_t bytes);

/* Opens a policy by bed->settings and appends all texts made so far, each in steps of at most
 * `step` tokens (0: at once). */
void bed_policy(struct bed *bed, const char *name, uint32_t step);
void bed_policy_close(struct bed *bed);
/* Tokens first .. first + n - 1 of text i enter the index (KV heads together). */
void bed_append(struct bed *bed, uint32_t i, uint32_t first, uint32_t n);
void bed_select(struct bed *bed, uint32_t n_items);

/* q of query head g at `angle` . k before RoPE, in f64: what a key at that distance scores. */
double bed_score_at(const struct bed *bed, uint32_t at, uint32_t g, uint32_t token, double angle);
/* The same at the token's true distance. */
double bed_score(const struct bed *bed, uint32_t at, uint32_t g, uint32_t token);
/* pooled [n]: mean (or largest) over the group of the softmax of scores over all tokens. */
void bed_pool(const struct bed *bed, uint32_t at, int largest, double *pooled);
int bed_has(const struct bed *bed, uint32_t at, uint32_t token);
/* Share of the best n_ids of item `at` by true pooled scores that were chosen. */
double bed_recall(const struct bed *bed, uint32_t at);

#endif
