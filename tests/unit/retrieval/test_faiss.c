/* SPDX-License-Identifier: Apache-2.0 */
/* FAISS as the measure: what we choose and learn against what it does; and policy faiss. */
#include "tests/unit/retrieval/learnt_bed.h"

#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "retrieval/faiss_string.h"
#include "retrieval/lloyd.h"
#include "retrieval/pq_index.h"

enum { N = 1500, HEAD = 1, K = 60, HI = N - LBED_WINDOW, POINTS = HI - LBED_LO };

static int ascending(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* Keys of the candidates, one after the other. */
static float *candidates(const struct lbed *bed)
{
    float *x = malloc((size_t)POINTS * LBED_D * sizeof(*x));

    assert_non_null(x);
    for (uint32_t t = 0; t < POINTS; t++) {
        memcpy(x + (size_t)t * LBED_D, lbed_k(bed, HEAD, LBED_LO + t), LBED_D * sizeof(*x));
    }
    return x;
}

static FaissIndex *make(const char *factory, FaissMetricType metric, const float *x)
{
    FaissIndex *index = NULL;

    assert_int_equal(faiss_index_factory(&index, LBED_D, factory, metric), 0);
    assert_int_equal(faiss_Index_train(index, POINTS, x), 0);
    assert_int_equal(faiss_Index_add(index, POINTS, x), 0);
    return index;
}

static void query(float *q, uint32_t seed)
{
    uint32_t state = seed;

    for (uint32_t i = 0; i < LBED_D; i++) {
        q[i] = 2.0F * lbed_random(&state);
    }
}

/* The ids of a policy are those of IndexFlatIP. */
static void check_flat(const char *name)
{
    struct lbed bed;
    struct qy_error err = {QY_OK, ""};
    float q[LBED_D];
    float scores[K];
    idx_t labels[K];
    uint32_t want[K];
    uint32_t got[K];

    lbed_open(&bed, N, 1);
    float *x = candidates(&bed);
    FaissIndex *flat = make("Flat", METRIC_INNER_PRODUCT, x);
    assert_int_equal(lbed_policy(&bed, name, &err), QY_OK);
    if (bed.ops->prepare) {
        lbed_prepare(&bed, 700); /* the rest is added */
        lbed_prepare(&bed, N - 1);
    }
    for (uint32_t seed = 1; seed <= 25; seed++) {
        query(q, seed);
        assert_int_equal(faiss_Index_search(flat, 1, q, K, scores, labels), 0);
        for (int i = 0; i < K; i++) {
            want[i] = LBED_LO + (uint32_t)labels[i];
        }
        qsort(want, K, sizeof(*want), ascending);
        assert_int_equal(lbed_select(&bed, HEAD, N - 1, K, q, got, NULL), K);
        assert_memory_equal(got, want, sizeof(want));
    }
    lbed_close_policy(&bed);
    faiss_Index_free(flat);
    free(x);
    lbed_close(&bed);
}

static void exact_chooses_what_flat_finds(void **state)
{
    (void)state;
    check_flat("exact");
}

static void policy_faiss_flat_chooses_what_flat_finds(void **state)
{
    (void)state;
    check_flat("faiss:Flat");
}

/* Sum of squared distances of the candidates to what stands for them in pq's index. */
static double our_error(struct lbed *bed, const float *x)
{
    const struct qy_sequence_view view = lbed_view(bed, N - 1);
    struct qyi_pq_index *index = NULL;
    struct qy_error err;
    double sum = 0.0;

    assert_int_equal(qyi_pq_index_open(&bed->params, &index, &err), QY_OK);
    assert_int_equal(qyi_pq_index_update(index, &view, &err), QY_OK);
    const struct qyi_pq_slab slab = qyi_pq_index_slab(index, 1, 0, HEAD);
    const struct qy_quantizer *q = slab.quantizer;
    for (uint32_t t = 0; t < POINTS; t++) {
        for (uint32_t i = 0; i < LBED_D; i++) {
            const uint32_t j = i / (LBED_D / q->m);
            const uint32_t w = qy_code_at(q, &slab.codes, LBED_LO + t, j);
            const double diff =
                (double)x[(size_t)t * LBED_D + i] - (double)q->decode[(size_t)i * q->n_words + w];

            sum += diff * diff;
        }
    }
    qyi_pq_index_close(index);
    return sum;
}

static double faiss_error(const char *factory, const float *x)
{
    FaissIndex *index = make(factory, METRIC_L2, x);
    float *back = malloc((size_t)POINTS * LBED_D * sizeof(*back));
    double sum = 0.0;

    assert_non_null(back);
    assert_int_equal(faiss_Index_reconstruct_n(index, 0, POINTS, back), 0);
    for (size_t i = 0; i < (size_t)POINTS * LBED_D; i++) {
        const double diff = (double)x[i] - (double)back[i];

        sum += diff * diff;
    }
    free(back);
    faiss_Index_free(index);
    return sum;
}

static void pq_reconstructs_as_well_as_faiss(void **state)
{
    static const struct {
        int m, bits;
        const char *factory;
    } sizes[] = {{2, 4, "PQ2x4np"}, {4, 5, "PQ4x5np"}, {8, 4, "PQ8x4np"}};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct lbed bed;

        lbed_open(&bed, N, 1);
        bed.settings.pq_m = sizes[i].m;
        bed.settings.pq_bits = sizes[i].bits;
        float *x = candidates(&bed);
        const double ours = our_error(&bed, x);
        const double theirs = faiss_error(sizes[i].factory, x);
        print_message("%s: squared error %.1f, FAISS %.1f\n", sizes[i].factory, ours, theirs);
        assert_true(ours <= 1.05 * theirs);
        free(x);
        lbed_close(&bed);
    }
}

