/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that are coded on their way home and decoded on their way back; what crosses the link is what
 * is coded. */
#include <math.h>
#include <stdlib.h>

#include "tests/unit/gpu/stream_fixture.h"

enum { D = 64, ROWS = 128, SHIFT = 5, PER_BLOCK = 1 << SHIFT, OFFSET = 20 };

static const struct qy_link no_link = {0};
static const struct qy_row_codec codec = {.k_bits = 8, .v_bits = 4, .group = 32, .d = D};

/* Coded rows of a home in blocks, and what they decode to. */
struct home {
    uint16_t plain[ROWS][2 * D], decoded[ROWS][2 * D];
    uint8_t *blocks[ROWS / PER_BLOCK];
    struct qy_rows rows;
};

static void home_open(struct home *h, const struct qy_runtime *rt)
{
    const size_t bytes = qy_row_codec_bytes(&codec);

    for (uint32_t b = 0; b < ROWS / PER_BLOCK; b++) {
        h->blocks[b] = calloc(1, OFFSET + PER_BLOCK * bytes);
        assert_non_null(h->blocks[b]);
    }
    for (uint32_t t = 0; t < ROWS; t++) {
        uint8_t *at = h->blocks[t / PER_BLOCK] + OFFSET + t % PER_BLOCK * bytes;
        for (uint32_t i = 0; i < 2 * D; i++) {
            h->plain[t][i] = qy_f16_from_f32(sinf((float)(t * 2 * D + i)) * 3.0F);
        }
        qy_rows_encode(rt, &codec, h->plain[t], 1, at);
        qy_rows_decode(rt, &codec, at, 1, h->decoded[t]);
    }
    h->rows = (struct qy_rows){.blocks = h->blocks,
                               .offset = 7777, /* of rows as they are: there are none */
                               .shift = SHIFT,
                               .d = D,
                               .codec = &codec,
                               .coded_offset = OFFSET,
                               .n_coded = ROWS};
}

static void home_close(struct home *h)
{
    for (uint32_t b = 0; b < ROWS / PER_BLOCK; b++) {
        free(h->blocks[b]);
    }
}

static void gathers_decode_on_the_way(void **state)
{
    (void)state;
    static struct home home;
    static uint16_t slots_memory[ROWS + 3][2 * D];
    uint32_t ids[ROWS], slots[ROWS];
    uint64_t stamps[ROWS + 3] = {0};
    struct stream_bed bed;
    struct qy_stream_stats stats;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 4);
    home_open(&home, &bed.rt);
    for (uint32_t i = 0; i < ROWS; i++) {
        ids[i] = i < 60 ? i + 7 : i * 13 % ROWS; /* neighbours too */
        slots[i] = ROWS + 2 - i;
    }
    const struct qy_gather_item items[2] = {
        {.rows = home.rows, .ids = ids, .slots = slots, .n = 90, .stamp = 5, .stamps = stamps},
        {.rows = home.rows, .ids = ids + 90, .slots = slots + 90, .n = ROWS - 90}};
    MUST(qy_stream_gather(bed.stream, items, 2, slots_memory));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    for (uint32_t i = 0; i < ROWS; i++) {
        assert_memory_equal(slots_memory[slots[i]], home.decoded[ids[i]], sizeof home.decoded[0]);
        assert_true(stamps[slots[i]] == (i < 90 ? qy_row_stamp(5, ids[i]) : 0));
    }
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.rows, ROWS);
    assert_int_equal(stats.bytes, ROWS * qy_row_codec_bytes(&codec));
    home_close(&home);
    stream_bed_close(&bed);
}

static void copies_code_home_and_decode_back(void **state)
{
    (void)state;
    static struct home home;
    static uint16_t back_memory[ROWS][2 * D];
    const size_t bytes = ROWS * qy_row_codec_bytes(&codec);
    struct stream_bed bed;
    struct qy_stream *out = NULL;
    struct qy_stream_stats stats;
    stream_bed_open(&bed, no_link, QY_TO_DEVICE, 4);
    MUST(qy_stream_open(bed.dev, "out", QY_TO_HOST, 4, &out, NULL));
    home_open(&home, &bed.rt);
    uint8_t *coded = calloc(1, bytes);
    assert_non_null(coded);
    const struct qy_copy_item items[3] = {
        {.from = home.plain, .to = coded, .bytes = bytes, .codec = &codec},
        {.from = coded, .to = back_memory, .bytes = bytes, .codec = &codec},
        {.codec = &codec}};
    MUST(qy_stream_copy(out, items, 1));
    MUST(qy_stream_wait(out, qy_stream_record(out), LONG_NS));
    for (uint32_t b = 0; b < ROWS / PER_BLOCK; b++) {
        const size_t block = bytes / (ROWS / PER_BLOCK);
        assert_memory_equal(coded + b * block, home.blocks[b] + OFFSET, block);
    }
    MUST(qy_stream_copy(bed.stream, items + 1, 2));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    assert_memory_equal(back_memory, home.decoded, sizeof home.decoded);
    qy_stream_stats(out, &stats);
    assert_int_equal(stats.bytes, bytes);
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.bytes, bytes);
    free(coded);
    qy_stream_close(out);
    home_close(&home);
    stream_bed_close(&bed);
}

/* The least time: what a slower link would take of the same bytes is not asserted. */
static void link_is_charged_for_coded_bytes(void **state)
{
    (void)state;
    const struct qy_link link = {.gbps = 0.0005};
    static struct home home;
    static uint16_t back_memory[ROWS][2 * D];
    const size_t bytes = ROWS * qy_row_codec_bytes(&codec);
    struct stream_bed bed;
    stream_bed_open(&bed, link, QY_TO_DEVICE, 4);
    home_open(&home, &bed.rt);
    uint8_t *coded = calloc(1, bytes);
    assert_non_null(coded);
    qy_rows_encode(&bed.rt, &codec, home.plain, ROWS, coded);
    const struct qy_copy_item item = {
        .from = coded, .to = back_memory, .bytes = bytes, .codec = &codec};
    const uint64_t begin = qy_clock_ns();
    MUST(qy_stream_copy(bed.stream, &item, 1));
    MUST(qy_stream_wait(bed.stream, qy_stream_record(bed.stream), LONG_NS));
    assert_true(qy_clock_ns() - begin >= (uint64_t)((double)bytes / link.gbps));
    struct qy_stream_stats stats;
    qy_stream_stats(bed.stream, &stats);
    assert_int_equal(stats.bytes, bytes);
    free(coded);
    home_close(&home);
    stream_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_decode_on_the_way),
        cmocka_unit_test(copies_code_home_and_decode_back),
        cmocka_unit_test(link_is_charged_for_coded_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
