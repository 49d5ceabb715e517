/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of 4-bit keys: what a slab holds is read back through scores of unit vectors, which
 * are its elements. These must be the nearest of 16 levels; then scores must be f64 dots of them.
 * Tolerance: what rounding the query to 16 bits may do to a score, and NMSE 1e-8 of many scores.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_keys.h"
#include "tests/conformance/conf_support.h"

static const uint32_t sizes_d[] = {64, 80, 96, 128, 256, 2, 6, 10, 66, 130, 254};
enum { N_SIZES = sizeof(sizes_d) / sizeof(sizes_d[0]) };

/* ---- what is held ---------------------------------------------------------------------------- */

static void elements_are_within_half_a_step(void **unused)
{
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < N_SIZES; s++) {
            const uint32_t d = sizes_d[s];
            struct conf_keys keys;
            conf_keys_open(&c, &keys, d, 4, 75);
            for (uint32_t t = 0; t < keys.n; t++) {
                const float *k = keys.k + (size_t)t * d;
                double least = (double)k[0];
                double most = least;
                for (uint32_t i = 1; i < d; i++) {
                    least = fmin(least, (double)k[i]);
                    most = fmax(most, (double)k[i]);
                }
                /* low and step are halves: relative 2^-11 each, the step's 15-fold at the top */
                const double slack = (fabs(least) + (most - least)) / 2048 + 1e-6;
                for (uint32_t i = 0; i < d; i++) {
                    const double error = keys.value[(size_t)t * d + i] - (double)k[i];
                    assert_true(fabs(error) <= (most - least) / 30 + slack);
                }
            }
            conf_keys_close(&keys);
        }
        conf_close(&c);
    }
}

static void bytes_are_the_same_on_every_set(void **unused)
{
    (void)unused;
    for (size_t s = 0; s < N_SIZES; s++) {
        struct conf_keys first;
        for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
            struct conf_keys other;
            struct conf c;
            conf_seed(77);
            conf_open(&c, level, 1);
            conf_keys_open(&c, level == QY_CPU_PLAIN ? &first : &other, sizes_d[s], 5, 200);
            if (level != QY_CPU_PLAIN) {
                conf_slab_assert_equal(&first.store, &other.store);
                conf_keys_close(&other);
            }
            conf_close(&c);
        }
        conf_keys_close(&first);
    }
}

static void chunks_give_the_same_bytes(void **unused)
{
    enum { N = 1000 }; /* bulk: the team works */
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static const uint32_t all[] = {64, 80};
        struct conf c;
        conf_open(&c, level, 3);
        for (size_t s = 0; s < 2; s++) {
            struct conf_keys keys;
            struct conf_slab bulk;
            conf_keys_open(&c, &keys, all[s], 7, N);
            bulk = keys.store;
            conf_slab_open(&keys.store, 7, N, bulk.bytes);
            for (uint32_t t = 0; t < 300; t++) {
                conf_keys_append(&c, &keys, t, 1);
            }
            conf_keys_append(&c, &keys, 600, N - 600); /* not in order either */
            conf_keys_append(&c, &keys, 300, 300);
            conf_keys_append(&c, &keys, 100, 0);
            conf_slab_assert_equal(&bulk, &keys.store);
            conf_slab_close(&bulk);
            conf_keys_close(&keys);
        }
        conf_close(&c);
    }
}

