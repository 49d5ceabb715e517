/* SPDX-License-Identifier: Apache-2.0 */
/* What a supervised child is as a process: what it inherits, what others see of it, what it dies of. */
#include "tests/unit/serve/supervisor_bed.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void child_brief_is_on_no_command_line_and_in_no_environment(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "good" SECRET);
    reach(&bed, QYI_CHILD_LISTENING);
    static const char *const files[] = {"cmdline", "environ"};
    for (int i = 0; i < 2; i++) {
        char path[64];
        static char text[1 << 20];
        snprintf(path, sizeof path, "/proc/%d/%s", bed.child.pid, files[i]);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        const size_t n = fread(text, 1, sizeof text, file);
        fclose(file);
        assert_true(i == 1 || n == sizeof CHILD_NAME);
        assert_true(i == 1 || memcmp(text, CHILD_NAME, n) == 0);
        assert_null(memmem(text, n, SECRET, strlen(SECRET)));
    }
    bed_close(&bed);
}

static void child_inherits_four_descriptors(void **state)
{
    (void)state;
    struct bed bed;
    /* left open on exec, on purpose */
    const int low = open("/dev/null", O_RDONLY), high = fcntl(low, F_DUPFD, 200);
    assert_true(low >= 0 && high >= 200);
    bed_open(&bed, "counts");
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_equal(bed.child.incarnation, 1004);
    bed_close(&bed);
    close(low);
    close(high);
}

/* In a process of its own: supervises a child until it is killed. */
static void supervise_and_tell(int to)
{
    struct bed bed;
    bed_open(&bed, "alone");
    reach(&bed, QYI_CHILD_LISTENING);
    if (write(to, &bed.child.pid, sizeof bed.child.pid) != (ssize_t)sizeof bed.child.pid) {
        _exit(1);
    }
    for (;;) {
        pause();
    }
}

static void child_dies_with_its_parent(void **state)
{
    (void)state;
    int ends[2], pid = 0, status = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    /* Orphans come to this process, so that it can see the end of one. */
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const pid_t parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        supervise_and_tell(ends[1]);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &pid, sizeof pid), sizeof pid);
    close(ends[0]);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    /* It would sleep for ever. */
    int gone = 0;
    for (int i = 0; i < 3000 && gone == 0; i++) {
        gone = waitpid(pid, &status, WNOHANG);
        usleep(10000);
    }
    if (gone == 0) {
        kill(pid, SIGKILL);
        fail_msg("the child %d lives on", pid);
    }
    assert_int_equal(gone, pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void name_without_a_parent_is_refused(void **state)
{
    (void)state;
    static struct qyi_supervised s;
    struct qy_error err = {0};
    const int before = dup(QYI_CHILD_FD);
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(nothing >= 0);
    assert_int_equal(dup2(nothing, QYI_CHILD_FD), QYI_CHILD_FD);
    assert_int_equal(qyi_supervised_open(&s, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "quarry memory"));
    if (nothing != QYI_CHILD_FD) {
        close(QYI_CHILD_FD);
    }
    if (before >= 0) {
        dup2(before, QYI_CHILD_FD);
        close(before);
    }
    close(nothing);
}

int main(int argc, char **argv)
{
    if (argc == 1 && strcmp(argv[0], CHILD_NAME) == 0) {
        return child_main();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_brief_is_on_no_command_line_and_in_no_environment),
        cmocka_unit_test(child_inherits_four_descriptors),
        cmocka_unit_test(child_dies_with_its_parent),
        cmocka_unit_test(name_without_a_parent_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
