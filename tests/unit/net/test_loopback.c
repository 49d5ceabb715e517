/* SPDX-License-Identifier: Apache-2.0 */
/* The wire of a fabric: connections, messages, their order, and closing in every state. */
#include "tests/support/test.h"
#include "tests/unit/net/raw_wire.h"

#include <string.h>

static const struct qyi_wire_ops *ops = &qyi_wire_loopback;
static const enum qy_fabric_order orders[] = {QY_FABRIC_IN_ORDER, QY_FABRIC_REVERSED,
                                              QY_FABRIC_RANDOM};

/* Node 0 listens at "a"; node 1 is connected to it. */
static struct raw_node *open_pair(struct raw_ground *g, struct qy_fabric_params params)
{
    raw_open(g, params);
    raw_node(g, 0, "a");
    struct raw_node *asker = raw_node(g, 1, NULL);
    raw_connect(asker, "a");
    raw_settle(g);
    assert_int_equal(g->nodes[0].n_conns, 1);
    g->n_log = 0;
    return asker;
}

static void messages_of_every_size_arrive_whole(void **state)
{
    static const size_t sizes[] = {0, 1, QY_FABRIC_COPIED_BYTES, QY_FABRIC_COPIED_BYTES + 1,
                                   100000};
    struct raw_ground g;
    (void)state;
    struct raw_node *asker = open_pair(&g, (struct qy_fabric_params){.latency_ns = 10});
    for (uint64_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(raw_send(asker, asker->conns[0], i, sizes[i]), QY_OK);
        raw_settle(&g);
        assert_true(raw_find(&g, 0, 'a', i)->intact);
        assert_int_equal(raw_find(&g, 1, 's', i)->status, QY_OK);
    }
    /* The other way. */
    assert_int_equal(raw_send(&g.nodes[0], g.nodes[0].conns[0], 9, 5000), QY_OK);
    raw_settle(&g);
    assert_true(raw_find(&g, 1, 'a', 9)->intact);
    raw_close(&g);
}

static void message_whose_receiver_has_no_place_is_dropped_whole(void **state)
{
    struct raw_ground g;
    (void)state;
    struct raw_node *asker = open_pair(&g, (struct qy_fabric_params){.latency_ns = 10});
    g.nodes[0].drops = 1;
    assert_int_equal(raw_send(asker, asker->conns[0], 1, 100), QY_OK);
    assert_int_equal(raw_send(asker, asker->conns[0], 2, 50000), QY_OK);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 0, 'a'), 2);
    assert_int_equal(raw_count(&g, 1, 's'), 2);
    raw_close(&g);
}

static void messages_queued_before_the_connection_stands_follow_it(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        raw_open(&g, (struct qy_fabric_params){.latency_ns = 10, .order = orders[i]});
        raw_node(&g, 0, "a")->replies = 10;
        struct raw_node *asker = raw_node(&g, 1, NULL);
        struct qyi_conn *conn = raw_connect(asker, "a");
        assert_int_equal(raw_send(asker, conn, 1, 100), QY_OK);
        assert_int_equal(g.n_log, 0); /* the sink is called from progress only */
        raw_settle(&g);
        assert_string_equal(raw_text(&g, "ACa", text), "0A0 0a1 1C0 1a11 ");
        raw_close(&g);
    }
}

static void connection_to_nobody_breaks(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 10});
    struct raw_node *asker = raw_node(&g, 1, NULL);
    struct qyi_conn *conn = raw_connect(asker, "nowhere");
    assert_int_equal(raw_send(asker, conn, 1, 9), QY_OK);
    assert_int_equal(raw_send(asker, conn, 2, 9000), QY_OK);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "ACbaB", text), "1B0 ");
    assert_int_equal(raw_find(&g, 1, 'B', 0)->ns, 20);
    assert_int_equal(raw_find(&g, 1, 's', 2)->status, QY_ERR_PEER);
    assert_int_equal(raw_send(asker, conn, 3, 9), QY_ERR_PEER);
    raw_close(&g);
}

