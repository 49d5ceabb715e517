/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming products through the public functions: every type, every kernel level of the machine,
 * many m, against f64 sums of the values that qy_tensor_dequantize gives.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"
#include "tests/unit/gpu/device_fixture.h"

enum { M_MAX = 40, N_OUT = 67, N_IN = 512 };

/* A lane adds n_in / 8 products at most, each sum rounded once, then the lanes are folded; the
 * values themselves are one rounding away from the reference. Errors add up in the worst case. */
static double tolerance(uint32_t n_in)
{
    return (n_in / 8 + 8) * 0x1p-24;
}

static struct qy_weight *open_weight(struct qy_device *dev, const struct qy_matrix *parts, size_t n,
                                     unsigned use)
{
    struct qy_weight *weight = NULL;
    struct qy_error err = {0};
    if (qy_weight_open(dev, parts, n, use, &weight, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return weight;
}

/* Runs check for every level of this machine, with teams of 1 and 3, on a device whose products
 * are all streamed. */
static void for_levels(void (*check)(struct qy_device *dev))
{
    for (int level = QY_CPU_PLAIN; level <= QY_CPU_AVX512; level++) {
        for (uint32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
            struct qy_runtime rt;
            if (fixture_runtime((enum qy_cpu_level)level, n_threads, &rt)) {
                struct qy_device *dev = fixture_device(&rt, 1, M_MAX);
                assert_string_equal(qy_device_caps(dev)->kernels,
                                    qy_cpu_level_name((enum qy_cpu_level)level));
                check(dev);
                qy_device_close(dev);
                fixture_runtime_close(&rt);
            }
        }
    }
}

static void check_types(struct qy_device *dev)
{
    static float x[M_MAX * N_IN];
    static float y[M_MAX * N_OUT];
    uint32_t seed = 5;
    fixture_fill(&seed, x, M_MAX * N_IN);
    const struct qy_tensor_type_info *info;
    for (size_t i = 0; (info = qy_tensor_type_at(i)) != NULL; i++) {
        struct qy_matrix matrix = fixture_matrix(info->type, N_OUT, N_IN, (uint32_t)i + 1);
        float *values = fixture_values(&matrix);
        struct qy_weight *weight = open_weight(dev, &matrix, 1, QY_WEIGHT_MULTIPLY);
        assert_int_equal(qy_weight_n_out(weight), N_OUT);
        assert_int_equal(qy_weight_n_in(weight), N_IN);
        for (uint32_t m = 1; m <= M_MAX; m += m < 13 ? 1 : 9) {
            memset(y, 0xff, sizeof y);
            assert_int_equal(qy_weight_multiply(dev, weight, x, m, y), QY_OK);
            fixture_check_product(values, N_OUT, N_IN, x, m, y, N_OUT, tolerance(N_IN));
        }
        qy_weight_close(dev, weight);
        free(values);
        free((void *)matrix.data);
    }
}

static void matvec_every_type_and_m_equals_reference(void **state)
{
    (void)state;
    for_levels(check_types);
}

/* Types of one element per block may have any number of columns, and data at any address. */
static void check_odd_columns(struct qy_device *dev)
{
    const enum qy_tensor_type types[] = {QY_TYPE_F32, QY_TYPE_F16, QY_TYPE_BF16};
    float x[7 * 83];
    float y[7 * 5];
    uint32_t seed = 11;
    fixture_fill(&seed, x, 7 * 83);
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t n_in = 1; n_in <= 83; n_in += 2) {
            struct qy_matrix matrix = fixture_matrix(types[i], 5, n_in, n_in);
            float *values = fixture_values(&matrix);
            const size_t bytes = (size_t)5 * n_in * qy_tensor_type_find(types[i])->block_bytes;
            uint8_t *moved = malloc(bytes + 1);
            memcpy(moved + 1, matrix.data, bytes);
            struct qy_matrix unaligned = matrix;
            unaligned.data = moved + 1;
            struct qy_weight *weight = open_weight(dev, &unaligned, 1, QY_WEIGHT_MULTIPLY);
            for (uint32_t m = 1; m <= 7; m++) {
                assert_int_equal(qy_weight_multiply(dev, weight, x, m, y), QY_OK);
                fixture_check_product(values, 5, n_in, x, m, y, 5, tolerance(n_in));
            }
            qy_weight_close(dev, weight);
            free(moved);
            free(values);
            free((void *)matrix.data);
        }
    }
}

