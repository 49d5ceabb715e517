/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of prefill whose earlier blocks lie on memory servers, which attend to them: what a cache in memory
 * gives but for the order of sums, whatever happens to the servers; and when they are pulled instead. */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"
#include "offload/memory/memory_server.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 390, CHUNK = 64, BYTES = 8 << 20 };

/* As of pushes of single tokens. */
static const float tolerance = 2e-5F;

static void expect_near(const float *have, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(have[i] - want[i]) < tolerance)) {
            fail_msg("%s: float %zu is %g, in memory %g", what, i, (double)have[i],
                     (double)want[i]);
        }
    }
}

static float *floats(size_t n)
{
    float *x = malloc(n * sizeof(float));

    assert_non_null(x);
    return x;
}

static struct qy_cache_chunks chunks_of(const struct rig *rig)
{
    struct qy_cache_chunks chunks;

    qy_cache_chunks(rig->cache, &chunks);
    return chunks;
}

/* A cache on servers, and one sequence of stream 1. */
struct bed {
    struct rig_servers servers;
    struct rig rig;
    struct qy_sequence *seq;
    uint32_t n;  /* tokens of it */
    float *want; /* [N][RIG_OUT] of a cache in memory */
};

static void bed_open(struct bed *bed, const struct rig_options *options, uint32_t n_servers,
                     uint32_t copies, int sinks)
{
    struct rig_options o = *options;

    *bed = (struct bed){.want = floats((size_t)N * RIG_OUT)};
    o.home_codec = NULL;
    rig_open(&bed->rig, &o);
    rig_prefill(&bed->rig, rig_sequence(&bed->rig), 1, N, CHUNK, bed->want);
    rig_close(&bed->rig);
    rig_servers_open(&bed->servers, n_servers, copies, BYTES);
    o = rig_on_servers(options, &bed->servers);
    rig_prepare(&bed->rig, &o);
    bed->rig.params.settings.sinks = sinks;
    assert_int_equal(qy_cache_open(&bed->rig.params, &bed->rig.cache, NULL), QY_OK);
    bed->seq = rig_sequence(&bed->rig);
}

static void bed_close(struct bed *bed)
{
    rig_verify(bed->seq);
    rig_close(&bed->rig);
    rig_servers_close(&bed->servers);
    free(bed->want);
}

/* The sequence's tokens up to `end`, in chunks, with time between them for blocks to leave. */
static void bed_prefill(struct bed *bed, uint32_t end, const char *what)
{
    float *have = floats((size_t)CHUNK * RIG_OUT);

    while (bed->n < end) {
        const uint32_t n = end - bed->n < CHUNK ? end - bed->n : CHUNK;

        rig_servers_pass(&bed->servers);
        rig_prefill(&bed->rig, bed->seq, 1, n, CHUNK, have);
        expect_near(have, bed->want + (size_t)bed->n * RIG_OUT, (size_t)n * RIG_OUT, what);
        bed->n += n;
    }
    rig_servers_pass(&bed->servers);
    free(have);
}

static struct rig_options push_options(void)
{
    struct rig_options o = rig_disk_base;

    o.plan = QY_PLAN_PUSH;
    return o;
}

/* With cuts, copies, and steps that mix chunks and single tokens. */
static void servers_attend_to_earlier_blocks_of_chunks(void **state)
{
    float *want = floats(RIG_DISK_FLOATS);
    float *have = floats(RIG_DISK_FLOATS);
    const struct rig_options base = push_options();
    (void)state;

    rig_disk_reference(&base, want);
    for (uint32_t n = 1; n <= RIG_SERVERS; n++) {
        struct rig_servers servers;
        struct rig rig;

        rig_servers_open(&servers, n, n > 2 ? 2 : 1, BYTES);
        struct rig_options o = rig_on_servers(&base, &servers);
        o.micro_batches = n;
        rig_open(&rig, &o);
        assert_int_equal(rig_disk_run(&rig, have), RIG_DISK_FLOATS);
        expect_near(have, want, RIG_DISK_FLOATS, "servers");
        const struct qy_cache_chunks chunks = chunks_of(&rig);
        assert_true(chunks.can_push && !chunks.measured);
        assert_true(chunks.pushed > 0 && chunks.rows_pushed > 0);
        assert_int_equal(chunks.pulled + chunks.failed + chunks.rows_pulled, 0);
        rig_expect_disk_sound(rig.cache);
        rig_close(&rig);
        rig_servers_close(&servers);
    }
    free(have);
    free(want);
}

