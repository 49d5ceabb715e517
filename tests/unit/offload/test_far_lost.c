/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of a cache whose memory server is gone, or away for a while: which are lost, what fails and what
 * is waited for, and that the sequence computed again has the bits of one that lost nothing. */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

#include <stdlib.h>
#include <string.h>

enum { N = 300, MORE = 30, CHUNK = 64, FLOATS = (N + MORE) * RIG_OUT, BYTES = 8 << 20 };

struct bed {
    struct rig_servers servers;
    struct rig rig;
    struct qy_sequence *seqs[2]; /* the first has N tokens, most of its blocks on servers */
    float *out, *want;
};

static void open_bed(struct bed *bed, const char *policy, uint32_t n, uint32_t copies)
{
    struct rig_options o = rig_disk_base;

    o.policy = policy;
    bed->out = malloc(RIG_LAYERS * CHUNK * RIG_OUT * sizeof(float));
    bed->want = malloc(FLOATS * sizeof(float));
    assert_true(bed->out && bed->want);
    rig_open(&bed->rig, &o);
    rig_prefill(&bed->rig, rig_sequence(&bed->rig), 1, N + MORE, CHUNK, bed->want);
    rig_close(&bed->rig);

    rig_servers_open(&bed->servers, n, copies, BYTES);
    o = rig_on_servers(&o, &bed->servers);
    rig_open(&bed->rig, &o);
    bed->seqs[0] = rig_sequence(&bed->rig);
    bed->seqs[1] = rig_sequence(&bed->rig);
    rig_prefill(&bed->rig, bed->seqs[0], 1, N, CHUNK, NULL);
    for (uint32_t i = 0; i < 4; i++) { /* blocks leave at the end of steps, when there was time */
        rig_servers_pass(&bed->servers);
        rig_prefill(&bed->rig, bed->seqs[1], 2, 5, CHUNK, NULL);
    }
    assert_true(bed->seqs[0]->n_down > 4);
}

static void close_bed(struct bed *bed)
{
    rig_expect_disk_sound(bed->rig.cache);
    rig_close(&bed->rig);
    rig_servers_close(&bed->servers);
    free(bed->want);
    free(bed->out);
}

/* By what the store knows of its places, a server's number among them. */
static struct qy_lost held_by(const struct bed *bed, const struct qy_sequence *seq, uint32_t server)
{
    const struct qyi_home_far *d = &bed->rig.cache->far;
    struct qy_lost held = {0};

    for (uint32_t b = seq->n_blocks; b-- > 0;) {
        uint64_t servers;

        if (seq->homes[b]) {
            continue;
        }
        assert_false(qyi_store_lost(d->store, d->slots[seq->blocks[b]] - 1, &servers));
        if (servers >> server & 1) {
            held.first_token = b << bed->rig.cache->layout.shift;
            held.n_blocks++;
            held.servers |= servers;
        }
    }
    return held;
}

/* The sequence's next n tokens in one step; where it succeeds, with the bits of a cache in memory. */
static enum qy_status add_chunk(struct bed *bed, uint32_t n)
{
    static float qkv[CHUNK * RIG_STRIDE];
    struct qy_sequence *seq = bed->seqs[0];
    const uint32_t at = qy_sequence_tokens(seq);
    int32_t ids[CHUNK];
    struct qy_step_slice slice = {.seq = seq, .n_tokens = n, .ids = ids, .mode = QY_ATTEND_DENSE};

