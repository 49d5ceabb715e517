/* SPDX-License-Identifier: Apache-2.0 */
/* See token_bed.h. */
#include "tests/unit/retrieval/token_bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BYTES = 2 * BED_D * 4, BLOCK_ROWS = 1 << BED_SHIFT };

static float uniform(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(*state >> 8) * 0x1p-23F - 1.0F;
}

/* x turned to a position, in f64. Adjacent pairs: Su et al. 2021, eq. 34. */
static void turn(const struct bed *bed, const float *x, double position, double *out)
{
    for (uint32_t p = 0; p < BED_D / 2; p++) {
        const double angle = position * (double)bed->inv_freq[p];
        const double a = x[2 * p];
        const double b = x[2 * p + 1];

        out[2 * p] = a * cos(angle) - b * sin(angle);
        out[2 * p + 1] = a * sin(angle) + b * cos(angle);
    }
}

static void turn_floats(const struct bed *bed, const float *x, uint32_t position, float *out)
{
    double turned[BED_D];

    turn(bed, x, position, turned);
    for (uint32_t i = 0; i < BED_D; i++) {
        out[i] = (float)turned[i];
    }
}

struct bed *bed_new(uint32_t threads)
{
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    const struct qy_team_params team = {.n_threads = threads};
    struct bed *bed = calloc(1, sizeof(*bed));
    struct qy_config *config = NULL;
    uint32_t state = 77;

    assert_non_null(bed);
    bed->texts = calloc(BED_TEXTS, sizeof(*bed->texts));
    assert_non_null(bed->texts);
    bed->rt.mem = qy_allocator_system();
    qy_cpu_detect(&bed->rt.cpu);
    assert_int_equal(qy_team_open(&bed->rt.mem, &team, &bed->rt.team, NULL), QY_OK);
    assert_int_equal(qy_device_open(&bed->rt, &device, &bed->dev, NULL), QY_OK);
    const struct qy_setting_table table = {qy_retrieval_setting_rows, qy_retrieval_setting_count,
                                           &bed->settings};
    assert_int_equal(qy_config_open(&bed->rt.mem, &table, 1, &config, NULL), QY_OK);
    qy_config_close(config);
    for (uint32_t p = 0; p < BED_D / 2; p++) {
        bed->inv_freq[p] = powf(1000.0F, -2.0F * (float)p / BED_D);
    }
    for (uint32_t i = 0; i < BED_KV * BED_WORDS * BED_D; i++) {
        /* as codebooks hold them */
        (&bed->words[0][0][0])[i] = qy_f32_from_f16(qy_f16_from_f32(uniform(&state)));
    }
    bed->params = (struct qy_policy_params){
        .rt = &bed->rt,
        .dev = bed->dev,
        .n_layers = 1,
        .n_heads = BED_KV * BED_GROUP,
        .n_kv_heads = BED_KV,
        .head_dim = BED_D,
        .max_sequences = BED_TEXTS,
        .max_tokens = BED_MAX_N,
        .block_tokens = BLOCK_ROWS,
        .sinks = BED_SINKS,
        .window = BED_WINDOW,
        .rope = {.dim = BED_D, .pairs = QY_ROPE_ADJACENT, .inv_freq = bed->inv_freq},
        .scale = 0.5F,
        .argument = "",
        .settings = &bed->settings};
    return bed;
}

static void text_free(struct bed_text *text)
{
    for (uint32_t b = 0; b < BED_MAX_BLOCKS; b++) {
        free(text->blocks[b]);
        text->blocks[b] = NULL;
    }
}

void bed_free(struct bed *bed)
{
    bed_policy_close(bed);
    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        text_free(&bed->texts[i]);
    }
    qy_device_close(bed->dev);
    qy_team_close(bed->rt.team);
    free(bed->arena.base);
    free(bed->texts);
    free(bed);
}

struct qy_arena *bed_arena(struct bed *bed, size_t bytes)
{
    void *base = malloc(bytes);

