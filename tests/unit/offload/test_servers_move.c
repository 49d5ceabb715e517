/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that go from one memory server to another, over a fabric: of a server that is about to end, and of
 * one that is lost while others have copies. Whatever is read at whatever moment is right, or nobody has it. */
#include "tests/unit/offload/servers_rig.h"

#include <errno.h>
#include <string.h>

static struct servers_bed bed; /* static: it is large */
static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};

/* The server that has the only copy of a slot's block. */
static uint32_t home_of(uint32_t slot)
{
    uint64_t servers;

    (void)qyi_store_lost(bed.store, slot, &servers);
    assert_true(servers != 0 && (servers & (servers - 1)) == 0);
    return servers == 1 ? 0 : servers == 2 ? 1 : 2;
}

/* n steps' ends, a quarter of a timeout apart; the last one's word. */
static int tend(uint32_t n)
{
    int more = 0;

    for (uint32_t i = 0; i < n; i++) {
        more = qyi_store_tend(bed.store);
        servers_pass(&bed, TIMEOUT / 4);
    }
    return more;
}

static struct qyi_servers_stats stats_of(uint32_t i)
{
    struct qyi_servers_stats stats;

    qyi_servers_stats(bed.store, i, &stats);
    return stats;
}

static void kill_one(uint32_t i)
{
    assert_int_equal(qy_fabric_happens(bed.fabric, servers_address(i), QY_FABRIC_KILL), QY_OK);
    servers_close_one(&bed, i);
    bed.nodes[i] = NULL;
}

/* Blocks of the slots that can be read, all of them as they were written; the others nobody has. */
static uint32_t n_readable(uint32_t n_slots)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < n_slots; slot++) {
        const int error = servers_read(&bed, slot);

        assert_true(error == 0 || error == ENODATA);
        n += error == 0;
    }
    return n;
}

static void server_that_ends_hands_its_blocks_to_others(void **state)
{
    (void)state;
    for (uint32_t copies = 1; copies <= 2; copies++) {
        struct qy_memory_stats told;

        servers_bed_open(&bed, 48, copies, &usual);
        servers_fill(&bed, 24);
        const uint64_t held = servers_held(&bed, 1);
        assert_true(held >= 6);
        assert_int_equal(tend(3), 0); /* all are where they should be */
        qy_memory_drain(bed.rigs[1].memory);
        for (uint32_t i = 0; i < 24; i++) { /* steps read meanwhile */
            servers_read_rows(&bed, 24);
            (void)qyi_store_tend(bed.store);
            assert_int_equal(servers_read(&bed, i), 0);
        }
        assert_int_equal(tend(4), 0);
        assert_int_equal(servers_held(&bed, 1), 0);
        assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 2), 24 * copies);
        qy_memory_stats(bed.rigs[1].memory, &told);
        assert_int_equal(told.moved, held);
        assert_int_equal(stats_of(1).moved, held);
        assert_int_equal(stats_of(1).blocks, 0);
        assert_true(stats_of(1).draining);
        assert_int_equal(stats_of(0).copied + stats_of(1).copied + stats_of(2).copied, 0);
        kill_one(1);
        servers_read_ranges(&bed, 24);
        assert_int_equal(n_readable(24), 24);
        servers_open_one(&bed, 1, 48); /* the next one at its address takes blocks */
        servers_pass(&bed, 10 * TIMEOUT);
        servers_fill(&bed, 24);
        assert_true(servers_held(&bed, 1) > 0);
        assert_int_equal(n_readable(24), 24);
        servers_bed_close(&bed);
    }
}

/* Two servers with two copies each: nobody is there for the second copy, and the first is enough to go. */
static void server_that_ends_does_not_wait_for_copies_that_nobody_takes(void **state)
{
    (void)state;
    servers_bed_open(&bed, 48, 2, &usual);
    kill_one(2);
    servers_pass(&bed, 10 * TIMEOUT);
    servers_fill(&bed, 12);
    assert_int_equal(servers_held(&bed, 0), 12);
    qy_memory_drain(bed.rigs[1].memory);
    assert_int_equal(n_readable(12), 12);
    tend(10);
    assert_int_equal(servers_held(&bed, 1), 0);
    assert_int_equal(n_readable(12), 12);
    servers_open_one(&bed, 2, 48);                /* and then they are made again */
    servers_pass(&bed, (uint64_t)1100 * TIMEOUT); /* who is gone is tried once a second */
    tend(20);
    assert_int_equal(servers_held(&bed, 2), 12);
    assert_int_equal(stats_of(2).copied, 12);
    servers_bed_close(&bed);
}

