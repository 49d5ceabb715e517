/* SPDX-License-Identifier: Apache-2.0 */
/* An answerer who knows the key and does not keep to the rules: who asks him comes to no harm. */
#include "tests/unit/net/raw.h"

#include <stdlib.h>
#include <string.h>

struct asking {
    struct bed bed;
    struct raw raw;
    struct qy_node *client;
    struct qy_peer *peer;
    struct qy_request r;
    struct qy_op op;
    uint8_t reply[200];
};

static void open_asking(struct asking *a)
{
    memset(a, 0, sizeof(*a));
    bed_open(&a->bed, NULL);
    raw_open(&a->raw, &a->bed, "raw", "raw");
    a->client = bed_client(&a->bed, "c");
    a->peer = bed_connect(a->client, "raw");
    memset(a->reply, 0xee, sizeof(a->reply));
    bed_ask(&a->r, BED_GET, 0, 100);
    a->r.reply = a->reply;
    a->r.reply_capacity = 100;
    a->r.counts = &a->op;
    assert_int_equal(qy_request_post(a->peer, &a->r), QY_OK);
    raw_run(&a->raw, 0);
    assert_int_equal(a->raw.n_kind[QYI_KIND_ASK], 1);
}

static void close_asking(struct asking *a)
{
    for (size_t i = 100; i < sizeof(a->reply); i++) {
        assert_int_equal(a->reply[i], 0xee);
    }
    qy_node_close(a->client);
    raw_close(&a->raw);
    bed_close(&a->bed);
}

static void answers_that_nobody_waits_for_are_dropped(void **state)
{
    uint8_t bytes[150] = {3};
    struct asking a;

    (void)state;
    open_asking(&a);
    struct qyi_head head = {.kind = QYI_KIND_ANSWER, .payload_bytes = sizeof(bytes)};
    const uint64_t id = a.raw.last.id;
    for (uint64_t i = 0; i < 200; i++) {
        head.id = i == id ? i + 1 : i;
        raw_say(&a.raw, head, bytes);
    }
    head.id = UINT64_MAX;
    raw_say(&a.raw, head, bytes);
    head.id = id + 64; /* the same place */
    raw_say(&a.raw, head, bytes);
    raw_run(&a.raw, 0);
    assert_int_equal(a.r.status, QY_PENDING);
    assert_int_equal(a.reply[0], 0xee);
    head.id = id;
    head.payload_bytes = 100;
    raw_say(&a.raw, head, bytes);
    assert_int_equal(qy_op_wait(a.client, &a.op), QY_OK);
    assert_int_equal(a.reply[0], 3);
    close_asking(&a);
}

static void answer_too_large_is_dropped(void **state)
{
    uint8_t bytes[150] = {3};
    struct asking a;

    (void)state;
    open_asking(&a);
    const struct qyi_head head = {
        .kind = QYI_KIND_ANSWER, .id = a.raw.last.id, .payload_bytes = sizeof(bytes)};
    raw_say(&a.raw, head, bytes);
    assert_int_equal(qy_op_wait(a.client, &a.op), QY_ERR_INVALID);
    assert_int_equal(a.reply[0], 0xee);
    close_asking(&a);
}

static void answerer_that_asks_is_left(void **state)
{
    struct asking a;

    (void)state;
    open_asking(&a);
    const struct qyi_head head = {.kind = QYI_KIND_ASK, .op = BED_CODE, .id = 64};
    raw_say(&a.raw, head, NULL);
    assert_int_equal(qy_op_wait(a.client, &a.op), QY_ERR_PEER);
    close_asking(&a);
}

static void answerer_that_always_says_damaged_is_corrupt(void **state)
{
    struct asking a;

    (void)state;
    open_asking(&a);
    for (int i = 0; i < 2; i++) {
        const struct qyi_head head = {.kind = QYI_KIND_DAMAGED, .id = a.raw.last.id};
        assert_int_equal(a.r.status, QY_PENDING);
        raw_say(&a.raw, head, NULL);
        raw_run(&a.raw, 0);
    }
    assert_int_equal(a.r.status, QY_ERR_CORRUPT);
    close_asking(&a);
}

/* The answer is here, but the question is still being read: its memory is not the caller's yet. */
static void answer_before_the_question_was_read_waits_for_that(void **state)
{
    const struct qy_fabric_params slow = {.seed = 1, .latency_ns = 1000, .gbps = 0.1};
    struct qy_request *r = calloc(1, sizeof(*r));
    uint8_t *payload = calloc(1, 50000);
    struct qy_op op = {0};
    struct asking a;

    (void)state;
    assert_true(r && payload);
    memset(&a, 0, sizeof(a));
    bed_open(&a.bed, &slow);
    raw_open(&a.raw, &a.bed, "raw", "raw");
    a.raw.early = 1;
    a.client = bed_client(&a.bed, "c");
    a.peer = bed_connect(a.client, "raw");
    bed_ask(r, BED_ECHO, 0, 0);
    r->payload = payload;
    r->payload_bytes = 50000;
    r->counts = &op;
    assert_int_equal(qy_request_post(a.peer, r), QY_OK);
    assert_int_equal(qy_op_wait(a.client, &op), QY_OK);
    free(payload);
    free(r);
    bed_pass(a.client, 10 * BED_MS); /* reading takes 4 */
    qy_node_close(a.client);
    raw_close(&a.raw);
    bed_close(&a.bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_that_nobody_waits_for_are_dropped),
        cmocka_unit_test(answer_before_the_question_was_read_waits_for_that),
        cmocka_unit_test(answer_too_large_is_dropped),
        cmocka_unit_test(answerer_that_asks_is_left),
        cmocka_unit_test(answerer_that_always_says_damaged_is_corrupt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
