/* SPDX-License-Identifier: Apache-2.0 */
/* Index of policy clusters: what is in a cluster, when clusters are made, what means are worth. */
#include "tests/unit/retrieval/learnt_bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "retrieval/clusters_index.h"

enum { N = 700, GROUP = 2, SLAB = 1 };

/* Mean key or value of cluster c, as stored. */
static void read_mean(const struct qyi_clusters_slab *slab, uint32_t c, int value, float *x)
{
    const uint8_t *from = slab->rows + c * qy_row_bytes(QY_ROW_F16, LBED_D) +
                          (value ? (size_t)LBED_D * sizeof(uint16_t) : 0);

    for (uint32_t i = 0; i < LBED_D; i++) {
        uint16_t half;

        memcpy(&half, from + i * sizeof(half), sizeof(half));
        x[i] = qy_f32_from_f16(half);
    }
}

static void index_open(struct lbed *bed, struct qyi_clusters_index **index, uint32_t max_tokens)
{
    struct qy_error err;

    lbed_open(bed, max_tokens, GROUP);
    assert_int_equal(qyi_clusters_open(&bed->params, index, &err), QY_OK);
}

static void index_close(struct lbed *bed, struct qyi_clusters_index *index)
{
    qyi_clusters_close(index);
    lbed_close(bed);
}

static void update(struct lbed *bed, struct qyi_clusters_index *index, uint32_t n_tokens)
{
    const struct qy_sequence_view view = lbed_view(bed, n_tokens);
    struct qy_error err;

    assert_int_equal(qyi_clusters_update(index, &view, &err), QY_OK);
}

/* Each token of lo .. end - 1 is in one cluster, ascending; the means are those of the members. */
static void check_partition(const struct lbed *bed, const struct qyi_clusters_index *index)
{
    const struct qyi_clusters_sequence *s = &index->sequences[1];
    const struct qyi_clusters_slab *slab = &s->slabs[SLAB];
    const uint32_t end = qyi_clusters_end(s);
    uint8_t *seen = calloc(end, 1);

    assert_non_null(seen);
    assert_int_equal(slab->begin[0], 0);
    assert_int_equal(slab->begin[qyi_clusters_count(s)], end - LBED_LO);
    for (uint32_t c = 0; c < qyi_clusters_count(s); c++) {
        const uint32_t size = slab->begin[c + 1] - slab->begin[c];
        double mean[2][LBED_D] = {{0.0}};
        float stored[LBED_D];

        for (uint32_t m = slab->begin[c]; m < slab->begin[c + 1]; m++) {
            const uint32_t t = slab->members[m];

            assert_in_range(t, LBED_LO, end - 1);
            assert_false(seen[t]);
            assert_true(m == slab->begin[c] || slab->members[m - 1] < t);
            seen[t] = 1;
            for (uint32_t i = 0; i < LBED_D; i++) {
                mean[0][i] += (double)lbed_k(bed, SLAB, t)[i] / size;
                mean[1][i] += (double)lbed_v(bed, SLAB, t)[i] / size;
            }
        }
        for (int value = 0; value < 2 && size > 0; value++) {
            read_mean(slab, c, value, stored);
            for (uint32_t i = 0; i < LBED_D; i++) {
                assert_true(fabs((double)stored[i] - mean[value][i]) < 4e-3);
            }
        }
        assert_true(size > 0 ? fabs((double)slab->log_size[c] - log(size)) < 1e-6
                             : slab->log_size[c] == -INFINITY);
    }
    free(seen);
}

static void clusters_hold_each_token_once(void **state)
{
    struct qyi_clusters_index *index = NULL;
    struct lbed bed;

    (void)state;
    index_open(&bed, &index, N);
    update(&bed, index, N - 1);
    assert_int_equal(qyi_clusters_count(&index->sequences[1]), (N - LBED_WINDOW - LBED_LO) / 16);
    check_partition(&bed, index);
    index_close(&bed, index);
}

