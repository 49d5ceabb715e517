/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a memory server, and what people see of it. What is asked and answered is offload's. */
#include "serve/memory/memory_server.h"
#include "serve/memory/memory_link.h"

#include <string.h>

/* A place for a peer takes QYI_MEMORY_DEPTH calls. */
enum { N_ANSWERS = 16, MAX_PEERS = 64 };

/* Signals are looked for so often, and a supervisor is told. */
static const uint64_t look_ns = 100000000u;

/* ---- the service, with a line for who comes and goes ------------------------------------------- */

static void *place(void *ctx, const struct qy_call *call, uint16_t *code)
{
    const struct qyi_memory_server *s = ctx;
    return s->answers->place(s->answers->ctx, call, code);
}

static void serve(void *ctx, struct qy_call *call)
{
    const struct qyi_memory_server *s = ctx;
    s->answers->serve(s->answers->ctx, call);
}

static void done(void *ctx, struct qy_call *call)
{
    const struct qyi_memory_server *s = ctx;
    s->answers->done(s->answers->ctx, call);
}

static void joined(void *ctx, struct qy_peer *peer)
{
    struct qyi_memory_server *s = ctx;
    s->joined++;
    qy_log_write(&s->rt->log, QY_LOG_INFO, "memory", "peer %s joined", qy_peer_name(peer));
    if (s->answers->joined != NULL) {
        s->answers->joined(s->answers->ctx, peer);
    }
}

static void left(void *ctx, struct qy_peer *peer, const char *why)
{
    struct qyi_memory_server *s = ctx;
    s->left++;
    qy_log_write(&s->rt->log, QY_LOG_INFO, "memory", "peer %s left: %s", qy_peer_name(peer), why);
    if (s->answers->left != NULL) {
        s->answers->left(s->answers->ctx, peer, why);
    }
}

/* ---- open and close ---------------------------------------------------------------------------- */

static enum qy_status check_bytes(uint64_t bytes, struct qy_error *err)
{
    struct qy_memory_info info;
    char asked[32], usable[32];
    qy_memory_read(&info);
    if (bytes == 0) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "net.bytes '0': a memory server needs memory to give; say how much, as in "
            "--bytes 8G");
    }
    if (bytes > info.usable) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "net.bytes '%s': this machine, or this process's limit, has %s that may "
            "still be taken; give less",
            qy_format_size(bytes, asked, sizeof asked),
            qy_format_size(info.usable, usable, sizeof usable));
    }
    return QY_OK;
}

static enum qy_status open_memory(struct qyi_memory_server *s,
                                  const struct qyi_memory_server_params *params,
                                  struct qy_error *err)
{
    const struct qy_memory_params memory = {
        .rt = params->rt,
        .bytes = params->net->bytes,
        /* chosen: a worker gives a server up after three timeouts, so nobody asks for blocks of a session
         * that is away for four */
        .grace_ns = 4 * (uint64_t)params->net->timeout_ms * 1000000u,
        .call_bytes = QYI_MEMORY_CALL,
        .answer_bytes = QYI_MEMORY_ANSWER,
        .max_sessions = MAX_PEERS,
    };
    return qy_memory_open(&memory, &s->memory, err);
}

static enum qy_status open_node(struct qyi_memory_server *s,
                                const struct qyi_memory_server_params *params, struct qy_error *err)
{
    struct qy_node_params node = {
        .rt = params->rt,
        .device = params->net->device[0] != '\0' ? params->net->device : NULL,
        .listen = params->listen,
        .service = &s->service,
        .timeout_ns = (uint64_t)params->net->timeout_ms * 1000000u,
        .silent_ns = (uint64_t)params->net->silent_ms * 1000000u,
        .spin_ns = (uint64_t)params->net->spin_us * 1000u,
        .max_peers = MAX_PEERS,
        .depth = QYI_MEMORY_DEPTH,
        .call_bytes = QYI_MEMORY_CALL,
        .answer_bytes = QYI_MEMORY_ANSWER,
        .n_answers = N_ANSWERS,
    };
    memcpy(node.key, params->key, sizeof node.key);
    const enum qy_status st = qy_node_open(&node, &s->node, err);
    explicit_bzero(node.key, sizeof node.key);
    return st;
}

