/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A supervisor whose child is the test program again, under another name (supervised_child.c). The
 * supervisor's clock is the test's: it goes on only when a test says so.
 */
#ifndef QY_TESTS_SERVE_SUPERVISOR_BED_H
#define QY_TESTS_SERVE_SUPERVISOR_BED_H

#include "tests/support/test.h"

#include "serve/job/supervisor.h"
#include "tests/unit/serve/supervised_child.h"

#define MS(n) ((uint64_t)(n)*1000000u)
#define SECRET " 5ec2e7-0123456789" /* in no line of the log */

struct bed {
    struct qy_runtime rt;
    struct qyi_supervisor_params params;
    struct qyi_supervisor *supervisor;
    struct qyi_child child; /* as `look` saw it */
    uint64_t now;
    struct qy_error err;
    int lines; /* of the log */
};

/* brief NULL: it comes later. A silence of 100 ms, a second to listen in, 50 ms of back-off, 3 restarts; half a minute to end. */
void bed_open(struct bed *bed, const char *brief);
/* Once more, by bed->params. */
void bed_start(struct bed *bed);
/* Closes: was it killed? The process is gone, and no zombie is left. */
int bed_close(struct bed *bed);
/* One poll. */
enum qy_status look(struct bed *bed);
/* Polls, with the clock standing still, until the child is in this state. */
void reach(struct bed *bed, enum qyi_child_state state);
/* The clock goes on, in steps that all count. */
void pass(struct bed *bed, uint64_t ns);
/* The child has just ended by itself or was ended by a look. The time of its restart comes. */
void pass_back_off(struct bed *bed);
/* Open in this process. */
unsigned descriptors(void);

#endif
