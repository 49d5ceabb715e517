/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the ranks needs no launcher: a process without one never touches MPI, a build without MPI says
 * how to get it, and the guard ends a process at its deadline and not before. The ranks of a
 * real job are tests/dist/ranks.py's.
 */
#include "net/guard.h"
#include "net/net.h"
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_OF_GUARD = 41 };

static struct qy_runtime runtime(void)
{
    return (struct qy_runtime){.mem = qy_allocator_system(), .log = qy_log_stderr(QY_LOG_ERROR)};
}

static void no_launcher(void)
{
    static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};

    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        unsetenv(ranks[i]);
    }
}

static void open_without_a_launcher_is_refused(void **state)
{
    const struct qy_runtime rt = runtime();
    struct qy_ranks *ranks = NULL;
    struct qy_error err;

    (void)state;
    no_launcher();
#ifdef QY_TEST_HAVE_MPI
    assert_int_equal(qy_ranks_open(&rt, 1000000000u, &ranks, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "mpirun"));
#else
    assert_int_equal(qy_ranks_open(&rt, 1000000000u, &ranks, &err), QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "QY_NET"));
    setenv("PMI_RANK", "3", 1);
    assert_int_equal(qy_ranks_open(&rt, 1000000000u, &ranks, &err), QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "PMI_RANK"));
#endif
    assert_null(ranks);
}

static void close_accepts_null(void **state)
{
    (void)state;
    assert_int_equal(qy_ranks_close(NULL, 0), 0);
}

/* How a child that ran fn ended, by waitpid; what it wrote to stderr in text. */
static int run_child(void (*fn)(void), char *text, size_t bytes)
{
    int ends[2], status = 0;
    size_t used = 0;
    ssize_t n;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(60); /* a guard that sleeps on must not hang the test */
        fn();
        _exit(0);
    }
    close(ends[1]);
    while (used + 1 < bytes && (n = read(ends[0], text + used, bytes - used - 1)) > 0) {
        used += (size_t)n;
    }
    text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void guarded(uint64_t timeout_ns, int returns)
{
    const struct qy_log log = qy_log_stderr(QY_LOG_ERROR);
    struct qyi_guard guard = {.log = &log,
                              .message = "a call that hangs: it did not return",
                              .timeout_ns = timeout_ns,
                              .code = EXIT_OF_GUARD};

    if (qyi_guard_begin(&guard, NULL) != QY_OK) {
        _exit(2);
    }
    while (!returns) {
        pause();
    }
    qyi_guard_end(&guard);
}

static void call_that_hangs(void)
{
    guarded(2000000, 0);
}

static void call_that_hangs_from_the_start(void)
{
    guarded(0, 0);
}

static void calls_that_return(void)
{
    guarded(UINT64_MAX, 1);
    guarded(3600000000000u, 1);
}

static void guard_ends_the_process_at_its_deadline(void **state)
{
    void (*const hangs[])(void) = {call_that_hangs, call_that_hangs_from_the_start};
    char text[4096];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const int status = run_child(hangs[i], text, sizeof(text));

        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), EXIT_OF_GUARD);
        assert_non_null(strstr(text, "a call that hangs"));
        assert_non_null(strstr(text, "exit code 41"));
    }
}

static void guard_of_a_call_that_returns_does_nothing(void **state)
{
    char text[4096];
    const int status = run_child(calls_that_return, text, sizeof(text));

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_without_a_launcher_is_refused),
        cmocka_unit_test(close_accepts_null),
        cmocka_unit_test(guard_ends_the_process_at_its_deadline),
        cmocka_unit_test(guard_of_a_call_that_returns_does_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
