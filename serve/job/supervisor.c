/* SPDX-License-Identifier: Apache-2.0 */
/* The watching side of a supervision: hears the child, judges it, restarts and ends it. No threads, no
 * signals: whoever owns it polls. */
#include "serve/job/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "serve/job/supervisor_internal.h"

static const uint64_t minute_ns = 60000000000u, longest_wait_ns = 5000000000u;
/* After SIGKILL: a process that the kernel itself holds is not waited for any longer. */
static const uint64_t killed_ns = 5000000000u;

struct qyi_supervisor {
    struct qyi_supervisor_params params;
    enum qyi_child_state state;
    int pid, fd;  /* 0 and -1: none */
    int closed;   /* the child closed its end: nothing more is heard */
    int listened; /* some start did */
    int briefed;  /* start has the brief */
    uint64_t started_ns, heard_ns, due_ns, polled_ns, incarnation;
    uint64_t restarted_ns[QYI_MAX_RESTARTS]; /* a ring of the last restarts */
    uint32_t restarts;
    char address[QYI_CHILD_ADDRESS_BYTES];
    char why[sizeof(((struct qy_error *)0)->text)];
    enum qy_status cause;   /* of `why`, as the child said; QY_OK: it said nothing   */
    struct qy_error failed; /* of a child that was given up */
    size_t start_bytes;
    struct qyi_start start; /* last: most of it is not used */
};

static void log_line(const struct qyi_supervisor *s, enum qy_log_level level, const char *text)
{
    qy_log_write(&s->params.rt->log, level, "supervisor", "%s (process %d): %s", s->params.name,
                 s->pid, text);
}

/* ---- start and end ----------------------------------------------------------------------------- */

static enum qy_status start_child(struct qyi_supervisor *s, uint64_t now, struct qy_error *err)
{
    s->start.word.number = s->restarts;
    memcpy(s->start.word.text, s->address, sizeof s->address);
    const char *program = s->params.program != NULL ? s->params.program : "/proc/self/exe";
    const enum qy_status st = qyi_supervisor_spawn(
        program, s->params.name, &s->start, s->briefed ? s->start_bytes : 0, &s->pid, &s->fd, err);
    if (st == QY_OK) {
        s->state = QYI_CHILD_STARTING;
        s->started_ns = now;
        s->closed = 0;
    }
    return st;
}

static void kill_child(struct qyi_supervisor *s, const char *why)
{
    snprintf(s->why, sizeof s->why, "%s", why);
    s->cause = QY_OK;
    kill(s->pid, SIGKILL);
    s->state = QYI_CHILD_ENDING;
}

/* Whether the child is gone; then `how` says how. */
static int reap(struct qyi_supervisor *s, char *how, size_t how_bytes)
{
    int status = 0;
    const pid_t got = waitpid(s->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) {
        return 0;
    }
    if (got < 0) { /* SIGCHLD is ignored here, or somebody else took it */
        snprintf(how, how_bytes, "ended");
    } else if (WIFSIGNALED(status)) {
        snprintf(how, how_bytes, "ended by signal %d", WTERMSIG(status));
    } else {
        snprintf(how, how_bytes, "ended with exit code %d", WEXITSTATUS(status));
    }
    return 1;
}

static uint32_t restarts_of_last_minute(const struct qyi_supervisor *s, uint64_t now)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < QYI_MAX_RESTARTS && i < s->restarts; i++) {
        n += now - s->restarted_ns[i] < minute_ns;
    }
    return n;
}

static void give_up(struct qyi_supervisor *s, uint32_t restarts)
{
    s->state = QYI_CHILD_GIVEN_UP;
    if (s->cause != QY_OK && !s->listened) {
        qy_error_set(&s->failed, s->cause, "%s: %s", s->params.name, s->why);
    } else {
        qy_error_set(&s->failed, QY_ERR_PEER,
                     "child '%s': started again %u times within a minute, and now: %s; at most %u "
                     "are tried; its own messages say more",
                     s->params.name, restarts, s->why, s->params.max_restarts);
    }
}

/* The child is gone: when is it started again, if at all? */
static void plan_restart(struct qyi_supervisor *s, uint64_t now)
{
    const uint32_t n = restarts_of_last_minute(s, now);
    if (n >= s->params.max_restarts || (s->cause != QY_OK && !s->listened)) {
        give_up(s, n);
        return;
    }
    uint64_t wait_ns = s->params.back_off_ns;
    for (uint32_t i = 0; i < n && wait_ns < longest_wait_ns; i++) {
        wait_ns *= 2;
    }
    wait_ns = wait_ns < longest_wait_ns ? wait_ns : longest_wait_ns;
    s->due_ns = now + wait_ns;
    s->state = QYI_CHILD_WAITING;
    char text[sizeof s->why + 64];
    snprintf(text, sizeof text, "%s; starting it again in %llu ms", s->why,
             (unsigned long long)(wait_ns / 1000000u));
    log_line(s, QY_LOG_WARN, text);
}

