/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of a memory server over a fabric: every kind of question is answered, what is wrong is found, and a
 * server that is full, busy or gone is told from one that is slow. */
#include "tests/unit/offload/memory_net_rig.h"

#include "tests/support/fail_alloc.h"

#include <string.h>

enum { BLOCKS = 6, DEPTH = 4, ROWS = 150, QUESTIONS = 9 };

static const struct qy_fabric_params usual = {.seed = 3, .latency_ns = 1000};
static const struct memory_form form = {.type = QY_ROW_F16};
static struct net_bed bed; /* static: answers are large */
static struct qy_error err;

/* Line 1 is a probe's. */
static struct qy_memory_probe_params start(void)
{
    net_bed_open(&bed, &form, &usual);
    net_bed_connect(&bed, 1);
    return (struct qy_memory_probe_params){
        .rt = &bed.rig.rt,
        .node = bed.lines[1].node,
        .peer = bed.lines[1].peer,
        .dev = bed.rig.dev,
        .shape = {MR_LAYERS, MR_KV_HEADS * MR_GROUP, MR_KV_HEADS, MR_D},
        .block_tokens = MR_TOKENS,
        .n_blocks = BLOCKS,
        .depth = DEPTH,
        .max_rows = ROWS,
        .call_bytes = MR_CALL,
        .answer_bytes = MR_ANSWER,
        .timeout_ns = 10 * NET_TIMEOUT,
        .seed = 7};
}

static struct qy_memory_probe *start_probe(void)
{
    const struct qy_memory_probe_params params = start();
    struct qy_memory_probe *probe = NULL;

    assert_int_equal(qy_memory_probe_open(&params, &probe, &err), QY_OK);
    return probe;
}

static enum qy_status run(struct qy_memory_probe *probe, enum qy_probe_kind kind, uint32_t depth,
                          struct qy_probe_batch *batch)
{
    static uint64_t each[64];

    *batch = (struct qy_probe_batch){
        .kind = kind, .n = QUESTIONS, .depth = depth, .rows = ROWS, .each = each};
    return qy_memory_probe_run(probe, batch, &err);
}

static uint64_t bytes_of(enum qy_probe_kind kind)
{
    const uint64_t row = qy_row_bytes(QY_ROW_F16, MR_D);
    const uint64_t block = bed.workers[0].layout.block_bytes;

    return kind == QY_PROBE_STATE                          ? 0
           : kind == QY_PROBE_PUT || kind == QY_PROBE_READ ? QUESTIONS * block
                                                           : QUESTIONS * ROWS * row;
}

static void questions_of_every_kind_are_answered(void **state)
{
    struct qy_memory_probe *probe = start_probe();
    struct qy_memory_stats stats;
    struct qy_probe_batch batch;
    (void)state;

    for (int kind = QY_PROBE_STATE; kind <= QY_PROBE_ATTEND; kind++) {
        uint64_t alone = 0;

        for (uint32_t depth = 1; depth <= DEPTH; depth *= DEPTH) {
            assert_int_equal(run(probe, (enum qy_probe_kind)kind, depth, &batch), QY_OK);
            assert_int_equal(batch.bytes, bytes_of(batch.kind));
            for (uint32_t i = 0; i < QUESTIONS; i++) {
                assert_in_range(batch.each[i], 2 * usual.latency_ns, batch.ns);
            }
            alone = depth == 1 ? batch.ns : alone;
        }
        assert_true(batch.ns < alone); /* on the fabric's clock: ways there and back overlap */
        const enum qy_status st = qy_memory_probe_local(probe, &batch, &err);
        assert_int_equal(st, kind == QY_PROBE_STATE ? QY_ERR_INVALID : QY_OK);
        assert_int_equal(batch.bytes, bytes_of(batch.kind));
    }
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.puts, BLOCKS + 2 * QUESTIONS);
    assert_int_equal(stats.rows, 2 * QUESTIONS * ROWS);
    assert_int_equal(stats.rows_attended, 2 * QUESTIONS * ROWS);
    assert_int_equal(stats.blocks_total - stats.blocks_free, BLOCKS);
    qy_memory_probe_close(probe);
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.blocks_total, stats.blocks_free);
    net_bed_close(&bed);
}

