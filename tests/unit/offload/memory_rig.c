/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_rig.h. */
#include "tests/unit/offload/memory_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t or_default(uint64_t value, uint64_t initial)
{
    return value != 0 ? value : initial;
}

/* ---- the server ---------------------------------------------------------------------------------- */

void memory_rig_open(struct memory_rig *rig, const struct memory_options *o)
{
    const struct qy_team_params team = {.n_threads = (uint32_t)or_default(o->threads, 1)};
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    const struct qy_kv_shape shape = {MR_LAYERS, MR_KV_HEADS * MR_GROUP, MR_KV_HEADS, MR_D};
    const struct qy_cache_settings settings = {.block_tokens = MR_TOKENS};
    struct qyi_layout layout;

    memset(rig, 0, sizeof(*rig));
    rig->rt.mem = qy_allocator_system();
    qy_cpu_detect(&rig->rt.cpu);
    assert_int_equal(qy_cpu_choose(&rig->rt.cpu, "auto", NULL), QY_OK);
    assert_int_equal(qy_team_open(&rig->rt.mem, &team, &rig->rt.team, NULL), QY_OK);
    assert_int_equal(qy_device_open(&rig->rt, &device, &rig->dev, NULL), QY_OK);
    assert_int_equal(qyi_layout_make(&shape, &settings, 0, &layout, NULL), QY_OK);
    const struct qy_memory_params params = {
        .rt = &rig->rt,
        .bytes = or_default(o->n_blocks, 48) * layout.block_bytes,
        .table_bytes = o->table_bytes,
        .grace_ns = or_default(o->grace_ns, 100),
        .call_bytes = MR_CALL,
        .answer_bytes = MR_ANSWER,
        .scratch_bytes = o->scratch_bytes,
        .max_sessions = (uint32_t)or_default(o->max_sessions, 2)};
    assert_int_equal(qy_memory_open(&params, &rig->memory, NULL), QY_OK);
}

void memory_rig_close(struct memory_rig *rig)
{
    qy_memory_close(rig->memory);
    qy_device_close(rig->dev);
    qy_team_close(rig->rt.team);
}

void memory_ask_direct(struct memory_worker *w, const struct qyi_question *question,
                       struct memory_said *said)
{
    struct memory_direct *line = w->line;
    struct qyi_question q = *question;
    struct qyi_memory_reply answer = {0};
    uint8_t *buffer = aligned_alloc(64, MR_ANSWER);

    assert_non_null(buffer);
    q.answer = buffer;
    said->lost = 0;
    said->has_head = 0;
    said->bytes = 0;
    if (q.op == QYI_REMOTE_PUT) {
        void *frame = qyi_memory_place(line->memory, line->session, &q, &said->code);

        if (!frame) {
            assert_int_not_equal(said->code, QYI_REMOTE_DONE);
            free(buffer);
            return;
        }
        memcpy(frame, q.payload, q.payload_bytes);
        q.payload = frame;
    }
    qyi_memory_answer(line->memory, w->name, &line->session, &q, &answer);
    said->lost = answer.refused != NULL;
    said->code = answer.code;
    if (!said->lost) {
        said->has_head = 1;
        said->bytes = answer.payload_bytes;
        assert_int_equal(qyi_remote_reply_parse(&answer.head, sizeof(answer.head), &said->reply),
                         QY_OK);
        assert_true(said->bytes <= sizeof(said->payload));
        if (said->bytes > 0) {
            memcpy(said->payload, answer.payload, said->bytes);
        }
        qyi_memory_sent(line->memory, &answer);
    }
    free(buffer);
}

/* ---- workers ------------------------------------------------------------------------------------- */

