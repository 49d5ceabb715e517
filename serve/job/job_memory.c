/* SPDX-License-Identifier: Apache-2.0 */
/* A memory rank: a supervisor whose child is a memory server of the job. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>

#include "serve/job/job.h"
#include "serve/memory/memory_server.h"

static const uint64_t ms_ns = 1000000u;

/* chosen: a server that computes for others on a busy host must not be taken for one that hangs, for with it
 * goes what it holds; workers do not wait for it so long. */
enum { SILENT_TIMEOUTS = 10, LEAST_SILENCE_MS = 5000, LISTEN_MS = 60000, RESTARTS = 8 };
/* chosen: below what launchers leave between SIGTERM and SIGKILL. */
enum { END_MS = 5000, AFTER_SIGNAL_MS = 10000 };
enum { LOOK_MS = 10 };

/* ---- where it listens -------------------------------------------------------------------------- */

/* The address that this host has beside loopback, if it is the only one: host [bytes]. How many there are;
 * devices gets their names. */
static int only_address(char *host, size_t bytes, char *devices, size_t devices_bytes)
{
    struct ifaddrs *list = NULL;
    int n = 0;
    size_t used = 0;
    devices[0] = '\0';
    if (getifaddrs(&list) != 0) {
        return 0;
    }
    for (const struct ifaddrs *i = list; i != NULL; i = i->ifa_next) {
        const unsigned up = IFF_UP | IFF_RUNNING;
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & up) != up ||
            (i->ifa_flags & IFF_LOOPBACK) != 0) {
            continue;
        }
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr, host,
                  (socklen_t)bytes);
        if (used < devices_bytes) {
            used += (size_t)snprintf(devices + used, devices_bytes - used, "%s%s",
                                     n == 0 ? "" : ", ", i->ifa_name);
        }
        n++;
    }
    freeifaddrs(list);
    return n;
}

enum qy_status qyi_job_listen_at(const struct qyi_net_settings *net, int one_host, char *at,
                                 size_t at_bytes, struct qy_error *err)
{
    const char *listen = net->listen[0] != '\0' ? net->listen : ":0";
    const char *port = strrchr(listen, ':');
    const size_t n = port == NULL ? 1 : (size_t)(port - listen);
    const int names_host = n > 1 && strncmp(listen, "0.0.0.0:", 8) != 0;
    char host[INET_ADDRSTRLEN] = "127.0.0.1", devices[160];
    /* With a device named the address is the device's. */
    if (port == NULL || names_host || net->device[0] != '\0') {
        snprintf(at, at_bytes, "%s", listen);
        return QY_OK;
    }
    if (!one_host) {
        const int found = only_address(host, sizeof host, devices, sizeof devices);
        if (found != 1) {
            return qy_error_set(
                err, QY_ERR_CONFIG,
                "net.device '': the ranks of this job are on several hosts, and this one has %d "
                "network devices with an address beside loopback (%s); say over which one ranks "
                "reach each other, as in --set net.device=eth0",
                found, devices);
        }
    }
    snprintf(at, at_bytes, "%s%s", host, port);
    return QY_OK;
}

/* ---- its life ---------------------------------------------------------------------------------- */

enum qy_status qyi_job_memory_start(struct qyi_job *job, struct qy_error *err)
{
    const uint64_t silence_ms = SILENT_TIMEOUTS * (uint64_t)job->app->net.timeout_ms;
    const struct qyi_supervisor_params params = {
        .rt = &job->rt,
        .name = QYI_MEMORY_CHILD_NAME,
        .listen_ns = LISTEN_MS * ms_ns,
        .silence_ns = (silence_ms > LEAST_SILENCE_MS ? silence_ms : LEAST_SILENCE_MS) * ms_ns,
        .end_ns = END_MS * ms_ns,
        .back_off_ns = 50 * ms_ns,
        .max_restarts = RESTARTS};
    return qyi_supervisor_open(&params, qy_clock_ns(), &job->supervisor, err);
}

