/* SPDX-License-Identifier: Apache-2.0 */
/* See raw.h. */
#include "tests/unit/net/raw.h"

#include "net/node.h"

#include <stdlib.h>
#include <string.h>

struct raw_out {
    struct qyi_message message;
    struct raw_out *next;
    uint8_t payload[];
};

static void say_hello(struct raw *raw, const uint8_t *bytes, size_t n)
{
    struct qyi_head head = {.kind = QYI_KIND_HELLO, .payload_bytes = n};

    head.id = 2 * (uint64_t)raw->n_said++ + (raw->hello.asks ? 1 : 2);
    raw_say(raw, head, bytes);
}

static int accepted(void *ctx, struct qyi_conn *conn)
{
    struct raw *raw = ctx;
    const struct qyi_identity mine = {.incarnation = 99};
    const struct qyi_terms terms = {.depth = raw->depth};

    if (raw->conn) {
        return 0; /* one is enough */
    }
    raw->conn = conn;
    qyi_hello_open(&raw->hello, 0, &mine, &terms);
    return 1;
}

static void connected(void *ctx, struct qyi_conn *conn)
{
    struct raw *raw = ctx;

    (void)conn;
    raw->connected = 1;
}

static void *begins(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token)
{
    struct raw *raw = ctx;

    (void)conn;
    *token = NULL;
    if (head->kind == QYI_KIND_ASK && raw->early) {
        const struct qyi_head answer = {.kind = QYI_KIND_ANSWER, .id = head->id};
        raw_say(raw, answer, NULL);
    }
    if (head->kind == QYI_KIND_ASK && head->payload_bytes <= sizeof(raw->in)) {
        return raw->in;
    }
    return head->kind == QYI_KIND_HELLO && head->payload_bytes <= sizeof(raw->hello_in)
               ? raw->hello_in
               : NULL;
}

static void arrived(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token)
{
    struct raw *raw = ctx;
    uint8_t out[QYI_HELLO_BYTES];

    (void)conn;
    (void)token;
    raw->n_kind[head->kind % 8]++;
    raw->last = *head;
    if (payload && head->kind == QYI_KIND_HELLO) {
        const size_t n =
            qyi_hello_take(&raw->hello, raw->bed->key, payload, head->payload_bytes, out);
        if (n > 0) {
            say_hello(raw, out, n);
        }
    }
}

static void sent(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                 enum qy_status status)
{
    (void)ctx;
    (void)conn;
    (void)message;
    (void)status;
}

static void broke(void *ctx, struct qyi_conn *conn, const char *why)
{
    struct raw *raw = ctx;

    (void)conn;
    (void)why;
    raw->broken = 1;
}

void raw_open(struct raw *raw, struct bed *bed, const char *name, const char *listen)
{
    struct qyi_wire_params p = {.rt = &bed->rt,
                                .fabric = bed->fabric,
                                .device = name,
                                .listen = listen,
                                .max_conns = 4,
                                .depth = 1000000,
                                .sink = {.ctx = raw,
                                         .accepted = accepted,
                                         .connected = connected,
                                         .begins = begins,
                                         .arrived = arrived,
                                         .sent = sent,
                                         .broke = broke}};

    memset(raw, 0, sizeof(*raw));
    raw->bed = bed;
    raw->depth = BED_DEPTH;
    assert_int_equal(qyi_wire_loopback.open(&p, &raw->wire, NULL), QY_OK);
}

void raw_connect(struct raw *raw, const char *address)
{
    assert_int_equal(qyi_wire_loopback.connect(raw->wire, address, raw, &raw->conn, NULL), QY_OK);
    raw_run(raw, 0);
}

void raw_run(struct raw *raw, uint64_t ns)
{
    const uint64_t settle = 10000; /* deliveries take their latency */
    const uint64_t until = qyi_wire_loopback.now(raw->wire) + ns + settle;

    for (;;) {
        if (qyi_wire_loopback.progress(raw->wire) == 0) {
            if (qyi_wire_loopback.now(raw->wire) >= until) {
                return;
            }
            qyi_wire_loopback.wait(raw->wire, until, 0);
        }
    }
}

void raw_greet(struct raw *raw)
{
    const struct qyi_identity mine = {.incarnation = 99, .session = "raw"};
    uint8_t out[QYI_HELLO_BYTES];

    qyi_hello_open(&raw->hello, 1, &mine, NULL);
    raw->n_said = 0;
    say_hello(raw, out, qyi_hello_begin(&raw->hello, out));
    raw_run(raw, 0);
    assert_int_equal(raw->hello.stage, QYI_HELLO_DONE);
}

void raw_say_as_is(struct raw *raw, const struct qyi_head *head, const void *payload)
{
    struct raw_out *out = calloc(1, sizeof(*out) + head->payload_bytes);

    assert_non_null(out);
    out->message.head = *head;
    if (payload) {
        memcpy(out->payload, payload, head->payload_bytes);
    }
    out->message.payload = out->payload;
    out->next = raw->outs;
    raw->outs = out;
    const enum qy_status status = qyi_wire_loopback.send(raw->wire, raw->conn, &out->message);
    assert_true(status == QY_OK || status == QY_ERR_PEER);
}

void raw_say(struct raw *raw, struct qyi_head head, const void *payload)
{
    qyi_head_seal(&head, payload);
    raw_say_as_is(raw, &head, payload);
}

void raw_close(struct raw *raw)
{
    if (raw->conn) {
        qyi_wire_loopback.close_conn(raw->wire, raw->conn);
    }
    qyi_wire_loopback.close(raw->wire);
    while (raw->outs) {
        struct raw_out *next = raw->outs->next;
        free(raw->outs);
        raw->outs = next;
    }
}
