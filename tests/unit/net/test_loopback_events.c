/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to the nodes of a fabric: death, a stop, a cut link. */
#include "tests/support/test.h"
#include "tests/unit/net/raw_wire.h"

static const struct qyi_wire_ops *ops = &qyi_wire_loopback;
static const struct qy_fabric_params late = {.latency_ns = 10};

static void happens(struct raw_ground *g, const char *address, enum qy_fabric_event event)
{
    assert_int_equal(qy_fabric_happens(g->fabric, address, event), QY_OK);
}

static void killed_node_breaks_its_connections(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    raw_post(&g, 0, 1, 9000);
    raw_round(&g);
    uint64_t start = qy_fabric_now(g.fabric);
    happens(&g, "a", QY_FABRIC_KILL);
    assert_int_equal(qy_fabric_happens(g.fabric, "a", QY_FABRIC_KILL), QY_ERR_NOT_FOUND);
    assert_int_equal(raw_send(&g.nodes[0], g.nodes[0].conns[0], 5, 1), QY_ERR_PEER);
    g.nodes[0].works = 0;
    raw_settle(&g);
    assert_int_equal(raw_find(&g, 2, 'B', 0)->ns - start, 10);
    assert_int_equal(raw_find(&g, 2, 's', 1)->status, QY_ERR_PEER);
    assert_int_equal(g.nodes[0].works, 0);
    raw_post(&g, 1, 2, 10); /* the others go on */
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "aB", text), "2B0 1a2 ");
    raw_close(&g);
}

static void what_a_killed_node_had_sent_still_comes(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    struct raw_node *a = &g.nodes[0];
    assert_int_equal(raw_send(a, a->conns[0], 1, 10), QY_OK);
    assert_int_equal(raw_send(a, a->conns[0], 2, 9000), QY_OK); /* its memory goes with it */
    happens(&g, "a", QY_FABRIC_KILL);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "baBs", text), "2b1 2a1 2B0 ");
    raw_close(&g);
}

static void another_node_may_open_where_one_was_killed(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    happens(&g, "a", QY_FABRIC_KILL);
    raw_node(&g, 3, "a");
    raw_close_conn(&g.nodes[2], g.nodes[2].conns[0]);
    struct qyi_conn *conn = raw_connect(&g.nodes[2], "a");
    raw_settle(&g);
    assert_int_equal(raw_send(&g.nodes[2], conn, 1, 10), QY_OK);
    raw_settle(&g);
    assert_non_null(raw_find(&g, 3, 'a', 1));
    raw_node_close(&g.nodes[0]); /* the dead one: the living stays where it is */
    assert_int_equal(raw_send(&g.nodes[2], conn, 2, 10), QY_OK);
    raw_settle(&g);
    assert_non_null(raw_find(&g, 3, 'a', 2));
    raw_close(&g);
}

static void stopped_node_is_silent_until_it_resumes(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    raw_post(&g, 0, 1, 10);
    happens(&g, "a", QY_FABRIC_STOP);
    raw_post(&g, 0, 2, 9000);
    g.nodes[0].works = 0;
    g.nodes[0].due = qy_fabric_now(g.fabric) + 3;
    g.nodes[1].works = 0;
    raw_settle(&g);
    ops->wait(g.nodes[2].wire, 100000, 0);
    assert_string_equal(raw_text(&g, "baB", text), "");
    assert_int_equal(g.nodes[0].works, 0);
    assert_true(g.nodes[1].works > 0);
    assert_int_equal(qy_fabric_now(g.fabric), 100000);
    assert_non_null(raw_find(&g, 2, 's', 1)); /* copied: it is the network's */
    assert_null(raw_find(&g, 2, 's', 2));
    g.nodes[0].due = UINT64_MAX;
    happens(&g, "a", QY_FABRIC_RESUME);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "a", text), "0a1 0a2 ");
    assert_int_equal(raw_find(&g, 0, 'a', 1)->ns, 100000);
    assert_int_equal(raw_find(&g, 2, 's', 2)->status, QY_OK);
    raw_close(&g);
}