static void connection_that_is_refused_breaks(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 10});
    raw_node(&g, 0, "a")->refuses = 1;
    raw_connect(raw_node(&g, 1, NULL), "a");
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "ACbaB", text), "0A0 1B0 ");
    raw_close(&g);
}

static void connections_above_the_limit_break(void **state)
{
    struct raw_ground g;
    struct qyi_conn *conn = NULL;
    (void)state;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 10});
    raw_node(&g, 0, "a");
    struct raw_node *asker = raw_node(&g, 1, NULL), *late = raw_node(&g, 2, NULL);
    for (int i = 0; i < RAW_CONNS; i++) {
        raw_connect(asker, "a");
    }
    assert_int_equal(ops->connect(asker->wire, "a", asker, &conn, NULL), QY_AGAIN);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 1, 'C'), RAW_CONNS);
    raw_connect(late, "a");
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 2, 'B'), 1);
    assert_int_equal(raw_count(&g, 0, 'A'), RAW_CONNS);
    raw_close(&g);
}

static void messages_above_the_depth_are_put_off(void **state)
{
    struct raw_ground g;
    (void)state;
    struct raw_node *asker = open_pair(&g, (struct qy_fabric_params){.latency_ns = 10});
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(raw_send(asker, asker->conns[0], i, 9000), QY_OK);
    }
    assert_int_equal(raw_send(asker, asker->conns[0], 4, 1), QY_AGAIN);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 0, 'a'), 4);
    assert_int_equal(raw_send(asker, asker->conns[0], 4, 1), QY_OK);
    raw_settle(&g);
    assert_non_null(raw_find(&g, 0, 'a', 4));
    raw_close(&g);
}

/* Three nodes send two messages each at the same time; what node 0 sees of it. */
static void three_senders(enum qy_fabric_order order, uint64_t seed, size_t bytes,
                          const char *kinds, char *text)
{
    struct raw_ground g;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 10, .order = order, .seed = seed});
    raw_node(&g, 0, "a");
    for (int i = 1; i <= 3; i++) {
        raw_connect(raw_node(&g, i, NULL), "a");
    }
    raw_settle(&g);
    g.n_log = 0;
    for (uint64_t i = 0; i < 6; i++) {
        struct raw_node *node = &g.nodes[1 + i % 3];
        assert_int_equal(raw_send(node, node->conns[0], i, bytes), QY_OK);
    }
    raw_settle(&g);
    raw_text(&g, kinds, text);
    raw_close(&g);
}

static void order_is_as_the_fabric_says(void **state)
{
    char text[1024];
    (void)state;
    three_senders(QY_FABRIC_IN_ORDER, 0, 100, "a", text);
    assert_string_equal(text, "0a0 0a1 0a2 0a3 0a4 0a5 ");
    /* Backwards, but for the two of each connection: 5 may not begin before 2. */
    three_senders(QY_FABRIC_REVERSED, 0, 100, "a", text);
    assert_string_equal(text, "0a2 0a5 0a1 0a4 0a0 0a3 ");
}

static void order_random_follows_the_seed(void **state)
{
    char first[1024], text[1024];
    int others = 0;
    (void)state;
    three_senders(QY_FABRIC_RANDOM, 0, 100, "a", first);
    for (uint64_t seed = 0; seed < 20; seed++) {
        char again[1024];
        three_senders(QY_FABRIC_RANDOM, seed, 100, "a", text);
        three_senders(QY_FABRIC_RANDOM, seed, 100, "a", again);
        assert_string_equal(text, again);
        others += strcmp(text, first) != 0;
        for (char id = '0'; id < '3'; id++) { /* of one connection: in order */
            char a[] = {'a', id, ' ', 0}, b[] = {'a', (char)(id + 3), ' ', 0};
            assert_true(strstr(text, a) < strstr(text, b));
        }
    }
    assert_true(others > 10);
}

