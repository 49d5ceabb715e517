/* SPDX-License-Identifier: Apache-2.0 */
/* What a fabric does to messages, by rules. */
#include "tests/support/test.h"
#include "tests/unit/net/raw_wire.h"

#include <string.h>

static const struct qy_fabric_params late = {.latency_ns = 10};

static void inject(struct raw_ground *g, struct qy_fabric_rule rule)
{
    assert_int_equal(qy_fabric_inject(g->fabric, &rule), QY_OK);
}

static void rule_of_drop_counts_messages_between_its_addresses(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){
                   .from = "c", .to = "a", .fault = QY_FABRIC_DROP, .after = 1, .count = 2});
    for (uint64_t i = 0; i < 5; i++) {
        raw_post(&g, 0, i, i % 2 == 0 ? 10 : 9000);
        raw_post(&g, 1, 10 + i, 10);
        raw_settle(&g);
    }
    /* The large one of message 3 arrives a round after the others. */
    assert_string_equal(raw_text(&g, "a", text), "0a0 1a10 1a11 1a12 1a13 0a3 0a4 1a14 ");
    assert_int_equal(raw_count(&g, 2, 's'), 10); /* the sender is not told */
    assert_int_equal(raw_find(&g, 2, 's', 1)->status, QY_OK);
    raw_close(&g);
}

static void rule_without_addresses_meets_all_until_heal(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_DROP, .count = UINT32_MAX});
    for (uint64_t i = 0; i < 5; i++) {
        raw_post(&g, (int)(i % 2), i, 10);
        raw_settle(&g);
    }
    assert_int_equal(raw_send(&g.nodes[0], g.nodes[0].conns[0], 9, 10), QY_OK);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "ba", text), "");
    qy_fabric_heal(g.fabric);
    raw_post(&g, 0, 5, 10);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "a", text), "0a5 ");
    raw_close(&g);
}

static void delayed_message_holds_those_behind_it(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){
                   .to = "a", .fault = QY_FABRIC_DELAY, .after = 1, .count = 1, .ns = 300});
    uint64_t start = qy_fabric_now(g.fabric);
    for (uint64_t i = 0; i < 3; i++) {
        raw_post(&g, 0, i, 10);
    }
    raw_post(&g, 1, 3, 10);
    raw_settle(&g);
    assert_int_equal(raw_find(&g, 0, 'a', 0)->ns - start, 10);
    assert_int_equal(raw_find(&g, 0, 'a', 1)->ns - start, 310);
    assert_int_equal(raw_find(&g, 0, 'a', 2)->ns - start, 310);
    assert_int_equal(raw_find(&g, 1, 'a', 3)->ns - start, 10);
    raw_close(&g);
}

static void duplicated_message_comes_twice_and_is_sent_once(void **state)
{
    struct raw_ground g;
    char text[1024];
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_DUPLICATE, .count = 2});
    raw_post(&g, 0, 1, 10);
    raw_post(&g, 0, 2, 9000);
    raw_post(&g, 0, 3, 10);
    raw_settle(&g);
    assert_string_equal(raw_text(&g, "b", text), "0b1 0b1 0b2 0b2 0b3 ");
    assert_int_equal(raw_count(&g, 0, 'a'), 5);
    assert_int_equal(raw_count(&g, 2, 's'), 3);
    for (uint32_t i = 0; i < g.n_log; i++) {
        assert_true(g.log[i].what != 'a' || g.log[i].intact);
    }
    raw_close(&g);
}

static void corrupted_message_has_one_wrong_bit(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct raw_ground g;
        struct qy_fabric_params params = {.latency_ns = 10, .seed = seed};
        raw_open_three(&g, params);
        inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_CORRUPT, .count = 2});
        raw_post(&g, 0, 1, 100);
        raw_post(&g, 0, 2, 20000);
        raw_post(&g, 0, 3, 20000);
        raw_settle(&g);
        assert_int_equal(raw_find(&g, 0, 'a', 1)->wrong_bits, 1);
        assert_int_equal(raw_find(&g, 0, 'a', 2)->wrong_bits, 1);
        assert_true(raw_find(&g, 0, 'a', 3)->intact);
        raw_close(&g);
    }
}

