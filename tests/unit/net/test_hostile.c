/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who does not keep to the rules, over a wire of his own: he is sent away, nobody is harmed, and a
 * peer who does keep to them notices nothing.
 */
#include "tests/unit/net/raw.h"

#include "net/node.h"

#include <string.h>

static const uint64_t timeout = BED_TIMEOUT_MS * BED_MS;

/* A server, a good client, and somebody. */
struct scene {
    struct bed bed;
    struct bed_server server;
    struct qy_node *client;
    struct qy_peer *peer;
    struct raw raw;
};

static void open_scene(struct scene *s, int greeted)
{
    bed_open(&s->bed, NULL);
    bed_server_open(&s->bed, &s->server, "s");
    s->client = bed_client(&s->bed, "c");
    s->peer = bed_connect(s->client, "s");
    raw_open(&s->raw, &s->bed, "raw", NULL);
    raw_connect(&s->raw, "s");
    assert_true(s->raw.connected);
    if (greeted) {
        raw_greet(&s->raw);
    }
}

static void close_scene(struct scene *s)
{
    raw_close(&s->raw);
    bed_get_works(s->client, s->peer, 3, 9000);
    assert_int_equal(qy_peer_state(s->peer), QY_PEER_UP);
    qy_node_close(s->client);
    bed_server_close(&s->server);
    bed_close(&s->bed);
}

static struct qyi_head question(uint64_t id, enum bed_op op)
{
    struct qyi_head head = {.kind = QYI_KIND_ASK, .op = (uint16_t)op, .id = id};

    head.head_bytes = sizeof(struct bed_ask);
    return head;
}

/* ---- before the hello ---------------------------------------------------------------------------- */

static void first_message_other_than_a_hello_closes(void **state)
{
    (void)state;
    for (uint8_t kind = 0; kind < 10; kind++) {
        struct scene s;
        struct qyi_head head = {.kind = kind, .id = 64};
        open_scene(&s, 0);
        raw_say(&s.raw, head, NULL);
        raw_run(&s.raw, 0);
        assert_true(s.raw.broken); /* a hello of no bytes is none either */
        assert_int_equal(s.server.n_served, 0);
        assert_int_equal(s.server.n_joined, 1);
        close_scene(&s);
    }
}

static void garbage_closes(void **state)
{
    struct qyi_head head;
    struct scene s;

    (void)state;
    open_scene(&s, 0);
    memset(&head, 'G', sizeof(head)); /* "GET / HTTP/1.1" and the like */
    head.payload_bytes = 0;
    raw_say_as_is(&s.raw, &head, NULL);
    raw_run(&s.raw, 0);
    assert_true(s.raw.broken);
    close_scene(&s);
}

static void silence_instead_of_a_hello_closes_in_time(void **state)
{
    struct scene s;

    (void)state;
    open_scene(&s, 0);
    raw_run(&s.raw, timeout / 2);
    assert_false(s.raw.broken);
    raw_run(&s.raw, timeout);
    assert_true(s.raw.broken);
    close_scene(&s);
}

static void wrong_proof_is_refused_and_closed_in_time(void **state)
{
    struct scene s;
    uint8_t bytes[QYI_HELLO_BYTES];

    (void)state;
    open_scene(&s, 0);
    memset(bytes, 7, sizeof(bytes));
    struct qyi_head head = {.kind = QYI_KIND_HELLO, .id = 1, .payload_bytes = sizeof(bytes)};
    raw_say(&s.raw, head, bytes);
    raw_run(&s.raw, 0);
    assert_int_equal(s.raw.n_kind[QYI_KIND_HELLO], 1); /* the refusal, once */
    assert_false(s.raw.broken);
    head.id = 3;
    raw_say(&s.raw, head, bytes); /* nobody listens any more */
    raw_run(&s.raw, 0);
    assert_false(s.raw.broken);
    raw_run(&s.raw, 2 * timeout);
    assert_int_equal(s.raw.n_kind[QYI_KIND_HELLO], 1);
    assert_true(s.raw.broken);
    close_scene(&s);
}

