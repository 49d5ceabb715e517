/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks asked of memory servers through the store: the answers of all of them in their places, and what each
 * cannot. */
#include "tests/unit/offload/servers_rig.h"

#include <errno.h>
#include <string.h>

static struct servers_bed bed; /* static: it is large */
static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};

enum { HEADS = MR_KV_HEADS * MR_GROUP, FLOATS = HEADS * MR_D, QUERIES = 2, BLOCKS = MR_BLOCKS };

/* A question to each server about its blocks of sequence 0, and what is to come back. */
struct asks {
    float q[QUERIES * FLOATS];
    uint32_t slots[SERVERS][BLOCKS];
    struct qyi_store_request requests[SERVERS];
    float out[SERVERS][QUERIES * FLOATS];
    float lse[SERVERS][QUERIES * HEADS];
};
static struct asks asks;

static void make_asks(void)
{
    memset(&asks, 0, sizeof(asks));
    for (uint32_t i = 0; i < QUERIES * FLOATS; i++) {
        asks.q[i] = (float)(memory_random(&bed.worker) % 64) / 16.0F - 2.0F;
    }
    for (uint32_t v = 0; v < SERVERS; v++) {
        uint32_t n = 0;

        for (uint32_t b = 0; b < BLOCKS; b++) {
            if (qyi_store_where(bed.store, b) == v) {
                asks.slots[v][n++] = b;
            }
        }
        assert_true(n > 1);
        asks.requests[v] =
            (struct qyi_store_request){.op = QYI_STORE_CHUNK,
                                       .slot = asks.slots[v][0],
                                       .data = asks.out[v],
                                       .bytes = sizeof(asks.out[v]) + sizeof(asks.lse[v]),
                                       .list = {.slots = asks.slots[v],
                                                .n = n,
                                                .layer = 1,
                                                .place = v,
                                                .q = asks.q,
                                                .lse = asks.lse[v],
                                                .n_q = QUERIES}};
    }
}

/* By the worker's own device, over its blocks. */
static void expect_answer(uint32_t server)
{
    static uint8_t scratch[1 << 20];
    static float out[QUERIES * FLOATS];
    static float lse[QUERIES * HEADS];
    const struct qyi_store_list *list = &asks.requests[server].list;
    const struct qyi_layout *l = &bed.worker.layout;
    struct qy_chunk_item items[MR_KV_HEADS];
    uint8_t *table[BLOCKS];
    struct qy_arena arena;

    for (uint32_t i = 0; i < list->n; i++) {
        table[i] = bed.worker.blocks[0][list->slots[i]];
    }
    for (uint32_t h = 0; h < MR_KV_HEADS; h++) {
        items[h] = (struct qy_chunk_item){.q = asks.q + h * MR_FLOATS,
                                          .q_stride = FLOATS,
                                          .rows = {.blocks = table,
                                                   .offset = qyi_layout_home_at(l, 1, h),
                                                   .shift = l->shift,
                                                   .d = MR_D,
                                                   .type = l->row_type},
                                          .first = list->n * MR_TOKENS,
                                          .n_q = QUERIES,
                                          .group = MR_GROUP,
                                          .out = out + h * MR_FLOATS,
                                          .out_stride = FLOATS,
                                          .earlier = 1,
                                          .lse = lse + h * MR_GROUP,
                                          .lse_stride = HEADS};
    }
    qy_arena_init(&arena, scratch, sizeof(scratch));
    assert_int_equal(
        qy_device_attend_chunk(bed.rigs[0].dev, items, MR_KV_HEADS, memory_scale, &arena), QY_OK);
    assert_memory_equal(asks.out[server], out, sizeof(out));
    assert_memory_equal(asks.lse[server], lse, sizeof(lse));
}

static void chunks_come_back_in_their_places(void **state)
{
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 2, &usual);
    servers_fill(&bed, BLOCKS);
    make_asks();
    assert_int_equal(servers_run(&bed, asks.requests, SERVERS, &error), QY_OK);
    for (uint32_t v = 0; v < SERVERS; v++) {
        expect_answer(v);
    }
    const struct qyi_store_stats *stats = qyi_store_stats(bed.store);
    assert_int_equal(stats->chunks, SERVERS);
    assert_int_equal(stats->attends, 0);
    servers_bed_close(&bed);
}

/* One that died, and one that has a newer block than was meant: these fail, the third does not. */
static void places_that_cannot_say_so(void **state)
{
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    make_asks();
    struct memory_direct line = {.memory = bed.rigs[2].memory};
    line.session = qyi_session_find(line.memory, bed.worker.name);
    bed.worker.ask = memory_ask_direct;
    bed.worker.line = &line;
    memory_make(&bed.worker, 0, asks.slots[2][1]);
    assert_int_equal(memory_put(&bed.worker, 0, asks.slots[2][1]), QYI_REMOTE_DONE);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s1", QY_FABRIC_KILL), QY_OK);
    servers_close_one(&bed, 1);
    bed.nodes[1] = NULL;
    assert_int_equal(servers_run(&bed, asks.requests, SERVERS, &error), QY_ERR_DEVICE);
    assert_int_equal(asks.requests[0].error, 0);
    assert_int_equal(asks.requests[1].error, EAGAIN);
    assert_int_equal(asks.requests[2].error, EAGAIN);
    expect_answer(0);
    servers_open_one(&bed, 1, 48);
    servers_bed_close(&bed);
}

static void chunks_that_no_question_holds_are_not_asked(void **state)
{
    enum { MANY = 40 };
    static uint32_t slots[MANY];
    static float q[MANY * FLOATS];
    static float out[MANY * FLOATS];
    static float lse[MANY * HEADS];
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    make_asks();
    struct qyi_store_request request = asks.requests[0];
    request.list.place = 1; /* which has none of them */
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, EAGAIN);
    request = asks.requests[0];
    request.data = out;
    request.bytes = sizeof(out) + sizeof(lse);
    request.list.q = q;
    request.list.lse = lse;
    request.list.n_q = MANY;
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, E2BIG);
    for (uint32_t i = 0; i < MANY; i++) {
        slots[i] = request.slot;
    }
    slots[MANY - 1] = SLOTS;
    request = asks.requests[0];
    request.list.slots = slots;
    request.list.n = MANY;
    struct qyi_store_batch batch = {.requests = &request, .n = 1};
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_ERR_INVALID);
    request.list.n = MANY - 1;
    request.bytes--;
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_ERR_INVALID);
    servers_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_come_back_in_their_places),
        cmocka_unit_test(places_that_cannot_say_so),
        cmocka_unit_test(chunks_that_no_question_holds_are_not_asked),
    };

    return cmocka_run_group_tests_name("servers_chunk", tests, NULL, NULL);
}
