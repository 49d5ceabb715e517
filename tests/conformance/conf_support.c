/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, random rows and f64 references for the conformance tests. */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

enum { ROW_OFFSET = 64, ARENA_BYTES = 16 << 20 };

static uint32_t state = 1;

enum qy_cpu_level conf_best(void)
{
    struct qy_cpu cpu;

    qy_cpu_detect(&cpu);
    return cpu.best;
}

void conf_open(struct conf *c, enum qy_cpu_level level, uint32_t n_threads)
{
    const struct qy_team_params team = {.n_threads = n_threads, .spin_us = 20};
    const struct qy_device_params params = {.spec = "host", .max_m = 1};
    struct qy_error err = {QY_OK, ""};

    memset(c, 0, sizeof(*c));
    c->rt.mem = qy_allocator_system();
    qy_cpu_detect(&c->rt.cpu);
    c->rt.cpu.use = level;
    assert_int_equal(qy_team_open(&c->rt.mem, &team, &c->rt.team, &err), QY_OK);
    assert_int_equal(qy_device_open(&c->rt, &params, &c->dev, &err), QY_OK);
    assert_string_equal(qy_device_caps(c->dev)->kernels, qy_cpu_level_name(level));
    conf_arena(c, ARENA_BYTES);
}

void conf_arena(struct conf *c, size_t bytes)
{
    free(c->arena_memory);
    c->arena_memory = malloc(bytes + 1);
    assert_non_null(c->arena_memory);
    qy_arena_init(&c->arena, c->arena_memory, bytes);
}

void conf_close(struct conf *c)
{
    qy_device_close(c->dev);
    qy_team_close(c->rt.team);
    free(c->arena_memory);
}

void conf_seed(uint32_t seed)
{
    state = seed * 2654435761U + 1;
}

uint32_t conf_random(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (uint32_t)((uint64_t)state * below >> 32);
}

float conf_uniform(float scale)
{
    return ((float)conf_random(1U << 24) / (float)(1U << 23) - 1.0F) * scale;
}

float *conf_floats(size_t n, float scale)
{
    float *x = malloc((n + 1) * sizeof(*x));

    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = conf_uniform(scale);
    }
    return x;
}

/* Writes value as element i of a row and returns it as stored. */
static float put(uint8_t *row, enum qy_row_type type, size_t i, float value)
{
    if (type == QY_ROW_F32) {
        memcpy(row + i * 4, &value, 4);
        return value;
    }
    const uint16_t h = qy_f16_from_f32(value);
    memcpy(row + i * 2, &h, 2);
    return qy_f32_from_f16(h);
}

void conf_rows_open(struct conf_rows *r, enum qy_row_type type, uint32_t d, uint32_t shift,
                    uint32_t n, float k_scale)
{
    const uint32_t block_tokens = (uint32_t)1 << shift;
    const size_t row_bytes = qy_row_bytes(type, d);

    r->n = n;
    r->n_blocks = (n + block_tokens - 1) >> shift;
    r->blocks = calloc(r->n_blocks + 1, sizeof(*r->blocks));
    r->k = malloc(((size_t)n * d + 1) * sizeof(float));
    r->v = malloc(((size_t)n * d + 1) * sizeof(float));
    assert_true(r->blocks != NULL && r->k != NULL && r->v != NULL);
    for (uint32_t b = 0; b < r->n_blocks; b++) {
        const uint32_t left = n - b * block_tokens;
        const uint32_t rows = left < block_tokens ? left : block_tokens;
        r->blocks[b] = malloc(ROW_OFFSET + rows * row_bytes);
        assert_non_null(r->blocks[b]);
        memset(r->blocks[b], 0xff, ROW_OFFSET);
    }
    r->rows = (struct qy_rows){
        .blocks = r->blocks, .offset = ROW_OFFSET, .shift = shift, .d = d, .type = type};
    for (uint32_t t = 0; t < n; t++) {
        uint8_t *row = qy_row_at(&r->rows, t);
        for (uint32_t i = 0; i < d; i++) {
            r->k[(size_t)t * d + i] = put(row, type, i, conf_uniform(k_scale));
            r->v[(size_t)t * d + i] = put(row, type, d + i, conf_uniform(1.0F));
        }
    }
}

void conf_rows_close(struct conf_rows *r)
{
    for (uint32_t b = 0; b < r->n_blocks; b++) {
        free(r->blocks[b]);
    }
    free(r->blocks);
    free(r->k);
    free(r->v);
}

double conf_dot(const struct conf_rows *r, uint32_t row, const float *q)
{
    const uint32_t d = r->rows.d;
    double sum = 0.0;

    for (uint32_t i = 0; i < d; i++) {
        sum += (double)q[i] * (double)r->k[(size_t)row * d + i];
    }
    return sum;
}

void conf_attend(const struct conf_rows *r, const uint32_t *ids, uint32_t first, uint32_t n,
                 const float *q, double scale, double *out, double *lse)
{
    const uint32_t d = r->rows.d;
    double *s = malloc((n + 1) * sizeof(*s));
    double max = -INFINITY;
    double sum = 0.0;

    assert_non_null(s);
    for (uint32_t t = 0; t < n; t++) {
        s[t] = scale * conf_dot(r, ids != NULL ? ids[t] : first + t, q);
        max = s[t] > max ? s[t] : max;
    }
    memset(out, 0, d * sizeof(*out));
    for (uint32_t t = 0; t < n; t++) {
        const float *v = r->v + (size_t)(ids != NULL ? ids[t] : first + t) * d;
        const double p = exp(s[t] - max);
        sum += p;
        for (uint32_t i = 0; i < d; i++) {
            out[i] += p * (double)v[i];
        }
    }
    for (uint32_t i = 0; i < d && n > 0; i++) {
        out[i] /= sum;
    }
    if (lse != NULL) {
        *lse = n > 0 ? max + log(sum) : -INFINITY;
    }
    free(s);
}

double conf_nmse(const float *x, const double *reference, size_t n)
{
    double error = 0.0;
    double power = 0.0;

    for (size_t i = 0; i < n; i++) {
        const double e = (double)x[i] - reference[i];
        error += e * e;
        power += reference[i] * reference[i];
    }
    /* a NaN compares false with every bound, so it fails whatever the bound */
    return power > 0.0 ? error / power : error;
}