    assert_non_null(base);
    free(bed->arena.base);
    qy_arena_init(&bed->arena, base, bytes);
    return &bed->arena;
}

/* Whole blocks with room for the index, of which nothing is kept. */
static void blocks_make(struct bed *bed, struct bed_text *text)
{
    const size_t rows = (size_t)BED_KV * BLOCK_ROWS * ROW_BYTES;
    const size_t bytes = rows + BED_KV * bed->slab_bytes;

    text_free(text);
    for (uint32_t t = 0; t < text->n; t++) {
        uint8_t **block = &text->blocks[t >> BED_SHIFT];
        const size_t at = (t & (BLOCK_ROWS - 1)) * (size_t)ROW_BYTES;

        if (!*block) {
            *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
            assert_non_null(*block);
            memset(*block, 0x5a, bytes);
        }
        for (uint32_t h = 0; h < BED_KV; h++) {
            uint8_t *row = *block + (size_t)h * BLOCK_ROWS * ROW_BYTES + at;

            memcpy(row, text->k[t][h], BED_D * sizeof(float));
            memset(row + BED_D * sizeof(float), 0, BED_D * sizeof(float));
        }
    }
}

void bed_text(struct bed *bed, uint32_t i, uint32_t n, float noise)
{
    struct bed_text *text = &bed->texts[i];
    uint32_t state = 1000 + i;

    assert_in_range(n, 1, BED_MAX_N);
    text->n = n;
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < BED_KV; h++) {
            const uint32_t word = (uint32_t)(fabsf(uniform(&state)) * BED_WORDS) % BED_WORDS;

            for (uint32_t j = 0; j < BED_D; j++) {
                text->k_before[t][h][j] = bed->words[h][word][j] + noise * uniform(&state);
            }
            turn_floats(bed, text->k_before[t][h], t, text->k[t][h]);
        }
    }
    for (uint32_t h = 0; h < BED_KV * BED_GROUP; h++) {
        for (uint32_t j = 0; j < BED_D; j++) {
            text->q_before[h * BED_D + j] = 1.5F * uniform(&state);
        }
        turn_floats(bed, &text->q_before[(size_t)h * BED_D], n - 1, &text->q[(size_t)h * BED_D]);
    }
    blocks_make(bed, text);
}

static struct qy_rows rows_of(const struct bed_text *text, uint32_t h)
{
    return (struct qy_rows){.blocks = text->blocks,
                            .offset = (size_t)h * BLOCK_ROWS * ROW_BYTES,
                            .shift = BED_SHIFT,
                            .d = BED_D,
                            .type = QY_ROW_F32};
}

static struct qy_slab slab_of(const struct bed *bed, const struct bed_text *text, uint32_t h)
{
    const size_t rows = (size_t)BED_KV * BLOCK_ROWS * ROW_BYTES;

    return (struct qy_slab){
        .blocks = text->blocks, .offset = rows + h * bed->slab_bytes, .shift = BED_SHIFT};
}

void bed_item(struct bed *bed, uint32_t at, uint32_t i, uint32_t h, uint32_t k)
{
    const struct bed_text *text = &bed->texts[i];
    const uint32_t n = text->n;
    const uint32_t lo = n < BED_SINKS ? n : BED_SINKS;
    const uint32_t hi = n > BED_WINDOW && n - BED_WINDOW > lo ? n - BED_WINDOW : lo;

    bed->items[at] = (struct qy_select_item){.q = &text->q[(size_t)h * BED_GROUP * BED_D],
                                             .rows = rows_of(text, h),
                                             .index = slab_of(bed, text, h),
                                             .group = BED_GROUP,
                                             .n = n,
                                             .lo = lo,
                                             .hi = hi,
                                             .k = k < hi - lo ? k : hi - lo,
                                             .mass = bed->mass,
                                             .kv_head = h,
                                             .sequence = i,
                                             .ids = bed->ids[at],
                                             .n_ids = &bed->n_ids[at]};
    memset(bed->ids[at], 0xff, sizeof(bed->ids[at]));
    bed->n_ids[at] = UINT32_MAX;
}

