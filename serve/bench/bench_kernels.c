/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench kernels: each kernel of a decode step alone, on rows that no cache holds, with the
 * ceiling beside it: what memcpy reads on the same number of threads.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

enum {
    HEAD_DIM = 64,
    GROUP = 3,
    TOKENS = 8192,      /* of one item                                           */
    ITEMS = 256,        /* 256 x 8,192 rows of 256 B = 512 MiB                      */
    ITEMS_PER_RUN = 16, /* one call reads 32 MiB; calls walk through all items         */
    FAR_DIM = 128,      /* heads of larger models, few rows of a long context */
    FAR_GROUP = 4,
    FAR_TOKENS = 32768,
    FAR_IDS = 2048,
    FAR_ITEMS = 4,
    FAR_SPAN = FAR_TOKENS / TOKENS * (FAR_DIM / 64), /* items of TOKENS rows of 64 in one */
    SHIFT = 7
};

struct kernels {
    struct qyi_app *app;
    struct qy_runtime solo;
    struct qyi_bench_target target;
    uint8_t *rows;
    uint8_t **blocks; /* [ITEMS][TOKENS >> SHIFT] */
    float *q, *out, *scores;
    uint32_t *ids; /* [TOKENS] of a gather, then [FAR_IDS] */
    uint8_t *scratch;
    size_t scratch_bytes;
};

static struct qy_rows rows_of(const struct kernels *k, uint32_t item)
{
    return (struct qy_rows){.blocks = k->blocks + (size_t)item * (TOKENS >> SHIFT),
                            .offset = 0,
                            .shift = SHIFT,
                            .d = HEAD_DIM,
                            .type = QY_ROW_F16};
}

static uint32_t item_at(uint32_t run, uint32_t i)
{
    return (run * ITEMS_PER_RUN + i) % ITEMS;
}

static enum qy_status attend(struct kernels *k, struct qy_device *dev, uint32_t run, uint32_t n_ids)
{
    struct qy_attend_item items[ITEMS_PER_RUN];
    struct qy_arena arena;
    qy_arena_init(&arena, k->scratch, k->scratch_bytes);
    for (uint32_t i = 0; i < ITEMS_PER_RUN; i++) {
        items[i] = (struct qy_attend_item){.q = k->q,
                                           .rows = rows_of(k, item_at(run, i)),
                                           .ids = n_ids > 0 ? k->ids : NULL,
                                           .first = 0,
                                           .n = n_ids > 0 ? n_ids : TOKENS,
                                           .group = GROUP,
                                           .out = k->out + (size_t)i * GROUP * HEAD_DIM,
                                           .lse = NULL};
    }
    return qy_device_attend(dev, items, ITEMS_PER_RUN, 0.125f, &arena);
}

static enum qy_status attend_all(void *data, struct qy_device *dev, uint32_t run)
{
    return attend(data, dev, run, 0);
}

static enum qy_status attend_gather(void *data, struct qy_device *dev, uint32_t run)
{
    return attend(data, dev, run, TOKENS / 20);
}

/* The same memory as rows of twice the size: those of one far item are FAR_SPAN items' blocks. */
static enum qy_status attend_far(void *data, struct qy_device *dev, uint32_t run)
{
    struct kernels *k = data;
    struct qy_attend_item items[FAR_ITEMS];
    struct qy_arena arena;
    qy_arena_init(&arena, k->scratch, k->scratch_bytes);
    for (uint32_t i = 0; i < FAR_ITEMS; i++) {
        struct qy_rows rows = rows_of(k, (run * FAR_ITEMS + i) * FAR_SPAN % ITEMS);
        rows.d = FAR_DIM;
        rows.shift = SHIFT - 1;
        items[i] = (struct qy_attend_item){.q = k->q,
                                           .rows = rows,
                                           .ids = k->ids + TOKENS,
                                           .n = FAR_IDS,
                                           .group = FAR_GROUP,
                                           .out = k->out + (size_t)i * FAR_GROUP * FAR_DIM};
    }
    return qy_device_attend(dev, items, FAR_ITEMS, 0.09f, &arena);
}

static enum qy_status score(void *data, struct qy_device *dev, uint32_t run)
{
    struct kernels *k = data;
    struct qy_score_item items[ITEMS_PER_RUN];
    for (uint32_t i = 0; i < ITEMS_PER_RUN; i++) {
        items[i] = (struct qy_score_item){.q = k->q,
                                          .rows = rows_of(k, item_at(run, i)),
                                          .first = 0,
                                          .n = TOKENS,
                                          .group = GROUP,
                                          .scores = k->scores + (size_t)i * GROUP * TOKENS};
    }
    return qy_device_score(dev, items, ITEMS_PER_RUN, 0.125f);
}

static enum qy_status row_kernels(struct kernels *k, struct qy_error *err)
{
    const double row = (double)qy_row_bytes(QY_ROW_F16, HEAD_DIM), n = ITEMS_PER_RUN;
    const double far_row = (double)qy_row_bytes(QY_ROW_F16, FAR_DIM);
    const double far_ids = (double)FAR_ITEMS * FAR_IDS;
    const struct qyi_bench_kernel list[] = {
        {"attend f16 g=3 d=64, 1 thread", attend_all, 1, n * TOKENS * row},
        {"attend f16 g=3 d=64, team", attend_all, 0, n * TOKENS * row},
        {"gather-attend 5 % of 8192, 1 thread", attend_gather, 1, n * (TOKENS / 20) * row},
        {"gather-attend 5 % of 8192, team", attend_gather, 0, n * (TOKENS / 20) * row},
        {"score exact keys, 1 thread", score, 1, n * TOKENS * row / 2},
        {"score exact keys, team", score, 0, n * TOKENS * row / 2},
        {"gather-attend 2048 of 32K d=128, 1 thread", attend_far, 1, far_row * far_ids},
        {"gather-attend 2048 of 32K d=128, team", attend_far, 0, far_row * far_ids},
    };
    return qyi_bench_measure_all(&k->target, list, sizeof list / sizeof list[0], k, err);
}

