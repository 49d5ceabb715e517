/* SPDX-License-Identifier: Apache-2.0 */
/* Memory limits read from made-up machines (a file tree in a temporary folder) and from this one.
 */
#include "runtime/memory_info.h"
#include "tests/support/test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const uint64_t mib = 1 << 20;

static int setup(void **state)
{
    char root[] = P_tmpdir "/qy_test_memory_XXXXXX";

    assert_non_null(mkdtemp(root));
    *state = strdup(root);
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    nftw(*state, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return 0;
}

/* Writes a file of the tree and the folders above it. */
static void put(const char *root, const char *name, const char *text)
{
    char path[512];
    size_t n = (size_t)snprintf(path, sizeof(path), "%s%s", root, name);
    FILE *file;

    assert_true(n < sizeof(path));
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(path, 0700);
        *p = '/';
    }
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void put_meminfo(const char *root)
{
    put(root, "/proc/meminfo",
        "MemTotal:       8388608 kB\nMemFree:        1024 kB\nMemAvailable:   4194304 kB\n");
}

static void memory_without_cgroup_is_the_machines(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    qyi_memory_read_from(*state, &info);
    assert_true(info.total == 8192 * mib);
    assert_true(info.available == 4096 * mib);
    assert_true(info.limit == UINT64_MAX);
    assert_true(info.limit_used == 0);
    assert_true(info.usable == 4096 * mib);
    assert_true(info.huge_page_bytes == 0);
}

static void memory_v2_limit_leaves_out_the_page_cache(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup", "0::/job/step\n");
    put(*state, "/sys/fs/cgroup/job/step/memory.max", "2147483648\n");
    put(*state, "/sys/fs/cgroup/job/step/memory.current", "1073741824\n");
    put(*state, "/sys/fs/cgroup/job/step/memory.stat",
        "anon 1\nfile 99999999999\ninactive_file 268435456\nactive_file 268435456\n"
        "active_file_other 5\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.limit == 2048 * mib);
    assert_true(info.limit_used == 512 * mib);
    assert_true(info.usable == 1536 * mib);
}

static void memory_v2_smallest_limit_of_the_parents_counts(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup", "0::/a/b/c\n");
    put(*state, "/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    put(*state, "/sys/fs/cgroup/a/b/memory.max", "3221225472\n");
    put(*state, "/sys/fs/cgroup/a/b/memory.current", "3145728000\n"); /* 72 MiB left */
    put(*state, "/sys/fs/cgroup/a/memory.max", "1073741824\n");
    put(*state, "/sys/fs/cgroup/a/memory.current", "104857600\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.limit == 1024 * mib); /* the smallest limit ... */
    assert_true(info.limit_used == 100 * mib);
    assert_true(info.usable == 72 * mib); /* ... need not be the one that is nearest to full */
}

/* Inside a container the path of /proc may not exist under the mount, whose root is the group. */
static void memory_v2_container_root_counts(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup", "0::/kubepods/pod1/abc\n");
    put(*state, "/sys/fs/cgroup/memory.max", "536870912\n");
    put(*state, "/sys/fs/cgroup/memory.current", "0\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.limit == 512 * mib);
    assert_true(info.usable == 512 * mib);
}

static void memory_v1_limit_is_read(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup",
        "9:name=systemd:/\n5:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/abc\n0::/\n");
    put(*state, "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
    put(*state, "/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "209715200\n");
    put(*state, "/sys/fs/cgroup/memory/docker/abc/memory.stat",
        "inactive_file 1\nactive_file 1\ntotal_inactive_file 52428800\n"
        "total_active_file 52428800\n");
    put(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.limit == 1024 * mib);
    assert_true(info.limit_used == 100 * mib);
    assert_true(info.usable == 924 * mib);
}

static void memory_v1_without_limit_has_none(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup", "4:memory:/\n");
    put(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put(*state, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "209715200\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.limit == UINT64_MAX);
    assert_true(info.usable == 4096 * mib);
}

static void memory_over_its_limit_has_nothing_left(void **state)
{
    struct qy_memory_info info;

    put_meminfo(*state);
    put(*state, "/proc/self/cgroup", "0::/\n");
    put(*state, "/sys/fs/cgroup/memory.max", "1048576\n");
    put(*state, "/sys/fs/cgroup/memory.current", "2097152\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.usable == 0);
}

static void memory_huge_pages_follow_the_switch(void **state)
{
    struct qy_memory_info info;

    put(*state, "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n");
    put(*state, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.huge_page_bytes == 2 * mib);
    put(*state, "/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.huge_page_bytes == 0);
}

static void memory_garbage_is_no_limit(void **state)
{
    struct qy_memory_info info;

    put(*state, "/proc/meminfo", "MemTotal: lots\nMemAvailable\n");
    put(*state, "/proc/self/cgroup", "nonsense\n::::\n0::\n0::/x\n\n");
    put(*state, "/sys/fs/cgroup/x/memory.max", "12monkeys\n");
    put(*state, "/sys/fs/cgroup/memory.max", "-5\n");
    qyi_memory_read_from(*state, &info);
    assert_true(info.total == 0);
    assert_true(info.limit == UINT64_MAX);
}

static void memory_of_this_machine_is_plausible(void **state)
{
    struct qy_memory_info info;

    (void)state;
    qy_memory_read(&info);
    assert_true(info.total >= 16 * mib);
    assert_true(info.available <= info.total);
    assert_true(info.usable <= info.available);
    assert_true(info.usable > 0);
    assert_true(info.shm_free <= info.shm_total);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(memory_without_cgroup_is_the_machines),
        CASE(memory_v2_limit_leaves_out_the_page_cache),
        CASE(memory_v2_smallest_limit_of_the_parents_counts),
        CASE(memory_v2_container_root_counts),
        CASE(memory_v1_limit_is_read),
        CASE(memory_v1_without_limit_has_none),
        CASE(memory_over_its_limit_has_nothing_left),
        CASE(memory_huge_pages_follow_the_switch),
        CASE(memory_garbage_is_no_limit),
        cmocka_unit_test(memory_of_this_machine_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
