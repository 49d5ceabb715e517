/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_net_rig.h. */
#include "tests/unit/offload/memory_net_rig.h"

#include <string.h>

const char *const net_addresses[NET_WORKERS] = {"w0", "w1"};

/* Of the network: who answers must get on while the one who asks waits. */
static void both(struct net_line *line)
{
    (void)qy_node_progress(line->node);
    (void)qy_node_progress(line->bed->server);
}

static void wait_until_up(struct net_line *line)
{
    if (line->bed->fabric) {
        assert_int_equal(qy_peer_wait(line->peer, 10 * NET_TIMEOUT, NULL), QY_OK);
        return;
    }
    const uint64_t end = qy_node_now(line->node) + 30 * (uint64_t)NET_REAL_TIMEOUT;
    while (qy_peer_state(line->peer) != QY_PEER_UP && qy_node_now(line->node) < end) {
        both(line);
    }
    assert_int_equal(qy_peer_state(line->peer), QY_PEER_UP);
}

static void ask_net(struct memory_worker *w, const struct qyi_question *q, struct memory_said *said)
{
    struct net_line *line = w->line;
    struct qy_op op = {.status = QY_OK};
    struct qy_request r = {.op = q->op,
                           .head_bytes = (uint16_t)q->head_bytes,
                           .payload = q->payload,
                           .payload_bytes = q->payload_bytes,
                           .reply = said->payload,
                           .reply_capacity = sizeof(said->payload),
                           .counts = &op};

    if (q->head_bytes > 0) {
        memcpy(r.head, q->head, q->head_bytes);
    }
    line->status = qy_request_post(line->peer, &r);
    while (line->status == QY_OK && !line->bed->fabric && op.pending > 0) {
        both(line);
    }
    if (line->status == QY_OK) {
        line->status = qy_op_wait(line->node, &op);
    }
    said->lost = line->status != QY_OK;
    said->code = r.code;
    said->bytes = said->lost ? 0 : r.reply_bytes;
    said->has_head = !said->lost && r.reply_head_bytes > 0;
    if (said->has_head) {
        assert_int_equal(qyi_remote_reply_parse(r.reply_head, r.reply_head_bytes, &said->reply),
                         QY_OK);
    }
}

static void fill_key(uint8_t *key)
{
    memset(key, 5, QY_NET_KEY_BYTES);
}

static void open_server(struct net_bed *bed)
{
    struct qy_node_params params = {.rt = &bed->rig.rt,
                                    .fabric = bed->fabric,
                                    .listen = bed->fabric ? "server" : "127.0.0.1:0",
                                    .service = qy_memory_service(bed->rig.memory),
                                    .timeout_ns = bed->fabric ? NET_TIMEOUT : NET_REAL_TIMEOUT,
                                    .max_peers = 4,
                                    .depth = 8,
                                    .call_bytes = MR_CALL,
                                    .answer_bytes = MR_ANSWER,
                                    .n_answers = 4};

    fill_key(params.key);
    assert_int_equal(qy_node_open(&params, &bed->server, NULL), QY_OK);
}

void net_bed_connect(struct net_bed *bed, uint32_t i)
{
    struct net_line *line = &bed->lines[i];

    line->bed = bed;
    struct qy_node_params params = {.rt = &bed->rig.rt,
                                    .fabric = bed->fabric,
                                    .device = bed->fabric ? net_addresses[i] : NULL,
                                    .timeout_ns = bed->fabric ? NET_TIMEOUT : NET_REAL_TIMEOUT,
                                    .max_peers = 1,
                                    .depth = 8};
    struct qy_error err = {0};

    fill_key(params.key);
    memset(params.session, (int)i + 1, sizeof(params.session));
    assert_int_equal(qy_node_open(&params, &line->node, &err), QY_OK);
    assert_int_equal(
        qy_peer_open(line->node, qy_node_address(bed->server), "server", &line->peer, &err), QY_OK);
    wait_until_up(line);
}

void net_bed_start(struct net_bed *bed, uint32_t i, const struct memory_form *form)
{
    memory_worker_init(&bed->workers[i], &bed->rig, (uint8_t)(i + 1), form, ask_net,
                       &bed->lines[i]);
    net_bed_connect(bed, i);
    assert_int_equal(memory_open(&bed->workers[i]), QYI_REMOTE_DONE);
}

struct memory_worker *net_bed_open(struct net_bed *bed, const struct memory_form *form,
                                   const struct qy_fabric_params *params)
{
    memset(bed, 0, sizeof(*bed));
    memory_rig_open(&bed->rig, &(struct memory_options){.grace_ns = NET_GRACE});
    if (params) {
        struct qy_fabric_params p = *params;

        p.mem = &bed->rig.rt.mem;
        assert_int_equal(qy_fabric_open(&p, &bed->fabric, NULL), QY_OK);
    }
    open_server(bed);
    net_bed_start(bed, 0, form);
    return &bed->workers[0];
}

void net_bed_close(struct net_bed *bed)
{
    for (uint32_t i = 0; i < NET_WORKERS; i++) {
        qy_node_close(bed->lines[i].node);
        memory_worker_free(&bed->workers[i]);
    }
    qy_node_close(bed->server);
    struct qy_memory_stats stats;
    qy_memory_stats(bed->rig.memory, &stats);
    assert_int_equal(stats.sessions, stats.sessions_away);
    if (bed->fabric) {
        qy_fabric_close(bed->fabric);
    }
    memory_rig_close(&bed->rig);
}

void net_bed_pass(struct net_bed *bed, uint64_t ns)
{
    const uint64_t end = qy_node_now(bed->server) + ns;

    while (qy_node_now(bed->server) < end) {
        if (qy_node_progress(bed->server) == 0) {
            qy_node_wait(bed->server, end);
        }
        (void)qy_memory_tend(bed->rig.memory, qy_node_now(bed->server));
    }
}

void net_bed_inject(struct net_bed *bed, enum qy_fabric_fault fault, const char *from,
                    const char *to, uint32_t after, uint32_t count)
{
    const struct qy_fabric_rule rule = {
        .from = from, .to = to, .fault = fault, .after = after, .count = count, .ns = 5000};

    assert_int_equal(qy_fabric_inject(bed->fabric, &rule), QY_OK);
}

void net_bed_compare(struct net_bed *bed, uint32_t i, uint32_t sequence, uint32_t n_blocks)
{
    struct memory_worker *w = &bed->workers[i];
    static struct memory_list list;
    static uint8_t rows[MR_REPLY];
    static float partials[MR_ITEMS * (MR_FLOATS + MR_GROUP)];

    list = (struct memory_list){.layer = 1};
    memory_list_add(w, &list, sequence, 0, 100, n_blocks, 0);
    memory_list_add(w, &list, sequence, 1, 60, n_blocks, 0);
    assert_int_equal(memory_rows(w, &list), QYI_REMOTE_DONE);
    size_t bytes = memory_expect_rows(w, &list, rows);
    assert_int_equal(w->said.bytes, bytes);
    assert_memory_equal(w->said.payload, rows, bytes);
    assert_int_equal(w->said.reply.fold, memory_expect_fold(w, &list));
    assert_int_equal(memory_attend(w, &list), QYI_REMOTE_DONE);
    bytes = memory_expect_attend(w, bed->rig.dev, &list, partials);
    assert_int_equal(w->said.bytes, bytes);
    assert_memory_equal(w->said.payload, partials, bytes);
    assert_true(memory_holds(w, sequence, n_blocks - 1));
}
