/* SPDX-License-Identifier: Apache-2.0 */
/* The child's side of a supervision: takes its brief, says that it lives. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/job/supervisor_internal.h"

/* chosen: longer than the ranks of a job wait for each other, which comes before a brief. */
static const uint64_t brief_wait_ns = 600000000000u;

static void wait_for_word(int fd)
{
    const uint64_t until = qy_clock_ns() + brief_wait_ns;
    for (uint64_t now = qy_clock_ns(); now < until; now = qy_clock_ns()) {
        struct pollfd heard = {.fd = fd, .events = POLLIN};
        if (poll(&heard, 1, (int)((until - now) / 1000000u) + 1) >= 0 || errno != EINTR) {
            return;
        }
    }
}

/* Most briefs were sent before this process existed, and are there at once. */
static ssize_t receive_start(int fd, struct qyi_start *start)
{
    int type = 0;
    socklen_t bytes = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        errno = EINVAL;
        return -1;
    }
    wait_for_word(fd);
    return recv(fd, start, sizeof *start, MSG_DONTWAIT);
}

enum qy_status qyi_supervised_open(struct qyi_supervised *supervised, struct qy_error *err)
{
    struct qyi_start start;
    const ssize_t got = receive_start(QYI_CHILD_FD, &start);
    const size_t least = offsetof(struct qyi_start, brief);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return qy_error_set(
            err, QY_ERR_TIMEOUT,
            "the process that started this one did not say within %llu s what to do",
            (unsigned long long)(brief_wait_ns / 1000000000u));
    }
    if (got < (ssize_t)least || start.word.magic != QYI_WORD_MAGIC ||
        start.word.kind != QYI_WORD_START) {
        explicit_bzero(&start, sizeof start);
        return qy_error_set(err, QY_ERR_CONFIG,
                            "this name is for a process that quarry starts by itself; to run a "
                            "memory server by hand: quarry memory");
    }
    memset(supervised, 0, sizeof *supervised);
    supervised->fd = QYI_CHILD_FD;
    supervised->restarts = start.word.number;
    supervised->beat_ns = start.word.beat_ns;
    start.word.text[sizeof start.word.text - 1] = '\0';
    snprintf(supervised->address, sizeof supervised->address, "%s", start.word.text);
    supervised->brief_bytes = (size_t)got - least;
    memcpy(supervised->brief, start.brief, supervised->brief_bytes);
    explicit_bzero(&start, sizeof start);
    return QY_OK;
}

void qyi_supervised_close(struct qyi_supervised *supervised)
{
    close(supervised->fd);
    explicit_bzero(supervised, sizeof *supervised);
    supervised->fd = -1;
}

static int say(struct qyi_supervised *supervised, enum qyi_word_kind kind, uint64_t number,
               const char *text)
{
    struct qyi_word word;
    memset(&word, 0, sizeof word);
    word.magic = QYI_WORD_MAGIC;
    word.kind = kind;
    word.number = number;
    snprintf(word.text, sizeof word.text, "%s", text);
    if (send(supervised->fd, &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT) ==
        (ssize_t)sizeof word) {
        return 0;
    }
    /* A parent that does not read is stopped or busy, not gone. */
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS || errno == EINTR ? 0 : -1;
}

int qyi_supervised_listens(struct qyi_supervised *supervised, const char *address,
                           uint64_t incarnation)
{
    return say(supervised, QYI_WORD_LISTENS, incarnation, address);
}

int qyi_supervised_beat(struct qyi_supervised *supervised, uint64_t now)
{
    if (supervised->beaten_ns != 0 && now - supervised->beaten_ns < supervised->beat_ns) {
        return 0;
    }
    supervised->beaten_ns = now;
    return say(supervised, QYI_WORD_BEAT, 0, "");
}

int qyi_supervised_fails(struct qyi_supervised *supervised, const struct qy_error *err)
{
    return say(supervised, QYI_WORD_FAILS, (uint64_t)(int64_t)err->status, err->text);
}
