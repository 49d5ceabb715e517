/* SPDX-License-Identifier: Apache-2.0 */
/* Policies on keys that are made to be hard, easy or wrong: a needle that must be found, keys that
 * are all equal or all zero, a NaN. */
#include "tests/conformance/policy_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 260, NEEDLE = 117, NEEDLE_STREAM = 1 };

static void open_edited(struct prig *rig, const struct policy_case *c,
                        void (*edit)(struct prig_row *row), int no_rope)
{
    struct prig_options o = policy_case_options(c);

    o.edit = edit;
    o.no_rope = no_rope;
    assert_true(prig_open(rig, &o));
}

/* The heads' size is not in a row: this test's cases, one at a time. */
static uint32_t case_d, case_heads;

/* Elements of the slowest eighth of the pairs: turning leaves them nearly as they are. */
static int is_slow(uint32_t i)
{
    const uint32_t half = case_d / 2;

    return i % half >= half - half / 8;
}

/* The query is the needle's key many times over; no other key has much in those elements. */
static void plant(struct prig_row *row)
{
    const float large = 64.0F / sqrtf((float)case_d);
    const int needle = row->token == NEEDLE;

    for (uint32_t h = 0; h < case_heads; h++) {
        for (uint32_t i = 0; i < case_d; i++) {
            row->q[h * case_d + i] = is_slow(i) ? large : 0.05F * row->q[h * case_d + i];
        }
    }
    for (uint32_t i = 0; i < PRIG_KV_HEADS * case_d; i++) {
        if (needle) {
            row->k[i] = is_slow(i % case_d) ? large : 0.0F;
            row->v[i] = 5.0F;
        } else if (is_slow(i % case_d)) {
            row->k[i] *= 0.05F;
        }
    }
}