static void corrupted_message_without_payload_has_a_wrong_head(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_CORRUPT, .count = 1});
    raw_post(&g, 0, 1, 0);
    raw_settle(&g);
    assert_false(raw_find(&g, 0, 'a', 1)->intact);
    raw_close(&g);
}

/* Any bit of the head: what comes has another id, a wrong head, or a length that breaks the connection;
 * bits that the fixture does not look at are the rest. */
static void garbled_message_is_never_more_than_its_bytes(void **state)
{
    int broke = 0, others = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct raw_ground g;
        struct qy_fabric_params params = {.latency_ns = 10, .seed = seed};
        raw_open_three(&g, params);
        inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_GARBLE, .count = 1});
        raw_post(&g, 0, 1, 40);
        raw_settle(&g);
        if (raw_count(&g, 0, 'B') == 1) {
            broke++;
            assert_int_equal(raw_count(&g, 0, 'b'), 0);
            assert_int_equal(raw_count(&g, 2, 'B'), 1);
        } else {
            assert_int_equal(raw_count(&g, 0, 'a'), 1);
            others += raw_find(&g, 0, 'a', 1) == NULL;
        }
        raw_close(&g);
    }
    /* 64 of 832 bits are the length's, 64 the id's. */
    assert_in_range(broke, 4, 40);
    assert_in_range(others, 4, 40);
}

static void rules_add_up(void **state)
{
    struct raw_ground g;
    (void)state;
    raw_open_three(&g, late);
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_DUPLICATE, .count = 1});
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_DELAY, .count = 1, .ns = 100});
    inject(&g, (struct qy_fabric_rule){.fault = QY_FABRIC_DELAY, .count = 1, .ns = 50});
    uint64_t start = qy_fabric_now(g.fabric);
    raw_post(&g, 0, 1, 10);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 0, 'a'), 2);
    assert_int_equal(raw_find(&g, 0, 'a', 1)->ns - start, 160);
    for (int i = 0; i < 100; i++) { /* there is no end of room */
        inject(&g, (struct qy_fabric_rule){.from = "x", .fault = QY_FABRIC_DROP, .count = 1});
    }
    inject(&g, (struct qy_fabric_rule){.to = "b", .fault = QY_FABRIC_DROP, .count = 1});
    raw_post(&g, 1, 2, 10);
    raw_settle(&g);
    assert_int_equal(raw_count(&g, 1, 'a'), 0);
    raw_close(&g);
}

static void what_cannot_be_is_refused(void **state)
{
    struct raw_ground g;
    char longest[QY_NET_ADDRESS_BYTES + 1];
    struct qy_fabric *fabric = NULL;
    struct qy_error err;
    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    raw_open_three(&g, late);
    assert_int_equal(qy_fabric_happens(g.fabric, "z", QY_FABRIC_CUT), QY_ERR_NOT_FOUND);
    assert_int_equal(qy_fabric_happens(g.fabric, "", QY_FABRIC_CUT), QY_ERR_NOT_FOUND);
    struct qy_fabric_rule rule = {.from = longest, .fault = QY_FABRIC_DROP, .count = 1};
    assert_int_equal(qy_fabric_inject(g.fabric, &rule), QY_ERR_INVALID);
    rule = (struct qy_fabric_rule){.fault = QY_FABRIC_DROP, .count = 1};
    g.heap.fail_at = g.heap.calls;
    assert_int_equal(qy_fabric_inject(g.fabric, &rule), QY_ERR_NOMEM);
    struct qy_fabric_params params = {.mem = &g.mem, .gbps = -1};
    assert_int_equal(qy_fabric_open(&params, &fabric, &err), QY_ERR_INVALID);
    params.gbps = 0;
    g.heap.fail_at = g.heap.calls;
    assert_int_equal(qy_fabric_open(&params, &fabric, &err), QY_ERR_NOMEM);
    assert_null(fabric);
    raw_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_of_drop_counts_messages_between_its_addresses),
        cmocka_unit_test(rule_without_addresses_meets_all_until_heal),
        cmocka_unit_test(delayed_message_holds_those_behind_it),
        cmocka_unit_test(duplicated_message_comes_twice_and_is_sent_once),
        cmocka_unit_test(corrupted_message_has_one_wrong_bit),
        cmocka_unit_test(corrupted_message_without_payload_has_a_wrong_head),
        cmocka_unit_test(garbled_message_is_never_more_than_its_bytes),
        cmocka_unit_test(rules_add_up),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
