/* SPDX-License-Identifier: Apache-2.0 */
/* Calls at the service: whose turn it is, where payloads go, codes, and who is sent away. */
#include "tests/unit/net/net_bed.h"

#include <string.h>

/* One server that two clients, "a" and "b", are connected to. */
struct trio {
    struct bed bed;
    struct bed_server server;
    struct qy_node *a, *b;
    struct qy_peer *of_a, *of_b;
};

static void open_trio_over(struct trio *t, const struct qy_fabric_params *fabric,
                           uint32_t n_answers)
{
    bed_open(&t->bed, fabric);
    struct qy_node_params p = bed_server_params(&t->bed, &t->server, "s");
    p.n_answers = n_answers;
    bed_server_start(&t->server, &p);
    t->a = bed_client(&t->bed, "a");
    t->b = bed_client(&t->bed, "b");
    t->of_a = bed_connect(t->a, "s");
    t->of_b = bed_connect(t->b, "s");
}

static void open_trio(struct trio *t, uint32_t n_answers)
{
    open_trio_over(t, NULL, n_answers);
}

static void close_trio(struct trio *t)
{
    qy_node_close(t->a);
    qy_node_close(t->b);
    bed_server_close(&t->server);
    bed_close(&t->bed);
}

static void peers_take_turns_whoever_asks_more(void **state)
{
    struct qy_request many[BED_DEPTH];
    struct qy_request few[2];
    struct qy_op op = {0};
    static uint8_t payloads[BED_DEPTH + 2][60000];
    static uint8_t replies[BED_DEPTH + 2][60000];
    struct trio t;

    (void)state;
    open_trio(&t, 1); /* one buffer: one answer at a time */
    for (int i = 0; i < BED_DEPTH + 2; i++) {
        struct qy_request *r = i < BED_DEPTH ? &many[i] : &few[i - BED_DEPTH];
        memset(payloads[i], i + 1, sizeof(payloads[i]));
        bed_ask(r, BED_ECHO, 0, 0);
        r->payload = payloads[i];
        r->payload_bytes = sizeof(payloads[i]);
        r->reply = replies[i];
        r->reply_capacity = sizeof(replies[i]);
        r->counts = &op;
        assert_int_equal(qy_request_post(i < BED_DEPTH ? t.of_a : t.of_b, r), QY_OK);
    }
    assert_int_equal(qy_op_wait(t.a, &op), QY_OK);
    assert_int_equal(t.server.n_served, BED_DEPTH + 2); /* each once: none came damaged */
    assert_memory_equal(replies, payloads, sizeof(replies));
    /* Both of b's are answered among the first four or five, though a's eight came before them. */
    const char *last = strrchr(t.server.order, 'b');
    assert_non_null(last);
    assert_true(last - t.server.order <= 4);
    assert_non_null(memchr(t.server.order, 'a', 3));
    close_trio(&t);
}

/* Answers to a peer that was stopped stay where they are. */
static void peer_that_takes_nothing_in_leaves_buffers_to_others(void **state)
{
    const struct qy_fabric_params slow = {.seed = 1, .latency_ns = BED_MS};
    static uint8_t payloads[BED_DEPTH][60000];
    static uint8_t replies[BED_DEPTH][60000];
    struct qy_request r[BED_DEPTH];
    struct qy_op op = {0};
    struct trio t;

    (void)state;
    open_trio_over(&t, &slow, 4);
    for (int i = 0; i < BED_DEPTH; i++) {
        memset(payloads[i], i + 1, sizeof(payloads[i]));
        bed_ask(&r[i], BED_ECHO, 0, 0);
        r[i].payload = payloads[i];
        r[i].payload_bytes = sizeof(payloads[i]);
        r[i].reply = replies[i];
        r[i].reply_capacity = sizeof(replies[i]);
        r[i].counts = &op;
        assert_int_equal(qy_request_post(t.of_a, &r[i]), QY_OK);
    }
    bed_pass(t.b, BED_MS + BED_MS / 2);
    assert_int_equal(t.server.n_served, 3); /* all buffers but one, for there is one more peer */
    assert_int_equal(qy_fabric_happens(t.bed.fabric, "a", QY_FABRIC_STOP), QY_OK);
    for (int i = 0; i < 3; i++) {
        bed_get_works(t.b, t.of_b, (uint64_t)i * 1000, 9000);
    }
    assert_int_equal(t.server.n_served, 6);
    assert_int_equal(qy_fabric_happens(t.bed.fabric, "a", QY_FABRIC_RESUME), QY_OK);
    assert_int_equal(qy_op_wait(t.a, &op), QY_OK);
    assert_memory_equal(replies, payloads, sizeof(replies));
    close_trio(&t);
}

