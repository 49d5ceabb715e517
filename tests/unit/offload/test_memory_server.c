/* SPDX-License-Identifier: Apache-2.0 */
/* What a memory server keeps, and of what age: blocks, their generations, the frames they lie in. */
#include "tests/unit/offload/memory_rig.h"

#include <string.h>

/* Static: answers are large. */
static struct memory_bed bed;

static uint32_t n_free(void)
{
    struct qy_memory_stats stats;

    qy_memory_stats(bed.rig.memory, &stats);
    return stats.blocks_free;
}

/* ---- blocks ---------------------------------------------------------------------------------------- */

static void block_that_is_here_is_not_taken_again(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 2});
    (void)state;

    memory_make(w, 0, 5);
    assert_int_equal(memory_put(w, 0, 5), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 1);
    assert_int_equal(w->said.reply.free_blocks, 1);
    assert_int_equal(w->said.reply.total_blocks, 2);
    assert_int_equal(w->said.reply.in_bytes, w->layout.block_bytes);
    assert_int_equal(memory_put(w, 0, 5), QYI_REMOTE_HELD);
    assert_int_equal(n_free(), 1);
    assert_true(memory_holds(w, 0, 5));
    memory_bed_close(&bed);
}

static void newer_content_replaces_older_and_not_the_other_way(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 2});
    (void)state;

    memory_fill(w, 1, 1);
    const uint64_t before = w->generations[1][0];
    memory_make(w, 1, 0);
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_DONE);
    assert_true(memory_holds(w, 1, 0));
    assert_int_equal(n_free(), 1);
    const uint64_t now = w->generations[1][0];
    w->generations[1][0] = before;
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_STALE);
    w->generations[1][0] = now;
    assert_true(memory_holds(w, 1, 0));
    memory_bed_close(&bed);
}

/* Two PUTs of a block are on their way at once: both have places before either has come. */
static void puts_that_cross_leave_the_newer(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 4});
    void *places[3];
    uint16_t code;
    (void)state;

    memory_make(w, 0, 0);
    for (uint32_t i = 0; i < 3; i++) { /* generations 2, 3, 3 */
        const struct qyi_remote_put put = {.serial = 1, .generation = 2 + (i > 0)};
        const struct qyi_question q = {.op = QYI_REMOTE_PUT,
                                       .head = &put,
                                       .head_bytes = sizeof(put),
                                       .payload_bytes = w->layout.block_bytes};

        places[i] = qyi_memory_place(bed.rig.memory, bed.lines[0].session, &q, &code);
        assert_non_null(places[i]);
        memcpy(places[i], w->blocks[0][0], w->layout.block_bytes);
    }
    static const uint16_t codes[] = {QYI_REMOTE_STALE, QYI_REMOTE_DONE, QYI_REMOTE_HELD};
    static const uint32_t order[] = {1, 0, 2};
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t k = order[i];
        const struct qyi_remote_put put = {.serial = 1, .generation = 2 + (k > 0)};
        const struct qyi_question q = {.op = QYI_REMOTE_PUT,
                                       .head = &put,
                                       .head_bytes = sizeof(put),
                                       .payload = places[k],
                                       .payload_bytes = w->layout.block_bytes};
        struct qyi_memory_reply answer = {0};

        qyi_memory_answer(bed.rig.memory, w->name, &bed.lines[0].session, &q, &answer);
        assert_null(answer.refused);
        assert_int_equal(answer.code, codes[k]);
    }
    assert_int_equal(n_free(), 3);
    assert_true(memory_holds(w, 0, 0));
    memory_bed_close(&bed);
}

static void damaged_block_is_turned_down(void **state)
{
    struct memory_worker *w =
        memory_bed_open(&bed, &(struct memory_options){.n_blocks = 2, .threads = 2});
    const size_t places[] = {0, w->layout.slab_bytes + 5, w->layout.footer_at - 1,
                             w->layout.footer_at + offsetof(struct qyi_footer, n_slabs),
                             w->layout.footer_at + sizeof(struct qyi_footer) + 8};
    (void)state;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        memory_make(w, 0, 0);
        w->blocks[0][0][places[i]] ^= 4;
        assert_int_equal(memory_put(w, 0, 0), QYI_REMOTE_CORRUPT);
        assert_int_equal(n_free(), 2);
        assert_false(memory_holds(w, 0, 0));
    }
    memory_make(w, 0, 0);
    assert_int_equal(memory_put(w, 0, 0), QYI_REMOTE_DONE);
    memory_bed_close(&bed);
}

