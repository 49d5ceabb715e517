/* SPDX-License-Identifier: Apache-2.0 */
/* The store on memory servers, over a fabric: where blocks go, what comes back, and what happens when a
 * server is full, stops, dies or comes back. */
#include "tests/unit/offload/servers_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct servers_bed bed; /* static: it is large */
static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};

static void blocks_are_dealt_out_and_come_back(void **state)
{
    (void)state;
    for (uint32_t copies = 1; copies <= SERVERS; copies++) {
        servers_bed_open(&bed, 48, copies, &usual);
        assert_int_equal(qyi_servers_room(bed.store), SERVERS * 48 / copies);
        servers_fill(&bed, 24);
        for (uint32_t i = 0; i < SERVERS; i++) {
            assert_in_range(servers_held(&bed, i), 24 * copies / SERVERS - 2,
                            24 * copies / SERVERS + 2);
        }
        for (uint32_t slot = 0; slot < 24; slot++) {
            assert_int_equal(servers_read(&bed, slot), 0);
        }
        servers_read_ranges(&bed, 24);
        servers_read_rows(&bed, 24);
        servers_fill(&bed, 24); /* others in the same slots */
        servers_read_ranges(&bed, 24);
        servers_read_rows(&bed, 24);
        for (uint32_t slot = 0; slot < 24; slot++) {
            qyi_store_release(bed.store, slot);
        }
        servers_pass(&bed, 10 * TIMEOUT);
        assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 1) + servers_held(&bed, 2), 0);
        servers_bed_close(&bed);
    }
}

static void full_servers_are_passed_over(void **state)
{
    struct qyi_store_request request;
    int error;
    (void)state;

    servers_bed_open(&bed, 4, 1, &usual);
    servers_fill(&bed, 12);
    assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 1) + servers_held(&bed, 2), 12);
    request = servers_write(&bed, 12);
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_ERR_DEVICE);
    assert_int_equal(error, ENOSPC);
    qyi_store_release(bed.store, 5);
    servers_pass(&bed, 10 * TIMEOUT);
    request = servers_write(&bed, 12);
    assert_int_equal(servers_run(&bed, &request, 1, &error), QY_OK);
    assert_int_equal(servers_read(&bed, 12), 0);
    assert_int_equal(servers_read(&bed, 4), 0);
    servers_bed_close(&bed);
}

static void copies_serve_when_a_server_dies(void **state)
{
    (void)state;
    servers_bed_open(&bed, 48, 2, &usual);
    servers_fill(&bed, 12);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s1", QY_FABRIC_KILL), QY_OK);
    servers_close_one(&bed, 1);
    bed.nodes[1] = NULL;
    servers_read_rows(&bed, 12);
    for (uint32_t slot = 0; slot < 12; slot++) {
        assert_int_equal(servers_read(&bed, slot), 0);
    }
    servers_fill(&bed, 12); /* to the two that are left */
    servers_read_ranges(&bed, 12);
    servers_open_one(&bed, 1, 48); /* one that starts again takes blocks again */
    servers_pass(&bed, 10 * TIMEOUT);
    servers_fill(&bed, 12);
    assert_true(servers_held(&bed, 1) > 0);
    servers_read_ranges(&bed, 12);
    servers_bed_close(&bed);
}

static void what_nobody_has_any_more_is_said_at_once(void **state)
{
    uint32_t lost = 0;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, 12);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s2", QY_FABRIC_KILL), QY_OK);
    servers_close_one(&bed, 2);
    servers_open_one(&bed, 2, 48);
    servers_pass(&bed, 10 * TIMEOUT);
    for (uint32_t slot = 0; slot < 12; slot++) {
        const int error = servers_read(&bed, slot);

        assert_true(error == 0 || error == ENODATA);
        lost += error != 0;
    }
    assert_in_range(lost, 2, 6);
    servers_fill(&bed, 12);
    servers_read_ranges(&bed, 12);
    servers_bed_close(&bed);
}

/* Its host says that nobody listens there: nobody waits for it, though another one may begin there. */
static void server_that_ended_is_not_waited_for(void **state)
{
    uint32_t lost = 0;
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, 12);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s2", QY_FABRIC_KILL), QY_OK);
    servers_close_one(&bed, 2);
    bed.nodes[2] = NULL;
    const uint64_t begin = qy_node_now(bed.node);
    for (uint32_t slot = 0; slot < 12; slot++) {
        lost += servers_read(&bed, slot) == ENODATA;
    }
    assert_in_range(lost, 2, 6);
    assert_true(qy_node_now(bed.node) - begin < TIMEOUT);
    assert_int_equal(qy_peer_state(bed.peers[2]), QY_PEER_LOST);
    servers_open_one(&bed, 2, 48);
    servers_bed_close(&bed);
}

