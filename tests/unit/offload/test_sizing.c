/* SPDX-License-Identifier: Apache-2.0 */
/* How many blocks a cache gets, and what is refused, with which numbers. */
#include "tests/support/test.h"

#include "offload/sizing.h"

#include <string.h>

#define MIB ((uint64_t)1 << 20)

/* Blocks of 16 tokens and exactly 1 MiB. */
static struct qyi_layout layout_of_mib(void)
{
    return (struct qyi_layout){.block_tokens = 16, .shift = 4, .block_bytes = MIB};
}

static void sizing_reserves_what_the_request_needs(void **state)
{
    static const struct {
        struct qyi_sizing want;
        uint32_t blocks;
    } cases[] = {
        {{.max_sequences = 1, .max_tokens = 160, .usable_bytes = 64 * MIB}, 10},
        {{.max_sequences = 3, .max_tokens = 161, .usable_bytes = 64 * MIB}, 33},
        /* the total, and one partly filled block for each sequence */
        {{.max_sequences = 4, .max_tokens = 160, .total_tokens = 200, .usable_bytes = 64 * MIB},
         17},
        {{.max_sequences = 2, .max_tokens = 32, .total_tokens = 63, .usable_bytes = 64 * MIB}, 4},
        {{.max_sequences = 2, .max_tokens = 32, .total_tokens = 9999, .usable_bytes = 64 * MIB}, 4},
        /* given: as many as fit, never more than can be used */
        {{.max_sequences = 4,
          .max_tokens = 160,
          .host_bytes = 12 * MIB + 5,
          .usable_bytes = 64 * MIB},
         12},
        {{.max_sequences = 1,
          .max_tokens = 160,
          .host_bytes = (uint64_t)1 << 50,
          .usable_bytes = 64 * MIB},
         10},
    };
    const struct qyi_layout layout = layout_of_mib();
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t n = 0;

        assert_int_equal(qyi_size_pool(&layout, &cases[i].want, &n, NULL), QY_OK);
        assert_int_equal(n, cases[i].blocks);
    }
}

static void sizing_refuses_with_needed_and_given(void **state)
{
    static const struct {
        struct qyi_sizing want;
        const char *texts[3];
    } cases[] = {
        {{.max_sequences = 2, .max_tokens = 160, .usable_bytes = 19 * MIB},
         {"needs 20.0 MiB of KV for 320 tokens", "19.0 MiB of memory is usable", "--ctx"}},
        {{.max_sequences = 2, .max_tokens = 160, .usable_bytes = 20 * MIB, .fixed_bytes = 1},
         {"needs 20.0 MiB of KV", "20.0 MiB of memory is usable", "cache.host_bytes"}},
        {{.max_sequences = 2, .max_tokens = 160, .host_bytes = 9 * MIB, .usable_bytes = 64 * MIB},
         {"cache.host_bytes '9.0 MiB'", "160 tokens needs 10.0 MiB", "raise cache.host_bytes"}},
        {{.max_sequences = 2, .max_tokens = 160, .host_bytes = 18 * MIB, .usable_bytes = 17 * MIB},
         {"cache.host_bytes '18.0 MiB'", "17.0 MiB of memory is usable", "lower"}},
        {{.max_sequences = UINT32_MAX, .max_tokens = UINT32_MAX, .usable_bytes = UINT64_MAX >> 2},
         {"needs", "usable", "--ctx"}},
    };
    const struct qyi_layout layout = layout_of_mib();
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_error err = {0};
        uint32_t n = 77;

        assert_int_equal(qyi_size_pool(&layout, &cases[i].want, &n, &err), QY_ERR_NOMEM);
        assert_int_equal(n, 77);
        for (int j = 0; j < 3; j++) {
            assert_non_null(strstr(err.text, cases[i].texts[j]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizing_reserves_what_the_request_needs),
        cmocka_unit_test(sizing_refuses_with_needed_and_given),
    };
    return cmocka_run_group_tests_name("offload.sizing", tests, NULL, NULL);
}