/* k-means of the candidates: objectives of 30 words. */
static void kmeans_objective_is_that_of_faiss(void **state)
{
    enum { WORDS = 30 };
    struct lbed bed;
    float *words = calloc((size_t)(LBED_D + 1) * WORDS, sizeof(*words));
    float centroids[WORDS * LBED_D];
    float theirs = 0.0F;
    double ours = 0.0;

    (void)state;
    assert_non_null(words);
    lbed_open(&bed, N, 1);
    float *x = candidates(&bed);
    const struct qy_quantizer q = {.d = LBED_D,
                                   .m = 1,
                                   .bits = 16,
                                   .n_words = WORDS,
                                   .encode = words,
                                   .bias = words + (size_t)LBED_D * WORDS,
                                   .decode = words};
    uint8_t *codes = calloc(1, qy_code_slab_bytes(&q, 2048));
    assert_non_null(codes);
    const struct qyi_lloyd set = {.x = x,
                                  .n = POINTS,
                                  .quantizer = &q,
                                  .words = words,
                                  .bias = words + (size_t)LBED_D * WORDS,
                                  .codes = {.blocks = &codes, .shift = 11}};
    assert_int_equal(qyi_lloyd_run(&bed.rt, bed.dev, &set, 1, 25), QY_OK);
    for (uint32_t t = 0; t < POINTS; t++) {
        const uint32_t w = qy_code_at(&q, &set.codes, t, 0);

        for (uint32_t i = 0; i < LBED_D; i++) {
            const double diff =
                (double)x[(size_t)t * LBED_D + i] - (double)words[(size_t)i * WORDS + w];

            ours += diff * diff;
        }
    }
    assert_int_equal(faiss_kmeans_clustering(LBED_D, POINTS, WORDS, x, centroids, &theirs), 0);
    print_message("k-means objective %.1f, FAISS %.1f\n", ours, (double)theirs);
    assert_true(ours <= 1.01 * (double)theirs);
    free(codes);
    free(x);
    free(words);
    lbed_close(&bed);
}

/* ---- policy faiss ---------------------------------------------------------------------------- */

