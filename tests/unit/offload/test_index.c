/* SPDX-License-Identifier: Apache-2.0 */
/* Index bytes: what append is shown, and that they go where the blocks go. */
#include "tests/unit/offload/probe.h"

#include "offload/cache.h"

#include <stdlib.h>
#include <string.h>

enum { N = 75, STREAM = 5 };

/* Every value of a view, against the stream: as it was given, or as it lies in the rows. */
static void check_before(const struct qy_append_view *v)
{
    float row[RIG_STRIDE];

    for (uint32_t t = 0; t < v->n; t++) {
        rig_qkv(STREAM, v->layer, v->first + t, row);
        assert_memory_equal(v->k + t * v->stride, row + RIG_K_AT + v->kv_head * RIG_D,
                            RIG_D * sizeof(float));
        assert_memory_equal(v->q + t * v->stride, row + v->kv_head * RIG_GROUP * RIG_D,
                            RIG_GROUP * RIG_D * sizeof(float));
    }
}

static void check_after(const struct qy_append_view *v)
{
    float row[RIG_STRIDE];
    double turned = 0.0;

    for (uint32_t t = 0; t < v->n; t++) { /* rows in f32 are the keys themselves, and the values */
        const uint8_t *stored = qy_row_at(&v->rows, v->first + t);

        rig_qkv(STREAM, v->layer, v->first + t, row);
        assert_memory_equal(v->k + t * v->stride, stored, RIG_D * sizeof(float));
        assert_memory_equal(row + RIG_V_AT + v->kv_head * RIG_D, stored + RIG_D * sizeof(float),
                            RIG_D * sizeof(float));
        for (uint32_t i = 0; i < RIG_GROUP * RIG_D && v->first + t > 0; i++) {
            turned += v->q[t * v->stride + i] != row[v->kv_head * RIG_GROUP * RIG_D + i];
        }
    }
    assert_true(turned > 0.0 || v->first + v->n == 1);
}

/* The order of the views: layer after layer, slice after slice, head after head. */
static void append_shows_new_tokens_in_the_form_asked_for(void **state)
{
    (void)state;

    for (int form = 0; form < 2; form++) {
        struct qy_policy_ops ops = probe_ops();
        struct rig rig;

        ops.caps.append_form = (enum qy_key_form)form;
        rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5", .threads = 2});
        struct qy_policy *probe = probe_of(&rig);
        struct qy_sequence *a = rig_sequence(&rig);
        struct qy_sequence *b = rig_sequence(&rig);
        const struct rig_feed feeds[] = {{.seq = b, .stream = STREAM, .n = 20},
                                         {.seq = a, .stream = STREAM, .n = 1}};
        probe->on_append = form == QY_KEYS_BEFORE_ROPE ? check_before : check_after;
        rig_prefill(&rig, a, STREAM, 40, 40, NULL);
        assert_int_equal(probe->n_appends, RIG_LAYERS * RIG_KV_HEADS);
        assert_int_equal(rig_step(&rig, feeds, 2), QY_OK);
        assert_int_equal(probe->n_appends, 3 * RIG_LAYERS * RIG_KV_HEADS);
        for (uint32_t i = 0; i < 2 * RIG_LAYERS * RIG_KV_HEADS; i++) {
            const struct probe_append *v = &probe->appends[RIG_LAYERS * RIG_KV_HEADS + i];
            const int second = i / RIG_KV_HEADS % 2 != 0;

            assert_int_equal(v->layer, RIG_LAYERS - 1 - i / (2 * RIG_KV_HEADS)); /* rig's order */
            assert_int_equal(v->kv_head, i % RIG_KV_HEADS);
            assert_int_equal(v->sequence, second ? a->slot : b->slot);
            assert_int_equal(v->first, second ? 40 : 0);
            assert_int_equal(v->n, second ? 1 : 20);
            assert_int_equal(v->group, RIG_GROUP);
        }
        rig_close(&rig);
    }
}

/* The index slabs of all whole blocks and the tail, of n tokens. */
static void expect_same_index(const struct qy_sequence *a, const struct qy_sequence *b, uint32_t n)
{
    for (uint32_t layer = 0; layer < RIG_LAYERS; layer++) {
        for (uint32_t h = 0; h < RIG_KV_HEADS; h++) {
            for (uint32_t t = 0; t < n; t++) {
                assert_memory_equal(probe_entry(a, layer, h, t), probe_entry(b, layer, h, t),
                                    sizeof(struct probe_entry));
                assert_int_equal(probe_entry(a, layer, h, t)->token, t);
            }
        }
    }
}

static void index_is_the_same_however_the_tokens_came(void **state)
{
    static const uint32_t chunks[] = {1, 7, 33};
    struct qy_policy_ops ops = probe_ops();
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5", .threads = 2});
    struct qy_sequence *whole = rig_sequence(&rig);
    rig_prefill(&rig, whole, STREAM, N, N, NULL);
    for (int i = 0; i < 3; i++) {
        struct qy_sequence *seq = rig_sequence(&rig);

        rig_prefill(&rig, seq, STREAM, N, chunks[i], NULL);
        expect_same_index(seq, whole, N);
        assert_int_equal(qy_sequence_verify(seq, NULL), QY_OK);
    }
    rig_close(&rig);
}

