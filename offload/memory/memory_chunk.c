/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CHUNK (a push of prefill): queries of many tokens come, and attend to all rows of some blocks, which are
 * earlier than any of them. Coded rows are decoded a few blocks at a time, all heads of them; others are read
 * where they lie. See memory_server.h.
 */
#include "offload/memory/memory_server.h"

/* chosen: rows that are decoded at a time; a multiple of what the kernel takes a part of */
enum { DECODED_ROWS = 512, ALIGN = 64 };

/* What an answer is made in, of the arena. */
struct work {
    uint8_t **table;             /* [n_blocks] where the rows of each are  */
    struct qy_chunk_item *items; /* [n_kv_heads]  */
    float *state;                /* coded: [n_kv_heads][n_queries][group][2] */
    uint8_t *decoded;            /* coded: [part_blocks][n_kv_heads] slabs   */
    uint32_t part_blocks;        /* of one call of the kernel             */
};

/* 0: the arena does not hold it. */
static int take(struct qy_memory *m, const struct qyi_session *s,
                const struct qyi_remote_chunk *ask, struct work *w)
{
    const struct qyi_layout *l = &s->layout;
    const uint32_t longest = l->block_tokens < DECODED_ROWS ? DECODED_ROWS / l->block_tokens : 1;

    *w = (struct work){.part_blocks = ask->n_blocks};
    w->table = qy_arena_take(&m->arena, ask->n_blocks * sizeof(*w->table), ALIGN);
    w->items = qy_arena_take(&m->arena, l->n_kv_heads * sizeof(*w->items), ALIGN);
    if (!l->home) {
        return w->table && w->items;
    }
    w->part_blocks = longest < ask->n_blocks ? longest : ask->n_blocks;
    w->state = qy_arena_take(
        &m->arena, (size_t)ask->n_queries * l->n_kv_heads * s->group * 2 * sizeof(float), ALIGN);
    w->decoded =
        qy_arena_take(&m->arena, (size_t)w->part_blocks * l->n_kv_heads * l->slab_bytes, ALIGN);
    return w->table && w->items && w->state && w->decoded;
}

/* Where rows of blocks first .. end - 1 of the list are. */
static void fill_table(const struct qy_memory *m, const struct qyi_session *s,
                       const struct qyi_remote_chunk_parts *c, uint32_t first, uint32_t end,
                       struct work *w)
{
    const struct qyi_layout *l = &s->layout;
    const size_t at = qyi_layout_home_at(l, c->ask.layer, 0);

    for (uint32_t i = first; i < end; i++) {
        uint8_t *rows = s->blocks[qyi_block_place(s, c->ask.sequence, c->blocks[i])] + at;

        w->table[i] = rows;
        if (l->home) {
            w->table[i] = w->decoded + (size_t)(i - first) * l->n_kv_heads * l->slab_bytes;
            qy_rows_decode(m->rt, qyi_layout_codec(l, c->ask.layer), rows,
                           l->n_kv_heads * l->block_tokens, w->table[i]);
        }
    }
}

static void make_items(const struct qyi_session *s, const struct qyi_remote_chunk_parts *c,
                       struct work *w, float *out, float *lse)
{
    const struct qyi_layout *l = &s->layout;
    const size_t floats = s->bounds.query_floats;

    for (uint32_t h = 0; h < l->n_kv_heads; h++) {
        w->items[h] = (struct qy_chunk_item){
            .q = c->q + h * floats,
            .q_stride = l->n_kv_heads * floats,
            .rows = {.blocks = w->table,
                     .offset = h * l->slab_bytes,
                     .shift = l->shift,
                     .d = l->head_dim,
                     .type = l->row_type},
            .first = c->ask.n_blocks << l->shift,
            .n_q = c->ask.n_queries,
            .group = s->group,
            .out = out + h * floats,
            .out_stride = l->n_kv_heads * floats,
            .state = w->state ? w->state + (size_t)h * c->ask.n_queries * s->group * 2 : NULL,
            .earlier = 1,
            .lse = lse + (size_t)h * s->group,
            .lse_stride = (size_t)l->n_kv_heads * s->group};
    }
}

