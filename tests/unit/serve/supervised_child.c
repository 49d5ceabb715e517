/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/serve/supervised_child.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "serve/job/supervisor.h"

static volatile sig_atomic_t told_to_end;

static void on_term(int number)
{
    (void)number;
    told_to_end = 1;
}

static uint64_t count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint64_t n = 0;
    if (folder == NULL) {
        return 0;
    }
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        n += entry->d_name[0] != '.';
    }
    closedir(folder);
    return n - 1; /* the folder's own */
}

static void sleep_ms(long ms)
{
    const struct timespec pause = {.tv_nsec = ms * 1000000};
    nanosleep(&pause, NULL);
}

/* Beats until it is told to end (code 7) or its parent is gone (code 9). */
static int live(struct qyi_supervised *s)
{
    while (!told_to_end) {
        if (qyi_supervised_beat(s, qy_clock_ns()) != 0) {
            return 9;
        }
        sleep_ms(5);
    }
    return 7;
}

int child_main(void)
{
    static struct qyi_supervised s;
    struct qy_error err = {0};
    if (qyi_supervised_open(&s, &err) != QY_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    char mode[16] = "";
    memcpy(mode, s.brief, s.brief_bytes < sizeof mode - 1 ? s.brief_bytes : sizeof mode - 1);
    mode[strcspn(mode, " ")] = '\0';
    if (strcmp(mode, "exits") == 0 || (strcmp(mode, "again") == 0 && s.restarts == 0)) {
        return 3;
    }
    if (strcmp(mode, "fails") == 0) {
        qy_error_set(&err, QY_ERR_CONFIG, "port '1': is in use; give another");
        qyi_supervised_fails(&s, &err);
        return 2;
    }
    if (strcmp(mode, "mute") == 0) {
        return live(&s);
    }
    signal(SIGTERM, strcmp(mode, "stubborn") == 0 ? SIG_IGN : on_term);
    const uint64_t incarnation =
        strcmp(mode, "counts") == 0 ? 1000 + count_descriptors() : s.restarts + 1;
    qyi_supervised_listens(&s, s.address[0] != '\0' ? s.address : "first:1", incarnation);
    while (strcmp(mode, "alone") == 0) {
        sleep_ms(900);
    }
    const int code = live(&s);
    qyi_supervised_close(&s);
    return code;
}