static void place_that_says_no_is_the_answer(void **state)
{
    static uint8_t bytes[9000];
    struct qy_request r;
    struct trio t;

    (void)state;
    open_trio(&t, 2);
    bed_ask(&r, BED_PUT, BED_STORE - 10, sizeof(bytes)); /* over the end */
    r.payload = bytes;
    r.payload_bytes = sizeof(bytes);
    assert_int_equal(bed_try(t.of_a, t.a, &r), QY_OK);
    assert_int_equal(r.code, BED_BAD_PLACE);
    assert_int_equal(t.server.n_refused_places, 1);
    assert_int_equal(t.server.n_served, 0);
    assert_int_equal(t.server.n_done, 0);
    bed_get_works(t.a, t.of_a, BED_STORE - 10, 10);
    close_trio(&t);
}

static void code_of_the_service_is_told(void **state)
{
    struct qy_request r;
    struct trio t;

    (void)state;
    open_trio(&t, 2);
    bed_ask(&r, BED_CODE, 65535, 0);
    assert_int_equal(bed_try(t.of_a, t.a, &r), QY_OK);
    assert_int_equal(r.code, 65535);
    assert_int_equal(r.reply_bytes, 0);
    assert_int_equal(r.reply_head_bytes, 0);
    close_trio(&t);
}

/* Who breaks the rules is sent away, at once; the other goes on. */
static void sent_away(enum bed_op op, size_t payload_bytes, const char *why)
{
    static uint8_t bytes[100000];
    struct qy_request r;
    struct trio t;

    open_trio(&t, 2);
    bed_ask(&r, op, 0, 0);
    r.payload = bytes;
    r.payload_bytes = payload_bytes;
    const uint64_t asked = qy_node_now(t.a);
    assert_int_equal(bed_try(t.of_a, t.a, &r), QY_ERR_PEER);
    assert_true(qy_node_now(t.a) - asked < BED_MS);
    assert_non_null(strstr(t.server.why, why));
    bed_get_works(t.b, t.of_b, 0, 5000);
    assert_int_equal(qy_peer_state(t.of_b), QY_PEER_UP);
    bed_until(t.a, t.of_a, QY_PEER_UP, 1000 * BED_MS); /* it may try again */
    bed_get_works(t.a, t.of_a, 0, 5000);
    close_trio(&t);
}

static void call_that_is_refused_closes_that_peer_alone(void **state)
{
    (void)state;
    sent_away(BED_REFUSE, 10, "no such thing here");
}

static void call_that_gets_no_answer_closes_that_peer_alone(void **state)
{
    (void)state;
    sent_away(BED_SILENT, 0, "gave no answer");
}

static void payload_larger_than_the_nodes_buffers_closes_that_peer_alone(void **state)
{
    (void)state;
    sent_away(BED_ECHO, 70000, "at most 65536");
}

/* A peer dies with calls queued, served and being sent: the service hears of each. */
static void peer_that_dies_gives_everything_back(void **state)
{
    static uint8_t payload[60000];
    static uint8_t reply[60000];
    struct qy_request r[BED_DEPTH];
    struct trio t;

    (void)state;
    for (uint64_t ns = 0; ns < 40000; ns += 1500) {
        const struct qy_fabric_params slow = {.seed = ns, .latency_ns = 2000, .gbps = 100};
        bed_open(&t.bed, &slow);
        bed_server_open(&t.bed, &t.server, "s");
        t.a = bed_client(&t.bed, "a");
        t.of_a = bed_connect(t.a, "s");
        for (int i = 0; i < BED_DEPTH; i++) {
            bed_ask(&r[i], i % 2 ? BED_ECHO : BED_PUT, 0, sizeof(payload));
            r[i].payload = payload;
            r[i].payload_bytes = sizeof(payload);
            r[i].reply = reply;
            r[i].reply_capacity = sizeof(reply);
            assert_int_equal(qy_request_post(t.of_a, &r[i]), QY_OK);
        }
        bed_pass(t.a, ns);
        qy_node_close(t.a);
        bed_pass(t.server.node, BED_MS);
        assert_int_equal(t.server.n_left, 1);
        assert_int_equal(t.server.n_done, t.server.n_placed);
        bed_server_close(&t.server);
        bed_close(&t.bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_take_turns_whoever_asks_more),
        cmocka_unit_test(peer_that_takes_nothing_in_leaves_buffers_to_others),
        cmocka_unit_test(place_that_says_no_is_the_answer),
        cmocka_unit_test(code_of_the_service_is_told),
        cmocka_unit_test(call_that_is_refused_closes_that_peer_alone),
        cmocka_unit_test(call_that_gets_no_answer_closes_that_peer_alone),
        cmocka_unit_test(payload_larger_than_the_nodes_buffers_closes_that_peer_alone),
        cmocka_unit_test(peer_that_dies_gives_everything_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