static void blocks_stay_where_nobody_else_has_room(void **state)
{
    uint32_t released = 0;
    (void)state;

    servers_bed_open(&bed, 4, 1, &usual);
    servers_fill(&bed, 12);
    qy_memory_drain(bed.rigs[0].memory);
    assert_int_equal(n_readable(12), 12);
    assert_int_equal(tend(10), 0); /* nothing can be done */
    assert_int_equal(servers_held(&bed, 0), 4);
    assert_int_equal(n_readable(12), 12);
    assert_int_equal(stats_of(0).moved, 0);
    for (uint32_t slot = 0; slot < 12 && released < 2; slot++) {
        if (home_of(slot) != 0) {
            qyi_store_release(bed.store, slot);
            released++;
        }
    }
    tend(20); /* two go where there is room now */
    assert_int_equal(servers_held(&bed, 0), 2);
    assert_int_equal(servers_held(&bed, 1) + servers_held(&bed, 2), 8);
    assert_int_equal(stats_of(0).moved, 2);
    servers_bed_close(&bed);
}

/* The server that blocks go to dies; the one that they come from; both when a part of them was on its way. */
static void move_that_is_cut_short_loses_only_what_died(void **state)
{
    (void)state;
    for (uint32_t dies = 0; dies <= 1; dies++) {
        for (uint32_t ends = 1; ends <= 4; ends++) {
            servers_bed_open(&bed, 48, 1, &usual);
            servers_fill(&bed, 24);
            const uint64_t before = servers_held(&bed, dies);
            qy_memory_drain(bed.rigs[0].memory);
            assert_int_equal(n_readable(24), 24);
            for (uint32_t i = 0; i < ends; i++) { /* 2 us: one message there and back */
                (void)qyi_store_tend(bed.store);
                servers_pass(&bed, 3000);
            }
            kill_one(dies);
            tend(20);
            if (dies == 1) {
                assert_int_equal(servers_held(&bed, 0), 0);
            }
            const uint32_t readable = n_readable(24);
            assert_in_range(readable, dies == 0 ? 24 - before : 24 - before - stats_of(0).moved,
                            24);
            assert_int_equal(servers_held(&bed, 2) + (dies == 0 ? servers_held(&bed, 1) : 0),
                             readable);
            servers_open_one(&bed, dies, 48);
            servers_bed_close(&bed);
        }
    }
}

static void copies_of_a_lost_server_are_made_again(void **state)
{
    (void)state;
    for (int again = 0; again <= 1; again++) { /* another one begins at its address */
        servers_bed_open(&bed, 48, 2, &usual);
        servers_fill(&bed, 12);
        const uint64_t held = servers_held(&bed, 1);
        assert_true(held > 4);
        kill_one(1);
        if (again) {
            servers_open_one(&bed, 1, 48);
        }
        tend(40); /* ten timeouts: it is gone for good */
        assert_int_equal(stats_of(0).copied + stats_of(1).copied + stats_of(2).copied, held);
        assert_int_equal(stats_of(0).moved + stats_of(1).moved + stats_of(2).moved, 0);
        if (!again) {
            assert_int_equal(servers_held(&bed, 0), 12);
            assert_int_equal(servers_held(&bed, 2), 12);
            servers_open_one(&bed, 1, 48);
            tend(10);
        }
        kill_one(0); /* none of them is lost with the next one either */
        assert_int_equal(n_readable(12), 12);
        servers_open_one(&bed, 0, 48);
        tend(40);
        assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 1) + servers_held(&bed, 2), 24);
        servers_read_rows(&bed, 12);
        servers_bed_close(&bed);
    }
}

/* Slots that are given back, or written anew, while what they held is on its way. */
static void what_nobody_wants_any_more_is_left_nowhere(void **state)
{
    (void)state;
    for (uint32_t ends = 1; ends <= 4; ends++) {
        servers_bed_open(&bed, 48, 1, &usual);
        servers_fill(&bed, 24);
        qy_memory_drain(bed.rigs[2].memory);
        assert_int_equal(n_readable(24), 24);
        for (uint32_t i = 0; i < ends; i++) {
            (void)qyi_store_tend(bed.store);
            servers_pass(&bed, 3000);
        }
        for (uint32_t slot = 0; slot < 24; slot++) {
            qyi_store_release(bed.store, slot);
        }
        servers_fill(&bed, 12);
        tend(10);
        assert_int_equal(servers_held(&bed, 2), 0);
        assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 1), 12);
        assert_int_equal(n_readable(12), 12);
        for (uint32_t slot = 0; slot < 12; slot++) {
            qyi_store_release(bed.store, slot);
        }
        tend(4);
        assert_int_equal(servers_held(&bed, 0) + servers_held(&bed, 1), 0);
        servers_bed_close(&bed);
    }
}