/* ---- codebooks ----------------------------------------------------------------------------- */

static struct qy_codebook *make_codebook(const struct bed *bed, enum qy_codebook_kind kind)
{
    const int pq = kind == QY_CODEBOOK_PQ4;
    const struct qy_codebook_info info = {.kind = kind,
                                          .model_name = "bed",
                                          .n_layers = 1,
                                          .n_kv_heads = BED_KV,
                                          .head_dim = BED_D,
                                          .m = pq ? BED_D / 4 : 1,
                                          .bits = pq ? 4 : 8,
                                          .n_words = pq ? 16 : BED_WORDS};
    struct qy_codebook *book = NULL;
    uint16_t order[BED_D];
    float scale[BED_D];

    assert_int_equal(qy_codebook_new(&bed->rt.mem, &info, &book, NULL), QY_OK);
    for (uint32_t j = 0; j < BED_D; j++) {
        order[j] = (uint16_t)j;
        scale[j] = 1.0F;
    }
    for (uint32_t h = 0; h < BED_KV; h++) {
        float words[BED_WORDS * BED_D];
        const struct qy_codebook_words tables = {
            .words = words, .order = pq ? order : NULL, .scale = pq ? scale : NULL};

        for (uint32_t w = 0; w < info.n_words; w++) {
            float turned[BED_D]; /* product codes see keys after RoPE, at positions of all kinds */

            turn_floats(bed, bed->words[h][w], pq ? 37 * w : 0, turned);
            for (uint32_t j = 0; j < info.m; j++) {
                const uint32_t part = BED_D / info.m;

                memcpy(&words[(j * info.n_words + w) * part], &turned[j * part],
                       part * sizeof(float));
            }
        }
        assert_int_equal(qy_codebook_set(book, 0, h, &tables, NULL), QY_OK);
    }
    return book;
}

/* ---- policies ------------------------------------------------------------------------------ */

void bed_append(struct bed *bed, uint32_t i, uint32_t first, uint32_t n)
{
    const int before = bed->ops->caps.append_form == QY_KEYS_BEFORE_ROPE;
    const struct bed_text *text = &bed->texts[i];
    struct qy_append_view views[BED_KV];

    for (uint32_t h = 0; h < BED_KV; h++) {
        views[h] =
            (struct qy_append_view){.k = before ? text->k_before[first][h] : text->k[first][h],
                                    .stride = (size_t)BED_KV * BED_D,
                                    .group = BED_GROUP,
                                    .first = first,
                                    .n = n,
                                    .kv_head = h,
                                    .sequence = i,
                                    .rows = rows_of(text, h),
                                    .index = slab_of(bed, text, h)};
    }
    struct qy_arena *arena = bed_arena(bed, bed->ops->scratch(bed->policy, BED_KV, n));
    assert_int_equal(bed->ops->append(bed->policy, views, BED_KV, arena), QY_OK);
    assert_int_equal(arena->used, 0);
}

void bed_policy(struct bed *bed, const char *name, uint32_t step)
{
    struct qy_error err = {QY_OK, ""};

    bed_policy_close(bed);
    bed->ops = qy_policy_find(name);
    assert_non_null(bed->ops);
    if (bed->ops->codebook && bed->ops->codebook(&bed->settings) != QY_CODEBOOK_NONE) {
        bed->codebook = make_codebook(bed, bed->ops->codebook(&bed->settings));
    }
    bed->params.codebook = bed->codebook;
    if (bed->ops->open(&bed->params, &bed->policy, &err) != QY_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    bed->slab_bytes = bed->ops->index_bytes ? bed->ops->index_bytes(bed->policy) : 0;
    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        const uint32_t n = bed->texts[i].n;

        blocks_make(bed, &bed->texts[i]);
        for (uint32_t at = 0; bed->ops->append && at < n;) {
            const uint32_t some = step > 0 && n - at > step ? step : n - at;

            bed_append(bed, i, at, some);
            at += some;
        }
    }
}

