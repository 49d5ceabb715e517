/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences: blocks, hashes, truncation, copies, checks. */
#include "tests/unit/offload/rig.h"

#include "offload/cache.h"

#include <math.h>
#include <string.h>

static uint32_t blocks_used(const struct rig *rig)
{
    struct qy_cache_stats stats;

    qy_cache_stats(rig->cache, &stats);
    return stats.blocks_used;
}

static void sequence_slots_run_out_with_again(void **state)
{
    const struct rig_options options = {.max_sequences = 2};
    struct qy_sequence *third = NULL;
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &options);
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    assert_ptr_not_equal(a, b);
    assert_int_equal(qy_sequence_open(rig.cache, &third, &err), QY_AGAIN);
    assert_null(third);
    assert_non_null(strstr(err.text, "2 are open"));
    qy_sequence_close(a);
    assert_int_equal(qy_sequence_open(rig.cache, &third, &err), QY_OK);
    assert_int_equal(qy_sequence_tokens(third), 0);
    qy_sequence_close(NULL);
    rig_close(&rig);
}

static void sequence_hashes_follow_the_token_ids(void **state)
{
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.threads = 2});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    struct qy_sequence *c = rig_sequence(&rig);
    rig_prefill(&rig, a, 1, 50, 50, NULL);
    rig_prefill(&rig, b, 1, 50, 7, NULL);
    rig_prefill(&rig, c, 2, 16, 16, NULL); /* another first block, then the same ids */
    rig_prefill(&rig, c, 1, 34, 16, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(qy_sequence_block_hash(a, i) != 0);
        assert_true(qy_sequence_block_hash(a, i) == qy_sequence_block_hash(b, i));
        assert_true(qy_sequence_block_hash(a, i) != qy_sequence_block_hash(c, i));
    }
    assert_true(qy_sequence_block_hash(a, 0) != qy_sequence_block_hash(a, 1));
    assert_int_equal(qy_sequence_block_hash(a, 3), 0); /* the tail */
    assert_int_equal(qy_sequence_block_hash(a, UINT32_MAX), 0);
    rig_close(&rig);
}

static void truncate_opens_a_sealed_block_and_refilling_gives_the_same(void **state)
{
    float first[RIG_LAYERS * RIG_OUT];
    float second[RIG_LAYERS * RIG_OUT];
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){0});
    struct qy_sequence *seq = rig_sequence(&rig);
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1, .out = first};
    const struct rig_feed again = {.seq = seq, .stream = 1, .n = 1, .out = second};
    rig_prefill(&rig, seq, 1, 64, 64, NULL);
    const uint64_t hash = qy_sequence_block_hash(seq, 3);
    const uint64_t generation = rig.cache->home.generations[seq->blocks[1]];
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    assert_int_equal(blocks_used(&rig), 5);

    assert_int_equal(qy_sequence_truncate(seq, 66), QY_ERR_INVALID);
    assert_int_equal(qy_sequence_truncate(seq, 20), QY_OK);
    assert_int_equal(qy_sequence_tokens(seq), 20);
    assert_int_equal(blocks_used(&rig), 2);
    assert_true(qy_sequence_block_hash(seq, 0) != 0);
    assert_int_equal(qy_sequence_block_hash(seq, 1), 0);
    assert_true(rig.cache->home.generations[seq->blocks[1]] > generation);
    assert_int_equal(qy_sequence_verify(seq, NULL), QY_OK);

    rig_prefill(&rig, seq, 1, 44, 10, NULL);
    assert_true(qy_sequence_block_hash(seq, 3) == hash);
    assert_int_equal(rig_step(&rig, &again, 1), QY_OK);
    assert_memory_equal(first, second, sizeof(first));
    assert_int_equal(qy_sequence_truncate(seq, 32), QY_OK); /* a whole number of blocks */
    assert_true(qy_sequence_block_hash(seq, 1) != 0);
    assert_int_equal(qy_sequence_truncate(seq, 0), QY_OK);
    assert_int_equal(blocks_used(&rig), 0);
    rig_close(&rig);
}

static void copy_is_equal_and_independent(void **state)
{
    float a_out[RIG_LAYERS * RIG_OUT];
    float b_out[RIG_LAYERS * RIG_OUT];
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.threads = 2, .block_tokens = 128});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    rig_prefill(&rig, a, 5, 300, 100, NULL);
    assert_int_equal(qy_sequence_copy(b, a), QY_OK);
    assert_int_equal(qy_sequence_tokens(b), 300);
    assert_int_equal(blocks_used(&rig), 6);
    assert_true(qy_sequence_block_hash(b, 1) == qy_sequence_block_hash(a, 1));
    assert_int_equal(qy_sequence_verify(b, NULL), QY_OK);
    assert_int_equal(qy_sequence_copy(b, a), QY_ERR_INVALID); /* not empty any more */

    assert_int_equal(qy_sequence_truncate(a, 0), QY_OK);
    rig_prefill(&rig, a, 5, 300, 100, NULL);
    const struct rig_feed feeds[] = {{.seq = a, .stream = 5, .n = 1, .out = a_out},
                                     {.seq = b, .stream = 5, .n = 1, .out = b_out}};
    assert_int_equal(rig_step(&rig, feeds, 2), QY_OK);
    assert_memory_equal(a_out, b_out, sizeof(a_out));
    rig_close(&rig);
}