/* out [n_queries][heads][d], lse [n_queries][heads]. */
static enum qyi_remote_code attend(struct qy_memory *m, const struct qyi_session *s,
                                   const struct qyi_remote_chunk_parts *c, float *out, float *lse)
{
    const uint32_t shift = s->layout.shift;
    struct work w;
    uint32_t end;

    if (!take(m, s, &c->ask, &w)) {
        return QYI_REMOTE_TOO_LARGE;
    }
    make_items(s, c, &w, out, lse);
    for (uint32_t first = 0; first < c->ask.n_blocks; first = end) {
        end = c->ask.n_blocks - first < w.part_blocks ? c->ask.n_blocks : first + w.part_blocks;
        fill_table(m, s, c, first, end, &w);
        for (uint32_t h = 0; h < s->layout.n_kv_heads; h++) {
            w.items[h].key_begin = first << shift;
            w.items[h].key_end = end << shift;
        }
        const enum qy_status st =
            qy_device_attend_chunk(m->dev, w.items, s->layout.n_kv_heads, c->ask.scale, &m->arena);
        if (st != QY_OK) {
            return st == QY_ERR_NOMEM ? QYI_REMOTE_TOO_LARGE : QYI_REMOTE_FAILED;
        }
    }
    return QYI_REMOTE_DONE;
}

/* Are all blocks here? answer gets their fold; 0: its code says what is missing. */
static int all_known(const struct qyi_session *s, const struct qyi_remote_chunk_parts *c,
                     struct qyi_memory_reply *answer)
{
    answer->code = (uint16_t)qyi_serial_check(s, c->ask.sequence, c->ask.serial);
    for (uint32_t i = 0; answer->code == QYI_REMOTE_DONE && i < c->ask.n_blocks; i++) {
        const size_t at = qyi_block_place(s, c->ask.sequence, c->blocks[i]);

        if (!s->blocks[at]) {
            answer->code = QYI_REMOTE_UNKNOWN;
            answer->head.block = c->blocks[i];
        }
        answer->head.fold = qyi_remote_fold(answer->head.fold, s->generations[at]);
    }
    return answer->code == QYI_REMOTE_DONE;
}

void qyi_memory_chunk(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                      struct qyi_memory_reply *answer)
{
    const uint32_t n_heads = s->layout.n_kv_heads * s->group;
    const size_t floats = (size_t)s->layout.n_kv_heads * s->bounds.query_floats;
    struct qyi_remote_chunk_parts c;

    answer->refused = qyi_remote_chunk_parse(&s->bounds, q->head, q->head_bytes, q->payload,
                                             q->payload_bytes, &c);
    if (answer->refused) {
        return;
    }
    const uint64_t rows = (uint64_t)c.ask.n_blocks << s->layout.shift;
    const size_t item_bytes = (floats + n_heads) * sizeof(float);
    if (c.ask.n_queries > m->params.answer_bytes / item_bytes ||
        rows > QYI_REMOTE_CHUNK_WORK / (c.ask.n_queries * floats)) {
        answer->code = QYI_REMOTE_TOO_LARGE;
        return;
    }
    if (!all_known(s, &c, answer)) {
        return;
    }
    const size_t mark = qy_arena_mark(&m->arena);
    float *out = q->answer;
    answer->code = (uint16_t)attend(m, s, &c, out, out + c.ask.n_queries * floats);
    qy_arena_rewind(&m->arena, mark);
    if (answer->code == QYI_REMOTE_DONE) {
        m->counts.rows_attended += rows * s->layout.n_kv_heads;
        answer->payload = q->answer;
        answer->payload_bytes = c.ask.n_queries * item_bytes;
    }
}
