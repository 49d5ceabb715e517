/* SPDX-License-Identifier: Apache-2.0 */
/* What a network may do to messages: damage, lose and repeat them, and all of that at random. */
#include "tests/unit/net/net_bed.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t timeout = BED_TIMEOUT_MS * BED_MS;

enum { HEAD = 40 + QY_NET_HEAD_BYTES }; /* bytes in front of each payload */

struct pair {
    struct bed bed;
    struct bed_server server;
    struct qy_node *client;
    struct qy_peer *peer;
};

static void open_pair(struct pair *pair)
{
    bed_open(&pair->bed, NULL);
    bed_server_open(&pair->bed, &pair->server, "s");
    pair->client = bed_client(&pair->bed, "c");
    pair->peer = bed_connect(pair->client, "s");
}

static void close_pair(struct pair *pair)
{
    qy_node_close(pair->client);
    bed_server_close(&pair->server);
    bed_close(&pair->bed);
}

static void expect_stats(const struct qy_peer *peer, uint64_t corrupt, uint64_t again)
{
    struct qy_peer_stats stats;

    qy_peer_stats(peer, &stats);
    assert_int_equal(stats.corrupt, corrupt);
    assert_int_equal(stats.again, again);
    assert_int_equal(stats.timeouts, 0);
    assert_int_equal(stats.broken, 0);
}

/* What the node's checks came to since `before`. */
static struct qy_node_checks checks_since(const struct qy_node *node,
                                          const struct qy_node_checks *before)
{
    struct qy_node_checks now;

    qy_node_checks(node, &now);
    return (struct qy_node_checks){.ns = now.ns - before->ns,
                                   .bytes = now.bytes - before->bytes,
                                   .damaged = now.damaged - before->damaged,
                                   .again = now.again - before->again};
}

static void damaged_answer_is_asked_for_again(void **state)
{
    static const size_t sizes[] = {0, 100, 4096, 50000}; /* the head, a copy, lent memory */

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct qy_node_checks before;
        struct pair pair;
        open_pair(&pair);
        qy_node_checks(pair.client, &before);
        bed_rule(&pair.bed, "s", "c", QY_FABRIC_CORRUPT, 0, 1);
        bed_get_works(pair.client, pair.peer, 77, sizes[i]);
        expect_stats(pair.peer, 1, 1);
        const struct qy_node_checks checks = checks_since(pair.client, &before);
        assert_int_equal(checks.damaged, 1);
        assert_int_equal(checks.again, 1);
        assert_int_equal(checks.bytes, 4 * HEAD + 2 * sizes[i]); /* two questions, two answers */
        assert_true(checks.ns > 0 || sizes[i] < 50000);          /* smaller ones are sampled */
        assert_int_equal(pair.server.n_served, 2);
        close_pair(&pair);
    }
}

static void answer_damaged_twice_is_corrupt_and_no_more(void **state)
{
    static uint8_t reply[50000];
    struct qy_request r;

    (void)state;
    for (size_t bytes = 0; bytes <= sizeof(reply); bytes += 10000) {
        struct pair pair;
        open_pair(&pair);
        bed_rule(&pair.bed, "s", "c", QY_FABRIC_CORRUPT, 0, 2);
        bed_ask(&r, BED_GET, 0, bytes);
        r.reply = reply;
        r.reply_capacity = sizeof(reply);
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_ERR_CORRUPT);
        expect_stats(pair.peer, 2, 1);
        assert_int_equal(qy_peer_state(pair.peer), QY_PEER_UP);
        bed_get_works(pair.client, pair.peer, 0, 30000);
        close_pair(&pair);
    }
}

static void damaged_question_is_asked_again_and_never_served(void **state)
{
    static uint8_t bytes[50000];
    static uint8_t reply[50000];
    struct qy_request r;

    (void)state;
    memset(bytes, 'q', sizeof(bytes));
    for (size_t n = 500; n <= sizeof(bytes); n += 49500) {
        struct qy_node_checks before[2];
        struct pair pair;
        open_pair(&pair);
        qy_node_checks(pair.client, &before[0]);
        qy_node_checks(pair.server.node, &before[1]);
        bed_rule(&pair.bed, "c", "s", QY_FABRIC_CORRUPT, 0, 1);
        bed_ask(&r, BED_ECHO, 0, 0);
        r.payload = bytes;
        r.payload_bytes = n;
        r.reply = reply;
        r.reply_capacity = sizeof(reply);
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
        assert_memory_equal(reply, bytes, n);
        expect_stats(pair.peer, 1, 1);
        const struct qy_node_checks asks = checks_since(pair.client, &before[0]);
        const struct qy_node_checks answers = checks_since(pair.server.node, &before[1]);
        assert_int_equal(asks.damaged, 0);
        assert_int_equal(asks.again, 1);
        assert_int_equal(answers.damaged, 1); /* there */
        assert_int_equal(answers.again, 0);
        assert_int_equal(answers.bytes, 4 * HEAD + 3 * n); /* it came twice, and went back once */
        assert_int_equal(asks.bytes, answers.bytes);
        assert_int_equal(pair.server.n_served, 1);
        close_pair(&pair);
    }
}

