/* SPDX-License-Identifier: Apache-2.0 */
/* Messages over UCX: whole, in order, of every size, as many as the depth allows; told when they are gone. */
#include "tests/support/test.h"
#include "tests/unit/net/ucx_bed.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static const struct qyi_wire_ops *ops = &qyi_wire_ucx;
static const uint64_t second = 1000000000u;

/* Sizes on both sides of what UCX sends at once, and of where it asks the receiver first. */
static const size_t sizes[] = {0,     1,     7,      104,    4096,    8000,   8192,
                               16384, 65536, 262144, 500000, 1 << 20, 4 << 20};
enum { N_SIZES = sizeof(sizes) / sizeof(sizes[0]) };

struct fixture {
    struct bed_end a, b; /* a listens, b connected to it */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    bed_open(&f->a, "127.0.0.1:0");
    bed_open(&f->b, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    bed_close(&f->b);
    bed_close(&f->a);
    free(f);
    return 0;
}

static void messages_of_all_sizes_arrive_whole_both_ways(void **state)
{
    struct fixture *f = *state;

    bed_meet(&f->a, &f->b);
    for (uint32_t i = 0; i < N_SIZES; i++) {
        assert_int_equal(bed_send(&f->b, f->b.conns[0], i + 1, sizes[i]), QY_OK);
        BED_UNTIL(f->a.n_arrived == i + 1 && f->b.n_sent == i + 1, &f->a, &f->b);
        assert_int_equal(f->a.last_bytes, sizes[i]);
        assert_int_equal(bed_send(&f->a, f->a.conns[0], i + 1, sizes[i]), QY_OK);
        BED_UNTIL(f->b.n_arrived == i + 1 && f->a.n_sent == i + 1, &f->a, &f->b);
        assert_int_equal(f->b.last_bytes, sizes[i]);
    }
    assert_int_equal(f->a.jumps + f->b.jumps, 0);
    assert_int_equal(f->a.n_unsent + f->b.n_unsent + f->a.n_broke + f->b.n_broke, 0);
}

static void messages_sent_before_the_connection_stands_arrive_in_order(void **state)
{
    struct fixture *f = *state;
    struct qyi_conn *conn = bed_connect(&f->b, bed_address(&f->a));

    for (uint32_t i = 0; i < N_SIZES; i++) {
        assert_int_equal(bed_send(&f->b, conn, i + 1, sizes[i]), QY_OK);
    }
    assert_int_equal(f->b.n_sent, 0); /* told in progress alone */
    BED_UNTIL(f->a.n_arrived == N_SIZES && f->b.n_sent == N_SIZES, &f->a, &f->b);
    assert_int_equal(f->b.n_connected, 1);
    assert_int_equal(f->a.jumps, 0);
}

static void many_in_flight_begin_in_order_and_the_depth_is_kept(void **state)
{
    static const size_t mixed[] = {0, 16, 256, 4096, 20000, 100000, 300000};
    struct fixture *f = *state;
    const uint32_t n = 700;
    uint32_t posted[2] = {0, 0}, again = 0;
    struct bed_end *ends[2] = {&f->a, &f->b};

    bed_meet(&f->a, &f->b);
    for (const uint64_t begin = qy_clock_ns(); f->a.n_arrived < n || f->b.n_arrived < n;) {
        for (uint32_t e = 0; e < 2; e++) {
            struct bed_end *end = ends[e];

            while (posted[e] < n) {
                const enum qy_status st =
                    bed_send(end, end->conns[0], posted[e] + 1, mixed[(posted[e] + e) % 7]);

                if (st == QY_AGAIN) {
                    assert_int_equal(posted[e] - end->n_sent, 16);
                    again++;
                    break;
                }
                assert_int_equal(st, QY_OK);
                posted[e]++;
            }
            bed_poll(end);
        }
        assert_false(bed_late(begin));
    }
    BED_UNTIL(f->a.n_sent == n && f->b.n_sent == n, &f->a, &f->b);
    assert_true(again > 0);
    assert_int_equal(f->a.jumps + f->b.jumps, 0);
}

static void message_sent_inside_arrived_goes(void **state)
{
    struct fixture *f = *state;

    f->a.replies = 1000;
    bed_meet(&f->a, &f->b);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(bed_send(&f->b, f->b.conns[0], i + 1, sizes[i]), QY_OK);
    }
    BED_UNTIL(f->b.n_arrived == 8, &f->a, &f->b);
    assert_int_equal(f->b.last_id, 1008);
    assert_int_equal(f->b.jumps, 1); /* from 0 to 1001 */
}

static void payload_that_nobody_wants_is_dropped_and_told(void **state)
{
    struct fixture *f = *state;

    f->a.drops = 1;
    bed_meet(&f->a, &f->b);
    for (uint32_t i = 0; i < N_SIZES; i++) {
        assert_int_equal(bed_send(&f->b, f->b.conns[0], i + 1, sizes[i]), QY_OK);
    }
    BED_UNTIL(f->a.n_arrived == N_SIZES && f->b.n_sent == N_SIZES, &f->a, &f->b);
    f->a.drops = 0;
    assert_int_equal(bed_send(&f->b, f->b.conns[0], N_SIZES + 1, 4 << 20), QY_OK);
    BED_UNTIL(f->a.n_arrived == N_SIZES + 1 && f->b.n_sent == N_SIZES + 1, &f->a, &f->b);
}