static void copy_without_room_is_again_and_changes_nothing(void **state)
{
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.max_tokens = 64, .total_tokens = 1, .max_sequences = 4});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    rig_prefill(&rig, a, 5, 50, 50, NULL); /* 4 of 5 blocks */
    assert_int_equal(qy_sequence_copy(b, a), QY_AGAIN);
    assert_int_equal(qy_sequence_tokens(b), 0);
    assert_int_equal(blocks_used(&rig), 4);
    assert_int_equal(qy_sequence_fill_random(b, 32, 1), QY_AGAIN);
    assert_int_equal(blocks_used(&rig), 4);
    rig_close(&rig);
}

static void verify_finds_a_flipped_bit_and_names_it(void **state)
{
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.threads = 2});
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 64, 64, NULL);
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    const struct qyi_layout *l = &rig.cache->layout;
    uint8_t *byte = seq->addresses[2] + qyi_layout_slab_at(l, 1, 0) + 1000;
    *byte ^= 4;
    assert_int_equal(qy_sequence_verify(seq, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "block 2"));
    assert_non_null(strstr(err.text, "layer 1 KV head 0"));
    *byte ^= 4;
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    seq->ids[5] ^= 1; /* the text under the cache is not the one it was made from */
    assert_int_equal(qy_sequence_verify(seq, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "block 0"));
    rig_close(&rig);
}

static void check_goes_around_and_names_the_first_bad_block(void **state)
{
    struct qy_damage damage = {0};
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.threads = 2});
    struct qy_sequence *seq = rig_sequence(&rig);
    assert_int_equal(qy_sequence_check(seq, 4, &damage, &err), QY_OK); /* nothing is sealed */
    rig_prefill(&rig, seq, 1, 90, 64, NULL);
    const struct qyi_layout *l = &rig.cache->layout;
    for (int i = 0; i < 12; i++) {
        assert_int_equal(qy_sequence_check(seq, 2, &damage, &err), QY_OK);
    }
    assert_int_equal(seq->checked, 4); /* 24 blocks on, of 5 */
    seq->homes[1][qyi_layout_slab_at(l, 0, 1)] ^= 1;
    seq->homes[3][qyi_layout_slab_at(l, 1, 0)] ^= 1;
    assert_int_equal(qy_sequence_check(seq, 1, &damage, &err), QY_OK); /* block 4 */
    assert_int_equal(qy_sequence_check(seq, 1, &damage, &err), QY_OK); /* block 0 */
    seq->checked = 3;
    assert_int_equal(qy_sequence_check(seq, 1, &damage, &err), QY_ERR_CORRUPT);
    assert_int_equal(damage.block, 1);
    assert_int_equal(damage.first_token, 16);
    assert_int_equal(damage.ids, 0);
    assert_non_null(strstr(err.text, "block 1: checksum of layer 0 KV head 1"));
    seq->ids[60] ^= 1;
    assert_int_equal(qy_sequence_check(seq, 9, &damage, &err), QY_ERR_CORRUPT);
    assert_int_equal(damage.block, 1);
    assert_int_equal(damage.ids, 1);
    rig_close(&rig);
}

static void verify_steps_spread_the_blocks_over_steps(void **state)
{
    struct qy_damage damage = {0};
    struct rig rig;
    (void)state;

    rig_prepare(&rig, &(struct rig_options){.threads = 2});
    rig.params.settings.verify_steps = 4;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 16 * 10, 64, NULL);
    seq->homes[9][5] ^= 1;
    for (int i = 0; i < 3; i++) { /* 3 blocks each */
        assert_int_equal(qy_sequence_check_step(seq, &damage, NULL), QY_OK);
    }
    assert_int_equal(qy_sequence_check_step(seq, &damage, NULL), QY_ERR_CORRUPT);
    assert_int_equal(damage.block, 9);
    rig_close(&rig);
}

