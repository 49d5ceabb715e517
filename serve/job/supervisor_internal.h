/* SPDX-License-Identifier: Apache-2.0 */
/* What both sides of a supervision share, and how the child is started. */
#ifndef QY_SERVE_SUPERVISOR_INTERNAL_H
#define QY_SERVE_SUPERVISOR_INTERNAL_H

#include "serve/job/supervisor.h"

enum { QYI_WORD_MAGIC = 0x31505351 }; /* "QSP1" */

enum qyi_word_kind {
    QYI_WORD_START =
        1, /* to the child: number restarts, beat_ns, text the address; the brief follows */
    QYI_WORD_LISTENS, /* number the incarnation, text the address                                   */
    QYI_WORD_BEAT,
    QYI_WORD_FAILS, /* number the status, text the cause                                          */
    QYI_WORD_NO_PROGRAM /* it could not become the program: number the errno                          */
};

/* One message of the sockets, which keep messages apart. Both ends are the same program. */
struct qyi_word {
    uint32_t magic, kind;
    uint64_t number, beat_ns;
    char text[sizeof(((struct qy_error *)0)->text)];
};

/* The first message of a start. */
struct qyi_start {
    struct qyi_word word;
    uint8_t brief[QYI_CHILD_BRIEF_BYTES];
};

/* Starts program as name with its end of a pair of sockets, in which start lies already
 * [start_bytes] (0: it comes later). What fails in the new process comes as QYI_WORD_NO_PROGRAM. */
QY_MUST enum qy_status qyi_supervisor_spawn(const char *program, const char *name,
                                            const struct qyi_start *start, size_t start_bytes,
                                            int *pid, int *fd, struct qy_error *err);

#endif
