/* SPDX-License-Identifier: Apache-2.0 */
/* What the cache does with a policy's answer: lists per query head, estimates of the rest, and who
 * watches. */
#include "tests/unit/offload/probe.h"

#include "offload/cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 150, STREAM = 4 };
#define BOUND 1e-5 /* rows in f32: rounding of sums of a few hundred terms */

/* One token after N of the stream; out [RIG_LAYERS][RIG_OUT]. */
static void decode_one(struct rig *rig, struct qy_sequence *seq, enum qy_attend_mode mode,
                       float *out)
{
    const struct rig_feed feed = {.seq = seq, .stream = STREAM, .n = 1, .mode = mode, .out = out};

    assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
}

static struct qy_sequence *open_and_prefill(struct rig *rig, const struct rig_options *options)
{
    rig_open(rig, options);
    struct qy_sequence *seq = rig_sequence(rig);
    rig_prefill(rig, seq, STREAM, N, N, NULL);
    return seq;
}

/* ---- lists per query head -------------------------------------------------------------------- */

static void choose_per_head(const struct qy_select_item *item)
{
    /* all the room that is promised may be written */
    memset(item->ids, 0xff, (size_t)item->group * item->k * sizeof(uint32_t));
    for (uint32_t i = 0; i < item->group * item->k; i++) {
        item->ids[i] = item->lo + 2 * i;
    }
    *item->n_ids = item->group * item->k;
}

static void choose_one_too_many(const struct qy_select_item *item)
{
    choose_per_head(item);
    item->ids[*item->n_ids] = item->hi - 1;
    ++*item->n_ids;
}

static void choose_all(const struct qy_select_item *item)
{
    memset(item->ids, 0xff, (size_t)item->group * item->k * sizeof(uint32_t));
    for (uint32_t i = item->lo; i < item->hi; i++) {
        item->ids[i - item->lo] = i;
    }
    *item->n_ids = item->hi - item->lo;
}

static void lists_per_head_may_be_group_times_as_long(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float out[RIG_LAYERS * RIG_OUT];
    float dense[RIG_LAYERS * RIG_OUT];
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    ops.caps.per_head = 1;
    struct qy_sequence *seq =
        open_and_prefill(&rig, &(struct rig_options){.ops = &ops, .budget = "6"});
    struct qy_policy *probe = probe_of(&rig);
    probe->on_select = choose_per_head;
    decode_one(&rig, seq, QY_ATTEND_POLICY, out);
    assert_int_equal(probe->selects[0].k, 6);
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.attended_rows,
                     (uint64_t)RIG_LAYERS * RIG_KV_HEADS * (12 + 6 * RIG_GROUP));
    rig_close(&rig);

    /* a budget whose lists together are longer than the sequence */
    seq = open_and_prefill(
        &rig, &(struct rig_options){.ops = &ops, .budget = "0.9", .max_tokens = N + 10});
    probe_of(&rig)->on_select = choose_all;
    decode_one(&rig, seq, QY_ATTEND_POLICY, out);
    assert_int_equal(qy_sequence_truncate(seq, N), QY_OK);
    decode_one(&rig, seq, QY_ATTEND_DENSE, dense);
    for (int i = 0; i < RIG_LAYERS * RIG_OUT; i++) {
        assert_float_equal(out[i], dense[i], BOUND);
    }
    rig_close(&rig);
}

/* The status of a layer's attention with this choice. */
static enum qy_status answer_status(const struct qy_policy_ops *ops,
                                    void (*on_select)(const struct qy_select_item *item))
{
    const int32_t id = 3;
    float row[RIG_STRIDE];
    float out[RIG_OUT];
    struct rig rig;
    const struct qy_qkv args = {
        .q = row, .k = row + RIG_K_AT, .v = row + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    struct qy_sequence *seq =
        open_and_prefill(&rig, &(struct rig_options){.ops = ops, .budget = "6"});
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = &id};

    probe_of(&rig)->on_select = on_select;
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
    rig_qkv(STREAM, 0, N, row);
    const enum qy_status st = qy_step_attend(rig.cache, 0, &args);
    qy_step_abort(rig.cache);
    rig_close(&rig);
    return st;
}

static void lists_longer_than_the_budget_are_refused(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    (void)state;

    assert_int_equal(answer_status(&ops, choose_per_head), QY_ERR_INVALID); /* counts per head */
    ops.caps.per_head = 1;
    assert_int_equal(answer_status(&ops, choose_per_head), QY_OK);
    assert_int_equal(answer_status(&ops, choose_one_too_many), QY_ERR_INVALID);
}

/* ---- estimates ------------------------------------------------------------------------------- */

enum { STEP = 20 }; /* every so many candidates are chosen */