enum qy_status qyi_memory_server_open(struct qyi_memory_server *s,
                                      const struct qyi_memory_server_params *params,
                                      struct qy_error *err)
{
    memset(s, 0, sizeof *s);
    s->rt = params->rt;
    s->supervised = params->supervised;
    s->drain_ns = (uint64_t)params->net->drain_ms * 1000000u;
    s->opened_ns = qy_clock_ns();
    enum qy_status st = check_bytes(params->net->bytes, err);
    if (st == QY_OK) {
        st = open_memory(s, params, err);
    }
    if (st == QY_OK) {
        s->answers = qy_memory_service(s->memory);
        s->service = (struct qy_service){.ctx = s, .serve = serve, .joined = joined, .left = left};
        s->service.place = s->answers->place != NULL ? place : NULL;
        s->service.done = s->answers->done != NULL ? done : NULL;
        st = open_node(s, params, err);
    }
    if (st != QY_OK) {
        qyi_memory_server_close(s);
    }
    return st;
}

void qyi_memory_server_close(struct qyi_memory_server *s)
{
    qy_node_close(s->node);
    qy_memory_close(s->memory);
    memset(s, 0, sizeof *s);
}

/* ---- the loop ---------------------------------------------------------------------------------- */

/* From now on it takes no block; the time at which it ends, moved or not. */
static uint64_t begin_to_end(struct qyi_memory_server *s, uint64_t now)
{
    struct qy_memory_stats stats;
    qy_memory_stats(s->memory, &stats);
    if (stats.blocks_free == stats.blocks_total) {
        qy_log_write(&s->rt->log, QY_LOG_INFO, "memory", "told to end; holds no block");
    } else {
        qy_log_write(
            &s->rt->log, QY_LOG_INFO, "memory",
            "told to end; holds %u blocks of %u sessions, which may take them elsewhere for "
            "%llu ms (net.drain_ms)",
            stats.blocks_total - stats.blocks_free, stats.sessions,
            (unsigned long long)(s->drain_ns / 1000000u));
    }
    qy_memory_drain(s->memory);
    return now + s->drain_ns;
}

/* What became of its blocks. */
static void say_drained(const struct qyi_memory_server *s)
{
    struct qy_memory_stats stats;
    char moved[32], left[32];
    qy_memory_stats(s->memory, &stats);
    const uint32_t n_left = stats.blocks_total - stats.blocks_free;
    qy_format_size(stats.moved * stats.block_bytes, moved, sizeof moved);
    qy_format_size(n_left * stats.block_bytes, left, sizeof left);
    const int alone =
        stats.sessions == stats.sessions_away; /* workers that ended leave nothing to save */
    if (n_left > 0) {
        qy_log_write(&s->rt->log, alone ? QY_LOG_INFO : QY_LOG_WARN, "memory",
                     "%llu blocks (%s) handed over; %u (%s) stay behind and are lost: %s",
                     (unsigned long long)stats.moved, moved, n_left, left,
                     alone ? "nobody is connected whose they are"
                           : "other servers have no room, or net.drain_ms is too short");
    } else if (stats.moved > 0) {
        qy_log_write(&s->rt->log, QY_LOG_INFO, "memory", "%llu blocks (%s) handed over, none left",
                     (unsigned long long)stats.moved, moved);
    }
}

/* Whether nobody is here whose blocks are. */
static int is_drained(const struct qyi_memory_server *s)
{
    struct qy_memory_stats stats;
    qy_memory_stats(s->memory, &stats);
    return stats.blocks_free == stats.blocks_total || stats.sessions == stats.sessions_away;
}

void qyi_memory_server_run(struct qyi_memory_server *s)
{
    const uint64_t beat_ns = s->supervised != NULL ? s->supervised->beat_ns : look_ns;
    uint64_t end = 0; /* 0: nobody told it to */
    for (;;) {
        const uint32_t happened = qy_node_progress(s->node);
        const uint64_t now = qy_node_now(s->node);
        const int more = qy_memory_tend(s->memory, now);
        if (end == 0 && qyi_interrupted()) {
            end = begin_to_end(s, now);
        }
        if (end != 0 && (now >= end || is_drained(s))) {
            say_drained(s);
            return;
        }
        if (s->supervised != NULL && qyi_supervised_beat(s->supervised, now) != 0) {
            return;
        }
        if (happened == 0 && !more) {
            qy_node_wait(s->node, now + (beat_ns < look_ns ? beat_ns : look_ns));
        }
    }
}