/* Blocks as long as a part of the kernel's and shorter ones; coded; beside sinks in host memory and without. */
static void blocks_of_all_forms_are_attended_to_there(void **state)
{
    static const struct {
        const char *what, *policy, *codec;
        uint32_t block_tokens, n_servers;
        int sinks;
    } cases[] = {{"short blocks", "quest", NULL, 16, 2, 4},
                 {"no sinks", "quest", NULL, 16, 3, 0},
                 {"long blocks", "dense", NULL, 64, 2, 4},
                 {"long blocks, no sinks", "window", NULL, 64, 1, 0},
                 {"coded", "window", "4bit", 16, 2, 0},
                 {"some coded", "quest", "4bit+0:f16", 16, 2, 4}};
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig_options o = push_options();
        struct bed bed;

        o.policy = cases[i].policy;
        o.block_tokens = cases[i].block_tokens;
        o.home_codec = cases[i].codec;
        o.even = cases[i].codec != NULL; /* coded as they are */
        bed_open(&bed, &o, cases[i].n_servers, 1, cases[i].sinks);
        bed_prefill(&bed, N, cases[i].what);
        const struct qy_cache_chunks chunks = chunks_of(&bed.rig);
        /* chunks of 64 begin at 0, 64 .. 384: all rows before them */
        const uint64_t all = (uint64_t)64 * 21 * RIG_KV_HEADS * RIG_LAYERS;
        assert_in_range(chunks.rows_pushed, 1, all - 1);
        assert_int_equal(chunks.pulled, 0);
        /* questions of a few tokens, two answers' worth of bytes for each */
        const struct qyi_store_stats *done = qyi_store_stats(bed.rig.cache->far.store);
        assert_true(done->chunks >= 10 * chunks.pushed);
        assert_true(chunks.pushed_bytes > 2 * chunks.pushed * CHUNK / 2 * RIG_OUT * sizeof(float));
        bed_close(&bed);
    }
}

/* A server stops, or is cut off: the chunk is pulled from copies; the next ones are pushed to these. */
static void chunks_are_pulled_when_a_server_fails(void **state)
{
    static const enum qy_fabric_event events[] = {QY_FABRIC_STOP, QY_FABRIC_CUT};
    const struct rig_options o = push_options();
    (void)state;

    for (int i = 0; i < 2; i++) {
        struct bed bed;

        bed_open(&bed, &o, 2 + (uint32_t)i, 2, 4);
        bed_prefill(&bed, 5 * CHUNK, "before");
        const struct qy_cache_chunks before = chunks_of(&bed.rig);
        assert_int_equal(before.failed, 0);
        assert_int_equal(qy_fabric_happens(bed.servers.fabric, "s1", events[i]), QY_OK);
        bed_prefill(&bed, N, "a server fails");
        const struct qy_cache_chunks after = chunks_of(&bed.rig);
        assert_true(after.failed > 0 && after.pulled >= after.failed);
        assert_true(after.pushed > before.pushed);
        bed_close(&bed);
    }
}

/* Tokens up to `end`, in one step; its status. */
static enum qy_status try_chunk(struct bed *bed, uint32_t end)
{
    static float qkv[CHUNK * RIG_STRIDE];
    static float out[CHUNK * RIG_OUT];
    int32_t ids[CHUNK];
    const struct qy_step_slice slice = {
        .seq = bed->seq, .n_tokens = end - bed->n, .ids = ids, .mode = QY_ATTEND_DENSE};
    const struct qy_qkv args = {
        .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};

    for (uint32_t i = 0; i < slice.n_tokens; i++) {
        ids[i] = rig_token(1, bed->n + i);
    }
    enum qy_status st = qy_step_begin(bed->rig.cache, &slice, 1, NULL);
    for (uint32_t layer = 0; st == QY_OK && layer < RIG_LAYERS; layer++) {
        for (uint32_t i = 0; i < slice.n_tokens; i++) {
            rig_qkv(1, layer, bed->n + i, qkv + (size_t)i * RIG_STRIDE);
        }
        st = qy_step_attend(bed->rig.cache, layer, &args);
    }
    if (st != QY_OK) {
        qy_step_abort(bed->rig.cache);
        return st;
    }
    return qy_step_end(bed->rig.cache);
}

/* The device fails while servers attend: the step fails, nothing is under way, and it can be done again. */
static void device_that_fails_leaves_nothing_under_way(void **state)
{
    const struct rig_options o = push_options();
    struct bed bed;
    (void)state;

    bed_open(&bed, &o, 2, 1, 4);
    bed_prefill(&bed, 5 * CHUNK, "before");
    const struct qyi_far_chunk *c = &bed.rig.cache->far.chunk;
    for (uint32_t after = 0; after < 2; after++) {
        assert_int_equal(qy_stream_inject(bed.rig.cache->tier.in, QY_STREAM_FAULT_ERROR, after),
                         QY_OK);
        assert_int_equal(try_chunk(&bed, 6 * CHUNK), QY_ERR_DEVICE);
        for (int i = 0; i < QYI_FAR_RUNS; i++) {
            assert_int_equal(c->runs[i].n + c->runs[i].batch.n_left, 0);
        }
    }
    assert_int_equal(qy_stream_inject(bed.rig.cache->tier.in, QY_STREAM_FAULT_NONE, 0), QY_OK);
    bed_prefill(&bed, N, "again");
    bed_close(&bed);
}

