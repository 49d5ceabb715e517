/* SPDX-License-Identifier: Apache-2.0 */
/* A cache whose sealed blocks lie on memory servers: the bits of one that has memory for all of them. */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* With `first` to `last` servers. */
static void expect_same(const struct rig_options *options, const char *what, uint32_t first,
                        uint32_t last)
{
    float *want = malloc(RIG_DISK_FLOATS * sizeof(float));
    float *have = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig_options o;
    struct rig rig;

    assert_true(want && have);
    rig_disk_reference(options, want);
    for (uint32_t n = first; n <= last; n++) {
        struct rig_servers servers;
        struct qy_cache_stats stats;

        rig_servers_open(&servers, n, n > 2 ? 2 : 1, 8 << 20);
        o = rig_on_servers(options, &servers);
        o.micro_batches = n;
        rig_open(&rig, &o);
        assert_int_equal(rig_disk_run(&rig, have), RIG_DISK_FLOATS);
        qy_cache_stats(rig.cache, &stats);
        assert_true(stats.remote_writes > 0 && stats.remote_reads > 0 && stats.remote_bytes > 0);
        assert_int_equal(stats.remote_failures, 0);
        assert_int_equal(stats.disk_writes, 0);
        assert_true(stats.host_bytes <= o.host_bytes);
        rig_expect_disk_sound(rig.cache);
        rig_close(&rig);
        rig_servers_close(&servers);
        for (size_t f = 0; f < RIG_DISK_FLOATS; f++) {
            if (memcmp(&want[f], &have[f], sizeof(float)) != 0) {
                fail_msg("%s, %u servers: float %zu is %g, in memory %g", what, n, f,
                         (double)have[f], (double)want[f]);
            }
        }
    }
    free(want);
    free(have);
}

static void servers_give_the_bits_of_memory(void **state)
{
    static const struct {
        const char *policy;
        uint32_t first, last;
    } cases[] = {{"quest", 1, RIG_SERVERS}, {"dense", 2, 2}, {"window", 3, 3}};
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct rig_options o = rig_disk_base;

        o.policy = cases[i].policy;
        expect_same(&o, cases[i].policy, cases[i].first, cases[i].last);
    }
}

static void servers_hold_coded_rows(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.policy = "window";
    o.home_codec = "8bit";
    expect_same(&o, "8bit", 2, 2);
}

/* Caches that a process has one after another: what the first left at servers is nothing to the second. */
static void caches_one_after_another_keep_apart(void **state)
{
    const struct rig_options base = rig_disk_base;
    struct rig_servers servers;
    (void)state;

    rig_servers_open(&servers, 2, 1, 8 << 20);
    const struct rig_options o = rig_on_servers(&base, &servers);
    for (uint32_t stream = 1; stream <= 3; stream++) {
        struct rig rig;

        rig_open(&rig, &o);
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, stream, 300, 64, NULL);
        for (uint32_t i = 0; i < 4; i++) {
            rig_servers_pass(&servers);
            rig_prefill(&rig, seq, stream, 5, 64, NULL);
        }
        assert_true(seq->n_down > 4);
        rig_verify(seq);
        if (stream > 1) { /* of one the cache must see to it */
            qy_sequence_close(seq);
        }
        rig_close(&rig);
        struct qy_memory_stats stats[2];
        qy_memory_stats(servers.memories[0], &stats[0]);
        qy_memory_stats(servers.memories[1], &stats[1]);
        assert_int_equal(stats[0].blocks_free, stats[0].blocks_total);
        assert_int_equal(stats[1].blocks_free, stats[1].blocks_total);
    }
    rig_servers_close(&servers);
}

/* Blocks of a sequence that only one server had, which died: its steps fail and say so; others go on. */
static void step_fails_when_nobody_has_its_rows(void **state)
{
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct qy_sequence *seqs[2];
    float *out = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig rig;
    (void)state;

    assert_non_null(out);
    o.policy = "dense";
    rig_servers_open(&servers, 2, 1, 8 << 20);
    o = rig_on_servers(&o, &servers);
    rig_open(&rig, &o);
    seqs[0] = rig_sequence(&rig);
    seqs[1] = rig_sequence(&rig);
    rig_prefill(&rig, seqs[0], 1, 300, 64, out);
    for (uint32_t i = 0; i < 4; i++) { /* blocks leave at the end of steps, when there was time */
        rig_servers_pass(&servers);
        rig_prefill(&rig, seqs[1], 2, 5, 64, out);
    }
    assert_true(seqs[0]->n_down > 4);
    rig_servers_kill(&servers, 1);
    rig_servers_start(&servers, 1, 8 << 20);
    const struct rig_feed long_one = {.seq = seqs[0], .stream = 1, .n = 1, .out = out};
    const struct rig_feed short_one = {.seq = seqs[1], .stream = 2, .n = 1, .out = out};
    assert_int_equal(tier_try_step(&rig, seqs, out), QY_ERR_DEVICE);
    assert_non_null(strstr(qy_cache_fault(rig.cache), "memory servers: sequence 0 block"));
    assert_int_equal(rig_step(&rig, &short_one, 1), QY_OK);
    assert_int_equal(qy_sequence_truncate(seqs[0], 0), QY_OK); /* to be computed again */
    rig_prefill(&rig, seqs[0], 1, 300, 64, out);
    assert_int_equal(rig_step(&rig, &long_one, 1), QY_OK);
    rig_verify(seqs[0]);
    rig_close(&rig);
    rig_servers_close(&servers);
    free(out);
}

