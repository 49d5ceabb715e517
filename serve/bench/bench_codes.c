/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench kernels, third part: codes of quantizers, encoded, scored and chosen by. */
#include <stdlib.h>

#include "serve/bench/bench.h"

enum {
    HEAD_DIM = 64,
    GROUP = 3,
    TOKENS = 8192,
    ITEMS = 16, /* of one call */
    SHIFT = 7,
    N_BLOCKS = ITEMS * (TOKENS >> SHIFT),
    MAX_WORDS = 4096,
    K = 246 /* 3 % */
};

struct codes {
    struct qy_quantizer quantizer;
    float *encode, *bias, *decode, *keys, *q, *scores;
    uint8_t *slabs;
    uint8_t **blocks; /* [N_BLOCKS]      */
    uint32_t *ids;    /* [ITEMS][K]      */
    uint32_t counts[ITEMS];
    void *scratch;
    size_t scratch_bytes;
    uint32_t n_keys; /* encoded in one call and item */
};

static enum qy_status encode(void *data, struct qy_device *dev, uint32_t run)
{
    struct codes *c = data;
    struct qy_encode_item items[ITEMS];
    (void)run;
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i] =
            (struct qy_encode_item){.quantizer = &c->quantizer,
                                    .k = c->keys,
                                    .stride = HEAD_DIM,
                                    .codes = {c->blocks + (size_t)i * (TOKENS >> SHIFT), 0, SHIFT},
                                    .first = 0,
                                    .n = c->n_keys};
    }
    return qy_device_encode(dev, items, ITEMS);
}

static enum qy_status score(void *data, struct qy_device *dev, uint32_t run)
{
    struct codes *c = data;
    struct qy_code_score_item items[ITEMS];
    struct qy_arena arena;
    (void)run;
    qy_arena_init(&arena, c->scratch, c->scratch_bytes);
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i] = (struct qy_code_score_item){
            .quantizer = &c->quantizer,
            .q = c->q,
            .codes = {c->blocks + (size_t)i * (TOKENS >> SHIFT), 0, SHIFT},
            .first = 0,
            .n = TOKENS,
            .group = GROUP,
            .scores = c->scores + (size_t)i * GROUP * TOKENS,
            .stride = TOKENS};
    }
    return qy_device_code_score(dev, items, ITEMS, 0.125f, &arena);
}

static enum qy_status choose(void *data, struct qy_device *dev, uint32_t run)
{
    struct codes *c = data;
    struct qy_code_topk_item items[ITEMS];
    struct qy_arena arena;
    (void)run;
    qy_arena_init(&arena, c->scratch, c->scratch_bytes);
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i] = (struct qy_code_topk_item){
            .quantizer = &c->quantizer,
            .q = c->q,
            .codes = {c->blocks + (size_t)i * (TOKENS >> SHIFT), 0, SHIFT},
            .n = TOKENS,
            .group = GROUP,
            .k = K,
            .ids = c->ids + (size_t)i * K,
            .n_ids = &c->counts[i]};
    }
    return qy_device_code_topk(dev, items, ITEMS, 0.125f, &arena);
}

/* Floats of -1 .. 1. */
static float *numbers(size_t n)
{
    float *x = malloc(n * sizeof *x);
    uint64_t state = n;
    for (size_t i = 0; x != NULL && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(state >> 40) / (float)(1 << 23) - 1.0f;
    }
    return x;
}

