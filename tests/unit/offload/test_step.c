/* SPDX-License-Identifier: Apache-2.0 */
/* Steps: what is refused, what a full pool does, and that nothing is lost by an abort. */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <string.h>

static const int32_t some_ids[600];

static void expect_refusal(struct rig *rig, const struct qy_step_slice *slices, uint32_t n,
                           const char *text)
{
    struct qy_error err = {0};

    assert_int_equal(qy_step_begin(rig->cache, slices, n, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, text));
}

static void begin_refuses_what_breaks_the_contract(void **state)
{
    struct rig rig;
    struct rig other;
    (void)state;

    rig_open(&rig, &(struct rig_options){.max_tokens = 64, .max_step_tokens = 32});
    rig_open(&other, &(struct rig_options){0});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    struct qy_sequence *closed = rig_sequence(&rig);
    qy_sequence_close(closed);
    rig_prefill(&rig, a, 1, 60, 32, NULL);
    const struct qy_step_slice twice[] = {{.seq = a, .n_tokens = 1, .ids = some_ids},
                                          {.seq = b, .n_tokens = 1, .ids = some_ids},
                                          {.seq = a, .n_tokens = 1, .ids = some_ids}};
    const struct qy_step_slice many[] = {{.seq = a, .n_tokens = 4, .ids = some_ids},
                                         {.seq = b, .n_tokens = 29, .ids = some_ids}};
    const struct qy_step_slice one[] = {
        {.seq = a, .n_tokens = 5, .ids = some_ids},
        {.seq = a, .n_tokens = UINT32_MAX, .ids = some_ids},
        {.seq = a, .n_tokens = 0, .ids = some_ids},
        {.seq = a, .n_tokens = 1, .ids = NULL},
        {.seq = NULL, .n_tokens = 1, .ids = some_ids},
        {.seq = closed, .n_tokens = 1, .ids = some_ids},
        {.seq = rig_sequence(&other), .n_tokens = 1, .ids = some_ids},
    };

    expect_refusal(&rig, twice, 3, "appears twice");
    expect_refusal(&rig, many, 2, "33 tokens; the cache was opened for steps of at most 32");
    expect_refusal(&rig, &one[0], 1, "has 60 tokens and cannot take 5 more");
    expect_refusal(&rig, &one[1], 1, "cannot take");
    expect_refusal(&rig, &one[2], 1, "no tokens");
    expect_refusal(&rig, &one[3], 1, "no token ids");
    expect_refusal(&rig, &one[4], 1, "no open sequence");
    expect_refusal(&rig, &one[5], 1, "no open sequence");
    expect_refusal(&rig, &one[6], 1, "no open sequence");
    expect_refusal(&rig, twice, 0, "no slices");

    assert_int_equal(qy_step_begin(rig.cache, twice, 2, NULL), QY_OK); /* nothing is left marked */
    expect_refusal(&rig, &one[2], 1, "one is running");
    assert_int_equal(qy_sequence_truncate(a, 0), QY_ERR_INVALID);
    assert_int_equal(qy_sequence_fill_random(b, 1, 1), QY_ERR_INVALID);
    qy_step_abort(rig.cache);
    qy_step_abort(rig.cache);
    rig_close(&rig);
    rig_close(&other);
}

static void begin_with_a_full_pool_is_again_and_changes_nothing(void **state)
{
    struct qy_cache_stats before;
    struct qy_cache_stats after;
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    /* 3 + 2 blocks of 16 */
    rig_open(&rig, &(struct rig_options){.max_sequences = 2, .max_tokens = 64, .total_tokens = 48});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    rig_prefill(&rig, a, 1, 32, 32, NULL);
    rig_prefill(&rig, b, 2, 30, 32, NULL);
    qy_cache_stats(rig.cache, &before);
    assert_int_equal(before.blocks_total, 5);
    const struct qy_step_slice slices[] = {{.seq = a, .n_tokens = 1, .ids = some_ids},
                                           {.seq = b, .n_tokens = 3, .ids = some_ids}};
    assert_int_equal(qy_step_begin(rig.cache, slices, 2, &err), QY_AGAIN);
    assert_non_null(strstr(err.text, "2 more blocks are needed and 1 of 5 are free"));
    qy_cache_stats(rig.cache, &after);
    /* up to the last member: padding behind it is nobody's */
    assert_memory_equal(&before, &after, offsetof(struct qy_cache_stats, sequences));
    assert_int_equal(before.sequences, after.sequences);
    assert_int_equal(qy_sequence_tokens(a), 32);

    const struct rig_feed feed = {.seq = a, .stream = 1, .n = 1};
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK); /* one block is enough for one of them */
    qy_sequence_close(a);
    const struct rig_feed rest = {.seq = b, .stream = 2, .n = 3};
    assert_int_equal(rig_step(&rig, &rest, 1), QY_OK);
    rig_close(&rig);
}

/* The arguments of one token's layer; row [RIG_STRIDE], out [RIG_OUT]. */
static struct qy_qkv arguments(float *row, float *out)
{
    return (struct qy_qkv){
        .q = row, .k = row + RIG_K_AT, .v = row + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
}

static void attend_wants_each_layer_once_and_end_all_of_them(void **state)
{
    float row[RIG_STRIDE];
    float out[RIG_OUT];
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){0});
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = some_ids};
    struct qy_qkv args = arguments(row, out);
    rig_qkv(1, 0, 0, row);
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_INVALID); /* no step */
    assert_int_equal(qy_step_end(rig.cache), QY_ERR_INVALID);
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
    assert_int_equal(qy_step_attend(rig.cache, RIG_LAYERS, &args), QY_ERR_INVALID);
    args.stride = RIG_OUT - 1;
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_INVALID);
    args.stride = RIG_STRIDE;
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_OK);
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_INVALID);
    assert_int_equal(qy_step_end(rig.cache), QY_ERR_INVALID);
    assert_int_equal(qy_sequence_tokens(seq), 0);
    assert_int_equal(qy_step_attend(rig.cache, 1, &args), QY_OK);
    assert_int_equal(qy_step_end(rig.cache), QY_OK);
    assert_int_equal(qy_sequence_tokens(seq), 1);
    rig_close(&rig);
}

