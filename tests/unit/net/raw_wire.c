/* SPDX-License-Identifier: Apache-2.0 */
/* Wires of a fabric with sinks that write down what they are called with. */
#include "tests/unit/net/raw_wire.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct qyi_wire_ops *ops = &qyi_wire_loopback;

/* A message that the wire has, and its payload. */
struct raw_sent {
    struct raw_sent *next;
    struct raw_node *node;
    struct qyi_conn *conn;
    struct qyi_message message;
    uint8_t *payload;
};

/* Where a payload goes. */
struct raw_inbox {
    struct raw_inbox *next;
    struct raw_node *node;
    struct qyi_conn *conn;
    uint8_t *bytes;
};

static uint8_t byte_of(uint64_t id, size_t at)
{
    return (uint8_t)(id * 37 + at * 11 + (at >> 8));
}

static struct raw_event *note(struct raw_node *node, char what, uint64_t id)
{
    struct raw_ground *g = node->ground;
    assert_true(g->n_log < RAW_LOG);
    struct raw_event *event = &g->log[g->n_log++];
    *event = (struct raw_event){
        .node = node->index, .what = what, .id = id, .ns = qy_fabric_now(g->fabric)};
    return event;
}

/* ---- the sink ------------------------------------------------------------------------------ */

static int accepted(void *ctx, struct qyi_conn *conn)
{
    struct raw_node *node = ctx;
    assert_null(conn->user);
    note(node, 'A', 0);
    if (node->refuses) {
        return 0;
    }
    assert_true(node->n_conns < RAW_CONNS);
    conn->user = node;
    node->conns[node->n_conns++] = conn;
    return 1;
}

static void connected(void *ctx, struct qyi_conn *conn)
{
    assert_ptr_equal(conn->user, ctx);
    note(ctx, 'C', 0);
}

static void *begins(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token)
{
    struct raw_node *node = ctx;
    note(node, 'b', head->id);
    *token = NULL;
    if (node->drops || head->payload_bytes == 0) {
        return NULL;
    }
    struct raw_inbox *inbox = malloc(sizeof(*inbox));
    uint8_t *bytes = malloc(head->payload_bytes);
    assert_non_null(inbox);
    assert_non_null(bytes);
    *inbox = (struct raw_inbox){
        .next = node->ground->inboxes, .node = node, .conn = conn, .bytes = bytes};
    node->ground->inboxes = inbox;
    *token = inbox;
    return bytes;
}

static void inbox_free(struct raw_ground *g, struct raw_inbox *inbox)
{
    struct raw_inbox **at = &g->inboxes;
    while (*at != inbox) {
        at = &(*at)->next;
    }
    *at = inbox->next;
    free(inbox->bytes);
    free(inbox);
}

static void arrived(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token)
{
    struct raw_node *node = ctx;
    struct raw_inbox *inbox = token;
    struct raw_event *event = note(node, 'a', head->id);
    event->intact = head->magic == QYI_NET_MAGIC && head->head[0] == byte_of(head->id, 0);
    if (inbox != NULL) {
        assert_ptr_equal(payload, inbox->bytes);
        for (size_t i = 0; i < head->payload_bytes; i++) {
            event->wrong_bits += (size_t)__builtin_popcount(inbox->bytes[i] ^ byte_of(head->id, i));
        }
        event->intact = event->intact && event->wrong_bits == 0;
        inbox_free(node->ground, inbox);
    } else {
        assert_null(payload);
    }
    if (node->replies != 0) {
        assert_int_equal(raw_send(node, conn, head->id + node->replies, 8), QY_OK);
    }
}

static void sent_free(struct raw_ground *g, struct raw_sent *sent)
{
    struct raw_sent **at = &g->sent;
    while (*at != sent) {
        at = &(*at)->next;
    }
    *at = sent->next;
    free(sent->payload);
    free(sent);
}

static void was_sent(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                     enum qy_status status)
{
    struct raw_node *node = ctx;
    struct raw_sent *sent = message->user;
    assert_ptr_equal(sent->conn, conn);
    note(node, 's', message->head.id)->status = status;
    memset(sent->payload, 0xee, message->head.payload_bytes);
    sent_free(node->ground, sent);
}

static void broke(void *ctx, struct qyi_conn *conn, const char *why)
{
    assert_ptr_equal(conn->user, ctx);
    assert_non_null(why);
    note(ctx, 'B', 0);
}

static uint32_t work(void *ctx)
{
    struct raw_node *node = ctx;
    node->works++;
    return 0;
}

static uint64_t due(void *ctx)
{
    return ((struct raw_node *)ctx)->due;
}

/* ---- the ground ---------------------------------------------------------------------------- */

void raw_open(struct raw_ground *g, struct qy_fabric_params params)
{
    struct qy_error err;
    memset(g, 0, sizeof(*g));
    g->heap.fail_at = -1;
    g->mem = fail_alloc_make(&g->heap);
    g->rt.mem = g->mem;
    params.mem = &g->mem;
    assert_int_equal(qy_fabric_open(&params, &g->fabric, &err), QY_OK);
}

void raw_close(struct raw_ground *g)
{
    for (int i = 0; i < RAW_NODES; i++) {
        if (g->nodes[i].wire != NULL) {
            raw_node_close(&g->nodes[i]);
        }
    }
    qy_fabric_close(g->fabric);
    assert_null(g->sent);
    assert_null(g->inboxes);
    assert_int_equal(g->heap.live, 0);
}