/* Closed in the middle: nothing stays at any server. */
static void close_waits_for_moves(void **state)
{
    (void)state;
    for (uint32_t ends = 1; ends <= 4; ends++) {
        servers_bed_open(&bed, 48, 2, &usual);
        servers_fill(&bed, 12);
        qy_memory_drain(bed.rigs[0].memory);
        assert_int_equal(n_readable(12), 12);
        for (uint32_t i = 0; i < ends; i++) {
            (void)qyi_store_tend(bed.store);
            servers_pass(&bed, 3000);
        }
        qyi_store_close(bed.store);
        bed.store = NULL;
        for (uint32_t i = 0; i < SERVERS; i++) {
            assert_int_equal(servers_held(&bed, i), 0);
        }
        servers_bed_close(&bed);
    }
}

/* Nobody asks it anything: it is asked how it is, twice a second. */
static void server_that_is_asked_nothing_is_heard_when_it_ends(void **state)
{
    (void)state;
    servers_bed_open(&bed, 48, 1, &usual);
    servers_fill(&bed, 12);
    assert_int_equal(tend(2), 0);
    qy_memory_drain(bed.rigs[1].memory);
    for (uint32_t i = 0; i < 60 && servers_held(&bed, 1) > 0; i++) {
        (void)qyi_store_tend(bed.store);
        servers_pass(&bed, 10 * TIMEOUT);
    }
    assert_int_equal(servers_held(&bed, 1), 0);
    assert_int_equal(n_readable(12), 12);
    servers_bed_close(&bed);
}

static void no_wrong_byte_whatever_happens_while_blocks_move(void **state)
{
    uint32_t readable = 0, moved = 0, copied = 0;
    (void)state;

    for (uint64_t seed = 0; seed < 30; seed++) {
        const struct qy_fabric_params params = {
            .seed = seed, .latency_ns = 1000, .order = (enum qy_fabric_order)(seed % 3)};
        int written[SLOTS] = {0};

        servers_bed_open(&bed, 16, 1 + seed % 2, &params);
        for (uint32_t turn = 0; turn < 100; turn++) {
            const uint32_t slot = (uint32_t)(memory_random(&bed.worker) % SLOTS);
            const uint64_t what = memory_random(&bed.worker) % 20;
            const uint32_t server = (uint32_t)(memory_random(&bed.worker) % SERVERS);
            const struct qy_fabric_rule rule = {
                .fault = (enum qy_fabric_fault)(memory_random(&bed.worker) % 4),
                .after = (uint32_t)(memory_random(&bed.worker) % 3),
                .count = 1,
                .ns = TIMEOUT / 2};
            int error;

            if (what < 2) {
                assert_int_equal(qy_fabric_inject(bed.fabric, &rule), QY_OK);
            } else if (what < 6) {
                qyi_store_release(bed.store, slot);
                struct qyi_store_request request = servers_write(&bed, slot);

                written[slot] = servers_run(&bed, &request, 1, &error) == QY_OK;
            } else if (what < 7) {
                qyi_store_release(bed.store, slot);
                written[slot] = 0;
            } else if (what < 8 && turn % 8 == 0) {
                qy_memory_drain(bed.rigs[server].memory);
            } else if (what < 9 && turn % 8 == 1) {
                kill_one(server);
                servers_open_one(&bed, server, 16);
            } else if (what < 14) {
                (void)qyi_store_tend(bed.store);
                servers_pass(&bed, what < 11 ? 3000 : TIMEOUT / 4);
            } else if (written[slot]) {
                error = servers_read(&bed, slot); /* compares, if it was read */
                assert_true(error == 0 || error == ENODATA);
            }
        }
        qy_fabric_heal(bed.fabric);
        tend(80);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            readable += written[slot] && servers_read(&bed, slot) == 0;
        }
        for (uint32_t i = 0; i < SERVERS; i++) {
            moved += (uint32_t)stats_of(i).moved;
            copied += (uint32_t)stats_of(i).copied;
        }
        servers_bed_close(&bed);
    }
    assert_true(readable > 100 && moved > 100 && copied > 100); /* that is what went on */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_that_ends_hands_its_blocks_to_others),
        cmocka_unit_test(server_that_ends_does_not_wait_for_copies_that_nobody_takes),
        cmocka_unit_test(blocks_stay_where_nobody_else_has_room),
        cmocka_unit_test(move_that_is_cut_short_loses_only_what_died),
        cmocka_unit_test(copies_of_a_lost_server_are_made_again),
        cmocka_unit_test(what_nobody_wants_any_more_is_left_nowhere),
        cmocka_unit_test(close_waits_for_moves),
        cmocka_unit_test(server_that_is_asked_nothing_is_heard_when_it_ends),
        cmocka_unit_test(no_wrong_byte_whatever_happens_while_blocks_move),
    };

    return cmocka_run_group_tests_name("servers_move", tests, NULL, NULL);
}
