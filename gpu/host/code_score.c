/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of codes, in two phases of one run of the team:
 *
 *   tables   units of (range of words, item): items of one quantizer share what the cache holds
 *   scan     units of (item, range of tokens), in groups of 4-bit codes or pieces of slabs
 *
 * The arithmetic is in code_table_body.h, code_scan_body.h and code_gather_body.h. A score depends
 * on its token's code and the query alone.
 */
#include "gpu/host/code.h"
#include "gpu/host/host.h"
#include "gpu/host/rows.h"

enum {
    RANGE_TOKENS = 2048, /* a multiple of QYI_CODE_SPLIT                          */
    RANGE_WORDS = 512,   /* of a gather table                                     */
    SUMS_STRIDE = RANGE_TOKENS + QYI_CODE_SPLIT,
    TEAM_WORK = 512 * 1024 /* look-ups of 4-bit codes: below, the caller alone is faster */
};

/* What is made of an item's query. */
struct tables {
    uint8_t *entries;            /* 4 bits: [group][m][16]                       */
    struct qyi_code_head *heads; /* 4 bits: [group]                              */
    float *gather; /* [(group + 3) / 4][m][table words][QYI_CODE_HEADS] of 8 and 16 bits */
};

struct score_job {
    struct qy_team *team;
    const struct qy_code_score_item *items;
    struct tables *tables;
    const struct qyi_code_kernels *kernels;
    float scale;
    uint32_t n_items;
    struct qyi_units table_units, scan_units;
};

/* ---- tables ------------------------------------------------------------------------------------ */

static size_t gather_floats(const struct qy_quantizer *quantizer)
{
    return (size_t)quantizer->m * qyi_code_table_words(quantizer) * QYI_CODE_HEADS;
}

static void make_tables(const struct score_job *job, uint32_t i, uint32_t range)
{
    const struct qy_code_score_item *item = &job->items[i];
    const struct qy_quantizer *quantizer = item->quantizer;
    const struct tables *tables = &job->tables[i];

    if (item->n == 0) {
        return;
    }
    if (quantizer->bits == 4) {
        for (uint32_t h = 0; h < item->group && range == 0; h++) {
            job->kernels->table4(quantizer, item->q + (size_t)h * quantizer->d, job->scale,
                                 tables->entries + (size_t)h * quantizer->m * 16,
                                 &tables->heads[h]);
        }
        return;
    }
    const uint64_t begin = (uint64_t)range * RANGE_WORDS;
    const uint64_t end = begin + RANGE_WORDS;
    if (begin >= quantizer->n_words) {
        return;
    }
    for (uint32_t h = 0; h < item->group; h += QYI_CODE_HEADS) {
        const uint32_t left = item->group - h;
        job->kernels->table_wide(quantizer, item->q + (size_t)h * quantizer->d,
                                 left < QYI_CODE_HEADS ? left : QYI_CODE_HEADS, job->scale,
                                 (uint32_t)begin,
                                 end < quantizer->n_words ? (uint32_t)end : quantizer->n_words,
                                 tables->gather + h / QYI_CODE_HEADS * gather_floats(quantizer));
    }
}

/* ---- 4 bits ------------------------------------------------------------------------------------ */

/* Tokens begin .. end - 1 (relative to 0, not to first) of the item: at most RANGE_TOKENS. */
static void scan_range(const struct score_job *job, uint32_t i, uint64_t begin, uint64_t end)
{
    _Alignas(64) uint16_t part[QYI_CODE_HEADS * SUMS_STRIDE];
    const struct qy_code_score_item *item = &job->items[i];
    const uint32_t step = qyi_code4_step((uint32_t)1 << item->codes.shift);
    const uint64_t start = begin / step * step;
    const uint32_t m = item->quantizer->m;

    for (uint32_t h = 0; h < item->group; h += QYI_CODE_HEADS) {
        const uint32_t left = item->group - h;
        const struct qyi_code_sums sums = {.kernels = job->kernels,
                                           .codes = &item->codes,
                                           .m = m,
                                           .group = left < QYI_CODE_HEADS ? left : QYI_CODE_HEADS,
                                           .entries = job->tables[i].entries + (size_t)h * m * 16,
                                           .last = (uint64_t)item->first + item->n - 1,
                                           .sums = part,
                                           .stride = SUMS_STRIDE};
        qyi_code_sums(&sums, start, end);
        for (uint32_t p = 0; p < sums.group; p++) {
            job->kernels->scores(part + p * SUMS_STRIDE + (begin - start), (uint32_t)(end - begin),
                                 &job->tables[i].heads[h + p],
                                 item->scores + (h + p) * item->stride + (begin - item->first));
        }
    }
}

/* ---- 8 and 16 bits ------------------------------------------------------------------------------- */

static void gather_range(const struct score_job *job, uint32_t i, uint64_t begin, uint64_t end)
{
    const struct qy_code_score_item *item = &job->items[i];
    const struct qy_quantizer *quantizer = item->quantizer;
    const uint32_t block = (uint32_t)1 << item->codes.shift;
    const size_t token_bytes = (size_t)quantizer->m * (quantizer->bits / 8);

    while (begin < end) {
        const uint64_t in_slab = begin & (block - 1);
        const uint64_t n = end - begin < block - in_slab ? end - begin : block - in_slab;
        const uint8_t *slab = item->codes.blocks[begin >> item->codes.shift] + item->codes.offset;
        for (uint32_t h = 0; h < item->group; h += QYI_CODE_HEADS) {
            const uint32_t left = item->group - h;
            const struct qyi_code_gather gather = {
                .codes = slab + in_slab * token_bytes,
                .bits = quantizer->bits,
                .n = (uint32_t)n,
                .m = quantizer->m,
                .n_words = quantizer->n_words,
                .n_heads = left < QYI_CODE_HEADS ? left : QYI_CODE_HEADS,
                .tables = job->tables[i].gather + h / QYI_CODE_HEADS * gather_floats(quantizer),
                .out = item->scores + h * item->stride + (begin - item->first),
                .stride = item->stride};
            job->kernels->gather(&gather);
        }
        begin += n;
    }
}