/* A server that stops is LOST; what only it has is waited for until it is GONE. */
static void server_that_comes_back_in_time_is_waited_for(void **state)
{
    (void)state;
    for (int comes_back = 0; comes_back <= 1; comes_back++) {
        struct qyi_store_request requests[12];
        struct qyi_store_batch batch = {.requests = requests, .n = 12};
        const size_t bytes = 256;
        uint8_t *to = malloc(12 * bytes);

        servers_bed_open(&bed, 48, 1, &usual);
        servers_fill(&bed, 12);
        assert_int_equal(qy_fabric_happens(bed.fabric, "s0", QY_FABRIC_STOP), QY_OK);
        for (uint32_t i = 0; i < 12; i++) {
            requests[i] = (struct qyi_store_request){
                .op = QYI_STORE_READ, .slot = i, .data = to + i * bytes, .bytes = bytes};
        }
        assert_int_equal(qyi_store_submit(bed.store, &batch), QY_OK);
        while (qy_peer_state(bed.peers[0]) == QY_PEER_UP) {
            qyi_store_poll(bed.store);
            qy_node_wait(bed.node, UINT64_MAX);
        }
        assert_int_equal(qy_peer_state(bed.peers[0]), QY_PEER_LOST);
        assert_true(batch.n_left > 0);
        if (comes_back) {
            assert_int_equal(qy_fabric_happens(bed.fabric, "s0", QY_FABRIC_RESUME), QY_OK);
        }
        assert_int_equal(qyi_store_wait(bed.store, &batch, (uint64_t)100 * TIMEOUT),
                         comes_back ? QY_OK : QY_ERR_DEVICE);
        assert_int_equal(batch.failed ? requests[batch.first_bad].error : 0,
                         comes_back ? 0 : ENODATA);
        for (uint32_t i = 0; i < 12; i++) {
            if (requests[i].error == 0) {
                assert_memory_equal(to + i * bytes, bed.worker.blocks[0][i], bytes);
            }
        }
        assert_int_equal(qy_fabric_happens(bed.fabric, "s0", QY_FABRIC_RESUME), QY_OK);
        free(to);
        servers_bed_close(&bed);
    }
}

/* Nobody is there to take a block: who is away is waited for until it is GONE. */
static void write_that_nobody_takes_waits_for_who_may_be_back(void **state)
{
    (void)state;
    for (int comes_back = 0; comes_back <= 1; comes_back++) {
        struct qyi_store_request request;
        struct qyi_store_batch batch = {.requests = &request, .n = 1};

        servers_bed_open(&bed, 48, 1, &usual);
        request = servers_write(&bed, 0);
        for (uint32_t i = 0; i < SERVERS; i++) {
            assert_int_equal(qy_fabric_happens(bed.fabric, servers_address(i), QY_FABRIC_STOP),
                             QY_OK);
        }
        assert_int_equal(qyi_store_submit(bed.store, &batch), QY_OK);
        for (uint32_t i = 0; i < SERVERS; i++) {
            while (qy_peer_state(bed.peers[i]) == QY_PEER_UP) {
                qyi_store_poll(bed.store);
                qy_node_wait(bed.node, UINT64_MAX);
            }
        }
        qyi_store_poll(bed.store);
        assert_int_equal(batch.n_left, 1);
        if (comes_back) {
            assert_int_equal(qy_fabric_happens(bed.fabric, "s1", QY_FABRIC_RESUME), QY_OK);
        }
        assert_int_equal(qyi_store_wait(bed.store, &batch, (uint64_t)100 * TIMEOUT),
                         comes_back ? QY_OK : QY_ERR_DEVICE);
        assert_int_equal(request.error, comes_back ? 0 : ENOSPC);
        assert_int_equal(servers_held(&bed, 1), comes_back);
        for (uint32_t i = 0; i < SERVERS; i++) {
            assert_int_equal(qy_fabric_happens(bed.fabric, servers_address(i), QY_FABRIC_RESUME),
                             QY_OK);
        }
        servers_bed_close(&bed);
    }
}

static void reset_gives_up_what_is_under_way(void **state)
{
    static const uint32_t id = 3 * MR_TOKENS;
    static uint8_t row[SERVERS_ROW];
    struct qyi_store_request requests[2];
    struct qyi_store_batch batch = {.requests = requests, .n = 2};
    (void)state;

    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, 6);
    for (uint32_t i = 0; i < SERVERS; i++) {
        assert_int_equal(qy_fabric_happens(bed.fabric, servers_address(i), QY_FABRIC_CUT), QY_OK);
    }
    requests[0] = servers_rows(3, 0, 0, &id, 1, row);
    requests[1] = (struct qyi_store_request){
        .op = QYI_STORE_READ, .slot = 4, .data = bed.space, .bytes = bed.worker.layout.block_bytes};
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_OK);
    assert_int_equal(qyi_store_wait(bed.store, &batch, 1000), QY_ERR_TIMEOUT);
    assert_int_equal(qyi_store_reset(bed.store, 1000), QY_ERR_TIMEOUT);
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_ERR_DEVICE);
    assert_int_equal(qyi_store_reset(bed.store, 100 * TIMEOUT), QY_OK);
    assert_int_equal(batch.n_left, 0);
    assert_int_equal(requests[0].error, ECANCELED);
    assert_int_equal(requests[1].error, ECANCELED);
    for (uint32_t i = 0; i < SERVERS; i++) {
        assert_int_equal(qy_fabric_happens(bed.fabric, servers_address(i), QY_FABRIC_RESUME),
                         QY_OK);
    }
    servers_pass(&bed, 30 * TIMEOUT);
    assert_int_equal(servers_read(&bed, 3), 0);
    servers_bed_close(&bed);
}