static void check_needle(const struct policy_case *c)
{
    struct prig rig;

    if (!policy_case_selects(c)) {
        return;
    }
    case_d = c->d;
    case_heads = PRIG_KV_HEADS * c->group;
    open_edited(&rig, c, plant, 0);
    struct qy_sequence *seq = prig_sequence(&rig);
    float *out = calloc((size_t)PRIG_LAYERS * rig.out, sizeof(*out));
    assert_non_null(out);
    prig_fill(&rig, seq, NEEDLE_STREAM, N, 128);
    prig_next(&rig, seq, NEEDLE_STREAM, out);
    for (uint32_t i = 0; i < PRIG_LAYERS * rig.out; i++) {
        if (fabsf(out[i] - 5.0F) > 0.5F) {
            fail_msg("%s (%s, d %u, group %u): output %u is %f: the needle was not found",
                     c->policy, qy_cpu_level_name(c->level), c->d, c->group, i, (double)out[i]);
        }
    }
    free(out);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void policy_finds_a_needle(void **state)
{
    (void)state;
    policy_cases_run(check_needle);
}

/* ---- all equal ------------------------------------------------------------------------------- */

static void level_keys(struct prig_row *row)
{
    for (uint32_t i = 0; i < PRIG_KV_HEADS * case_d; i++) {
        row->k[i] = i % 2 == 0 ? 0.5F : -0.25F;
    }
}

static void zero_keys(struct prig_row *row)
{
    memset(row->k, 0, PRIG_KV_HEADS * case_d * sizeof(*row->k));
    memset(row->q, 0, case_heads * case_d * sizeof(*row->q));
}

static void check_edited(const struct policy_case *c, void (*edit)(struct prig_row *row),
                         int no_rope)
{
    struct prig rig;

    case_d = c->d;
    case_heads = PRIG_KV_HEADS * c->group;
    open_edited(&rig, c, edit, no_rope);
    struct qy_sequence *seq = prig_sequence(&rig);
    float *out = calloc((size_t)PRIG_LAYERS * rig.out, sizeof(*out));
    assert_non_null(out);
    prig_fill(&rig, seq, 1, N, N);
    for (uint32_t i = 0; i < 3; i++) {
        prig_next(&rig, seq, 1, out); /* which looks at every output */
    }
    free(out);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void check_level(const struct policy_case *c)
{
    check_edited(c, level_keys, 1);
    check_edited(c, level_keys, 0);
}

static void check_zero(const struct policy_case *c)
{
    check_edited(c, zero_keys, 1);
}

static void policy_takes_equal_keys(void **state)
{
    (void)state;
    policy_cases_run(check_level);
}

static void policy_takes_zero_keys(void **state)
{
    (void)state;
    policy_cases_run(check_zero);
}

/* ---- the estimate of a2ats+ --------------------------------------------------------------------- */

static uint32_t asked_estimate;

static void set_estimate(struct qy_retrieval_settings *settings)
{
    settings->preset = QY_PRESET_FAST;
    settings->estimate = asked_estimate;
}

/* Largest distance of a token's outputs from those of dense attention. */
static double distance_from_dense(uint32_t estimate)
{
    const struct prig_options o = {.policy = "a2ats+",
                                   .budget = "9",
                                   .d = 64,
                                   .group = 3,
                                   .block_tokens = 32,
                                   .level = QY_CPU_PLAIN,
                                   .no_rope = 1,
                                   .edit = zero_keys,
                                   .set = set_estimate};
    struct prig rig;
    double most = 0.0;

    case_d = o.d;
    case_heads = PRIG_KV_HEADS * o.group;
    asked_estimate = estimate;
    assert_true(prig_open(&rig, &o));
    struct qy_sequence *seq = prig_sequence(&rig);
    float *out = calloc((size_t)2 * PRIG_LAYERS * rig.out, sizeof(*out));
    float *dense = out + (size_t)PRIG_LAYERS * rig.out;
    const struct prig_feed feed = {.seq = seq, .stream = 1, .n = 1, .mode = QY_ATTEND_DENSE};
    assert_non_null(out);
    prig_fill(&rig, seq, 1, N, 37);
    prig_next(&rig, seq, 1, out);
    assert_int_equal(qy_sequence_truncate(seq, N), QY_OK);
    assert_int_equal(prig_step(&rig, &feed, 1, dense), QY_OK);
    for (uint32_t i = 0; i < PRIG_LAYERS * rig.out; i++) {
        most = fmax(most, fabs((double)out[i] - (double)dense[i]));
    }
    free(out);
    qy_sequence_close(seq);
    prig_close(&rig);
    return most;
}

/* Where every token weighs the same, as many draws as there are tokens are each of them once. */
static void estimate_of_equal_scores_is_dense(void **state)
{
    (void)state;
    assert_true(distance_from_dense(N + 1 - 4 - 64 - 9) < 1e-5); /* sinks, window, budget */
    assert_true(distance_from_dense(0) > 1e-2);
}

/* ---- NaN --------------------------------------------------------------------------------------- */

static uint32_t bad_token;

static void spoil(struct prig_row *row)
{
    if (row->token == bad_token && row->stream == 2) {
        row->k[1] = NAN;
    }
}

/* A step with a NaN key fails as a whole, and the cache works on without it. */
static void check_nan(const struct policy_case *c)
{
    struct prig rig;

    case_d = c->d;
    case_heads = PRIG_KV_HEADS * c->group;
    open_edited(&rig, c, spoil, 0);
    struct qy_sequence *seq = prig_sequence(&rig);
    struct qy_sequence *good = prig_sequence(&rig);
    float *out = calloc((size_t)PRIG_LAYERS * rig.out, sizeof(*out));
    float *same = calloc((size_t)PRIG_LAYERS * rig.out, sizeof(*same));
    assert_true(out && same);
    bad_token = 250;
    const struct prig_feed chunk = {.seq = seq, .stream = 2, .n = 100, .mode = QY_ATTEND_DENSE};
    const struct prig_feed one = {.seq = seq, .stream = 2, .n = 1};

    prig_fill(&rig, seq, 2, 200, 100);
    assert_int_equal(prig_step(&rig, &chunk, 1, NULL), QY_ERR_CORRUPT);
    assert_int_equal(qy_sequence_tokens(seq), 200);
    prig_fill(&rig, seq, 2, 50, 50);
    assert_int_equal(prig_step(&rig, &one, 1, NULL), QY_ERR_CORRUPT);
    assert_int_equal(qy_sequence_tokens(seq), 250);
    bad_token = UINT32_MAX;
    prig_next(&rig, seq, 2, out);
    prig_fill(&rig, good, 2, 250, 250);
    prig_next(&rig, good, 2, same);
    assert_memory_equal(out, same, (size_t)PRIG_LAYERS * rig.out * sizeof(*out));
    free(same);
    free(out);
    qy_sequence_close(good);
    qy_sequence_close(seq);
    prig_close(&rig);
}

static void policy_step_with_a_nan_key_fails_alone(void **state)
{
    (void)state;
    policy_cases_run(check_nan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_finds_a_needle),
        cmocka_unit_test(policy_takes_equal_keys),
        cmocka_unit_test(policy_takes_zero_keys),
        cmocka_unit_test(estimate_of_equal_scores_is_dense),
        cmocka_unit_test(policy_step_with_a_nan_key_fails_alone),
    };
    return cmocka_run_group_tests_name("retrieval.policies_keys", tests, NULL, NULL);
}
