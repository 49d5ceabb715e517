/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: order, gathers, events, a full ring, the modelled link, counts. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/gpu/stream_fixture.h"

static const struct qy_link no_link = {0};

static uint32_t draw(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

/* 0 .. n - 1 in random order. */
static void shuffle(uint32_t *state, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t j = draw(state, i + 1);
        out[i] = out[j];
        out[j] = i;
    }
}

/* Command i adds nothing to what i - 1 copied: each copies the one before on. */
static void commands_run_in_order(void **state)
{
    enum { N = 1000, CAPACITY = 7 };
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, CAPACITY);
    uint32_t cells[N + 1] = {42};
    struct qy_copy_item items[N];
    struct qy_event events[N];
    assert_int_equal(qy_stream_query(bed.stream, qy_stream_record(bed.stream)), QY_OK);
    for (uint32_t i = 0; i < N; i++) {
        items[i] =
            (struct qy_copy_item){.from = &cells[i], .to = &cells[i + 1], .bytes = sizeof cells[0]};
        enum qy_status st;
        while ((st = qy_stream_copy(bed.stream, &items[i], 1)) == QY_AGAIN) {
            assert_true(i >= CAPACITY);
            MUST(qy_stream_wait(bed.stream, events[i - CAPACITY], LONG_NS));
        }
        MUST(st);
        events[i] = qy_stream_record(bed.stream);
    }
    MUST(qy_stream_wait(bed.stream, events[N - 1], LONG_NS));
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(qy_stream_query(bed.stream, events[i]), QY_OK);
        assert_int_equal(cells[i + 1], 42);
    }
    stream_bed_close(&bed);
}

/* Random rows of random blocks into random slots, some in runs; every slot is looked at. */
static void gather_case(struct stream_bed *bed, enum qy_row_type type, uint32_t d, uint32_t seed)
{
    enum { ROWS = 512, SHIFT = 5, ITEMS = 3, SLOTS = 700 };
    const size_t row = qy_row_bytes(type, d), offset = 2 * row;
    uint8_t *blocks[ROWS >> SHIFT];
    for (uint32_t b = 0; b < ROWS >> SHIFT; b++) {
        blocks[b] = malloc(offset + (row << SHIFT));
        assert_non_null(blocks[b]);
        for (size_t i = 0; i < offset + (row << SHIFT); i++) {
            blocks[b][i] = (uint8_t)(draw(&seed, 256));
        }
    }
    uint8_t *base = calloc(SLOTS, row), *expected = calloc(SLOTS, row);
    uint64_t stamps[SLOTS] = {0}, expected_stamps[SLOTS] = {0};
    uint32_t slots[SLOTS], ids[ITEMS][ROWS];
    struct qy_gather_item items[ITEMS];
    assert_true(base != NULL && expected != NULL);
    shuffle(&seed, slots, SLOTS);
    for (uint32_t n = 0, used = 0; n < ITEMS; n++) {
        const uint32_t take = n == 1 ? 0 : 100 + draw(&seed, 100);
        shuffle(&seed, ids[n], ROWS);
        for (uint32_t i = 1; i < take; i++) { /* half of them go on where the one before was */
            if (draw(&seed, 2) == 0 && ids[n][i - 1] + 1 < ROWS) {
                ids[n][i] = ids[n][i - 1] + 1;
                for (uint32_t k = used + i; k < SLOTS; k++) {
                    if (slots[k] == slots[used + i - 1] + 1) {
                        slots[k] = slots[used + i];
                        slots[used + i] = slots[used + i - 1] + 1;
                    }
                }
            }
        }
        items[n] = (struct qy_gather_item){
            .rows = {.blocks = blocks, .offset = offset, .shift = SHIFT, .d = d, .type = type},
            .ids = ids[n],
            .slots = slots + used,
            .n = take,
            .stamp = 77 + n,
            .stamps = n == 2 ? NULL : stamps};
        for (uint32_t i = 0; i < take; i++) {
            const uint32_t slot = slots[used + i], id = ids[n][i];
            memcpy(expected + slot * row,
                   blocks[id >> SHIFT] + offset + (id & ((1u << SHIFT) - 1)) * row, row);
            if (n != 2) {
                expected_stamps[slot] = qy_row_stamp(77 + n, id);
            }
        }
        used += take;
    }
    MUST(qy_stream_gather(bed->stream, items, ITEMS, base));
    MUST(qy_stream_wait(bed->stream, qy_stream_record(bed->stream), LONG_NS));
    assert_memory_equal(base, expected, SLOTS * row);
    assert_memory_equal(stamps, expected_stamps, sizeof stamps);
    free(base);
    free(expected);
    for (uint32_t b = 0; b < ROWS >> SHIFT; b++) {
        free(blocks[b]);
    }
}

