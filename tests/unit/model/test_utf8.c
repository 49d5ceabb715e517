/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8: what is valid, and the stream that never splits a character. */
#include "tests/support/test.h"

#include <string.h>

#include "model/model.h"
#include "model/utf8.h"

static void utf8_every_character_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t bytes[4];
        uint32_t n = qyi_utf8_encode(c, bytes);
        if (c >= 0xd800 && c <= 0xdfff) {
            assert_int_equal(qyi_utf8_valid(bytes, n), 0);
            continue;
        }
        assert_int_equal(qyi_utf8_valid(bytes, n), n);
        assert_int_equal(qyi_utf8_decode(bytes, n), c);
        for (uint32_t cut = 0; cut < n; cut++) {
            assert_int_equal(qyi_utf8_valid(bytes, cut), 0);
        }
    }
}

static void utf8_invalid_bytes_are_refused(void **state)
{
    static const char *const invalid[] = {"\x80",
                                          "\xbf",
                                          "\xc0\x80",
                                          "\xc1\xbf",
                                          "\xe0\x9f\xbf",
                                          "\xf0\x8f\xbf\xbf",
                                          "\xf4\x90\x80\x80",
                                          "\xf5\x80\x80\x80",
                                          "\xff",
                                          "\xe2\x28\xa1",
                                          "\xe2\x82\x28",
                                          "\xf0\x9f\x98\x28"};
    (void)state;
    for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
        assert_int_equal(qyi_utf8_valid((const uint8_t *)invalid[i], strlen(invalid[i])), 0);
    }
}

static void utf8_scan_stops_at_the_first_invalid_byte(void **state)
{
    static const char text[] =
        "plain ascii of some length, \xc3\xa9 \xf0\x9f\x99\x82 then \xff end";
    (void)state;
    size_t at = qyi_utf8_scan((const uint8_t *)text, sizeof(text) - 1);
    assert_int_equal((uint8_t)text[at], 0xff);
    assert_int_equal(qyi_utf8_scan((const uint8_t *)text, at), at);
    assert_int_equal(qyi_utf8_scan((const uint8_t *)"", 0), 0);
}

/* Pushes text in pieces of step bytes; each output must be whole characters (of valid text). */
static void push_in_steps(const char *text, size_t n, size_t step, int valid)
{
    struct qy_utf8_stream stream = {0};
    char all[256];
    size_t total = 0;
    for (size_t at = 0; at < n; at += step) {
        char out[64];
        size_t take = n - at < step ? n - at : step;
        size_t got = qy_utf8_push(&stream, text + at, take, 0, out);
        assert_true(got <= take + 4);
        if (valid) {
            assert_int_equal(qyi_utf8_scan((const uint8_t *)out, got), got);
        }
        memcpy(all + total, out, got);
        total += got;
    }
    char out[8];
    size_t got = qy_utf8_push(&stream, NULL, 0, 1, out);
    memcpy(all + total, out, got);
    total += got;
    assert_int_equal(total, n);
    assert_memory_equal(all, text, n);
    assert_int_equal(stream.n_pending, 0);
}

static void stream_in_any_steps_gives_whole_characters(void **state)
{
    static const char text[] =
        "a\xc3\xa9z\xe4\xb8\xad\xe6\x96\x87\xf0\x9f\x99\x82!\xf0\x9f\x87\xa9";
    (void)state;
    for (size_t step = 1; step <= 20; step++) {
        push_in_steps(text, sizeof(text) - 1, step, 1);
    }
}

static void stream_of_invalid_bytes_passes_them_through(void **state)
{
    static const char text[] =
        "\xff\xfe\xe2\x28\x80\x80\xf0\x9f\x28\xc3\xc3\xa9\xed\xa0\x80\xf4\x90x";
    (void)state;
    for (size_t step = 1; step <= 20; step++) {
        push_in_steps(text, sizeof(text) - 1, step, 0);
    }
}

static void stream_holds_back_only_what_may_become_a_character(void **state)
{
    struct qy_utf8_stream stream = {0};
    char out[16];
    (void)state;
    assert_int_equal(qy_utf8_push(&stream, "ab\xf0\x9f", 4, 0, out), 2);
    assert_int_equal(stream.n_pending, 2);
    assert_int_equal(qy_utf8_push(&stream, "\x99", 1, 0, out), 0);
    assert_int_equal(qy_utf8_push(&stream, "\x82", 1, 0, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x99\x82", 4);
    assert_int_equal(qy_utf8_push(&stream, "\xc0", 1, 0, out), 1);
    assert_int_equal(qy_utf8_push(&stream, "\xe0\x80", 2, 0, out), 2);
    assert_int_equal(qy_utf8_push(&stream, "\xe2", 1, 0, out), 0);
    assert_int_equal(qy_utf8_push(&stream, "!", 1, 0, out), 2);
    assert_memory_equal(out, "\xe2!", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_every_character_round_trips),
        cmocka_unit_test(utf8_invalid_bytes_are_refused),
        cmocka_unit_test(utf8_scan_stops_at_the_first_invalid_byte),
        cmocka_unit_test(stream_in_any_steps_gives_whole_characters),
        cmocka_unit_test(stream_of_invalid_bytes_passes_them_through),
        cmocka_unit_test(stream_holds_back_only_what_may_become_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
