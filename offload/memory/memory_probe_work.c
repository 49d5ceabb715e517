/* SPDX-License-Identifier: Apache-2.0 */
/* One question of a probe: what it is about, its message, what the answer must be. See memory_probe.h. */
#include "offload/memory/memory_probe_internal.h"

#include "offload/memory/memory_server.h"

#include <math.h>
#include <string.h>

/* chosen: another machine may have other kernels, whose sums differ in their last bits; what is wrong with
 * rows of this size is wrong by much more */
static const float tolerance = 1e-3F;

static uint64_t draw(struct qy_memory_probe *p)
{
    uint64_t x = (p->random += 0x9e3779b97f4a7c15u);

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t draw_below(struct qy_memory_probe *p, uint32_t below)
{
    return (uint32_t)((draw(p) >> 32) * below >> 32);
}

/* ---- blocks ----------------------------------------------------------------------------------- */

/* Four halves at once, each of 0.5 to 1 or -1 to -0.5. */
static void make_block(struct qy_memory_probe *p, uint8_t *block)
{
    const struct qyi_layout *l = &p->layout;
    uint64_t *words = (uint64_t *)(void *)block;

    for (size_t i = 0; i < l->index_at / sizeof(*words); i++) {
        words[i] = (draw(p) & 0x83ff83ff83ff83ffu) | 0x3800380038003800u;
    }
    *qyi_block_footer(l, block) = (struct qyi_footer){.n_slabs = l->n_slabs};
    for (size_t i = 0; i < l->n_sums; i++) {
        qyi_block_sums(l, block)[i] = qyi_block_sum(l, block, i);
    }
}

void qyi_probe_make(struct qy_memory_probe *p)
{
    const size_t floats = (size_t)p->layout.n_kv_heads * p->group * p->layout.head_dim;

    for (uint32_t i = 0; i < p->params.n_blocks; i++) {
        make_block(p, p->blocks[i]);
    }
    for (size_t i = 0; i < floats; i++) {
        p->q[i] = (float)(i % 13) * 0.1F - 0.6F;
    }
}

/* ---- questions -------------------------------------------------------------------------------- */

static float scale(const struct qy_memory_probe *p)
{
    return 1.0F / sqrtf((float)p->layout.head_dim);
}

/* n ids in ascending order, one of each n-th part of the sequence. */
static void choose_ids(struct qy_memory_probe *p, uint32_t n, uint32_t *ids)
{
    const uint64_t step = ((uint64_t)p->n_tokens << 32) / n;
    uint64_t at = 0;

    for (uint32_t i = 0; i < n; i++, at += step) {
        const uint32_t first = (uint32_t)(at >> 32);
        const uint32_t end = (uint32_t)((at + step) >> 32);

        ids[i] = first + (end > first + 1 ? draw_below(p, end - first) : 0);
    }
}

void qyi_probe_choose(struct qy_memory_probe *p, enum qy_probe_kind kind, uint32_t rows,
                      struct qyi_probe_slot *slot)
{
    uint32_t *ids = slot->ids;

    slot->answered = 0;
    slot->rows = rows;
    slot->layer = draw_below(p, p->layout.n_layers);
    slot->block =
        kind == QY_PROBE_PUT ? p->turn++ % p->params.n_blocks : draw_below(p, p->params.n_blocks);
    if (kind == QY_PROBE_ROWS || kind == QY_PROBE_ATTEND) {
        for (uint32_t i = 0; i < p->layout.n_kv_heads; i++) {
            const uint32_t n = qyi_probe_share(p, rows, i);

            choose_ids(p, n, ids);
            ids += n;
        }
    }
}

static void set_head(struct qy_request *r, const void *head, size_t bytes)
{
    memcpy(r->head, head, bytes);
    r->head_bytes = (uint16_t)bytes;
}

static void compose_put(struct qy_memory_probe *p, struct qyi_probe_slot *slot)
{
    const struct qyi_remote_put put = {
        .serial = p->serial, .generation = ++p->made, .block = slot->block};

    p->generations[slot->block] = put.generation;
    set_head(&slot->request, &put, sizeof(put));
    slot->request.payload = p->blocks[slot->block];
    slot->request.payload_bytes = p->layout.block_bytes;
}

static void compose_read(const struct qy_memory_probe *p, struct qyi_probe_slot *slot)
{
    const struct qyi_remote_count count = {.n = 1};
    const struct qyi_remote_read read = {
        .serial = p->serial, .bytes = p->layout.block_bytes, .block = slot->block};

    set_head(&slot->request, &count, sizeof(count));
    memcpy(slot->payload, &read, sizeof(read));
    slot->request.payload = slot->payload;
    slot->request.payload_bytes = sizeof(read);
}

static void compose_list(const struct qy_memory_probe *p, int attends, struct qyi_probe_slot *slot)
{
    const uint32_t n_items = p->layout.n_kv_heads;
    const uint32_t floats = attends ? p->group * p->layout.head_dim : 0;
    const struct qyi_remote_parts parts = qyi_remote_parts(n_items, slot->rows, floats);
    const struct qyi_remote_ask ask = {.layer = slot->layer,
                                       .n_items = n_items,
                                       .n_ids = slot->rows,
                                       .scale = attends ? scale(p) : 0.0F};

    for (uint32_t i = 0; i < n_items; i++) {
        const struct qyi_remote_item item = {
            .serial = p->serial, .head = i, .n = qyi_probe_share(p, slot->rows, i)};

        memcpy(slot->payload + i * sizeof(item), &item, sizeof(item));
    }
    memcpy(slot->payload + parts.q_at, p->q, (size_t)n_items * floats * sizeof(float));
    memcpy(slot->payload + parts.ids_at, slot->ids, slot->rows * sizeof(*slot->ids));
    set_head(&slot->request, &ask, sizeof(ask));
    slot->request.payload = slot->payload;
    slot->request.payload_bytes = parts.bytes;
}

void qyi_probe_compose(struct qy_memory_probe *p, enum qy_probe_kind kind,
                       struct qyi_probe_slot *slot)
{
    static const uint16_t ops[] = {[QY_PROBE_STATE] = QYI_REMOTE_STATE,
                                   [QY_PROBE_PUT] = QYI_REMOTE_PUT,
                                   [QY_PROBE_READ] = QYI_REMOTE_READ,
                                   [QY_PROBE_ROWS] = QYI_REMOTE_ROWS,
                                   [QY_PROBE_ATTEND] = QYI_REMOTE_ATTEND};

    slot->request = (struct qy_request){.op = ops[kind],
                                        .reply = slot->reply,
                                        .reply_capacity = p->reply_bytes,
                                        .timeout_ns = p->params.timeout_ns};
    switch (kind) {
    case QY_PROBE_STATE:
        break;
    case QY_PROBE_PUT:
        compose_put(p, slot);
        break;
    case QY_PROBE_READ:
        compose_read(p, slot);
        break;
    case QY_PROBE_ROWS:
    case QY_PROBE_ATTEND:
        compose_list(p, kind == QY_PROBE_ATTEND, slot);
        break;
    }
}

/* ---- the same, done here ---------------------------------------------------------------------- */

static void do_rows(const struct qy_memory_probe *p, const struct qyi_probe_slot *slot, uint8_t *to)
{
    const uint32_t *ids = slot->ids;

    for (uint32_t i = 0; i < p->layout.n_kv_heads; i++) {
        const uint32_t n = qyi_probe_share(p, slot->rows, i);
        const struct qyi_row_source source = {.blocks = p->blocks,
                                              .at = qyi_layout_home_at(&p->layout, slot->layer, i),
                                              .row_bytes = p->layout.row_bytes,
                                              .shift = p->layout.shift,
                                              .mask = p->layout.block_tokens - 1};

        to = qyi_rows_gather(&source, ids, n, to);
        ids += n;
    }
}

static enum qy_status do_attend(struct qy_memory_probe *p, const struct qyi_probe_slot *slot,
                                float *out)
{
    const struct qyi_layout *l = &p->layout;
    const size_t floats = (size_t)p->group * l->head_dim;
    const uint32_t *ids = slot->ids;
    float *lse = out + l->n_kv_heads * floats;

    for (uint32_t i = 0; i < l->n_kv_heads; i++) {
        const uint32_t n = qyi_probe_share(p, slot->rows, i);

        p->items[i] =
            (struct qy_attend_item){.q = p->q + i * floats,
                                    .rows = {.blocks = p->blocks,
                                             .offset = qyi_layout_home_at(l, slot->layer, i),
                                             .shift = l->shift,
                                             .d = l->head_dim,
                                             .type = l->row_type},
                                    .ids = ids,
                                    .n = n,
                                    .group = p->group,
                                    .out = out + i * floats,
                                    .lse = lse + (size_t)i * p->group};
        ids += n;
    }
    return qy_device_attend(p->params.dev, p->items, l->n_kv_heads, scale(p), &p->arena);
}

enum qy_status qyi_probe_do(struct qy_memory_probe *p, enum qy_probe_kind kind,
                            const struct qyi_probe_slot *slot, uint8_t *to)
{
    switch (kind) {
    case QY_PROBE_STATE:
        break;
    case QY_PROBE_PUT:
    case QY_PROBE_READ:
        memcpy(to, p->blocks[slot->block], p->layout.block_bytes);
        break;
    case QY_PROBE_ROWS:
        do_rows(p, slot, to);
        break;
    case QY_PROBE_ATTEND:
        return do_attend(p, slot, (float *)(void *)to);
    }
    return QY_OK;
}

/* ---- answers ---------------------------------------------------------------------------------- */

size_t qyi_probe_answer_bytes(const struct qy_memory_probe *p, enum qy_probe_kind kind,
                              uint32_t rows)
{
    const struct qyi_layout *l = &p->layout;

    switch (kind) {
    case QY_PROBE_STATE:
        return sizeof(struct qyi_remote_state);
    case QY_PROBE_PUT:
        return 0;
    case QY_PROBE_READ:
        return l->block_bytes;
    case QY_PROBE_ROWS:
        return rows * l->row_bytes;
    case QY_PROBE_ATTEND:
        return (size_t)l->n_kv_heads * p->group * (l->head_dim + 1) * sizeof(float);
    }
    return 0;
}

static uint64_t fold_of(const struct qy_memory_probe *p, enum qy_probe_kind kind,
                        const struct qyi_probe_slot *slot)
{
    const uint32_t *ids = slot->ids;
    uint64_t fold = 0;

    if (kind == QY_PROBE_READ) {
        return qyi_remote_fold(0, p->generations[slot->block]);
    }
    for (uint32_t i = 0; i < p->layout.n_kv_heads; i++) {
        const uint32_t n = qyi_probe_share(p, slot->rows, i);

        fold = qyi_remote_fold_ids(fold, ids, n, p->layout.shift, p->generations);
        ids += n;
    }
    return fold;
}

static int is_near(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(a[i] - b[i]) <= tolerance)) { /* one that is no number is not near either */
            return 0;
        }
    }
    return 1;
}

