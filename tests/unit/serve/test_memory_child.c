/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program as a supervised memory server: it takes its brief, listens, serves, comes back, drains, and
 * says what is wrong.
 * usage: PROGRAM QUARRY
 */
#include "tests/support/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/unit/offload/memory_rig.h"
#include "tests/unit/serve/memory_child_start.h"

static const uint64_t second_ns = 1000000000u;
static const char *quarry;
static struct memory_worker worker;

enum { N_BLOCKS = 4 };

struct line {
    struct qy_node *node;
    struct qy_peer *peer;
};

struct bed {
    struct memory_rig rig; /* rt alone */
    struct line line;
    uint8_t key[QY_NET_KEY_BYTES];
    struct qyi_supervisor *supervisor;
    struct qyi_child child;
    struct qy_error err;
};

static void bed_open(struct bed *bed, uint64_t bytes)
{
    memset(bed, 0, sizeof *bed);
    bed->rig.rt.mem = qy_allocator_system();
    bed->rig.rt.log = qy_log_stderr(QY_LOG_ERROR);
    memset(bed->key, 0x5a, sizeof bed->key);
    bed->supervisor = memory_child_start(&bed->rig.rt, quarry, bytes, bed->key);
}

/* Until it listens after so many restarts, or is given up. */
static enum qy_status await(struct bed *bed, uint32_t restarts)
{
    const uint64_t until = qy_clock_ns() + 120 * second_ns;
    for (;;) {
        const enum qy_status st = qyi_supervisor_poll(bed->supervisor, qy_clock_ns(), &bed->err);
        qyi_supervisor_child(bed->supervisor, &bed->child);
        if (st < 0 || (st == QY_OK && bed->child.restarts >= restarts)) {
            return st;
        }
        assert_true(qy_clock_ns() < until);
        qyi_supervisor_wait(bed->supervisor, second_ns / 20);
    }
}

static void child_says_why_it_cannot_serve(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, UINT64_C(1) << 60);
    assert_int_equal(await(&bed, 0), QY_ERR_CONFIG);
    assert_non_null(strstr(bed.err.text, "net.bytes"));
    assert_int_equal(bed.child.restarts, 0);
    assert_int_equal(qyi_supervisor_close(bed.supervisor), 0);
}

/* Up, as the start of this incarnation. */
static void await_peer(struct qy_node *node, const struct qy_peer *peer, uint64_t incarnation)
{
    const uint64_t until = qy_clock_ns() + 120 * second_ns;
    while (qy_peer_state(peer) != QY_PEER_UP || qy_peer_incarnation(peer) != incarnation) {
        assert_true(qy_clock_ns() < until);
        assert_int_not_equal(qy_peer_state(peer), QY_PEER_REFUSED);
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, qy_node_now(node) + second_ns / 20);
        }
    }
}

/* A worker's line: everything must be answered. */
static void ask(struct memory_worker *w, const struct qyi_question *q, struct memory_said *said)
{
    struct line *line = w->line;
    struct qy_op op = {.status = QY_OK};
    struct qy_request r = {.op = q->op,
                           .head_bytes = (uint16_t)q->head_bytes,
                           .payload = q->payload,
                           .payload_bytes = q->payload_bytes,
                           .reply = said->payload,
                           .reply_capacity = sizeof said->payload,
                           .timeout_ns = 60 * second_ns,
                           .counts = &op};
    if (q->head_bytes > 0) {
        memcpy(r.head, q->head, q->head_bytes);
    }
    assert_int_equal(qy_request_post(line->peer, &r), QY_OK);
    assert_int_equal(qy_op_wait(line->node, &op), QY_OK);
    said->lost = 0;
    said->code = r.code;
    said->bytes = r.reply_bytes;
    said->has_head = r.reply_head_bytes > 0;
    if (said->has_head) {
        assert_int_equal(qyi_remote_reply_parse(r.reply_head, r.reply_head_bytes, &said->reply),
                         QY_OK);
    }
}

