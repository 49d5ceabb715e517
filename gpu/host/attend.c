/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode attention: cuts every item into pieces of QYI_PIECE_ROWS rows, shares the pieces out over
 * the team, and merges each item's partials in token order. The arithmetic is in attend_body.h.
 *
 *   item 0: [piece][piece][piece]   item 1: [piece]   item 2: [piece][piece]
 *   unit:      0      1      2                3                  4      5
 *
 * An item of one piece is written straight to its output. Otherwise the thread that finishes the
 * item's last piece merges it; which thread that is changes nothing.
 */
#include <math.h>

#include "gpu/host/host.h"
#include "gpu/host/row_codec.h"
#include "gpu/host/rows.h"

enum { TEAM_BYTES = 64 * 1024 }; /* rows below this: the caller alone is faster than the team */

/* What an item needs while it is worked on. */
struct slot {
    uint32_t first_unit, n_units;
    float *parts; /* [n_units][group][d], then [n_units][group] lse; NULL: one piece */
    _Atomic uint32_t left;
};

struct attend_job {
    const struct qy_attend_item *items;
    struct slot *slots;
    float *lses;      /* [n_items][QYI_MAX_GROUP]: for items that want none */
    uint8_t *decoded; /* a piece of rows per thread; NULL: no rows are coded */
    size_t decoded_bytes;
    enum qy_cpu_level level;
    float scale;
    struct qyi_units units;
};

static uint32_t pieces_of(uint32_t n)
{
    return n <= QYI_PIECE_ROWS ? 1
                               : (uint32_t)(((uint64_t)n + QYI_PIECE_ROWS - 1) / QYI_PIECE_ROWS);
}

/* Bytes of a piece of decoded rows. */
static size_t piece_bytes(uint32_t d)
{
    return (QYI_PIECE_ROWS * qy_row_bytes(QY_ROW_F16, d) + 63) / 64 * 64;
}

/* Rows of a piece of which some are coded become plain ones in the thread's memory. */
static void decode_piece(const struct attend_job *job, uint32_t thread, struct qyi_span *span,
                         struct qy_rows *rows, uint8_t **block)
{
    *block = job->decoded + thread * job->decoded_bytes;
    qyi_rows_read(qyi_codec_for(job->level), span->rows, span->ids, span->first, span->n, 0,
                  *block);
    *rows = (struct qy_rows){.blocks = block, .shift = 31, .d = span->rows->d};
    span->rows = rows;
    span->ids = NULL;
    span->first = 0;
    span->after = 0;
}

static void attend_piece(struct attend_job *job, uint32_t i, uint32_t piece, uint32_t thread)
{
    const struct qy_attend_item *item = &job->items[i];
    const struct qyi_rows_kernels *kernels = qyi_rows_for(job->level, item->rows.d);
    struct slot *slot = &job->slots[i];
    const uint32_t at = piece * QYI_PIECE_ROWS;
    const uint32_t n = item->n - at < QYI_PIECE_ROWS ? item->n - at : QYI_PIECE_ROWS;
    struct qyi_span span = {.q = item->q,
                            .rows = &item->rows,
                            .ids = item->ids == NULL ? NULL : item->ids + at,
                            .first = item->first + at,
                            .n = n,
                            .group = item->group,
                            .after = item->n - at - n,
                            .bias = item->bias == NULL ? NULL : item->bias + at};
    float *lse = item->lse == NULL ? job->lses + (size_t)i * QYI_MAX_GROUP : item->lse;
    const size_t heads_d = (size_t)item->group * item->rows.d;
    struct qy_rows rows;
    uint8_t *block;

    if (item->rows.codec != NULL) {
        decode_piece(job, thread, &span, &rows, &block);
    }
    if (slot->parts == NULL) {
        kernels->attend(&span, job->scale, item->out, lse);
        return;
    }
    float *lses = slot->parts + slot->n_units * heads_d;
    kernels->attend(&span, job->scale, slot->parts + piece * heads_d,
                    lses + (size_t)piece * item->group);
    /* acq_rel: the last one sees what the others wrote before they counted down */
    if (atomic_fetch_sub_explicit(&slot->left, 1, memory_order_acq_rel) == 1) {
        qyi_merge(slot->parts, lses, slot->n_units, item->group, item->rows.d, item->out, lse);
    }
}

