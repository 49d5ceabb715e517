/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench kernels, fourth part: 4-bit keys and page bounds, on bytes that no cache holds. */
#include <stdlib.h>

#include "serve/bench/bench.h"

enum {
    HEAD_DIM = 64,
    GROUP = 3,
    TOKENS = 8192,
    ITEMS = 256, /* 256 x 8,192 tokens of 36 and 16 B: 104 MiB; calls walk through all items */
    ITEMS_PER_RUN = 16,
    SHIFT = 7,
    N_BLOCKS = ITEMS * (TOKENS >> SHIFT),
    PAGE = 16,
    N_IDS = TOKENS / 8, /* reranked */
    N_NEW = 256         /* appended to an item in one call */
};

struct keys {
    float *k, *q, *scores;
    uint8_t *slabs;
    uint8_t **blocks; /* [N_BLOCKS]: keys, then bounds */
    size_t key_bytes; /* of a block */
    uint32_t *ids;
    void *scratch;
    size_t scratch_bytes;
};

static struct qy_slab slab_of(const struct keys *k, uint32_t run, uint32_t i, size_t offset)
{
    const uint32_t item = (run * ITEMS_PER_RUN + i) % ITEMS;
    return (struct qy_slab){k->blocks + (size_t)item * (TOKENS >> SHIFT), offset, SHIFT};
}

static enum qy_status score(struct keys *k, struct qy_device *dev, uint32_t run,
                            const uint32_t *ids, uint32_t n)
{
    struct qy_key4_score_item items[ITEMS_PER_RUN];
    struct qy_arena arena;
    qy_arena_init(&arena, k->scratch, k->scratch_bytes);
    for (uint32_t i = 0; i < ITEMS_PER_RUN; i++) {
        items[i] = (struct qy_key4_score_item){.q = k->q,
                                               .d = HEAD_DIM,
                                               .group = GROUP,
                                               .keys = slab_of(k, run, i, 0),
                                               .ids = ids,
                                               .first = 0,
                                               .n = n,
                                               .scores = k->scores + (size_t)i * GROUP * TOKENS,
                                               .stride = TOKENS};
    }
    return qy_device_key4_score(dev, items, ITEMS_PER_RUN, 0.125f, &arena);
}

static enum qy_status score_ids(void *data, struct qy_device *dev, uint32_t run)
{
    struct keys *k = data;
    return score(k, dev, run, k->ids, N_IDS);
}

static enum qy_status score_all(void *data, struct qy_device *dev, uint32_t run)
{
    return score(data, dev, run, NULL, TOKENS);
}

static enum qy_status append(void *data, struct qy_device *dev, uint32_t run)
{
    struct keys *k = data;
    struct qy_key4_item items[ITEMS_PER_RUN];
    for (uint32_t i = 0; i < ITEMS_PER_RUN; i++) {
        items[i] = (struct qy_key4_item){.k = k->k,
                                         .stride = HEAD_DIM,
                                         .d = HEAD_DIM,
                                         .keys = slab_of(k, run, i, 0),
                                         .first = 0,
                                         .n = N_NEW};
    }
    return qy_device_key4_append(dev, items, ITEMS_PER_RUN);
}

static enum qy_status bounds(void *data, struct qy_device *dev, uint32_t run)
{
    struct keys *k = data;
    struct qy_bound_score_item items[ITEMS_PER_RUN];
    for (uint32_t i = 0; i < ITEMS_PER_RUN; i++) {
        items[i] = (struct qy_bound_score_item){.q = k->q,
                                                .d = HEAD_DIM,
                                                .group = GROUP,
                                                .page = PAGE,
                                                .bounds = slab_of(k, run, i, k->key_bytes),
                                                .first = 0,
                                                .n = TOKENS / PAGE,
                                                .scores = k->scores + (size_t)i * GROUP * TOKENS,
                                                .stride = TOKENS / PAGE};
    }
    return qy_device_bound_score(dev, items, ITEMS_PER_RUN, 0.125f);
}

