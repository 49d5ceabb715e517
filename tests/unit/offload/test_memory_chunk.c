/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks at a memory server: the bits of the worker's own kernel over the same rows, and what is turned
 * down. */
#include "tests/unit/offload/memory_rig.h"

#include <stdlib.h>
#include <string.h>

enum { HEADS = MR_KV_HEADS * MR_GROUP, FLOATS = HEADS * MR_D, MOST_Q = 100, MOST_B = 300 };

/* A server with one worker who has filled two sequences. Static: answers are large. */
static struct memory_rig rig;
static struct memory_direct line;
static struct memory_worker worker;

static void open_filled(const struct memory_form *form, const struct memory_options *options)
{
    memory_rig_open(&rig, options);
    line = (struct memory_direct){.memory = rig.memory};
    memory_worker_init(&worker, &rig, 1, form, memory_ask_direct, &line);
    assert_int_equal(memory_open(&worker), QYI_REMOTE_DONE);
    memory_fill(&worker, 0, 3);
    memory_fill(&worker, 2, MR_BLOCKS);
}

static void close_filled(void)
{
    memory_worker_free(&worker);
    memory_rig_close(&rig);
}

/* A question; its payload has room for MOST_Q queries and MOST_B blocks. */
struct chunk {
    struct qyi_remote_chunk ask;
    float q[MOST_Q * FLOATS];
    uint32_t blocks[MOST_B];
};

static void make_chunk(struct chunk *c, uint32_t sequence, uint32_t layer, uint32_t n_queries,
                       const uint32_t *blocks, uint32_t n_blocks)
{
    c->ask = (struct qyi_remote_chunk){.serial = worker.serials[sequence],
                                       .sequence = sequence,
                                       .layer = layer,
                                       .n_queries = n_queries,
                                       .n_blocks = n_blocks,
                                       .scale = memory_scale};
    for (size_t i = 0; i < (size_t)n_queries * FLOATS; i++) {
        c->q[i] = (float)(int64_t)(memory_random(&worker) >> 40) / (float)(1 << 22) - 2.0F;
    }
    memcpy(c->blocks, blocks, n_blocks * sizeof(*blocks));
}

static uint16_t ask(const struct chunk *c)
{
    const size_t q_bytes = (size_t)c->ask.n_queries * FLOATS * sizeof(float);
    const size_t bytes = qyi_remote_chunk_bytes(c->ask.n_queries, c->ask.n_blocks, FLOATS);
    uint8_t *payload = malloc(bytes);
    const struct qyi_question q = {.op = QYI_REMOTE_CHUNK,
                                   .head = &c->ask,
                                   .head_bytes = sizeof(c->ask),
                                   .payload = payload,
                                   .payload_bytes = bytes};

    assert_non_null(payload);
    memcpy(payload, c->q, q_bytes);
    memcpy(payload + q_bytes, c->blocks, c->ask.n_blocks * sizeof(uint32_t));
    worker.ask(&worker, &q, &worker.said);
    free(payload);
    return worker.said.lost ? UINT16_MAX : worker.said.code;
}

/* By the worker's device over the worker's blocks, decoded all at once. */
static void expect_answer(const struct chunk *c)
{
    static float want[MOST_Q * (FLOATS + HEADS)];
    static uint8_t scratch[8 << 20];
    const struct qyi_layout *l = &worker.layout;
    const size_t slabs = MR_KV_HEADS * l->slab_bytes;
    uint8_t *rows = malloc(c->ask.n_blocks * slabs);
    uint8_t *table[MOST_B];
    struct qy_chunk_item items[MR_KV_HEADS];
    struct qy_arena arena;
    uint64_t fold = 0;

    assert_non_null(rows);
    for (uint32_t i = 0; i < c->ask.n_blocks; i++) {
        const uint8_t *home =
            worker.blocks[c->ask.sequence][c->blocks[i]] + qyi_layout_home_at(l, c->ask.layer, 0);

        table[i] = rows + i * slabs;
        if (l->home) {
            qy_rows_decode(worker.rt, qyi_layout_codec(l, c->ask.layer), home,
                           MR_KV_HEADS * MR_TOKENS, table[i]);
        } else {
            memcpy(table[i], home, slabs);
        }
        fold = qyi_remote_fold(fold, worker.generations[c->ask.sequence][c->blocks[i]]);
    }
    for (uint32_t h = 0; h < MR_KV_HEADS; h++) {
        items[h] = (struct qy_chunk_item){.q = c->q + h * MR_FLOATS,
                                          .q_stride = FLOATS,
                                          .rows = {.blocks = table,
                                                   .offset = h * l->slab_bytes,
                                                   .shift = l->shift,
                                                   .d = MR_D,
                                                   .type = l->row_type},
                                          .first = c->ask.n_blocks * MR_TOKENS,
                                          .n_q = c->ask.n_queries,
                                          .group = MR_GROUP,
                                          .out = want + h * MR_FLOATS,
                                          .out_stride = FLOATS,
                                          .earlier = 1,
                                          .lse = want + c->ask.n_queries * FLOATS + h * MR_GROUP,
                                          .lse_stride = HEADS};
    }
    qy_arena_init(&arena, scratch, sizeof(scratch));
    assert_int_equal(qy_device_attend_chunk(rig.dev, items, MR_KV_HEADS, c->ask.scale, &arena),
                     QY_OK);
    const size_t bytes = (size_t)c->ask.n_queries * (FLOATS + HEADS) * sizeof(float);
    assert_int_equal(worker.said.bytes, bytes);
    assert_memory_equal(worker.said.payload, want, bytes);
    assert_int_equal(worker.said.reply.fold, fold);
    free(rows);
}