    for (uint32_t i = 0; i < n; i++) {
        ids[i] = rig_token(1, at + i);
    }
    enum qy_status st = qy_step_begin(bed->rig.cache, &slice, 1, NULL);
    for (uint32_t layer = 0; st == QY_OK && layer < RIG_LAYERS; layer++) {
        const struct qy_qkv args = {.q = qkv,
                                    .k = qkv + RIG_K_AT,
                                    .v = qkv + RIG_V_AT,
                                    .stride = RIG_STRIDE,
                                    .out = bed->out};

        for (uint32_t i = 0; i < n; i++) {
            rig_qkv(1, layer, at + i, qkv + (size_t)i * RIG_STRIDE);
        }
        st = qy_step_attend(bed->rig.cache, layer, &args);
    }
    if (st != QY_OK) {
        qy_step_abort(bed->rig.cache);
        return st;
    }
    assert_memory_equal(bed->out, bed->want + (size_t)at * RIG_OUT,
                        (size_t)n * RIG_OUT * sizeof(float));
    return qy_step_end(bed->rig.cache);
}

/* Cuts the sequence where its loss begins, which needs nothing of that, and adds its tokens again. */
static void compute_again(struct bed *bed)
{
    struct qy_sequence *seq = bed->seqs[0];
    struct qy_lost lost;

    assert_true(qy_sequence_lost(seq, &lost));
    assert_int_equal(qy_sequence_truncate(seq, lost.first_token), QY_OK);
    assert_false(qy_sequence_lost(seq, &lost));
    while (qy_sequence_tokens(seq) < N) {
        const uint32_t left = N - qy_sequence_tokens(seq);

        assert_int_equal(add_chunk(bed, left < CHUNK ? left : CHUNK), QY_OK);
    }
    rig_verify(seq);
}

enum reading { ROWS, PASS, CUT, COPY, READINGS };

static const char *const policies[READINGS] = {"quest", "dense", "dense", "dense"};

/* What reads the lost blocks, and fails. */
static enum qy_status read_lost(struct bed *bed, enum reading reading, const struct qy_lost *held)
{
    float out[TIER_STEP_FLOATS];
    enum qy_status st = QY_OK;

    switch (reading) {
    case ROWS: /* until they are chosen */
        for (int i = 0; st == QY_OK && i < 30; i++) {
            st = tier_try_step(&bed->rig, bed->seqs, out);
        }
        return st;
    case PASS:
        return add_chunk(bed, MORE);
    case CUT: /* to where the first of them is in the window */
        return qy_sequence_truncate(bed->seqs[0], held->first_token + 2 * 16);
    default:
        return qy_sequence_copy(rig_sequence(&bed->rig), bed->seqs[0]);
    }
}

/* All that the server had, not only what was read first; others go on; whatever reads. */
static void what_a_dead_server_alone_had_is_named_and_computed_again(void **state)
{
    (void)state;

    for (enum reading reading = ROWS; reading < READINGS; reading++) {
        const int again = reading % 2; /* another one comes at its address */
        struct bed bed;
        struct qy_lost lost;

        open_bed(&bed, policies[reading], 2, 1);
        const struct qy_lost held = held_by(&bed, bed.seqs[0], 1);
        assert_in_range(held.n_blocks, 2, bed.seqs[0]->n_down - 1);
        assert_false(qy_sequence_lost(bed.seqs[0], &lost));
        rig_servers_kill(&bed.servers, 1);
        if (again) {
            rig_servers_start(&bed.servers, 1, BYTES);
        }
        assert_int_equal(read_lost(&bed, reading, &held), QY_ERR_DEVICE);
        assert_non_null(strstr(qy_cache_fault(bed.rig.cache), "nobody holds it any more"));
        assert_true(qy_sequence_lost(bed.seqs[0], &lost));
        assert_int_equal(lost.first_token, held.first_token);
        assert_int_equal(lost.servers, 2);
        if (reading != CUT) { /* that gave most of them back */
            assert_int_equal(lost.n_blocks, held.n_blocks);
        }
        assert_false(qy_sequence_lost(bed.seqs[1], &lost));
        const struct rig_feed other = {.seq = bed.seqs[1], .stream = 2, .n = 1};
        assert_int_equal(rig_step(&bed.rig, &other, 1), QY_OK);
        compute_again(&bed);
        assert_int_equal(add_chunk(&bed, MORE), QY_OK);
        rig_servers_pass(&bed.servers);
        assert_int_equal(rig_step(&bed.rig, &other, 1), QY_OK);
        if (again) { /* it takes blocks, as the one before it did */
            assert_true(held_by(&bed, bed.seqs[0], 1).n_blocks > 0);
        }
        close_bed(&bed);
    }
}

