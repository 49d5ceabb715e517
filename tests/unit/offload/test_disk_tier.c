/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host pool of a few blocks over a disk: the bits of a cache that has memory for all of it, in
 * prefill, single tokens, cuts, copies and random rows.
 */
#include "tests/unit/offload/rig_disk.h"
#include "tests/unit/offload/tier_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cache.h"
#include "tests/support/fail_alloc.h"

static void expect_same(const struct rig_options *options, const char *what, float bound)
{
    float *want = malloc(RIG_DISK_FLOATS * sizeof(float));
    float *have = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig_options o = rig_on_disk(options);
    struct rig rig;

    assert_true(want && have);
    rig_disk_reference(options, want);
    for (int i = 0; i < 3; i++) {
        struct qy_cache_stats stats;

        o.micro_batches = (uint32_t)i + 1;
        o.disk_engine = i == 1 ? QYI_DISK_THREADS : QYI_DISK_AUTO;
        rig_open(&rig, &o);
        if (i == 2) { /* the least staging: rounds */
            for (int m = 0; m < QY_MICRO_BATCHES; m++) {
                rig.cache->far.rows[m].reads.bytes =
                    rig.cache->layout.slab_bytes + (size_t)2 * QYI_DISK_PAGE;
            }
        }
        assert_int_equal(rig_disk_run(&rig, have), RIG_DISK_FLOATS);
        qy_cache_stats(rig.cache, &stats);
        assert_true(stats.disk_writes > 0 && stats.disk_reads > 0 && stats.disk_bytes > 0);
        assert_int_equal(stats.disk_failures, 0);
        assert_true(stats.host_bytes <= o.host_bytes);
        rig_expect_disk_sound(rig.cache);
        rig_close(&rig);
        for (size_t f = 0; f < RIG_DISK_FLOATS; f++) {
            if (bound > 0.0F ? !(fabsf(want[f] - have[f]) < bound)
                             : memcmp(&want[f], &have[f], sizeof(float)) != 0) {
                fail_msg("%s, run %d: float %zu is %g, in memory %g", what, i, f, (double)have[f],
                         (double)want[f]);
            }
        }
    }
    free(want);
    free(have);
}

static void disk_tier_gives_the_bits_of_memory(void **state)
{
    static const char *const policies[] = {"quest", "dense", "window"};
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct rig_options o = rig_disk_base;

        o.policy = policies[i];
        expect_same(&o, policies[i], 0.0F);
    }
}

static void disk_tier_slabs_that_are_no_pages(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.policy = "window";
    o.block_tokens = 8; /* half a page a slab */
    o.window = 20;
    expect_same(&o, "blocks of 8", 0.0F);
    o = rig_disk_base;
    o.f16 = 0; /* two pages */
    expect_same(&o, "f32 rows", 0.0F);
    o.policy = "dense";
    expect_same(&o, "f32 rows, dense", 0.0F);
}

static void disk_tier_rows_may_be_coded(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.home_codec = "4bit+0:8bit";
    o.deterministic = 1;
    expect_same(&o, "coded rows", 0.0F);
    o.policy = "dense";
    expect_same(&o, "coded rows, dense", 0.0F);
}

static void disk_tier_rows_on_disk_are_not_pushed(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.plan = QY_PLAN_PUSH;
    expect_same(&o, "push", 2e-5F);
}

static void expect_refused(struct rig_options o, const char *words)
{
    struct qy_error err = {0};
    struct rig rig;

    rig_prepare(&rig, &o);
    rig.params.settings.disk_bytes = o.disk_bytes;
    assert_int_not_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_OK);
    if (!strstr(err.text, words)) {
        fail_msg("'%s' is not in: %s", words, err.text);
    }
    rig.cache = NULL;
    rig_close(&rig);
}

static void disk_tier_says_what_it_refuses(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.disk_bytes = 1 << 20;
    expect_refused(o, "shares the host's memory");
    o = rig_on_disk(&rig_disk_base);
    o.policy = "exact";
    expect_refused(o, "policy 'exact' reads keys or values");
    o.policy = "quest";
    o.disk_bytes = 100;
    expect_refused(o, "at least 2");
    o.disk_bytes = 1 << 20;
    o.host_bytes -= 2 * (o.host_bytes / RIG_DISK_FRAMES);
    expect_refused(o, "cache.host_bytes");
}

static void disk_tier_open_survives_every_failed_allocation(void **state)
{
    const struct rig_options o = rig_on_disk(&rig_disk_base);
    (void)state;

    for (long n = 0;; n++) {
        struct fail_alloc fail = {.fail_at = n};
        struct rig rig;

        rig_prepare(&rig, &o);
        const struct qy_allocator before = rig.rt.mem;
        rig.rt.mem = fail_alloc_make(&fail);
        const enum qy_status st = qy_cache_open(&rig.params, &rig.cache, NULL);
        if (st == QY_OK) {
            qy_cache_close(rig.cache);
        }
        rig.cache = NULL;
        assert_int_equal(fail.live, 0);
        rig.rt.mem = before;
        rig_close(&rig);
        if (fail.calls <= n) {
            assert_int_equal(st, QY_OK);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_tier_gives_the_bits_of_memory),
        cmocka_unit_test(disk_tier_slabs_that_are_no_pages),
        cmocka_unit_test(disk_tier_rows_may_be_coded),
        cmocka_unit_test(disk_tier_rows_on_disk_are_not_pushed),
        cmocka_unit_test(disk_tier_says_what_it_refuses),
        cmocka_unit_test(disk_tier_open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
