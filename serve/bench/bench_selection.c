/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench kernels, fifth part: from scores to ids. Scores come from the caches, as they do in
 * a step, whose kernels have just written them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

enum {
    GROUP = 3,
    TOKENS = 8192,
    LONG_TOKENS = 131072,
    FEW_ITEMS = 3, /* one sequence of a small model: as many items as KV heads */
    ITEMS = 16,
    LISTS = 3,
    LIST_IDS = 240 /* of one query head */
};

struct selection {
    float *scores; /* [ITEMS][GROUP][TOKENS]       */
    float *shares; /* [FEW_ITEMS][LONG_TOKENS] and as [ITEMS][TOKENS] */
    float *pooled; /* [ITEMS][TOKENS]              */
    float mass;    /* of shares of one item        */
    uint32_t *lists, *counts, *ids, *n_ids;
    void *scratch;
    size_t scratch_bytes;
};

static enum qy_status pool(struct selection *s, struct qy_device *dev, uint32_t n_items)
{
    struct qy_pool_item items[ITEMS];
    float mass[ITEMS];
    for (uint32_t i = 0; i < n_items; i++) {
        items[i] = (struct qy_pool_item){.scores = s->scores + (size_t)i * GROUP * TOKENS,
                                         .n = TOKENS,
                                         .group = GROUP,
                                         .lo = 8,
                                         .hi = TOKENS - 64,
                                         .pooled = s->pooled + (size_t)i * TOKENS,
                                         .mass = &mass[i]};
    }
    return qy_device_pool(dev, items, n_items);
}

static enum qy_status pool_few(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return pool(data, dev, FEW_ITEMS);
}

static enum qy_status pool_many(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return pool(data, dev, ITEMS);
}

static enum qy_status topk(struct selection *s, struct qy_device *dev, uint32_t n_items, uint32_t n,
                           uint32_t k, float mass)
{
    struct qy_topk_item items[ITEMS];
    struct qy_arena arena;
    qy_arena_init(&arena, s->scratch, s->scratch_bytes);
    for (uint32_t i = 0; i < n_items; i++) {
        items[i] = (struct qy_topk_item){.scores = s->shares + (size_t)i * n,
                                         .n = n,
                                         .k = k,
                                         .mass = mass,
                                         .candidate_mass = &s->mass,
                                         .id_base = 8,
                                         .ids = s->ids + (size_t)i * k,
                                         .n_ids = s->n_ids + i};
    }
    return qy_device_topk(dev, items, n_items, &arena);
}

static enum qy_status topk_few(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return topk(data, dev, FEW_ITEMS, TOKENS, TOKENS / 20, 0.0f);
}

static enum qy_status topk_many(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return topk(data, dev, ITEMS, TOKENS, TOKENS / 20, 0.0f);
}

static enum qy_status topk_long(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return topk(data, dev, FEW_ITEMS, LONG_TOKENS, LONG_TOKENS / 20, 0.0f);
}

static enum qy_status topp_many(void *data, struct qy_device *dev, uint32_t run)
{
    (void)run;
    return topk(data, dev, ITEMS, TOKENS, TOKENS / 5, 0.9f);
}

static enum qy_status unite(void *data, struct qy_device *dev, uint32_t run)
{
    struct selection *s = data;
    struct qy_union_item items[ITEMS];
    (void)run;
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i] = (struct qy_union_item){.lists = s->lists + (size_t)i * LISTS * LIST_IDS,
                                          .counts = s->counts,
                                          .n_lists = LISTS,
                                          .stride = LIST_IDS,
                                          .ids = s->ids + (size_t)i * LISTS * LIST_IDS,
                                          .n_ids = s->n_ids + i};
    }
    return qy_device_union(dev, items, ITEMS);
}

/* As shares of attention are: many magnitudes, 0.98 in all per TOKENS of them. */
static void fill_shares(struct selection *s)
{
    uint64_t state = 1;
    double sum = 0.0;
    for (size_t i = 0; i < (size_t)FEW_ITEMS * LONG_TOKENS; i++) {
        float x = 0.0f;
        for (int j = 0; j < 4; j++) { /* the sum of four is about normal */
            state = state * 6364136223846793005u + 1442695040888963407u;
            x += (float)(state >> 40) * 0x1p-24f - 0.5f;
        }
        s->shares[i] = expf(4.0f * x);
        sum += (double)s->shares[i];
    }
    s->mass = 0.98f;
    const double each = 0.98 * FEW_ITEMS * LONG_TOKENS / TOKENS / sum;
    for (size_t i = 0; i < (size_t)FEW_ITEMS * LONG_TOKENS; i++) {
        s->shares[i] = (float)((double)s->shares[i] * each);
    }
}

