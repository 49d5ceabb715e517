/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of bench net. Each is run a few times, in turns with all others and with the same work done here:
 * whatever else the machine does meanwhile falls on all of them.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_net.h"

/* ---- the table ---------------------------------------------------------------------------------- */

static uint32_t add_perftest(struct qyi_net_bench *b, const char *test, size_t bytes)
{
    for (uint32_t i = 0; i < b->n_perftests; i++) {
        if (b->perftests[i].bytes == bytes && strcmp(b->perftests[i].test, test) == 0) {
            return i;
        }
    }
    if (b->n_perftests == QYI_NET_SIZES) {
        return UINT32_MAX;
    }
    b->perftests[b->n_perftests] = (struct qyi_perftest){.test = test, .bytes = bytes};
    return b->n_perftests++;
}

/* What ucx_perftest has beside a kind of question. */
static uint32_t perftest_of(struct qyi_net_bench *b, enum qy_probe_kind kind, uint32_t rows)
{
    switch (kind) {
    case QY_PROBE_STATE:
        return add_perftest(b, "ucp_am_lat", QY_NET_HEAD_BYTES);
    case QY_PROBE_PUT:
    case QY_PROBE_READ:
        return add_perftest(b, "ucp_am_bw", qy_memory_block_bytes(&b->shape, b->block_tokens));
    case QY_PROBE_ROWS:
        return add_perftest(b, "ucp_am_bw", rows * qy_row_bytes(QY_ROW_F16, b->shape.head_dim));
    case QY_PROBE_ATTEND: /* its bytes stay where they are */
        break;
    }
    return UINT32_MAX;
}

static enum qy_status add_case(struct qyi_net_bench *b, enum qy_probe_kind kind, uint32_t rows,
                               uint32_t depth, struct qy_error *err)
{
    struct qyi_net_case *c = &b->cases[b->n_cases++];
    const uint32_t n = (uint32_t)b->app->args->steps * depth;
    c->batch = (struct qy_probe_batch){.kind = kind, .n = n, .depth = depth, .rows = rows};
    c->perftest = perftest_of(b, kind, rows);
    c->each = calloc((size_t)QYI_NET_RUNS * n, sizeof *c->each);
    if (c->each == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "bench net: out of memory for %u times; lower --steps",
                            QYI_NET_RUNS * n);
    }
    static const char *const names[] = {[QY_PROBE_STATE] = "round trip",
                                        [QY_PROBE_PUT] = "put a block",
                                        [QY_PROBE_READ] = "read a block",
                                        [QY_PROBE_ROWS] = "pull",
                                        [QY_PROBE_ATTEND] = "push"};
    if (rows > 0) {
        snprintf(c->name, sizeof c->name, "%s %u rows", names[kind], rows);
    } else {
        snprintf(c->name, sizeof c->name, "%s", names[kind]);
    }
    return QY_OK;
}

enum qy_status qyi_net_cases_open(struct qyi_net_bench *b, struct qy_error *err)
{
    static const uint32_t rows[] = {256, 512, QYI_NET_MAX_ROWS};
    enum qy_status st = add_case(b, QY_PROBE_STATE, 0, 1, err);
    for (int kind = QY_PROBE_PUT; kind <= QY_PROBE_READ; kind++) {
        for (uint32_t depth = 1; st == QY_OK && depth < QYI_NET_DEPTH; depth *= 2) {
            st = add_case(b, (enum qy_probe_kind)kind, 0, depth, err);
        }
    }
    for (int kind = QY_PROBE_ROWS; kind <= QY_PROBE_ATTEND; kind++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            for (uint32_t depth = 1; st == QY_OK && depth <= QYI_NET_DEPTH; depth *= 2) {
                st = add_case(b, (enum qy_probe_kind)kind, rows[i], depth, err);
            }
        }
    }
    return st;
}

void qyi_net_cases_close(struct qyi_net_bench *b)
{
    for (uint32_t i = 0; i < b->n_cases; i++) {
        free(b->cases[i].each);
    }
    b->n_cases = 0;
}

/* ---- runs --------------------------------------------------------------------------------------- */