static void chunks_have_the_bits_of_the_device(void **state)
{
    static const struct memory_form forms[] = {
        {.type = QY_ROW_F16},
        {.type = QY_ROW_F32},
        {.type = QY_ROW_F16, .codec = "4bit+0:k8v4", .index_bytes = 100},
    };
    static const uint32_t blocks[] = {3, 4, 11, 0, 0, 7};
    static const uint32_t many[20] = {[3] = 5, [19] = 11}; /* more than is decoded at a time */
    static struct chunk c;
    (void)state;

    for (size_t f = 0; f < 3; f++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            open_filled(&forms[f], &(struct memory_options){.n_blocks = 48, .threads = threads});
            const struct {
                const uint32_t *blocks;
                uint32_t n_blocks, n_queries;
            } cases[] = {{blocks, 6, 7}, {blocks, 1, 1}, {blocks, 3, MOST_Q}, {many, 20, 5}};

            for (uint32_t i = 0; i < 8; i++) {
                make_chunk(&c, 2, i % 2, cases[i / 2].n_queries, cases[i / 2].blocks,
                           cases[i / 2].n_blocks);
                assert_int_equal(ask(&c), QYI_REMOTE_DONE);
                expect_answer(&c);
            }
            close_filled();
        }
    }
}

static void chunks_of_blocks_that_are_not_here_are_named(void **state)
{
    static const uint32_t blocks[] = {2, 1, 3};
    static struct chunk c;
    (void)state;

    open_filled(&(struct memory_form){.type = QY_ROW_F16}, &(struct memory_options){0});
    make_chunk(&c, 0, 0, 2, blocks, 3);
    assert_int_equal(ask(&c), QYI_REMOTE_UNKNOWN);
    assert_int_equal(worker.said.reply.block, 3);
    assert_int_equal(worker.said.bytes, 0);
    c.ask.n_blocks = 2;
    assert_int_equal(ask(&c), QYI_REMOTE_DONE);
    c.ask.serial++;
    assert_int_equal(ask(&c), QYI_REMOTE_UNKNOWN);
    worker.serials[0]++;
    memory_fill(&worker, 0, 1);
    c.ask.serial--;
    assert_int_equal(ask(&c), QYI_REMOTE_STALE);
    c.ask.layer = MR_LAYERS; /* and the peer is closed */
    assert_int_equal(ask(&c), UINT16_MAX);
    close_filled();
}

/* More work than a question may be, or than there is memory for: told, and nothing is done. */
static void chunks_that_are_too_large_are_turned_down(void **state)
{
    static const struct memory_form coded = {.type = QY_ROW_F16, .codec = "8bit"};
    static const uint32_t blocks[MOST_B] = {0};
    const uint32_t rows = QYI_REMOTE_CHUNK_WORK / (MOST_Q * FLOATS);
    static struct chunk c;
    (void)state;

    assert_in_range(rows / MR_TOKENS, 1, MOST_B - 1);
    open_filled(&(struct memory_form){.type = QY_ROW_F16}, &(struct memory_options){0});
    make_chunk(&c, 2, 0, MOST_Q, blocks, rows / MR_TOKENS + 1);
    assert_int_equal(ask(&c), QYI_REMOTE_TOO_LARGE);
    assert_int_equal(worker.said.bytes, 0);
    close_filled();

    open_filled(&coded, &(struct memory_options){0});
    const size_t all = rig.memory->arena.bytes;
    make_chunk(&c, 2, 1, 9, blocks, 10);
    rig.memory->arena.bytes = MR_KV_HEADS * worker.layout.slab_bytes; /* of one block's rows */
    assert_int_equal(ask(&c), QYI_REMOTE_TOO_LARGE);
    assert_int_equal(rig.memory->arena.used, 0);
    rig.memory->arena.bytes = all;
    assert_int_equal(ask(&c), QYI_REMOTE_DONE);
    expect_answer(&c);
    close_filled();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_have_the_bits_of_the_device),
        cmocka_unit_test(chunks_of_blocks_that_are_not_here_are_named),
        cmocka_unit_test(chunks_that_are_too_large_are_turned_down),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_chunk", tests, NULL, NULL);
}
