/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and their answers where nothing goes wrong, and what the caller may do wrong. */
#include "tests/unit/net/net_bed.h"

#include <stdlib.h>
#include <string.h>

/* One server and one client that is connected to it. */
struct pair {
    struct bed bed;
    struct bed_server server;
    struct qy_node *client;
    struct qy_peer *peer;
};

static void open_pair(struct pair *pair, const struct qy_fabric_params *params)
{
    bed_open(&pair->bed, params);
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

static const size_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 40000, 65536};
enum { N_SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void echo_of_any_size_comes_back_whole(void **state)
{
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    for (size_t i = 0; i < N_SIZES; i++) {
        const size_t n = sizes[i];
        uint8_t *payload = malloc(n + 1);
        uint8_t *reply = malloc(n + 1);
        struct qy_request r;
        assert_true(payload && reply);
        for (size_t b = 0; b < n; b++) {
            payload[b] = (uint8_t)(b * 7 + i);
        }
        memset(reply, 0xee, n + 1);
        bed_ask(&r, BED_ECHO, i, n);
        r.payload = payload;
        r.payload_bytes = n;
        r.reply = reply;
        r.reply_capacity = n;
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
        assert_int_equal(r.code, 0);
        assert_int_equal(r.reply_bytes, n);
        assert_memory_equal(reply, payload, n);
        assert_int_equal(reply[n], 0xee);
        assert_int_equal(r.reply_head_bytes, sizeof(struct bed_ask));
        assert_memory_equal(r.reply_head, r.head, sizeof(struct bed_ask));
        free(payload);
        free(reply);
    }
    close_pair(&pair);
}

static void put_and_get_reach_the_servers_own_memory(void **state)
{
    static uint8_t bytes[BED_STORE];
    static uint8_t reply[BED_STORE];
    struct qy_request r;
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    bed_get_works(pair.client, pair.peer, 0, BED_STORE);
    bed_get_works(pair.client, pair.peer, 12345, 1);
    memset(bytes, 'x', sizeof(bytes));
    bed_ask(&r, BED_PUT, 100, 500000);
    r.payload = bytes;
    r.payload_bytes = 500000;
    assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
    assert_int_equal(r.code, 0);
    bed_ask(&r, BED_GET, 0, BED_STORE);
    r.reply = reply;
    r.reply_capacity = BED_STORE;
    assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
    assert_memory_equal(reply + 100, bytes, 500000);
    assert_int_equal(reply[99], bed_byte(99));
    assert_int_equal(reply[500100], bed_byte(500100));
    close_pair(&pair);
}

static void heads_of_any_size_go_over(void **state)
{
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    for (uint16_t n = 0; n <= QY_NET_HEAD_BYTES; n++) {
        struct qy_request r = {.op = BED_ECHO, .head_bytes = n};
        for (uint16_t i = 0; i < n; i++) {
            r.head[i] = (uint8_t)(i + n);
        }
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
        assert_int_equal(r.reply_head_bytes, n);
        assert_memory_equal(r.reply_head, r.head, n);
        assert_int_equal(r.reply_bytes, 0);
    }
    close_pair(&pair);
}

static void post_beyond_depth_is_again_and_changes_nothing(void **state)
{
    struct qy_request r[BED_DEPTH];
    struct qy_request more;
    struct qy_op op = {0};
    uint8_t reply[BED_DEPTH][8];
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    for (int i = 0; i < BED_DEPTH; i++) {
        bed_ask(&r[i], BED_GET, (uint64_t)i, 8);
        r[i].reply = reply[i];
        r[i].reply_capacity = 8;
        r[i].counts = &op;
        assert_int_equal(qy_request_post(pair.peer, &r[i]), QY_OK);
    }
    bed_ask(&more, BED_CODE, 9, 0);
    more.counts = &op;
    const struct qy_request before = more;
    assert_int_equal(qy_request_post(pair.peer, &more), QY_AGAIN);
    assert_memory_equal(&more, &before, sizeof(more));
    assert_int_equal(op.pending, BED_DEPTH);
    assert_int_equal(qy_op_wait(pair.client, &op), QY_OK);
    assert_int_equal(qy_request_post(pair.peer, &more), QY_OK);
    assert_int_equal(qy_op_wait(pair.client, &op), QY_OK);
    assert_int_equal(more.code, 9);
    for (int i = 0; i < BED_DEPTH; i++) {
        assert_int_equal(reply[i][3], bed_byte((uint64_t)i + 3));
    }
    close_pair(&pair);
}

/* The client may have 64 under way; the server takes fewer, and says so. */
static void depth_is_the_smaller_of_both(void **state)
{
    struct bed_server server;
    struct qy_request r[4];
    struct qy_op op = {0};
    struct qy_error err;
    struct qy_node *client;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    struct qy_node_params s = bed_server_params(&bed, &server, "s");
    struct qy_node_params c = bed_client_params(&bed, "c");
    s.depth = 3;
    c.depth = 64;
    bed_server_start(&server, &s);
    assert_int_equal(qy_node_open(&c, &client, &err), QY_OK);
    struct qy_peer *peer = bed_connect(client, "s");
    for (int i = 0; i < 4; i++) {
        bed_ask(&r[i], BED_CODE, 1, 0);
        r[i].counts = &op;
        assert_int_equal(qy_request_post(peer, &r[i]), i < 3 ? QY_OK : QY_AGAIN);
    }
    assert_int_equal(qy_op_wait(client, &op), QY_OK);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

static void post_with_bad_sizes_is_invalid(void **state)
{
    struct qy_request r = {.op = BED_CODE, .head_bytes = QY_NET_HEAD_BYTES + 1};
    struct qy_op op = {0};
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    r.counts = &op;
    assert_int_equal(qy_request_post(pair.peer, &r), QY_ERR_INVALID);
    r.head_bytes = 0;
    r.payload_bytes = 1;
    assert_int_equal(qy_request_post(pair.peer, &r), QY_ERR_INVALID);
    r.payload_bytes = 0;
    r.reply_capacity = 1;
    assert_int_equal(qy_request_post(pair.peer, &r), QY_ERR_INVALID);
    assert_int_equal(op.pending, 0);
    close_pair(&pair);
}

static void answer_larger_than_the_reply_is_invalid_and_touches_nothing(void **state)
{
    uint8_t reply[6000];
    struct qy_request r;
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    for (size_t bytes = 100; bytes < 10000; bytes += 4900) {
        memset(reply, 0xee, sizeof(reply));
        bed_ask(&r, BED_GET, 0, bytes);
        r.reply = reply;
        r.reply_capacity = bytes - 1;
        assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_ERR_INVALID);
        for (size_t i = 0; i < sizeof(reply); i++) {
            assert_int_equal(reply[i], 0xee);
        }
    }
    bed_get_works(pair.client, pair.peer, 0, 5000);
    close_pair(&pair);
}

static void op_keeps_the_first_failure(void **state)
{
    uint8_t reply[8];
    struct qy_request good;
    struct qy_request bad;
    struct qy_op op = {0};
    struct pair pair;

    (void)state;
    open_pair(&pair, NULL);
    bed_ask(&bad, BED_GET, 0, 8);
    bad.counts = &op;
    bed_ask(&good, BED_GET, 0, 8);
    good.reply = reply;
    good.reply_capacity = 8;
    good.counts = &op;
    assert_int_equal(qy_request_post(pair.peer, &bad), QY_OK);
    assert_int_equal(qy_request_post(pair.peer, &good), QY_OK);
    assert_int_equal(op.pending, 2);
    assert_int_equal(qy_op_wait(pair.client, &op), QY_ERR_INVALID);
    assert_int_equal(good.status, QY_OK);
    close_pair(&pair);
}

static void took_is_the_time_there_and_back(void **state)
{
    const struct qy_fabric_params slow = {.seed = 1, .latency_ns = 3 * BED_MS};
    struct qy_peer_stats stats;
    struct qy_request r;
    struct pair pair;

    (void)state;
    open_pair(&pair, &slow);
    bed_ask(&r, BED_CODE, 4, 0);
    assert_int_equal(bed_try(pair.peer, pair.client, &r), QY_OK);
    assert_int_equal(r.took_ns, 6 * BED_MS);
    bed_get_works(pair.client, pair.peer, 0, 1000);
    qy_peer_stats(pair.peer, &stats);
    assert_int_equal(stats.requests, 2);
    assert_int_equal(stats.received_bytes, 1000);
    assert_int_equal(stats.timeouts + stats.broken + stats.corrupt + stats.again, 0);
    close_pair(&pair);
}

/* A request whose memory is all its own, to be freed when it is done: echoes and gets in turn, or large
 * echoes alone, which need every buffer that a server has for its peer. */
static struct qy_request *own_request(uint32_t i, int large)
{
    const size_t bytes = large ? 60000 : sizes[i / 2 % N_SIZES];
    const int echo = large || i % 2;
    struct qy_request *r = calloc(1, sizeof(*r));
    uint8_t *payload = malloc(bytes + 1);

