/* SPDX-License-Identifier: Apache-2.0 */
/* What the cache tells a policy about its sequences, and what it takes from settings and codebook. */
#include "tests/unit/offload/probe.h"

#include "offload/cache.h"

#include <string.h>

static const int32_t some_ids[4];

static uint32_t blocks_used(const struct rig *rig)
{
    struct qy_cache_stats stats;

    qy_cache_stats(rig->cache, &stats);
    return stats.blocks_used;
}

/* Only sequences of one new token, in the mode of the policy, too long for its budget. */
static void prepare_is_asked_of_sequences_that_will_select(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct qy_sequence *seq[4];
    struct rig_feed feeds[4];
    static const uint32_t lengths[] = {50, 8, 60, 70};
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_policy *probe = probe_of(&rig);
    for (uint32_t i = 0; i < 4; i++) {
        seq[i] = rig_sequence(&rig);
        rig_prefill(&rig, seq[i], i, lengths[i], 64, NULL);
        feeds[i] = (struct rig_feed){.seq = seq[i], .stream = i, .n = i == 2 ? 2 : 1};
    }
    assert_int_equal(probe->n_prepares, 0);
    assert_int_equal(rig_step(&rig, feeds, 4), QY_OK);
    assert_int_equal(probe->n_prepares, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct qy_sequence_view *v = &probe->prepares[i];
        const struct qy_sequence *s = seq[i == 0 ? 0 : 3];
        const uint32_t n = i == 0 ? 50 : 70;

        assert_int_equal(v->sequence, s->slot);
        assert_int_equal(v->n_tokens, n);
        assert_int_equal(v->lo, 4);
        assert_int_equal(v->hi, n + 1 - 8);
        for (uint32_t slab = 0; slab < RIG_LAYERS * RIG_KV_HEADS; slab++) {
            const struct qy_rows got = qy_sequence_view_rows(v, slab);
            const struct qy_rows want =
                qyi_sequence_rows(s, slab / RIG_KV_HEADS, slab % RIG_KV_HEADS);

            assert_ptr_equal(qy_row_at(&got, n - 1), qy_row_at(&want, n - 1));
        }
    }
    feeds[0].mode = QY_ATTEND_DENSE;
    assert_int_equal(rig_step(&rig, feeds, 1), QY_OK);
    assert_int_equal(probe->n_prepares, 2);
    rig_close(&rig);
}

static void failing_prepare_refuses_the_step_and_changes_nothing(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_policy *probe = probe_of(&rig);
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = some_ids};
    rig_prefill(&rig, seq, 1, 48, 48, NULL); /* a whole number of blocks: the step takes one */
    probe->prepare_status = QY_ERR_NOMEM;
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, &err), QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "policy 'probe': sequence 0: probe: as the test wants"));
    assert_int_equal(blocks_used(&rig), 3);
    assert_int_equal(qy_sequence_tokens(seq), 48);
    assert_int_equal(probe->n_forgets, 0);
    assert_int_equal(qy_sequence_truncate(seq, 47), QY_OK); /* no step holds it */
    probe->prepare_status = QY_OK;
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, &err), QY_OK);
    qy_step_abort(rig.cache);
    rig_close(&rig);
}

static void expect_forget(const struct qy_policy *probe, uint32_t i, const struct qy_sequence *seq,
                          uint32_t n_tokens)
{
    assert_int_equal(probe->n_forgets, i + 1);
    assert_int_equal(probe->forgets[i].sequence, seq->slot);
    assert_int_equal(probe->forgets[i].n_tokens, n_tokens);
}

static void forget_follows_whatever_takes_tokens_away(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float row[RIG_STRIDE];
    float out[RIG_OUT];
    struct rig rig;
    const struct qy_qkv args = {
        .q = row, .k = row + RIG_K_AT, .v = row + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_policy *probe = probe_of(&rig);
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    const struct qy_step_slice slice = {.seq = a, .n_tokens = 1, .ids = some_ids};
    rig_prefill(&rig, a, 1, 48, 48, NULL);
    assert_int_equal(qy_sequence_truncate(a, 48), QY_OK);
    assert_int_equal(probe->n_forgets, 0);
    assert_int_equal(qy_sequence_truncate(a, 33), QY_OK);
    expect_forget(probe, 0, a, 33);
    assert_int_equal(qy_sequence_copy(b, a), QY_OK);
    expect_forget(probe, 1, b, 0);

    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
    qy_step_abort(rig.cache); /* it was shown nothing */
    assert_int_equal(probe->n_forgets, 2);
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
    rig_qkv(1, 0, 33, row);
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_OK);
    qy_step_abort(rig.cache);
    expect_forget(probe, 2, a, 33);

    qy_sequence_close(a);
    expect_forget(probe, 3, a, 0);
    rig_close(&rig);
}

/* A refused append is the step's; after an abort the sequence goes on. */
static void failing_append_is_the_status_of_the_layer(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    float row[RIG_STRIDE];
    float out[RIG_OUT];
    struct rig rig;
    const struct qy_qkv args = {
        .q = row, .k = row + RIG_K_AT, .v = row + RIG_V_AT, .stride = RIG_STRIDE, .out = out};
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_policy *probe = probe_of(&rig);
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = some_ids};
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};
    rig_prefill(&rig, seq, 1, 40, 40, NULL);
    probe->append_status = QY_ERR_INVALID;
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
    rig_qkv(1, 0, 40, row);
    assert_int_equal(qy_step_attend(rig.cache, 0, &args), QY_ERR_INVALID);
    qy_step_abort(rig.cache);
    expect_forget(probe, 0, seq, 40);
    probe->append_status = QY_OK;
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    rig_close(&rig);
}