static enum qy_status prepare(struct keys *k, struct qy_device *dev, struct qy_error *err)
{
    k->key_bytes = qy_key4_slab_bytes(HEAD_DIM, 1u << SHIFT);
    const size_t block = k->key_bytes + qy_bound_slab_bytes(HEAD_DIM, PAGE, 1u << SHIFT);
    k->k = malloc((size_t)N_NEW * HEAD_DIM * sizeof *k->k);
    k->q = malloc((size_t)GROUP * HEAD_DIM * sizeof *k->q);
    k->scores = calloc((size_t)ITEMS_PER_RUN * GROUP * TOKENS, sizeof *k->scores);
    k->slabs = aligned_alloc(64, block * N_BLOCKS);
    k->blocks = calloc(N_BLOCKS, sizeof *k->blocks);
    k->ids = calloc(N_IDS, sizeof *k->ids);
    k->scratch_bytes =
        (qy_device_key4_score_scratch(dev, ITEMS_PER_RUN, GROUP, HEAD_DIM) + 63) / 64 * 64;
    k->scratch = aligned_alloc(64, k->scratch_bytes);
    if (!k->k || !k->q || !k->scores || !k->slabs || !k->blocks || !k->ids || !k->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench kernels: needs 110 MiB of memory for keys");
    }
    for (uint32_t i = 0; i < N_NEW * HEAD_DIM; i++) {
        k->k[i] = (float)(i * 2654435761u >> 8) / (float)(1 << 23) - 1.0f;
    }
    for (uint32_t i = 0; i < GROUP * HEAD_DIM; i++) {
        k->q[i] = (float)(i % 13) * 0.1f - 0.6f;
    }
    for (size_t i = 0; i < block * N_BLOCKS; i++) { /* any nibbles; halves without infinities */
        k->slabs[i] = (uint8_t)((i * 2654435761u >> 13) & 0xbf);
    }
    for (uint32_t b = 0; b < N_BLOCKS; b++) { /* neighbours of a sequence lie apart */
        k->blocks[b] = k->slabs + (size_t)(b * 61u % N_BLOCKS) * block;
    }
    for (uint32_t i = 0; i < N_IDS; i++) { /* one of every 8, at no fixed distance */
        k->ids[i] = i * 8 + i * 5 % 8;
    }
    return QY_OK;
}

enum qy_status qyi_bench_keys(struct qyi_bench_target *target, struct qy_error *err)
{
    const double token = HEAD_DIM / 2 + 4, n = ITEMS_PER_RUN;
    const struct qyi_bench_kernel list[] = {
        {"key4_score_ids 1024 g=3, 1 thread", score_ids, 1, n * N_IDS * token},
        {"key4_score_ids 1024 g=3, team", score_ids, 0, n * N_IDS * token},
        {"key4_score_all 8192 g=3, 1 thread", score_all, 1, n * TOKENS * token},
        {"key4_score_all 8192 g=3, team", score_all, 0, n * TOKENS * token},
        {"bound_score page=16 g=3, 1 thread", bounds, 1, n * TOKENS / PAGE * HEAD_DIM * 4},
        {"bound_score page=16 g=3, team", bounds, 0, n * TOKENS / PAGE * HEAD_DIM * 4},
        /* last: keys written now */
        {"key4_append d=64, 1 thread", append, 1, n * N_NEW * HEAD_DIM * 4},
        {"key4_append d=64, team", append, 0, n * N_NEW * HEAD_DIM * 4},
    };
    struct keys k = {.k = NULL};
    enum qy_status st = prepare(&k, target->team, err);
    if (st == QY_OK) {
        st = qyi_bench_measure_all(target, list, sizeof list / sizeof list[0], &k, err);
    }
    free(k.k);
    free(k.q);
    free(k.scores);
    free(k.slabs);
    free(k.blocks);
    free(k.ids);
    free(k.scratch);
    return st;
}