/* Where each token comes from is kept, and goes with copies. */
static void origins_follow_the_steps(void **state)
{
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.policy = "exact", .budget = "0.1"});
    struct qy_sequence *a = rig_sequence(&rig);
    struct qy_sequence *b = rig_sequence(&rig);
    assert_int_equal(qy_sequence_fill_random(a, 16, 1), QY_OK);
    rig_prefill(&rig, a, 1, 5, 3, NULL);
    const struct rig_feed dense = {.seq = a, .stream = 1, .n = 1, .mode = QY_ATTEND_DENSE};
    const struct rig_feed policy = {.seq = a, .stream = 1, .n = 1, .mode = QY_ATTEND_POLICY};
    assert_int_equal(rig_step(&rig, &policy, 1), QY_OK);
    assert_int_equal(rig_step(&rig, &dense, 1), QY_OK);
    assert_int_equal(qy_sequence_copy(b, a), QY_OK);
    static const uint8_t want[8] = {QY_TOKEN_RANDOM, QY_TOKEN_CHUNK, QY_TOKEN_CHUNK,
                                    QY_TOKEN_CHUNK,  QY_TOKEN_CHUNK, QY_TOKEN_CHUNK,
                                    QY_TOKEN_POLICY, QY_TOKEN_DENSE};
    assert_memory_equal(qy_sequence_origins(b) + 15, want, sizeof(want));
    assert_int_equal(qy_sequence_ids(b)[17], rig_token(1, 17));
    rig_close(&rig);
}

static void fill_random_gives_plausible_sealed_rows(void **state)
{
    struct rig rig;
    (void)state;

    for (int f16 = 0; f16 < 2; f16++) {
        double sum = 0.0;
        double squares = 0.0;
        const uint32_t n = 100;

        rig_open(&rig, &(struct rig_options){.f16 = f16, .threads = 2});
        struct qy_sequence *a = rig_sequence(&rig);
        struct qy_sequence *b = rig_sequence(&rig);
        assert_int_equal(qy_sequence_fill_random(a, 60, 7), QY_OK);
        assert_int_equal(qy_sequence_fill_random(a, n - 60, 7), QY_OK);
        assert_int_equal(qy_sequence_fill_random(b, n, 8), QY_OK);
        assert_int_equal(qy_sequence_tokens(a), n);
        assert_true(qy_sequence_block_hash(a, 5) != 0);
        assert_true(qy_sequence_block_hash(a, 5) != qy_sequence_block_hash(b, 5));
        assert_int_equal(qy_sequence_verify(a, NULL), QY_OK);
        for (uint32_t t = 0; t < n; t++) {
            const struct qy_rows rows = qyi_sequence_rows(a, 1, 1);
            const void *row = qy_row_at(&rows, t);

            for (int i = 0; i < 2 * RIG_D; i++) {
                const double x =
                    f16 ? qy_f32_from_f16(((const uint16_t *)row)[i]) : ((const float *)row)[i];

                sum += x;
                squares += x * x;
            }
        }
        assert_float_equal(sum / (n * 2 * RIG_D), 0.0, 0.1);
        assert_float_equal(squares / (n * 2 * RIG_D), 1.0, 0.1);
        assert_int_equal(qy_sequence_fill_random(a, 512, 7), QY_ERR_INVALID);
        rig_close(&rig);
    }
}

/* A block that another sequence gets holds nothing of the one before. */
static void close_gives_blocks_back_zeroed(void **state)
{
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.max_sequences = 1, .max_tokens = 16});
    struct qy_sequence *seq = rig_sequence(&rig);
    assert_int_equal(qy_sequence_fill_random(seq, 16, 3), QY_OK);
    qy_sequence_close(seq);
    assert_int_equal(blocks_used(&rig), 0);
    seq = rig_sequence(&rig);
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    const struct qyi_layout *l = &rig.cache->layout;
    for (size_t i = l->row_bytes; i < l->slab_bytes; i++) {
        assert_int_equal(seq->addresses[0][i], 0);
    }
    assert_int_equal(qyi_block_footer(l, seq->addresses[0])->chain_hash, 0);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequence_slots_run_out_with_again),
        cmocka_unit_test(sequence_hashes_follow_the_token_ids),
        cmocka_unit_test(truncate_opens_a_sealed_block_and_refilling_gives_the_same),
        cmocka_unit_test(copy_is_equal_and_independent),
        cmocka_unit_test(copy_without_room_is_again_and_changes_nothing),
        cmocka_unit_test(verify_finds_a_flipped_bit_and_names_it),
        cmocka_unit_test(check_goes_around_and_names_the_first_bad_block),
        cmocka_unit_test(verify_steps_spread_the_blocks_over_steps),
        cmocka_unit_test(origins_follow_the_steps),
        cmocka_unit_test(fill_random_gives_plausible_sealed_rows),
        cmocka_unit_test(close_gives_blocks_back_zeroed),
    };
    return cmocka_run_group_tests_name("offload.sequence", tests, NULL, NULL);
}
