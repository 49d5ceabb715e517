/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ucx_perftest beside our own figures: both of its ends run on this host, over the transports that our
 * processes use and the loopback device, with UCX's own choices else. It is killed when it takes long.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "serve/bench/bench_net.h"

enum {
    OUTPUT_BYTES = 4096,
    COLUMNS = 8,
    SPEED_BYTES = 32 << 20,
    LEAST_MESSAGES = 20,
    MOST_MESSAGES = 1000
};

static const uint64_t limit_ns = UINT64_C(20000000000); /* of one run */
static const uint64_t start_ns = UINT64_C(5000000000);  /* in which it listens */

/* ---- processes ---------------------------------------------------------------------------------- */

static char program[] = "ucx_perftest";

/* The environment with the transports of ours; freed by free. A user's own choice stays. */
static char **make_environment(char *tls, size_t tls_bytes)
{
    static char device[] = "UCX_NET_DEVICES=lo", quiet[] = "UCX_WARN_UNUSED_ENV_VARS=n";
    struct qy_net_setting setting;
    size_t n = 0, used = 0;
    int has_device = 0;
    while (environ[n] != NULL) {
        n++;
    }
    char **env = calloc(n + 4, sizeof *env);
    if (env == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        has_device |= strncmp(environ[i], "UCX_NET_DEVICES=", 16) == 0;
        env[used++] = environ[i];
    }
    for (size_t i = 0; qy_net_setting_at(i, &setting); i++) {
        if (strcmp(setting.variable, "UCX_TLS") == 0 && !setting.by_user) {
            snprintf(tls, tls_bytes, "UCX_TLS=%s", setting.value);
            env[used++] = tls;
        }
    }
    if (!has_device) {
        env[used++] = device;
    }
    env[used] = quiet;
    return env;
}

/* out: where stdout and stderr go; -1: nowhere. 0, or what errno says. */
static int start(char *const *argv, int out, pid_t *pid)
{
    char tls[128];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    char **env = make_environment(tls, sizeof tls);
    if (env == NULL) {
        return ENOMEM;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    for (int fd = STDOUT_FILENO; rc == 0 && fd <= STDERR_FILENO; fd++) {
        rc = out < 0 ? posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0)
                     : posix_spawn_file_actions_adddup2(&actions, out, fd);
    }
    rc = rc != 0 ? rc : posix_spawnp(pid, program, &actions, &attributes, argv, env);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(env);
    return rc;
}

static void pause_ms(long ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Waits until it ends, or kills it; 0: it ended by itself, and well. */
static int await_end(pid_t pid, uint64_t until_ns)
{
    int status = 0;
    for (;;) {
        const pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid) {
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
        }
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        if (qyi_interrupted() || qy_clock_ns() >= until_ns) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        pause_ms(1);
    }
}

const char *qyi_perftest_missing(void)
{
    static char help[] = "-h";
    char *const argv[] = {program, help, NULL};
    pid_t pid = 0;
    const int rc = start(argv, -1, &pid);
    if (rc == 0) {
        (void)await_end(pid, qy_clock_ns() + start_ns);
    }
    return rc == 0        ? NULL
           : rc == ENOENT ? "is not installed (Debian's package ucx-utils)"
                          : "cannot be run";
}

/* ---- one run ------------------------------------------------------------------------------------ */

/* A port of this host that is free now; 0: none. */
static unsigned free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned port = 0;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
        getsockname(fd, (struct sockaddr *)&at, &bytes) == 0) {
        port = ntohs(at.sin_port);
    }
    if (fd >= 0) {
        close(fd);
    }
    return port;
}

/* Reads what it says until it ends or time is up. */
static void read_output(int fd, uint64_t until_ns, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint64_t now;
         (now = qy_clock_ns()) < until_ns && used < bytes - 1 && !qyi_interrupted();) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        const uint64_t left_ms = (until_ns - now) / 1000000 + 1;
        if (poll(&ready, 1, left_ms < 100 ? (int)left_ms : 100) <= 0) {
            continue;
        }
        const ssize_t got = read(fd, text + used, bytes - 1 - used);
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
        text[used] = '\0';
    }
}