static void question_between_greetings_closes(void **state)
{
    const struct qyi_identity mine = {.incarnation = 5};
    uint8_t bytes[QYI_HELLO_BYTES];
    struct scene s;

    (void)state;
    open_scene(&s, 0);
    qyi_hello_open(&s.raw.hello, 1, &mine, NULL);
    struct qyi_head head = {.kind = QYI_KIND_HELLO, .id = 1};
    head.payload_bytes = qyi_hello_begin(&s.raw.hello, bytes);
    raw_say(&s.raw, head, bytes);
    raw_say(&s.raw, question(64, BED_CODE), NULL);
    raw_run(&s.raw, 0);
    assert_true(s.raw.broken);
    assert_int_equal(s.server.n_served, 0);
    close_scene(&s);
}

static void strangers_are_few_and_keep_nobody_out_for_long(void **state)
{
    enum { CROWD = 12, AT_ONCE = 8 };
    struct raw crowd[CROWD];
    char names[CROWD][8] = {{0}};
    struct scene s;
    int in = 0;

    (void)state;
    open_scene(&s, 1);
    for (int i = 0; i < CROWD; i++) {
        memcpy(names[i], "raw ", 4);
        names[i][3] = (char)('A' + i);
        raw_open(&crowd[i], &s.bed, names[i], NULL);
        raw_connect(&crowd[i], "s");
        in += crowd[i].broken ? 0 : 1;
    }
    assert_int_equal(in, AT_ONCE);
    bed_get_works(s.client, s.peer, 0, 100);
    struct qy_node *late = bed_client(&s.bed, "late");
    struct qy_peer *peer = bed_connect(late, "s"); /* when the strangers' time is over */
    bed_get_works(late, peer, 0, 100);
    qy_node_close(late);
    for (int i = 0; i < CROWD; i++) {
        raw_close(&crowd[i]);
    }
    close_scene(&s);
}

/* ---- after the hello ----------------------------------------------------------------------------- */

static void greeted_stranger_is_served_like_anybody(void **state)
{
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    struct qyi_head head = question(64, BED_CODE);
    head.head[0] = 42;
    raw_say(&s.raw, head, NULL);
    raw_run(&s.raw, 0);
    assert_int_equal(s.raw.n_kind[QYI_KIND_ANSWER], 1);
    assert_int_equal(s.raw.last.op, 42);
    assert_int_equal(s.raw.last.id, 64);
    close_scene(&s);
}

static void heads_of_wrong_form_close(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct qyi_head head = question(64, BED_CODE);
        struct scene s;
        open_scene(&s, 1);
        switch (i) {
        case 0:
            head.head_bytes = QY_NET_HEAD_BYTES + 1;
            break;
        case 1:
            head.kind = QYI_KIND_ANSWER; /* an answerer is not answered */
            break;
        case 2:
            head.kind = QYI_KIND_PONG;
            head.head_bytes = 0;
            break;
        case 3:
            head.kind = QYI_KIND_PING; /* with a head */
            break;
        case 4:
            head.kind = 200;
            break;
        case 5:
            head.id = BED_DEPTH; /* no such place */
            break;
        default:
            break;
        }
        qyi_head_seal(&head, NULL);
        if (i == 6) { /* sealed over something else */
            head.zero = 1;
        } else if (i == 7) {
            head.head_sum ^= 1;
        } else if (i == 8) {
            head.protocol++;
        }
        raw_say_as_is(&s.raw, &head, NULL);
        raw_run(&s.raw, 0);
        assert_true(s.raw.broken);
        assert_int_equal(s.server.n_served, 0);
        assert_string_equal(s.server.events, "JJL");
        close_scene(&s);
    }
}

