/* SPDX-License-Identifier: Apache-2.0 */
/* Norms, bias, SwiGLU and rotation at every kernel level of the machine, against f64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"
#include "tests/unit/gpu/device_fixture.h"

static void for_levels(void (*check)(struct qy_device *dev))
{
    for (int level = QY_CPU_PLAIN; level <= QY_CPU_AVX512; level++) {
        struct qy_runtime rt;
        if (fixture_runtime((enum qy_cpu_level)level, 3, &rt)) {
            struct qy_device *dev = fixture_device(&rt, 1, 64);
            check(dev);
            qy_device_close(dev);
            fixture_runtime_close(&rt);
        }
    }
}

static void assert_near(float got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance)) {
        fail_msg("%.9g, not %.9g, tolerance %.3g", (double)got, expected, tolerance);
    }
}

/* The sum of squares is off by a part in 2^24 per addition of a lane, the root halves that, and
 * three more operations round. */
static double norm_tolerance(uint32_t dim)
{
    return (dim / 8 / 2 + 6) * 0x1p-24;
}

static void check_norm_rows(const float *x, const float *weight, uint32_t m, uint32_t dim,
                            const float *out)
{
    for (uint32_t i = 0; i < m; i++, x += dim, out += dim) {
        double sum = 0;
        for (uint32_t k = 0; k < dim; k++) {
            sum += (double)x[k] * (double)x[k];
        }
        const double scale = 1 / sqrt(sum / dim + (double)1e-5F);
        for (uint32_t k = 0; k < dim; k++) {
            const double expected = (double)x[k] * scale * (double)weight[k];
            assert_near(out[k], expected, norm_tolerance(dim) * fabs(expected));
        }
    }
}

static void check_norm(struct qy_device *dev)
{
    enum { M = 33, DIM = 600 };
    static float x[M * DIM];
    static float y[M * DIM];
    static float sum[M * DIM];
    static float out[M * DIM];
    float weight[DIM];
    const uint32_t dims[] = {1, 7, 16, 31, 64, 576, 600};
    uint32_t seed = 4;
    fixture_fill(&seed, weight, DIM);
    for (size_t c = 0; c < sizeof dims / sizeof dims[0]; c++) {
        const uint32_t dim = dims[c];
        for (uint32_t m = 1; m <= M; m += 16) {
            fixture_fill(&seed, x, (size_t)m * dim);
            fixture_fill(&seed, y, (size_t)m * dim);
            assert_int_equal(qy_device_norm(dev, x, m, dim, weight, 1e-5F, out), QY_OK);
            check_norm_rows(x, weight, m, dim, out);
            for (uint32_t i = 0; i < m * dim; i++) {
                sum[i] = x[i] + y[i];
            }
            assert_int_equal(qy_device_add_norm(dev, x, y, m, dim, weight, 1e-5F, out), QY_OK);
            assert_memory_equal(x, sum, (size_t)m * dim * sizeof *x);
            check_norm_rows(x, weight, m, dim, out);
            assert_int_equal(qy_device_norm(dev, x, m, dim, weight, 1e-5F, x), QY_OK);
            assert_memory_equal(x, out, (size_t)m * dim * sizeof *x);
        }
    }
}

static void norm_equals_reference_in_place_or_not(void **state)
{
    (void)state;
    for_levels(check_norm);
}

static void check_norm_nan(struct qy_device *dev)
{
    float x[3 * 40];
    float out[3 * 40];
    float weight[40];
    uint32_t seed = 4;
    fixture_fill(&seed, weight, 40);
    fixture_fill(&seed, x, 3 * 40);
    x[40 + 39] = NAN;
    assert_int_equal(qy_device_norm(dev, x, 3, 40, weight, 1e-5F, out), QY_OK);
    for (uint32_t k = 0; k < 40; k++) {
        assert_false(isnan(out[k]));
        assert_true(isnan(out[40 + k]));
        assert_false(isnan(out[80 + k]));
    }
    assert_int_equal(qy_device_norm(dev, x, 3, 0, weight, 1e-5F, out), QY_ERR_INVALID);
    assert_int_equal(qy_device_add_norm(dev, x, NULL, 3, 40, weight, 1e-5F, out), QY_ERR_INVALID);
}

