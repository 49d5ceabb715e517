/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/gpu/device_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

int fixture_runtime(enum qy_cpu_level level, uint32_t n_threads, struct qy_runtime *rt)
{
    memset(rt, 0, sizeof *rt);
    rt->mem = qy_allocator_system();
    qy_cpu_detect(&rt->cpu);
    if (level > rt->cpu.best) {
        return 0;
    }
    rt->cpu.use = level;
    const struct qy_team_params params = {.n_threads = n_threads};
    struct qy_error err = {0};
    if (qy_team_open(&rt->mem, &params, &rt->team, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return 1;
}

void fixture_runtime_close(struct qy_runtime *rt)
{
    qy_team_close(rt->team);
}

struct qy_device *fixture_device(const struct qy_runtime *rt, int deterministic, uint32_t max_m)
{
    const struct qy_device_params params = {
        .spec = "host", .deterministic = deterministic, .max_m = max_m};
    struct qy_device *dev = NULL;
    struct qy_error err = {0};
    if (qy_device_open(rt, &params, &dev, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return dev;
}

float fixture_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

void fixture_fill(uint32_t *state, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = fixture_random(state);
    }
}

static void put_half(uint8_t *at, float value)
{
    const uint16_t half = qy_f16_from_f32(value);
    memcpy(at, &half, sizeof half);
}

static void fill_block(enum qy_tensor_type type, uint32_t *state, uint8_t *block, uint32_t bytes)
{
    if (type == QY_TYPE_F32) {
        const float value = fixture_random(state);
        memcpy(block, &value, sizeof value);
        return;
    }
    if (type == QY_TYPE_BF16) {
        const float value = fixture_random(state);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        const uint16_t high = (uint16_t)(bits >> 16);
        memcpy(block, &high, sizeof high);
        return;
    }
    for (uint32_t i = 0; i < bytes; i++) {
        fixture_random(state);
        block[i] = (uint8_t)(*state >> 24);
    }
    const int offset = type == QY_TYPE_Q4_1 || type == QY_TYPE_Q5_1 || type == QY_TYPE_Q4_K ||
                       type == QY_TYPE_Q5_K;
    put_half(block + (type == QY_TYPE_Q6_K ? 208 : 0), 0.01F * fixture_random(state));
    if (offset) {
        put_half(block + 2, 0.05F * fixture_random(state));
    }
}

struct qy_matrix fixture_matrix(enum qy_tensor_type type, uint32_t n_out, uint32_t n_in,
                                uint32_t seed)
{
    const struct qy_tensor_type_info *info = qy_tensor_type_find((uint32_t)type);
    const size_t n_blocks = (size_t)n_out * n_in / info->block_elems;
    uint8_t *data = malloc(n_blocks * info->block_bytes);
    assert_non_null(data);
    for (size_t b = 0; b < n_blocks; b++) {
        fill_block(type, &seed, data + b * info->block_bytes, info->block_bytes);
    }
    return (struct qy_matrix){
        .name = info->name, .data = data, .type = type, .n_out = n_out, .n_in = n_in};
}

float *fixture_values(const struct qy_matrix *matrix)
{
    const size_t n = (size_t)matrix->n_out * matrix->n_in;
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    qy_tensor_dequantize(matrix->type, matrix->data, n, values);
    return values;
}

void fixture_check_product(const float *values, uint32_t n_out, uint32_t n_in, const float *x,
                           uint32_t m, const float *y, size_t ldy, double tolerance)
{
    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t r = 0; r < n_out; r++) {
            double sum = 0;
            double size = 0;
            for (uint32_t k = 0; k < n_in; k++) {
                const double product =
                    (double)values[(size_t)r * n_in + k] * (double)x[(size_t)i * n_in + k];
                sum += product;
                size += fabs(product);
            }
            const double got = y[i * ldy + r];
            if (!(fabs(got - sum) <= tolerance * size + 1e-30)) {
                fail_msg("row %u of m %u, output %u: %.9g, not %.9g (absolute products: %.3g)", i,
                         m, r, got, sum, size);
            }
        }
    }
}
