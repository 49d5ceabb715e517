/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: coming up, being lost, gone and back, refused; who asks us coming and going. */
#include "tests/unit/net/net_bed.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t timeout = BED_TIMEOUT_MS * BED_MS;

static void peer_comes_up_and_both_know_each_other(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    assert_int_equal(qy_peer_state(peer), QY_PEER_UP);
    assert_int_equal(qy_peer_incarnation(peer), qy_node_incarnation(server.node));
    assert_string_equal(qy_peer_name(peer), "s");
    assert_int_equal(server.n_joined, 1);
    bed_get_works(client, peer, 0, 10);
    assert_int_equal(server.order[0], 'c'); /* its session */
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void peer_where_nobody_listens_is_tried_until_somebody_does(void **state)
{
    struct bed_server server;
    struct qy_peer *peer;
    struct qy_request r;
    struct qy_error err = {0};
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    struct qy_node *client = bed_client(&bed, "c");
    assert_int_equal(qy_peer_open(client, "s", "server 0", &peer, &err), QY_OK);
    assert_int_equal(qy_peer_wait(peer, 2 * timeout, &err), QY_ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "'server 0' at s: not reached within 200 ms"));
    assert_int_equal(qy_peer_state(peer), QY_PEER_CONNECTING);
    bed_ask(&r, BED_CODE, 0, 0);
    assert_int_equal(qy_request_post(peer, &r), QY_ERR_PEER);
    bed_pass(client, 20 * timeout);
    assert_int_equal(qy_peer_state(peer), QY_PEER_CONNECTING);
    bed_server_open(&bed, &server, "s");
    assert_int_equal(qy_peer_wait(peer, 1001 * BED_MS, &err), QY_OK); /* once a second by now */
    bed_get_works(client, peer, 0, 10);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void peer_is_tried_quickly_at_first(void **state)
{
    struct bed_server server;
    struct qy_peer *peer;
    struct qy_error err = {0};
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    struct qy_node *client = bed_client(&bed, "c");
    assert_int_equal(qy_peer_open(client, "s", "s", &peer, &err), QY_OK);
    bed_pass(client, timeout);
    bed_server_open(&bed, &server, "s");
    assert_int_equal(qy_peer_wait(peer, timeout / 8, &err), QY_OK);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void stopped_peer_misses_a_deadline_is_lost_gone_and_back(void **state)
{
    struct qy_peer_stats stats;
    struct bed_server server;
    struct qy_request late;
    struct qy_request other;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    const uint64_t start = qy_node_incarnation(server.node);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s", QY_FABRIC_STOP), QY_OK);
    bed_ask(&other, BED_CODE, 1, 0);
    other.timeout_ns = 10 * timeout;
    assert_int_equal(qy_request_post(peer, &other), QY_OK);
    bed_ask(&late, BED_CODE, 1, 0);
    const uint64_t asked = qy_node_now(client);
    assert_int_equal(bed_try(peer, client, &late), QY_ERR_TIMEOUT);
    assert_int_equal(qy_node_now(client) - asked, timeout);
    assert_int_equal(other.status, QY_ERR_PEER);
    assert_int_equal(qy_peer_state(peer), QY_PEER_LOST);
    qy_peer_stats(peer, &stats);
    assert_int_equal(stats.timeouts, 1);
    assert_int_equal(stats.broken, 0);
    assert_int_equal(stats.lost_ns, asked + timeout);
    assert_int_equal(qy_request_post(peer, &late), QY_ERR_PEER);

    bed_until(client, peer, QY_PEER_GONE, 4 * timeout);
    assert_false(qy_peer_has_ended(peer)); /* nobody says so */
    assert_true(qy_node_now(client) >= stats.lost_ns + 3 * timeout);
    bed_pass(client, 10 * timeout);
    assert_int_equal(qy_peer_state(peer), QY_PEER_GONE);

    assert_int_equal(qy_fabric_happens(bed.fabric, "s", QY_FABRIC_RESUME), QY_OK);
    bed_until(client, peer, QY_PEER_UP, 1200 * BED_MS);
    assert_int_equal(qy_peer_incarnation(peer), start);
    bed_get_works(client, peer, 0, 10);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void idle_loss_is_noticed_by_pings(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    bed_pass(client, 20 * timeout); /* alive: pings are answered */
    assert_int_equal(qy_peer_state(peer), QY_PEER_UP);
    assert_int_equal(server.n_joined, 1);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s", QY_FABRIC_CUT), QY_OK);
    bed_until(client, peer, QY_PEER_LOST, timeout + timeout / 8 + BED_MS);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s", QY_FABRIC_RESUME), QY_OK);
    bed_until(client, peer, QY_PEER_UP, 2 * timeout);
    bed_get_works(client, peer, 5, 10);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void killed_peer_fails_requests_at_once_and_another_start_is_known(void **state)
{
    struct qy_peer_stats stats;
    struct bed_server first;
    struct bed_server second;
    struct qy_request r;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &first, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    const uint64_t start = qy_peer_incarnation(peer);
    bed_rule(&bed, "s", "c", QY_FABRIC_DROP, 0, 1);
    bed_ask(&r, BED_CODE, 1, 0);
    struct qy_op op = {0};
    r.counts = &op;
    assert_int_equal(qy_request_post(peer, &r), QY_OK);
    bed_pass(client, timeout / 4);
    assert_int_equal(qy_fabric_happens(bed.fabric, "s", QY_FABRIC_KILL), QY_OK);
    assert_int_equal(qy_op_wait(client, &op), QY_ERR_PEER);
    assert_int_equal(qy_peer_state(peer), QY_PEER_LOST);
    qy_peer_stats(peer, &stats);
    assert_int_equal(stats.broken, 1);
    assert_int_equal(stats.timeouts, 0);
    bed_server_close(&first);
    assert_false(qy_peer_has_ended(peer)); /* the connection may only have broken */
    bed_pass(client, timeout / 8);
    assert_true(qy_peer_has_ended(peer));
    assert_int_equal(qy_peer_state(peer), QY_PEER_LOST); /* another one may begin there */

    bed_server_open(&bed, &second, "s");
    bed_until(client, peer, QY_PEER_UP, timeout / 4);
    assert_false(qy_peer_has_ended(peer));
    assert_int_not_equal(qy_peer_incarnation(peer), start);
    bed_get_works(client, peer, 0, 10);
    qy_node_close(client);
    bed_server_close(&second);
    bed_close(&bed);
}

static void wrong_key_is_refused_for_good_and_harms_nobody(void **state)
{
    struct bed_server server;
    struct qy_peer *bad;
    struct qy_node *stranger;
    struct qy_error err = {0};
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    struct qy_node_params p = bed_client_params(&bed, "x");
    p.key[31] ^= 1;
    assert_int_equal(qy_node_open(&p, &stranger, &err), QY_OK);
    assert_int_equal(qy_peer_open(stranger, "s", "s", &bad, &err), QY_OK);
    assert_int_equal(qy_peer_wait(bad, UINT64_MAX, &err), QY_ERR_PEER);
    assert_non_null(strstr(err.text, "key"));
    bed_pass(stranger, 30 * timeout);
    assert_int_equal(qy_peer_state(bad), QY_PEER_REFUSED);
    assert_int_equal(server.n_joined, 1);
    assert_true(bed.n_warnings >= 1 && bed.n_warnings < 6); /* it is not tried again and again */
    bed_get_works(client, peer, 0, 10);
    qy_node_close(stranger);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

/* The owner of the client was away for ten timeouts: nobody else is late because of that. */
static void stopped_asker_finds_nobody_late(void **state)
{
    struct bed_server server;
    struct qy_request r;
    struct qy_op op = {0};
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    bed_ask(&r, BED_CODE, 1, 0);
    r.counts = &op;
    assert_int_equal(qy_request_post(peer, &r), QY_OK);
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_STOP), QY_OK);
    bed_pass(server.node, 10 * timeout);
    assert_int_equal(op.pending, 1);
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_RESUME), QY_OK);
    assert_int_equal(qy_op_wait(client, &op), QY_OK);
    assert_int_equal(qy_peer_state(peer), QY_PEER_UP);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

/* An asker that stops stays for so many timeouts, and has left after some more. */
static void silent_asker_stays_for(uint64_t silent_ns, uint64_t timeouts)
{
    struct bed_server server;
    struct bed bed;

    bed_open(&bed, NULL);
    struct qy_node_params p = bed_server_params(&bed, &server, "s");
    p.silent_ns = silent_ns;
    bed_server_start(&server, &p);
    struct qy_node *client = bed_client(&bed, "c");
    (void)bed_connect(client, "s");
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_STOP), QY_OK);
    bed_pass(server.node, (timeouts - 1) * timeout);
    assert_string_equal(server.events, "J");
    bed_pass(server.node, 10 * timeout);
    assert_string_equal(server.events, "JL");
    assert_non_null(strstr(server.why, "silent"));
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_RESUME), QY_OK);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void silent_asker_leaves_in_the_end(void **state)
{
    (void)state;
    silent_asker_stays_for(0, 30);
    silent_asker_stays_for(100 * timeout, 100);
}