struct raw_node *raw_node(struct raw_ground *g, int i, const char *listen)
{
    struct raw_node *node = &g->nodes[i];
    struct qyi_wire_params params = {.rt = &g->rt,
                                     .fabric = g->fabric,
                                     .listen = listen,
                                     .max_conns = RAW_CONNS,
                                     .depth = 4,
                                     .sink = {.ctx = node,
                                              .accepted = accepted,
                                              .connected = connected,
                                              .begins = begins,
                                              .arrived = arrived,
                                              .sent = was_sent,
                                              .broke = broke,
                                              .work = work,
                                              .due = due}};
    struct qy_error err;
    *node = (struct raw_node){.ground = g, .index = i, .due = UINT64_MAX};
    assert_int_equal(ops->open(&params, &node->wire, &err), QY_OK);
    return node;
}

void raw_node_close(struct raw_node *node)
{
    while (node->n_conns > 0) {
        raw_close_conn(node, node->conns[node->n_conns - 1]);
    }
    ops->close(node->wire);
    node->wire = NULL;
}

struct qyi_conn *raw_connect(struct raw_node *node, const char *address)
{
    struct qyi_conn *conn;
    struct qy_error err;
    assert_true(node->n_conns < RAW_CONNS);
    assert_int_equal(ops->connect(node->wire, address, node, &conn, &err), QY_OK);
    node->conns[node->n_conns++] = conn;
    return conn;
}

void raw_close_conn(struct raw_node *node, struct qyi_conn *conn)
{
    struct raw_ground *g = node->ground;
    int at = 0;
    while (node->conns[at] != conn) {
        at++;
    }
    node->n_conns--;
    memmove(&node->conns[at], &node->conns[at + 1],
            (size_t)(node->n_conns - at) * sizeof(node->conns[0]));
    ops->close_conn(node->wire, conn);
    /* From now on the wire must not touch what it had of this end. */
    for (struct raw_sent *sent = g->sent, *next; sent != NULL; sent = next) {
        next = sent->next;
        if (sent->conn == conn) {
            sent_free(g, sent);
        }
    }
    for (struct raw_inbox *inbox = g->inboxes, *next; inbox != NULL; inbox = next) {
        next = inbox->next;
        if (inbox->conn == conn) {
            inbox_free(g, inbox);
        }
    }
}

enum qy_status raw_send(struct raw_node *node, struct qyi_conn *conn, uint64_t id, size_t bytes)
{
    struct raw_sent *sent = calloc(1, sizeof(*sent));
    uint8_t *payload = malloc(bytes + 1);
    assert_non_null(sent);
    assert_non_null(payload);
    for (size_t i = 0; i < bytes; i++) {
        payload[i] = byte_of(id, i);
    }
    *sent = (struct raw_sent){
        .next = node->ground->sent, .node = node, .conn = conn, .payload = payload};
    sent->message.head = (struct qyi_head){
        .magic = QYI_NET_MAGIC, .id = id, .payload_bytes = bytes, .head_bytes = 1};
    sent->message.head.head[0] = byte_of(id, 0);
    sent->message.payload = payload;
    sent->message.user = sent;
    node->ground->sent = sent;
    enum qy_status st = ops->send(node->wire, conn, &sent->message);
    if (st != QY_OK) {
        sent_free(node->ground, sent);
    }
    return st;
}

static void *any_wire(struct raw_ground *g)
{
    for (int i = 0; i < RAW_NODES; i++) {
        if (g->nodes[i].wire != NULL) {
            return g->nodes[i].wire;
        }
    }
    fail_msg("no node is open");
    return NULL;
}

void raw_round(struct raw_ground *g)
{
    while (ops->progress(any_wire(g)) > 0) {
    }
}

void raw_settle(struct raw_ground *g)
{
    void *wire = any_wire(g);
    uint64_t before;
    do {
        raw_round(g);
        before = ops->now(wire);
        ops->wait(wire, UINT64_MAX, 0);
    } while (ops->now(wire) > before);
}

void raw_open_three(struct raw_ground *g, struct qy_fabric_params params)
{
    raw_open(g, params);
    raw_node(g, 0, "a");
    raw_node(g, 1, "b");
    raw_node(g, 2, "c");
    raw_connect(&g->nodes[2], "a");
    raw_connect(&g->nodes[2], "b");
    raw_settle(g);
    g->n_log = 0;
}

void raw_post(struct raw_ground *g, int to, uint64_t id, size_t bytes)
{
    struct raw_node *node = &g->nodes[2];
    assert_int_equal(raw_send(node, node->conns[to], id, bytes), QY_OK);
}

/* ---- the log ------------------------------------------------------------------------------- */

const char *raw_text(const struct raw_ground *g, const char *kinds, char *out)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < g->n_log && used < 1000; i++) {
        const struct raw_event *event = &g->log[i];
        if (strchr(kinds, event->what) != NULL) {
            used += (size_t)snprintf(out + used, 1024 - used, "%d%c%llu ", event->node, event->what,
                                     (unsigned long long)event->id);
        }
    }
    return out;
}

const struct raw_event *raw_find(const struct raw_ground *g, int node, char what, uint64_t id)
{
    for (uint32_t i = 0; i < g->n_log; i++) {
        const struct raw_event *event = &g->log[i];
        if (event->node == node && event->what == what && event->id == id) {
            return event;
        }
    }
    return NULL;
}

uint32_t raw_count(const struct raw_ground *g, int node, char what)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_log; i++) {
        n += g->log[i].node == node && g->log[i].what == what;
    }
    return n;
}
