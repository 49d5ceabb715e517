/* SPDX-License-Identifier: Apache-2.0 */
/* Copies between home and a discrete device that fail or stall: what a step loses, and what not. */
#include "tests/unit/offload/tier_rig.h"

#include <string.h>

#include "offload/cache.h"

/* A deadline far above what a busy machine pauses for. */
enum { TIMEOUT_MS = 1000 };

/* Two caches in step; pulls of the second fail or stall now and then. A step that fails says so and
 * leaves nothing behind: done again, it gives the bits of the first cache. */
static void tier_faults_of_a_pull_fail_one_step_only(void **state)
{
    static const enum qy_stream_fault faults[2] = {QY_STREAM_FAULT_ERROR, QY_STREAM_FAULT_STALL};
    static const enum qy_status expected[2] = {QY_ERR_DEVICE, QY_ERR_TIMEOUT};
    float want[TIER_STEP_FLOATS];
    float have[TIER_STEP_FLOATS];
    struct rig_options o = tier_base;
    struct tier_pair pair;
    int failed = 0;
    (void)state;

    o.device = "host-discrete:64M";
    o.device_bytes = tier_least_bytes(&o);
    o.copy_timeout_ms = TIMEOUT_MS;
    o.micro_batches = 2;
    tier_pair_open(&pair, &o, (const uint32_t[2]){250, 200});
    const struct qyi_tier *tier = &pair.bad.cache->tier;
    for (int i = 0; i < 30; i++) {
        const int kind = i / 5 % 2;

        assert_int_equal(tier_try_step(&pair.good, pair.seqs[0], want), QY_OK);
        if (i % 5 == 4) {
            assert_int_equal(qy_stream_inject(tier->in, faults[kind], (uint32_t)i % 2), QY_OK);
        }
        enum qy_status st = tier_try_step(&pair.bad, pair.seqs[1], have);
        if (st != QY_OK) {
            assert_int_equal(st, expected[kind]);
            failed++;
            st = tier_try_step(&pair.bad, pair.seqs[1], have);
        }
        assert_int_equal(st, QY_OK);
        assert_int_equal(qy_stream_inject(tier->in, QY_STREAM_FAULT_NONE, 0), QY_OK);
        assert_true(qyi_residency_sound(tier->residency));
        assert_memory_equal(want, have, sizeof(want));
    }
    assert_true(failed >= 4);
    tier_pair_close(&pair);
}

/* Copies home fail and stall: no token is lost, and in the end every block is home and sealed. */
static void tier_blocks_that_do_not_get_home_are_sent_again(void **state)
{
    float want[TIER_STEP_FLOATS];
    float have[TIER_STEP_FLOATS];
    struct rig_options o = tier_base;
    struct tier_pair pair;
    struct qy_cache_stats stats;
    struct qy_error err = {0};
    (void)state;

    o.device = "host-discrete:64M";
    o.copy_timeout_ms = TIMEOUT_MS;
    tier_pair_open(&pair, &o, (const uint32_t[2]){50, 20});
    for (int i = 0; i < 80; i++) {
        const enum qy_stream_fault fault = i < 40 ? QY_STREAM_FAULT_ERROR : QY_STREAM_FAULT_STALL;

        if (i % 20 == 10) {
            assert_int_equal(qy_stream_inject(pair.bad.cache->tier.out, fault, 0), QY_OK);
        }
        assert_int_equal(tier_try_step(&pair.good, pair.seqs[0], want), QY_OK);
        enum qy_status st = tier_try_step(&pair.bad, pair.seqs[1], have);
        if (st != QY_OK) { /* no device block was free, and the way home was blocked */
            st = tier_try_step(&pair.bad, pair.seqs[1], have);
        }
        assert_int_equal(st, QY_OK);
        assert_memory_equal(want, have, sizeof(want));
    }
    qy_cache_stats(pair.bad.cache, &stats);
    assert_true(stats.copy_failures >= 3);
    for (int i = 0; i < 2; i++) {
        struct qy_sequence *seq = pair.seqs[1][i];

        assert_int_equal(qyi_tier_settle(seq, 1), QY_OK);
        assert_int_equal(seq->n_sealed, qy_sequence_tokens(seq) / 16);
        if (qy_sequence_verify(seq, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    tier_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tier_faults_of_a_pull_fail_one_step_only),
        cmocka_unit_test(tier_blocks_that_do_not_get_home_are_sent_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