static void child_is_gone(struct qyi_supervisor *s, const char *how, uint64_t now)
{
    if (s->state != QYI_CHILD_ENDING && s->cause == QY_OK) {
        snprintf(s->why, sizeof s->why, "%s", how);
    }
    close(s->fd);
    s->fd = -1;
    plan_restart(s, now);
    s->pid = 0;
}

static void restart_child(struct qyi_supervisor *s, uint64_t now)
{
    struct qy_error err = {0};
    s->restarted_ns[s->restarts % QYI_MAX_RESTARTS] = now;
    s->restarts++;
    s->cause = QY_OK;
    if (start_child(s, now, &err) != QY_OK) {
        snprintf(s->why, sizeof s->why, "%s", err.text);
        plan_restart(s, now);
    }
}

/* ---- what it says ------------------------------------------------------------------------------ */

static void take_word(struct qyi_supervisor *s, const struct qyi_word *word, uint64_t now)
{
    char text[QYI_CHILD_ADDRESS_BYTES + 64];
    switch (word->kind) {
    case QYI_WORD_LISTENS:
        snprintf(s->address, sizeof s->address, "%s", word->text);
        s->incarnation = word->number;
        s->listened = 1;
        s->heard_ns = now;
        if (s->state == QYI_CHILD_STARTING) {
            s->state = QYI_CHILD_LISTENING;
        }
        snprintf(text, sizeof text, "listens at %s", s->address);
        log_line(s, QY_LOG_INFO, text);
        break;
    case QYI_WORD_BEAT:
        s->heard_ns = now;
        break;
    case QYI_WORD_FAILS:
        s->cause = (int64_t)word->number < 0 && (int64_t)word->number >= QY_ERR_CORRUPT
                       ? (enum qy_status)(int64_t)word->number
                       : QY_ERR_PEER;
        snprintf(s->why, sizeof s->why, "%s", word->text);
        break;
    case QYI_WORD_NO_PROGRAM:
        s->cause = QY_ERR_NOT_FOUND;
        snprintf(s->why, sizeof s->why, "program '%s': cannot be started: %s",
                 s->params.program != NULL ? s->params.program : "/proc/self/exe",
                 strerror((int)word->number));
        break;
    default:
        break;
    }
}

static void hear(struct qyi_supervisor *s, uint64_t now)
{
    struct qyi_word word;
    while (!s->closed) {
        const ssize_t got = recv(s->fd, &word, sizeof word, MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == ECONNRESET)) {
            continue; /* reset: it ended and left its brief unread; said once, before its last words */
        }
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (got <= 0) {
            s->closed = 1;
        } else if (got == (ssize_t)sizeof word && word.magic == QYI_WORD_MAGIC) {
            word.text[sizeof word.text - 1] = '\0';
            take_word(s, &word, now);
        }
    }
}

/* A time in which nobody polled counts little: when all processes were stopped together, or this one was
 * busy, the child is not to blame. */
static void forgive(struct qyi_supervisor *s, uint64_t now)
{
    const uint64_t away = now - s->polled_ns, counts = s->params.silence_ns / 4;
    if (away > counts) {
        s->heard_ns += away - counts;
        s->started_ns += away - counts;
    }
    s->polled_ns = now;
}

static void judge(struct qyi_supervisor *s, uint64_t now)
{
    char text[96];
    if (s->state == QYI_CHILD_STARTING && s->briefed &&
        now - s->started_ns >= s->params.listen_ns) {
        snprintf(text, sizeof text, "did not listen within %llu ms and was killed",
                 (unsigned long long)(s->params.listen_ns / 1000000u));
        kill_child(s, text);
    } else if (s->state == QYI_CHILD_LISTENING && now - s->heard_ns >= s->params.silence_ns) {
        snprintf(text, sizeof text, "did not answer for %llu ms and was killed",
                 (unsigned long long)((now - s->heard_ns) / 1000000u));
        kill_child(s, text);
    }
}

enum qy_status qyi_supervisor_poll(struct qyi_supervisor *s, uint64_t now, struct qy_error *err)
{
    forgive(s, now);
    if (s->pid != 0) {
        char how[64];
        /* In this order: what it said last is heard before its end is judged, and what it said while we
         * were elsewhere before its silence. */
        const int gone = reap(s, how, sizeof how);
        hear(s, now);
        if (gone) {
            child_is_gone(s, how, now);
        } else {
            judge(s, now);
        }
    }
    if (s->state == QYI_CHILD_WAITING && now >= s->due_ns) {
        restart_child(s, now);
    }
    if (s->state == QYI_CHILD_GIVEN_UP) {
        return qy_error_set(err, s->failed.status, "%s", s->failed.text);
    }
    return s->state == QYI_CHILD_LISTENING ? QY_OK : QY_PENDING;
}