/* A value that is not finite is refused; the step is left, and the sequence goes on unharmed. */
static void attend_corrupt_value_is_refused_and_nothing_is_lost(void **state)
{
    float want[RIG_LAYERS * RIG_OUT];
    float got[RIG_LAYERS * RIG_OUT];
    float out[RIG_OUT];
    struct rig rig;
    (void)state;

    for (int kind = 0; kind < 3; kind++) {
        float row[RIG_STRIDE];
        struct qy_cache_stats stats;

        rig_open(&rig, &(struct rig_options){.f16 = kind == 2});
        struct qy_sequence *seq = rig_sequence(&rig);
        const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = some_ids};
        const struct qy_qkv args = arguments(row, out);
        rig_prefill(&rig, seq, 1, 32, 32, NULL);
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1, .out = want};
        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        assert_int_equal(qy_sequence_truncate(seq, 32), QY_OK);

        assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
        rig_qkv(1, 0, 32, row);
        /* a key that is no number, an infinite value, a value above what f16 holds */
        row[kind == 0 ? RIG_OUT + 5 : RIG_STRIDE - 1] = kind == 0   ? NAN
                                                        : kind == 1 ? INFINITY
                                                                    : 1e6F;
        assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_CORRUPT);
        assert_int_equal(qy_step_end(rig.cache), QY_ERR_INVALID);
        qy_step_abort(rig.cache);
        qy_cache_stats(rig.cache, &stats);
        assert_int_equal(stats.blocks_used, 2);
        assert_int_equal(qy_sequence_tokens(seq), 32);
        assert_int_equal(qy_sequence_verify(seq, NULL), QY_OK);

        const struct rig_feed again = {.seq = seq, .stream = 1, .n = 1, .out = got};
        assert_int_equal(rig_step(&rig, &again, 1), QY_OK);
        assert_memory_equal(got, want, sizeof(want));
        rig_close(&rig);
    }
}

static enum qy_status select_first(struct qy_policy *policy, const struct qy_select_item *items,
                                   uint32_t n_items, struct qy_arena *arena)
{
    (void)policy;
    (void)arena;
    for (uint32_t i = 0; i < n_items; i++) {
        items[i].ids[0] = items[i].lo;
        *items[i].n_ids = 1;
    }
    return QY_OK;
}

static enum qy_status select_outside(struct qy_policy *policy, const struct qy_select_item *items,
                                     uint32_t n_items, struct qy_arena *arena)
{
    (void)policy;
    (void)arena;
    for (uint32_t i = 0; i < n_items; i++) {
        items[i].ids[0] = 1U << 30;
        *items[i].n_ids = 1;
    }
    return QY_OK;
}

/* An integrator's policy: used as it is, and refused when its ids are outside the sequence. */
static void attend_checks_the_ids_of_a_policy(void **state)
{
    struct qy_policy_ops ops = {.abi_size = sizeof(ops), .name = "own", .select = select_first};
    struct qy_cache_stats stats;
    float row[RIG_STRIDE];
    float out[RIG_OUT];
    struct rig rig;
    (void)state;

    for (int bad = 0; bad < 2; bad++) {
        ops.select = bad ? select_outside : select_first;
        rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
        struct qy_sequence *seq = rig_sequence(&rig);
        const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = some_ids};
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};
        const struct qy_qkv args = arguments(row, out);
        rig_prefill(&rig, seq, 1, 99, 99, NULL);
        if (bad) {
            rig_qkv(1, 0, 99, row);
            assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
            assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_INVALID);
            qy_step_abort(rig.cache);
        } else {
            assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
            qy_cache_stats(rig.cache, &stats);
            assert_int_equal(stats.attended_rows, RIG_LAYERS * RIG_KV_HEADS * (4 + 1 + 8));
        }
        rig_close(&rig);
    }
}

static void close_of_a_sequence_in_a_step_leaves_the_step(void **state)
{
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){0});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    const struct qy_step_slice slices[] = {{.seq = a, .n_tokens = 20, .ids = some_ids},
                                           {.seq = b, .n_tokens = 3, .ids = some_ids}};
    assert_int_equal(qy_step_begin(rig.cache, slices, 2, NULL), QY_OK);
    qy_sequence_close(a);
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.blocks_used, 0);
    assert_int_equal(qy_step_begin(rig.cache, &slices[1], 1, NULL), QY_OK);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begin_refuses_what_breaks_the_contract),
        cmocka_unit_test(begin_with_a_full_pool_is_again_and_changes_nothing),
        cmocka_unit_test(attend_wants_each_layer_once_and_end_all_of_them),
        cmocka_unit_test(attend_corrupt_value_is_refused_and_nothing_is_lost),
        cmocka_unit_test(attend_checks_the_ids_of_a_policy),
        cmocka_unit_test(close_of_a_sequence_in_a_step_leaves_the_step),
    };
    return cmocka_run_group_tests_name("offload.step", tests, NULL, NULL);
}
