/* SPDX-License-Identifier: Apache-2.0 */
/* What a memory server hands out is what was put: bytes, rows of lists, and the bits of attention. */
#include "tests/unit/offload/memory_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct memory_form forms[] = {
    {.type = QY_ROW_F16},
    {.type = QY_ROW_F32},
    {.type = QY_ROW_F16, .codec = "4bit+0:k8v4", .index_bytes = 100},
    {.type = QY_ROW_F16, .codec = "k16v8"},
};
enum { N_FORMS = sizeof(forms) / sizeof(forms[0]) };

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

static void make_list(struct memory_list *list, uint32_t layer)
{
    *list = (struct memory_list){.layer = layer};
    memory_list_add(&worker, list, 2, 1, 300, MR_BLOCKS, 0); /* more than a piece */
    memory_list_add(&worker, list, 0, 0, 40, 3, 0);
    memory_list_add(&worker, list, 2, 0, 0, MR_BLOCKS, 0); /* nothing */
    memory_list_add(&worker, list, 0, 1, 3 * MR_TOKENS, 3, 1);
    memory_list_add(&worker, list, 2, 1, 384, MR_BLOCKS, 1);
    memory_list_add(&worker, list, 2, 1, 1, MR_BLOCKS, 0);
}

static void rows_are_those_that_were_put(void **state)
{
    static uint8_t expected[MR_REPLY];
    static struct memory_list list;
    (void)state;

    for (size_t f = 0; f < N_FORMS; f++) {
        open_filled(&forms[f], &(struct memory_options){.n_blocks = 48});
        for (uint32_t layer = 0; layer < MR_LAYERS; layer++) {
            make_list(&list, layer);
            if (forms[f].type == QY_ROW_F32) { /* all of it would be too large an answer */
                list.n_items = 3;
                list.n_ids = 340;
            }
            assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_DONE);
            const size_t bytes = memory_expect_rows(&worker, &list, expected);
            assert_int_equal(worker.said.bytes, bytes);
            assert_memory_equal(worker.said.payload, expected, bytes);
            assert_int_equal(worker.said.reply.fold, memory_expect_fold(&worker, &list));
        }
        close_filled();
    }
}

static void attention_has_the_bits_of_the_device(void **state)
{
    static float expected[MR_ITEMS * (MR_FLOATS + MR_GROUP)];
    static struct memory_list list;
    (void)state;

    for (size_t f = 0; f < N_FORMS; f++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            open_filled(&forms[f], &(struct memory_options){.n_blocks = 48, .threads = threads});
            for (uint32_t layer = 0; layer < MR_LAYERS; layer++) {
                make_list(&list, layer);
                assert_int_equal(memory_attend(&worker, &list), QYI_REMOTE_DONE);
                const size_t bytes = memory_expect_attend(&worker, rig.dev, &list, expected);
                assert_int_equal(worker.said.bytes, bytes);
                assert_memory_equal(worker.said.payload, expected, bytes);
                assert_int_equal(worker.said.reply.fold, memory_expect_fold(&worker, &list));
            }
            close_filled();
        }
    }
}

/* Items that do not fit together are attended to one after another; one that does not fit is refused. */
static void attention_in_little_scratch_is_cut(void **state)
{
    static float expected[MR_ITEMS * (MR_FLOATS + MR_GROUP)];
    static struct memory_list list;
    (void)state;

    const struct qyi_session like = {.layout = {.head_dim = MR_D}, .group = MR_GROUP};
    struct memory_rig probe;
    memory_rig_open(&probe, &(struct memory_options){0});
    const size_t one = qyi_attend_need(probe.memory, &like, 1, 400);
    const size_t piece = qyi_attend_need(probe.memory, &like, 1, QY_ATTEND_PIECE);
    memory_rig_close(&probe);
    assert_true(piece < one);

    open_filled(&forms[0], &(struct memory_options){.scratch_bytes = one});
    make_list(&list, 1);
    assert_int_equal(memory_attend(&worker, &list), QYI_REMOTE_DONE);
    const size_t bytes = memory_expect_attend(&worker, rig.dev, &list, expected);
    assert_int_equal(worker.said.bytes, bytes);
    assert_memory_equal(worker.said.payload, expected, bytes);
    close_filled();

    open_filled(&forms[0], &(struct memory_options){.scratch_bytes = piece});
    assert_int_equal(memory_attend(&worker, &list), QYI_REMOTE_TOO_LARGE);
    list = (struct memory_list){.layer = 1};
    memory_list_add(&worker, &list, 0, 0, 40, 3, 0);
    assert_int_equal(memory_attend(&worker, &list), QYI_REMOTE_DONE);
    close_filled();

    memory_rig_open(&rig, &(struct memory_options){.scratch_bytes = piece - 64});
    line = (struct memory_direct){.memory = rig.memory};
    memory_worker_init(&worker, &rig, 1, &forms[0], memory_ask_direct, &line);
    assert_int_equal(memory_open(&worker), QYI_REMOTE_TOO_LARGE);
    close_filled();
}

