/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Estimated attention over what was not chosen, and the means of values that it is made of, on every
 * kernel set against f64: weights by the scores that qy_device_code_score gives, means of the values
 * that the rows hold.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_quantizer.h"
#include "tests/conformance/conf_slab.h"

enum { MAX_D = 128 };

/* Tokens 0 .. n - 1 of one KV head: rows, codes of other vectors, means. */
struct bed {
    struct conf_quantizer z;
    struct conf_codes codes;
    struct conf_rows rows;
    struct conf_slab values;
    uint32_t n, page;
};

static void append_values(struct conf *c, const struct bed *b, const struct conf_slab *to,
                          uint32_t first, uint32_t n)
{
    struct qy_value_item item = {b->rows.rows, first, n, b->page, to->slab};
    assert_int_equal(qy_device_value_append(c->dev, &item, 1), QY_OK);
}

static void bed_open(struct conf *c, struct bed *b, uint32_t d, uint32_t m, enum qy_row_type type,
                     uint32_t shift, uint32_t page, uint32_t n)
{
    b->n = n;
    b->page = page;
    conf_quantizer_open(&b->z, d, m, 4, 16, 0);
    conf_codes_fill(c, &b->z, &b->codes, shift, n);
    conf_rows_open(&b->rows, type, d, shift, n, 1.0F);
    conf_slab_open(&b->values, shift, n, qy_value_slab_bytes(d, page, (uint32_t)1 << shift));
    append_values(c, b, &b->values, 0, n);
}

static void bed_close(struct bed *b)
{
    conf_slab_close(&b->values);
    conf_rows_close(&b->rows);
    conf_codes_close(&b->codes);
    conf_quantizer_close(&b->z);
}

static struct qy_code_estimate_item item_of(const struct bed *b, uint32_t group, uint32_t first,
                                            uint32_t n, const float *q)
{
    return (struct qy_code_estimate_item){.quantizer = &b->z.q,
                                          .q = q,
                                          .codes = b->codes.slab,
                                          .values = b->values.slab,
                                          .rows = b->rows.rows,
                                          .first = first,
                                          .n = n,
                                          .group = group,
                                          .page = b->page,
                                          .n_tokens = b->n};
}

static enum qy_status call(struct conf *c, const struct qy_code_estimate_item *items, uint32_t n,
                           float scale)
{
    uint32_t max_n = 0;

    for (uint32_t i = 0; i < n; i++) {
        max_n = items[i].n > max_n ? items[i].n : max_n;
    }
    conf_arena(c, qy_device_code_estimate_scratch(c->dev, max_n, items[0].page, items[0].quantizer,
                                                  items[0].group));
    const enum qy_status st = qy_device_code_estimate(c->dev, items, n, scale, &c->arena);
    assert_int_equal(c->arena.used, 0);
    return st;
}

/* Adds the page's tokens that are not taken: exp(score - most) and values. Returns their mass. */
static double add_page(const struct bed *b, const struct qy_code_estimate_item *it,
                       const uint8_t *taken, const float *scores, double most, uint32_t page,
                       double *out)
{
    double mean[MAX_D] = {0};
    double mass = 0.0;
    uint32_t left = 0;

    for (uint32_t t = page * it->page; t < (page + 1) * it->page; t++) {
        if (t < it->first || t >= it->first + it->n || taken[t]) {
            continue;
        }
        left++;
        mass += exp((double)scores[t - it->first] - most);
        for (uint32_t e = 0; e < b->z.q.d; e++) {
            mean[e] += (double)b->rows.v[(size_t)t * b->z.q.d + e];
        }
    }
    for (uint32_t e = 0; e < b->z.q.d && left > 0; e++) {
        out[e] += mass * mean[e] / left;
    }
    return mass;
}