static void matvec_odd_columns_and_addresses_equal_reference(void **state)
{
    (void)state;
    for_levels(check_odd_columns);
}

static void check_stack(struct qy_device *dev)
{
    const enum qy_tensor_type types[] = {QY_TYPE_Q4_1, QY_TYPE_Q6_K, QY_TYPE_F32, QY_TYPE_Q8_0};
    const uint32_t n_out[] = {33, 1, 7, 20};
    struct qy_matrix parts[4];
    static float x[9 * N_IN];
    float y[9 * 61];
    uint32_t seed = 3;
    fixture_fill(&seed, x, 9 * N_IN);
    for (uint32_t i = 0; i < 4; i++) {
        parts[i] = fixture_matrix(types[i], n_out[i], N_IN, i + 40);
    }
    struct qy_weight *weight = open_weight(dev, parts, 4, QY_WEIGHT_MULTIPLY | QY_WEIGHT_ROWS);
    assert_int_equal(qy_weight_n_out(weight), 61);
    for (uint32_t m = 1; m <= 9; m += 4) {
        assert_int_equal(qy_weight_multiply(dev, weight, x, m, y), QY_OK);
        uint32_t first = 0;
        for (uint32_t i = 0; i < 4; i++) {
            float *values = fixture_values(&parts[i]);
            fixture_check_product(values, n_out[i], N_IN, x, m, y + first, 61, tolerance(N_IN));
            first += n_out[i];
            free(values);
        }
    }
    qy_weight_close(dev, weight);
    for (uint32_t i = 0; i < 4; i++) {
        free((void *)parts[i].data);
    }
}

static void matvec_stack_of_types_equals_its_parts(void **state)
{
    (void)state;
    for_levels(check_stack);
}

/* What makes a batch give the answers of its requests alone. */
static void matvec_bits_do_not_depend_on_m_or_threads(void **state)
{
    (void)state;
    static float x[M_MAX * N_IN];
    static float first[N_OUT];
    static float y[M_MAX * N_OUT];
    uint32_t seed = 21;
    fixture_fill(&seed, x, M_MAX * N_IN);
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q4_1, N_OUT, N_IN, 9);
    for (int level = QY_CPU_PLAIN; level <= QY_CPU_AVX512; level++) {
        for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
            struct qy_runtime rt;
            if (!fixture_runtime((enum qy_cpu_level)level, n_threads, &rt)) {
                continue;
            }
            struct qy_device *dev = fixture_device(&rt, 1, M_MAX);
            struct qy_weight *weight = open_weight(dev, &matrix, 1, QY_WEIGHT_MULTIPLY);
            for (uint32_t m = 1; m <= M_MAX; m++) {
                /* The row of interest is the last of the batch. */
                const float *from = x + (size_t)(M_MAX - m) * N_IN;
                assert_int_equal(qy_weight_multiply(dev, weight, from, m, y), QY_OK);
                const float *last = y + (size_t)(m - 1) * N_OUT;
                if (m == 1 && n_threads == 1) {
                    memcpy(first, last, sizeof first);
                }
                assert_memory_equal(last, first, sizeof first);
            }
            qy_weight_close(dev, weight);
            qy_device_close(dev);
            fixture_runtime_close(&rt);
        }
    }
    free((void *)matrix.data);
}

static void check_nan(struct qy_device *dev)
{
    static float x[5 * N_IN];
    float before[5 * N_OUT];
    float y[5 * N_OUT];
    uint32_t seed = 2;
    fixture_fill(&seed, x, 5 * N_IN);
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q4_1, N_OUT, N_IN, 77);
    struct qy_weight *weight = open_weight(dev, &matrix, 1, QY_WEIGHT_MULTIPLY);
    assert_int_equal(qy_weight_multiply(dev, weight, x, 5, before), QY_OK);
    x[3 * N_IN + 100] = NAN;
    assert_int_equal(qy_weight_multiply(dev, weight, x, 5, y), QY_OK);
    for (uint32_t r = 0; r < N_OUT; r++) {
        assert_true(isnan(y[3 * N_OUT + r]));
    }
    assert_memory_equal(y, before, 3 * N_OUT * sizeof *y);
    assert_memory_equal(y + 4 * N_OUT, before + 4 * N_OUT, N_OUT * sizeof *y);
    qy_weight_close(dev, weight);
    free((void *)matrix.data);
}