static void bytes_are_those_that_were_put(void **state)
{
    (void)state;

    for (size_t f = 0; f < N_FORMS; f++) {
        open_filled(&forms[f], &(struct memory_options){.n_blocks = 48});
        const size_t all = worker.layout.block_bytes;
        const struct qyi_remote_read reads[] = {
            {.serial = 1, .at = 0, .bytes = all, .sequence = 2, .block = 7},
            {.serial = 1, .at = 100, .bytes = 1, .sequence = 2, .block = 7},
            {.serial = 1, .at = all - 3, .bytes = 3, .sequence = 0, .block = 2},
            {.serial = 1, .at = 64, .bytes = 1000, .sequence = 0, .block = 0}};

        assert_int_equal(memory_read(&worker, reads, 1), QYI_REMOTE_DONE);
        assert_int_equal(worker.said.bytes, all);
        assert_memory_equal(worker.said.payload, worker.blocks[2][7], all);
        assert_int_equal(worker.said.reply.fold, qyi_remote_fold(0, worker.generations[2][7]));

        assert_int_equal(memory_read(&worker, reads, 4), QYI_REMOTE_DONE);
        assert_int_equal(worker.said.bytes, all + 1004);
        const uint8_t *at = worker.said.payload;
        assert_memory_equal(at, worker.blocks[2][7], all);
        assert_int_equal(at[all], worker.blocks[2][7][100]);
        assert_memory_equal(at + all + 1, worker.blocks[0][2] + all - 3, 3);
        assert_memory_equal(at + all + 4, worker.blocks[0][0] + 64, 1000);
        uint64_t fold = qyi_remote_fold(0, worker.generations[2][7]);
        fold = qyi_remote_fold(fold, worker.generations[2][7]);
        fold = qyi_remote_fold(fold, worker.generations[0][2]);
        fold = qyi_remote_fold(fold, worker.generations[0][0]);
        assert_int_equal(worker.said.reply.fold, fold);
        close_filled();
    }
}

/* ATTEND of n empty lists. */
static uint16_t attend_to_nothing(uint32_t n)
{
    const struct qyi_remote_parts parts = qyi_remote_parts(n, 0, MR_FLOATS);
    const struct qyi_remote_ask head = {.n_items = n, .scale = 1.0F};
    struct qyi_remote_item *payload = calloc(1, parts.bytes);
    const struct qyi_question q = {.op = QYI_REMOTE_ATTEND,
                                   .head = &head,
                                   .head_bytes = sizeof(head),
                                   .payload = payload,
                                   .payload_bytes = parts.bytes};

    assert_non_null(payload);
    for (uint32_t i = 0; i < n; i++) {
        payload[i].serial = 1;
    }
    memory_ask_direct(&worker, &q, &worker.said);
    free(payload);
    return worker.said.lost ? UINT16_MAX : worker.said.code;
}

