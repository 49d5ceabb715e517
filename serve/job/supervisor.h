/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that watches another one, its child: starts it, hears from it, kills it when it hangs, starts
 * it again, ends it. The child is a program (this one, under another name), so that it has none of the
 * parent's memory, threads or descriptors; when the parent dies the child dies too.
 *
 * Both talk over a pair of sockets: what the child needs (its *brief*, and where it listened before)
 * goes there as bytes, never over a command line, the environment or a file; it says back where it
 * listens, that it still runs, or why it cannot. What the child does is not known here.
 */
#ifndef QY_SERVE_SUPERVISOR_H
#define QY_SERVE_SUPERVISOR_H

#include "runtime/runtime.h"

enum {
    QYI_CHILD_ADDRESS_BYTES = 128, /* "host:port", with its 0                    */
    QYI_CHILD_BRIEF_BYTES = 16384, /* of a brief, at most                        */
    QYI_CHILD_FD = 3,              /* the child's end of the sockets             */
    QYI_MAX_RESTARTS = 16          /* in a minute                                */
};

/* ---- the parent's side ------------------------------------------------------------------------ */

struct qyi_supervisor;

struct qyi_supervisor_params {
    const struct qy_runtime *rt; /* kept; its memory and log alone are used                   */
    const char *program;         /* kept; NULL: this program's own file                       */
    const char *name;            /* kept; argv[0] of the child: how it knows what it is       */
    const void *brief;           /* [brief_bytes], copied; cleared at close. NULL: it comes later,
                                    by qyi_supervisor_brief                                     */
    size_t brief_bytes;
    uint64_t listen_ns;    /* in this time it says that it listens                          */
    uint64_t silence_ns;   /* heard nothing for so long after that: it hangs                */
    uint64_t end_ns;       /* between SIGTERM and SIGKILL                                   */
    uint64_t back_off_ns;  /* before the first restart of a minute; doubles, up to 5 s      */
    uint32_t max_restarts; /* in a minute, up to QYI_MAX_RESTARTS; after that it gives up   */
};

enum qyi_child_state {
    QYI_CHILD_STARTING, /* runs, has not said that it listens                 */
    QYI_CHILD_LISTENING,
    QYI_CHILD_ENDING,  /* was killed, is not gone yet                          */
    QYI_CHILD_WAITING, /* is gone, and is started again when its time comes    */
    QYI_CHILD_GIVEN_UP /* is gone, and stays so                                */
};

/* Texts are the supervisor's own, until its next poll. */
struct qyi_child {
    enum qyi_child_state state;
    int pid;             /* 0: none runs                                    */
    const char *address; /* where it listens, or did last; "": never yet    */
    uint64_t incarnation;
    uint32_t restarts;
    const char *why; /* it ended the last time; "": it did not              */
};

/* Starts the child. The thread that does so must live as long as the process, for its end is what the
 * child dies of; first called before any other thread exists and before MPI_Init. now: qy_clock_ns.
 * QY_ERR_INVALID: sizes; QY_ERR_NOMEM; QY_ERR_UNSUPPORTED: the system gave no process or no sockets.
 * [setup] [alloc] */
QY_MUST enum qy_status qyi_supervisor_open(const struct qyi_supervisor_params *params, uint64_t now,
                                           struct qyi_supervisor **supervisor,
                                           struct qy_error *err);
/* Tells the child that runs, and each start after it, what it waits for; from now on it must listen in time.
 * Once, when params.brief was NULL; brief as there. QY_ERR_INVALID: sizes, or it has one. [owner] */
QY_MUST enum qy_status qyi_supervisor_brief(struct qyi_supervisor *supervisor, const void *brief,
                                            size_t brief_bytes, uint64_t now, struct qy_error *err);
/* Ends the child: SIGTERM, and after end_ns SIGKILL. 1: it had to be killed. */
int qyi_supervisor_close(struct qyi_supervisor *supervisor);
/* Hears, judges, kills and restarts; never waits. Of a time in which it was not called a quarter of
 * silence_ns counts at most, so call it more often than that. QY_OK: it listens. QY_PENDING: it does not now.
 * Else it was given up, for good, with the status and text of the cause. [owner] */
QY_MUST enum qy_status qyi_supervisor_poll(struct qyi_supervisor *supervisor, uint64_t now,
                                           struct qy_error *err);
/* Sleeps until the child says something or ends, at most timeout_ns. [owner] */
void qyi_supervisor_wait(struct qyi_supervisor *supervisor, uint64_t timeout_ns);
void qyi_supervisor_child(const struct qyi_supervisor *supervisor, struct qyi_child *child);

/* ---- the child's side -------------------------------------------------------------------------- */

/* A plain value. */
struct qyi_supervised {
    int fd;
    uint64_t restarts;                     /* 0: the first start                            */
    uint64_t beat_ns;                      /* how often it must be heard                    */
    uint64_t beaten_ns;                    /* when it last was                              */
    char address[QYI_CHILD_ADDRESS_BYTES]; /* where an earlier start listened: it should there
                                              again; "": none did                           */
    uint8_t brief[QYI_CHILD_BRIEF_BYTES];
    size_t brief_bytes;
};

/* Takes the brief; where it is to come later, waits for it. QY_ERR_CONFIG: nobody supervises this process.
 * QY_ERR_TIMEOUT: the brief did not come within ten minutes. [setup] */
QY_MUST enum qy_status qyi_supervised_open(struct qyi_supervised *supervised, struct qy_error *err);
/* Clears the brief. */
void qyi_supervised_close(struct qyi_supervised *supervised);
/* Each returns 0, or -1: the parent is gone, and so should the child be. None waits. [owner] */
int qyi_supervised_listens(struct qyi_supervised *supervised, const char *address,
                           uint64_t incarnation);
/* Often, for it speaks only every beat_ns. */
int qyi_supervised_beat(struct qyi_supervised *supervised, uint64_t now);
/* Why it ends. Before any start ever listened that is for good: the parent does not try again. */
int qyi_supervised_fails(struct qyi_supervised *supervised, const struct qy_error *err);

#endif
