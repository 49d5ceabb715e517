/* SPDX-License-Identifier: Apache-2.0 */
/* A memory server of bench net's own: a second process of this program, of one thread. */
#include "serve/bench/bench_net.h"

#include <string.h>
#include <sys/random.h>

#include "serve/memory/memory_server.h"

static const uint64_t second_ns = 1000000000u;

void qyi_net_stand_on(const struct qyi_app *app, uint32_t i)
{
    struct qy_place places[2];
    qy_topology_place(app->rt.topology, 2, (enum qy_bind)app->runtime.bind, places);
    if (qy_topology_bind_thread(app->rt.topology, &places[i]) != QY_OK) {
        qy_log_write(&app->rt.log, QY_LOG_INFO, "bench",
                     "the system does not bind threads to cores");
    }
}

static enum qy_status await(struct qyi_net_server *s, struct qy_error *err)
{
    enum qy_status st;
    while ((st = qyi_supervisor_poll(s->supervisor, qy_clock_ns(), err)) == QY_PENDING) {
        if (qyi_interrupted()) {
            return qy_error_set(err, QY_ERR_PEER,
                                "bench net: interrupted before its server listened");
        }
        qyi_supervisor_wait(s->supervisor, second_ns / 20);
    }
    return st;
}

enum qy_status qyi_net_server_open(const struct qyi_app *app, uint64_t bytes,
                                   struct qyi_net_server *s, struct qy_error *err)
{
    struct qyi_memory_brief brief;
    memset(s, 0, sizeof *s);
    memset(&brief, 0, sizeof brief);
    if (getrandom(s->key, sizeof s->key, 0) != (ssize_t)sizeof s->key) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "the system gives no random bytes (getrandom)");
    }
    brief.bytes = sizeof brief;
    brief.runtime = app->runtime;
    /* one thread, beside the one that asks, on another core where there is one */
    brief.runtime.threads = 1;
    brief.runtime.bind = QY_BIND_NONE;
    brief.net = app->net;
    brief.net.bytes = bytes;
    brief.net.drain_ms = 0;
    brief.net.device[0] = '\0';
    brief.net.memory[0] = '\0';
    snprintf(brief.net.listen, sizeof brief.net.listen, "127.0.0.1:0");
    memcpy(brief.key, s->key, sizeof brief.key);
    const struct qyi_supervisor_params params = {.rt = &app->rt,
                                                 .name = QYI_MEMORY_CHILD_NAME,
                                                 .brief = &brief,
                                                 .brief_bytes = sizeof brief,
                                                 .listen_ns = 30 * second_ns,
                                                 .silence_ns = 30 * second_ns,
                                                 .end_ns = 5 * second_ns,
                                                 .back_off_ns = second_ns / 10};
    qyi_net_stand_on(app, 1);
    enum qy_status st = qyi_supervisor_open(&params, qy_clock_ns(), &s->supervisor, err);
    qyi_net_stand_on(app, 0);
    explicit_bzero(&brief, sizeof brief);
    if (st == QY_OK) {
        st = await(s, err);
    }
    if (st != QY_OK) {
        qyi_net_server_close(s);
        return st;
    }
    struct qyi_child child;
    qyi_supervisor_child(s->supervisor, &child);
    snprintf(s->address, sizeof s->address, "%s", child.address);
    return QY_OK;
}

enum qy_status qyi_net_server_check(struct qyi_net_server *s, struct qy_error *err)
{
    if (s->supervisor == NULL) {
        return QY_OK;
    }
    const enum qy_status st = qyi_supervisor_poll(s->supervisor, qy_clock_ns(), err);
    return st == QY_PENDING ? qy_error_set(err, QY_ERR_PEER, "bench net: its own server ended")
                            : st;
}

void qyi_net_server_close(struct qyi_net_server *s)
{
    if (s->supervisor != NULL) {
        qyi_supervisor_close(s->supervisor);
    }
    explicit_bzero(s, sizeof *s);
}