static void full_server_turns_blocks_down(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 3});
    (void)state;

    memory_fill(w, 0, 3);
    memory_make(w, 1, 0);
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_FULL);
    assert_int_equal(memory_drop(w, 0, 1, 1, 0), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.free_blocks, 1);
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_DONE);
    assert_true(memory_holds(w, 0, 0));
    assert_false(memory_holds(w, 0, 1));
    assert_true(memory_holds(w, 0, 2));
    assert_true(memory_holds(w, 1, 0));
    memory_bed_close(&bed);
}

static void draining_server_hands_out_and_takes_nothing(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    (void)state;

    memory_fill(w, 0, 2);
    assert_int_equal(w->said.reply.draining, 0);
    qy_memory_drain(bed.rig.memory);
    memory_make(w, 1, 0);
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_FULL);
    assert_int_equal(memory_put(w, 0, 1), QYI_REMOTE_HELD);
    assert_true(memory_holds(w, 0, 1));
    assert_int_equal(w->said.reply.draining, 1);
    assert_int_equal(w->said.reply.free_blocks, 0);
    assert_int_equal(memory_drop(w, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 0);
    memory_bed_close(&bed);
}

static void drop_frees_what_is_older_than_it(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    (void)state;

    memory_fill(w, 0, 6);
    const uint64_t then = w->made;
    const uint64_t late = w->generations[0][4];
    memory_make(w, 0, 5);
    assert_int_equal(memory_put(w, 0, 5), QYI_REMOTE_DONE);
    assert_int_equal(memory_drop(w, 0, 2, UINT32_MAX, then), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 3);
    assert_true(memory_holds(w, 0, 1));
    assert_false(memory_holds(w, 0, 2));
    assert_true(memory_holds(w, 0, 5)); /* put after it was decided */
    w->generations[0][4] = late;        /* a PUT from before that comes only now */
    assert_int_equal(memory_put(w, 0, 4), QYI_REMOTE_STALE);
    memory_make(w, 0, 4);
    assert_int_equal(memory_put(w, 0, 4), QYI_REMOTE_DONE);
    assert_int_equal(memory_drop(w, 0, 2, UINT32_MAX, then), QYI_REMOTE_DONE); /* again, late */
    assert_true(memory_holds(w, 0, 4));
    memory_make(w, 0, 4); /* on its way when it is decided that it is not wanted */
    assert_int_equal(memory_drop(w, 0, 4, 1, 0), QYI_REMOTE_DONE);
    assert_int_equal(memory_put(w, 0, 4), QYI_REMOTE_STALE);
    memory_bed_close(&bed);
}

static void new_sequence_takes_the_slot(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){0});
    (void)state;

    memory_fill(w, 1, 4);
    w->serials[1] = 9;
    assert_int_equal(memory_drop(w, 1, 0, 1, 1), QYI_REMOTE_DONE); /* what is said of it first */
    assert_int_equal(w->said.reply.held_blocks, 0);
    memory_fill(w, 1, 2);
    assert_int_equal(w->said.reply.held_blocks, 2);
    assert_true(memory_holds(w, 1, 1));
    w->serials[1] = 8;
    assert_int_equal(memory_put(w, 1, 3), QYI_REMOTE_STALE);
    assert_int_equal(memory_drop(w, 1, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 2);
    w->serials[1] = 10; /* its generations are its own */
    for (uint32_t b = 0; b < 3; b++) {
        w->generations[1][b] = 1;
        assert_int_equal(memory_put(w, 1, b), QYI_REMOTE_DONE);
        assert_int_equal(w->said.reply.held_blocks, b + 1);
    }
    memory_bed_close(&bed);
}

/* ---- frames ---------------------------------------------------------------------------------------- */