/* The asker's link was cut and came back: its old connection leaves before the new one joins. */
static void same_session_comes_back_after_its_old_connection_left(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_CUT), QY_OK);
    bed_until(client, peer, QY_PEER_LOST, 2 * timeout);
    assert_int_equal(qy_fabric_happens(bed.fabric, "c", QY_FABRIC_RESUME), QY_OK);
    bed_until(client, peer, QY_PEER_UP, 2 * timeout);
    bed_pass(client, timeout);
    assert_string_equal(server.events, "JLJ");
    bed_get_works(client, peer, 0, 100);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

/* Two nodes with one session: the second takes the place of the first. */
static void second_connection_of_a_session_ends_the_first(void **state)
{
    struct bed_server server;
    struct qy_node *second;
    struct qy_error err = {0};
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *first = bed_client(&bed, "c");
    struct qy_peer *old = bed_connect(first, "s");
    struct qy_node_params p = bed_client_params(&bed, "c");
    p.device = "another";
    assert_int_equal(qy_node_open(&p, &second, &err), QY_OK);
    struct qy_peer *fresh = bed_connect(second, "s");
    bed_get_works(second, fresh, 0, 10);
    assert_true(strncmp(server.events, "JLJ", 3) == 0);
    assert_int_not_equal(qy_peer_state(old), QY_PEER_CONNECTING);
    qy_node_close(first);
    qy_node_close(second);
    bed_pass(server.node, timeout);
    bed_server_close(&server);
    bed_close(&bed);
}