/* ---- run ----------------------------------------------------------------------------------------- */

static uint32_t ranges_of(const struct qy_code_score_item *item)
{
    const uint64_t lead = item->first % QYI_CODE_SPLIT;

    return item->n == 0 ? 0 : (uint32_t)((lead + item->n + RANGE_TOKENS - 1) / RANGE_TOKENS);
}

static void score_range(const void *arg, uint32_t i, uint32_t range)
{
    const struct score_job *job = arg;
    const struct qy_code_score_item *item = &job->items[i];
    uint64_t begin = item->first / QYI_CODE_SPLIT * QYI_CODE_SPLIT + (uint64_t)range * RANGE_TOKENS;
    uint64_t end = begin + RANGE_TOKENS;

    begin = begin < item->first ? item->first : begin;
    end = end > (uint64_t)item->first + item->n ? (uint64_t)item->first + item->n : end;
    if (item->quantizer->bits == 4) {
        scan_range(job, i, begin, end);
    } else {
        gather_range(job, i, begin, end);
    }
}

static uint32_t score_units(const void *arg, uint32_t item)
{
    const struct score_job *job = arg;

    return ranges_of(&job->items[item]);
}

static void score_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct score_job *job = arg;
    uint32_t begin;
    uint32_t end;

    (void)thread;
    while (qyi_units_take(&job->table_units, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            make_tables(job, u % job->n_items, u / job->n_items);
        }
    }
    qy_team_barrier(job->team);
    qyi_units_walk(&job->scan_units, n_threads, job, score_units, score_range);
}

/* Bytes of an item's tables. */
static size_t tables_bytes(const struct qy_quantizer *quantizer, uint32_t group)
{
    if (quantizer->bits == 4) {
        return qyi_code_entries_bytes(quantizer->m, group) + qyi_code_heads_bytes(group);
    }
    return qyi_round64((group + QYI_CODE_HEADS - 1) / QYI_CODE_HEADS * gather_floats(quantizer) *
                       sizeof(float));
}

static int items_valid(const struct qy_code_score_item *items, uint32_t n_items)
{
    for (uint32_t i = 0; i < n_items; i++) {
        if (!qyi_quantizer_valid(items[i].quantizer) || items[i].codes.shift >= 32 ||
            items[i].group < 1 || items[i].group > QYI_MAX_GROUP) {
            return 0;
        }
    }
    return 1;
}

/* Places the items' tables and counts units and work. */
static enum qy_status score_plan(struct score_job *job, struct qy_arena *arena, uint64_t *work)
{
    uint64_t ranges = 1;

    for (uint32_t i = 0; i < job->n_items; i++) {
        const struct qy_code_score_item *item = &job->items[i];
        const struct qy_quantizer *quantizer = item->quantizer;
        uint8_t *memory = qy_arena_take(arena, tables_bytes(quantizer, item->group), 64);
        if (memory == NULL) {
            return QY_ERR_NOMEM;
        }
        job->tables[i] = (struct tables){0};
        if (quantizer->bits == 4) {
            job->tables[i].entries = memory;
            job->tables[i].heads =
                (void *)(memory + qyi_code_entries_bytes(quantizer->m, item->group));
        } else {
            const uint64_t n = ((uint64_t)quantizer->n_words + RANGE_WORDS - 1) / RANGE_WORDS;
            job->tables[i].gather = (void *)memory;
            ranges = n > ranges ? n : ranges;
            *work += (uint64_t)quantizer->n_words * quantizer->d * item->group;
        }
        job->scan_units.total += ranges_of(item);
        *work += (uint64_t)item->n * quantizer->m * item->group;
    }
    job->table_units.total = (uint32_t)ranges * job->n_items;
    return QY_OK;
}

enum qy_status qy_device_code_score(struct qy_device *dev, const struct qy_code_score_item *items,
                                    uint32_t n_items, float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct score_job job = {.items = items,
                            .kernels = qyi_code_for(dev->level),
                            .scale = scale,
                            .n_items = n_items,
                            .table_units = {0, 0},
                            .scan_units = {0, 0}};
    enum qy_status st = QY_ERR_NOMEM;
    uint64_t work = 0;

    if (!items_valid(items, n_items)) {
        return QY_ERR_INVALID;
    }
    if (n_items == 0) {
        return QY_OK;
    }
    job.tables = qy_arena_take(arena, n_items * sizeof(*job.tables), 64);
    if (job.tables != NULL) {
        st = score_plan(&job, arena, &work);
    }
    if (st == QY_OK) {
        job.team = work < TEAM_WORK ? NULL : dev->rt->team;
        qy_team_run(job.team, score_run, &job);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qy_device_code_score_scratch(const struct qy_device *dev, uint32_t n_items,
                                    const struct qy_quantizer *quantizer, uint32_t group)
{
    (void)dev;
    return n_items * (sizeof(struct tables) + tables_bytes(quantizer, group)) + 2 * 64;
}
