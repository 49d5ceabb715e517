/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler: greedy choice, each filter, the draw's distribution, log-probabilities. */
#include "tests/support/test.h"

#include <math.h>
#include <string.h>

#include "model/model.h"
#include "tests/support/fail_alloc.h"

static const struct qy_sampler_params plain = {.temperature = 1, .top_p = 1, .seed = 7};

static struct qy_sampler *open_sampler(uint32_t n, struct qy_sampler_params params)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_sampler *sampler;
    assert_int_equal(qy_sampler_open(&mem, n, &params, &sampler, NULL), QY_OK);
    return sampler;
}

/* Shares of ids [n] over 20,000 draws. */
static void measure(struct qy_sampler_params params, const float *logits, uint32_t n, double *share)
{
    enum { DRAWS = 20000 };
    struct qy_sampler *s = open_sampler(n, params);
    memset(share, 0, n * sizeof(*share));
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = qy_sampler_next(s, logits, NULL);
        assert_in_range(id, 0, n - 1);
        share[id] += 1.0 / DRAWS;
    }
    qy_sampler_close(s);
}

/* 20,000 draws of a share p have a standard deviation of at most 0.0035. */
static void assert_share(double got, double want)
{
    assert_true(fabs(got - want) < 0.015);
}

static void greedy_takes_the_largest_and_the_lower_id_of_equals(void **state)
{
    struct qy_sampler_params params = plain;
    const float logits[] = {1, 5, -3, 5, 4.5F};
    float gap = -1;
    (void)state;
    params.temperature = 0;
    struct qy_sampler *s = open_sampler(5, params);
    assert_int_equal(qy_sampler_next(s, logits, &gap), 1);
    assert_true(gap == 0);
    const float other[] = {1, 2, -3, 6, 4.5F};
    assert_int_equal(qy_sampler_next(s, other, &gap), 3);
    assert_true(gap == 1.5F);
    qy_sampler_close(s);
}

static void next_with_nan_or_nothing_finite_refuses(void **state)
{
    struct qy_sampler_params params = plain;
    (void)state;
    for (int greedy = 0; greedy < 2; greedy++) {
        params.temperature = greedy ? 0 : 1;
        struct qy_sampler *s = open_sampler(3, params);
        for (int at = 0; at < 3; at++) {
            float logits[] = {3, 2, 1};
            logits[at] = NAN;
            assert_int_equal(qy_sampler_next(s, logits, NULL), -1);
        }
        const float none[] = {-INFINITY, -INFINITY, -INFINITY};
        assert_int_equal(qy_sampler_next(s, none, NULL), -1);
        const float one[] = {-INFINITY, -8, -INFINITY};
        float gap;
        assert_int_equal(qy_sampler_next(s, one, &gap), 1);
        assert_true(isinf(gap));
        const float most[] = {1, INFINITY, INFINITY};
        assert_int_equal(qy_sampler_next(s, most, &gap), 1);
        assert_true(gap == 0);
        qy_sampler_close(s);
    }
}

static void draw_follows_the_distribution(void **state)
{
    const float logits[] = {logf(0.5F), logf(0.3F), logf(0.2F), -INFINITY};
    double share[4];
    (void)state;
    measure(plain, logits, 4, share);
    assert_share(share[0], 0.5);
    assert_share(share[1], 0.3);
    assert_share(share[2], 0.2);
    assert_true(share[3] == 0);
    struct qy_sampler_params hot = plain;
    hot.temperature = 2; /* p ^ 1/2, normalized */
    measure(hot, logits, 4, share);
    double total = sqrt(0.5) + sqrt(0.3) + sqrt(0.2);
    assert_share(share[0], sqrt(0.5) / total);
    assert_share(share[2], sqrt(0.2) / total);
}

static void top_k_keeps_the_k_largest(void **state)
{
    const float logits[] = {logf(0.1F), logf(0.4F), logf(0.2F), logf(0.2F), logf(0.1F)};
    struct qy_sampler_params params = plain;
    double share[5];
    (void)state;
    params.top_k = 2; /* of the two with 0.2 the lower id */
    measure(params, logits, 5, share);
    assert_share(share[1], 2.0 / 3);
    assert_share(share[2], 1.0 / 3);
    assert_true(share[0] == 0 && share[3] == 0 && share[4] == 0);
    params.top_k = 50;
    measure(params, logits, 5, share);
    assert_share(share[0], 0.1);
}

static void top_p_keeps_the_smallest_set_above_p(void **state)
{
    const float logits[] = {logf(0.1F), logf(0.5F), logf(0.25F), logf(0.15F)};
    struct qy_sampler_params params = plain;
    double share[4];
    (void)state;
    params.top_p = 0.6F;
    measure(params, logits, 4, share);
    assert_share(share[1], 2.0 / 3);
    assert_share(share[2], 1.0 / 3);
    assert_true(share[0] == 0 && share[3] == 0);
    params.top_p = 0.01F; /* one always stays */
    measure(params, logits, 4, share);
    assert_true(share[1] > 0.999);
    params.top_p = 0.7F; /* of the three that top-k leaves: 0.555, 0.277, 0.166 */
    params.top_k = 3;
    measure(params, logits, 4, share);
    assert_share(share[1], 2.0 / 3);
    assert_true(share[3] == 0);
}