static void gather_puts_every_row_and_stamp_into_its_slot(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 4);
    for (uint32_t seed = 1; seed <= 8; seed++) {
        gather_case(&bed, QY_ROW_F16, 64, seed);
        gather_case(&bed, QY_ROW_F32, 128, seed);
        gather_case(&bed, QY_ROW_F16, 3, seed);
    }
    stream_bed_close(&bed);
}

static void commands_of_nothing_are_done(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 4);
    const struct qy_copy_item empty = {0};
    const struct qy_gather_item none = {0};
    uint8_t base[1];
    MUST(qy_stream_copy(bed.stream, NULL, 0));
    MUST(qy_stream_gather(bed.stream, NULL, 0, NULL));
    MUST(qy_stream_copy(bed.stream, &empty, 1));
    MUST(qy_stream_gather(bed.stream, &none, 1, base));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    stream_bed_close(&bed);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_HOST, 4);
    const struct qy_gather_item item = {0};
    struct qy_stream *stream = NULL;
    struct qy_error err = {0};
    uint8_t base[1];
    assert_int_equal(qy_stream_gather(bed.stream, &item, 1, base), QY_ERR_INVALID);
    assert_int_equal(qy_stream_copy(bed.stream, NULL, 1), QY_ERR_INVALID);
    assert_int_equal(qy_stream_inject(bed.stream, (enum qy_stream_fault)9, 0), QY_ERR_INVALID);
    assert_int_equal(qy_stream_open(bed.dev, "pull", QY_TO_HOST, 0, &stream, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "'pull'"));
    assert_int_equal(qy_stream_open(bed.dev, "x", QY_TO_HOST, 65537, &stream, &err),
                     QY_ERR_INVALID);
    assert_int_equal(qy_stream_open(NULL, "x", QY_TO_HOST, 1, &stream, &err), QY_ERR_INVALID);
    assert_null(stream);
    qy_stream_close(NULL);
    stream_bed_close(&bed);
}

/* A slow link keeps commands under way for a known time at least. */
static void events_tell_what_is_under_way(void **state)
{
    (void)state;
    const struct qy_link link = {.copy_ns = 50 * MS};
    struct stream_bed bed;
    stream_bed_open(&bed, link, QY_TO_DEVICE, 2);
    const struct qy_event before = qy_stream_record(bed.stream);
    uint64_t from[2] = {1, 2}, to[2] = {0};
    const struct qy_copy_item items[2] = {{&from[0], &to[0], 8, NULL}, {&from[1], &to[1], 8, NULL}};
    const uint64_t begin = qy_clock_ns();
    MUST(qy_stream_copy(bed.stream, &items[0], 1));
    const struct qy_event first = qy_stream_record(bed.stream);
    MUST(qy_stream_copy(bed.stream, &items[1], 1));
    const struct qy_event second = qy_stream_record(bed.stream);
    const enum qy_status third = qy_stream_copy(bed.stream, items, 0);
    const enum qy_status at_once = qy_stream_query(bed.stream, second);
    const enum qy_status no_time = qy_stream_wait(bed.stream, second, 0);
    const enum qy_status too_short = qy_stream_wait(bed.stream, second, 2 * MS);
    if (qy_clock_ns() - begin < 40 * MS) { /* else a busy machine took the time */
        assert_int_equal(third, QY_AGAIN);
        assert_int_equal(at_once, QY_PENDING);
        assert_int_equal(no_time, QY_ERR_TIMEOUT);
        assert_int_equal(too_short, QY_ERR_TIMEOUT);
    }
    assert_int_equal(qy_stream_query(bed.stream, before), QY_OK);
    MUST(qy_stream_wait(bed.stream, first, LONG_NS));
    assert_true(qy_clock_ns() - begin >= 50 * MS);
    MUST(qy_stream_wait(bed.stream, second, UINT64_MAX));
    assert_true(qy_clock_ns() - begin >= 100 * MS);
    assert_int_equal(to[0] + to[1], 3);
    MUST(qy_stream_copy(bed.stream, items, 0)); /* there is room again */
    stream_bed_close(&bed);
    assert_true(qy_clock_ns() - begin >= 150 * MS); /* and close waited for it */
}

