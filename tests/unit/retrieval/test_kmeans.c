/* SPDX-License-Identifier: Apache-2.0 */
/* k-means of codebooks: as good as FAISS's own call, and no word without points. */
#include "tests/support/test.h"

#include "retrieval/kmeans.h"

#include <faiss/c_api/Clustering_c.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 6, N = 3000 };

/* Points in some 40 clumps of different width. */
static float *clumps(size_t n, uint32_t d, uint32_t seed)
{
    float *x = malloc(n * d * sizeof *x);
    uint32_t s = seed;

    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        const uint32_t clump = (uint32_t)(i * 2654435761u >> 7) % 40;

        for (uint32_t e = 0; e < d; e++) {
            s = s * 1664525u + 1013904223u;
            x[i * d + e] = (float)((clump * 31 + e * 17) % 23) +
                           (0.1f + (float)clump / 20) * ((float)(s >> 8) / (1 << 24) - 0.5f);
        }
    }
    return x;
}

static double distance(const float *a, const float *b, uint32_t d)
{
    double sum = 0;

    for (uint32_t e = 0; e < d; e++) {
        sum += ((double)a[e] - b[e]) * ((double)a[e] - b[e]);
    }
    return sum;
}

/* Objective by hand; counts [n_words] of points per word. */
static double assess(const float *x, size_t n, uint32_t d, const float *words, uint32_t n_words,
                     uint32_t *counts)
{
    double sum = 0;

    memset(counts, 0, n_words * sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        uint32_t best = 0;
        double least = INFINITY;

        for (uint32_t w = 0; w < n_words; w++) {
            const double off = distance(x + i * d, words + (size_t)w * d, d);

            if (off < least) {
                least = off;
                best = w;
            }
        }
        counts[best]++;
        sum += least;
    }
    return sum;
}

static void kmeans_is_as_good_as_faiss_alone(void **state)
{
    float *x = clumps(N, D, 1), words[64 * D], theirs[64 * D], their_error = 0;
    uint32_t counts[64];
    double objective = 0;
    (void)state;

    const struct qyi_kmeans_params params = {.d = D, .n_words = 64, .iterations = 25, .seed = 4};
    assert_int_equal(qyi_kmeans(&params, x, N, words, &objective, NULL), QY_OK);
    const double ours = assess(x, N, D, words, 64, counts);
    assert_true(fabs(ours - objective) <= 1e-3 * ours);
    assert_int_equal(faiss_kmeans_clustering(D, N, 64, x, theirs, &their_error), 0);
    assert_true(ours <= 1.01 * assess(x, N, D, theirs, 64, counts));
    free(x);
}

static void kmeans_depends_on_points_and_seed_alone(void **state)
{
    float *x = clumps(N, D, 2), a[32 * D], b[32 * D], c[32 * D];
    struct qyi_kmeans_params params = {.d = D, .n_words = 32, .iterations = 5, .seed = 1u << 31};
    (void)state;

    assert_int_equal(qyi_kmeans(&params, x, N, a, NULL, NULL), QY_OK);
    assert_int_equal(qyi_kmeans(&params, x, N, b, NULL, NULL), QY_OK);
    params.seed++;
    assert_int_equal(qyi_kmeans(&params, x, N, c, NULL, NULL), QY_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    free(x);
}

/* Most points are one point, so that random initial words collide: still each word is somebody's. */
static void kmeans_leaves_no_word_empty(void **state)
{
    float *x = clumps(500, D, 3), words[48 * D];
    uint32_t counts[48];
    (void)state;

    for (int i = 0; i < 440; i++) {
        memset(x + (size_t)i * D, 0, D * sizeof *x);
    }
    for (uint64_t seed = 0; seed < 20; seed++) {
        const struct qyi_kmeans_params params = {
            .d = D, .n_words = 48, .iterations = 1 + (uint32_t)seed % 4, .seed = seed};

        assert_int_equal(qyi_kmeans(&params, x, 500, words, NULL, NULL), QY_OK);
        assess(x, 500, D, words, 48, counts);
        for (int w = 0; w < 48; w++) {
            assert_true(counts[w] > 0);
        }
    }
    free(x);
}

static void kmeans_of_fewer_points_than_words_repeats_them(void **state)
{
    float *x = clumps(5, D, 4), words[16 * D];
    double objective = -1;
    (void)state;

    const struct qyi_kmeans_params params = {.d = D, .n_words = 16, .iterations = 3};
    assert_int_equal(qyi_kmeans(&params, x, 5, words, &objective, NULL), QY_OK);
    assert_true(objective == 0);
    for (int w = 0; w < 16; w++) {
        assert_memory_equal(words + (size_t)w * D, x + (size_t)(w % 5) * D, D * sizeof *x);
    }
    free(x);
}

static void kmeans_of_equal_points_is_that_point(void **state)
{
    float x[100 * D], words[16 * D];
    double objective = -1;
    (void)state;

    for (int i = 0; i < 100 * D; i++) {
        x[i] = 3.5f;
    }
    const struct qyi_kmeans_params params = {.d = D, .n_words = 16, .iterations = 4};
    assert_int_equal(qyi_kmeans(&params, x, 100, words, &objective, NULL), QY_OK);
    assert_true(objective < 1e-3);
    int exact = 0;
    for (int w = 0; w < 16; w++) {
        exact += distance(words + (size_t)w * D, x, D) < 1e-9;
    }
    assert_true(exact >= 1);
}

static void kmeans_spherical_words_have_length_one(void **state)
{
    float *x = clumps(N, D, 5), words[20 * D];
    (void)state;

    const struct qyi_kmeans_params params = {
        .d = D, .n_words = 20, .iterations = 6, .seed = 2, .spherical = 1};
    assert_int_equal(qyi_kmeans(&params, x, N, words, NULL, NULL), QY_OK);
    for (int w = 0; w < 20; w++) {
        const float zero[D] = {0};

        assert_true(fabs(distance(words + (size_t)w * D, zero, D) - 1) < 1e-4);
    }
    free(x);
}

static void kmeans_bad_points_are_refused(void **state)
{
    float x[10 * D] = {0}, words[2 * D];
    struct qyi_kmeans_params params = {.d = D, .n_words = 2, .iterations = 2};
    (void)state;

    assert_int_equal(qyi_kmeans(&params, x, 0, words, NULL, NULL), QY_ERR_INVALID);
    x[7] = NAN;
    assert_int_equal(qyi_kmeans(&params, x, 10, words, NULL, NULL), QY_ERR_INVALID);
    x[7] = 0;
    params.iterations = 0;
    assert_int_equal(qyi_kmeans(&params, x, 10, words, NULL, NULL), QY_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kmeans_is_as_good_as_faiss_alone),
        cmocka_unit_test(kmeans_depends_on_points_and_seed_alone),
        cmocka_unit_test(kmeans_leaves_no_word_empty),
        cmocka_unit_test(kmeans_of_fewer_points_than_words_repeats_them),
        cmocka_unit_test(kmeans_of_equal_points_is_that_point),
        cmocka_unit_test(kmeans_spherical_words_have_length_one),
        cmocka_unit_test(kmeans_bad_points_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
