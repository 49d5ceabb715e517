/* SPDX-License-Identifier: Apache-2.0 */
/* Opening devices by spec, with links, under a failing allocator; their memory, counted. */
#include <math.h>

#include "tests/support/fail_alloc.h"
#include "tests/unit/gpu/stream_fixture.h"

static void runtime(struct qy_runtime *rt)
{
    *rt = (struct qy_runtime){.mem = qy_allocator_system()};
    qy_cpu_detect(&rt->cpu);
}

static void specs_say_what_a_device_is(void **state)
{
    (void)state;
    const struct {
        const char *spec, *name;
        int unified;
        uint64_t limit;
    } cases[] = {{"host", "host (", 1, 0},
                 {"host-discrete:1", "host, discrete (", 0, 1},
                 {"host-discrete:4096", "host, discrete (", 0, 4096},
                 {"host-discrete:512M", "host, discrete (", 0, UINT64_C(512) << 20},
                 {"host-discrete:1.5g", "host, discrete (", 0, UINT64_C(1536) << 20},
                 {"host-discrete:auto", "host, discrete (", 0, 0}};
    struct qy_runtime rt;
    runtime(&rt);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct qy_device_params params = {.spec = cases[i].spec, .max_m = 1};
        struct qy_device *dev = NULL;
        struct qy_device_memory memory;
        MUST(qy_device_open(&rt, &params, &dev, NULL));
        const struct qy_device_caps *caps = qy_device_caps(dev);
        assert_memory_equal(caps->name, cases[i].name, strlen(cases[i].name));
        assert_non_null(strstr(caps->name, caps->kernels));
        assert_int_equal(caps->unified, cases[i].unified);
        qy_device_memory(dev, &memory);
        assert_int_equal(memory.limit, cases[i].limit);
        qy_device_close(dev);
    }
}

static void bad_specs_and_links_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *spec;
        enum qy_status status;
    } cases[] = {{"host-discrete", QY_ERR_CONFIG},
                 {"host-discrete:", QY_ERR_CONFIG},
                 {"host-discrete:0", QY_ERR_CONFIG},
                 {"host-discrete:0M", QY_ERR_CONFIG},
                 {"host-discrete:-1", QY_ERR_CONFIG},
                 {"host-discrete:automatic", QY_ERR_CONFIG},
                 {"host-discrete:64MB", QY_ERR_CONFIG},
                 {"host-discrete:99999999T", QY_ERR_CONFIG},
                 {"host-discreet:1M", QY_ERR_UNSUPPORTED},
                 {"hos", QY_ERR_UNSUPPORTED},
                 {"", QY_ERR_UNSUPPORTED}};
    struct qy_runtime rt;
    struct qy_device *dev = NULL;
    runtime(&rt);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct qy_device_params params = {.spec = cases[i].spec, .max_m = 1};
        struct qy_error err = {0};
        assert_int_equal(qy_device_open(&rt, &params, &dev, &err), cases[i].status);
        assert_non_null(strstr(err.text, cases[i].spec));
        assert_non_null(strstr(err.text, "host-discrete:<bytes>"));
    }
    const struct qy_link links[] = {{.gbps = -1}, {.gbps = NAN}, {.copy_ns = 2000 * MS}};
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        const struct qy_device_params params = {.spec = "host", .max_m = 1, .link = links[i]};
        assert_int_equal(qy_device_open(&rt, &params, &dev, NULL), QY_ERR_INVALID);
    }
    assert_null(dev);
}

static void memory_is_counted(void **state)
{
    (void)state;
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_device_memory memory;
    struct qy_error err = {0};
    void *a, *b, *c;
    runtime(&rt);
    const struct qy_device_params params = {.spec = "host-discrete:1000", .max_m = 1};
    MUST(qy_device_open(&rt, &params, &dev, NULL));
    MUST(qy_device_alloc(dev, 1000, &a, NULL));
    MUST(qy_device_alloc(dev, 500, &b, NULL)); /* above the limit: that is the cache's affair */
    MUST(qy_device_alloc(dev, 0, &c, NULL));
    assert_int_equal(((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 64, 0);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(((uint8_t *)a)[i], 0);
    }
    qy_device_free(dev, a);
    qy_device_free(dev, c);
    qy_device_free(dev, NULL);
    qy_device_memory(dev, &memory);
    assert_int_equal(memory.used, 500);
    assert_int_equal(memory.peak, 1500);
    assert_int_equal(memory.limit, 1000);
    a = NULL;
    assert_int_equal(qy_device_alloc(dev, SIZE_MAX - 8, &a, &err), QY_ERR_NOMEM);
    assert_null(a);
    qy_device_free(dev, b);
    qy_device_memory(dev, &memory);
    assert_int_equal(memory.used, 0);
    assert_int_equal(memory.peak, 1500);
    qy_device_close(dev);
}

static void every_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    long n = 0;
    for (int opened = 0; !opened; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_runtime rt;
        struct qy_device *dev = NULL;
        struct qy_stream *stream = NULL;
        void *memory = NULL;
        const struct qy_device_params params = {.spec = "host-discrete:1M", .max_m = 1};
        struct qy_error err = {0};
        runtime(&rt);
        rt.mem = fail_alloc_make(&f);
        enum qy_status st = qy_device_open(&rt, &params, &dev, &err);
        if (st == QY_OK) {
            st = qy_device_alloc(dev, 64, &memory, &err);
        }
        if (st == QY_OK) {
            st = qy_stream_open(dev, "test", QY_TO_HOST, 8, &stream, &err);
        }
        opened = st == QY_OK;
        if (!opened) {
            assert_int_equal(st, QY_ERR_NOMEM);
            assert_true(err.text[0] != '\0');
        }
        qy_stream_close(stream);
        qy_device_free(dev, memory);
        qy_device_close(dev);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specs_say_what_a_device_is),
        cmocka_unit_test(bad_specs_and_links_are_refused),
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(every_failing_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