static void messages_of_several_connections_are_told_apart(void **state)
{
    struct fixture *f = *state;

    for (uint32_t c = 0; c < 5; c++) {
        bed_meet(&f->a, &f->b);
    }
    assert_int_equal(f->a.n_accepted, 5);
    for (uint64_t id = 1; id <= 20; id++) {
        for (uint32_t c = 0; c < 5; c++) { /* every connection has the same ids: a mix-up jumps */
            assert_int_equal(bed_send(&f->b, f->b.conns[c], id, id % 4 == 0 ? 200000 : 64), QY_OK);
            assert_int_equal(bed_send(&f->a, f->a.conns[c], id, id % 4 == 1 ? 200000 : 64), QY_OK);
        }
        BED_UNTIL(f->a.n_arrived == id * 5 && f->b.n_arrived == id * 5, &f->a, &f->b);
    }
    assert_int_equal(f->a.jumps + f->b.jumps, 0);
}

/* ---- sleep --------------------------------------------------------------------------------- */

static int readable(int fd)
{
    struct pollfd event = {.fd = fd, .events = POLLIN};

    return poll(&event, 1, 0) == 1;
}

/* Until there is nothing left to do. */
static void arm(struct bed_end *end, struct bed_end *other)
{
    BED_UNTIL(bed_poll(other) == 0 && bed_poll(end) == 0 && ops->arm(end->wire) == QY_OK, end,
              other);
}

static void armed_wire_is_woken_by_a_message(void **state)
{
    struct fixture *f = *state;
    const int fd = ops->fd(f->a.wire);

    assert_true(fd >= 0);
    bed_meet(&f->a, &f->b);
    arm(&f->a, &f->b);
    assert_false(readable(fd));
    assert_int_equal(bed_send(&f->b, f->b.conns[0], 1, 64), QY_OK);
    for (const uint64_t begin = qy_clock_ns(); !readable(fd); bed_poll(&f->b)) {
        assert_false(bed_late(begin));
    }
    assert_int_equal(f->a.n_arrived, 0);
    BED_UNTIL(f->a.n_arrived == 1, &f->a, &f->b);
}

static void armed_wire_is_woken_by_somebody_who_connects(void **state)
{
    struct fixture *f = *state;

    arm(&f->a, &f->b);
    bed_connect(&f->b, bed_address(&f->a));
    for (const uint64_t begin = qy_clock_ns(); !readable(ops->fd(f->a.wire)); bed_poll(&f->b)) {
        assert_false(bed_late(begin));
    }
    BED_UNTIL(f->b.n_connected == 1, &f->a, &f->b);
}

static void wire_with_something_to_tell_does_not_arm(void **state)
{
    struct fixture *f = *state;

    bed_meet(&f->a, &f->b);
    arm(&f->b, &f->a);
    assert_int_equal(bed_send(&f->b, f->b.conns[0], 1, 0), QY_OK);
    if (f->b.out != NULL) { /* gone at once, and not told yet */
        assert_int_equal(ops->arm(f->b.wire), QY_AGAIN);
    }
    BED_UNTIL(f->b.n_sent == 1 && f->a.n_arrived == 1, &f->a, &f->b);
}

static void wait_ends_at_its_time_and_calls_no_sink(void **state)
{
    struct fixture *f = *state;
    uint64_t until;

    bed_meet(&f->a, &f->b);
    arm(&f->a, &f->b);
    assert_int_equal(bed_send(&f->b, f->b.conns[0], 1, 64), QY_OK);
    for (int i = 0; i < 10; i++) {
        bed_poll(&f->b);
        ops->wait(f->a.wire, qy_clock_ns() + second / 100, second / 1000);
    }
    assert_int_equal(f->a.n_arrived, 0);
    BED_UNTIL(f->a.n_arrived == 1, &f->a, &f->b);
    until = qy_clock_ns() + second / 50;
    for (const uint64_t begin = qy_clock_ns(); qy_clock_ns() < until;) {
        bed_poll(&f->a);
        ops->wait(f->a.wire, until, 0);
        assert_false(bed_late(begin));
    }
    ops->wait(f->a.wire, 0, second); /* a time that is over */
}

/* ---- registered memory --------------------------------------------------------------------- */

static void remembered_memory_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct qy_error err = {0};
    void *memory = calloc(1, 1 << 20), *handle = NULL;

    assert_int_equal(ops->remember(f->a.wire, memory, 1 << 20, &handle, &err), QY_OK);
    ops->forget(f->a.wire, handle);
    ops->forget(f->a.wire, NULL);
    assert_int_equal(ops->remember(f->a.wire, memory, 0, &handle, &err), QY_ERR_INVALID);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_of_all_sizes_arrive_whole_both_ways, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(messages_sent_before_the_connection_stands_arrive_in_order,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(many_in_flight_begin_in_order_and_the_depth_is_kept, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(message_sent_inside_arrived_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(payload_that_nobody_wants_is_dropped_and_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(messages_of_several_connections_are_told_apart, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(armed_wire_is_woken_by_a_message, setup, teardown),
        cmocka_unit_test_setup_teardown(armed_wire_is_woken_by_somebody_who_connects, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(wire_with_something_to_tell_does_not_arm, setup, teardown),
        cmocka_unit_test_setup_teardown(wait_ends_at_its_time_and_calls_no_sink, setup, teardown),
        cmocka_unit_test_setup_teardown(remembered_memory_is_forgotten, setup, teardown),
    };
    const char *reason = bed_no_loopback();

    if (reason != NULL) {
        printf("%s\n", reason);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