/* The head decides where a payload goes: a damaged one is not believed, and the connection ends. */
static void damaged_head_of_a_question_ends_the_connection(void **state)
{
    struct qy_request r;
    struct pair pair;

    (void)state;
    open_pair(&pair);
    bed_rule(&pair.bed, "c", "s", QY_FABRIC_CORRUPT, 0, 1);
    bed_ask(&r, BED_CODE, 3, 0);
    assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_ERR_PEER);
    assert_int_equal(pair.server.n_served, 0);
    bed_until(pair.client, pair.peer, QY_PEER_UP, timeout);
    bed_get_works(pair.client, pair.peer, 0, 100);
    close_pair(&pair);
}

static void lost_question_or_answer_is_a_timeout_and_the_peer_comes_back(void **state)
{
    static const char *const ways[2][2] = {{"c", "s"}, {"s", "c"}};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct qy_request r;
        struct pair pair;
        open_pair(&pair);
        bed_rule(&pair.bed, ways[i][0], ways[i][1], QY_FABRIC_DROP, 0, 1);
        bed_ask(&r, BED_CODE, 3, 0);
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_ERR_TIMEOUT);
        assert_int_equal(qy_peer_state(pair.peer), QY_PEER_LOST);
        bed_until(pair.client, pair.peer, QY_PEER_UP, timeout);
        bed_get_works(pair.client, pair.peer, 0, 100);
        close_pair(&pair);
    }
}

static void late_answer_of_a_lost_connection_touches_nothing(void **state)
{
    static uint8_t reply[50000];
    const struct qy_fabric_rule late = {
        .from = "s", .to = "c", .fault = QY_FABRIC_DELAY, .count = 1, .ns = 3 * timeout};
    struct qy_request r;
    struct pair pair;

    (void)state;
    open_pair(&pair);
    assert_int_equal(qy_fabric_inject(pair.bed.fabric, &late), QY_OK);
    bed_ask(&r, BED_GET, 0, sizeof(reply));
    r.reply = reply;
    r.reply_capacity = sizeof(reply);
    assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_ERR_TIMEOUT);
    memset(reply, 0xee, sizeof(reply));
    const struct qy_request after = r;
    bed_pass(pair.client, 6 * timeout);
    for (size_t i = 0; i < sizeof(reply); i++) {
        assert_int_equal(reply[i], 0xee);
    }
    assert_memory_equal(&r, &after, sizeof(r));
    bed_until(pair.client, pair.peer, QY_PEER_UP, 2000 * BED_MS);
    close_pair(&pair);
}

static void everything_twice_is_served_once(void **state)
{
    struct pair pair;

    (void)state;
    open_pair(&pair);
    bed_rule(&pair.bed, NULL, NULL, QY_FABRIC_DUPLICATE, 0, UINT32_MAX);
    for (uint32_t i = 1; i <= 50; i++) {
        bed_get_works(pair.client, pair.peer, i, 97U * i);
        bed_pass(pair.client, BED_MS);
        assert_int_equal(pair.server.n_served, i);
    }
    bed_pass(pair.client, 10 * timeout); /* pings, too */
    expect_stats(pair.peer, 0, 0);
    assert_int_equal(qy_peer_state(pair.peer), QY_PEER_UP);
    close_pair(&pair);
}