static void closed_peer_ends_its_requests_and_gives_its_place_back(void **state)
{
    struct bed_server server;
    struct qy_request r;
    struct qy_op op = {0};
    uint8_t reply[50];
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    for (int i = 0; i < 10; i++) { /* more often than there are places */
        struct qy_peer *peer = bed_connect(client, "s");
        bed_ask(&r, BED_GET, 0, sizeof(reply));
        r.reply = reply;
        r.reply_capacity = sizeof(reply);
        r.counts = &op;
        assert_int_equal(qy_request_post(peer, &r), QY_OK);
        qy_peer_close(peer);
        assert_int_equal(op.pending, 0);
        assert_int_equal(r.status, QY_ERR_PEER);
    }
    bed_pass(client, timeout);
    assert_int_equal(server.n_joined, 10);
    assert_int_equal(server.n_left, 10);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void node_takes_as_many_peers_as_it_was_told(void **state)
{
    struct bed_server server;
    struct qy_peer *peers[4];
    struct qy_peer *more;
    struct qy_node *clients[3];
    struct qy_error err = {0};
    struct bed bed;
    static const char *const names[] = {"a", "b", "c"};

    (void)state;
    bed_open(&bed, NULL);
    struct qy_node_params p = bed_server_params(&bed, &server, "s");
    p.max_peers = 2;
    bed_server_start(&server, &p);
    for (int i = 0; i < 3; i++) {
        clients[i] = bed_client(&bed, names[i]);
    }
    struct qy_peer *first = bed_connect(clients[0], "s");
    (void)bed_connect(clients[1], "s");
    assert_int_equal(qy_peer_open(clients[2], "s", "s", &more, &err), QY_OK);
    assert_int_equal(qy_peer_wait(more, 2 * timeout, &err), QY_ERR_TIMEOUT);
    bed_get_works(clients[0], first, 0, 10);
    qy_node_close(clients[0]);
    bed_until(clients[2], more, QY_PEER_UP, 2000 * BED_MS);
    bed_get_works(clients[2], more, 0, 10);
    for (int i = 0; i < 3; i++) { /* four in all */
        assert_int_equal(qy_peer_open(clients[2], "nobody", "n", &peers[i], &err), QY_OK);
    }
    assert_int_equal(qy_peer_open(clients[2], "nobody", "n", &peers[3], &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "4 peers"));
    qy_node_close(clients[1]);
    qy_node_close(clients[2]);
    bed_server_close(&server);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_comes_up_and_both_know_each_other),
        cmocka_unit_test(peer_where_nobody_listens_is_tried_until_somebody_does),
        cmocka_unit_test(peer_is_tried_quickly_at_first),
        cmocka_unit_test(stopped_peer_misses_a_deadline_is_lost_gone_and_back),
        cmocka_unit_test(idle_loss_is_noticed_by_pings),
        cmocka_unit_test(killed_peer_fails_requests_at_once_and_another_start_is_known),
        cmocka_unit_test(wrong_key_is_refused_for_good_and_harms_nobody),
        cmocka_unit_test(stopped_asker_finds_nobody_late),
        cmocka_unit_test(silent_asker_leaves_in_the_end),
        cmocka_unit_test(same_session_comes_back_after_its_old_connection_left),
        cmocka_unit_test(second_connection_of_a_session_ends_the_first),
        cmocka_unit_test(closed_peer_ends_its_requests_and_gives_its_place_back),
        cmocka_unit_test(node_takes_as_many_peers_as_it_was_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