static void question_larger_than_what_is_taken_closes(void **state)
{
    static uint8_t bytes[100000];
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    struct qyi_head head = question(64, BED_ECHO);
    head.payload_bytes = sizeof(bytes);
    raw_say(&s.raw, head, bytes);
    raw_run(&s.raw, 0);
    assert_true(s.raw.broken);
    close_scene(&s);
}

static void question_that_comes_damaged_is_told(void **state)
{
    uint8_t bytes[100] = {1};
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    struct qyi_head head = question(64, BED_ECHO);
    head.payload_bytes = sizeof(bytes);
    qyi_head_seal(&head, bytes);
    bytes[50] = 1;
    raw_say_as_is(&s.raw, &head, bytes);
    raw_run(&s.raw, 0);
    assert_int_equal(s.raw.n_kind[QYI_KIND_DAMAGED], 1);
    assert_int_equal(s.raw.last.id, 64);
    assert_int_equal(s.server.n_served, 0);
    close_scene(&s);
}

static void more_questions_than_depth_close(void **state)
{
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    for (uint64_t i = 1; i <= BED_DEPTH + 1; i++) { /* all before any is served, in one round */
        raw_say(&s.raw, question(64 * i, BED_CODE), NULL);
    }
    raw_run(&s.raw, 0);
    assert_true(s.raw.broken);
    assert_true(s.server.n_served <= BED_DEPTH);
    close_scene(&s);
}

static void same_question_many_times_is_served_once(void **state)
{
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    for (int i = 0; i < 100; i++) {
        raw_say(&s.raw, question(640, BED_CODE), NULL);
        raw_run(&s.raw, 0);
    }
    raw_say(&s.raw, question(64, BED_CODE), NULL); /* older than that */
    raw_run(&s.raw, 0);
    assert_int_equal(s.server.n_served, 1);
    assert_false(s.raw.broken);
    close_scene(&s);
}

static void flood_of_pings_is_answered_in_turn(void **state)
{
    struct scene s;

    (void)state;
    open_scene(&s, 1);
    for (uint64_t i = 1; i <= 500; i++) {
        const struct qyi_head head = {.kind = QYI_KIND_PING, .id = i};
        raw_say(&s.raw, head, NULL);
    }
    raw_run(&s.raw, 0);
    assert_false(s.raw.broken);
    assert_true(s.raw.n_kind[QYI_KIND_PONG] >= 1);
    assert_int_equal(s.raw.last.id, 500);
    close_scene(&s);
}

static void hello_after_the_hello_closes(void **state)
{
    uint8_t bytes[QYI_HELLO_BYTES] = {1};

    (void)state;
    for (uint64_t id = 1; id <= 7; id += 2) {
        struct scene s;
        struct qyi_head head = {.kind = QYI_KIND_HELLO, .id = id, .payload_bytes = sizeof(bytes)};
        open_scene(&s, 1);
        raw_say(&s.raw, head, bytes);
        raw_run(&s.raw, 0);
        assert_int_equal(s.raw.broken, id > 3); /* 1 and 3 were said: they come twice */
        close_scene(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_message_other_than_a_hello_closes),
        cmocka_unit_test(garbage_closes),
        cmocka_unit_test(silence_instead_of_a_hello_closes_in_time),
        cmocka_unit_test(wrong_proof_is_refused_and_closed_in_time),
        cmocka_unit_test(question_between_greetings_closes),
        cmocka_unit_test(strangers_are_few_and_keep_nobody_out_for_long),
        cmocka_unit_test(greeted_stranger_is_served_like_anybody),
        cmocka_unit_test(heads_of_wrong_form_close),
        cmocka_unit_test(question_larger_than_what_is_taken_closes),
        cmocka_unit_test(question_that_comes_damaged_is_told),
        cmocka_unit_test(more_questions_than_depth_close),
        cmocka_unit_test(same_question_many_times_is_served_once),
        cmocka_unit_test(flood_of_pings_is_answered_in_turn),
        cmocka_unit_test(hello_after_the_hello_closes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