static void cut_node_goes_on_working(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    happens(&g, "a", QY_FABRIC_CUT);
    raw_post(&g, 0, 1, 10);
    struct raw_node *a = &g.nodes[0];
    assert_int_equal(raw_send(a, a->conns[0], 2, 10), QY_OK);
    a->works = 0;
    raw_settle(&g);
    assert_true(a->works > 0);
    assert_string_equal(raw_text(&g, "baBs", text), "2s1 0s2 ");
    happens(&g, "a", QY_FABRIC_RESUME);
    raw_settle(&g);
    assert_non_null(raw_find(&g, 0, 'a', 1));
    assert_non_null(raw_find(&g, 2, 'a', 2));
    raw_close(&g);
}

static void nobody_hears_of_a_death_behind_a_cut_link(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    happens(&g, "a", QY_FABRIC_CUT);
    happens(&g, "a", QY_FABRIC_KILL);
    raw_node_close(&g.nodes[0]);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 2, 'B'), 0);
    happens(&g, "a", QY_FABRIC_RESUME);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 2, 'B'), 1);
    raw_close(&g);
}

static void death_of_a_stopped_node_is_heard_of(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    happens(&g, "a", QY_FABRIC_STOP);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 2, 'B'), 0);
    happens(&g, "a", QY_FABRIC_KILL);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 2, 'B'), 1);
    raw_close(&g);
}

static void connection_to_a_stopped_node_waits_or_is_given_up(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    happens(&g, "a", QY_FABRIC_STOP);
    struct qyi_conn *given_up = raw_connect(&g.nodes[1], "a");
    raw_settle(&g);
    raw_close_conn(&g.nodes[1], given_up);
    raw_connect(&g.nodes[1], "a");
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 1, 'C'), 0);
    happens(&g, "a", QY_FABRIC_RESUME);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 1, 'C'), 1);
    assert_int_equal(raw_count(&g, 0, 'A'), 1);
    raw_close(&g);
}

/* One of the two dies after `steps` rounds, with messages of all kinds under way both ways. */
static void kill_after(int steps, const char *who, struct qy_fabric_params params)
{
    struct raw_ground g;
    params.latency_ns = 100;
    params.gbps = 100;
    raw_open_three(&g, params);
    struct raw_node *a = &g.nodes[0], *c = &g.nodes[2];
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(raw_send(c, c->conns[0], i, i % 2 == 0 ? 100 : 20000), QY_OK);
        assert_int_equal(raw_send(a, a->conns[0], i, i % 2 == 1 ? 100 : 20000), QY_OK);
    }
    for (int i = 0; i < steps; i++) {
        ops->progress(c->wire);
        ops->wait(c->wire, UINT64_MAX, 0);
    }
    happens(&g, who, QY_FABRIC_KILL);
    struct raw_node *dead = who[0] == 'a' ? a : c, *other = who[0] == 'a' ? c : a;
    raw_settle(&g);
    assert_int_equal(raw_count(&g, other->index, 'B'), 1);
    assert_int_equal(raw_count(&g, other->index, 's'), 4);
    raw_node_close(dead);
    raw_settle(&g);
    assert_null(g.sent);
    raw_close(&g);
}

static void death_in_every_state_is_told_once_and_leaks_nothing(void **state)
{
    (void)state;
    for (int steps = 0; steps < 25; steps++) {
        for (int order = QY_FABRIC_IN_ORDER; order <= QY_FABRIC_RANDOM; order++) {
            struct qy_fabric_params params = {.order = (enum qy_fabric_order)order,
                                              .seed = (uint64_t)steps};
            kill_after(steps, "a", params);
            kill_after(steps, "c", params);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_node_breaks_its_connections),
        cmocka_unit_test(what_a_killed_node_had_sent_still_comes),
        cmocka_unit_test(another_node_may_open_where_one_was_killed),
        cmocka_unit_test(stopped_node_is_silent_until_it_resumes),
        cmocka_unit_test(cut_node_goes_on_working),
        cmocka_unit_test(nobody_hears_of_a_death_behind_a_cut_link),
        cmocka_unit_test(death_of_a_stopped_node_is_heard_of),
        cmocka_unit_test(connection_to_a_stopped_node_waits_or_is_given_up),
        cmocka_unit_test(death_in_every_state_is_told_once_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
