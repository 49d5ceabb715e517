/* SPDX-License-Identifier: Apache-2.0 */
/* qy_cache_open when the n-th allocation fails: a status with a text, and nothing leaked. */
#include "tests/unit/offload/probe.h"
#include "tests/unit/offload/rig_servers.h"

#include "tests/support/fail_alloc.h"

#include <string.h>

static void survive_every_failing_allocation(const struct rig_options *options)
{
    struct rig rig;
    long n = 0;
    enum qy_status st = QY_ERR_NOMEM;

    rig_prepare(&rig, options);
    const struct qy_allocator system = rig.rt.mem;
    for (; st != QY_OK; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_error err = {0};

        assert_true(n < 200);
        rig.rt.mem = fail_alloc_make(&f);
        st = qy_cache_open(&rig.params, &rig.cache, &err);
        if (st == QY_OK) {
            assert_int_equal(rig_sequence(&rig) != NULL, 1);
            qy_cache_close(rig.cache);
            rig.cache = NULL;
        } else {
            assert_int_equal(st, QY_ERR_NOMEM);
            assert_int_equal(err.status, QY_ERR_NOMEM);
            assert_true(strlen(err.text) > 0);
            assert_null(rig.cache);
        }
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 5);
    rig.rt.mem = system;
    rig_close(&rig);
}

static void open_survives_every_failing_allocation(void **state)
{
    static const char *const policies[] = {"dense", "window", "exact", "quest"};
    struct qy_retrieval_settings settings = probe_settings();
    struct qy_policy_ops ops = probe_ops();
    (void)state;

    settings.audit_rate = 0.5;
    ops.caps.partial = 1;
    for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
        survive_every_failing_allocation(
            &(struct rig_options){.policy = policies[i], .budget = "0.1"});
    }
    survive_every_failing_allocation(
        &(struct rig_options){.ops = &ops, .budget = "0.1", .retrieval = &settings});
    survive_every_failing_allocation(&(struct rig_options){.policy = "exact",
                                                           .budget = "0.1",
                                                           .f16 = 1,
                                                           .device = "host-discrete:64M",
                                                           .plan = QY_PLAN_PUSH,
                                                           .home_codec = "4bit+1:f16"});
}

/* With the trial of what pushes to servers cost. */
static void open_on_servers_survives_every_failing_allocation(void **state)
{
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    (void)state;

    o.plan = QY_PLAN_AUTO;
    rig_servers_open(&servers, 2, 1, 8 << 20);
    o = rig_on_servers(&o, &servers);
    survive_every_failing_allocation(&o);
    rig_servers_close(&servers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_survives_every_failing_allocation),
        cmocka_unit_test(open_on_servers_survives_every_failing_allocation),
    };
    return cmocka_run_group_tests_name("fault.offload.open", tests, NULL, NULL);
}
