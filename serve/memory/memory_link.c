/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_link.h. */
#include "serve/memory/memory_link.h"

#include "serve/job/job.h"
#include "serve/memory/key.h"

#include <string.h>
#include <sys/random.h>

/* Are the servers memory ranks of this job? */
static int are_ranks(const struct qyi_app *app)
{
    return app->job != NULL && app->job->n_servers > 0;
}

/* The job's own key, or that of servers which somebody else started. */
static enum qy_status take_key(const struct qyi_app *app, uint8_t *key, struct qy_error *err)
{
    if (are_ranks(app)) {
        memcpy(key, app->job->key, QY_NET_KEY_BYTES);
        return QY_OK;
    }
    if (app->net.key_file[0] == '\0') {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "net.key_file '': the memory servers of net.memory answer only those who "
            "have their key; give the file that they were started with");
    }
    return qyi_key_read(app->net.key_file, key, err);
}

static enum qy_status open_node(const struct qyi_app *app, const uint8_t *key,
                                struct qyi_memory_link *link, struct qy_error *err)
{
    const struct qyi_net_settings *net = &app->net;
    struct qy_node_params params = {.rt = &app->rt,
                                    .device = net->device[0] != '\0' ? net->device : NULL,
                                    .timeout_ns = (uint64_t)net->timeout_ms * 1000000u,
                                    .spin_ns = (uint64_t)net->spin_us * 1000u,
                                    .max_peers = QYI_MEMORY_SERVERS,
                                    .depth = QYI_MEMORY_DEPTH,
                                    .call_bytes = QYI_MEMORY_CALL,
                                    .answer_bytes = QYI_MEMORY_ANSWER,
                                    .n_answers = 1};
    if (getrandom(params.session, sizeof params.session, 0) != (ssize_t)sizeof params.session) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "the system gives no random bytes (getrandom)");
    }
    memcpy(params.key, key, sizeof params.key);
    const enum qy_status st = qy_node_open(&params, &link->node, err);
    explicit_bzero(params.key, sizeof params.key);
    return st;
}

static enum qy_status open_peer(struct qyi_memory_link *link, const char *address, const char *name,
                                struct qy_error *err)
{
    const enum qy_status st =
        qy_peer_open(link->node, address, name, &link->peers[link->servers.n], err);
    link->servers.n += st == QY_OK;
    return st;
}

/* One peer for each memory rank of the job. */
static enum qy_status open_ranks(const struct qyi_app *app, struct qyi_memory_link *link,
                                 struct qy_error *err)
{
    enum qy_status st = QY_OK;
    for (uint32_t i = 0; st == QY_OK && i < app->job->n_servers; i++) {
        const struct qyi_job_server *server = &app->job->servers[i];
        st = open_peer(link, server->address, server->name, err);
    }
    if (st == QY_OK && (uint64_t)app->net.replicas > link->servers.n) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "net.replicas '%lld': this job has %u memory ranks, and no two copies "
                            "of a block lie on one; lower it or start more",
                            (long long)app->net.replicas, link->servers.n);
    }
    return st == QY_OK ? st : qy_error_wrap(err, st, "memory ranks");
}

/* One peer for each address of the list. */
static enum qy_status open_peers(const struct qyi_app *app, struct qyi_memory_link *link,
                                 struct qy_error *err)
{
    const char *at = app->net.memory;
    while (*at != '\0') {
        char address[QY_NET_ADDRESS_BYTES];
        const size_t n = strcspn(at, ",");
        if (n == 0 || n >= sizeof address || link->servers.n == QYI_MEMORY_SERVERS) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "net.memory '%s': 1 to %d of host:port are accepted, with commas "
                                "between, as in 10.0.0.2:7700,10.0.0.3:7700",
                                app->net.memory, QYI_MEMORY_SERVERS);
        }
        memcpy(address, at, n);
        address[n] = '\0';
        const enum qy_status st = open_peer(link, address, address, err);
        if (st != QY_OK) {
            return qy_error_wrap(err, st, "net.memory");
        }
        at += n + (at[n] == ',');
    }
    if ((uint64_t)app->net.replicas > link->servers.n) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "net.replicas '%lld': net.memory names %u servers, and no two copies of a "
            "block lie on one; lower it or name more",
            (long long)app->net.replicas, link->servers.n);
    }
    return QY_OK;
}

int qyi_memory_link_wanted(const struct qyi_app *app)
{
    return are_ranks(app) || app->net.memory[0] != '\0';
}

enum qy_status qyi_memory_link_open(const struct qyi_app *app, struct qyi_memory_link *link,
                                    struct qy_error *err)
{
    uint8_t key[QY_NET_KEY_BYTES];
    memset(link, 0, sizeof *link);
    if (!qyi_memory_link_wanted(app)) {
        return QY_OK;
    }
    enum qy_status st = take_key(app, key, err);
    if (st == QY_OK) {
        st = qyi_memory_link_open_with(app, key, link, err);
    }
    explicit_bzero(key, sizeof key);
    return st;
}

enum qy_status qyi_memory_link_open_with(const struct qyi_app *app, const uint8_t *key,
                                         struct qyi_memory_link *link, struct qy_error *err)
{
    memset(link, 0, sizeof *link);
    enum qy_status st = open_node(app, key, link, err);
    if (st == QY_OK) {
        st = are_ranks(app) ? open_ranks(app, link, err) : open_peers(app, link, err);
    }
    if (st != QY_OK) {
        qyi_memory_link_close(link);
        return st;
    }
    link->servers.node = link->node;
    link->servers.peers = link->peers;
    link->servers.copies = (uint32_t)app->net.replicas;
    link->servers.depth = QYI_MEMORY_DEPTH;
    link->servers.call_bytes = QYI_MEMORY_CALL;
    link->servers.answer_bytes = QYI_MEMORY_ANSWER;
    link->servers.timeout_ns = (uint64_t)app->net.timeout_ms * 1000000u;
    return QY_OK;
}

void qyi_memory_link_close(struct qyi_memory_link *link)
{
    qy_node_close(link->node);
    memset(link, 0, sizeof *link);
}