static void first_layers_attend_to_all_and_are_counted_apart(void **state)
{
    static const struct {
        int64_t setting;
        uint32_t layers; /* that select */
    } cases[] = {{-1, RIG_LAYERS}, {0, RIG_LAYERS}, {1, 1}, {2, 0}, {99, 0}};
    const uint64_t n = 101;
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_retrieval_settings settings = probe_settings();
        struct qy_policy_ops ops = probe_ops();
        struct qy_cache_stats s;
        struct rig rig;

        settings.dense_layers = cases[i].setting;
        rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5", .retrieval = &settings});
        struct qy_policy *probe = probe_of(&rig);
        struct qy_sequence *seq = rig_sequence(&rig);
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};
        rig_prefill(&rig, seq, 1, (uint32_t)n - 1, 100, NULL);
        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        qy_cache_stats(rig.cache, &s);
        const uint64_t sparse = (uint64_t)cases[i].layers * RIG_KV_HEADS;
        const uint64_t dense = (uint64_t)RIG_LAYERS * RIG_KV_HEADS - sparse;
        assert_int_equal(s.total_rows, (sparse + dense) * n);
        assert_int_equal(s.attended_rows, sparse * 17 + dense * n);
        assert_int_equal(s.sparse_total_rows, sparse * n);
        assert_int_equal(s.sparse_attended_rows, sparse * 17);
        assert_int_equal(probe->n_selects, sparse);
        assert_int_equal(probe->n_prepares, sparse > 0);
        for (uint32_t j = 0; j < probe->n_selects; j++) {
            assert_true(probe->selects[j].layer >= RIG_LAYERS - cases[i].layers);
        }
        rig_close(&rig);
    }
}

static uint32_t one_layer(const struct qy_retrieval_settings *settings)
{
    (void)settings;
    return 1;
}

static void short_sequences_attend_to_all_and_the_policy_knows_its_layers(void **state)
{
    struct qy_retrieval_settings settings = probe_settings();
    struct qy_policy_ops ops = probe_ops();
    struct rig rig;
    (void)state;

    settings.min_tokens = 60;
    ops.dense_layers = one_layer;
    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5", .retrieval = &settings});
    struct qy_policy *probe = probe_of(&rig);
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};
    rig_prefill(&rig, seq, 1, 58, 58, NULL);
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK); /* 59 tokens with the new one */
    assert_int_equal(probe->n_selects + probe->n_prepares, 0);
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    assert_int_equal(probe->n_selects, (RIG_LAYERS - 1) * RIG_KV_HEADS);
    rig_close(&rig);
}

static enum qy_codebook_kind wants_pq4(const struct qy_retrieval_settings *settings)
{
    (void)settings;
    return QY_CODEBOOK_PQ4;
}

static struct qy_codebook *codebook_of(const struct rig *rig, enum qy_codebook_kind kind,
                                       uint32_t layers)
{
    const struct qy_codebook_info info = {.kind = kind,
                                          .model_hash = 7,
                                          .n_layers = layers,
                                          .n_kv_heads = RIG_KV_HEADS,
                                          .head_dim = RIG_D,
                                          .m = kind == QY_CODEBOOK_PQ4 ? 16 : 1,
                                          .bits = kind == QY_CODEBOOK_PQ4 ? 4 : 8,
                                          .n_words = kind == QY_CODEBOOK_PQ4 ? 16 : 256};
    struct qy_codebook *codebook = NULL;
    struct qy_error err = {0};

    if (qy_codebook_new(&rig->rt.mem, &info, &codebook, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return codebook;
}

static void open_wants_the_codebook_that_the_policy_asks_for(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    ops.codebook = wants_pq4;
    rig_prepare(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    rig.params.policy_argument = "text";
    struct qy_codebook *vq = codebook_of(&rig, QY_CODEBOOK_VQ, RIG_LAYERS);
    struct qy_codebook *other = codebook_of(&rig, QY_CODEBOOK_PQ4, RIG_LAYERS + 1);
    struct qy_codebook *right = codebook_of(&rig, QY_CODEBOOK_PQ4, RIG_LAYERS);

    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "none is given"));
    assert_non_null(strstr(err.text, "quarry calibrate"));
    rig.params.codebook = vq;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "quarry calibrate"));
    rig.params.codebook = other;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "policy 'probe'"));
    assert_null(rig.cache);
    rig.params.codebook = right;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_OK);
    const struct qy_policy_params *got = &probe_of(&rig)->params;
    assert_ptr_equal(got->codebook, right);
    assert_string_equal(got->argument, "text");
    assert_int_equal(got->block_tokens, 16);
    assert_int_equal(got->sinks, 4);
    assert_int_equal(got->window, 8);
    assert_int_equal(got->rope.dim, RIG_D);
    assert_non_null(got->settings);
    assert_true(got->settings->dense_layers == -1 && got->settings->audit_rate == 0.0);
    rig_close(&rig);
    qy_codebook_close(vq);
    qy_codebook_close(other);
    qy_codebook_close(right);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepare_is_asked_of_sequences_that_will_select),
        cmocka_unit_test(failing_prepare_refuses_the_step_and_changes_nothing),
        cmocka_unit_test(forget_follows_whatever_takes_tokens_away),
        cmocka_unit_test(failing_append_is_the_status_of_the_layer),
        cmocka_unit_test(first_layers_attend_to_all_and_are_counted_apart),
        cmocka_unit_test(short_sequences_attend_to_all_and_the_policy_knows_its_layers),
        cmocka_unit_test(open_wants_the_codebook_that_the_policy_asks_for),
    };
    return cmocka_run_group_tests_name("offload.policy_state", tests, NULL, NULL);
}