static void large_messages_begin_in_order_and_arrive_in_any(void **state)
{
    char text[1024];
    struct raw_ground g;
    int overtook = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 22; seed++) {
        enum qy_fabric_order order = seed < 20    ? QY_FABRIC_RANDOM
                                     : seed == 20 ? QY_FABRIC_IN_ORDER
                                                  : QY_FABRIC_REVERSED;
        struct raw_node *asker = open_pair(
            &g, (struct qy_fabric_params){.latency_ns = 10, .seed = seed, .order = order});
        for (uint64_t i = 0; i < 4; i++) {
            assert_int_equal(raw_send(asker, asker->conns[0], i, 9000), QY_OK);
        }
        raw_settle(&g);
        assert_string_equal(raw_text(&g, "b", text), "0b0 0b1 0b2 0b3 ");
        raw_text(&g, "a", text);
        overtook += strcmp(text, "0a0 0a1 0a2 0a3 ") != 0;
        if (order == QY_FABRIC_IN_ORDER) {
            assert_string_equal(text, "0a0 0a1 0a2 0a3 ");
        }
        if (order == QY_FABRIC_REVERSED) {
            assert_string_equal(text, "0a3 0a2 0a1 0a0 ");
        }
        raw_close(&g);
    }
    assert_true(overtook > 10);
}

/* The fixture overwrites and frees a payload as soon as it was sent. */
static void memory_is_free_once_it_was_sent_and_not_before(void **state)
{
    struct raw_ground g;
    (void)state;
    struct raw_node *asker = open_pair(&g, (struct qy_fabric_params){.latency_ns = 100});
    uint64_t start = qy_fabric_now(g.fabric);
    assert_int_equal(raw_send(asker, asker->conns[0], 1, QY_FABRIC_COPIED_BYTES), QY_OK);
    assert_int_equal(raw_send(asker, asker->conns[0], 2, QY_FABRIC_COPIED_BYTES + 1), QY_OK);
    raw_settle(&g);
    assert_int_equal(raw_find(&g, 1, 's', 1)->ns - start, 0);
    assert_int_equal(raw_find(&g, 0, 'a', 1)->ns - start, 100);
    assert_int_equal(raw_find(&g, 0, 'a', 2)->ns - start, 100);
    assert_int_equal(raw_find(&g, 1, 's', 2)->ns - start, 200);
    assert_true(raw_find(&g, 0, 'a', 1)->intact);
    assert_true(raw_find(&g, 0, 'a', 2)->intact);
    raw_close(&g);
}

/* One side closes after `steps` rounds, with messages of all kinds under way both ways. */
static int close_after(int steps, int who, enum qy_fabric_order order)
{
    struct raw_ground g;
    int closed = 0;
    raw_open(&g, (struct qy_fabric_params){.latency_ns = 100, .order = order, .gbps = 100});
    raw_node(&g, 0, "a")->replies = 10;
    struct raw_node *asker = raw_node(&g, 1, NULL);
    raw_connect(asker, "a");
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(raw_send(asker, asker->conns[0], i, i % 2 == 0 ? 100 : 20000), QY_OK);
    }
    int answered = 0;
    for (int i = 0; i < steps; i++) {
        ops->progress(asker->wire);
        ops->wait(asker->wire, UINT64_MAX, 0);
        if (g.nodes[0].n_conns > 0 && !answered) {
            answered = 1;
            assert_int_equal(raw_send(&g.nodes[0], g.nodes[0].conns[0], 7, 30000), QY_OK);
        }
    }
    struct raw_node *closes = &g.nodes[who], *other = &g.nodes[1 - who];
    if (closes->n_conns > 0) {
        closed = 1;
        raw_close_conn(closes, closes->conns[0]);
        uint32_t before = g.n_log;
        raw_settle(&g);
        for (uint32_t i = before; i < g.n_log; i++) {
            assert_int_equal(g.log[i].node, other->index);
        }
        assert_int_equal(raw_count(&g, other->index, 'B'), other->n_conns);
        assert_int_equal(raw_count(&g, closes->index, 'B'), 0);
        /* All that it sent was given back. */
        assert_null(g.sent);
    }
    raw_close(&g);
    return closed;
}