/* Blocks that a dead server alone had: the step fails as a pull's would, and they are named. */
static void lost_blocks_fail_the_step(void **state)
{
    const struct rig_options o = push_options();
    struct qy_lost lost;
    struct bed bed;
    (void)state;

    bed_open(&bed, &o, 2, 1, 4);
    bed_prefill(&bed, 5 * CHUNK, "before");
    rig_servers_kill(&bed.servers, 1);
    assert_int_equal(try_chunk(&bed, 6 * CHUNK), QY_ERR_DEVICE);
    assert_non_null(strstr(qy_cache_fault(bed.rig.cache), "nobody holds it any more"));
    assert_true(qy_sequence_lost(bed.seq, &lost));
    assert_int_equal(qy_sequence_truncate(bed.seq, lost.first_token), QY_OK);
    bed.n = lost.first_token;
    bed_prefill(&bed, N, "computed again");
    bed_close(&bed);
}

/* A server without room for what an answer takes is asked once. */
static void server_that_never_can_is_not_asked_again(void **state)
{
    const struct rig_options o = push_options();
    struct bed bed;
    (void)state;

    bed_open(&bed, &o, 2, 1, 4);
    bed.servers.memories[1]->arena.bytes = 64;
    bed_prefill(&bed, N, "pulled");
    const struct qy_cache_chunks chunks = chunks_of(&bed.rig);
    assert_int_equal(chunks.failed, 1);
    assert_int_equal(chunks.pushed, 0);
    assert_true(chunks.pulled > 1 && chunks.rows_pulled > 0 && chunks.rows_pushed == 0);
    bed_close(&bed);
}

/* A trial at open tells what chunks cost, for a policy without lists too; plans go by it. */
static void costs_of_chunks_decide(void **state)
{
    (void)state;

    for (int dear = 0; dear <= 1; dear++) { /* pushes are */
        struct rig_options o = rig_disk_base;
        struct bed bed;

        o.plan = QY_PLAN_AUTO;
        o.policy = dear ? "dense" : "quest";
        bed_open(&bed, &o, 2, 1, 4);
        struct qy_cache_chunks chunks = chunks_of(&bed.rig);
        assert_true(chunks.can_push && chunks.measured);
        assert_true(chunks.byte_ns > 0.0 && chunks.pair_ns > 0.0);
        assert_true(isfinite(chunks.token_ns + chunks.far_row_ns + chunks.far_pair_ns));
        struct qyi_chunk_costs *costs = &bed.rig.cache->far.chunk.costs;
        *costs =
            (struct qyi_chunk_costs){.byte_ns = dear ? 0.0 : 1.0, .token_ns = dear ? 1.0 : 0.0};
        bed_prefill(&bed, N, "auto");
        chunks = chunks_of(&bed.rig);
        assert_true(dear ? chunks.pushed == 0 && chunks.pulled > 0
                         : chunks.pushed > 0 && chunks.pulled == 0);
        bed_close(&bed);
    }
}

/* With step.deterministic chunks are pulled, whatever plan.mode says: the bits are those of a cache in memory
 * (test_far_servers.c). */
static void deterministic_chunks_are_pulled(void **state)
{
    struct rig_options o = push_options();
    struct bed bed;
    (void)state;

    o.deterministic = 1;
    bed_open(&bed, &o, 2, 1, 4);
    bed_prefill(&bed, N, "deterministic");
    assert_false(chunks_of(&bed.rig).can_push);
    assert_int_equal(qyi_store_stats(bed.rig.cache->far.store)->chunks, 0);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_attend_to_earlier_blocks_of_chunks),
        cmocka_unit_test(blocks_of_all_forms_are_attended_to_there),
        cmocka_unit_test(chunks_are_pulled_when_a_server_fails),
        cmocka_unit_test(device_that_fails_leaves_nothing_under_way),
        cmocka_unit_test(lost_blocks_fail_the_step),
        cmocka_unit_test(server_that_never_can_is_not_asked_again),
        cmocka_unit_test(costs_of_chunks_decide),
        cmocka_unit_test(deterministic_chunks_are_pulled),
    };

    return cmocka_run_group_tests_name("far_chunks", tests, NULL, NULL);
}