static enum qy_status tell(struct qyi_job *job, struct qy_error *err)
{
    struct qyi_memory_brief brief;
    memset(&brief, 0, sizeof brief); /* all of it goes over the socket */
    brief.bytes = sizeof brief;
    memcpy(brief.key, job->key, sizeof brief.key);
    brief.runtime = job->app->runtime;
    brief.net = job->app->net;
    if (qyi_job_is_default(job->app->config, "runtime.bind")) {
        /* chosen: ranks share hosts, and each server that is bound takes the first cores, as the worker does */
        brief.runtime.bind = QY_BIND_NONE;
    }
    enum qy_status st = qyi_job_listen_at(&job->app->net, job->one_host, brief.net.listen,
                                          sizeof brief.net.listen, err);
    if (st == QY_OK) {
        st = qyi_supervisor_brief(job->supervisor, &brief, sizeof brief, qy_clock_ns(), err);
    }
    explicit_bzero(&brief, sizeof brief);
    return st;
}

enum qy_status qyi_job_memory_listen(struct qyi_job *job, char *address, struct qy_error *err)
{
    const uint64_t until = qy_clock_ns() + (LISTEN_MS + END_MS) * ms_ns;
    enum qy_status st = tell(job, err);
    if (st != QY_OK) {
        return st;
    }
    while ((st = qyi_supervisor_poll(job->supervisor, qy_clock_ns(), err)) == QY_PENDING) {
        if (qyi_interrupted()) {
            return qy_error_set(err, QY_ERR_PEER, "interrupted before the memory server listened");
        }
        if (qy_clock_ns() >= until) {
            return qy_error_set(err, QY_ERR_TIMEOUT,
                                "the memory server did not listen within %d s; its own messages "
                                "say more",
                                (LISTEN_MS + END_MS) / 1000);
        }
        qyi_supervisor_wait(job->supervisor, 100 * ms_ns);
    }
    if (st == QY_OK) {
        struct qyi_child child;
        qyi_supervisor_child(job->supervisor, &child);
        snprintf(address, QYI_CHILD_ADDRESS_BYTES, "%s", child.address);
    }
    return st;
}

/* One look at the child. What it was given up for is said once: the worker goes on with those that are
 * left, and knows better what is lost. */
static void look(struct qyi_job *job, int *given_up)
{
    struct qy_error err = {0};
    if (job->supervisor == NULL) {
        return;
    }
    const enum qy_status st = qyi_supervisor_poll(job->supervisor, qy_clock_ns(), &err);
    if (st < 0 && !*given_up) {
        *given_up = 1;
        qy_log_write(&job->rt.log, QY_LOG_ERROR, "memory", "%s", err.text);
    }
}

static void doze(const struct qyi_job *job)
{
    const struct timespec pause = {.tv_nsec = (long)(LOOK_MS * ms_ns)};
    if (job->supervisor != NULL) {
        qyi_supervisor_wait(job->supervisor, LOOK_MS * ms_ns);
    } else {
        nanosleep(&pause, NULL);
    }
}

int qyi_job_memory_watch(struct qyi_job *job)
{
    struct qy_error err = {0};
    int given_up = 0;
    uint64_t told_ns = 0; /* 0: no signal came */
    enum qy_status st = qy_ranks_barrier_begin(job->ranks, &err);
    while (st == QY_OK && (st = qy_ranks_barrier_test(job->ranks, &err)) == QY_PENDING) {
        const uint64_t now = qy_clock_ns();
        st = QY_OK;
        look(job, &given_up);
        if (qyi_interrupted() && told_ns == 0) {
            told_ns = now; /* workers were told as well, and still need their blocks to end well */
        }
        if (told_ns != 0 && now - told_ns >= AFTER_SIGNAL_MS * ms_ns) {
            st = qy_error_set(&err, QY_ERR_TIMEOUT,
                              "told to end, and the workers did not end within %d s",
                              AFTER_SIGNAL_MS / 1000);
        } else {
            doze(job);
        }
    }
    if (st != QY_OK) {
        qy_log_write(&job->rt.log, QY_LOG_ERROR, "job", "%s", err.text);
        return 1;
    }
    return 0;
}
