/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a stream's commands: gathered rows, and how much a command copies. */
#include <string.h>

#include "gpu/host/copy_engine.h"

enum { LINE_BYTES = 64, PREFETCH_ROWS = 8, PREFETCH_LINES = 8 };

static void prefetch_row(const uint8_t *row, size_t bytes)
{
    for (size_t at = 0; at < bytes && at < PREFETCH_LINES * LINE_BYTES; at += LINE_BYTES) {
        __builtin_prefetch(row + at, 0, 3);
    }
}

/* Rows that are neighbours at both ends go as one copy. */
void qyi_gather_rows(const struct qy_gather_item *item, uint8_t *base)
{
    const size_t bytes = qy_row_bytes(item->rows.type, item->rows.d);
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

uint64_t qyi_command_bytes(const struct qyi_command *command, uint64_t *rows)
{
    uint64_t bytes = 0;
    *rows = 0;
    for (uint32_t i = 0; i < command->n_items; i++) {
        if (command->gather != NULL) {
            const struct qy_gather_item *item = &command->gather[i];
            *rows += item->n;
            bytes += (uint64_t)item->n * qy_row_bytes(item->rows.type, item->rows.d);
        } else {
            bytes += command->copy[i].bytes;
        }
    }
    return bytes;
}
