/* SPDX-License-Identifier: Apache-2.0 */
/* Random questions of net's fault tests, and what their answers must be. */
#include "tests/fault/net_asker.h"
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

uint64_t net_draw(struct run *run, uint64_t n)
{
    uint64_t z = run->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

static void fill_question(struct run *run, struct slot *slot, size_t bytes)
{
    struct qy_request *r = slot->request;
    uint64_t words[2] = {0};
    uint64_t key = net_draw(run, NET_KEYS);
    r->op = (uint16_t)(NET_ECHO + net_draw(run, 4));
    if (r->op == NET_PUT || r->op == NET_GET) {
        slot->key = &slot->far->keys[key];
        if (slot->key->busy) { /* one at a time: the order of two is not ours to know */
            r->op = NET_ECHO;
            slot->key = NULL;
        }
    }
    slot->value = ++run->serial;
    words[0] = slot->key != NULL ? key : slot->value;
    words[1] = slot->value;
    memcpy(r->head, words, 16);
    r->head_bytes = 16;
    if (slot->key != NULL) {
        slot->key->busy = 1;
        return;
    }
    slot->payload = malloc(bytes + 1);
    assert_non_null(slot->payload);
    for (size_t i = 0; i < bytes; i++) {
        slot->payload[i] = (uint8_t)net_draw(run, 256);
    }
    r->payload = slot->payload;
    r->payload_bytes = bytes;
    if (r->op == NET_ECHO) {
        slot->reply = malloc(bytes + 1);
        assert_non_null(slot->reply);
        r->reply = slot->reply;
        r->reply_capacity = bytes;
    }
}

static void release(struct slot *slot)
{
    if (slot->key != NULL) {
        slot->key->busy = 0;
    }
    free(slot->payload);
    free(slot->reply);
    free(slot->request);
    memset(slot, 0, sizeof(*slot));
}

int net_post(struct run *run, struct far_server *far, size_t bytes)
{
    struct slot *slot = run->slots;
    while (slot < run->slots + SLOTS && slot->request != NULL) {
        slot++;
    }
    if (slot == run->slots + SLOTS) {
        return 0;
    }
    memset(slot, 0, sizeof(*slot));
    slot->request = calloc(1, sizeof(*slot->request));
    assert_non_null(slot->request);
    slot->far = far;
    slot->epoch = far->epoch;
    fill_question(run, slot, bytes);
    slot->request->counts = &run->op;
    slot->request->timeout_ns =
        net_draw(run, 2) == 0 ? 0 : (uint64_t)MS * (20 + net_draw(run, 2 * TIMEOUT_MS));
    enum qy_status st = qy_request_post(far->peer, slot->request);
    if (st != QY_OK) {
        assert_true(st == QY_AGAIN || st == QY_ERR_PEER);
        release(slot);
        return 0;
    }
    return 1;
}

static int may_hold(const struct key *key, uint64_t value)
{
    int found = key->n == 0;
    for (int i = 0; i < key->n; i++) {
        found |= key->values[i] == value;
    }
    return found;
}

static void check_value(const struct slot *slot)
{
    const struct qy_request *r = slot->request;
    struct key *key = slot->key;
    uint64_t words[3];
    assert_int_equal(r->reply_head_bytes, r->op == NET_GET ? 24 : 16);
    memcpy(words, r->reply_head, sizeof(words));
    assert_int_equal(words[0], key - slot->far->keys);
    if (slot->epoch != slot->far->epoch) {
        return; /* of a server that has died since */
    }
    if (r->op == NET_PUT) {
        assert_int_equal(words[1], slot->value);
        key->values[0] = slot->value;
        key->n = 1;
    } else {
        assert_true(may_hold(key, words[1]));
    }
}

static void check_answer(const struct slot *slot)
{
    const struct qy_request *r = slot->request;
    uint64_t total = 0, told;
    switch (r->op) {
    case NET_ECHO:
        assert_int_equal(r->reply_bytes, r->payload_bytes);
        assert_int_equal(r->reply_head_bytes, 16);
        assert_memory_equal(r->reply_head, r->head, 16);
        for (size_t i = 0; i < r->payload_bytes; i++) {
            assert_true(slot->reply[i] == (slot->payload[i] ^ 0x5a));
        }
        return;
    case NET_SUM:
        for (size_t i = 0; i < r->payload_bytes; i++) {
            total += slot->payload[i];
        }
        assert_int_equal(r->reply_head_bytes, 8);
        memcpy(&told, r->reply_head, 8);
        assert_true(total == told);
        return;
    default:
        check_value(slot);
    }
}

static enum outcome outcome_of(struct slot *slot)
{
    const struct qy_request *r = slot->request;
    switch (r->status) {
    case QY_OK:
        if (r->code == NET_FULL) {
            assert_true(r->payload_bytes > NET_CALL_BYTES);
            return ENDED_FULL;
        }
        assert_int_equal(r->code, 0);
        check_answer(slot);
        return ENDED_OK;
    case QY_ERR_TIMEOUT:
        return ENDED_TIMEOUT;
    case QY_ERR_PEER:
        return ENDED_PEER;
    case QY_ERR_CORRUPT:
        return ENDED_CORRUPT;
    default:
        fail_msg("a request ended with %s", qy_status_name(r->status));
        return ENDED_OK;
    }
}

void net_collect(struct run *run)
{
    for (struct slot *slot = run->slots; slot < run->slots + SLOTS; slot++) {
        if (slot->request == NULL || slot->request->status == QY_PENDING) {
            continue;
        }
        const struct qy_request *r = slot->request;
        enum outcome outcome = outcome_of(slot);
        run->tally->ended[slot->far->trouble][outcome]++;
        uint64_t timeout = r->timeout_ns != 0 ? r->timeout_ns : TIMEOUT_MS * MS;
        /* It may take a little longer where the fabric is not idle then. */
        assert_true(r->took_ns <= timeout + TIMEOUT_MS * MS / 2);
        if (r->took_ns > run->tally->slowest_ns) {
            run->tally->slowest_ns = r->took_ns;
        }
        struct key *key = slot->key;
        if (key != NULL && r->op == NET_PUT && outcome != ENDED_OK &&
            slot->epoch == slot->far->epoch && key->n > 0) {
            key->n = key->n < CANDIDATES ? key->n + 1 : 0;
            if (key->n > 0) {
                key->values[key->n - 1] = slot->value;
            }
        }
        release(slot);
    }
}
