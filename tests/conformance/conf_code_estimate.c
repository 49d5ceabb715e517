/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Estimated attention over what was not chosen, on every kernel set against f64: weights by the
 * scores that qy_device_code_score gives. Values tell which tokens were drawn.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"

enum { D = 64, GROUP = 3, N = 1533 };

/* Tokens 0 .. N - 1 of one KV head; codes are not those of the rows' keys. */
struct bed {
    struct conf_quantizer z;
    struct conf_codes codes;
    struct conf_rows rows;
};

static void bed_open(struct conf *c, struct bed *b, uint32_t m, uint32_t shift)
{
    conf_quantizer_open(&b->z, D, m, 4, 16, 0);
    conf_codes_fill(c, &b->z, &b->codes, shift, N);
    conf_rows_open(&b->rows, QY_ROW_F32, D, shift, N, 1.0F);
}

static void bed_close(struct bed *b)
{
    conf_rows_close(&b->rows);
    conf_codes_close(&b->codes);
    conf_quantizer_close(&b->z);
}

static struct qy_code_estimate_item item_of(const struct bed *b, uint32_t first, uint32_t n,
                                            uint32_t samples, const float *q, float *out)
{
    return (struct qy_code_estimate_item){.quantizer = &b->z.q,
                                          .q = q,
                                          .codes = b->codes.slab,
                                          .rows = b->rows.rows,
                                          .first = first,
                                          .n = n,
                                          .group = GROUP,
                                          .samples = samples,
                                          .out = out,
                                          .lse = out + (size_t)GROUP * D};
}