/* Blocks in use, and blocks on their way there. */
static void close_gives_all_blocks_back(void **state)
{
    struct qyi_store_request requests[3];
    struct qyi_store_batch batch = {.requests = requests, .n = 3};
    (void)state;

    servers_bed_open(&bed, 48, 2, &usual);
    servers_fill(&bed, 6);
    for (uint32_t i = 0; i < 3; i++) {
        requests[i] = servers_write(&bed, 6 + i);
    }
    assert_int_equal(qyi_store_submit(bed.store, &batch), QY_OK);
    qyi_store_close(bed.store);
    bed.store = NULL;
    for (uint32_t i = 0; i < SERVERS; i++) {
        assert_int_equal(servers_held(&bed, i), 0);
    }
    servers_bed_close(&bed);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, 1);
    static const uint32_t ids[MR_TOKENS];
    const size_t bytes = bed.worker.layout.block_bytes;
    const struct qyi_store_request wrong[] = {
        servers_rows(0, 0, 0, NULL, 1, bed.space),
        servers_rows(0, 0, 0, ids, 0, bed.space),
        servers_rows(1, 0, 0, ids, 1, bed.space),
        servers_rows(0, 0, 0, ids, MR_TOKENS, bed.space),
        {.op = QYI_STORE_READ, .slot = SLOTS, .data = bed.space, .bytes = 64},
        {.op = QYI_STORE_READ, .slot = 1, .data = bed.space, .bytes = 64}, /* nothing is there */
        {.op = QYI_STORE_READ, .slot = 0, .data = NULL, .bytes = 64},
        {.op = QYI_STORE_READ, .slot = 0, .data = bed.space, .bytes = 0},
        {.op = QYI_STORE_READ, .slot = 0, .at = bytes - 64, .data = bed.space, .bytes = 128},
        {.op = QYI_STORE_WRITE, .slot = 0, .data = bed.space, .bytes = bytes - 64}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct qyi_store_request request = wrong[i];
        struct qyi_store_batch batch = {.requests = &request, .n = 1};

        assert_int_equal(qyi_store_submit(bed.store, &batch), QY_ERR_INVALID);
    }
    assert_int_equal(servers_read(&bed, 0), 0);
    servers_bed_close(&bed);
}

static void no_wrong_byte_whatever_happens(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        const struct qy_fabric_params params = {
            .seed = seed, .latency_ns = 1000, .order = (enum qy_fabric_order)(seed % 3)};
        int there[SLOTS] = {0};

        servers_bed_open(&bed, 16, 1 + seed % 2, &params);
        for (uint32_t turn = 0; turn < 60; turn++) {
            const uint32_t slot = (uint32_t)(memory_random(&bed.worker) % SLOTS);
            const uint64_t what = memory_random(&bed.worker) % 10;
            const struct qy_fabric_rule rule = {
                .fault = (enum qy_fabric_fault)(memory_random(&bed.worker) % 4),
                .after = (uint32_t)(memory_random(&bed.worker) % 3),
                .count = 1,
                .ns = TIMEOUT / 2};
            int error;

            if (what < 2) {
                assert_int_equal(qy_fabric_inject(bed.fabric, &rule), QY_OK);
            } else if (what < 5) {
                struct qyi_store_request request = servers_write(&bed, slot);

                there[slot] = servers_run(&bed, &request, 1, &error) == QY_OK;
            } else if (what < 6) {
                qyi_store_release(bed.store, slot);
                there[slot] = 0;
            } else if (there[slot]) {
                (void)servers_read(&bed, slot); /* compares, if it was read */
            }
        }
        qy_fabric_heal(bed.fabric);
        servers_pass(&bed, 20 * TIMEOUT);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            if (there[slot]) {
                assert_int_equal(servers_read(&bed, slot), 0);
            }
        }
        servers_bed_close(&bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_dealt_out_and_come_back),
        cmocka_unit_test(full_servers_are_passed_over),
        cmocka_unit_test(copies_serve_when_a_server_dies),
        cmocka_unit_test(what_nobody_has_any_more_is_said_at_once),
        cmocka_unit_test(server_that_ended_is_not_waited_for),
        cmocka_unit_test(server_that_comes_back_in_time_is_waited_for),
        cmocka_unit_test(write_that_nobody_takes_waits_for_who_may_be_back),
        cmocka_unit_test(reset_gives_up_what_is_under_way),
        cmocka_unit_test(close_gives_all_blocks_back),
        cmocka_unit_test(wrong_requests_are_refused),
        cmocka_unit_test(no_wrong_byte_whatever_happens),
    };

    return cmocka_run_group_tests_name("servers", tests, NULL, NULL);
}
