/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of questions of a probe: asked, waited for, timed; and the same work done here. See memory_probe.h. */
#include "offload/memory/memory_probe_internal.h"

static const char *const words[] = {[QY_PROBE_STATE] = "a question about its state",
                                    [QY_PROBE_PUT] = "a block that was put",
                                    [QY_PROBE_READ] = "a block that was asked for",
                                    [QY_PROBE_ROWS] = "a list of rows",
                                    [QY_PROBE_ATTEND] = "a list of rows to attend to"};

/* A batch on its way. */
struct run {
    struct qy_memory_probe *p;
    struct qy_probe_batch *batch;
    uint32_t asked, under_way, answered;
    enum qy_status status;
    struct qy_error *err;
};

static enum qy_status check_batch(const struct qy_memory_probe *p, const struct qy_probe_batch *b,
                                  struct qy_error *err)
{
    const int listed = b->kind == QY_PROBE_ROWS || b->kind == QY_PROBE_ATTEND;

    if (b->n == 0 || b->depth == 0 || b->depth > p->params.depth ||
        (listed && (b->rows < p->layout.n_kv_heads || b->rows > p->params.max_rows))) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "probe: %u questions, %u at once, about %u rows; from 1 on, %u at once "
                            "and %u to %u rows are accepted",
                            b->n, b->depth, b->rows, p->params.depth, p->layout.n_kv_heads,
                            p->params.max_rows);
    }
    return QY_OK;
}

/* Of n questions. */
static uint64_t bytes_of(const struct qy_memory_probe *p, const struct qy_probe_batch *b)
{
    switch (b->kind) {
    case QY_PROBE_STATE:
        return 0;
    case QY_PROBE_PUT:
    case QY_PROBE_READ:
        return b->n * p->layout.block_bytes;
    case QY_PROBE_ROWS:
    case QY_PROBE_ATTEND:
        return (uint64_t)b->n * b->rows * p->layout.row_bytes;
    }
    return 0;
}

static void fail(struct run *run, enum qy_status status)
{
    if (run->status == QY_OK) {
        run->status =
            qyi_probe_not_answered(run->p->params.peer, words[run->batch->kind], status, run->err);
    }
}

/* The slot's next question, if there is one more to ask. */
static void prepare(struct run *run, struct qyi_probe_slot *slot)
{
    if (run->asked == run->batch->n || run->status != QY_OK) {
        return;
    }
    qyi_probe_choose(run->p, run->batch->kind, run->batch->rows, slot);
    qyi_probe_compose(run->p, run->batch->kind, slot);
    slot->state = QYI_PROBE_READY;
    run->asked++;
    run->under_way++;
}

static void post(struct run *run, struct qyi_probe_slot *slot)
{
    const enum qy_status st = qy_request_post(run->p->params.peer, &slot->request);

    if (st == QY_OK) {
        slot->state = QYI_PROBE_ASKED;
    } else if (st != QY_AGAIN) { /* again: the server takes fewer at once */
        slot->state = QYI_PROBE_IDLE;
        run->under_way--;
        fail(run, st);
    }
}

static void settle(struct run *run, struct qyi_probe_slot *slot)
{
    const struct qy_request *r = &slot->request;

    slot->state = QYI_PROBE_IDLE;
    run->under_way--;
    if (r->status != QY_OK) {
        fail(run, r->status);
        return;
    }
    if (r->code != QYI_REMOTE_DONE) {
        if (run->status == QY_OK) {
            run->status = qy_error_set(run->err, QY_ERR_CONFIG,
                                       "memory server '%s': turned down %s: %s; look at its log, "
                                       "and use one that is free and has bytes enough",
                                       qy_peer_name(run->p->params.peer), words[run->batch->kind],
                                       qyi_remote_code_name(r->code));
        }
        return;
    }
    if (run->batch->each != NULL) {
        run->batch->each[run->answered] = r->took_ns;
    }
    run->answered++;
    slot->answered = 1;
}

/* One look at all slots; how many changed. */
static uint32_t turn(struct run *run)
{
    uint32_t changed = 0;

    for (uint32_t i = 0; i < run->batch->depth; i++) {
        struct qyi_probe_slot *slot = &run->p->slots[i];

        if (slot->state == QYI_PROBE_ASKED && slot->request.status != QY_PENDING) {
            settle(run, slot);
            prepare(run, slot);
        }
        if (slot->state == QYI_PROBE_READY && run->status != QY_OK) {
            slot->state = QYI_PROBE_IDLE;
            run->under_way--;
        }
        if (slot->state == QYI_PROBE_READY) {
            post(run, slot);
            changed += slot->state != QYI_PROBE_READY;
        }
    }
    return changed;
}

static enum qy_status compare_all(struct run *run)
{
    for (uint32_t i = 0; i < run->batch->depth; i++) {
        const struct qyi_probe_slot *slot = &run->p->slots[i];
        const char *wrong =
            slot->answered ? qyi_probe_compare(run->p, run->batch->kind, slot) : NULL;

        if (wrong != NULL) {
            return qy_error_set(run->err, QY_ERR_CORRUPT,
                                "memory server '%s': the answer to %s %s; do not use it before its "
                                "memory and program were looked at",
                                qy_peer_name(run->p->params.peer), words[run->batch->kind], wrong);
        }
    }
    return QY_OK;
}

enum qy_status qy_memory_probe_run(struct qy_memory_probe *p, struct qy_probe_batch *batch,
                                   struct qy_error *err)
{
    struct run run = {.p = p, .batch = batch, .err = err};
    const enum qy_status st = check_batch(p, batch, err);

    if (st != QY_OK) {
        return st;
    }
    for (uint32_t i = 0; i < p->params.depth; i++) {
        p->slots[i].answered = 0;
    }
    const uint64_t begin = qy_node_now(p->params.node);
    for (uint32_t i = 0; i < batch->depth; i++) {
        prepare(&run, &p->slots[i]);
    }
    while (run.under_way > 0) { /* ends: questions have deadlines */
        const uint32_t changed = turn(&run);

        if (run.under_way > 0 && qy_node_progress(p->params.node) == 0 && changed == 0) {
            qy_node_wait(p->params.node, UINT64_MAX);
        }
    }
    batch->ns = qy_node_now(p->params.node) - begin;
    batch->bytes = bytes_of(p, batch);
    return run.status == QY_OK ? compare_all(&run) : run.status;
}

enum qy_status qy_memory_probe_local(struct qy_memory_probe *p, struct qy_probe_batch *batch,
                                     struct qy_error *err)
{
    struct qyi_probe_slot *slot = &p->slots[0];
    uint64_t total = 0;
    enum qy_status st = check_batch(p, batch, err);

    if (st == QY_OK && batch->kind == QY_PROBE_STATE) {
        st = qy_error_set(err, QY_ERR_INVALID, "probe: a question about the state is no work");
    }
    for (uint32_t i = 0; st == QY_OK && i < batch->n; i++) {
        qyi_probe_choose(p, batch->kind, batch->rows, slot);
        const uint64_t begin = qy_clock_ns();
        st = qyi_probe_do(p, batch->kind, slot, p->expected);
        const uint64_t took = qy_clock_ns() - begin;

        total += took;
        if (batch->each != NULL) {
            batch->each[i] = took;
        }
        if (st != QY_OK) {
            st = qy_error_set(err, st, "probe: the device failed at attention (%s)",
                              qy_status_name(st));
        }
    }
    if (st == QY_OK) {
        batch->ns = total;
        batch->bytes = bytes_of(p, batch);
    }
    return st;
}
