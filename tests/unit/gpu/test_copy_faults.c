/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that fail or stall: what is said, what was copied, and that they work again. */
#include "tests/unit/gpu/stream_fixture.h"

enum { N = 8 };
static const struct qy_link no_link = {0};

struct cells {
    uint64_t from[N], to[N];
    struct qy_copy_item items[N];
};

static void cells_init(struct cells *c)
{
    for (uint64_t i = 0; i < N; i++) {
        c->from[i] = i + 1;
        c->to[i] = 0;
        c->items[i] =
            (struct qy_copy_item){.from = &c->from[i], .to = &c->to[i], .bytes = sizeof c->to[i]};
    }
}

static struct qy_event copy(struct stream_bed *bed, struct cells *c, uint32_t i)
{
    MUST(qy_stream_copy(bed->stream, &c->items[i], 1));
    return qy_stream_record(bed->stream);
}

/* The stream takes and finishes commands, and counts them. */
static void check_works(struct stream_bed *bed)
{
    struct cells c;
    cells_init(&c);
    qy_stream_stats_reset(bed->stream);
    for (uint32_t i = 0; i < N; i++) {
        MUST(qy_stream_wait(bed->stream, copy(bed, &c, i), LONG_NS));
    }
    assert_memory_equal(c.from, c.to, sizeof c.to);
    struct qy_stream_stats stats;
    qy_stream_stats(bed->stream, &stats);
    assert_int_equal(stats.copies, N);
    assert_int_equal(stats.bytes, sizeof c.to);
}

static void a_failed_command_fails_the_stream_until_its_reset(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, N);
    check_works(&bed);
    struct cells c;
    cells_init(&c);
    MUST(qy_stream_inject(bed.stream, QY_STREAM_FAULT_ERROR, 2));
    struct qy_event events[N];
    uint32_t n = 0;
    for (enum qy_status st = QY_OK; n < N; n++) { /* it may fail before all are queued */
        st = qy_stream_copy(bed.stream, &c.items[n], 1);
        if (st == QY_ERR_DEVICE) {
            break;
        }
        MUST(st);
        events[n] = qy_stream_record(bed.stream);
    }
    assert_true(n > 2);
    MUST(qy_stream_wait(bed.stream, events[1], LONG_NS));
    assert_int_equal(qy_stream_wait(bed.stream, events[n - 1], LONG_NS), QY_ERR_DEVICE);
    assert_int_equal(qy_stream_query(bed.stream, events[2]), QY_ERR_DEVICE);
    assert_int_equal(qy_stream_query(bed.stream, events[1]), QY_OK);
    assert_int_equal(qy_stream_copy(bed.stream, c.items, 1), QY_ERR_DEVICE);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(c.to[i], i < 2 ? c.from[i] : 0);
    }
    struct qy_stream_stats stats;
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.copies, N + 2);

    MUST(qy_stream_reset(bed.stream, LONG_NS));
    assert_int_equal(qy_stream_query(bed.stream, qy_stream_record(bed.stream)), QY_OK);
    assert_int_equal(qy_stream_query(bed.stream, events[1]), QY_OK);
    assert_int_equal(qy_stream_query(bed.stream, events[2]), QY_ERR_DEVICE); /* it never came */
    assert_int_equal(qy_stream_wait(bed.stream, events[n - 1], 0), QY_ERR_DEVICE);
    check_works(&bed);
    assert_int_equal(c.to[2], 0);
    stream_bed_close(&bed);
}

static void a_stall_times_out_and_is_reset(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_HOST, 3);
    for (uint32_t round = 0; round < 20; round++) {
        struct cells c;
        cells_init(&c);
        MUST(qy_stream_inject(bed.stream, QY_STREAM_FAULT_STALL, 1));
        const struct qy_event first = copy(&bed, &c, 0), second = copy(&bed, &c, 1),
                              third = copy(&bed, &c, 2);
        MUST(qy_stream_wait(bed.stream, first, LONG_NS));
        assert_int_equal(qy_stream_wait(bed.stream, second, MS), QY_ERR_TIMEOUT);
        assert_int_equal(qy_stream_wait(bed.stream, third, 0), QY_ERR_TIMEOUT);
        assert_int_equal(qy_stream_query(bed.stream, third), QY_PENDING);
        assert_int_equal(qy_stream_copy(bed.stream, c.items, 1), QY_OK);
        assert_int_equal(qy_stream_copy(bed.stream, c.items, 1), QY_AGAIN);
        MUST(qy_stream_reset(bed.stream, LONG_NS));
        assert_int_equal(qy_stream_query(bed.stream, first), QY_OK);
        assert_int_equal(qy_stream_query(bed.stream, third), QY_ERR_DEVICE);
        assert_int_equal(c.to[0], 1);
        assert_int_equal(c.to[1] + c.to[2], 0);
        check_works(&bed);
    }
    stream_bed_close(&bed);
}