static void attend_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct attend_job *job = arg;
    uint32_t begin;
    uint32_t end;
    uint32_t i = 0;

    while (qyi_units_take(&job->units, n_threads, &begin, &end)) {
        for (uint32_t u = begin; u < end; u++) {
            /* units only grow, so the walk over the items goes forward only */
            while (u - job->slots[i].first_unit >= job->slots[i].n_units) {
                i++;
            }
            attend_piece(job, i, u - job->slots[i].first_unit, thread);
        }
    }
}

/* Partials of one item: 64-byte multiples, so that items do not share lines. */
static size_t parts_bytes(uint32_t n, uint32_t group, uint32_t d)
{
    const size_t pieces = pieces_of(n);

    return pieces < 2 ? 0 : (pieces * group * ((size_t)d + 1) * sizeof(float) + 63) / 64 * 64;
}

/* Fills slots; takes each item's partials from the arena. */
static enum qy_status attend_plan(struct attend_job *job, uint32_t n_items, struct qy_arena *arena,
                                  size_t *bytes)
{
    for (uint32_t i = 0; i < n_items; i++) {
        const struct qy_attend_item *item = &job->items[i];
        struct slot *slot = &job->slots[i];
        const size_t need = parts_bytes(item->n, item->group, item->rows.d);
        if (!qyi_rows_valid(&item->rows, item->group)) {
            return QY_ERR_INVALID;
        }
        slot->first_unit = job->units.total;
        slot->n_units = pieces_of(item->n);
        slot->parts = NULL;
        atomic_init(&slot->left, slot->n_units);
        job->units.total += slot->n_units;
        *bytes += item->n * qy_row_bytes(item->rows.type, item->rows.d);
        if (item->rows.codec != NULL && job->decoded_bytes < piece_bytes(item->rows.d)) {
            job->decoded_bytes = piece_bytes(item->rows.d);
        }
        if (need > 0) {
            slot->parts = qy_arena_take(arena, need, 64);
            if (slot->parts == NULL) {
                return QY_ERR_NOMEM;
            }
        }
    }
    return QY_OK;
}

enum qy_status qy_device_attend(struct qy_device *dev, const struct qy_attend_item *items,
                                uint32_t n_items, float scale, struct qy_arena *arena)
{
    const size_t mark = qy_arena_mark(arena);
    struct attend_job job = {.items = items, .level = dev->level, .scale = scale, .units = {0, 0}};
    enum qy_status st = QY_ERR_NOMEM;
    size_t bytes = 0;

    if (n_items == 0) {
        return QY_OK;
    }
    job.slots = qy_arena_take(arena, n_items * sizeof(*job.slots), 64);
    job.lses = qy_arena_take(arena, (size_t)n_items * QYI_MAX_GROUP * sizeof(float), 64);
    if (job.slots != NULL && job.lses != NULL) {
        st = attend_plan(&job, n_items, arena, &bytes);
    }
    if (st == QY_OK && job.decoded_bytes > 0) {
        job.decoded = qy_arena_take(arena, qy_team_size(dev->rt->team) * job.decoded_bytes, 64);
        st = job.decoded == NULL ? QY_ERR_NOMEM : QY_OK;
    }
    if (st == QY_OK) {
        qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, attend_run, &job);
    }
    qy_arena_rewind(arena, mark);
    return st;
}

size_t qy_device_attend_coded_scratch(const struct qy_device *dev, uint32_t d)
{
    return qy_team_size(dev->rt->team) * piece_bytes(d) + 64;
}

size_t qy_device_attend_scratch(const struct qy_device *dev, uint32_t n_items, uint32_t max_n,
                                uint32_t group, uint32_t d)
{
    const size_t item =
        sizeof(struct slot) + QYI_MAX_GROUP * sizeof(float) + parts_bytes(max_n, group, d);

    (void)dev;
    return n_items * item + 3 * 64; /* 64: alignment of each part */
}