/* Elements that no 4-bit key can hold must give something finite, and harm no other token. */
static void odd_keys_stay_finite(void **unused)
{
    enum { N = 9, D = 64 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_keys keys;
        struct conf c;
        conf_open(&c, level, 1);
        conf_seed(3);
        conf_keys_open(&c, &keys, D, 4, N);
        for (uint32_t i = 0; i < D; i++) {
            keys.k[1 * D + i] = 1.25F;
            keys.k[2 * D + i] = NAN;
            keys.k[3 * D + i] = i % 2 == 0 ? 1e30F : -1e30F;
            keys.k[4 * D + i] = i % 2 == 0 ? 1e-7F : 0.0F;
            keys.k[5 * D + i] = -0.0F;
        }
        keys.k[6 * D + 17] = NAN;
        keys.k[7 * D + 63] = INFINITY;
        keys.k[8 * D] = -INFINITY;
        conf_keys_append(&c, &keys, 0, N);
        conf_keys_read_back(&c, &keys);
        for (uint32_t i = 0; i < N * D; i++) {
            assert_true(isfinite(keys.value[i]));
        }
        for (uint32_t i = 0; i < D; i++) {
            assert_true(keys.value[1 * D + i] == 1.25);
            assert_true(keys.value[2 * D + i] == 0.0);
            assert_true(fabs(keys.value[3 * D + i] - (i % 2 == 0 ? 65504.0 : -65504.0)) <= 40.0);
            assert_true(fabs(keys.value[4 * D + i]) <= 1e-6);
            assert_true(keys.value[5 * D + i] == 0.0);
        }
        assert_true(fabs(keys.value[6 * D + 17]) <= 2.0);
        assert_true(fabs(keys.value[7 * D + 63] - 65504.0) <= 40.0);
        assert_true(fabs(keys.value[8 * D] + 65504.0) <= 40.0);
        conf_keys_close(&keys);
        conf_close(&c);
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void score_one(struct conf *c, const struct conf_keys *keys, uint32_t group,
                      const uint32_t *ids, uint32_t first, uint32_t n)
{
    const size_t stride = n + 5;
    float *q = conf_floats((size_t)group * keys->d, 2.0F);
    float *scores = conf_floats(group * stride, 1.0F);
    double *expected = malloc((n + 1) * sizeof(*expected));
    struct qy_key4_score_item item = conf_keys_item(keys, q, group, ids, first, n, scores);

    assert_non_null(expected);
    item.stride = stride;
    for (size_t i = 0; i < group * stride; i++) {
        scores[i] = 123.0F;
    }
    conf_keys_score(c, item, 0.3F);
    for (uint32_t h = 0; h < group; h++) {
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t token = ids != NULL ? ids[i] : first + i;
            expected[i] = (double)0.3F * conf_keys_dot(keys, token, q + (size_t)h * keys->d);
            assert_true(fabs((double)scores[h * stride + i] - expected[i]) <=
                        0.31 * conf_keys_most_error(keys, token, q + (size_t)h * keys->d));
        }
        assert_true(n < 30 || conf_nmse(scores + h * stride, expected, n) <= 1e-8);
        for (size_t i = n; i < stride; i++) {
            assert_true(scores[h * stride + i] == 123.0F);
        }
    }
    free(q);
    free(scores);
    free(expected);
}

static void scores_match_reference(void **unused)
{
    static const uint32_t groups[] = {1, 2, 3, 4, 5, 8};
    enum { N = 333 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t s = 0; s < N_SIZES; s++) {
            struct conf_keys keys;
            uint32_t ids[N];
            uint32_t n_ids = 0;
            conf_keys_open(&c, &keys, sizes_d[s], s % 2 == 0 ? 5 : 2, N);
            for (uint32_t t = 0; t < N; t++) {
                if (t == N - 1 || conf_random(4) == 0) {
                    ids[n_ids++] = t;
                }
            }
            for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
                score_one(&c, &keys, groups[g], NULL, 7, N - 7);
                score_one(&c, &keys, groups[g], ids, 0, n_ids);
                score_one(&c, &keys, groups[g], ids + 1, 0, 1 + conf_random(40));
                score_one(&c, &keys, groups[g], NULL, N - 1, 1);
                score_one(&c, &keys, groups[g], NULL, conf_random(200), 1 + conf_random(40));
            }
            score_one(&c, &keys, 3, NULL, 0, 0);
            score_one(&c, &keys, 3, ids, 0, 0);
            conf_keys_close(&keys);
        }
        conf_close(&c);
    }
}

/* Lists of several ranges, which fetch ahead over their ends. */
static void long_lists_match_reference(void **unused)
{
    enum { N = 1500 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_keys keys;
        struct conf c;
        uint32_t ids[N];
        uint32_t n = 0;
        conf_open(&c, level, 2);
        conf_keys_open(&c, &keys, 64, 7, N);
        for (uint32_t t = 0; t < N; t++) {
            if (conf_random(3) != 0) {
                ids[n++] = t;
            }
        }
        score_one(&c, &keys, 3, ids, 0, n);
        score_one(&c, &keys, 1, ids, 0, 257);
        score_one(&c, &keys, 4, NULL, 3, N - 3);
        conf_keys_close(&keys);
        conf_close(&c);
    }
}

/* Rounding the query must cost nothing beside rounding the keys: a hundredth at most, even with
 * one element of the query far larger than the others. */
static void rounding_the_query_costs_little(void **unused)
{
    enum { N = 500, D = 64 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_keys keys;
        struct conf c;
        float scores[N];
        float *q = conf_floats(D, 1.0F);
        double of_query = 0.0;
        double of_keys = 0.0;
        conf_open(&c, level, 1);
        conf_keys_open(&c, &keys, D, 7, N);
        q[5] = 20.0F;
        conf_keys_score(&c, conf_keys_item(&keys, q, 1, NULL, 0, N, scores), 1.0F);
        for (uint32_t t = 0; t < N; t++) {
            const double held = conf_keys_dot(&keys, t, q);
            double exact = 0.0;
            for (uint32_t i = 0; i < D; i++) {
                exact += (double)q[i] * (double)keys.k[t * D + i];
            }
            of_query += (held - (double)scores[t]) * (held - (double)scores[t]);
            of_keys += (held - exact) * (held - exact);
        }
        assert_true(sqrt(of_query) <= 0.01 * sqrt(of_keys));
        conf_keys_close(&keys);
        free(q);
        conf_close(&c);
    }
}