void bed_policy_close(struct bed *bed)
{
    if (bed->policy) {
        bed->ops->close(bed->policy);
        bed->policy = NULL;
    }
    qy_codebook_close(bed->codebook);
    bed->codebook = NULL;
}

void bed_select(struct bed *bed, uint32_t n_items)
{
    uint32_t max_n = 1;

    for (uint32_t i = 0; i < n_items; i++) {
        max_n = bed->items[i].n > max_n ? bed->items[i].n : max_n;
    }
    struct qy_arena *arena = bed_arena(bed, bed->ops->scratch(bed->policy, n_items, max_n));
    assert_int_equal(bed->ops->select(bed->policy, bed->items, n_items, arena), QY_OK);
    assert_int_equal(arena->used, 0);
    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_select_item *it = &bed->items[i];

        assert_in_range(bed->n_ids[i], 0, it->hi - it->lo);
        for (uint32_t j = 0; j < bed->n_ids[i]; j++) {
            assert_in_range(bed->ids[i][j], it->lo, it->hi - 1);
            assert_true(j == 0 || bed->ids[i][j] > bed->ids[i][j - 1]);
        }
    }
}

/* ---- truth ------------------------------------------------------------------------------------ */

double bed_score_at(const struct bed *bed, uint32_t at, uint32_t g, uint32_t token, double angle)
{
    const struct qy_select_item *it = &bed->items[at];
    const struct bed_text *text = &bed->texts[it->sequence];
    const float *q = &text->q_before[((size_t)it->kv_head * BED_GROUP + g) * BED_D];
    double turned[BED_D];
    double sum = 0.0;

    turn(bed, q, angle, turned);
    for (uint32_t j = 0; j < BED_D; j++) {
        sum += turned[j] * (double)text->k_before[token][it->kv_head][j];
    }
    return (double)bed->params.scale * sum;
}

double bed_score(const struct bed *bed, uint32_t at, uint32_t g, uint32_t token)
{
    return bed_score_at(bed, at, g, token, (double)bed->items[at].n - 1 - token);
}

void bed_pool(const struct bed *bed, uint32_t at, int largest, double *pooled)
{
    const uint32_t n = bed->items[at].n;

    memset(pooled, 0, n * sizeof(*pooled));
    for (uint32_t g = 0; g < BED_GROUP; g++) {
        double scores[BED_MAX_N];
        double sum = 0.0;

        for (uint32_t t = 0; t < n; t++) {
            scores[t] = exp(bed_score(bed, at, g, t));
            sum += scores[t];
        }
        for (uint32_t t = 0; t < n; t++) {
            const double p = scores[t] / sum;

            pooled[t] = largest ? fmax(pooled[t], p) : pooled[t] + p / BED_GROUP;
        }
    }
}

int bed_has(const struct bed *bed, uint32_t at, uint32_t token)
{
    for (uint32_t i = 0; i < bed->n_ids[at]; i++) {
        if (bed->ids[at][i] == token) {
            return 1;
        }
    }
    return 0;
}

double bed_recall(const struct bed *bed, uint32_t at)
{
    const struct qy_select_item *it = &bed->items[at];
    double pooled[BED_MAX_N];
    uint32_t found = 0;

    bed_pool(bed, at, 0, pooled);
    for (uint32_t t = it->lo; t < it->hi; t++) {
        uint32_t better = 0;

        for (uint32_t i = it->lo; i < it->hi; i++) {
            better += pooled[i] > pooled[t];
        }
        found += better < bed->n_ids[at] && bed_has(bed, at, t);
    }
    return bed->n_ids[at] > 0 ? (double)found / bed->n_ids[at] : 1.0;
}