static enum qy_status prepare(struct selection *s, struct qy_device *dev, struct qy_error *err)
{
    const size_t n_ids = (size_t)ITEMS * (TOKENS / 5) + (size_t)FEW_ITEMS * LONG_TOKENS / 20;
    s->scratch_bytes = (qy_device_topk_scratch(dev, ITEMS, LONG_TOKENS) + 63) / 64 * 64;
    s->scores = malloc((size_t)ITEMS * GROUP * TOKENS * sizeof *s->scores);
    s->shares = malloc((size_t)FEW_ITEMS * LONG_TOKENS * sizeof *s->shares);
    s->pooled = malloc((size_t)ITEMS * TOKENS * sizeof *s->pooled);
    s->lists = malloc((size_t)ITEMS * LISTS * LIST_IDS * sizeof *s->lists);
    s->counts = malloc(LISTS * sizeof *s->counts);
    s->ids = malloc(n_ids * sizeof *s->ids);
    s->n_ids = malloc(ITEMS * sizeof *s->n_ids);
    s->scratch = aligned_alloc(64, s->scratch_bytes);
    if (!s->scores || !s->shares || !s->pooled || !s->lists || !s->counts || !s->ids || !s->n_ids ||
        !s->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench kernels: needs 8 MiB of memory for scores");
    }
    fill_shares(s);
    for (uint32_t i = 0; i < ITEMS * GROUP * TOKENS; i++) {
        s->scores[i] = logf(s->shares[i % (FEW_ITEMS * LONG_TOKENS)] + 1e-9f);
    }
    const uint32_t step = TOKENS / LIST_IDS;
    for (uint32_t i = 0; i < ITEMS * LISTS * LIST_IDS; i++) {
        s->lists[i] = i % LIST_IDS * step + i * 2654435761u % step;
    }
    for (uint32_t j = 0; j < LISTS; j++) {
        s->counts[j] = LIST_IDS;
    }
    return QY_OK;
}

enum qy_status qyi_bench_selection(struct qyi_bench_target *target, struct qy_error *err)
{
    const double few = FEW_ITEMS, many = ITEMS, head = TOKENS * 4.0;
    const struct qyi_bench_kernel list[] = {
        {"pool g=3 16 x 8192, 1 thread", pool_many, 1, many * GROUP * head},
        {"pool g=3 16 x 8192, team", pool_many, 0, many * GROUP * head},
        {"pool g=3 3 x 8192, team", pool_few, 0, few * GROUP * head},
        {"top-k 5 % of 16 x 8192, 1 thread", topk_many, 1, many * head},
        {"top-k 5 % of 16 x 8192, team", topk_many, 0, many * head},
        {"top-k 5 % of 3 x 8192, team", topk_few, 0, few * head},
        {"top-k 5 % of 3 x 131072, 1 thread", topk_long, 1, few * LONG_TOKENS * 4},
        {"top-k 5 % of 3 x 131072, team", topk_long, 0, few * LONG_TOKENS * 4},
        {"top-p 0.9 of 16 x 8192, 1 thread", topp_many, 1, many * head},
        {"top-p 0.9 of 16 x 8192, team", topp_many, 0, many * head},
        {"union 16 x 3 x 240 ids, 1 thread", unite, 1, many * LISTS * LIST_IDS * 4},
        {"union 16 x 3 x 240 ids, team", unite, 0, many * LISTS * LIST_IDS * 4},
    };
    struct selection s = {.scores = NULL};
    enum qy_status st = prepare(&s, target->team, err);
    if (st == QY_OK) {
        st = qyi_bench_measure_all(target, list, sizeof list / sizeof list[0], &s, err);
    }
    free(s.scores);
    free(s.shares);
    free(s.pooled);
    free(s.lists);
    free(s.counts);
    free(s.ids);
    free(s.n_ids);
    free(s.scratch);
    return st;
}