static void clusters_are_made_a_thousand_at_a_time(void **state)
{
    const uint32_t begin = 300;
    const uint32_t end = begin + 1 - LBED_WINDOW;
    struct qyi_clusters_index *index = NULL;
    struct lbed bed;

    (void)state;
    index_open(&bed, &index, 3000);
    const struct qyi_clusters_sequence *s = &index->sequences[1];
    update(&bed, index, begin);
    assert_int_equal(qyi_clusters_end(s), end);
    const uint32_t first = qyi_clusters_count(s);
    update(&bed, index, begin + QYI_CLUSTERS_UPDATE - 1);
    assert_int_equal(qyi_clusters_end(s), end);
    update(&bed, index, begin + QYI_CLUSTERS_UPDATE);
    assert_int_equal(qyi_clusters_end(s), end + QYI_CLUSTERS_UPDATE);
    assert_int_equal(qyi_clusters_count(s), first + QYI_CLUSTERS_UPDATE / 16);
    check_partition(&bed, index);

    qyi_clusters_forget(index, 1, end + QYI_CLUSTERS_UPDATE); /* all of them are still there */
    assert_int_equal(s->n_cuts, 2);
    qyi_clusters_forget(index, 1, end + QYI_CLUSTERS_UPDATE - 1);
    assert_int_equal(s->n_cuts, 1);
    assert_int_equal(qyi_clusters_end(s), end);
    update(&bed, index, 2900);
    assert_int_equal(qyi_clusters_end(s), 2901 - LBED_WINDOW);
    check_partition(&bed, index);
    qyi_clusters_forget(index, 1, 0);
    assert_int_equal(s->n_cuts, 0);
    index_close(&bed, index);
}

static void clusters_of_several_segments_hold_each_token_once(void **state)
{
    struct qyi_clusters_index *index = NULL;
    struct qy_error err;
    struct lbed bed;

    (void)state;
    lbed_open(&bed, N, GROUP);
    bed.settings.cluster_segment = 200;
    assert_int_equal(qyi_clusters_open(&bed.params, &index, &err), QY_OK);
    update(&bed, index, N - 1);
    assert_int_equal(index->sequences[1].n_cuts, 4);
    check_partition(&bed, index);
    index_close(&bed, index);
}

/* size * exp(q . mean) is at most the sum of exp(q . k): Jensen. f16 means move it a little. */
static void clusters_estimate_is_never_above_the_exact_mass(void **state)
{
    struct qyi_clusters_index *index = NULL;
    struct lbed bed;
    float q[GROUP * LBED_D];
    float mean[LBED_D];
    double estimated = 0.0;
    double exact = 0.0;

    (void)state;
    index_open(&bed, &index, N);
    update(&bed, index, N - 1);
    const struct qyi_clusters_sequence *s = &index->sequences[1];
    const struct qyi_clusters_slab *slab = &s->slabs[SLAB];
    for (uint32_t seed = 1; seed <= 20; seed++) {
        lbed_query(&bed, q, seed);
        for (uint32_t c = 0; c < qyi_clusters_count(s); c++) {
            double mass = 0.0;

            for (uint32_t m = slab->begin[c]; m < slab->begin[c + 1]; m++) {
                mass += exp((double)bed.params.scale *
                            lbed_dot(q, lbed_k(&bed, SLAB, slab->members[m])));
            }
            read_mean(slab, c, 0, mean);
            const double guess =
                exp((double)slab->log_size[c] + (double)bed.params.scale * lbed_dot(q, mean));
            assert_true(guess <= mass * 1.003);
            estimated += guess;
            exact += mass;
        }
    }
    assert_true(estimated > 0.7 * exact); /* and it is an estimate, not a bound far away */
    index_close(&bed, index);
}

static void open_fails_when_any_allocation_does(void **state)
{
    struct lbed bed;
    struct qy_error err;

    (void)state;
    lbed_open(&bed, N, GROUP);
    const long before = bed.alloc.live;
    for (long n = 0;; n++) {
        bed.alloc.fail_at = bed.alloc.calls + n;
        if (lbed_policy(&bed, "clusters", &err) == QY_OK) {
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
        cmocka_unit_test(clusters_hold_each_token_once),
        cmocka_unit_test(clusters_are_made_a_thousand_at_a_time),
        cmocka_unit_test(clusters_of_several_segments_hold_each_token_once),
        cmocka_unit_test(clusters_estimate_is_never_above_the_exact_mass),
        cmocka_unit_test(open_fails_when_any_allocation_does),
    };
    return cmocka_run_group_tests_name("retrieval.clusters", tests, NULL, NULL);
}