uint64_t memory_random(struct memory_worker *w)
{
    uint64_t x = (w->counter += 0x9e3779b97f4a7c15u) + w->name[0];

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static float random_unit(struct memory_worker *w)
{
    return (float)(int64_t)(memory_random(w) >> 40) / (float)(1 << 23) - 1.0F;
}

void memory_worker_init(struct memory_worker *w, const struct memory_rig *rig, uint8_t n,
                        const struct memory_form *form, memory_line ask, void *line)
{
    const struct qy_kv_shape shape = {MR_LAYERS, MR_KV_HEADS * MR_GROUP, MR_KV_HEADS, MR_D};
    struct qy_cache_settings settings = {.block_tokens = MR_TOKENS, .row_type = (int)form->type};
    uint32_t n_coded;

    memset(w, 0, sizeof(*w));
    w->ask = ask;
    w->line = line;
    w->rt = &rig->rt;
    memset(w->name, n, sizeof(w->name));
    for (uint32_t i = 0; i < MR_SEQUENCES; i++) {
        w->serials[i] = 1;
    }
    (void)snprintf(settings.home_codec, sizeof(settings.home_codec), "%s",
                   form->codec ? form->codec : "f16");
    assert_int_equal(qyi_layout_make(&shape, &settings, form->index_bytes, &w->layout, NULL),
                     QY_OK);
    assert_int_equal(qyi_codec_parse(&shape, &settings, w->home, &n_coded, NULL), QY_OK);
    if (n_coded > 0) {
        qyi_layout_code(&w->layout, w->home);
    }
}

void memory_worker_free(struct memory_worker *w)
{
    for (uint32_t i = 0; i < MR_SEQUENCES * MR_BLOCKS; i++) {
        free(w->blocks[i / MR_BLOCKS][i % MR_BLOCKS]);
        w->blocks[i / MR_BLOCKS][i % MR_BLOCKS] = NULL;
    }
}

static uint16_t ask(struct memory_worker *w, uint16_t op, const void *head, size_t head_bytes,
                    const void *payload, size_t payload_bytes)
{
    const struct qyi_question q = {.op = op,
                                   .head_bytes = head_bytes,
                                   .payload_bytes = payload_bytes,
                                   .head = head,
                                   .payload = payload};

    w->ask(w, &q, &w->said);
    return w->said.lost ? UINT16_MAX : w->said.code;
}

uint16_t memory_open(struct memory_worker *w)
{
    _Alignas(64) uint8_t payload[256];

    assert_true(qyi_remote_open_bytes(&w->layout) <= sizeof(payload));
    qyi_remote_open_pack(&w->layout, MR_GROUP, MR_SEQUENCES, MR_BLOCKS, payload);
    return ask(w, QYI_REMOTE_OPEN, NULL, 0, payload, qyi_remote_open_bytes(&w->layout));
}

static void make_slab(struct memory_worker *w, uint8_t *block, uint32_t layer, uint32_t head)
{
    const struct qyi_layout *l = &w->layout;
    uint8_t *slab = block + qyi_layout_home_at(l, layer, head);
    enum { N = MR_TOKENS * 2 * MR_D };
    uint16_t half[N];

    for (uint32_t i = 0; i < N; i++) {
        const float x = random_unit(w);

        half[i] = qy_f16_from_f32(x);
        if (l->row_type == QY_ROW_F32) {
            memcpy(slab + i * sizeof(x), &x, sizeof(x));
        }
    }
    if (l->home) {
        qy_rows_encode(w->rt, qyi_layout_codec(l, layer), half, MR_TOKENS, slab);
    } else if (l->row_type == QY_ROW_F16) {
        memcpy(slab, half, sizeof(half));
    }
}

void memory_make(struct memory_worker *w, uint32_t sequence, uint32_t b)
{
    const struct qyi_layout *l = &w->layout;
    uint8_t *block = w->blocks[sequence][b];

    if (!block) {
        block = aligned_alloc(64, l->block_bytes);
        assert_non_null(block);
        w->blocks[sequence][b] = block;
    }
    memset(block, 0, l->block_bytes);
    for (uint32_t i = 0; i < l->n_slabs; i++) {
        make_slab(w, block, i / MR_KV_HEADS, i % MR_KV_HEADS);
    }
    for (size_t at = l->index_at; at < l->footer_at; at++) {
        block[at] = (uint8_t)memory_random(w);
    }
    *qyi_block_footer(l, block) = (struct qyi_footer){.n_slabs = l->n_slabs};
    for (size_t i = 0; i < l->n_sums; i++) {
        qyi_block_sums(l, block)[i] = qyi_block_sum(l, block, i);
    }
    w->generations[sequence][b] = ++w->made;
}

uint16_t memory_put(struct memory_worker *w, uint32_t sequence, uint32_t b)
{
    const struct qyi_remote_put put = {.serial = w->serials[sequence],
                                       .generation = w->generations[sequence][b],
                                       .sequence = sequence,
                                       .block = b};

    return ask(w, QYI_REMOTE_PUT, &put, sizeof(put), w->blocks[sequence][b], w->layout.block_bytes);
}

void memory_fill(struct memory_worker *w, uint32_t sequence, uint32_t n)
{
    for (uint32_t b = 0; b < n; b++) {
        memory_make(w, sequence, b);
        assert_int_equal(memory_put(w, sequence, b), QYI_REMOTE_DONE);
    }
}

uint16_t memory_drop(struct memory_worker *w, uint32_t sequence, uint32_t first, uint32_t n,
                     uint64_t generation)
{
    const struct qyi_remote_count count = {.n = 1};
    const struct qyi_remote_drop drop = {.serial = w->serials[sequence],
                                         .generation = generation ? generation : w->made,
                                         .sequence = sequence,
                                         .first = first,
                                         .n = n};

    return ask(w, QYI_REMOTE_DROP, &count, sizeof(count), &drop, sizeof(drop));
}

uint16_t memory_read(struct memory_worker *w, const struct qyi_remote_read *reads, uint32_t n)
{
    const struct qyi_remote_count count = {.n = n};

    return ask(w, QYI_REMOTE_READ, &count, sizeof(count), reads, n * sizeof(*reads));
}

uint16_t memory_state(struct memory_worker *w)
{
    return ask(w, QYI_REMOTE_STATE, NULL, 0, NULL, 0);
}

/* ---- lists --------------------------------------------------------------------------------------- */

void memory_list_add(struct memory_worker *w, struct memory_list *list, uint32_t sequence,
                     uint32_t head, uint32_t n, uint32_t n_blocks, int in_order)
{
    assert_true(list->n_items < MR_ITEMS && list->n_ids + n <= MR_IDS);
    float *q = list->q + list->n_items * MR_FLOATS;

    for (uint32_t i = 0; i < MR_FLOATS; i++) {
        q[i] = random_unit(w);
    }
    for (uint32_t i = 0; i < n; i++) {
        list->ids[list->n_ids++] =
            in_order ? i : (uint32_t)(memory_random(w) % (n_blocks * MR_TOKENS));
    }
    list->items[list->n_items++] = (struct qyi_remote_item){
        .serial = w->serials[sequence], .sequence = sequence, .head = head, .n = n};
}

static uint16_t ask_list(struct memory_worker *w, uint16_t op, uint32_t query_floats,
                         const struct memory_list *list)
{
    const struct qyi_remote_parts parts =
        qyi_remote_parts(list->n_items, list->n_ids, query_floats);
    const struct qyi_remote_ask head = {.layer = list->layer,
                                        .n_items = list->n_items,
                                        .n_ids = list->n_ids,
                                        .scale = op == QYI_REMOTE_ATTEND ? memory_scale : 0.0F};
    uint8_t *payload = malloc(parts.bytes);

    assert_non_null(payload);
    memcpy(payload, list->items, list->n_items * sizeof(list->items[0]));
    memcpy(payload + parts.q_at, list->q, list->n_items * query_floats * sizeof(float));
    memcpy(payload + parts.ids_at, list->ids, list->n_ids * sizeof(list->ids[0]));
    const uint16_t code = ask(w, op, &head, sizeof(head), payload, parts.bytes);
    free(payload);
    return code;
}

uint16_t memory_rows(struct memory_worker *w, const struct memory_list *list)
{
    return ask_list(w, QYI_REMOTE_ROWS, 0, list);
}

uint16_t memory_attend(struct memory_worker *w, const struct memory_list *list)
{
    return ask_list(w, QYI_REMOTE_ATTEND, MR_FLOATS, list);
}

size_t memory_expect_rows(const struct memory_worker *w, const struct memory_list *list,
                          uint8_t *rows)
{
    const struct qyi_layout *l = &w->layout;
    const size_t bytes = qyi_layout_home_row(l, list->layer);
    const uint32_t *ids = list->ids;
    uint8_t *to = rows;

    for (uint32_t i = 0; i < list->n_items; i++) {
        const struct qyi_remote_item *item = &list->items[i];

        for (uint32_t k = 0; k < item->n; k++, to += bytes) {
            const uint8_t *block = w->blocks[item->sequence][ids[k] / MR_TOKENS];

            memcpy(to,
                   block + qyi_layout_home_at(l, list->layer, item->head) +
                       ids[k] % MR_TOKENS * bytes,
                   bytes);
        }
        ids += item->n;
    }
    return (size_t)(to - rows);
}

size_t memory_expect_attend(const struct memory_worker *w, struct qy_device *dev,
                            const struct memory_list *list, float *answer)
{
    static uint8_t scratch[8 << 20];
    const struct qyi_layout *l = &w->layout;
    const uint32_t *ids = list->ids;
    struct qy_attend_item items[MR_ITEMS];
    struct qy_arena arena;

    qy_arena_init(&arena, scratch, sizeof(scratch));
    for (uint32_t i = 0; i < list->n_items; i++) {
        const struct qyi_remote_item *item = &list->items[i];
        const size_t at = qyi_layout_home_at(l, list->layer, item->head);

        items[i] =
            (struct qy_attend_item){.q = list->q + i * MR_FLOATS,
                                    .rows = {.blocks = w->blocks[item->sequence],
                                             .offset = at,
                                             .shift = l->shift,
                                             .d = MR_D,
                                             .type = l->row_type,
                                             .n_coded = UINT32_MAX,
                                             .codec = qyi_layout_codec(l, list->layer),
                                             .coded_offset = at},
                                    .ids = ids,
                                    .n = item->n,
                                    .group = MR_GROUP,
                                    .out = answer + i * MR_FLOATS,
                                    .lse = answer + list->n_items * MR_FLOATS + i * MR_GROUP};
        ids += item->n;
    }
    assert_int_equal(qy_device_attend(dev, items, list->n_items, memory_scale, &arena), QY_OK);
    return list->n_items * (MR_FLOATS + MR_GROUP) * sizeof(float);
}

uint64_t memory_expect_fold(const struct memory_worker *w, const struct memory_list *list)
{
    const uint32_t *ids = list->ids;
    uint64_t fold = 0;

    for (uint32_t i = 0; i < list->n_items; i++) {
        uint32_t last = UINT32_MAX;

        for (uint32_t k = 0; k < list->items[i].n; k++) {
            const uint32_t b = ids[k] / MR_TOKENS;

            fold = b == last ? fold
                             : qyi_remote_fold(fold, w->generations[list->items[i].sequence][b]);
            last = b;
        }
        ids += list->items[i].n;
    }
    return fold;
}

int memory_holds(struct memory_worker *w, uint32_t sequence, uint32_t block)
{
    const struct qyi_remote_read read = {.serial = w->serials[sequence],
                                         .bytes = w->layout.block_bytes,
                                         .sequence = sequence,
                                         .block = block};

    return memory_read(w, &read, 1) == QYI_REMOTE_DONE &&
           memcmp(w->said.payload, w->blocks[sequence][block], w->layout.block_bytes) == 0;
}

/* ---- a bed --------------------------------------------------------------------------------------- */

struct memory_worker *memory_bed_start(struct memory_bed *bed, uint32_t i,
                                       const struct memory_form *form)
{
    bed->lines[i] = (struct memory_direct){.memory = bed->rig.memory};
    memory_worker_init(&bed->workers[i], &bed->rig, (uint8_t)(i + 1), form, memory_ask_direct,
                       &bed->lines[i]);
    return &bed->workers[i];
}

struct memory_worker *memory_bed_open(struct memory_bed *bed, const struct memory_options *options)
{
    memset(bed, 0, sizeof(*bed));
    memory_rig_open(&bed->rig, options);
    struct memory_worker *w = memory_bed_start(bed, 0, &(struct memory_form){.type = QY_ROW_F16});
    assert_int_equal(memory_open(w), QYI_REMOTE_DONE);
    return w;
}

void memory_bed_close(struct memory_bed *bed)
{
    for (uint32_t i = 0; i < 2; i++) {
        memory_worker_free(&bed->workers[i]);
    }
    memory_rig_close(&bed->rig);
}
