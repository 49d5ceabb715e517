/* SPDX-License-Identifier: Apache-2.0 */
/* A worker and a memory server over the network of this machine. */
#include "tests/unit/offload/memory_net_rig.h"

static struct net_bed bed; /* static: answers are large */

static void worker_gets_what_it_put_over_the_network(void **state)
{
    static const struct memory_form forms[] = {
        {.type = QY_ROW_F16}, {.type = QY_ROW_F32}, {.codec = "4bit+0:k8v4", .index_bytes = 70}};
    (void)state;

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        struct memory_worker *w = net_bed_open(&bed, &forms[f], NULL);

        net_bed_start(&bed, 1, &forms[f]);
        memory_fill(w, 1, 7);
        memory_fill(&bed.workers[1], 1, 3);
        net_bed_compare(&bed, 0, 1, 7);
        net_bed_compare(&bed, 1, 1, 3);
        assert_int_equal(memory_drop(w, 1, 0, UINT32_MAX, 0), QYI_REMOTE_DONE);
        assert_int_equal(w->said.reply.held_blocks, 0);
        assert_false(memory_holds(w, 1, 6));
        assert_true(memory_holds(&bed.workers[1], 1, 2));
        net_bed_close(&bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_gets_what_it_put_over_the_network),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_ucx", tests, NULL, NULL);
}
