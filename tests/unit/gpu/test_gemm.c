/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large products: the library of this build on its packed copy, and the streaming kernels at the
 * same sizes, against f64 sums.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/host/dense.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/gpu/device_fixture.h"

enum { M_MAX = 512 };

static struct qy_device *open_device(const struct qy_runtime *rt, enum qy_compute compute)
{
    const struct qy_device_params params = {.spec = "host", .compute = compute, .max_m = M_MAX};
    struct qy_device *dev = NULL;
    struct qy_error err = {0};
    const enum qy_status st = qy_device_open(rt, &params, &dev, &err);
    if (compute == QY_COMPUTE_BF16 && st == QY_ERR_UNSUPPORTED) {
        assert_non_null(strstr(err.text, "bf16"));
        return NULL;
    }
    if (st != QY_OK) {
        fail_msg("%s", err.text);
    }
    return dev;
}

static struct qy_weight *open_weight(struct qy_device *dev, const struct qy_matrix *parts, size_t n)
{
    struct qy_weight *weight = NULL;
    struct qy_error err = {0};
    if (qy_weight_open(dev, parts, n, QY_WEIGHT_MULTIPLY, &weight, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return weight;
}

/* Products of two parts of different types, n_out rows in all, at many m. Everything goes through
 * the library from dense_min_m rows on; lower it so that small m does as well. */
static void check_shape(struct qy_device *dev, uint32_t n_out, uint32_t n_in, double tolerance)
{
    const uint32_t ms[] = {16, 17, 31, 33, 40, 48, 63, 100, 150, 255, 257, 300, 512};
    const int blocks = n_in % 32 == 0;
    const uint32_t first = n_out / 3;
    struct qy_matrix parts[2] = {
        fixture_matrix(blocks ? QY_TYPE_Q4_1 : QY_TYPE_F32, first, n_in, 3),
        fixture_matrix(blocks ? QY_TYPE_Q8_0 : QY_TYPE_BF16, n_out - first, n_in, 4),
    };
    float *values[2] = {fixture_values(&parts[0]), fixture_values(&parts[1])};
    float *x = malloc((size_t)M_MAX * n_in * sizeof *x);
    float *y = malloc((size_t)M_MAX * n_out * sizeof *y);
    uint32_t seed = 17;
    fixture_fill(&seed, x, (size_t)M_MAX * n_in);
    struct qy_weight *weight = open_weight(dev, parts, 2);
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        memset(y, 0xff, (size_t)ms[i] * n_out * sizeof *y);
        assert_int_equal(qy_weight_multiply(dev, weight, x, ms[i], y), QY_OK);
        fixture_check_product(values[0], first, n_in, x, ms[i], y, n_out, tolerance);
        fixture_check_product(values[1], n_out - first, n_in, x, ms[i], y + first, n_out,
                              tolerance);
    }
    qy_weight_close(dev, weight);
    for (size_t i = 0; i < 2; i++) {
        free(values[i]);
        free((void *)parts[i].data);
    }
    free(x);
    free(y);
}

/* On a machine whose best level is `level`: what that is decides when the library is used. */
static void check_compute(enum qy_cpu_level level, enum qy_compute compute, double tolerance)
{
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        struct qy_runtime rt;
        assert_true(fixture_runtime(level, n_threads, &rt));
        rt.cpu.best = level;
        struct qy_device *dev = open_device(&rt, compute);
        if (dev) {
            dev->dense_min_m = 16;
            check_shape(dev, 192, 64, tolerance);
            check_shape(dev, 50, 96, tolerance); /* nothing is a multiple of the library's blocks */
            check_shape(dev, 67, 41, tolerance);
            qy_device_close(dev);
        }
        fixture_runtime_close(&rt);
        if (!dev) {
            skip();
        }
    }
}

static enum qy_cpu_level best_level(void)
{
    struct qy_cpu cpu;
    qy_cpu_detect(&cpu);
    return cpu.best;
}

/* Worst case of a chain of 96 sums, each rounded. */
static void gemm_f32_equals_reference(void **state)
{
    (void)state;
    check_compute(best_level(), QY_COMPUTE_F32, 96 * 0x1p-24);
    check_compute(QY_CPU_PLAIN, QY_COMPUTE_F32, 96 * 0x1p-24);
}

/* Weights and activations are rounded to 8 bits: each product is off by 2^-8 at most. */
static void gemm_bf16_equals_reference_to_bf16(void **state)
{
    (void)state;
    check_compute(best_level(), QY_COMPUTE_BF16, 0x1p-8 + 96 * 0x1p-24);
}

static void gemm_streaming_equals_reference_at_large_m(void **state)
{
    (void)state;
    for (int level = QY_CPU_PLAIN; level <= QY_CPU_AVX512; level++) {
        struct qy_runtime rt;
        if (fixture_runtime((enum qy_cpu_level)level, 2, &rt)) {
            struct qy_device *dev = fixture_device(&rt, 1, M_MAX);
            assert_string_equal(qy_device_caps(dev)->dense, "plain");
            check_shape(dev, 67, 96, 96 * 0x1p-24);
            qy_device_close(dev);
            fixture_runtime_close(&rt);
        }
    }
}