static void index_goes_with_truncate_append_and_copy(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_sequence *whole = rig_sequence(&rig);
    struct qy_sequence *cut = rig_sequence(&rig);
    struct qy_sequence *copy = rig_sequence(&rig);
    rig_prefill(&rig, whole, STREAM, N, N, NULL);
    rig_prefill(&rig, cut, STREAM, 20, 20, NULL);
    rig_prefill(&rig, cut, STREAM + 1, N - 20, N, NULL); /* another text behind */
    assert_int_equal(qy_sequence_truncate(cut, 20), QY_OK);
    rig_prefill(&rig, cut, STREAM, N - 20, 9, NULL);
    expect_same_index(cut, whole, N);
    assert_int_equal(qy_sequence_copy(copy, cut), QY_OK);
    expect_same_index(copy, whole, N);
    rig_prefill(&rig, copy, STREAM, 20, 20, NULL);
    assert_int_equal(qy_sequence_verify(cut, NULL), QY_OK);
    assert_int_equal(qy_sequence_verify(copy, NULL), QY_OK);
    rig_close(&rig);
}

static void fill_random_writes_the_index_of_its_rows(void **state)
{
    (void)state;

    for (int half = 0; half < 2; half++) {
        struct qy_policy_ops ops = probe_ops();
        struct rig rig;

        rig_open(&rig,
                 &(struct rig_options){.ops = &ops, .budget = "5", .threads = 2, .f16 = half});
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, STREAM, 10, 10, NULL);
        assert_int_equal(qy_sequence_fill_random(seq, 300, 7), QY_OK); /* more than one piece */
        for (uint32_t t = 10; t < 310; t++) {
            const struct qy_rows rows = qyi_sequence_rows(seq, 1, 1);
            const struct probe_entry *e = probe_entry(seq, 1, 1, t);
            float first;
            uint16_t as_half;

            memcpy(&first, qy_row_at(&rows, t), sizeof(first));
            memcpy(&as_half, qy_row_at(&rows, t), sizeof(as_half));
            assert_int_equal(e->token, t);
            assert_true(e->first == (half ? qy_f32_from_f16(as_half) : first));
        }
        assert_int_equal(qy_sequence_verify(seq, NULL), QY_OK);
        assert_int_equal(probe_of(&rig)->n_forgets, 0);
        /* a policy that cannot: nothing is left of it */
        probe_of(&rig)->append_status = QY_ERR_NOMEM;
        assert_int_equal(qy_sequence_fill_random(seq, 60, 7), QY_ERR_NOMEM);
        assert_int_equal(qy_sequence_tokens(seq), 310);
        assert_int_equal(seq->n_blocks, 20);
        assert_int_equal(probe_of(&rig)->forgets[0].n_tokens, 310);
        rig_close(&rig);
    }
}

static void verify_names_a_damaged_index(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5", .threads = 2});
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, STREAM, N, N, NULL);
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    uint8_t *byte = seq->addresses[2] + qyi_layout_index_at(&rig.cache->layout, 1, 0) + 100;
    *byte ^= 4;
    assert_int_equal(qy_sequence_verify(seq, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "block 2: checksum of the index of layer 1 KV head 0"));
    *byte ^= 4;
    seq->addresses[2][5] ^= 1; /* rows are still named as rows */
    assert_int_equal(qy_sequence_verify(seq, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "block 2: checksum of layer 0 KV head 0"));
    rig_close(&rig);
}

static void stats_count_index_bytes(void **state)
{
    struct qy_policy_ops ops = probe_ops();
    struct qy_cache_stats stats;
    struct rig rig;
    const uint64_t slabs = (uint64_t)RIG_LAYERS * RIG_KV_HEADS;
    (void)state;

    rig_open(&rig, &(struct rig_options){.ops = &ops, .budget = "5"});
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct rig_feed feed = {.seq = seq, .stream = STREAM, .n = 1};
    rig_prefill(&rig, seq, STREAM, N, N, NULL);
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.index_bytes, slabs * 5 * 16 * sizeof(struct probe_entry));
    assert_int_equal(stats.index_bytes + stats.host_bytes, qy_cache_bytes_for(rig.cache, N + 1));
    assert_int_equal(stats.index_read_bytes, slabs * (N + 1 - 12) * sizeof(struct probe_entry));
    assert_int_equal(stats.read_bytes,
                     slabs * 17 * qy_row_bytes(QY_ROW_F32, RIG_D)); /* rows alone */
    assert_true(stats.stage_ns[QY_STAGE_ENCODE] > 0 && stats.stage_ns[QY_STAGE_PREPARE] > 0);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_shows_new_tokens_in_the_form_asked_for),
        cmocka_unit_test(index_is_the_same_however_the_tokens_came),
        cmocka_unit_test(index_goes_with_truncate_append_and_copy),
        cmocka_unit_test(fill_random_writes_the_index_of_its_rows),
        cmocka_unit_test(verify_names_a_damaged_index),
        cmocka_unit_test(stats_count_index_bytes),
    };
    return cmocka_run_group_tests_name("offload.index", tests, NULL, NULL);
}