/* With an arena of just the size that is asked for. */
static enum qy_status call(struct conf *c, const struct qy_code_estimate_item *items, uint32_t n,
                           float scale)
{
    uint32_t max_n = 0;

    for (uint32_t i = 0; i < n; i++) {
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    conf_arena(c, qy_device_code_estimate_scratch(c->dev, max_n, items[0].samples,
                                                  items[0].quantizer, items[0].group));
    const enum qy_status st = qy_device_code_estimate(c->dev, items, n, scale, &c->arena);
    assert_int_equal(c->arena.used, 0);
    return st;
}

/* About n * share / 100 of the item's tokens; share 100: all. Freed with free(). */
static uint32_t *choose(struct qy_code_estimate_item *it, uint32_t share)
{
    uint32_t *ids = malloc((it->n + 1) * sizeof(*ids));

    assert_non_null(ids);
    it->ids = ids;
    for (uint32_t t = it->first; t < it->first + it->n; t++) {
        if (conf_random(100) < share) {
            ids[it->n_ids++] = t;
        }
    }
    return ids;
}

static void write_value(const struct bed *b, uint32_t token, const float *value)
{
    memcpy(qy_row_at(&b->rows.rows, token) + D * sizeof(float), value, D * sizeof(float));
}

/* Token t has a 1 in element t * D / N; those that no draw may bring have what shows. */
static void mark_values(const struct bed *b, const struct qy_code_estimate_item *it)
{
    uint32_t at = 0;

    for (uint32_t t = 0; t < N; t++) {
        float value[D] = {0};

        value[t * D / N] = 1.0F;
        at += at < it->n_ids && it->ids[at] < t;
        if (t < it->first || t >= it->first + it->n || (at < it->n_ids && it->ids[at] == t)) {
            value[0] = 1e6F;
        }
        write_value(b, t, value);
    }
}

/* One head: lse, and of tokens side by side as many draws as their weight says, but for one. */
static void check_head(const struct qy_code_estimate_item *it, const float *scores, uint32_t h)
{
    double weights[D] = {0};
    double most = -INFINITY;
    double mass = 0.0;
    uint32_t at = 0;

    for (uint32_t i = 0; i < it->n; i++) {
        most = fmax(most, (double)scores[i]);
    }
    for (uint32_t i = 0; i < it->n; i++) {
        if (at < it->n_ids && it->ids[at] == it->first + i) {
            at++;
            continue;
        }
        weights[(it->first + i) * D / N] += exp((double)scores[i] - most);
        mass += exp((double)scores[i] - most);
    }
    for (uint32_t e = 0; e < D; e++) {
        const double drawn = (double)it->out[h * D + e] * it->samples;
        const double want = mass > 0.0 ? weights[e] / mass * it->samples : 0.0;

        assert_true(fabs(drawn - want) < 1.0 + 1e-4 * it->samples);
    }
    if (mass > 0.0) { /* rounding of sums in f32 */
        assert_true(fabs((double)it->lse[h] - most - log(mass)) < 3e-5 * fmax(1.0, fabs(most)));
    } else {
        assert_true(it->lse[h] == -INFINITY);
    }
}

static void one(struct conf *c, const struct bed *b, const uint32_t range[3], uint32_t samples,
                float scale)
{
    float *q = conf_floats((size_t)GROUP * D, 2.0F);
    float *scores = calloc((size_t)GROUP * range[1] + 1, sizeof(*scores));
    float out[GROUP * (D + 1)];
    struct qy_code_estimate_item item = item_of(b, range[0], range[1], samples, q, out);
    uint32_t *ids = choose(&item, range[2]);
    const struct qy_code_score_item score = {item.quantizer, q,     item.codes, item.first,
                                             item.n,         GROUP, scores,     item.n};

    assert_non_null(scores);
    mark_values(b, &item);
    assert_int_equal(call(c, &item, 1, scale), QY_OK);
    conf_arena(c, qy_device_code_score_scratch(c->dev, 1, item.quantizer, GROUP));
    assert_int_equal(qy_device_code_score(c->dev, &score, 1, scale, &c->arena), QY_OK);
    for (uint32_t h = 0; h < GROUP; h++) {
        check_head(&item, scores + (size_t)h * item.n, h);
    }
    free(ids);
    free(scores);
    free(q);
}

static void draws_go_by_weight(void **unused)
{
    /* first, n, share chosen: whole pages, edges inside pages, one token, none, all */
    static const uint32_t ranges[][3] = {{0, 1024, 3},  {4, 1500, 3},   {31, 700, 60},
                                         {128, 128, 0}, {127, 2, 0},    {255, 1, 0},
                                         {5, 0, 0},     {17, 300, 100}, {300, 413, 95}};
    static const uint32_t shapes[][2] = {{16, 7}, {2, 4}, {8, 3}, {16, 11}}; /* m, shift */
    static const uint32_t samples[] = {1, 7, 32, 4096};
    enum { RANGES = sizeof(ranges) / sizeof(ranges[0]) };

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            struct conf c;
            struct bed b;

            conf_open(&c, level, 1 + i % 2);
            bed_open(&c, &b, shapes[i][0], shapes[i][1]);
            for (uint32_t r = 0; r < 2 * RANGES; r++) {
                one(&c, &b, ranges[r % RANGES], samples[r % 4], r < RANGES ? 0.02F : 0.3F);
            }
            bed_close(&b);
            conf_close(&c);
        }
    }
}

/* The value of a token drawn alone, whatever a row is made of and the size of a head. */
static void values_are_those_of_the_rows(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 128, 20};

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t d = sizes_d[i % 4];
            float *q = conf_floats(d, 1.0F);
            float out[128];
            float lse;
            struct conf c;
            struct conf_quantizer z;
            struct conf_codes codes;
            struct conf_rows rows;

            conf_open(&c, level, 1);
            conf_quantizer_open(&z, d, 2, 4, 16, 0);
            conf_codes_fill(&c, &z, &codes, 5, 100);
            conf_rows_open(&rows, i < 4 ? QY_ROW_F16 : QY_ROW_F32, d, 5, 100, 1.0F);
            const struct qy_code_estimate_item item = {.quantizer = &z.q,
                                                       .q = q,
                                                       .codes = codes.slab,
                                                       .rows = rows.rows,
                                                       .first = 40 + i,
                                                       .n = 1,
                                                       .group = 1,
                                                       .samples = 4,
                                                       .out = out,
                                                       .lse = &lse};
            assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
            assert_memory_equal(out, rows.v + (size_t)(40 + i) * d, d * sizeof(float));
            free(q);
            conf_rows_close(&rows);
            conf_codes_close(&codes);
            conf_quantizer_close(&z);
            conf_close(&c);
        }
    }
}