/* ---- for its owner ----------------------------------------------------------------------------- */

static enum qy_status too_much(const struct qyi_supervisor_params *params, size_t brief_bytes,
                               struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_INVALID,
                        "child '%s': a brief of %zu bytes and %u restarts a minute; at most %d "
                        "and %d are accepted",
                        params->name, brief_bytes, params->max_restarts, QYI_CHILD_BRIEF_BYTES,
                        QYI_MAX_RESTARTS);
}

static void keep_brief(struct qyi_supervisor *s, const void *brief, size_t bytes)
{
    if (bytes > 0) {
        memcpy(s->start.brief, brief, bytes);
    }
    s->start_bytes = offsetof(struct qyi_start, brief) + bytes;
    s->briefed = 1;
}

enum qy_status qyi_supervisor_open(const struct qyi_supervisor_params *params, uint64_t now,
                                   struct qyi_supervisor **supervisor, struct qy_error *err)
{
    if (params->brief_bytes > QYI_CHILD_BRIEF_BYTES || params->max_restarts > QYI_MAX_RESTARTS) {
        return too_much(params, params->brief_bytes, err);
    }
    struct qyi_supervisor *s = qy_alloc_zero(&params->rt->mem, sizeof *s);
    if (s == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "child '%s': out of memory for %zu bytes",
                            params->name, sizeof *s);
    }
    s->params = *params;
    s->params.brief = NULL; /* the caller's own, and copied */
    s->fd = -1;
    s->polled_ns = now;
    s->start.word.magic = QYI_WORD_MAGIC;
    s->start.word.kind = QYI_WORD_START;
    s->start.word.beat_ns = params->silence_ns / 10;
    if (params->brief != NULL) {
        keep_brief(s, params->brief, params->brief_bytes);
    }
    const enum qy_status st = start_child(s, now, err);
    if (st != QY_OK) {
        qyi_supervisor_close(s);
        return st;
    }
    *supervisor = s;
    return QY_OK;
}

enum qy_status qyi_supervisor_brief(struct qyi_supervisor *s, const void *brief, size_t brief_bytes,
                                    uint64_t now, struct qy_error *err)
{
    if (brief_bytes > QYI_CHILD_BRIEF_BYTES) {
        return too_much(&s->params, brief_bytes, err);
    }
    if (s->briefed) {
        return qy_error_set(err, QY_ERR_INVALID, "child '%s': has a brief already", s->params.name);
    }
    keep_brief(s, brief, brief_bytes);
    s->started_ns = now;
    s->polled_ns = now;
    if (s->fd >= 0) {
        /* A child that is gone gets it with its next start; one that for another reason does not is one that
         * does not listen. */
        (void)!send(s->fd, &s->start, s->start_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return QY_OK;
}

/* Waits until the child is gone, at most timeout_ns; 0: it is. */
static int await_end(struct qyi_supervisor *s, uint64_t timeout_ns)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const uint64_t begin = qy_clock_ns();
    char how[64];
    while (!reap(s, how, sizeof how)) {
        if (qy_clock_ns() - begin >= timeout_ns) {
            return -1;
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}

int qyi_supervisor_close(struct qyi_supervisor *s)
{
    if (s == NULL) {
        return 0;
    }
    int killed = 0;
    if (s->pid != 0) {
        killed = s->state == QYI_CHILD_ENDING;
        kill(s->pid, SIGTERM);
        if (await_end(s, killed ? 0 : s->params.end_ns) != 0) {
            killed = 1;
            kill(s->pid, SIGKILL);
            if (await_end(s, killed_ns) != 0) {
                log_line(s, QY_LOG_WARN, "was killed and does not end; it is left behind");
            }
        }
        close(s->fd);
    }
    const struct qy_allocator mem = s->params.rt->mem;
    explicit_bzero(s, sizeof *s);
    qy_free(&mem, s);
    return killed;
}

void qyi_supervisor_wait(struct qyi_supervisor *s, uint64_t timeout_ns)
{
    /* The end of a child is heard as the end of its socket; one that closed it while it runs is looked at
     * now and then. */
    struct pollfd heard = {.fd = s->closed ? -1 : s->fd, .events = POLLIN};
    uint64_t ms = (timeout_ns + 999999u) / 1000000u;
    if (s->pid != 0 && s->closed && ms > 10) {
        ms = 10;
    }
    poll(&heard, 1, ms < INT32_MAX ? (int)ms : INT32_MAX);
}

void qyi_supervisor_child(const struct qyi_supervisor *s, struct qyi_child *child)
{
    *child = (struct qyi_child){.state = s->state,
                                .pid = s->pid,
                                .address = s->address,
                                .incarnation = s->incarnation,
                                .restarts = s->restarts,
                                .why = s->why};
}