static void hello_with_everything_twice_still_works(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_rule(&bed, NULL, NULL, QY_FABRIC_DUPLICATE, 0, UINT32_MAX);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    bed_get_works(client, peer, 0, 100);
    assert_int_equal(server.n_joined, 1);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

/* A damaged hello is no wrong key: it is tried again. */
static void damaged_hello_is_tried_again(void **state)
{
    (void)state;
    for (uint32_t message = 0; message < 4; message++) {
        struct bed_server server;
        struct bed bed;
        bed_open(&bed, NULL);
        bed_rule(&bed, message % 2 ? "s" : "c", message % 2 ? "c" : "s",
                 message < 2 ? QY_FABRIC_CORRUPT : QY_FABRIC_GARBLE, message / 2, 1);
        bed_server_open(&bed, &server, "s");
        struct qy_node *client = bed_client(&bed, "c");
        struct qy_peer *peer = bed_connect(client, "s");
        bed_get_works(client, peer, 0, 100);
        qy_node_close(client);
        bed_server_close(&server);
        bed_close(&bed);
    }
}

/* ---- at random -------------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t n)
{
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (*state >> 33) % n;
}

/* Requests until n ended, whatever becomes of them; those that end well have what was asked for. */
static uint32_t storm(struct pair *pair, uint64_t *random, uint32_t n)
{
    static uint8_t reply[20000];
    uint32_t good = 0;

    for (uint32_t i = 0; i < n; i++) {
        const uint64_t at = draw(random, 1000);
        const size_t bytes = (size_t)draw(random, sizeof(reply));
        struct qy_request r;
        struct qy_op op = {0};
        bed_ask(&r, BED_GET, at, bytes);
        r.reply = reply;
        r.reply_capacity = sizeof(reply);
        r.counts = &op;
        if (qy_request_post(pair->peer, &r) != QY_OK) {
            bed_pass(pair->client, timeout / 8);
            continue;
        }
        const enum qy_status status = qy_op_wait(pair->client, &op);
        assert_true(status == QY_OK || status == QY_ERR_TIMEOUT || status == QY_ERR_PEER ||
                    status == QY_ERR_CORRUPT);
        assert_int_equal(status, r.status);
        if (status == QY_OK) {
            good++;
            assert_int_equal(r.reply_bytes, bytes);
            for (size_t b = 0; b < bytes; b++) {
                if (reply[b] != bed_byte(at + b)) {
                    fail_msg("byte %zu of %zu is wrong", b, bytes);
                }
            }
        }
    }
    return good;
}

static void random_faults_end_every_request_and_damage_nothing(void **state)
{
    static const enum qy_fabric_fault faults[] = {
        QY_FABRIC_DROP, QY_FABRIC_DELAY, QY_FABRIC_DUPLICATE, QY_FABRIC_CORRUPT, QY_FABRIC_GARBLE};
    uint32_t good = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        const struct qy_fabric_params params = {.seed = seed,
                                                .order = (enum qy_fabric_order)(seed % 3),
                                                .latency_ns = 10000,
                                                .gbps = seed % 4 ? 0 : 1};
        uint64_t random = seed;
        struct pair pair;
        bed_open(&pair.bed, &params);
        bed_server_open(&pair.bed, &pair.server, "s");
        pair.client = bed_client(&pair.bed, "c");
        pair.peer = bed_connect(pair.client, "s");
        for (int i = 0; i < 8; i++) {
            const struct qy_fabric_rule rule = {.from = draw(&random, 2) ? "s" : "c",
                                                .fault = faults[draw(&random, 5)],
                                                .after = (uint32_t)draw(&random, 60),
                                                .count = 1 + (uint32_t)draw(&random, 4),
                                                .ns = draw(&random, 2 * timeout)};
            assert_int_equal(qy_fabric_inject(pair.bed.fabric, &rule), QY_OK);
        }
        good += storm(&pair, &random, 40);
        qy_fabric_heal(pair.bed.fabric);
        bed_until(pair.client, pair.peer, QY_PEER_UP, 60 * timeout);
        bed_get_works(pair.client, pair.peer, 0, 20000);
        close_pair(&pair);
    }
    assert_true(good > 100 * 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_answer_is_asked_for_again),
        cmocka_unit_test(answer_damaged_twice_is_corrupt_and_no_more),
        cmocka_unit_test(damaged_question_is_asked_again_and_never_served),
        cmocka_unit_test(damaged_head_of_a_question_ends_the_connection),
        cmocka_unit_test(lost_question_or_answer_is_a_timeout_and_the_peer_comes_back),
        cmocka_unit_test(late_answer_of_a_lost_connection_touches_nothing),
        cmocka_unit_test(everything_twice_is_served_once),
        cmocka_unit_test(hello_with_everything_twice_still_works),
        cmocka_unit_test(damaged_hello_is_tried_again),
        cmocka_unit_test(random_faults_end_every_request_and_damage_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