/* Connects a worker to the child; 0: this build has no network. */
static int connect_worker(struct bed *bed)
{
    const enum qy_status st = await(bed, 0);
    if (st == QY_ERR_UNSUPPORTED) {
        assert_non_null(strstr(bed->err.text, "UCX"));
        return 0;
    }
    assert_int_equal(st, QY_OK);
    struct qy_node_params params = {
        .rt = &bed->rig.rt, .timeout_ns = 2 * second_ns, .max_peers = 1, .depth = 8};
    memory_worker_init(&worker, &bed->rig, 9, &(struct memory_form){.type = QY_ROW_F16}, ask,
                       &bed->line);
    memcpy(params.key, bed->key, sizeof params.key);
    memcpy(params.session, worker.name, sizeof params.session);
    assert_int_equal(qy_node_open(&params, &bed->line.node, &bed->err), QY_OK);
    assert_int_equal(
        qy_peer_open(bed->line.node, bed->child.address, "server", &bed->line.peer, &bed->err),
        QY_OK);
    await_peer(bed->line.node, bed->line.peer, bed->child.incarnation);
    assert_int_equal(memory_open(&worker), QYI_REMOTE_DONE);
    memory_fill(&worker, 0, N_BLOCKS);
    assert_true(memory_holds(&worker, 0, N_BLOCKS - 1));
    return 1;
}

static void bed_close(struct bed *bed)
{
    qy_node_close(bed->line.node);
    memory_worker_free(&worker);
    assert_int_equal(qyi_supervisor_close(bed->supervisor), 0);
}

static void child_that_is_killed_comes_back_on_its_port(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, 8 << 20);
    if (!connect_worker(&bed)) {
        bed_close(&bed);
        skip();
    }
    char address[QYI_CHILD_ADDRESS_BYTES];
    snprintf(address, sizeof address, "%s", bed.child.address);
    const uint64_t first = bed.child.incarnation;
    kill(bed.child.pid, SIGKILL);
    assert_int_equal(await(&bed, 1), QY_OK);
    assert_string_equal(bed.child.address, address);
    assert_int_not_equal(bed.child.incarnation, first);
    await_peer(bed.line.node, bed.line.peer, bed.child.incarnation);
    assert_int_equal(memory_state(&worker), QYI_REMOTE_NOT_OPEN); /* what it held is lost */
    assert_int_equal(memory_open(&worker), QYI_REMOTE_DONE);
    memory_fill(&worker, 1, N_BLOCKS);
    assert_true(memory_holds(&worker, 1, 0));
    bed_close(&bed);
}

static void child_that_is_told_to_end_lets_blocks_leave(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, 8 << 20);
    if (!connect_worker(&bed)) {
        bed_close(&bed);
        skip();
    }
    const uint64_t until = qy_clock_ns() + 120 * second_ns;
    kill(bed.child.pid, SIGTERM);
    do {
        assert_true(qy_clock_ns() < until);
        assert_int_equal(memory_state(&worker), QYI_REMOTE_DONE);
    } while (!worker.said.reply.draining);
    memory_make(&worker, 0, N_BLOCKS);
    assert_int_equal(memory_put(&worker, 0, N_BLOCKS), QYI_REMOTE_FULL);
    assert_true(memory_holds(&worker, 0, N_BLOCKS - 1));
    assert_int_equal(await(&bed, 0), QY_OK); /* it is there as long as it has a block */
    assert_int_equal(bed.child.restarts, 0);
    assert_int_equal(memory_drop(&worker, 0, 0, N_BLOCKS, 0), QYI_REMOTE_DONE);
    assert_int_equal(await(&bed, 1), QY_OK);
    assert_string_equal(bed.child.why, "ended with exit code 0");
    bed_close(&bed);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        return 2;
    }
    quarry = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_says_why_it_cannot_serve),
        cmocka_unit_test(child_that_is_killed_comes_back_on_its_port),
        cmocka_unit_test(child_that_is_told_to_end_lets_blocks_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
