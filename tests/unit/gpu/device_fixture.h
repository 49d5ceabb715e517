/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of dense products and element-wise kernels share: a runtime at each kernel level
 * of this machine, random numbers, random blocks. */
#ifndef QY_TESTS_UNIT_GPU_DEVICE_FIXTURE_H
#define QY_TESTS_UNIT_GPU_DEVICE_FIXTURE_H

#include "gpu/gpu.h"

/* A runtime at this level with a team of n_threads; 0 when the machine has not the level. */
int fixture_runtime(enum qy_cpu_level level, uint32_t n_threads, struct qy_runtime *rt);
void fixture_runtime_close(struct qy_runtime *rt);

/* Opens a device that must open. */
struct qy_device *fixture_device(const struct qy_runtime *rt, int deterministic, uint32_t max_m);

/* Uniform in [-1, 1). */
float fixture_random(uint32_t *state);
void fixture_fill(uint32_t *state, float *out, size_t n);

/* A matrix of random blocks with finite scales of about 1/100; free(data). */
struct qy_matrix fixture_matrix(enum qy_tensor_type type, uint32_t n_out, uint32_t n_in,
                                uint32_t seed);
/* Its values [n_out][n_in] by qy_tensor_dequantize; free(). */
float *fixture_values(const struct qy_matrix *matrix);

/* Checks y [m][ldy] columns first .. first + n_out against f64 sums of values * x. tolerance is
 * relative to the sum of the absolute products. */
void fixture_check_product(const float *values, uint32_t n_out, uint32_t n_in, const float *x,
                           uint32_t m, const float *y, size_t ldy, double tolerance);

#endif
