/* SPDX-License-Identifier: Apache-2.0 */
/* For whom a memory server keeps blocks, and for how long. */
#include "tests/unit/offload/memory_rig.h"

#include <string.h>

static const struct memory_form f16 = {.type = QY_ROW_F16};
static const struct memory_form f32 = {.type = QY_ROW_F32};

/* Static: answers are large. */
static struct memory_bed bed;

static void session_sees_its_own_blocks_alone(void **state)
{
    struct memory_worker *a = memory_bed_open(&bed, &(struct memory_options){0});
    struct memory_worker *b = memory_bed_start(&bed, 1, &f16);
    (void)state;

    memory_fill(a, 0, 3);
    assert_int_equal(memory_state(b), QYI_REMOTE_NOT_OPEN);
    memory_make(b, 0, 0);
    assert_int_equal(memory_put(b, 0, 0), QYI_REMOTE_NOT_OPEN);
    assert_int_equal(memory_open(b), QYI_REMOTE_DONE);
    assert_int_equal(b->said.reply.held_blocks, 0);
    assert_int_equal(b->said.reply.answer_bytes, MR_ANSWER);
    assert_int_equal(b->said.reply.call_bytes, MR_CALL);
    memory_make(b, 0, 1);
    assert_false(memory_holds(b, 0, 1));
    assert_int_equal(b->said.code, QYI_REMOTE_UNKNOWN);
    assert_int_equal(memory_put(b, 0, 0), QYI_REMOTE_DONE);
    assert_true(memory_holds(b, 0, 0));
    assert_true(memory_holds(a, 0, 0));
    assert_int_equal(memory_drop(b, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_true(memory_holds(a, 0, 0));
    assert_int_equal(memory_state(a), QYI_REMOTE_DONE);
    assert_int_equal(a->said.reply.held_blocks, 3);
    assert_int_equal(a->said.reply.in_bytes, 3 * a->layout.block_bytes);
    memory_bed_close(&bed);
}

static void open_again_keeps_the_blocks(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    (void)state;

    memory_fill(w, 2, 2);
    bed.lines[0].session = NULL; /* another connection */
    assert_int_equal(memory_open(w), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 2);
    assert_true(memory_holds(w, 2, 1));
    memory_bed_close(&bed);
}

static void blocks_of_one_size_at_a_time(void **state)
{
    struct memory_worker *a = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 8});
    struct memory_worker *b = memory_bed_start(&bed, 1, &f32);
    (void)state;

    memory_fill(a, 0, 1);
    assert_int_equal(memory_open(b), QYI_REMOTE_BUSY);
    assert_int_equal(memory_drop(a, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(memory_open(b), QYI_REMOTE_DONE);
    assert_true(b->said.reply.total_blocks < 5);
    memory_fill(b, 1, 2);
    memory_make(a, 0, 1);
    assert_int_equal(memory_put(a, 0, 1), QYI_REMOTE_BUSY);
    assert_int_equal(memory_open(a), QYI_REMOTE_BUSY);
    assert_true(memory_holds(b, 1, 0));
    assert_int_equal(memory_drop(b, 1, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(memory_open(a), QYI_REMOTE_DONE);
    assert_int_equal(memory_put(a, 0, 1), QYI_REMOTE_DONE);
    memory_bed_close(&bed);
}

static void session_may_open_anew_when_it_holds_nothing(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    struct memory_worker *other = memory_bed_start(&bed, 1, &(struct memory_form){.codec = "4bit"});
    (void)state;

    memory_fill(w, 0, 1);
    memcpy(other->name, w->name, sizeof(w->name)); /* the same process, with another cache */
    assert_int_equal(memory_open(other), QYI_REMOTE_BUSY);
    assert_int_equal(memory_drop(w, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(memory_open(other), QYI_REMOTE_DONE);
    memory_fill(other, 0, 2);
    assert_true(memory_holds(other, 0, 1));
    memory_bed_close(&bed);
}

/* Of the same bytes, in another form. */
static void session_of_another_form_is_another_one(void **state)
{
    _Alignas(64) uint8_t payload[256];
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    struct qyi_question q = {.op = QYI_REMOTE_OPEN, .payload = payload};
    static struct memory_list list;
    float expected[MR_FLOATS + MR_GROUP];
    (void)state;

    memory_fill(w, 0, 1);
    q.payload_bytes = qyi_remote_open_bytes(&w->layout);
    qyi_remote_open_pack(&w->layout, MR_GROUP + 1, MR_SEQUENCES, MR_BLOCKS, payload);
    memory_ask_direct(w, &q, &w->said);
    assert_int_equal(w->said.code, QYI_REMOTE_BUSY);
    assert_true(memory_holds(w, 0, 0));
    assert_int_equal(memory_drop(w, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);

    static const char *const codecs[] = {"k8v4", "k4v8"};
    for (size_t i = 0; i < 2; i++) {
        memory_worker_free(w);
        w = memory_bed_start(&bed, 0, &(struct memory_form){.codec = codecs[i]});
        assert_int_equal(memory_open(w), QYI_REMOTE_DONE);
        memory_fill(w, 0, 1);
        list = (struct memory_list){.layer = 1};
        memory_list_add(w, &list, 0, 1, 20, 1, 0);
        assert_int_equal(memory_attend(w, &list), QYI_REMOTE_DONE);
        assert_int_equal(w->said.bytes, memory_expect_attend(w, bed.rig.dev, &list, expected));
        assert_memory_equal(w->said.payload, expected, w->said.bytes);
        assert_int_equal(memory_drop(w, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    }
    memory_bed_close(&bed);
}

static void session_that_is_away_for_too_long_is_forgotten(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.grace_ns = 100});
    struct qy_memory_stats stats;
    (void)state;

    memory_fill(w, 0, 2);
    bed.lines[0].session->n_peers = 1;
    (void)qy_memory_tend(bed.rig.memory, 1000);
    (void)qy_memory_tend(bed.rig.memory, 9000);
    assert_true(memory_holds(w, 0, 1));
    bed.lines[0].session->n_peers = 0;
    (void)qy_memory_tend(bed.rig.memory, 10000);
    (void)qy_memory_tend(bed.rig.memory, 10099);
    bed.lines[0].session->n_peers = 1; /* back in time */
    (void)qy_memory_tend(bed.rig.memory, 10200);
    bed.lines[0].session->n_peers = 0;
    (void)qy_memory_tend(bed.rig.memory, 20000);
    (void)qy_memory_tend(bed.rig.memory, 20099);
    assert_true(memory_holds(w, 0, 1));
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.sessions_away, 1);
    (void)qy_memory_tend(bed.rig.memory, 20100);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.sessions, 0);
    assert_int_equal(stats.sessions_forgotten, 1);
    assert_int_equal(stats.blocks_free, stats.blocks_total);
    bed.lines[0].session = NULL;
    assert_int_equal(memory_state(w), QYI_REMOTE_NOT_OPEN);
    assert_int_equal(memory_open(w), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 0);
    memory_bed_close(&bed);
}

static void sessions_and_their_tables_are_limited(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.max_sessions = 1});
    struct memory_worker *second = memory_bed_start(&bed, 1, &f16);
    (void)state;

    assert_int_equal(memory_open(second), QYI_REMOTE_FULL);
    memset(second->name, 0, sizeof(second->name));
    assert_int_equal(memory_open(second), UINT16_MAX);
    memory_bed_close(&bed);

    memory_rig_open(&bed.rig, &(struct memory_options){.table_bytes = 600});
    w = memory_bed_start(&bed, 0, &f16);
    assert_int_equal(memory_open(w), QYI_REMOTE_DONE); /* 3 + 2 * 36 words */
    second = memory_bed_start(&bed, 1, &f16);
    assert_int_equal(memory_open(second), QYI_REMOTE_TOO_LARGE);
    memory_bed_close(&bed);

    memory_rig_open(&bed.rig, &(struct memory_options){.n_blocks = 1});
    w = memory_bed_start(&bed, 0, &f32);
    assert_int_equal(memory_open(w), QYI_REMOTE_TOO_LARGE);
    memory_bed_close(&bed);
}

static void question_that_there_is_not_closes_the_peer(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    static struct memory_list list;
    (void)state;

    list = (struct memory_list){.layer = MR_LAYERS};
    memory_list_add(w, &list, 0, 0, 1, 1, 0);
    assert_int_equal(memory_rows(w, &list), UINT16_MAX);
    assert_int_equal(memory_attend(w, &list), UINT16_MAX);
    for (uint16_t op = 0; op < 32; op++) {
        const struct qyi_question q = {.op = op};

        memory_ask_direct(w, &q, &w->said);
        const int told = op == QYI_REMOTE_STATE || op == QYI_REMOTE_PUT;
        assert_int_equal(w->said.lost, !told); /* a PUT is turned down by its head */
    }
    assert_int_equal(memory_state(w), QYI_REMOTE_DONE);
    memory_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session_sees_its_own_blocks_alone),
        cmocka_unit_test(open_again_keeps_the_blocks),
        cmocka_unit_test(blocks_of_one_size_at_a_time),
        cmocka_unit_test(session_may_open_anew_when_it_holds_nothing),
        cmocka_unit_test(session_of_another_form_is_another_one),
        cmocka_unit_test(session_that_is_away_for_too_long_is_forgotten),
        cmocka_unit_test(sessions_and_their_tables_are_limited),
        cmocka_unit_test(question_that_there_is_not_closes_the_peer),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_sessions", tests, NULL, NULL);
}
