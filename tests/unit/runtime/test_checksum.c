/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3 against values of the reference library, and the monotonic clock. */
#include "runtime/runtime.h"
#include "tests/support/test.h"

#include <time.h>

static void checksum_equals_the_reference_library(void **state)
{
    uint8_t ramp[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(ramp); i++) {
        ramp[i] = (uint8_t)i;
    }
    assert_true(qy_checksum("", 0, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(qy_checksum("quarry", 6, 0) == UINT64_C(0x7ad60bec274371b3));
    assert_true(qy_checksum("quarry", 6, 7) == UINT64_C(0x6e8c701fcdf89585));
    assert_true(qy_checksum(ramp, sizeof(ramp), 1) == UINT64_C(0xc74822a5f349cef8));
}

/* Long runs go through vectors of what the processor has. */
static void checksum_of_long_runs_equals_the_reference_library(void **state)
{
    static uint8_t room[70000];

    (void)state;
    for (size_t i = 0; i < sizeof(room); i++) {
        room[i] = (uint8_t)(i * 31 + (i >> 8));
    }
    assert_true(qy_checksum(room + 1, 240, 9) == UINT64_C(0xc131041641934306));
    assert_true(qy_checksum(room + 1, 241, 9) == UINT64_C(0x02f2d657445f0a21));
    assert_true(qy_checksum(room + 1, 4109, 9) == UINT64_C(0x4a2e29b7b0d0580f));
    assert_true(qy_checksum(room + 1, 65536, 9) == UINT64_C(0x2497dd413f966150));
}

static void checksum_does_not_depend_on_alignment(void **state)
{
    _Alignas(64) uint8_t room[400];

    (void)state;
    for (size_t i = 0; i < sizeof(room); i++) {
        room[i] = (uint8_t)(i % 7);
    }
    /* the content repeats every 7 bytes, so both ranges hold the same bytes */
    assert_true(qy_checksum(room, 300, 3) == qy_checksum(room + 7, 300, 3));
    assert_true(qy_checksum(room, 300, 3) != qy_checksum(room + 1, 300, 3));
}

static void clock_counts_nanoseconds_forward(void **state)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 2000000};
    uint64_t begin = qy_clock_ns(), end;

    (void)state;
    nanosleep(&pause, NULL);
    end = qy_clock_ns();
    assert_true(end - begin >= 2000000);
    assert_true(end - begin < UINT64_C(60000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum_equals_the_reference_library),
        cmocka_unit_test(checksum_of_long_runs_equals_the_reference_library),
        cmocka_unit_test(checksum_does_not_depend_on_alignment),
        cmocka_unit_test(clock_counts_nanoseconds_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
