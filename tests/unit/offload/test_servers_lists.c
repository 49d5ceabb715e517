/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of rows at memory servers, to be sent and to be attended to: how many questions they take, and what
 * happens when a server has not what it should have. */
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

/* ---- attention --------------------------------------------------------------------------------- */

enum { ASKS = SERVERS * MR_KV_HEADS, ASK_IDS = 64, PARTIAL = MR_FLOATS + MR_GROUP };

/* A question to each server, of each head, about rows of its blocks, and what is to come back. */
struct asks {
    struct memory_list lists[SERVERS];
    uint32_t slots[SERVERS][MR_IDS];
    struct qyi_store_request requests[ASKS];
    float partials[ASKS][PARTIAL];
};
static struct asks asks;

static void make_asks(void)
{
    uint32_t n_asks = 0;

    memset(&asks, 0, sizeof(asks));
    for (uint32_t v = 0; v < SERVERS; v++) {
        struct memory_list *list = &asks.lists[v];

        list->layer = 1;
        for (uint32_t h = 0; h < MR_KV_HEADS; h++) {
            const uint32_t first = list->n_ids;

            memory_list_add(&bed.worker, list, 0, h, ASK_IDS, BLOCKS, 0);
            uint32_t n = 0;
            for (uint32_t i = 0; i < ASK_IDS; i++) { /* those of the server */
                const uint32_t b = list->ids[first + i] / MR_TOKENS;

                if (qyi_store_where(bed.store, b) == v) {
                    list->ids[first + n] = list->ids[first + i];
                    asks.slots[v][first + n++] = b;
                }
            }
            assert_true(n > 1);
            list->items[h].n = n;
            list->n_ids = first + n;
            asks.requests[n_asks] =
                (struct qyi_store_request){.op = QYI_STORE_ATTEND,
                                           .slot = asks.slots[v][first],
                                           .data = asks.partials[n_asks],
                                           .bytes = PARTIAL * sizeof(float),
                                           .list = {.ids = list->ids + first,
                                                    .slots = asks.slots[v] + first,
                                                    .n = n,
                                                    .layer = 1,
                                                    .head = h,
                                                    .place = v,
                                                    .q = list->q + h * MR_FLOATS,
                                                    .lse = asks.partials[n_asks] + MR_FLOATS}};
            n_asks++;
        }
    }
}

static void expect_partials(uint32_t server)
{
    static float want[MR_KV_HEADS * PARTIAL];

    (void)memory_expect_attend(&bed.worker, bed.rigs[0].dev, &asks.lists[server], want);
    for (uint32_t h = 0; h < MR_KV_HEADS; h++) {
        const float *have = asks.partials[server * MR_KV_HEADS + h];

        assert_memory_equal(have, want + h * MR_FLOATS, MR_FLOATS * sizeof(float));
        assert_memory_equal(have + MR_FLOATS, want + MR_KV_HEADS * MR_FLOATS + h * MR_GROUP,
                            MR_GROUP * sizeof(float));
    }
}

static void partials_have_the_bits_of_the_workers_own(void **state)
{
    uint64_t asked[SERVERS];
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 2, &usual);
    servers_fill(&bed, BLOCKS);
    make_asks();
    for (uint32_t i = 0; i < SERVERS; i++) {
        asked[i] = questions(i);
    }
    assert_int_equal(servers_run(&bed, asks.requests, ASKS, &error), QY_OK);
    for (uint32_t i = 0; i < SERVERS; i++) {
        expect_partials(i);
        assert_int_equal(questions(i) - asked[i], 1);
    }
    const struct qyi_store_stats *stats = qyi_store_stats(bed.store);
    assert_int_equal(stats->attends, ASKS);
    assert_int_equal(stats->attended_rows,
                     asks.lists[0].n_ids + asks.lists[1].n_ids + asks.lists[2].n_ids);
    servers_bed_close(&bed);
}

/* One block that a server has not any more, or none of its: that question fails, the others do not; another
 * place is named for its rows where it is known to be gone. */
static void places_that_cannot_attend_say_so(void **state)
{
    int error;
    (void)state;

    for (int dies = 0; dies <= 1; dies++) {
        servers_bed_open(&bed, 48, 2, &usual);
        servers_fill(&bed, BLOCKS);
        make_asks();
        if (dies) {
            assert_int_equal(qy_fabric_happens(bed.fabric, "s1", QY_FABRIC_KILL), QY_OK);
            servers_close_one(&bed, 1);
            bed.nodes[1] = NULL;
        } else {
            struct memory_direct line = {.memory = bed.rigs[1].memory};
            line.session = qyi_session_find(line.memory, bed.worker.name);
            bed.worker.ask = memory_ask_direct;
            bed.worker.line = &line;
            assert_int_equal(memory_drop(&bed.worker, 0, asks.slots[1][0], 1, 0), QYI_REMOTE_DONE);
        }
        assert_int_equal(servers_run(&bed, asks.requests, ASKS, &error), QY_ERR_DEVICE);
        assert_int_equal(error, EAGAIN);
        for (uint32_t i = 0; i < ASKS; i++) {
            const int bad = asks.requests[i].list.place == 1;

            assert_int_equal(asks.requests[i].error, bad ? EAGAIN : 0);
        }
        expect_partials(0);
        expect_partials(2);
        for (uint32_t slot = 0; slot < BLOCKS && dies; slot++) {
            assert_in_range(qyi_store_where(bed.store, slot), 0, 2);
            assert_int_not_equal(qyi_store_where(bed.store, slot), 1);
        }
        if (dies) {
            servers_open_one(&bed, 1, 48);
        }
        servers_bed_close(&bed);
    }
}

static void lists_that_no_question_holds_are_not_asked(void **state)
{
    static uint32_t many[1024];
    static uint32_t slots[1024];
    int error;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, BLOCKS);
    make_asks();
    const uint64_t asked = questions(0) + questions(1) + questions(2);
    struct qyi_store_request request = asks.requests[0];
    request.list.place = 1; /* which has none of them */
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, EAGAIN);
    for (uint32_t i = 0; i < 1024; i++) {
        many[i] = asks.requests[0].list.ids[0];
        slots[i] = asks.requests[0].slot;
    }
    request = asks.requests[0];
    request.list.ids = many;
    request.list.slots = slots;
    request.list.n = 1024;
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, EAGAIN);
    assert_int_equal(questions(0) + questions(1) + questions(2), asked);
    struct qyi_store_batch batch = {.requests = &request, .n = 1};
    slots[1023] = SLOTS;
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_ERR_INVALID);
    servers_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_list_are_one_item_of_one_question),
        cmocka_unit_test(questions_end_where_the_answer_is_full),
        cmocka_unit_test(rows_that_a_server_forgot_come_from_another),
        cmocka_unit_test(rows_of_other_blocks_are_not_taken),
        cmocka_unit_test(partials_have_the_bits_of_the_workers_own),
        cmocka_unit_test(places_that_cannot_attend_say_so),
        cmocka_unit_test(lists_that_no_question_holds_are_not_asked),
    };

    return cmocka_run_group_tests_name("servers_lists", tests, NULL, NULL);
}
