/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a stream's commands: gathered rows, rows that are coded and decoded on their way, and
 * how much a command copies. */
#include <string.h>

#include "gpu/host/copy_engine.h"
#include "gpu/host/row_codec.h"
#include "gpu/host/rows.h"

enum { LINE_BYTES = 64, PREFETCH_ROWS = 8, PREFETCH_LINES = 8 };

static void prefetch_row(const uint8_t *row, size_t bytes)
{
    for (size_t at = 0; at < bytes && at < PREFETCH_LINES * LINE_BYTES; at += LINE_BYTES) {
        __builtin_prefetch(row + at, 0, 3);
    }
}

static void gather_coded(const struct qy_device *dev, const struct qy_gather_item *item,
                         uint8_t *base)
{
    const struct qyi_codec_kernels *kernels = qyi_codec_for(dev->level);
    const size_t bytes = qy_row_bytes(item->rows.type, item->rows.d);

    for (uint32_t i = 0; i < item->n; i++) {
        if (i + PREFETCH_ROWS < item->n && item->ids[i + PREFETCH_ROWS] < item->rows.n_coded) {
            prefetch_row(qyi_rows_coded_at(&item->rows, item->ids[i + PREFETCH_ROWS]),
                         qy_row_codec_bytes(item->rows.codec));
        }
        qyi_rows_read(kernels, &item->rows, &item->ids[i], 0, 1, 0, base + item->slots[i] * bytes);
        if (item->stamps != NULL) {
            item->stamps[item->slots[i]] = qy_row_stamp(item->stamp, item->ids[i]);
        }
    }
}

/* Rows that are neighbours at both ends go as one copy. */
void qyi_gather_rows(const struct qy_device *dev, const struct qy_gather_item *item, uint8_t *base)
{
    const size_t bytes = qy_row_bytes(item->rows.type, item->rows.d);

    if (item->rows.codec != NULL) {
        gather_coded(dev, item, base);
        return;
    }
    for (uint32_t i = 0; i < item->n;) {
        const uint8_t *from = qy_row_at(&item->rows, item->ids[i]);
        uint8_t *to = base + item->slots[i] * bytes;
        uint32_t run = 0;
        size_t length = 0;
        do {
            if (i + run + PREFETCH_ROWS < item->n) {
                prefetch_row(qy_row_at(&item->rows, item->ids[i + run + PREFETCH_ROWS]), bytes);
            }
            run++;
            length += bytes;
        } while (i + run < item->n && qy_row_at(&item->rows, item->ids[i + run]) == from + length &&
                 base + item->slots[i + run] * bytes == to + length);
        memcpy(to, from, length);
        for (uint32_t k = i; item->stamps != NULL && k < i + run; k++) {
            item->stamps[item->slots[k]] = qy_row_stamp(item->stamp, item->ids[k]);
        }
        i += run;
    }
}

void qyi_copy_bytes(const struct qy_stream *s, const struct qy_copy_item *item)
{
    if (item->bytes == 0) {
        return;
    }
    if (item->codec == NULL) {
        memcpy(item->to, item->from, item->bytes);
        return;
    }
    const struct qyi_codec_kernels *kernels = qyi_codec_for(s->dev->level);
    const size_t coded_bytes = qy_row_codec_bytes(item->codec);
    const size_t row_bytes = qy_row_bytes(QY_ROW_F16, item->codec->d);
    const uint8_t *from = item->from;
    uint8_t *to = item->to;
    for (size_t left = item->bytes / coded_bytes; left > 0; left--) {
        if (s->direction == QY_TO_HOST) {
            qyi_codec_encode_row(kernels, item->codec, from, to);
            from += row_bytes;
            to += coded_bytes;
        } else {
            qyi_codec_decode_row(kernels, item->codec, from, 0, to);
            from += coded_bytes;
            to += row_bytes;
        }
    }
}

/* Bytes that the rows of a gather have where they lie. */
static uint64_t gather_bytes(const struct qy_gather_item *item)
{
    uint64_t bytes = 0;

    if (item->rows.codec == NULL) {
        return (uint64_t)item->n * qy_row_bytes(item->rows.type, item->rows.d);
    }
    for (uint32_t i = 0; i < item->n; i++) {
        bytes += qyi_rows_bytes(&item->rows, item->ids[i]);
    }
    return bytes;
}

enum qy_status qy_device_gather(struct qy_device *dev, const struct qy_gather_item *items,
                                uint32_t n_items, void *base)
{
    for (uint32_t i = 0; i < n_items; i++) { /* few rows: not worth the team */
        if (!qyi_rows_valid(&items[i].rows, 1)) {
            return QY_ERR_INVALID;
        }
        qyi_gather_rows(dev, &items[i], base);
    }
    return QY_OK;
}

uint64_t qyi_command_bytes(const struct qyi_command *command, uint64_t *rows)
{
    uint64_t bytes = 0;
    *rows = 0;
    for (uint32_t i = 0; i < command->n_items; i++) {
        if (command->gather != NULL) {
            const struct qy_gather_item *item = &command->gather[i];
            *rows += item->n;
            bytes += gather_bytes(item);
        } else {
            bytes += command->copy[i].bytes;
        }
    }
    return bytes;
}