static void matvec_nan_stays_in_its_row(void **state)
{
    (void)state;
    for_levels(check_nan);
}

static void check_rows(struct qy_device *dev)
{
    struct qy_matrix matrix = fixture_matrix(QY_TYPE_Q8_0, N_OUT, 64, 8);
    float *values = fixture_values(&matrix);
    struct qy_weight *weight = open_weight(dev, &matrix, 1, QY_WEIGHT_ROWS);
    const int32_t ids[] = {N_OUT - 1, 0, 5, 5};
    float out[4 * 64];
    assert_int_equal(qy_weight_rows(dev, weight, ids, 4, out), QY_OK);
    for (size_t i = 0; i < 4; i++) { /* Q8_0 has no offset: no rounding to differ by */
        assert_memory_equal(out + i * 64, values + ids[i] * 64, 64 * sizeof *out);
    }
    const int32_t high[] = {1, N_OUT};
    const int32_t low[] = {-1};
    out[0] = -3;
    assert_int_equal(qy_weight_rows(dev, weight, high, 2, out), QY_ERR_INVALID);
    assert_int_equal(qy_weight_rows(dev, weight, low, 1, out), QY_ERR_INVALID);
    assert_true(out[0] == -3);
    assert_int_equal(qy_weight_multiply(dev, weight, values, 1, out), QY_ERR_INVALID);
    qy_weight_close(dev, weight);
    free(values);
    free((void *)matrix.data);
}

static void weight_rows_are_the_values_and_bad_ids_refused(void **state)
{
    (void)state;
    for_levels(check_rows);
}

static void check_refusals(struct qy_device *dev)
{
    struct qy_weight *weight = NULL;
    struct qy_error err = {0};
    struct qy_matrix good = fixture_matrix(QY_TYPE_Q4_1, 2, 64, 1);
    struct qy_matrix bad[2] = {good, good};
    bad[1].n_in = 32;
    assert_int_equal(qy_weight_open(dev, bad, 2, QY_WEIGHT_MULTIPLY, &weight, &err),
                     QY_ERR_INVALID);
    bad[0].n_in = 48;
    bad[0].name = "blk.0.attn_q.weight";
    assert_int_equal(qy_weight_open(dev, bad, 1, QY_WEIGHT_MULTIPLY, &weight, &err),
                     QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "blk.0.attn_q.weight"));
    assert_non_null(strstr(err.text, "48"));
    bad[0] = good;
    bad[0].type = (enum qy_tensor_type)9;
    assert_int_equal(qy_weight_open(dev, bad, 1, QY_WEIGHT_MULTIPLY, &weight, &err),
                     QY_ERR_UNSUPPORTED);
    assert_int_equal(qy_weight_open(dev, &good, 0, QY_WEIGHT_MULTIPLY, &weight, &err),
                     QY_ERR_INVALID);
    assert_int_equal(qy_weight_open(dev, &good, 1, 0, &weight, &err), QY_ERR_INVALID);
    assert_null(weight);

    float x[64 * 2] = {0};
    float y[2 * 2] = {-3, -3, -3, -3};
    weight = open_weight(dev, &good, 1, QY_WEIGHT_MULTIPLY);
    assert_int_equal(qy_weight_multiply(dev, weight, x, M_MAX + 1, y), QY_ERR_INVALID);
    assert_int_equal(qy_weight_multiply(dev, weight, x, 0, y), QY_OK);
    assert_true(y[0] == -3);
    qy_weight_close(dev, weight);
    qy_weight_close(dev, NULL);
    free((void *)good.data);
}

static void weight_what_it_cannot_take_is_refused(void **state)
{
    (void)state;
    for_levels(check_refusals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matvec_every_type_and_m_equals_reference),
        cmocka_unit_test(matvec_odd_columns_and_addresses_equal_reference),
        cmocka_unit_test(matvec_stack_of_types_equals_its_parts),
        cmocka_unit_test(matvec_bits_do_not_depend_on_m_or_threads),
        cmocka_unit_test(matvec_nan_stays_in_its_row),
        cmocka_unit_test(weight_rows_are_the_values_and_bad_ids_refused),
        cmocka_unit_test(weight_what_it_cannot_take_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