static void probe_comes_after_another_one(void **state)
{
    struct qy_memory_probe_params params = start();
    struct qy_memory_probe *probe = NULL;
    struct qy_probe_batch batch;
    (void)state;

    for (params.n_blocks = BLOCKS + 2; params.n_blocks >= BLOCKS; params.n_blocks--) {
        assert_int_equal(qy_memory_probe_open(&params, &probe, &err), QY_OK);
        assert_int_equal(run(probe, QY_PROBE_READ, 1, &batch), QY_OK);
        qy_memory_probe_close(probe);
    }
    net_bed_close(&bed);
}

/* The server's memory, behind its back: the signs of all numbers. */
static void damage(void)
{
    const struct qyi_session *s = qyi_session_find(
        bed.rig.memory,
        (const uint8_t[QY_NET_SESSION_BYTES]){2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2});

    assert_non_null(s);
    net_bed_pass(&bed, NET_TIMEOUT); /* until no answer is sent from there any more */
    for (uint32_t b = 0; b < BLOCKS; b++) {
        assert_non_null(s->blocks[b]);
        for (size_t at = 1; at < s->layout.index_at; at += 2) {
            s->blocks[b][at] ^= 0x80;
        }
    }
}

static void rows_that_are_not_what_was_put_are_found(void **state)
{
    static const enum qy_probe_kind kinds[] = {QY_PROBE_READ, QY_PROBE_ROWS, QY_PROBE_ATTEND};
    struct qy_memory_probe *probe = start_probe();
    struct qy_probe_batch batch;
    (void)state;

    for (uint32_t i = 0; i < 3; i++) {
        damage();
        assert_int_equal(run(probe, kinds[i], DEPTH, &batch), QY_ERR_CORRUPT);
        assert_non_null(strstr(err.text, "has other bytes"));
        assert_int_equal(run(probe, QY_PROBE_PUT, DEPTH, &batch), QY_OK); /* all of them anew */
        assert_int_equal(run(probe, kinds[i], DEPTH, &batch), QY_OK);
    }
    for (uint32_t i = 0; i < bed.rig.memory->params.max_sessions; i++) {
        struct qyi_session *s = &bed.rig.memory->sessions[i];

        for (uint32_t b = 0; s->n_held > 0 && b < BLOCKS; b++) {
            s->generations[b]--;
        }
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(run(probe, kinds[i], 1, &batch), QY_ERR_CORRUPT);
        assert_non_null(strstr(err.text, "is of other blocks"));
    }
    qy_memory_probe_close(probe);
    net_bed_close(&bed);
}

static void server_that_dies_ends_the_batch(void **state)
{
    struct qy_memory_probe *probe = start_probe();
    struct qy_probe_batch batch;
    (void)state;

    assert_int_equal(qy_fabric_happens(bed.fabric, "server", QY_FABRIC_KILL), QY_OK);
    const enum qy_status st = run(probe, QY_PROBE_ROWS, DEPTH, &batch);
    assert_true(st == QY_ERR_PEER || st == QY_ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "a list of rows was not answered"));
    qy_memory_probe_close(probe);
    net_bed_close(&bed);
}

static void server_without_room_is_told(void **state)
{
    struct qy_memory_probe_params params = start();
    struct qy_memory_probe *probe = NULL;
    (void)state;

    params.n_blocks = 49; /* of 48 */
    assert_int_equal(qy_memory_probe_open(&params, &probe, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "turned down a block that was put: full"));
    memory_fill(&bed.workers[0], 0, 1);
    params.shape.n_layers++; /* blocks of another size */
    assert_int_equal(qy_memory_probe_open(&params, &probe, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "blocks of another layout are held"));
    net_bed_close(&bed);
}