static void norm_nan_stays_in_its_row(void **state)
{
    (void)state;
    for_levels(check_norm_nan);
}

static void check_head_norm(struct qy_device *dev)
{
    enum { M = 3, HEADS = 2, D = 24, STRIDE = 60 };
    float x[M * STRIDE];
    float before[M * STRIDE];
    float weight[D];
    uint32_t seed = 14;
    fixture_fill(&seed, weight, D);
    fixture_fill(&seed, x, M * STRIDE);
    memcpy(before, x, sizeof x);
    assert_int_equal(qy_device_head_norm(dev, x, M, STRIDE, HEADS, D, weight, 1e-5F), QY_OK);
    for (size_t i = 0; i < M; i++) {
        check_norm_rows(before + i * STRIDE, weight, HEADS, D, x + i * STRIDE);
        assert_memory_equal(x + i * STRIDE + HEADS * D, before + i * STRIDE + HEADS * D,
                            (STRIDE - HEADS * D) * sizeof *x);
    }
    assert_int_equal(qy_device_head_norm(dev, x, M, 47, HEADS, D, weight, 1e-5F), QY_ERR_INVALID);
}

static void head_norm_touches_the_heads_alone(void **state)
{
    (void)state;
    for_levels(check_head_norm);
}

static void check_bias(struct qy_device *dev)
{
    float y[2 * 5] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const float bias[5] = {0.5F, 1, -1, 0, 100};
    const float expected[2 * 5] = {0.5F, 2, 1, 3, 104, 5.5F, 7, 6, 8, 109};
    assert_int_equal(qy_device_bias(dev, y, 2, 5, bias), QY_OK);
    assert_memory_equal(y, expected, sizeof y);
}

static void bias_is_added_to_every_row(void **state)
{
    (void)state;
    for_levels(check_bias);
}

static void check_swiglu(struct qy_device *dev)
{
    enum { M = 5, N = 83 };
    float gate_up[M * 2 * N];
    float out[M * N];
    uint32_t seed = 31;
    fixture_fill(&seed, gate_up, M * 2 * N);
    for (size_t i = 0; i < M; i++) {
        for (size_t k = 0; k < N; k++) {
            gate_up[i * 2 * N + k] *= 20; /* both tails of the logistic function */
        }
    }
    gate_up[3] = 0;
    gate_up[4] = 200; /* past the range of exp, both ways */
    gate_up[5] = -200;
    assert_int_equal(qy_device_swiglu(dev, gate_up, M, N, out), QY_OK);
    for (size_t i = 0; i < M; i++) {
        for (size_t k = 0; k < N; k++) {
            const double g = gate_up[i * 2 * N + k];
            const double expected = g / (1 + exp(-g)) * (double)gate_up[i * 2 * N + N + k];
            /* exp to 2 units in the last place, then three operations. */
            assert_near(out[i * N + k], expected, 5 * 0x1p-23 * fabs(expected) + 1e-30);
        }
    }
    gate_up[N - 1] = NAN;
    gate_up[2 * N] = NAN;
    assert_int_equal(qy_device_swiglu(dev, gate_up, M, N, out), QY_OK);
    assert_true(isnan(out[N - 1]) && isnan(out[N]));
    assert_false(isnan(out[N - 2]) || isnan(out[N + 1]));
}

static void swiglu_equals_reference_and_keeps_nan(void **state)
{
    (void)state;
    for_levels(check_swiglu);
}