static enum qy_status prepare(struct codes *c, struct qy_device *dev, struct qy_error *err)
{
    const size_t slab = (size_t)2 * HEAD_DIM << SHIFT; /* room for any of the quantizers */
    const struct qy_quantizer largest = {
        .d = HEAD_DIM, .m = 1, .bits = 16, .n_words = MAX_WORDS, .encode = NULL};
    const struct qy_quantizer coarse = {.d = HEAD_DIM, .m = 16, .bits = 4, .n_words = 16};
    const size_t chosen = qy_device_code_topk_scratch(dev, ITEMS, TOKENS, &coarse, GROUP);
    const size_t scored = qy_device_code_score_scratch(dev, ITEMS, &largest, GROUP);
    c->encode = numbers((size_t)HEAD_DIM * MAX_WORDS);
    c->decode = numbers((size_t)HEAD_DIM * MAX_WORDS);
    c->bias = numbers((size_t)MAX_WORDS + 1);
    c->keys = numbers((size_t)HEAD_DIM * TOKENS);
    c->q = numbers((size_t)HEAD_DIM * GROUP);
    c->scores = calloc((size_t)ITEMS * GROUP * TOKENS, sizeof *c->scores);
    c->slabs = aligned_alloc(64, slab * N_BLOCKS);
    c->blocks = calloc(N_BLOCKS, sizeof *c->blocks);
    c->ids = calloc((size_t)ITEMS * K, sizeof *c->ids);
    c->scratch_bytes = ((scored > chosen ? scored : chosen) + 63) / 64 * 64;
    c->scratch = aligned_alloc(64, c->scratch_bytes);
    if (!c->encode || !c->decode || !c->bias || !c->keys || !c->q || !c->scores || !c->slabs ||
        !c->blocks || !c->ids || !c->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench kernels: needs 40 MiB of memory for codes");
    }
    for (size_t i = 0; i < slab * N_BLOCKS; i++) { /* any bytes; of 16 bits below MAX_WORDS */
        c->slabs[i] = (uint8_t)((i * 2654435761u >> 13) & (i % 2 ? 0x0f : 0xff));
    }
    for (uint32_t b = 0; b < N_BLOCKS; b++) { /* neighbours of a sequence lie apart */
        c->blocks[b] = c->slabs + (size_t)(b * 61u % N_BLOCKS) * slab;
    }
    return QY_OK;
}

enum qy_status qyi_bench_codes(struct qyi_bench_target *target, struct qy_error *err)
{
    static const struct {
        const char *name;
        uint32_t m, bits, n_words, n_keys;
        int solo;
        enum qy_status (*run)(void *data, struct qy_device *dev, uint32_t run);
    } list[] = {
        {"encode_pq4 m=16 d=64, 1 thread", 16, 4, 16, 1024, 1, encode},
        {"encode_pq4 m=16 d=64, team", 16, 4, 16, 1024, 0, encode},
        {"encode_pq4 m=16 d=64, one key of 16", 16, 4, 16, 1, 1, encode},
        {"encode_vq 4096 words d=64, team", 1, 16, MAX_WORDS, 64, 0, encode},
        {"code_score_pq4 m=16 g=3, 1 thread", 16, 4, 16, TOKENS, 1, score},
        {"code_score_pq4 m=16 g=3, team", 16, 4, 16, TOKENS, 0, score},
        {"code_topk_pq4 m=16 g=3 k=3%, 1 thread", 16, 4, 16, TOKENS, 1, choose},
        {"code_topk_pq4 m=16 g=3 k=3%, team", 16, 4, 16, TOKENS, 0, choose},
        {"code_score_vq 4096 words g=3, 1 thread", 1, 16, MAX_WORDS, TOKENS, 1, score},
        {"code_score_vq 4096 words g=3, team", 1, 16, MAX_WORDS, TOKENS, 0, score},
    };
    struct codes c = {.n_keys = 0};
    enum qy_status st = prepare(&c, target->team, err);
    for (size_t i = 0; st == QY_OK && i < sizeof list / sizeof list[0] && !qyi_interrupted(); i++) {
        c.quantizer = (struct qy_quantizer){.d = HEAD_DIM,
                                            .m = list[i].m,
                                            .bits = list[i].bits,
                                            .n_words = list[i].n_words,
                                            .encode = c.encode,
                                            .bias = c.bias,
                                            .decode = c.decode};
        c.n_keys = list[i].n_keys;
        const double bytes =
            list[i].run == encode
                ? (double)c.n_keys * HEAD_DIM * sizeof(float)
                : (double)(TOKENS >> SHIFT) * (double)qy_code_slab_bytes(&c.quantizer, 1u << SHIFT);
        const struct qyi_bench_kernel kernel = {
            .name = list[i].name, .run = list[i].run, .solo = list[i].solo, .bytes = ITEMS * bytes};
        st = qyi_bench_measure(target, &kernel, &c, err);
    }
    free(c.encode);
    free(c.bias);
    free(c.decode);
    free(c.keys);
    free(c.q);
    free(c.scores);
    free(c.slabs);
    free(c.blocks);
    free(c.ids);
    free(c.scratch);
    return st;
}