static int is_zero(const uint8_t *bytes, size_t n)
{
    size_t i = 0;

    while (i < n && bytes[i] == 0) {
        i++;
    }
    return i == n;
}

static void frames_are_cleared_before_they_are_used_again(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 3});
    const struct qyi_remote_put put = {.serial = 1, .generation = 99, .sequence = 2, .block = 1};
    const struct qyi_question q = {.op = QYI_REMOTE_PUT,
                                   .head = &put,
                                   .head_bytes = sizeof(put),
                                   .payload_bytes = w->layout.block_bytes};
    uint16_t code;
    (void)state;

    memory_fill(w, 0, 3);
    assert_int_equal(memory_drop(w, 0, 1, 1, 0), QYI_REMOTE_DONE);
    uint8_t *frame = qyi_memory_place(bed.rig.memory, bed.lines[0].session, &q, &code);
    assert_non_null(frame);
    assert_true(is_zero(frame, w->layout.block_bytes));
    memset(frame, 7, 100); /* as much as came before the peer left */
    qyi_frames_give(&bed.rig.memory->frames, frame);
    assert_int_equal(memory_drop(w, 0, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(n_free(), 3);
    while (qy_memory_tend(bed.rig.memory, 0)) {
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(is_zero(qy_pool_at(bed.rig.memory->frames.pool, i), w->layout.block_bytes));
    }
    assert_int_equal(n_free(), 3);
    memory_bed_close(&bed);
}

static void block_that_is_being_sent_stays_until_it_is_sent(void **state)
{
    struct memory_worker *w = memory_bed_open(&bed, &(struct memory_options){.n_blocks = 2});
    const struct qyi_remote_count count = {.n = 1};
    const struct qyi_remote_read read = {.serial = 1, .bytes = w->layout.block_bytes};
    const struct qyi_question q = {.op = QYI_REMOTE_READ,
                                   .head = &count,
                                   .head_bytes = sizeof(count),
                                   .payload = &read,
                                   .payload_bytes = sizeof(read)};
    struct qyi_memory_reply answers[2] = {{0}, {0}};
    (void)state;

    memory_fill(w, 0, 1);
    for (int i = 0; i < 2; i++) {
        qyi_memory_answer(bed.rig.memory, w->name, &bed.lines[0].session, &q, &answers[i]);
        assert_int_equal(answers[i].code, QYI_REMOTE_DONE);
        assert_non_null(answers[i].pinned);
    }
    assert_int_equal(memory_drop(w, 0, 0, 1, 0), QYI_REMOTE_DONE);
    assert_false(memory_holds(w, 0, 0));
    memory_make(w, 1, 0);
    assert_int_equal(memory_put(w, 1, 0), QYI_REMOTE_DONE);
    memory_make(w, 1, 1);
    assert_int_equal(memory_put(w, 1, 1), QYI_REMOTE_FULL);
    qyi_memory_sent(bed.rig.memory, &answers[0]);
    assert_int_equal(memory_put(w, 1, 1), QYI_REMOTE_FULL);
    assert_memory_equal(answers[1].payload, w->blocks[0][0], w->layout.block_bytes);
    qyi_memory_sent(bed.rig.memory, &answers[1]);
    assert_int_equal(memory_put(w, 1, 1), QYI_REMOTE_DONE);
    assert_true(memory_holds(w, 1, 0));
    assert_true(memory_holds(w, 1, 1));
    memory_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_that_is_here_is_not_taken_again),
        cmocka_unit_test(newer_content_replaces_older_and_not_the_other_way),
        cmocka_unit_test(puts_that_cross_leave_the_newer),
        cmocka_unit_test(damaged_block_is_turned_down),
        cmocka_unit_test(full_server_turns_blocks_down),
        cmocka_unit_test(draining_server_hands_out_and_takes_nothing),
        cmocka_unit_test(drop_frees_what_is_older_than_it),
        cmocka_unit_test(new_sequence_takes_the_slot),
        cmocka_unit_test(frames_are_cleared_before_they_are_used_again),
        cmocka_unit_test(block_that_is_being_sent_stays_until_it_is_sent),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_server", tests, NULL, NULL);
}