/* The link of what is queued from now on. */
static void a_link_can_be_changed(void **state)
{
    (void)state;
    const struct qy_link slow = {.copy_ns = 20 * MS}, wrong = {.gbps = -1};
    struct stream_bed bed;
    struct qy_error err = {0};
    const struct qy_copy_item none = {0};
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 2);
    assert_int_equal(qy_device_set_link(bed.dev, &wrong, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "link of '-1' GB/s"));
    MUST(qy_device_set_link(bed.dev, &slow, NULL));
    const uint64_t begin = qy_clock_ns();
    MUST(qy_stream_copy(bed.stream, &none, 0));
    MUST(qy_device_set_link(bed.dev, &no_link, NULL));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    assert_true(qy_clock_ns() - begin >= 20 * MS); /* it was queued on the slow one */
    stream_bed_close(&bed);
}

/* A stream and its link have lanes of their own in the trace. */
static void streams_tell_the_trace_what_they_copied(void **state)
{
    (void)state;
    enum { BYTES = 1000 };
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_trace *trace = NULL;
    struct stream_bed bed;
    char path[] = P_tmpdir "/qy_test_copies_XXXXXX", text[4096] = {0};
    uint8_t from[BYTES] = {0}, to[BYTES];
    const struct qy_copy_item item = {from, to, BYTES, NULL};
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    MUST(qy_trace_open(&mem, 1, 8, &trace, NULL));
    stream_bed_open_traced(&bed, (struct qy_link){.copy_ns = 1000}, QY_TO_HOST, 4, trace);
    MUST(qy_stream_copy(bed.stream, &item, 1));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    stream_bed_close(&bed);
    MUST(qy_trace_write(trace, path, NULL));
    qy_trace_close(trace);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    unlink(path);
    assert_non_null(strstr(text, "\"streams\""));
    assert_non_null(strstr(text, "\"links\""));
    const char *first = strstr(text, "\"bytes\":1000,\"rows\":0");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "\"bytes\":1000,\"rows\":0"));
}

/* One link per direction, whatever the number of streams on it. */
static void link_is_shared_by_the_streams_of_a_direction(void **state)
{
    (void)state;
    enum { BYTES = 100000, COPIES = 5 };
    const struct qy_link link = {.gbps = 0.01}; /* 10 ms each */
    struct stream_bed bed;
    stream_bed_open(&bed, link, QY_TO_DEVICE, COPIES);
    struct qy_stream *other, *back;
    MUST(qy_stream_open(bed.dev, "other", QY_TO_DEVICE, COPIES, &other, NULL));
    MUST(qy_stream_open(bed.dev, "back", QY_TO_HOST, COPIES, &back, NULL));
    uint8_t *from = calloc(1, BYTES), *to = calloc(3, BYTES);
    assert_true(from != NULL && to != NULL);
    const struct qy_copy_item items[3] = {{from, to, BYTES, NULL},
                                          {from, to + BYTES, BYTES, NULL},
                                          {from, to + 2 * BYTES, BYTES, NULL}};
    const uint64_t begin = qy_clock_ns();
    for (uint32_t i = 0; i < COPIES; i++) {
        MUST(qy_stream_copy(bed.stream, &items[0], 1));
        MUST(qy_stream_copy(other, &items[1], 1));
        MUST(qy_stream_copy(back, &items[2], 1));
    }
    MUST(qy_stream_wait(back, qy_stream_record(back), LONG_NS));
    assert_true(qy_clock_ns() - begin >= 10 * COPIES * MS);
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    MUST(qy_stream_wait(other, qy_stream_record(other), LONG_NS));
    assert_true(qy_clock_ns() - begin >= 2 * 10 * COPIES * MS);
    struct qy_stream_stats stats;
    qy_stream_stats(back, &stats);
    assert_true(stats.busy_ns >= 10 * (COPIES - 1) * MS); /* the first may have begun late */
    qy_stream_close(other);
    qy_stream_close(back);
    stream_bed_close(&bed);
    free(from);
    free(to);
}