/* Once there and once here. is_warm: it counts. */
static enum qy_status run_case(struct qyi_net_bench *b, struct qy_memory_probe *probe,
                               struct qyi_net_case *c, int is_warm, struct qy_error *err)
{
    struct qy_probe_batch batch = c->batch;
    struct qy_probe_batch work = c->batch;
    struct qy_node_checks before, after;
    enum qy_status st = qyi_net_server_check(&b->server, err);
    batch.n = is_warm ? batch.n : batch.depth;
    batch.each = is_warm ? c->each + (size_t)c->n_runs * batch.n : NULL;
    work.n = (uint32_t)b->app->args->steps;
    work.ns = 0;
    qy_node_checks(b->link.node, &before);
    if (st == QY_OK) {
        st = qy_memory_probe_run(probe, &batch, err);
    }
    qy_node_checks(b->link.node, &after);
    if (st == QY_OK && c->batch.kind != QY_PROBE_STATE) {
        st = qy_memory_probe_local(probe, &work, err);
    }
    if (st == QY_OK && is_warm) {
        c->batch.bytes = batch.bytes / batch.n;
        c->check_ns += after.ns - before.ns;
        c->there[c->n_runs] = batch.ns / batch.n;
        c->here[c->n_runs++] = work.ns / work.n;
    }
    return st;
}

/* One of each size. */
static void run_perftests(struct qyi_net_bench *b)
{
    for (uint32_t i = 0; b->no_perftest == NULL && i < b->n_perftests; i++) {
        struct qyi_perftest *t = &b->perftests[i];
        if (qyi_interrupted() || b->n_failed == QYI_PERFTEST_FAILURES) {
            return;
        }
        if (t->n < QYI_PERFTEST_RUNS && qyi_perftest_run(b->app, t, &b->perftest_failed) != QY_OK) {
            b->n_failed++;
        }
    }
}

static enum qy_status run_all(struct qyi_net_bench *b, struct qy_memory_probe *probe,
                              struct qy_error *err)
{
    for (uint32_t run = 0; run <= QYI_NET_RUNS; run++) { /* the first only warms up */
        for (uint32_t i = 0; i < b->n_cases; i++) {
            if (qyi_interrupted()) {
                return QY_OK;
            }
            const enum qy_status st = run_case(b, probe, &b->cases[i], run > 0, err);
            if (st != QY_OK) {
                return st;
            }
        }
        if (run > 0) {
            run_perftests(b);
        }
    }
    return QY_OK;
}

enum qy_status qyi_net_cases_run(struct qyi_net_bench *b, uint32_t i, struct qy_error *err)
{
    /* chosen: what a busy machine takes for the largest question is no failure of the network */
    const uint64_t least = 10000000000u;
    const struct qy_memory_probe_params params = {
        .rt = &b->app->rt,
        .node = b->link.node,
        .peer = b->link.peers[i],
        .dev = b->dev,
        .shape = b->shape,
        .block_tokens = b->block_tokens,
        .n_blocks = b->n_blocks,
        .depth = QYI_NET_DEPTH,
        .max_rows = QYI_NET_MAX_ROWS,
        .call_bytes = QYI_MEMORY_CALL,
        .answer_bytes = QYI_MEMORY_ANSWER,
        .timeout_ns = b->link.servers.timeout_ns > least ? b->link.servers.timeout_ns : least,
        .seed = (uint64_t)b->app->program.seed + i};
    struct qy_memory_probe *probe = NULL;
    for (uint32_t k = 0; k < b->n_cases; k++) {
        b->cases[k].n_runs = 0;
        b->cases[k].check_ns = 0;
    }
    enum qy_status st = qy_peer_wait(b->link.peers[i], 3 * b->link.servers.timeout_ns, err);
    if (st == QY_OK) {
        st = qy_memory_probe_open(&params, &probe, err);
    }
    if (st == QY_OK && i == 0) {
        qyi_net_report_begin(b);
    }
    if (st == QY_OK) {
        st = run_all(b, probe, err);
    }
    qy_memory_probe_close(probe);
    return st;
}