/* The tied embedding: one weight gives rows and products. */
static void gemm_rows_and_products_of_one_weight(void **state)
{
    (void)state;
    struct qy_runtime rt;
    assert_true(fixture_runtime(best_level(), 2, &rt));
    struct qy_device *dev = open_device(&rt, QY_COMPUTE_F32);
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q8_0, 300, 64, 5);
    float *values = fixture_values(&matrix);
    struct qy_weight *weight = NULL;
    assert_int_equal(
        qy_weight_open(dev, &matrix, 1, QY_WEIGHT_MULTIPLY | QY_WEIGHT_ROWS, &weight, NULL), QY_OK);
    int32_t ids[128];
    static float x[128 * 64];
    static float y[128 * 300];
    for (int32_t i = 0; i < 128; i++) {
        ids[i] = i * 7 % 300;
    }
    assert_int_equal(qy_weight_rows(dev, weight, ids, 128, x), QY_OK);
    assert_int_equal(qy_weight_multiply(dev, weight, x, 128, y), QY_OK);
    fixture_check_product(values, 300, 64, x, 128, y, 300, 64 * 0x1p-24);
    assert_in_range(qy_weight_bytes(weight), sizeof(void *), 1 << 20);
    qy_weight_close(dev, weight);
    qy_device_close(dev);
    free(values);
    free((void *)matrix.data);
    fixture_runtime_close(&rt);
}

/* A device and a weight opened with an allocator that fails once: nothing is left behind. */
static void gemm_failed_allocations_leave_nothing(void **state)
{
    (void)state;
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q4_1, 96, 64, 5);
    long n = 0;
    for (;; n++) {
        struct qy_runtime rt = {0};
        struct fail_alloc f = {.fail_at = n};
        rt.mem = fail_alloc_make(&f);
        qy_cpu_detect(&rt.cpu);
        rt.cpu.use = rt.cpu.best = QY_CPU_PLAIN; /* where every library is used */
        const struct qy_device_params params = {.spec = "host", .max_m = 64};
        struct qy_device *dev = NULL;
        struct qy_weight *weight = NULL;
        struct qy_error err = {0};
        enum qy_status st = qy_device_open(&rt, &params, &dev, &err);
        if (st == QY_OK) {
            st = qy_weight_open(dev, &matrix, 1, QY_WEIGHT_MULTIPLY, &weight, &err);
        }
        const int done = st == QY_OK;
        if (!done) {
            assert_int_equal(st, QY_ERR_NOMEM);
            assert_true(err.text[0] != 0);
            assert_null(weight);
        }
        if (dev) {
            qy_weight_close(dev, weight);
        }
        qy_device_close(dev);
        assert_int_equal(f.live, 0);
        if (done) {
            break;
        }
    }
    assert_true(n >= 3);
    free((void *)matrix.data);
}

/* The library is there only where it can be faster: large enough m, and nothing forbids it. */
static void gemm_library_is_used_only_where_it_gains(void **state)
{
    (void)state;
    struct qy_runtime rt;
    assert_true(fixture_runtime(best_level(), 1, &rt));
    struct qy_device_params params = {.spec = "host", .max_m = M_MAX};
    struct qy_device *dev = NULL;
    assert_int_equal(qy_device_open(&rt, &params, &dev, NULL), QY_OK);
    const int has_library = dev->dense != NULL;
    assert_int_equal(strcmp(qy_device_caps(dev)->dense, "plain") != 0, has_library);
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q4_1, 96, 64, 5);
    struct qy_weight *weight = open_weight(dev, &matrix, 1);
    const size_t packed = (size_t)96 * 64 * sizeof(float);
    assert_int_equal(qy_weight_bytes(weight) >= packed, has_library);
    qy_weight_close(dev, weight);
    dev->packed_left = packed - 1; /* a weight that memory has no room for is streamed */
    weight = open_weight(dev, &matrix, 1);
    assert_true(qy_weight_bytes(weight) < packed);
    qy_weight_close(dev, weight);
    qy_device_close(dev);

    params.max_m = 4;
    assert_int_equal(qy_device_open(&rt, &params, &dev, NULL), QY_OK);
    assert_string_equal(qy_device_caps(dev)->dense, "plain");
    qy_device_close(dev);
    params.max_m = M_MAX;
    params.deterministic = 1;
    assert_int_equal(qy_device_open(&rt, &params, &dev, NULL), QY_OK);
    assert_string_equal(qy_device_caps(dev)->dense, "plain");
    qy_device_close(dev);
    free((void *)matrix.data);
    fixture_runtime_close(&rt);
}

static void device_bad_parameters_are_refused(void **state)
{
    (void)state;
    struct qy_runtime rt;
    assert_true(fixture_runtime(QY_CPU_PLAIN, 1, &rt));
    struct qy_device *dev = NULL;
    struct qy_error err = {0};
    struct qy_device_params params = {.spec = "cuda:0", .max_m = 1};
    assert_int_equal(qy_device_open(&rt, &params, &dev, &err), QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'cuda:0'"));
    assert_non_null(strstr(err.text, "host"));
    params.spec = "host";
    params.max_m = 0;
    assert_int_equal(qy_device_open(&rt, &params, &dev, &err), QY_ERR_INVALID);
    params.max_m = 1;
    params.compute = QY_COMPUTE_BF16;
    params.deterministic = 1;
    assert_int_equal(qy_device_open(&rt, &params, &dev, &err), QY_ERR_UNSUPPORTED);
    params.compute = QY_COMPUTE_F32;
    rt.cpu.best = QY_CPU_PLAIN;
    rt.cpu.use = QY_CPU_AVX2;
    assert_int_equal(qy_device_open(&rt, &params, &dev, &err), QY_ERR_UNSUPPORTED);
    assert_null(dev);
    qy_device_close(NULL);
    fixture_runtime_close(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_f32_equals_reference),
        cmocka_unit_test(gemm_bf16_equals_reference_to_bf16),
        cmocka_unit_test(gemm_streaming_equals_reference_at_large_m),
        cmocka_unit_test(gemm_rows_and_products_of_one_weight),
        cmocka_unit_test(gemm_failed_allocations_leave_nothing),
        cmocka_unit_test(gemm_library_is_used_only_where_it_gains),
        cmocka_unit_test(device_bad_parameters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