const char *qyi_probe_compare(struct qy_memory_probe *p, enum qy_probe_kind kind,
                              const struct qyi_probe_slot *slot)
{
    const size_t bytes = qyi_probe_answer_bytes(p, kind, slot->rows);
    struct qyi_remote_reply reply;
    struct qyi_remote_state state;

    if (qyi_remote_reply_parse(slot->request.reply_head, slot->request.reply_head_bytes, &reply) !=
            QY_OK ||
        slot->request.reply_bytes != bytes) {
        return "is of another form";
    }
    if (kind == QY_PROBE_PUT) {
        return NULL; /* seen when it is read */
    }
    if (kind == QY_PROBE_STATE) {
        return qyi_remote_state_parse(slot->reply, bytes, &state) == QY_OK ? NULL
                                                                           : "is of another form";
    }
    if (reply.fold != fold_of(p, kind, slot)) {
        return "is of other blocks";
    }
    if (qyi_probe_do(p, kind, slot, p->expected) != QY_OK) {
        return "cannot be compared: the device failed";
    }
    const int same = kind == QY_PROBE_ATTEND
                         ? is_near((const float *)(const void *)slot->reply,
                                   (const float *)(const void *)p->expected, bytes / sizeof(float))
                         : memcmp(slot->reply, p->expected, bytes) == 0;
    return same ? NULL : "has other bytes";
}