/* A link that would take an hour does not keep a reset waiting, nor the commands behind it. */
static void a_slow_link_is_given_up(void **state)
{
    (void)state;
    const struct qy_link link = {.gbps = 1e-12};
    struct stream_bed bed;
    stream_bed_open(&bed, link, QY_TO_DEVICE, N);
    struct cells c;
    cells_init(&c);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(qy_stream_wait(bed.stream, copy(&bed, &c, round), MS), QY_ERR_TIMEOUT);
        MUST(qy_stream_reset(bed.stream, LONG_NS));
        const struct qy_copy_item empty = {0};
        MUST(qy_stream_copy(bed.stream, &empty, 1));
        MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    }
    struct qy_stream_stats stats;
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.copies, 3);
    assert_int_equal(stats.bytes, 0);
    stream_bed_close(&bed);
}

/* However soon one follows the other. */
static void resets_in_a_row_all_return(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, N);
    struct cells c;
    cells_init(&c);
    for (uint32_t i = 0; i < 2000; i++) {
        if (i % 3 == 0) {
            const struct qy_event event = copy(&bed, &c, i % N);
            assert_int_not_equal(qy_stream_query(bed.stream, event), QY_ERR_DEVICE);
        }
        MUST(qy_stream_reset(bed.stream, LONG_NS));
    }
    check_works(&bed);
    stream_bed_close(&bed);
}

static void a_reset_out_of_time_is_taken_up_again(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, N);
    struct cells c;
    cells_init(&c);
    MUST(qy_stream_inject(bed.stream, QY_STREAM_FAULT_STALL, 0));
    const struct qy_event event = copy(&bed, &c, 0);
    enum qy_status st = qy_stream_reset(bed.stream, 0); /* mostly too soon for the engine */
    if (st != QY_OK) {
        assert_int_equal(st, QY_ERR_TIMEOUT);
        assert_int_equal(qy_stream_copy(bed.stream, c.items, 1), QY_ERR_DEVICE);
        assert_int_equal(qy_stream_wait(bed.stream, event, LONG_NS), QY_ERR_DEVICE);
        MUST(qy_stream_reset(bed.stream, LONG_NS));
    }
    check_works(&bed);
    stream_bed_close(&bed);
}

static void close_gives_up_what_cannot_end(void **state)
{
    (void)state;
    const enum qy_stream_fault faults[] = {QY_STREAM_FAULT_ERROR, QY_STREAM_FAULT_STALL};
    for (uint32_t i = 0; i < 6; i++) {
        struct stream_bed bed;
        struct cells c;
        cells_init(&c);
        stream_bed_open(&bed, no_link, QY_TO_DEVICE, N);
        MUST(qy_stream_inject(bed.stream, faults[i % 2], 1));
        const struct qy_event first = copy(&bed, &c, 0);
        copy(&bed, &c, 1);
        const enum qy_status third = qy_stream_copy(bed.stream, &c.items[2], 1);
        assert_true(third == QY_OK || (third == QY_ERR_DEVICE && i % 2 == 0));
        if (i >= 2) { /* else at once, whatever the engine is at */
            MUST(qy_stream_wait(bed.stream, first, LONG_NS));
        }
        if (i >= 4) {
            const enum qy_status st = qy_stream_reset(bed.stream, 0);
            assert_true(st == QY_OK || st == QY_ERR_TIMEOUT);
        }
        stream_bed_close(&bed);
        assert_int_equal(c.to[0], 1);
        assert_int_equal(c.to[1] + c.to[2], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_command_fails_the_stream_until_its_reset),
        cmocka_unit_test(a_stall_times_out_and_is_reset),
        cmocka_unit_test(a_slow_link_is_given_up),
        cmocka_unit_test(resets_in_a_row_all_return),
        cmocka_unit_test(a_reset_out_of_time_is_taken_up_again),
        cmocka_unit_test(close_gives_up_what_cannot_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