static void answers_that_are_too_large_are_turned_down(void **state)
{
    static struct memory_list list;
    struct qyi_remote_read reads[9];
    (void)state;

    open_filled(&forms[0], &(struct memory_options){0});
    list = (struct memory_list){0};
    memory_list_add(&worker, &list, 2, 1, 384, MR_BLOCKS, 1);
    memory_list_add(&worker, &list, 2, 0, MR_ANSWER / 256 - 384, MR_BLOCKS, 0);
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_DONE);
    assert_int_equal(worker.said.bytes, MR_ANSWER);
    memory_list_add(&worker, &list, 2, 0, 1, MR_BLOCKS, 0);
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_TOO_LARGE);
    assert_int_equal(worker.said.bytes, 0);

    for (uint32_t i = 0; i < 9; i++) {
        reads[i] = (struct qyi_remote_read){
            .serial = 1, .at = 0, .bytes = 32 << 10, .sequence = 2, .block = i};
    }
    assert_int_equal(memory_read(&worker, reads, 8), QYI_REMOTE_DONE);
    assert_int_equal(memory_read(&worker, reads, 9), QYI_REMOTE_TOO_LARGE);

    const uint32_t most = MR_ANSWER / ((MR_FLOATS + MR_GROUP) * sizeof(float));
    assert_int_equal(attend_to_nothing(most), QYI_REMOTE_DONE); /* more than a batch, too */
    for (uint32_t i = 0; i < most * MR_GROUP; i++) {
        float lse;

        memcpy(&lse, worker.said.payload + (most * MR_FLOATS + i) * sizeof(lse), sizeof(lse));
        assert_true(lse == -INFINITY);
    }
    assert_int_equal(attend_to_nothing(most + 1), QYI_REMOTE_TOO_LARGE);
    close_filled();
}

static void rows_that_are_not_here_are_named(void **state)
{
    static struct memory_list list;
    struct qyi_remote_read reads[2] = {{.serial = 1, .bytes = 8, .sequence = 0, .block = 1},
                                       {.serial = 1, .bytes = 8, .sequence = 0, .block = 3}};
    (void)state;

    open_filled(&forms[0], &(struct memory_options){0});
    list = (struct memory_list){0};
    memory_list_add(&worker, &list, 2, 0, 5, MR_BLOCKS, 0);
    memory_list_add(&worker, &list, 0, 0, 3, 3, 0);
    list.ids[5] = MR_TOKENS;
    list.ids[7] = 3 * MR_TOKENS + 1; /* block 3 of sequence 0 */
    for (int attend = 0; attend < 2; attend++) {
        assert_int_equal(attend ? memory_attend(&worker, &list) : memory_rows(&worker, &list),
                         QYI_REMOTE_UNKNOWN);
        assert_int_equal(worker.said.reply.item, 1);
        assert_int_equal(worker.said.reply.block, 3);
        assert_int_equal(worker.said.bytes, 0);
    }
    assert_int_equal(memory_read(&worker, reads, 2), QYI_REMOTE_UNKNOWN);
    assert_int_equal(worker.said.reply.item, 1);
    assert_int_equal(worker.said.reply.block, 3);
    assert_int_equal(worker.said.bytes, 0);

    list.ids[7] = 0;
    list.items[1].serial = 2; /* a sequence of which nothing has come */
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_UNKNOWN);
    assert_int_equal(worker.said.reply.item, 1);
    reads[1].block = 0;
    reads[1].serial = 2;
    assert_int_equal(memory_read(&worker, reads, 2), QYI_REMOTE_UNKNOWN);

    worker.serials[0] = 2; /* and now it has */
    memory_fill(&worker, 0, 1);
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_UNKNOWN); /* block 1: gone */
    list.items[1].serial = 1;
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_STALE);
    assert_int_equal(worker.said.reply.item, 1);
    reads[0].serial = 1;
    assert_int_equal(memory_read(&worker, reads, 1), QYI_REMOTE_STALE);
    close_filled();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_that_were_put),
        cmocka_unit_test(attention_has_the_bits_of_the_device),
        cmocka_unit_test(attention_in_little_scratch_is_cut),
        cmocka_unit_test(bytes_are_those_that_were_put),
        cmocka_unit_test(answers_that_are_too_large_are_turned_down),
        cmocka_unit_test(rows_that_are_not_here_are_named),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_rows", tests, NULL, NULL);
}
