/* SPDX-License-Identifier: Apache-2.0 */
/* See learnt_bed.h. */
#include "tests/unit/retrieval/learnt_bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAPS = 40 };

float lbed_random(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(*state >> 8) * 0x1p-23F - 1.0F;
}

static size_t slab_bytes(void)
{
    return ((size_t)1 << LBED_SHIFT) * qy_row_bytes(QY_ROW_F32, LBED_D);
}

struct qy_rows lbed_rows(const struct lbed *bed, uint32_t head)
{
    return (struct qy_rows){.blocks = bed->blocks,
                            .offset = head * slab_bytes(),
                            .shift = LBED_SHIFT,
                            .d = LBED_D,
                            .type = QY_ROW_F32};
}

float *lbed_k(const struct lbed *bed, uint32_t head, uint32_t token)
{
    const struct qy_rows rows = lbed_rows(bed, head);

    return (float *)(void *)qy_row_at(&rows, token);
}

float *lbed_v(const struct lbed *bed, uint32_t head, uint32_t token)
{
    return lbed_k(bed, head, token) + LBED_D;
}

static void fill_rows(struct lbed *bed)
{
    float heaps[HEAPS][LBED_D];
    uint32_t state = 7;

    for (int h = 0; h < HEAPS; h++) {
        for (int i = 0; i < LBED_D; i++) {
            heaps[h][i] = 1.0F + 1.5F * lbed_random(&state);
        }
    }
    for (uint32_t head = 0; head < LBED_HEADS; head++) {
        for (uint32_t t = 0; t < bed->max_tokens; t++) {
            const float *heap = heaps[(uint32_t)((lbed_random(&state) + 1.0F) * 0.499F * HEAPS)];

            for (uint32_t i = 0; i < LBED_D; i++) {
                lbed_k(bed, head, t)[i] = heap[i] + 0.6F * lbed_random(&state);
                lbed_v(bed, head, t)[i] = lbed_random(&state);
            }
        }
    }
}

void lbed_open(struct lbed *bed, uint32_t max_tokens, uint32_t group)
{
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    const struct qy_team_params team = {.n_threads = 2};

    memset(bed, 0, sizeof(*bed));
    bed->alloc.fail_at = -1;
    bed->rt.mem = fail_alloc_make(&bed->alloc);
    qy_cpu_detect(&bed->rt.cpu);
    assert_int_equal(qy_team_open(&bed->rt.mem, &team, &bed->rt.team, NULL), QY_OK);
    assert_int_equal(qy_device_open(&bed->rt, &device, &bed->dev, NULL), QY_OK);
    bed->max_tokens = max_tokens;
    bed->group = group;
    bed->n_blocks = (max_tokens >> LBED_SHIFT) + 1;
    bed->blocks = calloc(bed->n_blocks, sizeof(*bed->blocks));
    assert_non_null(bed->blocks);
    for (uint32_t b = 0; b < bed->n_blocks; b++) {
        bed->blocks[b] = calloc(LBED_HEADS, slab_bytes());
        assert_non_null(bed->blocks[b]);
    }
    fill_rows(bed);
    bed->settings = qyi_retrieval_defaults;
    bed->params = (struct qy_policy_params){.rt = &bed->rt,
                                            .dev = bed->dev,
                                            .n_layers = 1,
                                            .n_heads = LBED_HEADS * group,
                                            .n_kv_heads = LBED_HEADS,
                                            .head_dim = LBED_D,
                                            .max_sequences = 2,
                                            .max_tokens = max_tokens,
                                            .block_tokens = (uint32_t)1 << LBED_SHIFT,
                                            .sinks = LBED_LO,
                                            .window = LBED_WINDOW,
                                            .scale = 1.0F / sqrtf((float)LBED_D),
                                            .settings = &bed->settings};
}

enum qy_status lbed_policy(struct lbed *bed, const char *name, struct qy_error *err)
{
    assert_int_equal(qy_policy_choose(name, &bed->ops, NULL), QY_OK);
    bed->params.argument = qy_policy_argument(name);
    const enum qy_status st = bed->ops->open(&bed->params, &bed->policy, err);
    if (st != QY_OK) {
        assert_null(bed->policy);
        return st;
    }
    const size_t bytes = bed->ops->scratch(bed->policy, 1, bed->max_tokens);
    bed->arena_memory = malloc(bytes);
    assert_non_null(bed->arena_memory);
    qy_arena_init(&bed->arena, bed->arena_memory, bytes);
    return QY_OK;
}

void lbed_close_policy(struct lbed *bed)
{
    bed->ops->close(bed->policy);
    bed->policy = NULL;
    free(bed->arena_memory);
    bed->arena_memory = NULL;
}

void lbed_close(struct lbed *bed)
{
    for (uint32_t b = 0; b < bed->n_blocks; b++) {
        free(bed->blocks[b]);
    }
    free(bed->blocks);
    qy_device_close(bed->dev);
    qy_team_close(bed->rt.team);
    assert_int_equal(bed->alloc.live, 0);
}

struct qy_sequence_view lbed_view(const struct lbed *bed, uint32_t n_tokens)
{
    return (struct qy_sequence_view){.rows = lbed_rows(bed, 0),
                                     .slab_bytes = slab_bytes(),
                                     .sequence = 1,
                                     .n_tokens = n_tokens,
                                     .lo = LBED_LO,
                                     .hi = n_tokens + 1 - LBED_WINDOW};
}

void lbed_prepare(struct lbed *bed, uint32_t n_tokens)
{
    const struct qy_sequence_view view = lbed_view(bed, n_tokens);
    struct qy_error err = {QY_OK, ""};

    if (bed->ops->prepare(bed->policy, &view, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

uint32_t lbed_select(struct lbed *bed, uint32_t head, uint32_t n_tokens, uint32_t k, const float *q,
                     uint32_t *ids, float *part)
{
    uint32_t n = 0;
    const struct qy_select_item item = {.q = q,
                                        .rows = lbed_rows(bed, head),
                                        .group = bed->group,
                                        .n = n_tokens + 1,
                                        .lo = LBED_LO,
                                        .hi = n_tokens + 1 - LBED_WINDOW,
                                        .k = k,
                                        .kv_head = head,
                                        .sequence = 1,
                                        .ids = ids,
                                        .n_ids = &n,
                                        .part_out = part,
                                        .part_lse =
                                            part ? part + (size_t)bed->group * LBED_D : NULL};

    assert_int_equal(bed->ops->select(bed->policy, &item, 1, &bed->arena), QY_OK);
    return n;
}

void lbed_query(const struct lbed *bed, float *q, uint32_t seed)
{
    uint32_t state = seed;

    for (uint32_t i = 0; i < bed->group * LBED_D; i++) {
        q[i] = 2.0F * lbed_random(&state);
    }
}

double lbed_dot(const float *a, const float *b)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < LBED_D; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}
