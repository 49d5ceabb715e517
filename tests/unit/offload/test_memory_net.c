/* SPDX-License-Identifier: Apache-2.0 */
/* Workers and a memory server over a fabric: what is asked arrives, whatever happens on the way. */
#include "tests/unit/offload/memory_net_rig.h"

#include <string.h>

static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};
static const struct qy_fabric_params slow = {.seed = 3, .latency_ns = 1000, .gbps = 0.01};

static struct net_bed bed; /* static: answers are large */

static void worker_gets_what_it_put(void **state)
{
    static const struct memory_form forms[] = {
        {.type = QY_ROW_F16}, {.type = QY_ROW_F32}, {.codec = "4bit+0:k8v4", .index_bytes = 70}};
    (void)state;

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        struct memory_worker *w = net_bed_open(
            &bed, &forms[f],
            &(struct qy_fabric_params){.latency_ns = 1000, .gbps = f == 2 ? 1.0 : 0.0});

        memory_fill(w, 1, 7);
        net_bed_compare(&bed, 0, 1, 7);
        assert_int_equal(memory_put(w, 1, 3), QYI_REMOTE_HELD);
        assert_int_equal(memory_drop(w, 1, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
        assert_int_equal(w->said.reply.held_blocks, 0);
        assert_false(memory_holds(w, 1, 6));
        net_bed_close(&bed);
    }
}

static void worker_that_breaks_the_rules_is_sent_away_alone(void **state)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    struct memory_worker *w = net_bed_open(&bed, &form, &usual);
    const struct qyi_remote_read outside = {
        .serial = 1, .at = 1, .bytes = w->layout.block_bytes, .sequence = 0, .block = 0};
    struct qy_memory_stats stats;
    (void)state;

    net_bed_start(&bed, 1, &form);
    memory_fill(w, 0, 2);
    memory_fill(&bed.workers[1], 0, 3);
    assert_int_equal(memory_read(w, &outside, 1), UINT16_MAX);
    assert_int_equal(bed.lines[0].status, QY_ERR_PEER);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.refused, 1);
    net_bed_compare(&bed, 1, 0, 3);
    /* it may come back, and its blocks are its own still */
    assert_int_equal(qy_peer_wait(bed.lines[0].peer, 10 * NET_TIMEOUT, NULL), QY_OK);
    net_bed_compare(&bed, 0, 0, 2);
    assert_int_equal(memory_state(w), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 2);
    net_bed_close(&bed);
}

static void worker_that_dies_leaves_its_blocks_for_the_grace_time(void **state)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    struct memory_worker *w = net_bed_open(&bed, &form, &usual);
    struct qy_memory_stats stats;
    (void)state;

    net_bed_start(&bed, 1, &form);
    memory_fill(w, 0, 4);
    memory_fill(&bed.workers[1], 0, 1);
    qy_node_close(bed.lines[0].node);
    net_bed_pass(&bed, NET_GRACE / 2);
    net_bed_connect(&bed, 0); /* in time; it need not open anew */
    net_bed_compare(&bed, 0, 0, 4);
    qy_node_close(bed.lines[0].node);
    net_bed_pass(&bed, NET_GRACE / 2);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.sessions, 2);
    assert_int_equal(stats.sessions_away, 1);
    net_bed_pass(&bed, NET_GRACE);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.sessions, 1);
    assert_int_equal(stats.blocks_free, stats.blocks_total - 1);
    net_bed_connect(&bed, 0);
    assert_int_equal(memory_state(w), QYI_REMOTE_NOT_OPEN);
    assert_int_equal(memory_open(w), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 0);
    net_bed_compare(&bed, 1, 0, 1);
    net_bed_close(&bed);
}

/* The link is slow: a block is half here when its worker dies. */
static void block_that_never_came_whole_takes_no_frame(void **state)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    struct memory_worker *w = net_bed_open(&bed, &form, &slow);
    const struct qyi_remote_put put = {.serial = 1, .generation = 50, .block = 2};
    struct qy_request r = {.op = QYI_REMOTE_PUT,
                           .head_bytes = sizeof(put),
                           .payload_bytes = w->layout.block_bytes,
                           .timeout_ns = (uint64_t)1000 * NET_TIMEOUT};
    struct qy_memory_stats stats;
    uint32_t turns = 0;
    (void)state;

    memory_make(w, 0, 2);
    memcpy(r.head, &put, sizeof(put));
    r.payload = w->blocks[0][2];
    assert_int_equal(qy_request_post(bed.lines[0].peer, &r), QY_OK);
    do {
        assert_true(turns++ < 1000);
        (void)qy_node_progress(bed.server);
        qy_memory_stats(bed.rig.memory, &stats);
        if (stats.blocks_free == stats.blocks_total) {
            qy_node_wait(bed.server, qy_node_now(bed.server) + 100);
        }
    } while (stats.blocks_free == stats.blocks_total);
    assert_int_equal(stats.puts, 0);
    assert_int_equal(qy_fabric_happens(bed.fabric, net_addresses[0], QY_FABRIC_KILL), QY_OK);
    qy_node_close(bed.lines[0].node);
    net_bed_pass(&bed, NET_TIMEOUT);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.blocks_free, stats.blocks_total);
    assert_int_equal(stats.puts, 0);
    bed.lines[0].node = NULL;
    net_bed_close(&bed);
}

static void damage_on_the_way_is_asked_for_again(void **state)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    static const enum qy_fabric_fault faults[] = {QY_FABRIC_CORRUPT, QY_FABRIC_DUPLICATE,
                                                  QY_FABRIC_DELAY};
    struct memory_worker *w = net_bed_open(&bed, &form, &usual);
    struct qy_peer_stats stats;
    (void)state;

    for (uint32_t i = 0; i < 3; i++) {
        net_bed_inject(&bed, faults[i], net_addresses[0], "server", 0, 1); /* the block */
        memory_make(w, 2, i);
        assert_int_equal(memory_put(w, 2, i), QYI_REMOTE_DONE);
        qy_fabric_heal(bed.fabric);
        net_bed_inject(&bed, faults[i], "server", net_addresses[0], 0, 1); /* the answer */
        assert_true(memory_holds(w, 2, i));
        qy_fabric_heal(bed.fabric);
    }
    qy_peer_stats(bed.lines[0].peer, &stats);
    assert_int_equal(stats.again, 2);
    net_bed_compare(&bed, 0, 2, 3);
    net_bed_pass(&bed, NET_TIMEOUT);
    assert_int_equal(memory_state(w), QYI_REMOTE_DONE);
    assert_int_equal(w->said.reply.held_blocks, 3);
    assert_int_equal(w->said.reply.free_blocks, w->said.reply.total_blocks - 3);
    net_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_gets_what_it_put),
        cmocka_unit_test(worker_that_breaks_the_rules_is_sent_away_alone),
        cmocka_unit_test(worker_that_dies_leaves_its_blocks_for_the_grace_time),
        cmocka_unit_test(block_that_never_came_whole_takes_no_frame),
        cmocka_unit_test(damage_on_the_way_is_asked_for_again),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_net", tests, NULL, NULL);
}
