/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence and one policy whose index is learnt from it: f32 rows of 1 layer and 2 KV heads in
 * blocks, keys in a few dozen loose heaps, as keys of a real model are.
 */
#ifndef QY_TESTS_RETRIEVAL_LEARNT_BED_H
#define QY_TESTS_RETRIEVAL_LEARNT_BED_H

#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include "retrieval/policies.h"

enum { LBED_D = 32, LBED_HEADS = 2, LBED_SHIFT = 6, LBED_LO = 4, LBED_WINDOW = 16 };

struct lbed {
    struct qy_runtime rt;
    struct fail_alloc alloc; /* counts what is taken */
    struct qy_device *dev;
    struct qy_retrieval_settings settings;
    struct qy_policy_params params;
    const struct qy_policy_ops *ops;
    struct qy_policy *policy;
    uint8_t **blocks;
    uint32_t max_tokens, n_blocks, group;
    struct qy_arena arena;
    void *arena_memory;
};

/* Rows of max_tokens tokens; params and settings (defaults) are ready for lbed_policy. */
void lbed_open(struct lbed *bed, uint32_t max_tokens, uint32_t group);
/* Opens a policy by its name, with its argument. */
enum qy_status lbed_policy(struct lbed *bed, const char *name, struct qy_error *err);
void lbed_close_policy(struct lbed *bed);
void lbed_close(struct lbed *bed);

float *lbed_k(const struct lbed *bed, uint32_t head, uint32_t token);
float *lbed_v(const struct lbed *bed, uint32_t head, uint32_t token);
struct qy_rows lbed_rows(const struct lbed *bed, uint32_t head);
/* The view of n_tokens tokens before the next one. */
struct qy_sequence_view lbed_view(const struct lbed *bed, uint32_t n_tokens);
void lbed_prepare(struct lbed *bed, uint32_t n_tokens);
/* What one KV head chooses of n_tokens + 1 tokens; part [group][d + 1] (outputs, then lse) may be
 * NULL. Returns the number of ids. */
uint32_t lbed_select(struct lbed *bed, uint32_t head, uint32_t n_tokens, uint32_t k, const float *q,
                     uint32_t *ids, float *part);
float lbed_random(uint32_t *state); /* -1 .. 1 */
/* q [group][d] of a query, by its seed. */
void lbed_query(const struct lbed *bed, float *q, uint32_t seed);
double lbed_dot(const float *a, const float *b);

#endif
