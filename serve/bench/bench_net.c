/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench net: questions to memory servers, of every kind, by rows and by how many are under way at once.
 * Without net.memory it measures against a server of its own. Beside each figure stand its ceilings: the
 * same work without a network, and what ucx_perftest gets for messages of as many bytes.
 */
#include "serve/bench/bench_net.h"

#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_shape.h"

/* chosen: the demo's model */
static const char default_shape[] = "smollm2-135m";
enum { DEFAULT_LAYERS = 30, MAX_STEPS = 10000 };

static enum qy_status choose(struct qyi_net_bench *b, struct qy_error *err)
{
    const struct qyi_args *args = b->app->args;
    enum qy_status st =
        qyi_shape_choose(args, args->shape != NULL ? args->shape : default_shape, &b->shape, err);
    if (st != QY_OK) {
        return st;
    }
    b->shape.n_layers = args->layers > 0 ? (uint32_t)args->layers : DEFAULT_LAYERS;
    b->block_tokens = (uint32_t)b->app->cache.block_tokens;
    b->n_blocks = (uint32_t)(args->context / b->block_tokens);
    if (b->n_blocks < QYI_NET_DEPTH ||
        (uint64_t)b->n_blocks * b->block_tokens * b->shape.n_kv_heads <
            QYI_NET_MAX_ROWS + b->shape.n_kv_heads) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--context': '%llu' refused; bench net keeps whole blocks of %u "
            "tokens (cache.block_tokens) at a server, at least %d of them, and asks "
            "for %d different rows of all KV heads at once; give more tokens",
            (unsigned long long)args->context, b->block_tokens, QYI_NET_DEPTH, QYI_NET_MAX_ROWS);
    }
    if (QYI_NET_MAX_ROWS * qy_row_bytes(QY_ROW_F16, b->shape.head_dim) > QYI_MEMORY_ANSWER) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--head-dim': '%u' refused; %d rows of one question come in one "
            "answer of %d KiB; up to %d is accepted",
            b->shape.head_dim, QYI_NET_MAX_ROWS, QYI_MEMORY_ANSWER >> 10,
            QYI_MEMORY_ANSWER / QYI_NET_MAX_ROWS / 4);
    }
    if (qy_memory_block_bytes(&b->shape, b->block_tokens) == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "setting 'cache.block_tokens': '%u' refused; powers of two from 8 to "
                            "4096 are accepted",
                            b->block_tokens);
    }
    if (args->steps == 0 || args->steps > MAX_STEPS) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--steps': '%llu' refused; 1 to %d questions are accepted",
                            (unsigned long long)args->steps, MAX_STEPS);
    }
    return QY_OK;
}

/* The link to a server of its own, or to those of net.memory. */
static enum qy_status open_link(struct qyi_net_bench *b, struct qy_error *err)
{
    const uint64_t block = qy_memory_block_bytes(&b->shape, b->block_tokens);
    if (qyi_memory_link_wanted(b->app)) {
        return qyi_memory_link_open(b->app, &b->link, err);
    }
    /* A block that is put anew lies beside the old one until it has come. */
    const uint64_t bytes = (b->n_blocks + 2 * QYI_NET_DEPTH) * block;
    enum qy_status st = qyi_net_server_open(b->app, bytes, &b->server, err);
    if (st != QY_OK) {
        return st;
    }
    b->own = *b->app;
    snprintf(b->own.net.memory, sizeof b->own.net.memory, "%s", b->server.address);
    b->own.net.device[0] = '\0';
    b->own.net.replicas = 1;
    return qyi_memory_link_open_with(&b->own, b->server.key, &b->link, err);
}

/* ucx_perftest runs on this host alone. */
static void look_for_perftest(struct qyi_net_bench *b)
{
    for (uint32_t i = 0; i < b->link.servers.n; i++) {
        if (strncmp(qy_peer_name(b->link.peers[i]), "127.", 4) != 0) {
            b->no_perftest =
                "is run for servers at 127.0.0.1 only; between hosts: ucx_perftest -t "
                "ucp_am_bw -s BYTES, by hand at both ends";
            return;
        }
    }
    b->no_perftest = qyi_perftest_missing();
}

static enum qy_status open_all(struct qyi_net_bench *b, struct qy_error *err)
{
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    b->solo = b->app->rt;
    b->solo.team = NULL;
    enum qy_status st = choose(b, err);
    if (st == QY_OK) {
        st = qy_device_open(&b->solo, &device, &b->dev, err);
    }
    if (st == QY_OK) {
        st = qyi_net_cases_open(b, err);
    }
    if (st == QY_OK) {
        st = open_link(b, err);
    }
    if (st == QY_OK) {
        look_for_perftest(b);
    }
    return st;
}

static void close_all(struct qyi_net_bench *b)
{
    qyi_memory_link_close(&b->link);
    qyi_net_server_close(&b->server);
    qyi_net_cases_close(b);
    qy_device_close(b->dev);
    cJSON_Delete(b->servers);
    free(b);
}

enum qy_status qyi_bench_net(struct qyi_app *app, struct qy_error *err)
{
    struct qyi_net_bench *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench net: out of memory");
    }
    b->app = app;
    b->servers = cJSON_CreateArray();
    enum qy_status st = open_all(b, err);
    for (uint32_t i = 0; st == QY_OK && i < b->link.servers.n && !qyi_interrupted(); i++) {
        st = qyi_net_cases_run(b, i, err);
        if (st == QY_OK) {
            qyi_net_report_server(b, i);
        }
    }
    if (st == QY_OK) {
        qyi_net_report_end(b);
    }
    close_all(b);
    return st;
}
