/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to a memory server over a network that loses, delays, repeats and damages messages, at random, by
 * seed. What an answer's fold says is what the answer has; and in the end nothing is lost or left over.
 */
#include "tests/unit/offload/memory_net_rig.h"

#include <string.h>

enum { SEEDS = 25, QUESTIONS = 120, BLOCKS = 6 };

static struct net_bed bed; /* static: answers are large */

static uint32_t draw(uint32_t n)
{
    return (uint32_t)(memory_random(&bed.workers[0]) % n);
}

static void random_fault(void)
{
    static const enum qy_fabric_fault faults[] = {
        QY_FABRIC_DROP, QY_FABRIC_DELAY, QY_FABRIC_DUPLICATE, QY_FABRIC_CORRUPT, QY_FABRIC_GARBLE};
    const int there = draw(2) == 0;

    qy_fabric_heal(bed.fabric);
    net_bed_inject(&bed, faults[draw(5)], there ? net_addresses[0] : "server",
                   there ? "server" : net_addresses[0], draw(4), 1 + draw(2));
}

/* Of a sequence of which blocks were made. */
static void ask_list(struct memory_worker *w, uint32_t sequence, int attend)
{
    static struct memory_list list;
    static _Alignas(64) uint8_t expected[MR_REPLY];
    uint32_t n_blocks = 0;

    while (n_blocks < BLOCKS && w->blocks[sequence][n_blocks]) {
        n_blocks++;
    }
    if (n_blocks == 0) {
        return;
    }
    list = (struct memory_list){.layer = draw(MR_LAYERS)};
    memory_list_add(w, &list, sequence, draw(MR_KV_HEADS), 1 + draw(50), n_blocks, 0);
    const uint16_t code = attend ? memory_attend(w, &list) : memory_rows(w, &list);
    if (code == QYI_REMOTE_DONE && w->said.reply.fold == memory_expect_fold(w, &list)) {
        const size_t bytes =
            attend ? memory_expect_attend(w, bed.rig.dev, &list, (float *)(void *)expected)
                   : memory_expect_rows(w, &list, expected);

        assert_int_equal(w->said.bytes, bytes);
        assert_memory_equal(w->said.payload, expected, bytes);
    } else {
        assert_true(code == QYI_REMOTE_DONE || code == QYI_REMOTE_UNKNOWN || w->said.lost);
    }
}

static void ask_anything(struct memory_worker *w)
{
    const uint32_t sequence = draw(MR_SEQUENCES);
    const uint32_t block = draw(BLOCKS);

    switch (draw(5)) {
    case 0:
        memory_make(w, sequence, block);
        (void)memory_put(w, sequence, block);
        assert_true(w->said.lost || w->said.code == QYI_REMOTE_DONE ||
                    w->said.code == QYI_REMOTE_HELD);
        break;
    case 1:
        ask_list(w, sequence, 0);
        break;
    case 2:
        ask_list(w, sequence, 1);
        break;
    case 3:
        if (w->made > 0) {
            (void)memory_drop(w, sequence, block, 1 + draw(2), 0);
        }
        break;
    default:
        if (w->blocks[sequence][block] && !memory_holds(w, sequence, block) && !w->said.lost &&
            w->said.code == QYI_REMOTE_DONE) {
            assert_int_not_equal(w->said.reply.fold,
                                 qyi_remote_fold(0, w->generations[sequence][block]));
        }
        break;
    }
}

/* All is well again: what was lost is put once more. */
static void settle(struct memory_worker *w)
{
    for (uint32_t s = 0; s < MR_SEQUENCES; s++) {
        for (uint32_t b = 0; b < BLOCKS; b++) {
            uint16_t code = w->blocks[s][b] ? memory_put(w, s, b) : (uint16_t)QYI_REMOTE_STALE;

            if (code == QYI_REMOTE_STALE) {
                memory_make(w, s, b);
                code = memory_put(w, s, b);
            }
            assert_true(code == QYI_REMOTE_DONE || code == QYI_REMOTE_HELD);
        }
        net_bed_compare(&bed, 0, s, BLOCKS);
    }
}

static void bad_network_loses_nothing_unseen(void **state)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    struct qy_memory_stats stats;
    (void)state;

    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        struct memory_worker *w =
            net_bed_open(&bed, &form,
                         &(struct qy_fabric_params){.seed = seed,
                                                    .order = (enum qy_fabric_order)(seed % 3),
                                                    .latency_ns = 1000,
                                                    .gbps = seed % 2 ? 1.0 : 0.0});

        w->counter = (uint64_t)seed << 32;
        for (uint32_t i = 0; i < QUESTIONS; i++) {
            if (draw(4) == 0) {
                random_fault();
            }
            ask_anything(w);
            if (w->said.lost) {
                qy_fabric_heal(bed.fabric);
                assert_int_equal(qy_peer_wait(bed.lines[0].peer, 10 * NET_TIMEOUT, NULL), QY_OK);
            }
        }
        qy_fabric_heal(bed.fabric);
        settle(w);
        net_bed_pass(&bed, NET_TIMEOUT);
        qy_memory_stats(bed.rig.memory, &stats);
        assert_int_equal(stats.blocks_total - stats.blocks_free, MR_SEQUENCES * BLOCKS);
        net_bed_close(&bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_network_loses_nothing_unseen),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_random", tests, NULL, NULL);
}
