/* SPDX-License-Identifier: Apache-2.0 */
/* The trial of what pulling and pushing costs: magnitudes only, as others use the machine too. */
#include "tests/support/test.h"

#include <math.h>
#include <string.h>

#include "offload/tier/link_cost.h"
#include "tests/support/fail_alloc.h"

struct bed {
    struct qy_runtime rt;
    struct qy_device *dev;
};

static const struct qyi_link_shape f16_64 = {.row_type = QY_ROW_F16, .d = 64, .group = 3};

static void bed_open(struct bed *bed, const char *spec, struct qy_link link)
{
    const struct qy_device_params params = {.spec = spec, .max_m = 1, .link = link};

    *bed = (struct bed){.rt = {.mem = qy_allocator_system()}};
    qy_cpu_detect(&bed->rt.cpu);
    assert_int_equal(qy_device_open(&bed->rt, &params, &bed->dev, NULL), QY_OK);
}

static struct qyi_plan_costs measure(const char *spec, struct qy_link link,
                                     const struct qyi_link_shape *shape)
{
    struct qyi_plan_costs costs = {.reuse = 3.0, .shared_threads = 1};
    struct qy_error err = {QY_OK, ""};
    struct qy_device_memory memory;
    struct bed bed;

    bed_open(&bed, spec, link);
    const uint64_t begin = qy_clock_ns();
    assert_int_equal(qyi_link_cost_measure(&bed.rt.mem, bed.dev, shape, &costs, &err), QY_OK);
    const double ms = (double)(qy_clock_ns() - begin) * 1e-6;
    qy_device_memory(bed.dev, &memory);
    assert_int_equal(memory.used, 0);
    assert_true(memory.peak <= 4 << 20);
    qy_device_close(bed.dev);
    print_message("%s: %.1f ms: byte %.3f row %.1f copy %.0f, push %.0f + %.1f, pull %.1f ns\n",
                  spec, ms, costs.link_byte_ns, costs.link_row_ns, costs.link_copy_ns,
                  costs.push_ns, costs.push_row_ns, costs.pull_row_ns);
    assert_true(costs.reuse == 3.0 && costs.shared_threads == 1);
    return costs;
}

/* What a trial of some milliseconds finds on a machine that does something else beside it may be far
 * off; it must be a cost. */
static void assert_sane(const struct qyi_plan_costs *c)
{
    const double costs[] = {c->link_byte_ns, c->link_row_ns, c->link_copy_ns,
                            c->push_ns,      c->push_row_ns, c->pull_row_ns};

    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
        assert_true(costs[i] >= 0.0 && costs[i] < 1e9);
    }
}

static void costs_are_positive_and_finite(void **state)
{
    static const struct qy_row_codec codec = {.k_bits = 8, .v_bits = 4, .group = 32, .d = 96};
    static const struct qyi_link_shape shapes[] = {{QY_ROW_F16, 64, 3, NULL},
                                                   {QY_ROW_F32, 256, 8, NULL},
                                                   {QY_ROW_F16, 80, 1, NULL},
                                                   {QY_ROW_F32, 6, 64, NULL},
                                                   {QY_ROW_F16, 96, 2, &codec}};
    (void)state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct qyi_plan_costs costs =
            measure("host-discrete:64M", (struct qy_link){0}, &shapes[i]);
        assert_sane(&costs);
    }
    const struct qyi_plan_costs costs = measure("host", (struct qy_link){0}, &f16_64);
    assert_sane(&costs);
}

static void command_of_a_slow_link_takes_its_time(void **state)
{
    (void)state;
    const struct qyi_plan_costs costs =
        measure("host-discrete:64M", (struct qy_link){.gbps = 4.0, .copy_ns = 2000000}, &f16_64);

    assert_sane(&costs);
    assert_true(costs.link_copy_ns > 1e6); /* of 2e6, which no command can be faster than */
}

static void failure_leaves_costs_and_memory_alone(void **state)
{
    const struct qyi_plan_costs before = {.link_byte_ns = 5.0, .push_ns = 7.0};
    struct qy_error err = {QY_OK, ""};
    struct bed bed;
    (void)state;

    bed_open(&bed, "host-discrete:64M", (struct qy_link){0});
    for (long n = 0;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qyi_plan_costs costs = before;
        const enum qy_status st = qyi_link_cost_measure(&mem, bed.dev, &f16_64, &costs, &err);

        assert_int_equal(f.live, 0);
        if (st == QY_OK) {
            assert_true(n > 3);
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
        assert_memory_equal(&costs, &before, sizeof(costs));
    }
    const struct qyi_link_shape odd = {.row_type = QY_ROW_F16, .d = 63, .group = 3};
    struct qyi_plan_costs costs = before;
    assert_int_equal(qyi_link_cost_measure(&bed.rt.mem, bed.dev, &odd, &costs, &err),
                     QY_ERR_INVALID);
    assert_memory_equal(&costs, &before, sizeof(costs));
    qy_device_close(bed.dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_positive_and_finite),
        cmocka_unit_test(command_of_a_slow_link_takes_its_time),
        cmocka_unit_test(failure_leaves_costs_and_memory_alone),
    };

    return cmocka_run_group_tests_name("unit.offload.link_cost", tests, NULL, NULL);
}
