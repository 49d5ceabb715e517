/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session's table of blocks: PUT, DROP. Serials and generations only go up, so that a question that comes
 * late or twice changes nothing. See memory_server.h.
 */
#include "offload/memory/memory_server.h"

#include <string.h>

void qyi_blocks_free(struct qy_memory *m, struct qyi_session *s, uint32_t sequence, uint32_t first,
                     uint32_t end, uint64_t generation)
{
    for (uint32_t b = first; b < end; b++) {
        const size_t at = qyi_block_place(s, sequence, b);

        if (s->blocks[at] && s->generations[at] <= generation) {
            qyi_frames_give(&m->frames, s->blocks[at]);
            s->blocks[at] = NULL;
            s->n_held--;
        }
    }
}

/* Another sequence has the slot from now on, if its serial is new. */
static void meet_serial(struct qy_memory *m, struct qyi_session *s, uint32_t sequence,
                        uint64_t serial)
{
    if (serial > s->serials[sequence]) {
        qyi_blocks_free(m, s, sequence, 0, s->bounds.max_blocks, UINT64_MAX);
        memset(s->generations + qyi_block_place(s, sequence, 0), 0,
               s->bounds.max_blocks * sizeof(*s->generations));
        s->serials[sequence] = serial;
    }
}

/* Is this content newer than what is here, or was? */
static enum qyi_remote_code put_check(const struct qyi_session *s, const struct qyi_remote_put *put)
{
    const size_t at = qyi_block_place(s, put->sequence, put->block);
    const uint64_t serial = s->serials[put->sequence];

    if (put->serial > serial) {
        return QYI_REMOTE_DONE;
    }
    if (put->serial < serial || put->generation < s->generations[at]) {
        return QYI_REMOTE_STALE;
    }
    if (put->generation > s->generations[at]) {
        return QYI_REMOTE_DONE;
    }
    return s->blocks[at] ? QYI_REMOTE_HELD : QYI_REMOTE_STALE; /* dropped since */
}

void *qyi_memory_place(struct qy_memory *m, const struct qyi_session *s,
                       const struct qyi_question *q, uint16_t *code)
{
    struct qyi_remote_put put;
    void *frame = NULL;

    if (!s) {
        *code = QYI_REMOTE_NOT_OPEN;
    } else if (qyi_remote_put_parse(&s->bounds, q->head, q->head_bytes, q->payload_bytes, &put)) {
        *code = QYI_REMOTE_MALFORMED;
    } else if (s->layout.block_bytes != m->frames.frame_bytes) {
        *code = QYI_REMOTE_BUSY;
    } else {
        *code = (uint16_t)put_check(s, &put);
    }
    if (*code == QYI_REMOTE_DONE) {
        frame = m->draining ? NULL : qyi_frames_take(&m->frames);
        *code = frame ? QYI_REMOTE_DONE : QYI_REMOTE_FULL;
    }
    m->counts.turned_down += *code != QYI_REMOTE_DONE;
    return frame;
}

/* Is it a block, and as it was sealed? */
static int is_sealed(const struct qy_memory *m, const struct qyi_session *s, uint8_t *block)
{
    return qyi_block_footer(&s->layout, block)->n_slabs == s->layout.n_slabs &&
           qyi_block_bad_sum(m->rt->team, &s->layout, block) == SIZE_MAX;
}

static void keep(struct qy_memory *m, struct qyi_session *s, const struct qyi_remote_put *put,
                 uint8_t *block)
{
    const size_t at = qyi_block_place(s, put->sequence, put->block);

    meet_serial(m, s, put->sequence, put->serial);
    qyi_blocks_free(m, s, put->sequence, put->block, put->block + 1, UINT64_MAX);
    qyi_frames_keep(&m->frames, block);
    s->blocks[at] = block;
    s->generations[at] = put->generation;
    s->n_held++;
    s->in_bytes += s->layout.block_bytes;
    m->counts.in_bytes += s->layout.block_bytes;
    m->counts.puts++;
}

void qyi_memory_put(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                    struct qyi_memory_reply *answer)
{
    struct qyi_remote_put put;
    uint8_t *block = qyi_frames_coming(&m->frames, q->payload);

    if (!block) {
        answer->refused = "a block that was given no place";
        return;
    }
    /* again: the session may have been opened anew since the head came, or another PUT been first */
    answer->refused =
        qyi_remote_put_parse(&s->bounds, q->head, q->head_bytes, q->payload_bytes, &put);
    if (!answer->refused) {
        answer->code = (uint16_t)put_check(s, &put);
    }
    if (!answer->refused && answer->code == QYI_REMOTE_DONE && !is_sealed(m, s, block)) {
        answer->code = QYI_REMOTE_CORRUPT;
        m->counts.puts_corrupt++;
    }
    if (answer->refused || answer->code != QYI_REMOTE_DONE) {
        qyi_frames_give(&m->frames, block);
        return;
    }
    keep(m, s, &put, block);
}

void qyi_memory_drop(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                     struct qyi_memory_reply *answer)
{
    struct qyi_remote_drops drops;

    answer->refused = qyi_remote_drop_parse(&s->bounds, q->head, q->head_bytes, q->payload,
                                            q->payload_bytes, &drops);
    for (uint32_t i = 0; !answer->refused && i < drops.n; i++) {
        const struct qyi_remote_drop *d = &drops.items[i];
        const uint32_t end = qyi_remote_drop_end(&s->bounds, d);
        const uint32_t held = s->n_held;

        meet_serial(m, s, d->sequence, d->serial);
        if (d->serial < s->serials[d->sequence]) {
            continue; /* gone with its sequence */
        }
        qyi_blocks_free(m, s, d->sequence, d->first, end, d->generation);
        m->counts.moved += d->moved ? held - s->n_held : 0;
        for (uint32_t b = d->first; b < end; b++) { /* a PUT of before that comes late is stale */
            uint64_t *seen = &s->generations[qyi_block_place(s, d->sequence, b)];

            *seen = *seen > d->generation ? *seen : d->generation;
        }
    }
}