static void top_p_counts_before_the_temperature(void **state)
{
    const float logits[] = {logf(0.5F), logf(0.3F), logf(0.2F)};
    struct qy_sampler_params params = plain;
    double share[3];
    (void)state;
    params.top_p = 0.7F;
    params.temperature = 100; /* all but equal, were it applied first */
    measure(params, logits, 3, share);
    assert_share(share[0], 0.5);
    assert_share(share[1], 0.5);
    assert_true(share[2] == 0);
}

static void min_p_drops_what_is_far_below_the_largest(void **state)
{
    const float logits[] = {logf(0.05F), logf(0.5F), logf(0.3F), logf(0.15F)};
    struct qy_sampler_params params = plain;
    double share[4];
    (void)state;
    for (int with_top_k = 0; with_top_k < 2; with_top_k++) {
        params.min_p = 0.25F; /* 0.125 and more */
        params.top_k = with_top_k ? 4 : 0;
        measure(params, logits, 4, share);
        assert_share(share[1], 0.5 / 0.95);
        assert_share(share[3], 0.15 / 0.95);
        assert_true(share[0] == 0);
    }
}

static void next_with_one_seed_gives_one_sequence(void **state)
{
    float logits[1000];
    struct qy_sampler_params params = {.temperature = 1.3F, .top_k = 40, .top_p = 0.95F, .seed = 3};
    int differ = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        logits[i] = (float)((i * 7919) % 1000) / 100;
    }
    struct qy_sampler *a = open_sampler(1000, params);
    struct qy_sampler *b = open_sampler(1000, params);
    params.seed = 4;
    struct qy_sampler *c = open_sampler(1000, params);
    for (int i = 0; i < 200; i++) {
        int32_t id = qy_sampler_next(a, logits, NULL);
        assert_int_equal(id, qy_sampler_next(b, logits, NULL));
        differ += id != qy_sampler_next(c, logits, NULL);
    }
    assert_true(differ > 50);
    qy_sampler_close(a);
    qy_sampler_close(b);
    qy_sampler_close(c);
}

static void open_with_a_bad_value_names_it(void **state)
{
    static const struct {
        struct qy_sampler_params params;
        const char *word;
    } bad[] = {{{.temperature = -1, .top_p = 1}, "temperature"},
               {{.temperature = NAN, .top_p = 1}, "temp"},
               {{.temperature = 1, .top_k = -1, .top_p = 1}, "top-k"},
               {{.temperature = 1}, "top-p"},
               {{.temperature = 1, .top_p = 1.5F}, "top-p"},
               {{.temperature = 1, .top_p = NAN}, "top-p"},
               {{.temperature = 1, .top_p = 1, .min_p = -0.1F}, "min-p"}};
    struct qy_allocator mem = qy_allocator_system();
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct qy_sampler *s;
        struct qy_error err;
        assert_int_equal(qy_sampler_open(&mem, 5, &bad[i].params, &s, &err), QY_ERR_INVALID);
        assert_non_null(strstr(err.text, bad[i].word));
    }
}

static void open_without_memory_leaks_nothing(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_sampler *s;
        enum qy_status st = qy_sampler_open(&mem, 100, &plain, &s, NULL);
        if (st == QY_OK) {
            long calls = f.calls;
            float logits[100] = {0};
            assert_in_range(qy_sampler_next(s, logits, NULL), 0, 99);
            assert_int_equal(f.calls, calls); /* next takes no memory */
            qy_sampler_close(s);
        }
        assert_int_equal(f.live, 0);
        if (st == QY_OK) {
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
    }
}

static void log_prob_is_exact_far_from_zero(void **state)
{
    const float logits[] = {10000, 10001, 9999, -INFINITY};
    double total = 1 + exp(1) + exp(-1);
    (void)state;
    assert_true(fabs(qy_log_prob(logits, 4, 0) + log(total)) < 1e-12);
    assert_true(fabs(qy_log_prob(logits, 4, 1) - 1 + log(total)) < 1e-12);
    assert_true(isinf(qy_log_prob(logits, 4, 3)));
    assert_true(isnan(qy_log_prob(logits, 4, 4)));
    assert_true(isnan(qy_log_prob(logits, 4, -1)));
    const float broken[] = {1, NAN};
    assert_true(isnan(qy_log_prob(broken, 2, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lower_id_of_equals),
        cmocka_unit_test(next_with_nan_or_nothing_finite_refuses),
        cmocka_unit_test(draw_follows_the_distribution),
        cmocka_unit_test(top_k_keeps_the_k_largest),
        cmocka_unit_test(top_p_keeps_the_smallest_set_above_p),
        cmocka_unit_test(top_p_counts_before_the_temperature),
        cmocka_unit_test(min_p_drops_what_is_far_below_the_largest),
        cmocka_unit_test(next_with_one_seed_gives_one_sequence),
        cmocka_unit_test(open_with_a_bad_value_names_it),
        cmocka_unit_test(open_without_memory_leaks_nothing),
        cmocka_unit_test(log_prob_is_exact_far_from_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
