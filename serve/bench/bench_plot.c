/* SPDX-License-Identifier: Apache-2.0 */
/* Runs scripts/plot, which draws by gnuplot: from where it was installed, or from the source tree. */
#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "serve/bench/bench_page.h"

enum { PATH_BYTES = 1024, MAX_ARGS = 64 };

extern char **environ;

/* The script, as codebooks are found: beside an installed program, or above a build folder. */
static enum qy_status find_script(char *path, size_t bytes, struct qy_error *err)
{
    static const char *const places[] = {"../share/quarry/plot", "../../scripts/plot"};
    char program[PATH_BYTES];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = '\0';
        *strrchr(program, '/') = '\0';
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            snprintf(path, bytes, "%s/%s", program, places[i]);
            if (access(path, X_OK) == 0) {
                return QY_OK;
            }
        }
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "option '--report': the script 'plot' is not beside the program; install "
                        "quarry whole, or run it from its build folder");
}

/* What the script wrote on stderr, its last line. */
static void read_last_line(int fd, char *text, size_t bytes)
{
    size_t used = 0;
    for (ssize_t n; (n = read(fd, text + used, bytes - 1 - used)) > 0;) {
        used += (size_t)n;
        if (used == bytes - 1) { /* the end is what counts */
            memmove(text, text + bytes / 2, used - bytes / 2);
            used -= bytes / 2;
        }
    }
    text[used] = '\0';
    while (used > 0 && text[used - 1] == '\n') {
        text[--used] = '\0';
    }
    const char *last = strrchr(text, '\n');
    if (last != NULL) {
        memmove(text, last + 1, strlen(last + 1) + 1);
    }
}

/* Starts it with stderr into a pipe; *fd: the other end. */
static int start(char *const *argv, pid_t *pid, int *fd)
{
    posix_spawn_file_actions_t actions;
    int ends[2];
    if (pipe(ends) != 0) {
        return errno;
    }
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc == 0) {
        rc = posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
        rc = rc != 0 ? rc : posix_spawn_file_actions_addclose(&actions, ends[0]);
        rc = rc != 0 ? rc : posix_spawn_file_actions_addclose(&actions, ends[1]);
        rc = rc != 0 ? rc : posix_spawn(pid, argv[0], &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (rc != 0) {
        close(ends[0]);
        return rc;
    }
    *fd = ends[0];
    return 0;
}

enum qy_status qyi_plot(const char *const *args, struct qy_error *err)
{
    char script[PATH_BYTES + 64], text[512];
    char *argv[MAX_ARGS] = {script};
    pid_t pid = 0;
    int fd = -1, status = 0;
    enum qy_status st = find_script(script, sizeof script, err);
    if (st != QY_OK) {
        return st;
    }
    for (int i = 0; i < MAX_ARGS - 2 && args[i] != NULL; i++) {
        argv[i + 1] = (char *)(uintptr_t)args[i]; /* posix_spawn does not write to them */
    }
    const int rc = start(argv, &pid, &fd);
    if (rc != 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--report': '%s' cannot be run (%s); it needs python3", script,
                            strerror(rc));
    }
    read_last_line(fd, text, sizeof text);
    close(fd);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_CONFIG, "option '--report': %.200s%s", text,
                        WIFEXITED(status) && WEXITSTATUS(status) == 127
                            ? "; pictures need python3 and gnuplot"
                            : "");
}
