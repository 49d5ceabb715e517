/* SPDX-License-Identifier: Apache-2.0 */
/* A fabric's clock: latency, links that take their time, and what a wait jumps to. */
#include "tests/support/test.h"
#include "tests/unit/net/raw_wire.h"

static const struct qyi_wire_ops *ops = &qyi_wire_loopback;

enum { HEAD = sizeof(struct qyi_head) };

/* Nodes 0 and 1 listen at "a" and "b"; 2 and 3 are connected to both. One byte takes 1 ns. */
static uint64_t open_four(struct raw_ground *g, uint64_t latency_ns, double gbps)
{
    raw_open(g, (struct qy_fabric_params){.latency_ns = latency_ns, .gbps = gbps});
    raw_node(g, 0, "a");
    raw_node(g, 1, "b");
    for (int i = 2; i < 4; i++) {
        raw_node(g, i, NULL);
        raw_connect(&g->nodes[i], "a");
        raw_connect(&g->nodes[i], "b");
    }
    raw_settle(g);
    g->n_log = 0;
    return qy_fabric_now(g->fabric);
}

static uint64_t when(const struct raw_ground *g, int node, char what, uint64_t id)
{
    const struct raw_event *event = raw_find(g, node, what, id);
    assert_non_null(event);
    return event->ns;
}

static void post(struct raw_ground *g, int from, int to, uint64_t id, size_t bytes)
{
    struct raw_node *node = &g->nodes[from];
    assert_int_equal(raw_send(node, node->conns[to], id, bytes), QY_OK);
}

static void latency_is_paid_by_every_message(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 70});
    raw_node(&g, 0, "a")->replies = 1;
    struct raw_node *asker = raw_node(&g, 1, NULL);
    raw_connect(asker, "a");
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'A', 0), 70);
    assert_int_equal(when(&g, 1, 'C', 0), 140);
    assert_int_equal(qy_fabric_now(g.fabric), 140);
    assert_int_equal(raw_send(asker, asker->conns[0], 1, 5000), QY_OK);
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'a', 1), 210);
    assert_int_equal(when(&g, 1, 'a', 2), 280);
    raw_close(&g);
}

static void link_carries_one_byte_after_the_other(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 50, 8);
    post(&g, 2, 0, 1, 1000);
    post(&g, 2, 0, 2, 3000);
    raw_settle(&g);
    assert_int_equal(when(&g, 2, 's', 1) - start, HEAD + 1000);
    assert_int_equal(when(&g, 2, 's', 2) - start, 2 * HEAD + 4000);
    assert_int_equal(when(&g, 0, 'a', 1) - start, 50 + HEAD + 1000);
    assert_int_equal(when(&g, 0, 'b', 1) - start, 50 + HEAD + 1000);
    assert_int_equal(when(&g, 0, 'a', 2) - start, 50 + 2 * HEAD + 4000);
    raw_close(&g);
}

static void large_message_begins_with_its_first_byte(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 50, 8);
    post(&g, 2, 0, 1, 10000);
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'b', 1) - start, 50);
    assert_int_equal(when(&g, 0, 'a', 1) - start, 50 + HEAD + 10000);
    assert_int_equal(when(&g, 2, 's', 1) - start, 100 + HEAD + 10000);
    raw_close(&g);
}

static void link_of_a_receiver_is_shared_by_its_senders(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 50, 8);
    post(&g, 2, 0, 1, 1000);
    post(&g, 3, 0, 2, 1000);
    post(&g, 3, 1, 3, 1000); /* elsewhere, behind 2 on the sender's link */
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'a', 1) - start, 50 + HEAD + 1000);
    assert_int_equal(when(&g, 0, 'a', 2) - start, 50 + 2 * (HEAD + 1000));
    assert_int_equal(when(&g, 1, 'a', 3) - start, 50 + 2 * (HEAD + 1000));
    raw_close(&g);
}