static void choose_some(const struct qy_select_item *item)
{
    *item->n_ids = 0;
    for (uint32_t id = item->lo; id < item->hi; id += STEP) {
        item->ids[(*item->n_ids)++] = id;
    }
}

/* Exact attention of query head g over the candidates that are not chosen, as the estimate. */
static void estimate_rest(const struct qy_select_item *item, uint32_t g)
{
    double out[RIG_D] = {0};
    double sum = 0.0;

    for (uint32_t id = item->lo; id < item->hi; id++) {
        const float *row = (const float *)(const void *)qy_row_at(&item->rows, id);
        double dot = 0.0;

        if ((id - item->lo) % STEP == 0) {
            continue;
        }
        for (int i = 0; i < RIG_D; i++) {
            dot += (double)item->q[g * RIG_D + (uint32_t)i] * row[i];
        }
        const double weight = exp(dot / sqrt(RIG_D));
        sum += weight;
        for (int i = 0; i < RIG_D; i++) {
            out[i] += weight * row[RIG_D + i];
        }
    }
    for (int i = 0; i < RIG_D; i++) {
        item->part_out[g * RIG_D + (uint32_t)i] = (float)(out[i] / sum);
    }
    item->part_lse[g] = (float)log(sum);
}

/* KV head 0: every query head. KV head 1: of the last layer the middle one, else none. */
static int has_estimate(uint32_t layer, uint32_t kv_head, uint32_t g)
{
    return kv_head == 0 || (layer == RIG_LAYERS - 1 && g == 1);
}

static void choose_and_estimate(const struct qy_select_item *item)
{
    choose_some(item);
    for (uint32_t g = 0; g < item->group; g++) {
        assert_true(isinf(item->part_lse[g]) && item->part_lse[g] < 0.0F); /* as promised */
        if (has_estimate(item->layer, item->kv_head, g)) {
            estimate_rest(item, g);
        }
    }
}

/* Sinks, what choose_some chooses, window. */
static uint32_t attended_ids(uint32_t n, uint32_t *ids)
{
    uint32_t n_ids = 0;

    for (uint32_t id = 0; id < n; id++) {
        if (id < 4 || id >= n - 8 || (id - 4) % STEP == 0) {
            ids[n_ids++] = id;
        }
    }
    return n_ids;
}

static void expect_merged(const float *out, uint32_t layer)
{
    struct rig_reference ref;
    uint32_t ids[N + 1];
    const uint32_t n_ids = attended_ids(N + 1, ids);

    rig_reference_open(&ref, STREAM, layer, N + 1, QY_ROPE_ADJACENT);
    for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
        double all[RIG_GROUP * RIG_D];
        double some[RIG_GROUP * RIG_D];

        rig_reference_attend(&ref, N, h, NULL, 0, all);
        rig_reference_attend(&ref, N, h, ids, n_ids, some);
        assert_true(fabs(all[0] - some[0]) > 100 * BOUND); /* the parts do differ */
        for (uint32_t g = 0; g < RIG_GROUP; g++) {
            const double *want = has_estimate(layer, h, g) ? all : some;

            assert_true(rig_difference(out + (size_t)(h * RIG_GROUP + g) * RIG_D, want + g * RIG_D,
                                       RIG_D) <= BOUND);
        }
    }
    rig_reference_close(&ref);
}

/* When the estimate is the exact rest, the answer is attention over everything. */
static void estimate_of_the_exact_rest_gives_attention_to_all(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float out[RIG_LAYERS * RIG_OUT];
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    ops.caps.partial = 1;
    struct qy_sequence *seq =
        open_and_prefill(&rig, &(struct rig_options){.ops = &ops, .budget = "20", .threads = 2});
    probe_of(&rig)->on_select = choose_and_estimate;
    decode_one(&rig, seq, QY_ATTEND_POLICY, out);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        expect_merged(out + (size_t)layer * RIG_OUT, layer);
    }
    qy_cache_stats(rig.cache, &stats); /* what is estimated is not attended */
    uint32_t ids[N + 1];
    assert_int_equal(stats.attended_rows,
                     (uint64_t)RIG_LAYERS * RIG_KV_HEADS * attended_ids(N + 1, ids));
    rig_close(&rig);
}