/* What the item must give, head by head. */
static void check(struct conf *c, const struct bed *b, const struct qy_code_estimate_item *it,
                  float scale)
{
    const uint32_t d = b->z.q.d;
    float *scores = calloc((size_t)it->group * it->n + 1, sizeof(*scores));
    uint8_t *taken = calloc(b->n + 1, 1);
    const struct qy_code_score_item score = {it->quantizer, it->q,     it->codes, it->first,
                                             it->n,         it->group, scores,    it->n};

    assert_true(scores && taken);
    conf_arena(c, qy_device_code_score_scratch(c->dev, 1, it->quantizer, it->group));
    assert_int_equal(qy_device_code_score(c->dev, &score, 1, scale, &c->arena), QY_OK);
    for (uint32_t i = 0; i < it->n_ids; i++) {
        taken[it->ids[i]] = 1;
    }
    for (uint32_t h = 0; h < it->group; h++) {
        const float *s = scores + (size_t)h * it->n;
        double out[MAX_D] = {0};
        double most = -INFINITY;
        double mass = 0.0;

        for (uint32_t i = 0; i < it->n; i++) {
            most = taken[it->first + i] ? most : fmax(most, (double)s[i]);
        }
        for (uint32_t p = it->first / it->page; p * it->page < it->first + it->n; p++) {
            mass += add_page(b, it, taken, s, most, p, out);
        }
        for (uint32_t e = 0; e < d; e++) {
            out[e] = mass > 0.0 ? out[e] / mass : 0.0;
        }
        if (it->n == it->n_ids) {
            assert_true(it->lse[h] == -INFINITY);
        } else { /* rounding of sums in f32 */
            assert_true(fabs((double)it->lse[h] - most - log(mass)) < 3e-5 * fmax(1.0, fabs(most)));
        }
        assert_true(conf_nmse(it->out + (size_t)h * d, out, d) < 1e-5); /* means are halves */
    }
    free(taken);
    free(scores);
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

static void one(struct conf *c, const struct bed *b, uint32_t group, uint32_t first, uint32_t n,
                uint32_t share, float scale)
{
    const uint32_t d = b->z.q.d;
    float *q = conf_floats((size_t)group * d, 2.0F);
    float *out = conf_floats((size_t)group * (d + 1), 1.0F);
    struct qy_code_estimate_item item = item_of(b, group, first, n, q);
    uint32_t *ids = choose(&item, share);

    item.out = out;
    item.lse = out + (size_t)group * d;
    assert_int_equal(call(c, &item, 1, scale), QY_OK);
    check(c, b, &item, scale);
    free(ids);
    free(out);
    free(q);
}

static void estimates_what_was_not_chosen(void **unused)
{
    /* d, m, shift, page */
    static const uint32_t shapes[][4] = {
        {64, 16, 7, 32}, {128, 32, 7, 128}, {80, 10, 4, 16}, {64, 2, 6, 64}, {96, 3, 8, 256}};
    /* first, n, share chosen: whole pages, edges inside pages, one token, none, all */
    static const uint32_t ranges[][3] = {
        {0, 1024, 3}, {4, 1500, 3},   {31, 700, 60},  {128, 128, 0}, {127, 2, 0},  {255, 1, 0},
        {5, 0, 0},    {17, 300, 100}, {300, 413, 95}, {4, 1529, 20}, {250, 12, 50}};
    enum { N = 1533, SHAPES = sizeof(shapes) / sizeof(shapes[0]) };
    static const uint32_t groups[] = {3, 1, 4, 7};

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        for (uint32_t threads = 1; threads <= 2; threads++) {
            struct conf c;

            conf_open(&c, level, threads);
            for (uint32_t i = 0; i < SHAPES; i++) {
                const uint32_t *s = shapes[i];
                struct bed b;

                bed_open(&c, &b, s[0], s[1], i % 2 ? QY_ROW_F32 : QY_ROW_F16, s[2], s[3], N);
                for (uint32_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
                    one(&c, &b, groups[(i + r) % 4], ranges[r][0], ranges[r][1], ranges[r][2],
                        r % 2 ? 0.02F : 0.3F);
                }
                bed_close(&b);
            }
            conf_close(&c);
        }
    }
}

/* A query of zeros: every token weighs the same, the mass is their number and the row their mean. */
static void equal_scores_count_tokens(void **unused)
{
    enum { N = 640, D = 64, PAGE = 32, FIRST = 4, LAST = 600 };

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static const float q[D];
        const uint32_t ids[] = {4, 5, 100, 599};
        float out[D];
        double mean[D] = {0};
        float lse = 0.0F;
        struct conf c;
        struct bed b;

        conf_open(&c, level, 1);
        bed_open(&c, &b, D, 16, QY_ROW_F16, 7, PAGE, N);
        struct qy_code_estimate_item item = item_of(&b, 1, FIRST, LAST - FIRST, q);
        item.ids = ids;
        item.n_ids = 4;
        item.out = out;
        item.lse = &lse;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
        for (uint32_t t = FIRST; t < LAST; t++) {
            if (t != 4 && t != 5 && t != 100 && t != 599) {
                for (uint32_t e = 0; e < D; e++) {
                    mean[e] += (double)b.rows.v[t * D + e] / (LAST - FIRST - 4);
                }
            }
        }
        assert_true(fabs((double)lse - log(LAST - FIRST - 4)) < 1e-5);
        assert_true(conf_nmse(out, mean, D) < 1e-5);
        bed_close(&b);
        conf_close(&c);
    }
}