static void stats_count_what_is_finished(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 3);
    uint8_t home[4 * 256] = {0}, device[4 * 256], *const blocks[1] = {home};
    const uint32_t ids[3] = {3, 0, 1}, slots[3] = {0, 2, 3};
    const struct qy_gather_item gather = {
        .rows = {.blocks = blocks, .shift = 31, .d = 64, .type = QY_ROW_F16},
        .ids = ids,
        .slots = slots,
        .n = 3};
    const struct qy_copy_item copy = {home, device, 100, NULL};
    struct qy_stream_stats stats;
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.copies + stats.bytes + stats.rows + stats.busy_ns, 0);
    for (uint32_t i = 0; i < 20; i++) { /* around the ring a few times */
        MUST(qy_stream_gather(bed.stream, &gather, 1, device));
        MUST(qy_stream_copy(bed.stream, &copy, 1));
        MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    }
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.copies, 40);
    assert_int_equal(stats.rows, 60);
    assert_int_equal(stats.bytes, 20 * (3 * 256 + 100));
    assert_true(stats.busy_ns > 0);
    qy_stream_stats_reset(bed.stream);
    MUST(qy_stream_copy(bed.stream, &copy, 1));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.copies, 1);
    assert_int_equal(stats.rows, 0);
    assert_int_equal(stats.bytes, 100);
    stream_bed_close(&bed);
}

static void close_finishes_what_is_queued(void **state)
{
    (void)state;
    enum { N = 64 };
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_HOST, N);
    uint8_t from[N], to[N] = {0};
    struct qy_copy_item items[N];
    for (uint32_t i = 0; i < N; i++) {
        from[i] = (uint8_t)(i + 1);
        items[i] = (struct qy_copy_item){.from = &from[i], .to = &to[i], .bytes = 1};
        MUST(qy_stream_copy(bed.stream, &items[i], 1));
    }
    stream_bed_close(&bed);
    assert_memory_equal(from, to, N);
}

/* The owner reads and changes what was copied after each wait, asleep or not: for TSan. */
static void bytes_go_back_and_forth(void **state)
{
    (void)state;
    struct stream_bed bed;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 2);
    struct qy_stream *back;
    MUST(qy_stream_open(bed.dev, "back", QY_TO_HOST, 1, &back, NULL));
    uint64_t here[32] = {0}, there[32];
    const struct qy_copy_item out = {here, there, sizeof here, NULL};
    const struct qy_copy_item in = {there, here, sizeof here, NULL};
    for (uint64_t i = 1; i <= 300; i++) {
        here[i % 32] += i;
        const uint64_t expected = here[i % 32];
        MUST(qy_stream_copy(bed.stream, &out, 1));
        MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
        assert_int_equal(there[i % 32], expected);
        there[i % 32]++;
        MUST(qy_stream_copy(back, &in, 1));
        while (qy_stream_query(back, qy_stream_record(back)) == QY_PENDING) {
        }
        assert_int_equal(here[i % 32], expected + 1);
        if (i % 100 == 0) { /* long enough for both engines to fall asleep */
            const struct timespec nap = {.tv_nsec = 2000000};
            nanosleep(&nap, NULL);
        }
    }
    qy_stream_close(back);
    stream_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_run_in_order),
        cmocka_unit_test(gather_puts_every_row_and_stamp_into_its_slot),
        cmocka_unit_test(commands_of_nothing_are_done),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(events_tell_what_is_under_way),
        cmocka_unit_test(a_link_can_be_changed),
        cmocka_unit_test(streams_tell_the_trace_what_they_copied),
        cmocka_unit_test(link_is_shared_by_the_streams_of_a_direction),
        cmocka_unit_test(stats_count_what_is_finished),
        cmocka_unit_test(close_finishes_what_is_queued),
        cmocka_unit_test(bytes_go_back_and_forth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