/* The limit of reads where the cache's own is shorter. */
static uint64_t least_limit(const struct rig_servers *servers)
{
    struct rig_options o = rig_on_servers(&rig_disk_base, servers);
    struct rig rig;

    o.copy_timeout_ms = 1;
    rig_open(&rig, &o);
    const uint64_t limit = rig.cache->far.timeout_ns;
    rig_close(&rig);
    return limit;
}

/* A link that carries nothing for about two timeouts: the step waits, and is not cut short. */
static void link_that_comes_back_in_time_costs_nothing_but_time(void **state)
{
    const struct qy_fabric_rule rule = {
        .from = "worker", .to = "s1", .fault = QY_FABRIC_DROP, .count = 2};
    struct qy_peer_stats stats;
    struct qy_lost lost;
    struct bed bed;
    (void)state;

    rig_servers_open(&bed.servers, 2, 2, BYTES);
    assert_int_equal(least_limit(&bed.servers), 6 * RIG_SERVERS_TIMEOUT);
    bed.servers.servers.copies = 1;
    assert_int_equal(least_limit(&bed.servers), 5 * RIG_SERVERS_TIMEOUT);
    rig_servers_close(&bed.servers);
    open_bed(&bed, "dense", 2, 1);
    bed.rig.cache->far.timeout_ns = 5 * RIG_SERVERS_TIMEOUT;
    assert_true(held_by(&bed, bed.seqs[0], 1).n_blocks > 0);
    assert_int_equal(qy_fabric_inject(bed.servers.fabric, &rule), QY_OK);
    const uint64_t begin = qy_node_now(bed.servers.node);
    assert_int_equal(add_chunk(&bed, MORE), QY_OK);
    assert_in_range(qy_node_now(bed.servers.node) - begin, RIG_SERVERS_TIMEOUT + 1,
                    4 * RIG_SERVERS_TIMEOUT);
    qy_peer_stats(bed.servers.peers[1], &stats);
    assert_true(stats.timeouts > 0);
    assert_false(qy_sequence_lost(bed.seqs[0], &lost));
    rig_verify(bed.seqs[0]);
    close_bed(&bed);
}

/* Two copies, both of whose servers go: only then it is lost, and both are named. */
static void copies_are_lost_with_the_last_of_them(void **state)
{
    struct qy_lost lost;
    struct bed bed;
    (void)state;

    open_bed(&bed, "dense", 3, 2);
    const struct qy_lost held = held_by(&bed, bed.seqs[0], 2);
    rig_servers_kill(&bed.servers, 0);
    assert_int_equal(add_chunk(&bed, 2), QY_OK);
    assert_false(qy_sequence_lost(bed.seqs[0], &lost));
    rig_servers_kill(&bed.servers, 2);
    assert_int_equal(add_chunk(&bed, MORE - 2), QY_ERR_DEVICE);
    assert_true(qy_sequence_lost(bed.seqs[0], &lost));
    assert_int_equal(lost.servers, 5);
    assert_in_range(lost.n_blocks, 1, held.n_blocks);
    compute_again(&bed);
    assert_int_equal(add_chunk(&bed, MORE), QY_OK);
    close_bed(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_dead_server_alone_had_is_named_and_computed_again),
        cmocka_unit_test(link_that_comes_back_in_time_costs_nothing_but_time),
        cmocka_unit_test(copies_are_lost_with_the_last_of_them),
    };

    return cmocka_run_group_tests_name("far_lost", tests, NULL, NULL);
}
