/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of rows at memory servers: how many questions they take, and what happens when a server has not
 * what it should have. */
#include "tests/unit/offload/servers_rig.h"

#include <errno.h>
#include <string.h>

static struct servers_bed bed; /* static: it is large */
static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};

enum { BLOCKS = MR_BLOCKS, MOST = 15 };
static uint32_t ids[BLOCKS][MOST];
static uint8_t to[BLOCKS][MOST * SERVERS_ROW];

/* Requests for n rows of each block of sequence 0. */
static void make_lists(struct qyi_store_request *requests, uint32_t n)
{
    for (uint32_t b = 0; b < BLOCKS; b++) {
        for (uint32_t i = 0; i < n; i++) {
            ids[b][i] = b * MR_TOKENS + (7 * i + b) % MR_TOKENS;
        }
        requests[b] = servers_rows(b, 1, 1, ids[b], n, to[b]);
    }
}

static void run(struct qyi_store_request *requests, uint32_t n)
{
    int error;

    memset(to, 0, sizeof(to));
    assert_int_equal(servers_run(&bed, requests, n, &error), QY_OK);
    for (uint32_t i = 0; i < n; i++) {
        servers_expect_rows(&bed, &requests[i]);
    }
}

static uint64_t questions(uint32_t server)
{
    struct qyi_servers_stats stats;

    qyi_servers_stats(bed.store, server, &stats);
    return stats.questions;
}

static uint64_t asked_again(void)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < SERVERS; i++) {
        struct qyi_servers_stats stats;

        qyi_servers_stats(bed.store, i, &stats);
        n += stats.again;
    }
    return n;
}

static uint64_t sent_bytes(uint32_t server)
{
    struct qy_peer_stats stats;

    qy_peer_stats(bed.peers[server], &stats);
    return stats.sent_bytes;
}

static void rows_of_a_list_are_one_item_of_one_question(void **state)
{
    struct qyi_store_request requests[BLOCKS];
    uint64_t asked[SERVERS];
    uint64_t sent[SERVERS];
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    for (uint32_t i = 0; i < SERVERS; i++) {
        asked[i] = questions(i);
        sent[i] = sent_bytes(i);
    }
    make_lists(requests, 2);
    run(requests, BLOCKS);
    for (uint32_t i = 0; i < SERVERS; i++) {
        assert_int_equal(questions(i) - asked[i], 1);
        assert_int_equal(sent_bytes(i) - sent[i], sizeof(struct qyi_remote_item) +
                                                      servers_held(&bed, i) * 2 * sizeof(uint32_t));
    }
    assert_int_equal(asked_again(), 0);
    servers_bed_close(&bed);
}

static void questions_end_where_the_answer_is_full(void **state)
{
    struct qyi_store_request requests[BLOCKS];
    uint64_t asked[SERVERS];
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    for (uint32_t i = 0; i < SERVERS; i++) {
        asked[i] = questions(i);
    }
    make_lists(requests, MOST);
    requests[BLOCKS - 1].list.layer = 0; /* in a question of its own */
    run(requests, BLOCKS);
    uint64_t extra = 0;
    for (uint32_t i = 0; i < SERVERS; i++) {
        const uint64_t in_one = 16384 / (MOST * SERVERS_ROW);
        const uint64_t least = (servers_held(&bed, i) + in_one - 1) / in_one;

        assert_true(questions(i) - asked[i] >= least);
        extra += questions(i) - asked[i] - least;
    }
    assert_in_range(extra, 0, 1);
    servers_bed_close(&bed);
}

/* The server that holds the block, now asked directly. */
static struct memory_direct holder_of(uint32_t block)
{
    struct memory_direct line = {0};

    bed.worker.ask = memory_ask_direct;
    bed.worker.line = &line;
    for (uint32_t i = 0; i < SERVERS; i++) {
        line.memory = bed.rigs[i].memory;
        line.session = qyi_session_find(line.memory, bed.worker.name);
        if (memory_holds(&bed.worker, 0, block)) {
            return line;
        }
    }
    fail_msg("nobody has block %u", block);
    return line;
}

static void rows_that_a_server_forgot_come_from_another(void **state)
{
    struct qyi_store_request requests[BLOCKS];
    int error;
    (void)state;

    for (uint32_t copies = 1; copies <= 2; copies++) {
        servers_bed_open(&bed, 48, copies, &usual);
        servers_fill(&bed, BLOCKS);
        make_lists(requests, 4);
        struct memory_direct line = holder_of(5);
        bed.worker.line = &line;
        assert_int_equal(memory_drop(&bed.worker, 0, 5, 1, 0), QYI_REMOTE_DONE);
        if (copies == 2) {
            run(requests, BLOCKS);
        } else {
            assert_int_equal(servers_run(&bed, &requests[5], 1, &error), QY_ERR_DEVICE);
            assert_int_equal(error, ENODATA);
            run(requests, 5);
        }
        servers_bed_close(&bed);
    }
}

/* Another block's rows are none, though they would come: of a newer block, or of another sequence. */
static void rows_of_other_blocks_are_not_taken(void **state)
{
    struct qyi_store_request requests[BLOCKS];
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    make_lists(requests, 4);
    struct memory_direct line = holder_of(3);
    bed.worker.line = &line;
    memory_make(&bed.worker, 0, 3);
    assert_int_equal(memory_put(&bed.worker, 0, 3), QYI_REMOTE_DONE);
    assert_int_equal(servers_run(&bed, &requests[3], 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, ENODATA);
    assert_true(asked_again() > 0);

    line = holder_of(7);
    bed.worker.line = &line;
    bed.worker.serials[0]++;
    assert_int_equal(memory_put(&bed.worker, 0, 7), QYI_REMOTE_DONE);
    assert_int_equal(servers_run(&bed, &requests[7], 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, ENODATA);
    servers_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_list_are_one_item_of_one_question),
        cmocka_unit_test(questions_end_where_the_answer_is_full),
        cmocka_unit_test(rows_that_a_server_forgot_come_from_another),
        cmocka_unit_test(rows_of_other_blocks_are_not_taken),
    };

    return cmocka_run_group_tests_name("servers_lists", tests, NULL, NULL);
}