/* Random rows in blocks of 128, queries, ids. */
static enum qy_status prepare(struct kernels *k, struct qy_error *err)
{
    const size_t row = qy_row_bytes(QY_ROW_F16, HEAD_DIM), n_rows = (size_t)ITEMS * TOKENS;
    const size_t n_blocks = n_rows >> SHIFT;
    k->scratch_bytes =
        qy_device_attend_scratch(k->target.team, ITEMS_PER_RUN, TOKENS, GROUP, HEAD_DIM) +
        qy_device_attend_scratch(k->target.team, FAR_ITEMS, FAR_IDS, FAR_GROUP, FAR_DIM);
    k->rows = aligned_alloc(4096, n_rows * row);
    k->blocks = calloc(n_blocks, sizeof(uint8_t *));
    k->q = calloc(FAR_GROUP * FAR_DIM, sizeof(float));
    k->out = calloc((size_t)ITEMS_PER_RUN * GROUP * HEAD_DIM, sizeof(float));
    k->scores = calloc((size_t)ITEMS_PER_RUN * GROUP * TOKENS, sizeof(float));
    k->ids = calloc((size_t)TOKENS + FAR_IDS, sizeof(uint32_t));
    k->scratch = aligned_alloc(64, (k->scratch_bytes + 63) / 64 * 64);
    if (!k->rows || !k->blocks || !k->q || !k->out || !k->scores || !k->ids || !k->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench kernels: needs 700 MiB of memory");
    }
    uint64_t state = (uint64_t)k->app->program.seed + 1;
    uint16_t *halves = (uint16_t *)(void *)k->rows;
    for (size_t i = 0; i < n_rows * row / 2; i++) { /* halves of -2 .. 2 */
        state = state * 6364136223846793005u + 1442695040888963407u;
        const uint16_t bits = (uint16_t)(state >> 48);
        halves[i] = (uint16_t)((bits & 0x83ff) | 0x3800 | ((bits & 0x0400) ? 0x0400 : 0));
    }
    for (size_t i = 0; i < n_blocks; i++) {
        k->blocks[i] = k->rows + (i << SHIFT) * row;
    }
    for (uint32_t i = 0; i < FAR_GROUP * FAR_DIM; i++) {
        k->q[i] = (float)(i % 13) * 0.1f - 0.6f;
    }
    for (uint32_t i = 0; i < TOKENS / 20; i++) { /* one of every 20, at no fixed distance */
        k->ids[i] = i * 20 + (i * 7) % 20;
    }
    for (uint32_t i = 0; i < FAR_IDS; i++) {
        k->ids[TOKENS + i] = i * (FAR_TOKENS / FAR_IDS) + i * 7 % (FAR_TOKENS / FAR_IDS);
    }
    return QY_OK;
}

static void release(struct kernels *k)
{
    free(k->rows);
    free(k->blocks);
    free(k->q);
    free(k->out);
    free(k->scores);
    free(k->ids);
    free(k->scratch);
    qy_device_close(k->target.solo);
    qy_device_close(k->target.team);
    cJSON_Delete(k->target.report.results);
}

enum qy_status qyi_bench_kernels(struct qyi_app *app, struct qy_error *err)
{
    struct kernels k = {.app = app, .solo = app->rt};
    k.solo.team = NULL;
    k.target.report.results = cJSON_CreateArray();
    k.target.report.json = app->args->json;
    const struct qy_device_params params = {.spec = app->program.device,
                                            .compute = (enum qy_compute)app->program.compute,
                                            .deterministic = app->program.deterministic,
                                            .max_m = 512};
    enum qy_status st = qy_device_open(&app->rt, &params, &k.target.team, err);
    if (st == QY_OK) {
        st = qy_device_open(&k.solo, &params, &k.target.solo, err);
    }
    if (st == QY_OK) {
        st = prepare(&k, err);
    }
    if (st == QY_OK) {
        k.target.ceiling_solo = qyi_bench_memcpy_gbps(NULL);
        k.target.ceiling = qyi_bench_memcpy_gbps(app->rt.team);
        if (!app->args->json) {
            printf(
                "%s, %s, %u threads; ceiling: memcpy reads %.1f GB/s with 1 thread, %.1f with "
                "all\n",
                qy_device_caps(k.target.team)->name, qy_device_caps(k.target.team)->dense,
                app->n_threads, k.target.ceiling_solo, k.target.ceiling);
        }
        st = row_kernels(&k, err);
    }
    if (st == QY_OK) {
        st = qyi_bench_codes(&k.target, err);
    }
    if (st == QY_OK) {
        st = qyi_bench_keys(&k.target, err);
    }
    if (st == QY_OK) {
        st = qyi_bench_selection(&k.target, err);
    }
    if (st == QY_OK) {
        st = qyi_bench_products(app, k.target.team, k.target.ceiling, &k.target.report, err);
    }
    if (st == QY_OK && app->args->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "device", qy_device_caps(k.target.team)->name);
        cJSON_AddItemToObject(object, "results", k.target.report.results);
        k.target.report.results = NULL;
        qyi_print_json(object);
    }
    release(&k);
    return st;
}