static void check_rope(struct qy_device *dev)
{
    enum { M = 70, HEADS = 3, D = 64, STRIDE = HEADS * D + 5 };
    static float x[M * STRIDE];
    static float before[M * STRIDE];
    static float table[M * D];
    int32_t positions[M];
    float inv_freq[D / 2];
    const uint32_t dims[] = {2, 6, 30, 48, 64};
    uint32_t seed = 6;
    for (uint32_t i = 0; i < M; i++) {
        positions[i] = (int32_t)i * (i % 3 == 2 ? -1777 : 1777); /* negative: turned back */
    }
    for (int pairs = QY_ROPE_ADJACENT; pairs <= QY_ROPE_HALVES; pairs++) {
        for (size_t c = 0; c < sizeof dims / sizeof dims[0]; c++) {
            const uint32_t dim = dims[c];
            for (uint32_t p = 0; p < dim / 2; p++) {
                inv_freq[p] = (float)pow(10000, -2.0 * p / dim);
            }
            const struct qy_rope rope = {
                .dim = dim, .pairs = (enum qy_rope_pairs)pairs, .inv_freq = inv_freq};
            fixture_fill(&seed, x, M * STRIDE);
            memcpy(before, x, sizeof x);
            assert_int_equal(qy_device_rope_table(dev, &rope, positions, M, table), QY_OK);
            assert_int_equal(qy_device_rope(dev, &rope, table, x, M, STRIDE, HEADS, D), QY_OK);
            for (size_t i = 0; i < M; i++) {
                for (size_t e = 0; e < STRIDE; e++) {
                    const size_t h = e / D;
                    const size_t j = e % D;
                    const float *head = before + i * STRIDE + h * D;
                    if (h >= HEADS || j >= dim) {
                        assert_true(x[i * STRIDE + e] == before[i * STRIDE + e]);
                        continue;
                    }
                    const int adjacent = pairs == QY_ROPE_ADJACENT;
                    const size_t p = adjacent ? j / 2 : j % (dim / 2);
                    const int second = adjacent ? j % 2 == 1 : j >= dim / 2;
                    const double a = head[adjacent ? 2 * p : p];
                    const double b = head[adjacent ? 2 * p + 1 : p + dim / 2];
                    const double angle = (double)positions[i] * (double)inv_freq[p];
                    const double expected =
                        second ? a * sin(angle) + b * cos(angle) : a * cos(angle) - b * sin(angle);
                    /* Table and products are rounded, |a|, |b| <= 1. */
                    assert_near(x[i * STRIDE + e], expected, 5 * 0x1p-24);
                }
            }
        }
    }
}

static void rope_turns_pairs_of_both_kinds(void **state)
{
    (void)state;
    for_levels(check_rope);
}

static void check_rope_refusals(struct qy_device *dev)
{
    const float inv_freq[4] = {1, 1, 1, 1};
    struct qy_rope rope = {.dim = 3, .pairs = QY_ROPE_HALVES, .inv_freq = inv_freq};
    const int32_t position = 5;
    float table[8] = {0};
    float x[16] = {1, 2, 3, 4};
    assert_int_equal(qy_device_rope_table(dev, &rope, &position, 1, table), QY_ERR_INVALID);
    assert_int_equal(qy_device_rope(dev, &rope, table, x, 1, 16, 2, 8), QY_ERR_INVALID);
    rope.dim = 8;
    assert_int_equal(qy_device_rope(dev, &rope, table, x, 1, 16, 2, 6), QY_ERR_INVALID);
    assert_int_equal(qy_device_rope(dev, &rope, table, x, 1, 15, 2, 8), QY_ERR_INVALID);
    rope.dim = 0; /* a model without rotation */
    assert_int_equal(qy_device_rope(dev, &rope, table, x, 1, 16, 2, 8), QY_OK);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 3 && x[3] == 4);
}

static void rope_bad_shapes_are_refused(void **state)
{
    (void)state;
    for_levels(check_rope_refusals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_equals_reference_in_place_or_not),
        cmocka_unit_test(norm_nan_stays_in_its_row),
        cmocka_unit_test(head_norm_touches_the_heads_alone),
        cmocka_unit_test(bias_is_added_to_every_row),
        cmocka_unit_test(swiglu_equals_reference_and_keeps_nan),
        cmocka_unit_test(rope_turns_pairs_of_both_kinds),
        cmocka_unit_test(rope_bad_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
