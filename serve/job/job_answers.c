/* SPDX-License-Identifier: Apache-2.0 */
/* See job_answers.h. Here both ends are opened and closed, and what this process gives goes its way. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "serve/job/job_answers_internal.h"

/* ---- opening and closing ------------------------------------------------------------------------- */

static struct qy_node_params node_params(const struct qyi_job *job)
{
    const struct qyi_net_settings *net = &job->app->net;
    struct qy_node_params params = {.rt = &job->rt,
                                    .device = net->device[0] != '\0' ? net->device : NULL,
                                    .timeout_ns = QYI_ANSWERS_SILENT_S * (uint64_t)1000000000,
                                    .spin_ns = 0,
                                    .max_peers = QYI_MAX_WORKERS,
                                    .depth = QYI_ANSWERS_DEPTH,
                                    .call_bytes = QYI_ANSWERS_PIECE_BYTES,
                                    .answer_bytes = 64,
                                    .n_answers = QYI_MAX_WORKERS};
    memcpy(params.key, job->key, sizeof params.key);
    return params;
}

/* listen: "host:port", or NULL. */
static enum qy_status open_node(struct qyi_job *job, const char *listen, struct qy_error *err)
{
    struct qyi_job_answers *a = calloc(1, sizeof *a);
    if (a == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for answers");
    }
    job->answers = a; /* whatever comes, the job closes it */
    a->job = job;
    a->parcels_end = &a->parcels;
    qyi_answers_service(a);
    struct qy_node_params params = node_params(job);
    params.listen = listen;
    params.service = &a->service;
    enum qy_status st = QY_OK;
    if (getrandom(params.session, sizeof params.session, 0) != (ssize_t)sizeof params.session) {
        st = qy_error_set(err, QY_ERR_UNSUPPORTED, "the system gives no random bytes (getrandom)");
    }
    if (st == QY_OK && listen != NULL) {
        st = qyi_answer_list_open(&a->list, (uint32_t)job->workers, stdout, err);
    }
    if (st == QY_OK) {
        st = qy_node_open(&params, &a->node, err);
    }
    explicit_bzero(params.key, sizeof params.key);
    return st;
}

enum qy_status qyi_job_answers_listen(struct qyi_job *job, char *address, struct qy_error *err)
{
    struct qyi_net_settings net = job->app->net;
    char at[QY_SETTING_TEXT_BYTES];
    char *port = strrchr(net.listen, ':');
    if (port != NULL) { /* that one is for a memory server */
        snprintf(port, sizeof net.listen - (size_t)(port - net.listen), ":0");
    }
    enum qy_status st = qyi_job_listen_at(&net, job->one_host, at, sizeof at, err);
    if (st == QY_OK) {
        st = open_node(job, at, err);
    }
    if (st == QY_OK) {
        snprintf(address, QY_NET_ADDRESS_BYTES, "%s", qy_node_address(job->answers->node));
    }
    return st;
}

enum qy_status qyi_job_answers_connect(struct qyi_job *job, const char *address,
                                       struct qy_error *err)
{
    enum qy_status st = open_node(job, NULL, err);
    if (st == QY_OK) {
        st = qy_peer_open(job->answers->node, address, "rank 0", &job->answers->first, err);
    }
    return st;
}

enum qy_status qyi_job_answers_meet(struct qyi_job_answers *a, struct qy_error *err)
{
    return a->job->rank == 0 ? qyi_collect_meet(a, err) : qyi_send_meet(a, err);
}

void qyi_job_answers_close(struct qyi_job_answers *a)
{
    if (a == NULL) {
        return;
    }
    qy_node_close(a->node);
    qyi_send_close(a);
    qyi_answer_list_close(&a->list);
    free(a);
}

/* ---- this process's own ---------------------------------------------------------------------------- */

struct qyi_job_answers *qyi_job_answers_of(const struct qyi_app *app, uint32_t *rank,
                                           uint32_t *n_workers)
{
    if (app->job == NULL || app->job->answers == NULL) {
        return NULL;
    }
    *rank = (uint32_t)app->job->rank;
    *n_workers = (uint32_t)app->job->workers;
    return app->job->answers;
}

enum qy_status qyi_job_answers_expect(struct qyi_job_answers *a, size_t n, int json,
                                      struct qy_error *err)
{
    return a->job->rank == 0 ? qyi_answer_list_expect(&a->list, n, json, err) : QY_OK;
}

enum qy_status qyi_job_answers_give(struct qyi_job_answers *a, size_t prompt, const char *bytes,
                                    size_t n)
{
    if (a->job->rank == 0) {
        const enum qy_status st = qyi_answer_list_put(&a->list, 0, prompt, bytes, n, 0, n);
        return qyi_answer_list_write(&a->list) ? QY_ERR_NOT_FOUND : st;
    }
    const struct qyi_answers_head head = {.prompt = prompt, .total = n};
    return qyi_send_give(a, QYI_ANSWERS_PIECE, &head, bytes, n);
}

void qyi_job_answers_why(struct qyi_job_answers *a, const char *why)
{
    snprintf(a->why, sizeof a->why, "%s", why);
}

int qyi_answers_told(struct qyi_job_answers *a, uint64_t now, uint64_t ns)
{
    if (qyi_interrupted() && a->told_ns == 0) {
        a->told_ns = now;
    }
    return a->told_ns != 0 && now - a->told_ns >= ns;
}

void qyi_job_answers_poll(struct qyi_job_answers *a)
{
    if (a->job->rank == 0) {
        qyi_collect_poll(a);
    } else {
        qyi_send_poll(a);
    }
}

int qyi_job_answers_end(struct qyi_job_answers *a, int code)
{
    return a->job->rank == 0 ? qyi_collect_end(a, code) : qyi_send_end(a, code);
}