static void odd_queries_are_defined(void **unused)
{
    enum { N = 40, D = 80, GROUP = 5 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf_keys keys;
        struct conf c;
        float q[GROUP * D];
        float scores[GROUP * N];
        conf_open(&c, level, 1);
        conf_keys_open(&c, &keys, D, 4, N);
        for (uint32_t i = 0; i < D; i++) {
            q[i] = 0.0F;
            q[D + i] = i == 3 ? NAN : 1.0F;
            q[2 * D + i] = i == 79 ? -INFINITY : 1.0F;
            q[3 * D + i] = conf_uniform(1e-36F);
            q[4 * D + i] = conf_uniform(1e30F);
        }
        conf_keys_score(&c, conf_keys_item(&keys, q, GROUP, NULL, 0, N, scores), 1.0F);
        for (uint32_t t = 0; t < N; t++) {
            double size = 0.0; /* of the sum's terms */
            for (uint32_t i = 0; i < D; i++) {
                size += fabs((double)q[4 * D + i] * keys.value[t * D + i]);
            }
            assert_true(scores[t] == 0.0F);
            assert_true(isnan(scores[N + t]));
            assert_true(isnan(scores[2 * N + t]));
            assert_true(fabsf(scores[3 * N + t]) <= 1e-33F);
            assert_true(fabs((double)scores[4 * N + t] - conf_keys_dot(&keys, t, q + 4 * D)) <=
                        1e-4 * size);
        }
        conf_keys_close(&keys);
        conf_close(&c);
    }
}

static void score_bits_do_not_depend_on_threads(void **unused)
{
    enum { N = 3000, D = 64, GROUP = 3, ITEMS = 3 };
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        static float scores[2][ITEMS][GROUP * N];
        float *q = conf_floats(GROUP * D, 1.0F);
        for (uint32_t threads = 1; threads <= 3; threads++) {
            float(*out)[GROUP * N] = scores[threads > 1];
            struct qy_key4_score_item items[ITEMS];
            struct conf_keys keys;
            struct conf c;
            conf_seed(9);
            conf_open(&c, level, threads);
            conf_keys_open(&c, &keys, D, 7, N);
            items[0] = conf_keys_item(&keys, q, GROUP, NULL, 0, N, out[0]);
            items[1] = conf_keys_item(&keys, q, 1, NULL, 0, 0, out[1]);
            items[2] = conf_keys_item(&keys, q, GROUP, NULL, 1, N - 1, out[2]);
            conf_arena(&c, qy_device_key4_score_scratch(c.dev, ITEMS, GROUP, D));
            assert_int_equal(qy_device_key4_score(c.dev, items, ITEMS, 1.0F, &c.arena), QY_OK);
            assert_memory_equal(out, scores[0], sizeof(scores[0]));
            conf_keys_close(&keys);
            conf_close(&c);
        }
        free(q);
    }
}

static void bad_calls_are_refused(void **unused)
{
    enum { N = 20, D = 64 };
    struct conf_keys keys;
    struct conf c;
    float scores[N];
    float *q = conf_floats(D, 1.0F);
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    conf_keys_open(&c, &keys, D, 4, N);
    const struct qy_key4_score_item good = conf_keys_item(&keys, q, 1, NULL, 0, N, scores);
    struct qy_key4_item bad_append = {keys.k, D, 63, keys.store.slab, 0, 1};
    scores[0] = 123.0F;
    for (uint32_t i = 0; i < 5; i++) {
        struct qy_key4_score_item bad = good;
        bad.d = i == 0 ? 0 : (i == 1 ? 63 : (i == 2 ? 258 : D));
        bad.group = i == 3 ? 0 : (i == 4 ? 65 : 1);
        assert_int_equal(qy_device_key4_score(c.dev, &bad, 1, 1.0F, &c.arena), QY_ERR_INVALID);
    }
    assert_int_equal(qy_device_key4_append(c.dev, &bad_append, 1), QY_ERR_INVALID);
    assert_int_equal(qy_device_key4_append(c.dev, NULL, 0), QY_OK);
    assert_int_equal(qy_device_key4_score(c.dev, NULL, 0, 1.0F, &c.arena), QY_OK);
    conf_arena(&c, 60);
    assert_int_equal(qy_device_key4_score(c.dev, &good, 1, 1.0F, &c.arena), QY_ERR_NOMEM);
    assert_true(scores[0] == 123.0F);
    assert_int_equal(qy_arena_mark(&c.arena), 0);
    conf_keys_close(&keys);
    free(q);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements_are_within_half_a_step),
        cmocka_unit_test(bytes_are_the_same_on_every_set),
        cmocka_unit_test(chunks_give_the_same_bytes),
        cmocka_unit_test(odd_keys_stay_finite),
        cmocka_unit_test(scores_match_reference),
        cmocka_unit_test(long_lists_match_reference),
        cmocka_unit_test(rounding_the_query_costs_little),
        cmocka_unit_test(odd_queries_are_defined),
        cmocka_unit_test(score_bits_do_not_depend_on_threads),
        cmocka_unit_test(bad_calls_are_refused),
    };
    return cmocka_run_group_tests_name("conf.gpu.keys", tests, NULL, NULL);
}