static void close_in_every_state_touches_nothing_after_it(void **state)
{
    int closed = 0;
    (void)state;
    for (size_t order = 0; order < 3; order++) {
        for (int steps = 0; steps < 30; steps++) {
            closed += close_after(steps, 0, orders[order]);
            closed += close_after(steps, 1, orders[order]);
        }
    }
    assert_true(closed > 150);
}

static void address_is_checked(void **state)
{
    struct raw_ground g;
    struct qy_error err;
    struct qyi_conn *conn = NULL;
    void *wire = NULL;
    char longest[QY_NET_ADDRESS_BYTES + 1];
    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    raw_open(&g, (struct qy_fabric_params){0});
    struct raw_node *a = raw_node(&g, 0, "a:1"), *b = raw_node(&g, 1, NULL);
    assert_string_equal(ops->address(a->wire), "a:1");
    assert_string_equal(ops->address(b->wire), "");
    struct qyi_wire_params params = {.rt = &g.rt, .fabric = g.fabric, .listen = "a:1"};
    assert_int_equal(ops->open(&params, &wire, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "address 'a:1': another node"));
    params.listen = longest;
    assert_int_equal(ops->open(&params, &wire, &err), QY_ERR_CONFIG);
    assert_int_equal(ops->connect(b->wire, longest, NULL, &conn, &err), QY_ERR_INVALID);
    assert_int_equal(ops->connect(b->wire, "", NULL, &conn, &err), QY_ERR_INVALID);
    assert_null(wire);
    assert_null(conn);
    raw_node_close(a);
    raw_node(&g, 0, "a:1"); /* it is free again */
    raw_close(&g);
}

static void failed_allocations_are_told_and_leak_nothing(void **state)
{
    int refused = 0;
    (void)state;
    for (long n = 0; n < 40; n++) {
        struct raw_ground g;
        struct qy_error err;
        raw_open(&g, (struct qy_fabric_params){.latency_ns = 10});
        raw_node(&g, 0, "a");
        raw_node(&g, 1, "b");
        void *wire = NULL;
        struct qyi_wire_params params = {.rt = &g.rt, .fabric = g.fabric, .listen = "c"};
        g.heap.fail_at = g.heap.calls + n;
        enum qy_status st = ops->open(&params, &wire, &err);
        struct qyi_conn *conn = NULL;
        if (st == QY_OK) {
            st = ops->connect(g.nodes[1].wire, "a", &g.nodes[1], &conn, &err);
            ops->close(wire);
        }
        if (st == QY_OK) {
            g.nodes[1].conns[g.nodes[1].n_conns++] = conn;
            st = raw_send(&g.nodes[1], conn, 1, 10);
        }
        refused += st == QY_ERR_NOMEM;
        assert_true(st == QY_OK || st == QY_ERR_NOMEM);
        g.heap.fail_at = -1;
        raw_settle(&g);
        raw_close(&g);
        if (st == QY_OK) {
            break;
        }
    }
    assert_true(refused >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_every_size_arrive_whole),
        cmocka_unit_test(message_whose_receiver_has_no_place_is_dropped_whole),
        cmocka_unit_test(messages_queued_before_the_connection_stands_follow_it),
        cmocka_unit_test(connection_to_nobody_breaks),
        cmocka_unit_test(connection_that_is_refused_breaks),
        cmocka_unit_test(connections_above_the_limit_break),
        cmocka_unit_test(messages_above_the_depth_are_put_off),
        cmocka_unit_test(order_is_as_the_fabric_says),
        cmocka_unit_test(order_random_follows_the_seed),
        cmocka_unit_test(large_messages_begin_in_order_and_arrive_in_any),
        cmocka_unit_test(memory_is_free_once_it_was_sent_and_not_before),
        cmocka_unit_test(close_in_every_state_touches_nothing_after_it),
        cmocka_unit_test(address_is_checked),
        cmocka_unit_test(failed_allocations_are_told_and_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
