/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What leaves a memory server as it lies there: READ, byte ranges of blocks, and ROWS, the rows of lists
 * (a pull). See memory_server.h.
 */
#include "offload/memory/memory_server.h"

#include <string.h>

enum { AHEAD_ROWS = 8, LINE_BYTES = 64, MOST_LINES = 8 };

/* ---- READ --------------------------------------------------------------------------------------- */

/* The block that item i is about; NULL: the answer says why not. */
static uint8_t *read_block(const struct qyi_session *s, const struct qyi_remote_reads *reads,
                           uint32_t i, struct qyi_memory_reply *answer)
{
    const struct qyi_remote_read *r = &reads->items[i];
    const size_t at = qyi_block_place(s, r->sequence, r->block);

    answer->code = (uint16_t)qyi_serial_check(s, r->sequence, r->serial);
    if (answer->code == QYI_REMOTE_DONE && !s->blocks[at]) {
        answer->code = QYI_REMOTE_UNKNOWN;
    }
    if (answer->code != QYI_REMOTE_DONE) {
        answer->head.item = i;
        answer->head.block = r->block;
        return NULL;
    }
    answer->head.fold = qyi_remote_fold(answer->head.fold, s->generations[at]);
    return s->blocks[at];
}

void qyi_memory_read(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                     struct qyi_memory_reply *answer)
{
    struct qyi_remote_reads reads;
    uint8_t *to = q->answer;

    answer->refused = qyi_remote_read_parse(&s->bounds, q->head, q->head_bytes, q->payload,
                                            q->payload_bytes, &reads);
    if (answer->refused) {
        return;
    }
    if (reads.n > 1 && reads.bytes > m->params.answer_bytes) {
        answer->code = QYI_REMOTE_TOO_LARGE;
        return;
    }
    for (uint32_t i = 0; i < reads.n; i++) {
        const struct qyi_remote_read *r = &reads.items[i];
        uint8_t *block = read_block(s, &reads, i, answer);

        if (!block) {
            return;
        }
        if (reads.n == 1) { /* a whole block, as a rule: sent from where it lies */
            qyi_frames_pin(&m->frames, block);
            answer->pinned = block;
            answer->payload = block + r->at;
        } else {
            memcpy(to, block + r->at, r->bytes);
            to += r->bytes;
            answer->payload = q->answer;
        }
    }
    answer->payload_bytes = reads.bytes;
}

/* ---- ROWS --------------------------------------------------------------------------------------- */

/* The first id of a list whose block is not here; n: all are. */
static uint32_t first_missing(uint8_t *const *blocks, uint32_t shift, const uint32_t *ids,
                              uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!blocks[ids[i] >> shift]) {
            return i;
        }
    }
    return n;
}

int qyi_list_known(const struct qyi_session *s, const struct qyi_remote_list *list,
                   struct qyi_memory_reply *answer)
{
    const uint32_t shift = s->bounds.shift;
    const uint32_t *ids = list->ids;

    for (uint32_t i = 0; i < list->n_items; i++) {
        const struct qyi_remote_item *item = &list->items[i];
        const size_t slot = qyi_block_place(s, item->sequence, 0);
        uint32_t missing = 0;

        answer->code = (uint16_t)qyi_serial_check(s, item->sequence, item->serial);
        if (answer->code == QYI_REMOTE_DONE) {
            missing = first_missing(s->blocks + slot, shift, ids, item->n);
            answer->code = missing < item->n ? QYI_REMOTE_UNKNOWN : QYI_REMOTE_DONE;
        }
        if (answer->code != QYI_REMOTE_DONE) {
            answer->head.item = i;
            answer->head.block = missing < item->n ? ids[missing] >> shift : 0;
            return 0;
        }
        answer->head.fold =
            qyi_remote_fold_ids(answer->head.fold, ids, item->n, shift, s->generations + slot);
        ids += item->n;
    }
    return 1;
}

static const uint8_t *row_at(const struct qyi_row_source *s, uint32_t id)
{
    return s->blocks[id >> s->shift] + s->at + (id & s->mask) * s->row_bytes;
}

static void fetch_ahead(const struct qyi_row_source *s, uint32_t id)
{
    const uint8_t *row = row_at(s, id);

    for (size_t at = 0; at < s->row_bytes && at < MOST_LINES * LINE_BYTES; at += LINE_BYTES) {
        __builtin_prefetch(row + at);
    }
}

uint8_t *qyi_rows_gather(const struct qyi_row_source *s, const uint32_t *ids, uint32_t n,
                         uint8_t *to)
{
    for (uint32_t i = 0; i < n;) {
        const uint8_t *from = row_at(s, ids[i]);
        size_t bytes = 0;

        do {
            if (n - i > AHEAD_ROWS) {
                fetch_ahead(s, ids[i + AHEAD_ROWS]);
            }
            bytes += s->row_bytes;
            i++;
        } while (i < n && row_at(s, ids[i]) == from + bytes);
        memcpy(to, from, bytes);
        to += bytes;
    }
    return to;
}

void qyi_memory_rows(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                     struct qyi_memory_reply *answer)
{
    struct qyi_remote_list list;
    uint8_t *to = q->answer;

    answer->refused = qyi_remote_rows_parse(&s->bounds, q->head, q->head_bytes, q->payload,
                                            q->payload_bytes, &list);
    if (answer->refused) {
        return;
    }
    const size_t row_bytes = qyi_layout_home_row(&s->layout, list.layer);
    if (list.n_ids > m->params.answer_bytes / row_bytes) {
        answer->code = QYI_REMOTE_TOO_LARGE;
        return;
    }
    if (!qyi_list_known(s, &list, answer)) {
        return;
    }
    for (uint32_t i = 0; i < list.n_items; i++) {
        const struct qyi_remote_item *item = &list.items[i];
        const struct qyi_row_source source = {
            .blocks = s->blocks + qyi_block_place(s, item->sequence, 0),
            .at = qyi_layout_home_at(&s->layout, list.layer, item->head),
            .row_bytes = row_bytes,
            .shift = s->bounds.shift,
            .mask = s->layout.block_tokens - 1};

        to = qyi_rows_gather(&source, list.ids, item->n, to);
        list.ids += item->n;
    }
    m->counts.rows += list.n_ids;
    answer->payload = q->answer;
    answer->payload_bytes = list.n_ids * row_bytes;
}
