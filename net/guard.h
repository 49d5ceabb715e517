/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deadline for a call into a library that can be neither polled nor left: when it passes, the process ends.
 * Private to net/.
 *
 * chosen: a thread that waits beside the call. A timer's signal would need a handler, and handlers
 * are the program's.
 */
#ifndef QYI_NET_GUARD_H
#define QYI_NET_GUARD_H

#include "net/net.h"

#include <pthread.h>

struct qyi_guard {
    const struct qy_log *log;
    const char *message; /* what is logged before the end */
    uint64_t timeout_ns, deadline_ns;
    int code; /* exit code of the process */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int over; /* the call returned */
};

/* Starts the deadline; the caller filled log, message (both kept until end), timeout_ns and code. The end
 * runs no exit handlers and flushes nothing: other threads are in the middle of something. QY_ERR_NOMEM: no
 * thread could be started. [setup] */
QY_MUST enum qy_status qyi_guard_begin(struct qyi_guard *guard, struct qy_error *err);
/* The call has returned in time. After a begin that succeeded. */
void qyi_guard_end(struct qyi_guard *guard);

#endif