/* With copies on two servers nothing is lost. */
static void copies_stand_in_for_a_dead_server(void **state)
{
    float *want = malloc(RIG_DISK_FLOATS * sizeof(float));
    float *have = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct rig rig;
    (void)state;

    assert_true(want && have);
    rig_open(&rig, &o);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 390, 64, want);
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 10, .out = want};
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    rig_close(&rig);

    rig_servers_open(&servers, 3, 2, 8 << 20);
    o = rig_on_servers(&o, &servers);
    rig_open(&rig, &o);
    seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 390, 64, have);
    assert_true(seq->n_down > 4);
    rig_servers_kill(&servers, 0);
    const struct rig_feed again = {.seq = seq, .stream = 1, .n = 10, .out = have};
    assert_int_equal(rig_step(&rig, &again, 1), QY_OK);
    rig_verify(seq);
    assert_memory_equal(want, have, (size_t)10 * RIG_LAYERS * RIG_OUT * sizeof(float));
    rig_close(&rig);
    rig_servers_close(&servers);
    free(want);
    free(have);
}

/* Pushes: the floats of pulls, but for the order in which they are added up. `happens` to server 1 between
 * prefill and decode, if it has a copy of nothing that others have not. */
static void expect_close(const struct rig_options *options, uint32_t n_servers, int happens)
{
    enum { N = 20, PREFILL = 390, FLOATS = N * RIG_LAYERS * RIG_OUT };
    float *outs[2] = {malloc(PREFILL * RIG_OUT * sizeof(float)),
                      malloc(PREFILL * RIG_OUT * sizeof(float))};

    assert_true(outs[0] && outs[1]);
    for (int pushes = 0; pushes <= 1; pushes++) {
        struct rig_options o = *options;
        struct rig_servers servers;
        struct qy_cache_stats stats;
        struct rig rig;

        o.plan = pushes ? QY_PLAN_PUSH : QY_PLAN_PULL;
        rig_servers_open(&servers, n_servers, n_servers > 1 ? 2 : 1, 8 << 20);
        o = rig_on_servers(&o, &servers);
        rig_open(&rig, &o);
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, 1, PREFILL, 64, outs[pushes]);
        assert_true(seq->n_down > 4);
        if (pushes && happens) {
            assert_int_equal(qy_fabric_happens(servers.fabric, "s1", (enum qy_fabric_event)happens),
                             QY_OK);
        }
        for (uint32_t i = 0; i < N; i++) {
            const struct rig_feed feed = {.seq = seq,
                                          .stream = 1,
                                          .n = 1,
                                          .out = outs[pushes] + (size_t)i * RIG_LAYERS * RIG_OUT};

            assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        }
        rig_verify(seq);
        qy_cache_stats(rig.cache, &stats);
        const struct qyi_store_stats *done = qyi_store_stats(rig.cache->far.store);
        assert_true(pushes ? done->attends > 0 && stats.rows_pushed >= done->attended_rows
                           : done->attends == 0 && stats.rows_pushed == 0);
        struct qyi_servers_stats one = {0};
        if (n_servers > 1) {
            qyi_servers_stats(rig.cache->far.store, 1, &one);
        }
        assert_int_equal(one.again > 0, pushes && happens);
        rig_close(&rig);
        rig_servers_close(&servers);
    }
    for (size_t f = 0; f < FLOATS; f++) {
        if (!(fabsf(outs[0][f] - outs[1][f]) < 2e-5F)) {
            fail_msg("%u servers: float %zu is %g pushed, %g pulled", n_servers, f,
                     (double)outs[1][f], (double)outs[0][f]);
        }
    }
    free(outs[0]);
    free(outs[1]);
}

static void servers_attend_to_what_is_pushed(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    for (uint32_t n = 1; n <= RIG_SERVERS; n++) {
        expect_close(&o, n, 0);
    }
    o.home_codec = "4bit"; /* coded as they are */
    o.even = 1;
    expect_close(&o, 2, 0);
}

/* A server that stops or dies while it is asked: its rows are read from the copies, and attended to here. */
static void worker_stands_in_for_a_server(void **state)
{
    (void)state;
    expect_close(&rig_disk_base, 3, QY_FABRIC_STOP);
    expect_close(&rig_disk_base, 2, QY_FABRIC_CUT);
}

/* With step.deterministic what lies at several places is pulled: the bits are those of one cache. */
static void deterministic_pushes_keep_the_bits(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.deterministic = 1;
    o.plan = QY_PLAN_PUSH;
    expect_same(&o, "push", 2, RIG_SERVERS);
}

