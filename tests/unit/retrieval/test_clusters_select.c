/* SPDX-License-Identifier: Apache-2.0 */
/* Select of policy clusters: what the exact zone takes, and what the estimate is worth. */
#include "tests/unit/retrieval/learnt_bed.h"

#include <math.h>
#include <string.h>

#include "retrieval/clusters_index.h"

enum { N = 700, GROUP = 2, SLAB = 1 };

/* Softmax attention over all candidates, in f64: out [d], and its lse. */
static double attend_all(const struct lbed *bed, const float *q, uint32_t hi, double *out)
{
    double sum = 0.0;

    memset(out, 0, LBED_D * sizeof(*out));
    for (uint32_t t = LBED_LO; t < hi; t++) {
        const double p = exp((double)bed->params.scale * lbed_dot(q, lbed_k(bed, SLAB, t)));

        sum += p;
        for (uint32_t i = 0; i < LBED_D; i++) {
            out[i] += p * (double)lbed_v(bed, SLAB, t)[i];
        }
    }
    for (uint32_t i = 0; i < LBED_D; i++) {
        out[i] /= sum;
    }
    return log(sum);
}

/* Sixteen tokens of one key each: their mean is that key, and the estimate is exact. */
static void estimate_of_equal_keys_is_exact(void **state)
{
    enum { SAME = 16, HI = N - LBED_WINDOW };
    struct lbed bed;
    struct qy_error err;
    float q[GROUP * LBED_D];
    float part[GROUP * (LBED_D + 1)];
    uint32_t ids[N];
    double want[LBED_D];

    (void)state;
    lbed_open(&bed, N, GROUP);
    for (uint32_t t = 0; t < N; t++) {
        memcpy(lbed_k(&bed, SLAB, t), lbed_k(&bed, SLAB, t % (N / SAME)), LBED_D * sizeof(float));
    }
    bed.settings.cluster_tokens = 8; /* more clusters than keys, so that each has its own */
    bed.settings.cluster_estimated = 1.0;
    assert_int_equal(lbed_policy(&bed, "clusters", &err), QY_OK);
    lbed_prepare(&bed, N - 1);
    lbed_query(&bed, q, 5);
    assert_int_equal(lbed_select(&bed, SLAB, N - 1, 0, q, ids, part), 0);
    for (uint32_t g = 0; g < GROUP; g++) {
        const double lse = attend_all(&bed, q + (size_t)g * LBED_D, HI, want);

        assert_true(fabs((double)part[GROUP * LBED_D + g] - lse) < 5e-3);
        for (uint32_t i = 0; i < LBED_D; i++) {
            assert_true(fabs((double)part[g * LBED_D + i] - want[i]) < 5e-3);
        }
    }
    lbed_close_policy(&bed);
    lbed_close(&bed);
}

static void select_takes_the_budget_and_leaves_it_out_of_the_estimate(void **state)
{
    struct lbed bed;
    struct qy_error err;
    float q[GROUP * LBED_D];
    float part[GROUP * (LBED_D + 1)];
    uint32_t ids[N];
    double out[LBED_D];
    const uint32_t hi = N - LBED_WINDOW;

    (void)state;
    lbed_open(&bed, N, GROUP);
    bed.settings.cluster_estimated = 1.0;
    assert_int_equal(lbed_policy(&bed, "clusters", &err), QY_OK);
    lbed_prepare(&bed, N - 1);
    for (uint32_t k = 1; k <= hi - LBED_LO; k += 97) {
        lbed_query(&bed, q, k);
        assert_int_equal(lbed_select(&bed, SLAB, N - 1, k, q, ids, part), k);
        for (uint32_t g = 0; g < GROUP; g++) {
            double mass = exp((double)part[GROUP * LBED_D + g]);

            for (uint32_t i = 0; i < k; i++) {
                mass += exp((double)bed.params.scale *
                            lbed_dot(q + (size_t)g * LBED_D, lbed_k(&bed, SLAB, ids[i])));
            }
            assert_true(log(mass) <= attend_all(&bed, q + (size_t)g * LBED_D, hi, out) + 3e-3);
        }
    }
    bed.settings.cluster_estimated = 0.0;
    lbed_close_policy(&bed);
    assert_int_equal(lbed_policy(&bed, "clusters", &err), QY_OK);
    lbed_prepare(&bed, N - 1);
    assert_int_equal(lbed_select(&bed, SLAB, N - 1, 30, q, ids, part), 30);
    assert_true(part[GROUP * LBED_D] == -INFINITY);
    lbed_close_policy(&bed);
    lbed_close(&bed);
}

/* pooled [clusters]: mean over the group of softmax(q . mean key) over the clusters, in f64. */
static void pool_clusters(const struct lbed *bed, const struct qyi_clusters_sequence *s,
                          const float *q, double *pooled)
{
    const struct qyi_clusters_slab *slab = &s->slabs[SLAB];
    const uint32_t n = qyi_clusters_count(s);

    memset(pooled, 0, n * sizeof(*pooled));
    for (uint32_t g = 0; g < GROUP; g++) {
        double shares[N] = {0.0};
        double sum = 0.0;

        for (uint32_t c = 0; c < n; c++) {
            const uint32_t size = slab->begin[c + 1] - slab->begin[c];
            double score = 0.0; /* the mean of scores is the score of the mean */

            for (uint32_t m = slab->begin[c]; m < slab->begin[c + 1]; m++) {
                score += lbed_dot(q + (size_t)g * LBED_D, lbed_k(bed, SLAB, slab->members[m]));
            }
            shares[c] = size > 0 ? exp((double)bed->params.scale * score / size) : 0.0;
            sum += shares[c];
        }
        for (uint32_t c = 0; c < n; c++) {
            pooled[c] += shares[c] / sum / GROUP;
        }
    }
}

