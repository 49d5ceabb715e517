/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of keys: ranges of rows shared out over the team. The arithmetic is in score_body.h. */
#include "gpu/host/host.h"
#include "gpu/host/row_codec.h"
#include "gpu/host/rows.h"

enum {
    RANGE_ROWS = 512,
    DECODED_BYTES = 32 * 1024, /* of rows that are decoded to be scored, at once */
    TEAM_BYTES = 64 * 1024     /* keys below this: the caller alone is faster than the team */
};

struct score_job {
    const struct qy_score_item *items;
    enum qy_cpu_level level;
    float scale;
    struct qyi_units units; /* ranges of RANGE_ROWS rows, item after item */
};

static uint32_t ranges_of(const struct qy_score_item *item)
{
    return (uint32_t)(((uint64_t)item->n + RANGE_ROWS - 1) / RANGE_ROWS);
}

/* Rows of which some are coded: as many as the stack holds are decoded, then scored. */
static void score_decoded(const struct score_job *job, const struct qy_score_item *item,
                          struct qyi_span span, float *scores, size_t stride)
{
    _Alignas(64) uint8_t memory[DECODED_BYTES];
    const struct qyi_codec_kernels *kernels = qyi_codec_for(job->level);
    const uint32_t most = DECODED_BYTES / (uint32_t)qy_row_bytes(QY_ROW_F16, item->rows.d);
    uint8_t *const blocks[1] = {memory};
    const struct qy_rows rows = {.blocks = blocks, .shift = 31, .d = item->rows.d};
    const uint32_t *ids = span.ids;
    uint32_t first = span.first;

    span.rows = &rows;
    span.ids = NULL;
    span.first = 0;
    span.after = 0;
    for (uint32_t left = span.n; left > 0; left -= span.n, first += span.n, scores += span.n) {
        span.n = left < most ? left : most;
        qyi_rows_read(kernels, &item->rows, ids, first, span.n, 1, memory);
        qyi_rows_for(job->level, rows.d)->score(&span, job->scale, scores, stride);
        ids = ids == NULL ? NULL : ids + span.n;
    }
}

static void score_range(const void *arg, uint32_t i, uint32_t range)
{
    const struct score_job *job = arg;
    const struct qy_score_item *item = &job->items[i];
    const uint32_t at = range * RANGE_ROWS;
    const uint32_t n = item->n - at < RANGE_ROWS ? item->n - at : RANGE_ROWS;
    const struct qyi_span span = {.q = item->q,
                                  .rows = &item->rows,
                                  .ids = item->ids == NULL ? NULL : item->ids + at,
                                  .first = item->first + at,
                                  .n = n,
                                  .group = item->group,
                                  .after = item->n - at - n};

    const size_t stride = item->stride == 0 ? item->n : item->stride;

    if (item->rows.codec != NULL && (span.ids != NULL || span.first < item->rows.n_coded)) {
        score_decoded(job, item, span, item->scores + at, stride);
        return;
    }
    qyi_rows_for(job->level, item->rows.d)->score(&span, job->scale, item->scores + at, stride);
}

static uint32_t score_units(const void *arg, uint32_t item)
{
    const struct score_job *job = arg;

    return ranges_of(&job->items[item]);
}

static void score_run(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct score_job *job = arg;

    (void)thread;
    qyi_units_walk(&job->units, n_threads, job, score_units, score_range);
}

enum qy_status qy_device_score(struct qy_device *dev, const struct qy_score_item *items,
                               uint32_t n_items, float scale)
{
    struct score_job job = {.items = items, .level = dev->level, .scale = scale, .units = {0, 0}};
    size_t bytes = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        if (!qyi_rows_valid(&items[i].rows, items[i].group)) {
            return QY_ERR_INVALID;
        }
        job.units.total += ranges_of(&items[i]);
        bytes += items[i].n * qy_row_bytes(items[i].rows.type, items[i].rows.d) / 2;
    }
    qy_team_run(bytes < TEAM_BYTES ? NULL : dev->rt->team, score_run, &job);
    return QY_OK;
}