/* ---- what it holds ----------------------------------------------------------------------------- */

void qyi_memory_server_print(const struct qyi_memory_server *s, FILE *out)
{
    struct qy_memory_stats stats;
    struct qy_node_checks checks;
    char held[32], in[32], sent[32], checked[32];
    qy_memory_stats(s->memory, &stats);
    qy_node_checks(s->node, &checks);
    const uint32_t blocks = stats.blocks_total - stats.blocks_free;
    fprintf(out,
            "quarry memory: ended with %u blocks (%s) of %u sessions, %llu handed over to other "
            "servers; %llu peers came, %s of blocks in, %s of answers out; checksums of %s took "
            "%.1f ms, %llu messages came damaged\n",
            blocks, qy_format_size(blocks * stats.block_bytes, held, sizeof held), stats.sessions,
            (unsigned long long)stats.moved, (unsigned long long)s->joined,
            qy_format_size(stats.in_bytes, in, sizeof in),
            qy_format_size(stats.out_bytes, sent, sizeof sent),
            qy_format_size(checks.bytes, checked, sizeof checked), (double)checks.ns * 1e-6,
            (unsigned long long)checks.damaged);
}

void qyi_memory_server_json(const struct qyi_memory_server *s, cJSON *object)
{
    struct qy_memory_stats stats;
    struct qy_node_checks checks;
    char incarnation[24];
    qy_memory_stats(s->memory, &stats);
    snprintf(incarnation, sizeof incarnation, "%016llx",
             (unsigned long long)qy_node_incarnation(s->node));
    cJSON_AddStringToObject(object, "address", qy_node_address(s->node));
    cJSON_AddStringToObject(object, "incarnation", incarnation);
    cJSON_AddNumberToObject(object, "seconds", (double)(qy_clock_ns() - s->opened_ns) * 1e-9);
    cJSON *blocks = cJSON_AddObjectToObject(object, "blocks");
    cJSON_AddNumberToObject(blocks, "total", stats.blocks_total);
    cJSON_AddNumberToObject(blocks, "held", stats.blocks_total - stats.blocks_free);
    cJSON_AddNumberToObject(blocks, "bytes_each", (double)stats.block_bytes);
    cJSON_AddNumberToObject(blocks, "handed_over", (double)stats.moved);
    cJSON *sessions = cJSON_AddObjectToObject(object, "sessions");
    cJSON_AddNumberToObject(sessions, "open", stats.sessions);
    cJSON_AddNumberToObject(sessions, "away", stats.sessions_away);
    cJSON_AddNumberToObject(sessions, "forgotten", (double)stats.sessions_forgotten);
    cJSON *peers = cJSON_AddObjectToObject(object, "peers");
    cJSON_AddNumberToObject(peers, "joined", (double)s->joined);
    cJSON_AddNumberToObject(peers, "left", (double)s->left);
    cJSON *calls = cJSON_AddObjectToObject(object, "calls");
    cJSON_AddNumberToObject(calls, "answered", (double)stats.calls);
    cJSON_AddNumberToObject(calls, "turned_down", (double)stats.turned_down);
    cJSON_AddNumberToObject(calls, "refused", (double)stats.refused);
    cJSON_AddNumberToObject(calls, "puts", (double)stats.puts);
    cJSON_AddNumberToObject(calls, "puts_corrupt", (double)stats.puts_corrupt);
    cJSON_AddNumberToObject(calls, "rows", (double)stats.rows);
    cJSON_AddNumberToObject(calls, "rows_attended", (double)stats.rows_attended);
    cJSON_AddNumberToObject(calls, "tokens_scored", (double)stats.tokens_scored);
    cJSON_AddNumberToObject(object, "in_bytes", (double)stats.in_bytes);
    cJSON_AddNumberToObject(object, "out_bytes", (double)stats.out_bytes);
    qy_node_checks(s->node, &checks);
    cJSON *sums = cJSON_AddObjectToObject(object, "checks");
    cJSON_AddNumberToObject(sums, "bytes", (double)checks.bytes);
    cJSON_AddNumberToObject(sums, "ms", (double)checks.ns * 1e-6);
    cJSON_AddNumberToObject(sums, "damaged", (double)checks.damaged);
}