/* Its line of numbers: iterations, latencies (half of them, mean, mean of all), bandwidths, rates. */
static int parse(const char *text, double *columns)
{
    for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
        at += *at == '\n';
        double v[COLUMNS];
        if (sscanf(at, " %lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                   &v[6], &v[7]) == COLUMNS) {
            memcpy(columns, v, sizeof v);
            return 0;
        }
    }
    return -1;
}

/* The end that asks, once; 0: columns are written. */
static int ask(char *const *argv, double *columns, char *text, size_t bytes)
{
    const uint64_t until = qy_clock_ns() + limit_ns;
    pid_t pid = 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -1;
    }
    const int rc = start(argv, ends[1], &pid);
    close(ends[1]);
    int failed = rc != 0;
    if (rc == 0) {
        read_output(ends[0], until, text, bytes);
        failed = await_end(pid, until) != 0 || parse(text, columns) != 0;
    }
    close(ends[0]);
    return failed;
}

static void keep_last_line(char *text)
{
    size_t n = strlen(text);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' ')) {
        text[--n] = '\0';
    }
    const char *last = strrchr(text, '\n');
    if (last != NULL) {
        memmove(text, last + 1, strlen(last + 1) + 1);
    }
}

enum qy_status qyi_perftest_run(const struct qyi_app *app, struct qyi_perftest *t,
                                struct qy_error *err)
{
    static char host[] = "127.0.0.1", at[] = "-p", what[] = "-t", size[] = "-s", count[] = "-n";
    static char warm[] = "-w", last[] = "-f", csv[] = "-v";
    char port[16], test[32], bytes[32], n[16], n_warm[16], text[OUTPUT_BYTES] = "";
    const size_t fit = SPEED_BYTES / t->bytes;
    const size_t messages = fit < LEAST_MESSAGES  ? LEAST_MESSAGES
                            : fit > MOST_MESSAGES ? MOST_MESSAGES
                                                  : fit;
    snprintf(port, sizeof port, "%u", free_port());
    snprintf(test, sizeof test, "%s", t->test);
    snprintf(bytes, sizeof bytes, "%zu", t->bytes);
    snprintf(n, sizeof n, "%zu", messages);
    snprintf(n_warm, sizeof n_warm, "%zu", messages / 10);
    char *const answers[] = {program, at, port, NULL};
    char *const asks[] = {program, host, at,   port,   what, test, size, bytes,
                          count,   n,    warm, n_warm, last, csv,  NULL};
    const uint64_t until = qy_clock_ns() + start_ns;
    double columns[COLUMNS];
    pid_t server = 0;
    qyi_net_stand_on(app, 1);
    int failed = start(answers, -1, &server);
    qyi_net_stand_on(app, 0);
    if (failed == 0) {
        do { /* until it listens */
            pause_ms(50);
            failed = ask(asks, columns, text, sizeof text);
        } while (failed && qy_clock_ns() < until && !qyi_interrupted());
        (void)await_end(server, failed ? 0 : qy_clock_ns() + start_ns);
    }
    if (failed) {
        keep_last_line(text);
        return qy_error_set(err, QY_ERR_UNSUPPORTED, "%.160s",
                            text[0] != '\0' ? text : "it took too long, or said nothing");
    }
    const int is_latency = strstr(t->test, "_lat") != NULL;
    t->results[t->n++] = is_latency ? columns[1] : columns[5] * (1 << 20) * 1e-9;
    return QY_OK;
}

double qyi_perftest_median(const struct qyi_perftest *t)
{
    double sorted[QYI_PERFTEST_RUNS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) { /* in order, one after the other */
        uint32_t k = n++;
        for (; k > 0 && sorted[k - 1] > t->results[i]; k--) {
            sorted[k] = sorted[k - 1];
        }
        sorted[k] = t->results[i];
    }
    return n == 0 ? 0 : n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}
