/* SPDX-License-Identifier: Apache-2.0 */
/* Policy pq: codes are those of the nearest words, whenever they were made; learning anew; and
 * extending without memory. */
#include "tests/unit/retrieval/learnt_bed.h"

#include <string.h>

#include "retrieval/pq_index.h"

enum { N = 600, HEAD = 1 };

static void update(struct lbed *bed, struct qyi_pq_index *index, uint32_t n_tokens)
{
    const struct qy_sequence_view view = lbed_view(bed, n_tokens);
    struct qy_error err = {QY_OK, ""};

    if (qyi_pq_index_update(index, &view, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

static void index_open(struct lbed *bed, struct qyi_pq_index **index, uint32_t n)
{
    struct qy_error err;

    lbed_open(bed, n, 1);
    assert_int_equal(qyi_pq_index_open(&bed->params, index, &err), QY_OK);
}

/* Squared distance of sub-vector j of a key to word w. */
static double distance(const struct qy_quantizer *q, const float *k, uint32_t j, uint32_t w)
{
    const uint32_t part = q->d / q->m;
    double sum = 0.0;

    for (uint32_t i = 0; i < part; i++) {
        const double diff =
            (double)k[j * part + i] - (double)q->decode[((size_t)j * part + i) * q->n_words + w];

        sum += diff * diff;
    }
    return sum;
}

static void check_codes(const struct lbed *bed, const struct qyi_pq_slab *slab)
{
    const struct qy_quantizer *q = slab->quantizer;

    for (uint32_t t = slab->first; t < slab->end; t++) {
        const float *k = lbed_k(bed, HEAD, t);

        for (uint32_t j = 0; j < q->m; j++) {
            const double got = distance(q, k, j, qy_code_at(q, &slab->codes, t, j));

            for (uint32_t w = 0; w < q->n_words; w++) {
                assert_true(got <= distance(q, k, j, w) + 1e-4);
            }
        }
    }
}

static void codes_are_of_the_nearest_words(void **state)
{
    struct qyi_pq_index *index = NULL;
    struct lbed bed;

    (void)state;
    index_open(&bed, &index, N);
    update(&bed, index, 400);
    struct qyi_pq_slab slab = qyi_pq_index_slab(index, 1, 0, HEAD);
    assert_int_equal(slab.first, LBED_LO);
    assert_int_equal(slab.end, 401 - LBED_WINDOW);
    assert_int_equal(slab.quantizer->m, 2);
    assert_int_equal(slab.quantizer->n_words, 64);
    check_codes(&bed, &slab);
    for (uint32_t n = 401; n < N; n++) {
        update(&bed, index, n);
    }
    slab = qyi_pq_index_slab(index, 1, 0, HEAD);
    assert_int_equal(slab.end, N - LBED_WINDOW);
    check_codes(&bed, &slab);
    qyi_pq_index_close(index);
    lbed_close(&bed);
}

static void extending_takes_no_memory(void **state)
{
    struct qyi_pq_index *index = NULL;
    struct lbed bed;

    (void)state;
    index_open(&bed, &index, N);
    update(&bed, index, 400);
    const long calls = bed.alloc.calls;
    for (uint32_t n = 401; n < N; n++) {
        update(&bed, index, n);
    }
    assert_int_equal(bed.alloc.calls, calls);
    qyi_pq_index_close(index);
    lbed_close(&bed);
}

static void words_are_learnt_anew_when_tokens_double_or_go(void **state)
{
    struct qyi_pq_index *index = NULL;
    struct lbed bed;

    (void)state;
    index_open(&bed, &index, N);
    update(&bed, index, 219); /* 200 tokens in reach */
    const struct qyi_pq_slab slab = qyi_pq_index_slab(index, 1, 0, HEAD);
    const float first = slab.quantizer->decode[0];
    update(&bed, index, 418);
    assert_true(slab.quantizer->decode[0] == first);
    update(&bed, index, 419);
    assert_true(slab.quantizer->decode[0] != first);

    const float second = slab.quantizer->decode[0];
    qyi_pq_index_forget(index, 1, 420 - LBED_WINDOW); /* all that it learnt from stays */
    update(&bed, index, 419);
    assert_true(slab.quantizer->decode[0] == second);
    qyi_pq_index_forget(index, 1, 200);
    assert_int_equal(qyi_pq_index_slab(index, 1, 0, HEAD).end, 0);
    update(&bed, index, 219);
    assert_true(slab.quantizer->decode[0] == first);
    qyi_pq_index_close(index);
    lbed_close(&bed);
}

static void open_refuses_a_size_that_does_not_divide(void **state)
{
    struct lbed bed;
    struct qy_error err = {QY_OK, ""};

    (void)state;
    lbed_open(&bed, N, 1);
    bed.settings.pq_m = 3;
    assert_int_equal(lbed_policy(&bed, "pq", &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "retrieval.pq_m '3'"));
    bed.settings.pq_m = 2;
    assert_int_equal(lbed_policy(&bed, "pq:8", &err), QY_ERR_CONFIG);
    bed.params.max_sequences = 1U << 16;
    bed.params.max_tokens = 1U << 27;
    assert_int_equal(lbed_policy(&bed, "pq", &err), QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "134217728 tokens"));
    bed.params.max_sequences = 2;
    bed.params.max_tokens = N;
    const long before = bed.alloc.live;
    for (long n = 0;; n++) {
        bed.alloc.fail_at = bed.alloc.calls + n;
        if (lbed_policy(&bed, "pq", &err) == QY_OK) {
            break;
        }
        assert_int_equal(bed.alloc.live, before);
    }
    bed.alloc.fail_at = -1;
    lbed_close_policy(&bed);
    lbed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_of_the_nearest_words),
        cmocka_unit_test(extending_takes_no_memory),
        cmocka_unit_test(words_are_learnt_anew_when_tokens_double_or_go),
        cmocka_unit_test(open_refuses_a_size_that_does_not_divide),
    };
    return cmocka_run_group_tests_name("retrieval.pq", tests, NULL, NULL);
}
