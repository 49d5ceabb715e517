/* SPDX-License-Identifier: Apache-2.0 */
/* A cache whose sealed blocks lie on memory servers: the bits of one that has memory for all of them. */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_same(const struct rig_options *options, const char *what)
{
    float *want = malloc(RIG_DISK_FLOATS * sizeof(float));
    float *have = malloc(RIG_DISK_FLOATS * sizeof(float));
    struct rig_options o;
    struct rig rig;

    assert_true(want && have);
    rig_disk_reference(options, want);
    for (uint32_t n = 1; n <= RIG_SERVERS; n++) {
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
    static const char *const policies[] = {"quest", "dense", "window"};
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct rig_options o = rig_disk_base;

        o.policy = policies[i];
        expect_same(&o, policies[i]);
    }
}

static void servers_hold_coded_rows(void **state)
{
    struct rig_options o = rig_disk_base;
    (void)state;

    o.policy = "window";
    o.home_codec = "8bit";
    expect_same(&o, "8bit");
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
        cmocka_unit_test(step_fails_when_nobody_has_its_rows),
        cmocka_unit_test(copies_stand_in_for_a_dead_server),
        cmocka_unit_test(wrong_settings_are_refused),
    };

    return cmocka_run_group_tests_name("far_servers", tests, NULL, NULL);
}
