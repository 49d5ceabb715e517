/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes as text and the nearest word. */
#include "runtime/config_internal.h"
#include "tests/support/test.h"

#include <string.h>

static void parse_size_takes_units_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"64K", 65536},
        {"64k", 65536},
        {"3M", 3 << 20},
        {"2G", (uint64_t)2 << 30},
        {"5T", (uint64_t)5 << 40},
        {"1.5G", (uint64_t)3 << 29},
        {"0.25K", 256},
        {"18446744073709551615", UINT64_MAX},
        {"16777215T", (uint64_t)16777215 << 40},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 77;

        assert_int_equal(qy_parse_size(cases[i].text, &bytes), 0);
        assert_true(bytes == cases[i].bytes);
    }
}

static void parse_size_refuses_what_is_none(void **state)
{
    static const char *const bad[] = {
        "",          "K",         "-1",     " 1",   "1 ",
        "1KK",       "1P",        "1.5",    "1.K",  ".5K",
        "0x10",      "1e3",       "1.2.3K", "1KiB", "18446744073709551616",
        "16777216T", "1.0000000K"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t bytes = 77;

        if (qy_parse_size(bad[i], &bytes) != -1) {
            fail_msg("took '%s'", bad[i]);
        }
        assert_true(bytes == 77);
    }
}

static void format_size_names_the_unit(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 bytes"},
        {1023, "1023 bytes"},
        {1024, "1.0 KiB"},
        {6291456, "6.0 MiB"},
        {(uint64_t)3 << 29, "1.5 GiB"},
        {(uint64_t)7 << 40, "7.0 TiB"},
        {UINT64_MAX, "16777216.0 TiB"},
    };
    char text[32], tiny[4];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_ptr_equal(qy_format_size(cases[i].bytes, text, sizeof(text)), text);
        assert_string_equal(text, cases[i].text);
    }
    qy_format_size(6291456, tiny, sizeof(tiny));
    assert_string_equal(tiny, "6.0");
}

static void edit_distance_counts_edits(void **state)
{
    char big[QYI_NAME_BYTES + 2];

    (void)state;
    assert_int_equal(qyi_edit_distance("", ""), 0);
    assert_int_equal(qyi_edit_distance("abc", ""), 3);
    assert_int_equal(qyi_edit_distance("", "abc"), 3);
    assert_int_equal(qyi_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(qyi_edit_distance("sitting", "kitten"), 3);
    assert_int_equal(qyi_edit_distance("blok", "block"), 1);
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    assert_true(qyi_edit_distance(big, "a") == SIZE_MAX);
    assert_true(qyi_edit_distance("a", big) == SIZE_MAX);
    big[QYI_NAME_BYTES] = '\0';
    assert_int_equal(qyi_edit_distance(big, big), 0);
}

static void nearest_gives_the_closest_or_none(void **state)
{
    static const char *const words[] = {"dense", "window", "exact"};

    (void)state;
    assert_string_equal(qy_nearest("exakt", words, 3), "exact");
    assert_string_equal(qy_nearest("windows", words, 3), "window");
    assert_string_equal(qy_nearest("dense", words, 3), "dense");
    assert_null(qy_nearest("policy", words, 3));
    assert_null(qy_nearest("exact", words, 0));
}

static void trim_cuts_white_space_and_keeps_to_the_room(void **state)
{
    char out[5];

    (void)state;
    assert_int_equal(qyi_trim("  ab\t\r\n", 7, out, sizeof(out)), 1);
    assert_string_equal(out, "ab");
    assert_int_equal(qyi_trim(" abcd ", 6, out, sizeof(out)), 1);
    assert_string_equal(out, "abcd");
    assert_int_equal(qyi_trim("abcde", 5, out, sizeof(out)), 0);
    assert_int_equal(qyi_trim("   ", 3, out, sizeof(out)), 1);
    assert_string_equal(out, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_size_takes_units_of_1024),
        cmocka_unit_test(parse_size_refuses_what_is_none),
        cmocka_unit_test(format_size_names_the_unit),
        cmocka_unit_test(edit_distance_counts_edits),
        cmocka_unit_test(nearest_gives_the_closest_or_none),
        cmocka_unit_test(trim_cuts_white_space_and_keeps_to_the_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
