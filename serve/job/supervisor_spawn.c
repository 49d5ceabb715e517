/* SPDX-License-Identifier: Apache-2.0 */
/* How a supervisor starts its child: sockets, fork, exec, and nothing inherited but three descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serve/job/supervisor_internal.h"

/* Closes all descriptors from first on. */
static void close_from(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0u) == 0) {
        return;
    }
#endif
    struct rlimit limit;
    const unsigned end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1u << 20
                             ? (unsigned)limit.rlim_cur
                             : 1u << 20;
    for (unsigned fd = first; fd < end; fd++) {
        close((int)fd);
    }
}

/* stdin is empty; stdout, which is for results, goes where messages go; then the socket. */
static int arrange_descriptors(int socket)
{
    if (socket == QYI_CHILD_FD) {
        if (fcntl(socket, F_SETFD, 0) != 0) {
            return -1;
        }
    } else if (dup2(socket, QYI_CHILD_FD) < 0) {
        return -1;
    }
    const int empty = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (empty < 0 || dup2(empty, STDIN_FILENO) < 0) {
        return -1;
    }
    if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(empty, STDERR_FILENO) < 0) {
        return -1;
    }
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        return -1;
    }
    /* dup2 onto itself leaves the flag */
    fcntl(STDIN_FILENO, F_SETFD, 0);
    fcntl(STDERR_FILENO, F_SETFD, 0);
    close_from(QYI_CHILD_FD + 1);
    return 0;
}

static void forget_handlers(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; number++) {
        sigaction(number, &action, NULL); /* those that cannot be caught refuse */
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the new process, which may be a copy of one with threads: system calls only. word is scratch. */
_Noreturn static void become_child(const char *program, char *const *argv, pid_t parent, int socket,
                                   struct qyi_word *word)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127); /* it died before the line above */
    }
    /* Of its own, so that Ctrl-C and a launcher's signals reach it through the parent only. */
    setpgid(0, 0);
    const int failed = arrange_descriptors(socket);
    if (failed == 0) {
        forget_handlers();
        execve(program, argv, environ);
    }
    word->number = (uint64_t)errno;
    send(failed == 0 ? QYI_CHILD_FD : socket, word, sizeof *word, MSG_NOSIGNAL | MSG_DONTWAIT);
    _exit(127);
}

/* A pair above the standard descriptors, which a caller may have closed. */
static int open_sockets(int pair[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        if (pair[i] < QYI_CHILD_FD) {
            const int higher = fcntl(pair[i], F_DUPFD_CLOEXEC, QYI_CHILD_FD);
            const int cause = errno;
            close(pair[i]);
            if (higher < 0) {
                close(pair[1 - i]);
                errno = cause;
                return -1;
            }
            pair[i] = higher;
        }
    }
    return 0;
}

enum qy_status qyi_supervisor_spawn(const char *program, const char *name,
                                    const struct qyi_start *start, size_t start_bytes, int *pid,
                                    int *fd, struct qy_error *err)
{
    int pair[2];
    if (open_sockets(pair) != 0) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED, "child '%s': no sockets for it: %s", name,
                            strerror(errno));
    }
    /* All of it before the fork: after that there may be no memory for words. */
    char copy[128];
    snprintf(copy, sizeof copy, "%s", name);
    char *const argv[] = {copy, NULL};
    struct qyi_word word;
    memset(&word, 0, sizeof word);
    word.magic = QYI_WORD_MAGIC;
    word.kind = QYI_WORD_NO_PROGRAM;
    const pid_t parent = getpid();
    pid_t child = -1;
    int cause = 0;
    if (start_bytes > 0 &&
        send(pair[0], start, start_bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)start_bytes) {
        cause = errno;
    } else {
        /* Blocked until the child has no handlers of ours left: a SIGTERM for it must not be lost in one. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        child = fork();
        if (child == 0) {
            become_child(program, argv, parent, pair[1], &word);
        }
        cause = errno;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    close(pair[1]);
    if (child < 0) {
        close(pair[0]);
        return qy_error_set(err, QY_ERR_UNSUPPORTED, "child '%s': cannot be started: %s", name,
                            strerror(cause));
    }
    *pid = child;
    *fd = pair[0];
    return QY_OK;
}
