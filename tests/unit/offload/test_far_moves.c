/* SPDX-License-Identifier: Apache-2.0 */
/* A cache that decodes while its blocks go from one memory server to another: the bits of one that has memory
 * for all of them, and nothing is computed again. */
#include "tests/unit/offload/rig_servers.h"

#include "offload/cache.h"
#include "offload/policy_open.h"

#include <stdlib.h>
#include <string.h>

enum { PREFILL = 390, N = 48, FLOATS = N * RIG_LAYERS * RIG_OUT, BYTES = 8 << 20 };

/* What happens to the servers before step i of the decode. */
typedef void (*events)(struct rig_servers *servers, uint32_t i);

/* PREFILL tokens, then N one by one. servers NULL: in memory; each [n]: of the servers, at the end. */
static void run(const struct rig_options *options, struct rig_servers *servers, events happens,
                float *out, struct qy_cache_server *each)
{
    struct rig rig;

    rig_open(&rig, options);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, PREFILL, 64, NULL);
    for (uint32_t i = 0; i < N; i++) {
        const struct rig_feed feed = {
            .seq = seq, .stream = 1, .n = 1, .out = out + (size_t)i * RIG_LAYERS * RIG_OUT};

        if (servers) {
            happens(servers, i);
            rig_servers_pass(servers);
        }
        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    }
    rig_verify(seq);
    for (uint32_t i = 0; servers && i < servers->servers.n; i++) {
        qy_cache_server(rig.cache, i, &each[i]);
    }
    if (servers) {
        assert_true(seq->n_down > 4);
        assert_int_equal(qy_cache_tend(rig.cache), 0);
        rig_expect_disk_sound(rig.cache);
    }
    rig_close(&rig);
}

/* there: settings of the cache over servers; NULL: the same. */
static void expect_bits(const struct rig_options *options, uint32_t copies, events happens,
                        const struct qy_retrieval_settings *there,
                        struct qy_cache_server each[RIG_SERVERS])
{
    float *want = malloc(FLOATS * sizeof(float));
    float *have = malloc(FLOATS * sizeof(float));
    struct rig_servers servers;

    assert_true(want && have);
    run(options, NULL, NULL, want, NULL);
    rig_servers_open(&servers, RIG_SERVERS, copies, BYTES);
    struct rig_options o = rig_on_servers(options, &servers);
    o.retrieval = there ? there : o.retrieval;
    run(&o, &servers, happens, have, each);
    rig_servers_close(&servers);
    for (size_t f = 0; f < FLOATS; f++) {
        if (memcmp(&want[f], &have[f], sizeof(float)) != 0) {
            fail_msg("%s: float %zu is %g, in memory %g", options->policy, f, (double)have[f],
                     (double)want[f]);
        }
    }
    free(want);
    free(have);
}

static void server_ends(struct rig_servers *servers, uint32_t i)
{
    struct qy_memory_stats stats;

    if (i == 4) {
        qy_memory_stats(servers->memories[0], &stats);
        assert_true(stats.blocks_free < stats.blocks_total);
        qy_memory_drain(servers->memories[0]);
    } else if (i == 24) { /* it has nothing left, and goes */
        qy_memory_stats(servers->memories[0], &stats);
        assert_int_equal(stats.blocks_free, stats.blocks_total);
        assert_true(stats.moved > 0);
        rig_servers_kill(servers, 0);
    }
}

static void decode_goes_on_while_a_server_empties(void **state)
{
    struct qy_cache_server each[RIG_SERVERS];
    struct rig_options o = rig_disk_base;
    (void)state;

    for (uint32_t copies = 1; copies <= 2; copies++) {
        expect_bits(&o, copies, server_ends, NULL, each);
        assert_true(each[0].moved > 0);
        assert_int_equal(each[0].copied + each[1].copied + each[2].copied, 0);
        assert_string_not_equal(each[0].state, "up");
    }
    o.policy = "dense";
    expect_bits(&o, 1, server_ends, NULL, each);
    o.policy = rig_disk_base.policy;
    o.deterministic = 1;
    o.plan = QY_PLAN_PUSH;
    expect_bits(&o, 1, server_ends, NULL, each);
}

/* Blocks take their index bytes with them, which lie with them alone, and who gets them scores by them. */
static void choices_are_the_same_while_index_bytes_move(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_cache_server each[RIG_SERVERS];
    struct qy_retrieval_settings worker;
    struct qy_retrieval_settings home;
    struct rig_options o = rig_disk_base;
    (void)state;

    assert_int_equal(qyi_settings_initial(&mem, &worker, NULL), QY_OK);
    worker.min_tokens = 0;
    worker.pooling = QY_POOLED_UNION;
    worker.first_stage = QY_STAGE1_KEYS;
    worker.rerank = QY_RERANK_OFF;
    home = worker;
    home.index_at = QY_INDEX_AT_HOME;
    o.retrieval = &worker;
    o.policy = "a2ats+";
    o.budget = "40";
    expect_bits(&o, 1, server_ends, &home, each);
    assert_true(each[0].moved > 0);
}

/* The first dies, and when copies of what it had were made, the second. */
static void servers_die_one_after_another(struct rig_servers *servers, uint32_t i)
{
    if (i == 4) {
        rig_servers_kill(servers, 0);
    } else if (i == 40) { /* nine timeouts later */
        rig_servers_kill(servers, 1);
    }
}

static void copies_are_there_for_the_second_loss_too(void **state)
{
    struct qy_cache_server each[RIG_SERVERS];
    (void)state;

    expect_bits(&rig_disk_base, 2, servers_die_one_after_another, NULL, each);
    assert_int_equal(each[0].moved + each[1].moved + each[2].moved, 0);
    assert_true(each[1].copied + each[2].copied > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_goes_on_while_a_server_empties),
        cmocka_unit_test(choices_are_the_same_while_index_bytes_move),
        cmocka_unit_test(copies_are_there_for_the_second_loss_too),
    };

    return cmocka_run_group_tests_name("far_moves", tests, NULL, NULL);
}