static void server_tells_its_state_to_all(void **state)
{
    const struct qy_memory_probe_params params = start();
    struct qy_memory_probe *probe = NULL;
    struct qy_memory_state told;
    (void)state;

    assert_int_equal(qy_memory_ask_state(params.node, params.peer, &told, &err), QY_OK);
    assert_int_equal(told.protocol, QYI_REMOTE_VERSION);
    assert_int_equal(told.sessions, 1); /* worker 0's: this one has none */
    assert_int_equal(told.block_bytes, qy_memory_block_bytes(&params.shape, MR_TOKENS));
    assert_int_equal(told.bytes, 48 * told.block_bytes);
    assert_int_equal(told.free_blocks, 48);
    assert_false(told.draining);
    assert_int_equal(told.took_ns, 2 * usual.latency_ns);
    assert_int_equal(qy_memory_probe_open(&params, &probe, &err), QY_OK);
    qy_memory_drain(bed.rig.memory);
    assert_int_equal(qy_memory_ask_state(params.node, params.peer, &told, &err), QY_OK);
    assert_int_equal(told.sessions, 2);
    assert_int_equal(told.total_blocks, 48);
    assert_int_equal(told.free_blocks, 0);
    assert_true(told.draining);
    qy_memory_probe_close(probe);
    net_bed_close(&bed);
}

static void open_survives_every_failing_allocation(void **state)
{
    struct qy_memory_probe_params params = start();
    struct qy_memory_probe *probe = NULL;
    struct qy_memory_stats stats;
    enum qy_status st = QY_ERR_NOMEM;
    (void)state;

    for (long n = 0; st != QY_OK; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_runtime rt = bed.rig.rt;

        assert_true(n < 100);
        rt.mem = fail_alloc_make(&f);
        params.rt = &rt;
        st = qy_memory_probe_open(&params, &probe, &err);
        if (st == QY_OK) {
            qy_memory_probe_close(probe);
        } else {
            assert_int_equal(st, QY_ERR_NOMEM);
        }
        assert_int_equal(f.live, 0);
    }
    qy_memory_stats(bed.rig.memory, &stats);
    assert_int_equal(stats.puts, BLOCKS); /* nothing was asked before all memory was there */
    net_bed_close(&bed);
}

static void numbers_that_cannot_be_are_refused(void **state)
{
    const struct qy_memory_probe_params good = start();
    struct qy_memory_probe_params params[6] = {good, good, good, good, good, good};
    struct qy_memory_probe *probe = NULL;
    (void)state;

    params[0].depth = 0;
    params[1].n_blocks = DEPTH - 1;
    params[2].max_rows = MR_KV_HEADS - 1;
    params[3].max_rows = MR_KV_HEADS * MR_TOKENS * BLOCKS + 1;
    params[4].answer_bytes = ROWS * qy_row_bytes(QY_ROW_F16, MR_D) - 1;
    params[5].call_bytes = ROWS * sizeof(uint32_t);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(qy_memory_probe_open(&params[i], &probe, &err), QY_ERR_INVALID);
    }
    assert_int_equal(qy_memory_probe_open(&good, &probe, &err), QY_OK);
    struct qy_probe_batch batches[] = {
        {.kind = QY_PROBE_READ, .n = 0, .depth = 1},
        {.kind = QY_PROBE_READ, .n = 1, .depth = DEPTH + 1},
        {.kind = QY_PROBE_ROWS, .n = 1, .depth = 1, .rows = MR_KV_HEADS - 1},
        {.kind = QY_PROBE_ATTEND, .n = 1, .depth = 1, .rows = ROWS + 1},
    };
    for (uint32_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        assert_int_equal(qy_memory_probe_run(probe, &batches[i], &err), QY_ERR_INVALID);
        assert_int_equal(qy_memory_probe_local(probe, &batches[i], &err), QY_ERR_INVALID);
    }
    qy_memory_probe_close(probe);
    net_bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_of_every_kind_are_answered),
        cmocka_unit_test(probe_comes_after_another_one),
        cmocka_unit_test(rows_that_are_not_what_was_put_are_found),
        cmocka_unit_test(server_that_dies_ends_the_batch),
        cmocka_unit_test(server_without_room_is_told),
        cmocka_unit_test(server_tells_its_state_to_all),
        cmocka_unit_test(open_survives_every_failing_allocation),
        cmocka_unit_test(numbers_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("unit.offload.memory_probe", tests, NULL, NULL);
}