/* In a step with a chunk and a dense token in front, parts and items still belong together. */
static void estimates_keep_their_places_in_a_mixed_step(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float *chunk = malloc(sizeof(float) * RIG_LAYERS * 9 * RIG_OUT);
    float out[RIG_LAYERS * RIG_OUT];
    struct rig rig;
    (void)state;

    assert_non_null(chunk);
    ops.caps.partial = 1;
    struct qy_sequence *seq =
        open_and_prefill(&rig, &(struct rig_options){.ops = &ops, .budget = "20"});
    struct rig_feed feeds[3] = {
        {.seq = rig_sequence(&rig), .stream = 1, .n = 9, .out = chunk},
        {.seq = rig_sequence(&rig), .stream = 2, .n = 1, .mode = QY_ATTEND_DENSE},
        {.seq = seq, .stream = STREAM, .n = 1, .out = out}};
    rig_prefill(&rig, feeds[1].seq, 2, 40, 40, NULL);
    probe_of(&rig)->on_select = choose_and_estimate;
    assert_int_equal(rig_step(&rig, feeds, 3), QY_OK);
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        expect_merged(out + (size_t)layer * RIG_OUT, layer);
    }
    rig_close(&rig);
    free(chunk);
}

static void estimate_nan(const struct qy_select_item *item)
{
    choose_some(item);
    item->part_lse[1] = NAN;
}

static void estimate_infinite(const struct qy_select_item *item)
{
    choose_some(item);
    item->part_lse[0] = INFINITY;
}

static void estimate_none(const struct qy_select_item *item)
{
    *item->n_ids = 0;
}

static void estimates_that_are_no_numbers_are_refused(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    (void)state;

    ops.caps.partial = 1;
    ops.caps.per_head = 1; /* room for choose_some */
    assert_int_equal(answer_status(&ops, estimate_nan), QY_ERR_INVALID);
    assert_int_equal(answer_status(&ops, estimate_infinite), QY_ERR_INVALID);
    assert_int_equal(answer_status(&ops, estimate_none), QY_OK);
}

/* ---- who watches ----------------------------------------------------------------------------- */

struct watched {
    uint32_t n_calls, sequence, n_wrong;
    uint32_t seen[RIG_LAYERS][RIG_KV_HEADS];
    uint32_t want[N + 1], n_want;
};

static void watch(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head,
                  const uint32_t *ids, uint32_t n)
{
    struct watched *w = ctx;

    w->n_calls++;
    w->seen[layer][kv_head]++;
    w->sequence = sequence;
    w->n_wrong += n != w->n_want || memcmp(ids, w->want, n * sizeof(*ids)) != 0;
}

/* The whole list of every (layer, KV head) that has one, once; not of dense slices and chunks. */
static void selections_can_be_watched(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float out[RIG_LAYERS * RIG_OUT];
    float alone[RIG_LAYERS * RIG_OUT];
    struct watched w = {0};
    struct rig rig;
    (void)state;

    struct qy_sequence *seq =
        open_and_prefill(&rig, &(struct rig_options){.ops = &ops, .budget = "20"});
    probe_of(&rig)->on_select = choose_some;
    decode_one(&rig, seq, QY_ATTEND_POLICY, alone);
    rig_close(&rig);

    rig_prepare(&rig, &(struct rig_options){.ops = &ops, .budget = "20"});
    rig.params.on_selection = watch;
    rig.params.selection_ctx = &w;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    struct qy_sequence *other = rig_sequence(&rig);
    seq = rig_sequence(&rig);
    rig_prefill(&rig, other, 1, 40, 40, NULL);
    rig_prefill(&rig, seq, STREAM, N, N, NULL);
    assert_int_equal(w.n_calls, 0);
    probe_of(&rig)->on_select = choose_some;
    w.n_want = attended_ids(N + 1, w.want);
    const struct rig_feed feeds[2] = {{.seq = other, .stream = 1, .n = 1, .mode = QY_ATTEND_DENSE},
                                      {.seq = seq, .stream = STREAM, .n = 1, .out = out}};
    assert_int_equal(rig_step(&rig, feeds, 2), QY_OK);
    assert_int_equal(w.n_calls, RIG_LAYERS * RIG_KV_HEADS);
    assert_int_equal(w.n_wrong, 0);
    assert_int_equal(w.sequence, 1);
    for (uint32_t i = 0; i < RIG_LAYERS * RIG_KV_HEADS; i++) {
        assert_int_equal(w.seen[i / RIG_KV_HEADS][i % RIG_KV_HEADS], 1);
    }
    assert_memory_equal(out, alone, sizeof(out)); /* watching changes nothing */
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_per_head_may_be_group_times_as_long),
        cmocka_unit_test(lists_longer_than_the_budget_are_refused),
        cmocka_unit_test(estimate_of_the_exact_rest_gives_attention_to_all),
        cmocka_unit_test(estimates_keep_their_places_in_a_mixed_step),
        cmocka_unit_test(estimates_that_are_no_numbers_are_refused),
        cmocka_unit_test(selections_can_be_watched),
    };
    return cmocka_run_group_tests_name("offload.answers", tests, NULL, NULL);
}