/* A trial at open tells what rows on servers cost, and leaves nothing there; plans go by it. */
static void costs_of_servers_decide(void **state)
{
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct rig rig;
    (void)state;

    o.plan = QY_PLAN_AUTO;
    for (int dear = 0; dear <= 1; dear++) { /* pushes are */
        struct qyi_servers_stats held;
        struct qy_cache_plan plan;

        rig_servers_open(&servers, 2, 1, 8 << 20);
        const struct rig_options on = rig_on_servers(&o, &servers);
        rig_open(&rig, &on);
        struct qyi_push *push = &rig.cache->tier.push;
        struct qyi_store *store = rig.cache->far.store;
        qy_cache_plan(rig.cache, &plan);
        assert_true(plan.measured && push->far.mode == QY_PLAN_AUTO);
        assert_true(plan.far_row_ns > 0.0 && plan.far_push_ns >= 0.0 && isfinite(plan.far_row_ns));
        for (uint32_t i = 0; i < 2; i++) {
            rig_servers_pass(&servers);
            qyi_store_poll(store);
            qyi_servers_stats(store, i, &held);
            assert_int_equal(held.blocks, 0);
        }
        push->far.costs.link_row_ns = dear ? 0.0 : 1e9;
        push->far.costs.push_ns = dear ? 1e12 : 0.0;
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, 1, 390, 64, NULL);
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1, .out = NULL};
        assert_true(seq->n_down > 4);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
        }
        qy_cache_plan(rig.cache, &plan);
        assert_true((qyi_store_stats(store)->attends > 0) == !dear);
        assert_true(dear ? plan.rows_pulled > 0 && plan.rows_pushed == 0 : plan.rows_pushed > 0);
        rig_close(&rig);
        rig_servers_close(&servers);
    }
}

/* A step that is left while servers attend for it: what they answer goes nowhere. */
static void step_may_be_left_while_servers_attend(void **state)
{
    static float qkv[RIG_STRIDE];
    static float out[RIG_OUT];
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct rig rig;
    (void)state;

    o.plan = QY_PLAN_PUSH;
    rig_servers_open(&servers, 2, 1, 8 << 20);
    o = rig_on_servers(&o, &servers);
    rig_open(&rig, &o);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 390, 64, NULL);
    const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1, .out = NULL};
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    for (int cut = 0; cut <= 1; cut++) {
        const int32_t id = rig_token(1, qy_sequence_tokens(seq));
        const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = &id};
        const struct qy_qkv args = {
            .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};

        assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
        rig_qkv(1, 0, qy_sequence_tokens(seq), qkv);
        assert_int_equal(qy_step_attend_start(rig.cache, 0, 0, &args), QY_OK);
        assert_true(rig.cache->far.push.questions[0].batch.n_left > 0);
        if (cut) {
            assert_int_equal(qy_fabric_happens(servers.fabric, "s0", QY_FABRIC_STOP), QY_OK);
        }
        qy_step_abort(rig.cache);
        assert_int_equal(rig.cache->far.push.questions[0].batch.n_left, 0);
        assert_int_equal(qy_fabric_happens(servers.fabric, "s0", QY_FABRIC_RESUME), QY_OK);
        rig_servers_pass(&servers);
    }
    assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    rig_verify(seq);
    rig_close(&rig);
    rig_servers_close(&servers);
}

/* What cannot be, and how it is said. */
static void wrong_settings_are_refused(void **state)
{
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_servers_open(&servers, 2, 1, 8 << 20);
    o.servers = &servers.servers;
    rig_prepare(&rig, &o);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "net.memory: this device shares the host's memory"));
    rig_close(&rig);
    o = rig_on_servers(&rig_disk_base, &servers);
    o.disk_bytes = 1 << 20;
    rig_prepare(&rig, &o);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "with memory servers (net.memory) blocks go there"));
    rig_close(&rig);
    o.disk_bytes = 0;
    servers.servers.copies = 3;
    rig_prepare(&rig, &o);
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_INVALID);
    rig_close(&rig);
    servers.servers.copies = 1;
    rig_servers_kill(&servers, 1);
    rig_prepare(&rig, &o);
    assert_int_not_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_OK);
    assert_non_null(strstr(err.text, "s1"));
    rig_close(&rig);
    rig_servers_close(&servers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_give_the_bits_of_memory),
        cmocka_unit_test(servers_hold_coded_rows),
        cmocka_unit_test(caches_one_after_another_keep_apart),
        cmocka_unit_test(step_fails_when_nobody_has_its_rows),
        cmocka_unit_test(copies_stand_in_for_a_dead_server),
        cmocka_unit_test(servers_attend_to_what_is_pushed),
        cmocka_unit_test(worker_stands_in_for_a_server),
        cmocka_unit_test(deterministic_pushes_keep_the_bits),
        cmocka_unit_test(costs_of_servers_decide),
        cmocka_unit_test(step_may_be_left_while_servers_attend),
        cmocka_unit_test(wrong_settings_are_refused),
    };

    return cmocka_run_group_tests_name("far_servers", tests, NULL, NULL);
}