static void good_strings_choose_and_find(void **state)
{
    static const char *const names[] = {
        "faiss:SQ8",     "faiss:HNSW16",    "faiss:IVF16,Flat@nprobe=12",
        "faiss:PQ8x4",   "faiss:PCA16,SQ8", "faiss:PQ16x4fs",
        "faiss:IVF8,SQ8"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct lbed bed;
        struct qy_error err = {QY_OK, ""};
        float q[2 * LBED_D];
        uint32_t ids[K];

        lbed_open(&bed, N, 2);
        if (lbed_policy(&bed, names[i], &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
        lbed_prepare(&bed, N - 1);
        query(q, 3);
        memcpy(q + LBED_D, q, LBED_D * sizeof(*q));
        for (uint32_t c = 0; c < LBED_D; c++) { /* a needle that no other key is like */
            lbed_k(&bed, HEAD, 333)[c] = 3.0F * q[c];
        }
        bed.ops->forget(bed.policy, 1, 0);
        lbed_prepare(&bed, N - 1);
        const uint32_t n = lbed_select(&bed, HEAD, N - 1, K, q, ids, NULL);
        int found = 0;
        for (uint32_t j = 0; j < n; j++) {
            found |= ids[j] == 333;
            assert_in_range(ids[j], j == 0 ? LBED_LO : ids[j - 1] + 1, HI - 1);
        }
        if (!found) {
            fail_msg("%s: the needle is not among %u ids", names[i], n);
        }
        lbed_close_policy(&bed);
        lbed_close(&bed);
    }
}

static void bad_strings_are_refused_with_their_text(void **state)
{
    static const char *const names[] = {"faiss",           "faiss:Flt",       "faiss:PQ7",
                                        "faiss:PQ8x99",    "faiss:IVF,Flat",  "faiss:PQ8x8fs",
                                        "faiss:Flat,",     "faiss:Fl at",     "faiss:HNSW",
                                        "faiss:@nprobe=4", "faiss:PCA64,Flat"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct lbed bed;
        struct qy_error err = {QY_OK, ""};

        lbed_open(&bed, N, 1);
        assert_int_equal(lbed_policy(&bed, names[i], &err), QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, qy_policy_argument(names[i])));
        assert_non_null(strstr(err.text, "accepted"));
        lbed_close(&bed);
    }
}

/* Too few tokens to train on: Flat, until there are enough. */
static void short_sequence_is_scored_by_flat(void **state)
{
    struct lbed bed;
    struct qy_error err = {QY_OK, ""};
    float q[LBED_D];
    uint32_t few[K];
    uint32_t flat[K];

    (void)state;
    lbed_open(&bed, N, 1);
    assert_int_equal(lbed_policy(&bed, "faiss:IVF64,Flat", &err), QY_OK);
    query(q, 9);
    lbed_prepare(&bed, 80);
    assert_int_equal(lbed_select(&bed, HEAD, 80, 10, q, few, NULL), 10);
    lbed_prepare(&bed, N - 1);
    assert_true(lbed_select(&bed, HEAD, N - 1, K, q, flat, NULL) > 0);
    lbed_close_policy(&bed);
    assert_int_equal(lbed_policy(&bed, "exact", &err), QY_OK);
    assert_int_equal(lbed_select(&bed, HEAD, 80, 10, q, flat, NULL), 10);
    assert_memory_equal(few, flat, 10 * sizeof(*few));
    lbed_close_policy(&bed);
    lbed_close(&bed);
}

/* Where FAISS's BLAS is OpenBLAS: its threads wait for each other for long on a busy machine. */
void openblas_set_num_threads(int n) __attribute__((weak));

int main(void)
{
    if (openblas_set_num_threads) {
        openblas_set_num_threads(1);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_chooses_what_flat_finds),
        cmocka_unit_test(policy_faiss_flat_chooses_what_flat_finds),
        cmocka_unit_test(pq_reconstructs_as_well_as_faiss),
        cmocka_unit_test(kmeans_objective_is_that_of_faiss),
        cmocka_unit_test(good_strings_choose_and_find),
        cmocka_unit_test(bad_strings_are_refused_with_their_text),
        cmocka_unit_test(short_sequence_is_scored_by_flat),
    };
    return cmocka_run_group_tests_name("retrieval.faiss", tests, NULL, NULL);
}