static void ways_of_a_link_do_not_share(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 50, 8);
    post(&g, 2, 0, 1, 1000);
    post(&g, 0, 0, 2, 1000);
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'a', 1) - start, 50 + HEAD + 1000);
    assert_int_equal(when(&g, 2, 'a', 2) - start, 50 + HEAD + 1000);
    raw_close(&g);
}

static void slower_link_takes_longer(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 0, 1);
    post(&g, 2, 0, 1, 896);
    raw_settle(&g);
    assert_int_equal(when(&g, 0, 'a', 1) - start, 8 * (HEAD + 896));
    raw_close(&g);
}

static void time_stands_while_something_can_be_delivered(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 0, 0);
    post(&g, 2, 0, 1, 100);
    assert_int_equal(ops->arm(g.nodes[2].wire), QY_AGAIN);
    ops->wait(g.nodes[2].wire, start + 1000, 0);
    assert_int_equal(qy_fabric_now(g.fabric), start);
    raw_round(&g);
    assert_int_equal(when(&g, 0, 'a', 1), start);
    assert_int_equal(ops->arm(g.nodes[2].wire), QY_OK);
    ops->wait(g.nodes[2].wire, start + 1000, 0);
    assert_int_equal(qy_fabric_now(g.fabric), start + 1000);
    assert_int_equal(ops->now(g.nodes[0].wire), start + 1000);
    ops->wait(g.nodes[2].wire, UINT64_MAX, 0); /* nothing will ever happen */
    assert_int_equal(qy_fabric_now(g.fabric), start + 1000);
    raw_close(&g);
}

static void wait_jumps_to_what_comes_first(void **state)
{
    struct raw_ground g;
    (void)state;
    uint64_t start = open_four(&g, 500, 0);
    post(&g, 2, 0, 1, 100);
    raw_round(&g);
    g.nodes[1].due = start + 200;
    ops->wait(g.nodes[2].wire, start + 100, 0); /* the caller's own deadline */
    assert_int_equal(qy_fabric_now(g.fabric), start + 100);
    ops->wait(g.nodes[2].wire, start + 900, 0); /* another node's */
    assert_int_equal(qy_fabric_now(g.fabric), start + 200);
    g.nodes[1].due = UINT64_MAX;
    ops->wait(g.nodes[2].wire, start + 900, 0); /* the message */
    assert_int_equal(qy_fabric_now(g.fabric), start + 500);
    raw_close(&g);
}

static void progress_of_one_node_does_the_work_of_all(void **state)
{
    struct raw_ground g;
    (void)state;
    open_four(&g, 10, 0);
    for (int i = 0; i < 4; i++) {
        g.nodes[i].works = 0;
    }
    assert_int_equal(ops->progress(g.nodes[3].wire), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(g.nodes[i].works, 1);
    }
    raw_close(&g);
}

static void round_ends_though_every_message_is_answered(void **state)
{
    struct raw_ground g;
    (void)state;
    open_four(&g, 0, 0);
    g.nodes[0].replies = 1;
    g.nodes[2].replies = 1;
    post(&g, 2, 0, 1, 8);
    for (int i = 0; i < 10; i++) { /* they would go on for ever */
        assert_true(ops->progress(g.nodes[3].wire) > 0);
    }
    g.nodes[0].replies = 0;
    g.nodes[2].replies = 0;
    raw_settle(&g);
    assert_in_range(raw_count(&g, 0, 'a') + raw_count(&g, 2, 'a'), 5, 12);
    raw_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latency_is_paid_by_every_message),
        cmocka_unit_test(link_carries_one_byte_after_the_other),
        cmocka_unit_test(large_message_begins_with_its_first_byte),
        cmocka_unit_test(link_of_a_receiver_is_shared_by_its_senders),
        cmocka_unit_test(ways_of_a_link_do_not_share),
        cmocka_unit_test(slower_link_takes_longer),
        cmocka_unit_test(time_stands_while_something_can_be_delivered),
        cmocka_unit_test(wait_jumps_to_what_comes_first),
        cmocka_unit_test(progress_of_one_node_does_the_work_of_all),
        cmocka_unit_test(round_ends_though_every_message_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
