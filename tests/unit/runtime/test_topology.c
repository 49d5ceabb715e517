/* SPDX-License-Identifier: Apache-2.0 */
/* Placement on made-up machines, where every answer is known, and binding on this one. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>

static struct qy_topology *open_topology(const char *source)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_topology *topology = NULL;
    struct qy_error err;

    assert_int_equal(qy_topology_open(&mem, source, &topology, &err), QY_OK);
    return topology;
}

static void check_places(const char *source, enum qy_bind bind, uint32_t n,
                         const struct qy_place *want)
{
    struct qy_topology *topology = open_topology(source);
    struct qy_place places[64];

    assert_true(n <= 64);
    qy_topology_place(topology, n, bind, places);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(places[i].pu, want[i].pu);
        assert_int_equal(places[i].node, want[i].node);
    }
    qy_topology_close(topology);
}

static void check_machine(const char *source, struct qy_machine want)
{
    struct qy_topology *topology = open_topology(source);
    struct qy_machine machine;

    qy_topology_describe(topology, &machine);
    assert_int_equal(machine.packages, want.packages);
    assert_int_equal(machine.nodes, want.nodes);
    assert_int_equal(machine.cores, want.cores);
    assert_int_equal(machine.pus, want.pus);
    qy_topology_close(topology);
}

/* 2 packages, 2 nodes each, 2 cores each, 2 threads each: processor = 4 node + 2 core + thread. */
static const char two_by_two[] = "synthetic:pack:2 group:2 [numa] core:2 pu:2";

static void topology_describes_made_up_machines(void **state)
{
    (void)state;
    check_machine(two_by_two, (struct qy_machine){2, 4, 8, 16});
    check_machine("synthetic:pack:1 [numa] core:1 pu:1", (struct qy_machine){1, 1, 1, 1});
    check_machine("synthetic:pack:2 [numa] core:4 pu:2", (struct qy_machine){2, 2, 8, 16});
}

static void place_fills_cores_node_by_node_before_smt(void **state)
{
    const struct qy_place want[17] = {
        {0, 0}, {2, 0},  {4, 1},  {6, 1},
        {8, 2}, {10, 2}, {12, 3}, {14, 3}, /* every core has a thread: now the second ones */
        {1, 0}, {3, 0},  {5, 1},  {7, 1},
        {9, 2}, {11, 2}, {13, 3}, {15, 3}, /* every processor has one: round again */
        {0, 0},
    };

    (void)state;
    check_places(two_by_two, QY_BIND_CORE, 17, want);
}

static void place_without_smt_uses_each_core(void **state)
{
    const struct qy_place want[5] = {{0, 0}, {1, 0}, {2, 1}, {3, 1}, {0, 0}};

    (void)state;
    check_places("synthetic:pack:2 [numa] core:2 pu:1", QY_BIND_CORE, 5, want);
}

static void place_on_one_core_wraps_round(void **state)
{
    const struct qy_place want[3] = {{0, 0}, {0, 0}, {0, 0}};

    (void)state;
    check_places("synthetic:pack:1 [numa] core:1 pu:1", QY_BIND_CORE, 3, want);
}

static void place_by_node_names_no_processor(void **state)
{
    const struct qy_place want[9] = {{-1, 0}, {-1, 0}, {-1, 1}, {-1, 1}, {-1, 2},
                                     {-1, 2}, {-1, 3}, {-1, 3}, {-1, 0}};

    (void)state;
    check_places(two_by_two, QY_BIND_NUMA, 9, want);
}

static void place_unbound_names_nothing(void **state)
{
    const struct qy_place want[3] = {{-1, -1}, {-1, -1}, {-1, -1}};

    (void)state;
    check_places(two_by_two, QY_BIND_NONE, 3, want);
}

/* Two nodes on the same cores (as with memory on the package) must not give a core out twice. */
static void place_with_two_nodes_per_package_uses_each_core_once(void **state)
{
    const struct qy_place want[5] = {{0, 0}, {1, 0}, {2, 2}, {3, 2}, {0, 0}};

    (void)state;
    check_places("synthetic:pack:2 [numa] [numa] core:2 pu:1", QY_BIND_CORE, 5, want);
}