/* A query of zeros: the mass is the number of tokens, and as many draws are each of them once. */
static void equal_scores_count_tokens(void **unused)
{
    enum { FIRST = 4, PAST = 600, LEFT = PAST - FIRST - 4 };
    static const uint32_t ids[] = {4, 5, 100, 599};

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static const float q[GROUP * D];
        float out[GROUP * (D + 1)];
        double mean[D] = {0};
        struct conf c;
        struct bed b;

        conf_open(&c, level, 1);
        bed_open(&c, &b, 16, 7);
        struct qy_code_estimate_item item = item_of(&b, FIRST, PAST - FIRST, LEFT, q, out);
        item.ids = ids;
        item.n_ids = 4;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
        for (uint32_t t = FIRST; t < PAST; t++) {
            for (uint32_t e = 0; t != 4 && t != 5 && t != 100 && t != 599 && e < D; e++) {
                mean[e] += (double)b.rows.v[t * D + e] / LEFT;
            }
        }
        for (uint32_t h = 0; h < GROUP; h++) {
            assert_true(fabs((double)item.lse[h] - log(LEFT)) < 1e-5);
            assert_true(conf_nmse(out + (size_t)h * D, mean, D) < 1e-10);
        }
        bed_close(&b);
        conf_close(&c);
    }
}

static void odd_queries_are_defined(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        float *q = conf_floats((size_t)GROUP * D, 1.0F);
        float out[2][GROUP * (D + 1)];
        struct conf c;
        struct bed b;

        conf_open(&c, level, 2);
        bed_open(&c, &b, 16, 7);
        struct qy_code_estimate_item item = item_of(&b, 4, 200, 8, q, out[0]);
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
        q[D] = NAN;
        q[2 * D + 7] = INFINITY;
        item.out = out[1];
        item.lse = out[1] + GROUP * D;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
        assert_memory_equal(out[0], out[1], D * sizeof(float)); /* beside those two as before */
        assert_true(out[0][GROUP * D] == item.lse[0] && isfinite(item.lse[0]));
        for (uint32_t h = 1; h < GROUP; h++) {
            assert_true(item.lse[h] == -INFINITY);
            for (uint32_t e = 0; e < D; e++) {
                assert_true(out[1][h * D + e] == 0.0F);
            }
        }
        conf_arena(&c, 64);
        assert_int_equal(qy_device_code_estimate(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
        assert_int_equal(qy_device_code_estimate(c.dev, &item, 0, 1.0F, &c.arena), QY_OK);
        item.n_ids = item.n + 1;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        item.n_ids = 0;
        item.samples = 4097;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        item.samples = 0;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        free(q);
        bed_close(&b);
        conf_close(&c);
    }
}

/* The same bits however many items and threads there are. */
static void items_and_threads_do_not_change_the_bits(void **unused)
{
    enum { ITEMS = 7 };
    static float out[2][ITEMS][GROUP * (D + 1)];

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        float *q = conf_floats((size_t)ITEMS * GROUP * D, 1.0F);
        struct qy_code_estimate_item items[ITEMS];
        struct conf c[2];
        struct bed b;

        conf_open(&c[0], level, 1);
        conf_open(&c[1], level, 2);
        bed_open(&c[0], &b, 16, 7);
        for (uint32_t t = 0; t < 2; t++) {
            for (uint32_t i = 0; i < ITEMS; i++) {
                items[i] =
                    item_of(&b, 4, N - 4 - 100 * i, 32, q + (size_t)i * GROUP * D, out[t][i]);
            }
            for (uint32_t i = 0; t == 0 && i < ITEMS; i++) {
                assert_int_equal(call(&c[0], &items[i], 1, 0.2F), QY_OK);
            }
        }
        assert_int_equal(call(&c[1], items, ITEMS, 0.2F), QY_OK);
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        free(q);
        bed_close(&b);
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_go_by_weight),
        cmocka_unit_test(values_are_those_of_the_rows),
        cmocka_unit_test(equal_scores_count_tokens),
        cmocka_unit_test(odd_queries_are_defined),
        cmocka_unit_test(items_and_threads_do_not_change_the_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