static void odd_queries_are_defined(void **unused)
{
    enum { N = 300, D = 64, GROUP = 3 };

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        float *q = conf_floats((size_t)GROUP * D, 1.0F);
        float out[2][GROUP * D];
        float lse[2][GROUP];
        struct conf c;
        struct bed b;

        conf_open(&c, level, 2);
        bed_open(&c, &b, D, 16, QY_ROW_F16, 7, 32, N);
        q[D] = NAN;
        q[2 * D + 7] = INFINITY;
        struct qy_code_estimate_item item = item_of(&b, GROUP, 4, 200, q);
        for (uint32_t i = 0; i < 2; i++, item.group = 1) { /* alone, and beside those two */
            item.out = out[i];
            item.lse = lse[i];
            assert_int_equal(call(&c, &item, 1, 1.0F), QY_OK);
        }
        assert_memory_equal(out[0], out[1], D * sizeof(float));
        assert_true(lse[0][0] == lse[1][0] && isfinite(lse[0][0]));
        for (uint32_t h = 1; h < GROUP; h++) {
            assert_true(lse[0][h] == -INFINITY);
            for (uint32_t e = 0; e < D; e++) {
                assert_true(out[0][h * D + e] == 0.0F);
            }
        }
        conf_arena(&c, 64);
        assert_int_equal(qy_device_code_estimate(c.dev, &item, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
        assert_int_equal(qy_device_code_estimate(c.dev, &item, 0, 1.0F, &c.arena), QY_OK);
        item.page = 24;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        item.page = 256; /* of slabs of 128 */
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        item.page = 32;
        item.n_ids = item.n + 1;
        assert_int_equal(call(&c, &item, 1, 1.0F), QY_ERR_INVALID);
        free(q);
        bed_close(&b);
        conf_close(&c);
    }
}

/* The same bits however many items and threads there are. */
static void items_and_threads_do_not_change_the_bits(void **unused)
{
    enum { N = 3000, D = 64, GROUP = 3, ITEMS = 7 };
    static float out[2][ITEMS][GROUP * (D + 1)];

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        float *q = conf_floats((size_t)ITEMS * GROUP * D, 1.0F);
        struct qy_code_estimate_item items[ITEMS];
        struct conf c[2];
        struct bed b;

        conf_open(&c[0], level, 1);
        conf_open(&c[1], level, 2);
        bed_open(&c[0], &b, D, 16, QY_ROW_F16, 7, 64, N);
        for (uint32_t t = 0; t < 2; t++) {
            for (uint32_t i = 0; i < ITEMS; i++) {
                items[i] = item_of(&b, GROUP, 4, N - 4 - 100 * i, q + (size_t)i * GROUP * D);
                items[i].out = out[t][i];
                items[i].lse = out[t][i] + GROUP * D;
            }
            for (uint32_t i = 0; t == 0 && i < ITEMS; i++) {
                assert_int_equal(call(&c[t], &items[i], 1, 0.2F), QY_OK);
            }
            if (t == 1) {
                assert_int_equal(call(&c[t], items, ITEMS, 0.2F), QY_OK);
            }
        }
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        free(q);
        bed_close(&b);
        conf_close(&c[0]);
        conf_close(&c[1]);
    }
}

/* One by one, in pieces or at once, by any kernel set: the same means. Those of a page begun are of
 * what it has. */
static void means_do_not_depend_on_pieces(void **unused)
{
    enum { N = 203, SHIFT = 6 };
    static const uint32_t sizes_d[] = {64, 80, 2, 130};
    static const uint32_t pieces[] = {1, 7, 33, 64};
    struct conf_slab first[4] = {{{0}, 0, 0, NULL}};

    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;

        conf_open(&c, level, 2);
        for (uint32_t i = 0; i < 4; i++) {
            struct bed b = {.n = N, .page = i % 2 ? 64 : 16};
            const size_t bytes = qy_value_slab_bytes(sizes_d[i], b.page, 1U << SHIFT);

            conf_seed(i + 1);
            conf_rows_open(&b.rows, i < 2 ? QY_ROW_F16 : QY_ROW_F32, sizes_d[i], SHIFT, N, 1.0F);
            conf_slab_open(&b.values, SHIFT, N, bytes);
            append_values(&c, &b, &b.values, 0, N);
            for (uint32_t p = 0; p < 4; p++) {
                struct conf_slab parts;

                conf_slab_open(&parts, SHIFT, N, bytes);
                for (uint32_t at = 0; at < N; at += pieces[p]) {
                    append_values(&c, &b, &parts, at, N - at < pieces[p] ? N - at : pieces[p]);
                }
                conf_slab_assert_equal(&parts, &b.values);
                conf_slab_close(&parts);
            }
            if (level == QY_CPU_PLAIN) {
                first[i] = b.values;
            } else {
                conf_slab_assert_equal(&first[i], &b.values);
                conf_slab_close(&b.values);
            }
            conf_rows_close(&b.rows);
        }
        conf_close(&c);
    }
    for (uint32_t i = 0; i < 4; i++) {
        conf_slab_close(&first[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimates_what_was_not_chosen),
        cmocka_unit_test(equal_scores_count_tokens),
        cmocka_unit_test(odd_queries_are_defined),
        cmocka_unit_test(items_and_threads_do_not_change_the_bits),
        cmocka_unit_test(means_do_not_depend_on_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
