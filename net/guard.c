/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that ends the process unless it is told in time that there is no need to. */
#include "net/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void *watch(void *arg)
{
    struct qyi_guard *guard = arg;
    const struct timespec until = {.tv_sec = (time_t)(guard->deadline_ns / 1000000000u),
                                   .tv_nsec = (long)(guard->deadline_ns % 1000000000u)};

    pthread_setname_np(pthread_self(), "quarry-guard");
    pthread_mutex_lock(&guard->lock);
    while (!guard->over) {
        if (pthread_cond_timedwait(&guard->wake, &guard->lock, &until) == ETIMEDOUT &&
            !guard->over) {
            qy_log_write(guard->log, QY_LOG_ERROR, "net",
                         "%s within %" PRIu64 " ms; this process ends with exit code %d",
                         guard->message, guard->timeout_ns / 1000000u, guard->code);
            _exit(guard->code);
        }
    }
    pthread_mutex_unlock(&guard->lock);
    return NULL;
}

/* Signals stay with the program's own threads. */
static int start(struct qyi_guard *guard)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&guard->thread, NULL, watch, guard);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

enum qy_status qyi_guard_begin(struct qyi_guard *guard, struct qy_error *err)
{
    const uint64_t now = qy_clock_ns();
    pthread_condattr_t clock;
    int rc;

    guard->over = 0;
    guard->deadline_ns =
        guard->timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + guard->timeout_ns;
    pthread_mutex_init(&guard->lock, NULL); /* neither can fail with glibc's defaults */
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC); /* that of qy_clock_ns */
    pthread_cond_init(&guard->wake, &clock);
    pthread_condattr_destroy(&clock);
    rc = start(guard);
    if (rc != 0) {
        pthread_cond_destroy(&guard->wake);
        pthread_mutex_destroy(&guard->lock);
        return qy_error_set(err, QY_ERR_NOMEM,
                            "no thread to watch over a deadline: %s; raise the limit of processes "
                            "(ulimit -u)",
                            strerror(rc));
    }
    return QY_OK;
}

void qyi_guard_end(struct qyi_guard *guard)
{
    pthread_mutex_lock(&guard->lock);
    guard->over = 1;
    pthread_cond_signal(&guard->wake);
    pthread_mutex_unlock(&guard->lock);
    pthread_join(guard->thread, NULL);
    pthread_cond_destroy(&guard->wake);
    pthread_mutex_destroy(&guard->lock);
}