    assert_true(r && payload);
    for (size_t b = 0; b < bytes; b++) {
        payload[b] = bed_byte(i * 13U + b);
    }
    bed_ask(r, echo ? BED_ECHO : BED_GET, i * 13U, bytes);
    r->payload = payload;
    r->payload_bytes = echo ? bytes : 0;
    r->reply = malloc(bytes + 1);
    r->reply_capacity = bytes;
    assert_non_null(r->reply);
    return r;
}

static void check_and_free(struct qy_request *r)
{
    struct bed_ask ask;

    memcpy(&ask, r->head, sizeof(ask));
    assert_int_equal(r->status, QY_OK);
    assert_int_equal(r->reply_bytes, ask.bytes);
    for (size_t b = 0; b < r->reply_bytes; b++) {
        if (((const uint8_t *)r->reply)[b] != bed_byte(ask.at + b)) {
            fail_msg("byte %zu of %zu is wrong", b, r->reply_bytes);
        }
    }
    free((void *)(uintptr_t)r->payload);
    free(r->reply);
    free(r);
}

/* The sanitizer sees who still touches the memory of a request that is done. */
static void many_requests(const struct qy_fabric_params *params, uint32_t n, int large)
{
    struct qy_request *under_way[BED_DEPTH] = {0};
    uint32_t posted = 0;
    uint32_t ended = 0;
    struct pair pair;

    open_pair(&pair, params);
    bed_rule(&pair.bed, NULL, NULL, QY_FABRIC_DUPLICATE, 10, n / 2);
    while (ended < n) {
        for (uint32_t i = 0; i < BED_DEPTH; i++) {
            if (under_way[i] && under_way[i]->status != QY_PENDING) {
                check_and_free(under_way[i]);
                under_way[i] = NULL;
                ended++;
            }
            if (!under_way[i] && posted < n) {
                under_way[i] = own_request(posted++, large);
                assert_int_equal(qy_request_post(pair.peer, under_way[i]), QY_OK);
            }
        }
        if (qy_node_progress(pair.client) == 0) {
            qy_node_wait(pair.client, UINT64_MAX);
        }
    }
    assert_int_equal(pair.server.n_served, n);
    close_pair(&pair);
}

static void requests_in_any_order_get_their_own_answers(void **state)
{
    static const enum qy_fabric_order orders[] = {QY_FABRIC_IN_ORDER, QY_FABRIC_REVERSED,
                                                  QY_FABRIC_RANDOM, QY_FABRIC_RANDOM};

    (void)state;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        const struct qy_fabric_params params = {
            .seed = i, .order = orders[i], .latency_ns = 2000, .gbps = i % 2 ? 10 : 0};
        many_requests(&params, 300, 0);
        many_requests(&params, 60, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_of_any_size_comes_back_whole),
        cmocka_unit_test(put_and_get_reach_the_servers_own_memory),
        cmocka_unit_test(heads_of_any_size_go_over),
        cmocka_unit_test(post_beyond_depth_is_again_and_changes_nothing),
        cmocka_unit_test(depth_is_the_smaller_of_both),
        cmocka_unit_test(post_with_bad_sizes_is_invalid),
        cmocka_unit_test(answer_larger_than_the_reply_is_invalid_and_touches_nothing),
        cmocka_unit_test(op_keeps_the_first_failure),
        cmocka_unit_test(took_is_the_time_there_and_back),
        cmocka_unit_test(requests_in_any_order_get_their_own_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