/* The file numbers processors as Linux does on x86: the second threads after all first ones. */
static void place_from_xml_follows_the_machines_numbers(void **state)
{
    const char xml[] = "xml:tests/data/topology_smt.xml";
    const struct qy_place want[9] = {{0, 0}, {1, 0}, {2, 1}, {3, 1}, {4, 0},
                                     {5, 0}, {6, 1}, {7, 1}, {0, 0}};

    (void)state;
    check_machine(xml, (struct qy_machine){2, 2, 4, 8});
    check_places(xml, QY_BIND_CORE, 9, want);
}

static void topology_bad_source_is_refused(void **state)
{
    const char *const bad[] = {"nonsense", "synthetic:pack:x", "xml:/no/such/file.xml", ""};
    struct fail_alloc f = {.fail_at = -1};
    struct qy_allocator mem = fail_alloc_make(&f);
    struct qy_topology *topology = NULL;
    struct qy_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(qy_topology_open(&mem, bad[i], &topology, &err), QY_ERR_INVALID);
        assert_null(topology);
        assert_int_equal(f.live, 0);
    }
    qy_topology_close(NULL);
}

static void topology_made_up_binds_nothing(void **state)
{
    struct qy_topology *topology = open_topology(two_by_two);
    struct qy_place place = {.pu = 0, .node = 0};
    struct qy_place nowhere = {.pu = -1, .node = -1};
    char page[64];

    (void)state;
    assert_int_equal(qy_topology_bind_thread(topology, &place), QY_ERR_UNSUPPORTED);
    assert_int_equal(qy_topology_bind_thread(topology, &nowhere), QY_OK);
    assert_int_equal(qy_topology_bind_memory(topology, page, sizeof(page), 0), QY_ERR_UNSUPPORTED);
    assert_int_equal(qy_topology_bind_memory(topology, page, sizeof(page), 77), QY_ERR_NOT_FOUND);
    qy_topology_close(topology);
}

static void describe_this_machine(struct qy_machine *machine)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_topology *topology;

    if (qy_topology_open(&mem, NULL, &topology, NULL) == QY_OK) {
        qy_topology_describe(topology, machine);
        qy_topology_close(topology);
    }
}

static void topology_counts_only_processors_of_the_process(void **state)
{
    struct qy_machine machine = {0};
    cpu_set_t before, one;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    describe_this_machine(&machine);
    assert_int_equal(machine.pus, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    if (sched_setaffinity(0, sizeof(one), &one) != 0) {
        skip();
    }
    describe_this_machine(&machine);
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(machine.pus, 1);
    assert_int_equal(machine.cores, 1);
    assert_int_equal(machine.nodes, 1);
}

static void topology_binds_memory_of_this_machine(void **state)
{
    struct qy_topology *topology = open_topology(NULL);
    struct qy_place place;
    void *pages = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    enum qy_status st;

    (void)state;
    assert_true(pages != MAP_FAILED);
    qy_topology_place(topology, 1, QY_BIND_CORE, &place);
    assert_true(place.pu >= 0);
    st = qy_topology_bind_memory(topology, pages, 1 << 16, place.node);
    assert_true(st == QY_OK || st == QY_ERR_UNSUPPORTED); /* a container may refuse */
    memset(pages, 1, 1 << 16);
    munmap(pages, 1 << 16);
    qy_topology_close(topology);
}

static void topology_open_survives_each_failing_allocation(void **state)
{
    long n = 0;

    (void)state;
    for (;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_topology *topology = NULL;

        if (qy_topology_open(&mem, two_by_two, &topology, NULL) == QY_OK) {
            qy_topology_close(topology);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_null(topology);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topology_describes_made_up_machines),
        cmocka_unit_test(place_fills_cores_node_by_node_before_smt),
        cmocka_unit_test(place_without_smt_uses_each_core),
        cmocka_unit_test(place_on_one_core_wraps_round),
        cmocka_unit_test(place_by_node_names_no_processor),
        cmocka_unit_test(place_unbound_names_nothing),
        cmocka_unit_test(place_with_two_nodes_per_package_uses_each_core_once),
        cmocka_unit_test(place_from_xml_follows_the_machines_numbers),
        cmocka_unit_test(topology_bad_source_is_refused),
        cmocka_unit_test(topology_made_up_binds_nothing),
        cmocka_unit_test(topology_counts_only_processors_of_the_process),
        cmocka_unit_test(topology_binds_memory_of_this_machine),
        cmocka_unit_test(topology_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
