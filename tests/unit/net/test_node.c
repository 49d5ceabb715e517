/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: what they refuse to open with, what they leave behind, regions, the end of what is under way. */
#include "tests/unit/net/net_bed.h"

#include "tests/support/fail_alloc.h"

#include <string.h>

static void refused(struct qy_node_params p, const char *word)
{
    struct qy_error err = {0};
    struct qy_node *node = NULL;

    assert_int_equal(qy_node_open(&p, &node, &err), QY_ERR_INVALID);
    assert_null(node);
    if (!strstr(err.text, word)) {
        fail_msg("'%s' is not in '%s'", word, err.text);
    }
}

static void node_open_refuses_bad_params_in_words(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    const struct qy_node_params good = bed_server_params(&bed, &server, "s");
    struct qy_node_params p = good;
    p.depth = 0;
    refused(p, "depth '0'");
    p.depth = 65;
    refused(p, "1 to 64");
    p = good;
    p.max_peers = 0;
    refused(p, "peers '0'");
    p = good;
    p.timeout_ns = 0;
    refused(p, "timeout");
    p = good;
    p.n_answers = 0;
    refused(p, "'s'");
    p = good;
    p.service = NULL;
    refused(p, "'s'");
    p = good;
    p.call_bytes = SIZE_MAX / 2;
    refused(p, "overflow");
    bed_close(&bed);
}

static void node_tells_its_address_and_start(void **state)
{
    struct bed_server server;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "here:1");
    struct qy_node *client = bed_client(&bed, "c");
    assert_string_equal(qy_node_address(server.node), "here:1");
    assert_string_equal(qy_node_address(client), "");
    assert_int_not_equal(qy_node_incarnation(client), 0);
    assert_int_not_equal(qy_node_incarnation(client), qy_node_incarnation(server.node));
    assert_int_equal(qy_node_fd(client), -1);
    qy_node_close(client);
    bed_server_close(&server);
    bed_close(&bed);
}

/* Every allocation of nodes, peers and a connection fails once. */
static void open_with_failing_memory_leaves_nothing(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct bed_server server;
        struct qy_error err = {0};
        struct qy_node *node = NULL;
        struct qy_peer *peer = NULL;
        struct bed bed;
        struct fail_alloc f = {.fail_at = n};
        int whole = 0;

        bed_open(&bed, NULL);
        struct qy_runtime rt = bed.rt;
        rt.mem = fail_alloc_make(&f);
        struct qy_node_params s = bed_server_params(&bed, &server, "s");
        struct qy_node_params c = bed_client_params(&bed, "c");
        s.rt = &rt;
        c.rt = &rt;
        if (qy_node_open(&s, &server.node, &err) == QY_OK) {
            if (qy_node_open(&c, &node, &err) == QY_OK) {
                if (qy_peer_open(node, "s", "s", &peer, &err) == QY_OK) {
                    whole = qy_peer_wait(peer, BED_MS, &err) == QY_OK;
                }
                qy_node_close(node);
            }
            qy_node_close(server.node);
        }
        assert_int_equal(f.live, 0);
        bed_close(&bed);
        if (f.calls <= n) {
            assert_true(whole);
            assert_true(n > 5);
            break;
        }
    }
}

/* Everything that requests and calls need is reserved before. */
static void requests_take_no_memory(void **state)
{
    struct fail_alloc f = {.fail_at = -1};
    struct bed_server server;
    struct qy_node *node;
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    struct qy_runtime rt = bed.rt;
    rt.mem = fail_alloc_make(&f);
    struct qy_node_params s = bed_server_params(&bed, &server, "s");
    struct qy_node_params c = bed_client_params(&bed, "c");
    s.rt = &rt;
    c.rt = &rt;
    bed_server_start(&server, &s);
    assert_int_equal(qy_node_open(&c, &node, NULL), QY_OK);
    struct qy_peer *peer = bed_connect(node, "s");
    const long before = f.calls;
    for (size_t bytes = 1; bytes <= BED_STORE; bytes *= 2) {
        bed_get_works(node, peer, 0, bytes);
    }
    bed_pass(node, 1000 * BED_MS);
    assert_int_equal(f.calls, before);
    qy_node_close(node);
    bed_server_close(&server);
    assert_int_equal(f.live, 0);
    bed_close(&bed);
}

static void close_ends_requests_calls_and_peers(void **state)
{
    struct bed_server server;
    struct qy_request r[3];
    struct qy_op op = {0};
    uint8_t reply[100];
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    bed_server_open(&bed, &server, "s");
    struct qy_node *client = bed_client(&bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    for (int i = 0; i < 3; i++) {
        bed_ask(&r[i], BED_GET, 0, sizeof(reply));
        r[i].reply = reply;
        r[i].reply_capacity = sizeof(reply);
        r[i].counts = &op;
        assert_int_equal(qy_request_post(peer, &r[i]), QY_OK);
    }
    qy_node_close(client);
    assert_int_equal(op.pending, 0);
    assert_int_equal(op.status, QY_ERR_PEER);
    assert_int_equal(r[2].status, QY_ERR_PEER);
    bed_pass(server.node, BED_MS);
    assert_string_equal(server.events, "JL");
    bed_server_close(&server);
    bed_close(&bed);
}

static void region_opens_and_closes(void **state)
{
    struct qy_region *region = NULL;
    struct qy_error err = {0};
    uint8_t memory[100];
    struct bed bed;

    (void)state;
    bed_open(&bed, NULL);
    struct qy_node *client = bed_client(&bed, "c");
    assert_int_equal(qy_region_open(client, memory, sizeof(memory), &region, &err), QY_OK);
    qy_region_close(region);
    qy_region_close(NULL);
    qy_node_close(client);
    qy_node_close(NULL);
    qy_peer_close(NULL);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_open_refuses_bad_params_in_words),
        cmocka_unit_test(node_tells_its_address_and_start),
        cmocka_unit_test(open_with_failing_memory_leaves_nothing),
        cmocka_unit_test(requests_take_no_memory),
        cmocka_unit_test(close_ends_requests_calls_and_peers),
        cmocka_unit_test(region_opens_and_closes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
