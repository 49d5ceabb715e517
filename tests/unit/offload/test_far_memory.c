/* SPDX-License-Identifier: Apache-2.0 */
/* What a cache whose blocks lie on memory servers takes of this process, and what it tells of the servers. */
#include "tests/unit/offload/rig_servers.h"

#include "offload/cache.h"

#include <malloc.h>

/* Bytes of the heap now, and at the most. */
struct heap {
    int64_t live, peak;
};

static void *heap_alloc(void *ctx, size_t bytes, size_t align)
{
    const struct qy_allocator system = qy_allocator_system();
    struct heap *h = ctx;
    void *p = system.alloc(system.ctx, bytes, align);

    h->live += p ? (int64_t)malloc_usable_size(p) : 0;
    h->peak = h->live > h->peak ? h->live : h->peak;
    return p;
}

static void heap_free(void *ctx, void *p)
{
    const struct qy_allocator system = qy_allocator_system();
    struct heap *h = ctx;

    h->live -= p ? (int64_t)malloc_usable_size(p) : 0;
    system.free(system.ctx, p);
}

static void expect_servers_told(struct rig *rig, uint64_t n, int pushes)
{
    struct qy_cache_server all = {0};
    struct qy_cache_server server;
    struct qy_cache_stats stats;

    qy_cache_stats(rig->cache, &stats);
    assert_int_equal(stats.servers, n);
    assert_int_equal(stats.servers_idle, 0);
    for (uint32_t i = 0; i < n; i++) {
        qy_cache_server(rig->cache, i, &server);
        assert_int_equal(server.name[1], '0' + (int)i);
        assert_string_equal(server.state, "up");
        assert_true(server.blocks > 0 && server.free_blocks > 0 && server.questions > server.puts);
        assert_int_equal(server.block_bytes, rig->cache->layout.block_bytes);
        all.blocks += server.blocks * server.block_bytes;
        all.puts += server.puts;
        all.sent_bytes += server.sent_bytes;
        all.received_bytes += server.received_bytes;
        all.timeouts += server.timeouts + server.again + server.broken + server.corrupt;
    }
    assert_true(all.blocks <= stats.remote_bytes);
    assert_int_equal(all.puts, stats.remote_writes);
    assert_true(all.sent_bytes > stats.remote_written_bytes);
    assert_true(pushes ? all.received_bytes > stats.remote_read_bytes
                       : all.received_bytes == stats.remote_read_bytes);
    assert_int_equal(stats.remote_rows_pushed > 0, pushes);
    assert_true(pushes || stats.remote_rows_pulled > 0);
    assert_int_equal(all.timeouts, 0);
    /* Heads are checked, too. */
    assert_true(stats.remote_check_bytes > all.sent_bytes + all.received_bytes);
    assert_true(stats.remote_check_ns > 0);
    assert_int_equal(stats.remote_damaged + stats.remote_again, 0);
    qy_cache_stats_reset(rig->cache);
    qy_cache_stats(rig->cache, &stats);
    assert_int_equal(stats.remote_check_bytes + stats.remote_check_ns, 0);
    qy_cache_server(rig->cache, (uint32_t)n, &server);
    assert_string_equal(server.name, "");
}

static void expect_frames_under_host_bytes(enum qy_plan_mode plan)
{
    enum { TOKENS = 860 };
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct qy_cache_stats stats;
    struct heap heap = {0, 0};
    struct qy_cache_chunks chunks;
    struct rig rig;

    o.plan = plan;
    o.max_sequences = 1;
    o.max_tokens = TOKENS + 20;
    rig_servers_open(&servers, 2, 1, 8 << 20);
    o = rig_on_servers(&o, &servers);
    rig_prepare(&rig, &o);
    rig.rt.mem = (struct qy_allocator){.ctx = &heap, .alloc = heap_alloc, .free = heap_free};
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    const int64_t at_open = heap.live;
    heap.peak = at_open;
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, TOKENS, 64, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};

        assert_int_equal(rig_step(&rig, &feed, 1), QY_OK);
    }
    qy_cache_stats(rig.cache, &stats);
    assert_true(qy_cache_bytes_for(rig.cache, TOKENS) > 4 * o.host_bytes);
    assert_true(stats.remote_bytes > 3 * o.host_bytes);
    assert_true(stats.host_peak_bytes >= stats.host_bytes && stats.host_bytes > 0);
    assert_true(stats.host_peak_bytes <= o.host_bytes);
    assert_true(stats.reserved_bytes <= o.host_bytes);
    assert_int_equal(heap.peak, at_open);
    qy_cache_chunks(rig.cache, &chunks);
    assert_int_equal(chunks.can_push, plan == QY_PLAN_PUSH);
    assert_int_equal(chunks.rows_pushed > 0, plan == QY_PLAN_PUSH);
    expect_servers_told(&rig, 2, plan == QY_PLAN_PUSH);
    qy_sequence_close(seq);
    rig_close(&rig);
    rig_servers_close(&servers);
}

/* A context four times as long as host memory: its blocks pass through frames that stay under
 * cache.host_bytes, and nothing is taken that was not taken at open; pulled, and attended to there. */
static void frames_stay_under_host_bytes(void **state)
{
    (void)state;
    expect_frames_under_host_bytes(QY_PLAN_PULL);
    expect_frames_under_host_bytes(QY_PLAN_PUSH);
}

/* Host memory by default: room for blocks on their way; what is not needed is told. */
static void short_contexts_need_no_servers(void **state)
{
    struct rig_options o = rig_disk_base;
    struct rig_servers servers;
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    rig_servers_open(&servers, 2, 1, 8 << 20);
    o = rig_on_servers(&o, &servers);
    o.host_bytes = 0;
    for (int i = 0; i < 2; i++) {
        o.max_tokens = i == 0 ? 512 : 64;
        rig_open(&rig, &o);
        qy_cache_stats(rig.cache, &stats);
        assert_int_equal(stats.servers, i == 0 ? 2 : 0);
        assert_int_equal(stats.servers_idle, i == 0 ? 0 : 2);
        if (i ==
            0) { /* what must be here, and twice the blocks of a step: 3 open ones, 4 full, 1 */
            assert_int_equal(qy_pool_total(rig.cache->home.pool),
                             qyi_home_far_least(rig.cache) + 2 * (3 + 4 + 1));
        }
        rig_close(&rig);
    }
    rig_servers_close(&servers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_stay_under_host_bytes),
        cmocka_unit_test(short_contexts_need_no_servers),
    };

    return cmocka_run_group_tests_name("far_memory", tests, NULL, NULL);
}