/* No cluster that is left is better than one that was taken, and one at most is cut. */
static void expect_best_clusters(const struct qyi_clusters_sequence *s, const double *pooled,
                                 const uint32_t *ids, uint32_t n_ids)
{
    const struct qyi_clusters_slab *slab = &s->slabs[SLAB];
    uint8_t taken[N] = {0};
    double best_left = 0.0;
    double worst_taken = INFINITY;
    uint32_t n_cut = 0;

    for (uint32_t i = 0; i < n_ids; i++) {
        taken[ids[i]] = 1;
    }
    for (uint32_t c = 0; c < qyi_clusters_count(s); c++) {
        const uint32_t size = slab->begin[c + 1] - slab->begin[c];
        uint32_t n = 0;

        for (uint32_t m = slab->begin[c]; m < slab->begin[c + 1]; m++) {
            n += taken[slab->members[m]];
        }
        worst_taken = n > 0 ? fmin(worst_taken, pooled[c]) : worst_taken;
        best_left = n < size ? fmax(best_left, pooled[c]) : best_left;
        n_cut += n > 0 && n < size;
    }
    assert_true(best_left <= worst_taken * 1.01); /* means are stored in f16 */
    assert_in_range(n_cut, 0, 1);
}

static void exact_zone_is_the_best_clusters(void **state)
{
    struct qyi_clusters_index *index = NULL; /* learnt as the policy learns its own */
    struct lbed bed;
    struct qy_error err;
    float q[GROUP * LBED_D];
    uint32_t ids[N];
    double pooled[N];

    (void)state;
    lbed_open(&bed, N, GROUP);
    const struct qy_sequence_view view = lbed_view(&bed, N - 1);
    assert_int_equal(qyi_clusters_open(&bed.params, &index, &err), QY_OK);
    assert_int_equal(qyi_clusters_update(index, &view, &err), QY_OK);
    assert_int_equal(lbed_policy(&bed, "clusters", &err), QY_OK);
    lbed_prepare(&bed, N - 1);
    for (uint32_t k = 1; k < 400; k += 57) {
        lbed_query(&bed, q, k);
        pool_clusters(&bed, &index->sequences[1], q, pooled);
        assert_int_equal(lbed_select(&bed, SLAB, N - 1, k, q, ids, NULL), k);
        expect_best_clusters(&index->sequences[1], pooled, ids, k);
    }
    lbed_close_policy(&bed);
    qyi_clusters_close(index);
    lbed_close(&bed);
}

/* exp(scale * q . k) of the ids together; of the n_ids largest there are when ids is NULL. */
static double mass_of(const struct lbed *bed, const float *q, const uint32_t *ids, uint32_t n_ids)
{
    double share[N] = {0.0};
    double sum = 0.0;

    for (uint32_t t = LBED_LO; t < N - LBED_WINDOW; t++) {
        share[t] = exp((double)bed->params.scale * lbed_dot(q, lbed_k(bed, SLAB, t)));
    }
    for (uint32_t i = 0; i < n_ids; i++) {
        uint32_t best = ids ? ids[i] : 0;

        for (uint32_t t = 0; !ids && t < N; t++) {
            best = share[t] > share[best] ? t : best;
        }
        sum += share[best];
        share[best] = 0.0;
    }
    return sum;
}

/* Clusters are of like keys: a budget finds most of what it could, token by token. */
static void exact_zone_has_most_of_the_mass(void **state)
{
    enum { K = 96 };
    struct lbed bed;
    struct qy_error err;
    float q[GROUP * LBED_D];
    uint32_t ids[N];
    double found = 0.0;
    double most = 0.0;

    (void)state;
    lbed_open(&bed, N, GROUP);
    assert_int_equal(lbed_policy(&bed, "clusters", &err), QY_OK);
    lbed_prepare(&bed, N - 1);
    for (uint32_t seed = 1; seed <= 20; seed++) {
        lbed_query(&bed, q, seed);
        memcpy(q + LBED_D, q, LBED_D * sizeof(*q)); /* both heads want the same */
        assert_int_equal(lbed_select(&bed, SLAB, N - 1, K, q, ids, NULL), K);
        found += mass_of(&bed, q, ids, K);
        most += mass_of(&bed, q, NULL, K);
    }
    assert_true(found > 0.9 * most);
    lbed_close_policy(&bed);
    lbed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimate_of_equal_keys_is_exact),
        cmocka_unit_test(select_takes_the_budget_and_leaves_it_out_of_the_estimate),
        cmocka_unit_test(exact_zone_is_the_best_clusters),
        cmocka_unit_test(exact_zone_has_most_of_the_mass),
    };
    return cmocka_run_group_tests_name("retrieval.clusters_select", tests, NULL, NULL);
}
