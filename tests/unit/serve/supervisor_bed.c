/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/serve/supervisor_bed.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

static void no_line(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    (void)level;
    (void)module;
    assert_null(strstr(text, SECRET));
    ++*(int *)ctx;
}

void bed_start(struct bed *bed)
{
    assert_int_equal(qyi_supervisor_open(&bed->params, bed->now, &bed->supervisor, &bed->err),
                     QY_OK);
}

void bed_open(struct bed *bed, const char *brief)
{
    memset(bed, 0, sizeof *bed);
    bed->rt.mem = qy_allocator_system();
    bed->rt.log = (struct qy_log){.ctx = &bed->lines, .write = no_line, .level = QY_LOG_DEBUG};
    bed->now = MS(5);
    bed->params = (struct qyi_supervisor_params){.rt = &bed->rt,
                                                 .name = CHILD_NAME,
                                                 .brief = brief,
                                                 .brief_bytes = brief != NULL ? strlen(brief) : 0,
                                                 .listen_ns = MS(1000),
                                                 .silence_ns = MS(100),
                                                 .end_ns = MS(30000),
                                                 .back_off_ns = MS(50),
                                                 .max_restarts = 3};
    bed_start(bed);
}

enum qy_status look(struct bed *bed)
{
    const enum qy_status st = qyi_supervisor_poll(bed->supervisor, bed->now, &bed->err);
    qyi_supervisor_child(bed->supervisor, &bed->child);
    return st;
}

void reach(struct bed *bed, enum qyi_child_state state)
{
    for (int i = 0; i < 3000; i++) {
        (void)!look(bed);
        if (bed->child.state == state) {
            return;
        }
        qyi_supervisor_wait(bed->supervisor, MS(10));
    }
    fail_msg("state %d, not %d: %s", (int)bed->child.state, (int)state, bed->child.why);
}

void pass(struct bed *bed, uint64_t ns)
{
    const uint64_t step = bed->params.silence_ns / 4;
    while (ns > 0) {
        const uint64_t now = ns < step ? ns : step;
        bed->now += now;
        ns -= now;
        (void)!look(bed);
    }
}

void pass_back_off(struct bed *bed)
{
    reach(bed, QYI_CHILD_WAITING);
    bed->now += 8 * bed->params.back_off_ns;
    (void)!look(bed);
    assert_int_equal(bed->child.state, QYI_CHILD_STARTING);
}

int bed_close(struct bed *bed)
{
    const int pid = bed->child.pid;
    const int killed = qyi_supervisor_close(bed->supervisor);
    if (pid != 0) {
        assert_int_equal(kill(pid, 0), -1);
        assert_int_equal(errno, ESRCH);
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    return killed;
}

unsigned descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    unsigned n = 0;
    while (readdir(folder) != NULL) {
        n++;
    }
    closedir(folder);
    return n;
}
