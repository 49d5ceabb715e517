/* SPDX-License-Identifier: Apache-2.0 */
/* What the device tier takes: of a device without a size of its own, and under cache.index_bytes. */
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

#include <string.h>

/* Four times the slots of the least, and the least of all else. */
static void device_without_a_size_takes_a_bounded_one(void **state)
{
    static const char *const policies[] = {"exact", "quest", "dense"};
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct rig_options o = tier_base;
        struct qyi_tier_plan least;
        struct qy_cache_stats stats;
        struct rig rig;

        o.policy = policies[i];
        o.device = "host-discrete:64M";
        o.device_bytes = tier_least_bytes(&o);
        rig_open(&rig, &o);
        least = rig.cache->tier.plan;
        rig_close(&rig);
        o.device = "host-discrete:auto";
        o.device_bytes = 0;
        rig_open(&rig, &o);
        const struct qyi_tier_plan *plan = &rig.cache->tier.plan;
        qy_cache_stats(rig.cache, &stats);
        assert_true(stats.device_reserved_bytes > 0);
        assert_int_equal(plan->block_bytes, least.block_bytes);
        assert_int_equal(plan->index_bytes, least.index_bytes);
        assert_true(plan->slots_per_set <= 4 * least.slots_per_set);
        if (least.slots_per_set > 0) {
            assert_true(plan->slots_per_set > 3 * least.slots_per_set);
        }
        rig_close(&rig);
    }
}

static void refused(struct rig *rig, enum qy_status status, const char *words)
{
    struct qy_error err = {0};

    assert_int_equal(qy_cache_open(&rig->params, &rig->cache, &err), status);
    if (!strstr(err.text, words)) {
        fail_msg("'%s' is not in: %s", words, err.text);
    }
    rig->cache = NULL;
}

/* Index and map stay under what they were given, or the cache is not opened. */
static void index_and_map_stay_under_their_bytes(void **state)
{
    struct rig_options o = tier_base;
    struct rig rig;
    (void)state;

    o.policy = "quest";
    o.device = "host-discrete:64M";
    rig_prepare(&rig, &o);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    const struct qyi_tier_plan free_plan = rig.cache->tier.plan;
    const uint64_t taken = free_plan.index_bytes + free_plan.map_bytes;
    qy_cache_close(rig.cache);
    assert_true(free_plan.index_bytes > 0 && free_plan.map_bytes > 0);

    rig.params.settings.index_bytes = taken;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    assert_int_equal(rig.cache->tier.plan.slots_per_set, free_plan.slots_per_set);
    qy_cache_close(rig.cache);

    rig.params.settings.index_bytes = taken - 1; /* fewer slots */
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    const struct qyi_tier_plan *plan = &rig.cache->tier.plan;
    assert_true(plan->index_bytes + plan->map_bytes < taken);
    assert_true(plan->slots_per_set < free_plan.slots_per_set);
    qy_cache_close(rig.cache);
    rig.cache = NULL;

    rig.params.settings.index_bytes = free_plan.index_bytes;
    refused(&rig, QY_ERR_NOMEM, "the index of policy 'quest' takes");
    rig_close(&rig);

    o.device = "host";
    rig_prepare(&rig, &o);
    rig.params.settings.index_bytes = 1;
    refused(&rig, QY_ERR_NOMEM, "cache.index_bytes '1 bytes'");
    rig.params.policy = qy_policy_find("pq");
    refused(&rig, QY_ERR_CONFIG, "policy 'pq' learns its index");
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_without_a_size_takes_a_bounded_one),
        cmocka_unit_test(index_and_map_stay_under_their_bytes),
    };
    return cmocka_run_group_tests_name("unit.offload.tier_size", tests, NULL, NULL);
}
