/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers of several workers on their way to rank 0, which writes them in the order of the list. Rank 0
 * listens; each other worker sends it the bytes of its answers, and at the end what became of it. Nobody has
 * a thread for it: all poll between their steps (qyi_job_answers_poll, from every forward pass), and wait,
 * under deadlines, when they have nothing else to do. Rank 0 gives a worker up whose connection broke, for it
 * died, or that was silent for long; what is missing then is named at once.
 */
#ifndef QYI_SERVE_JOB_ANSWERS_H
#define QYI_SERVE_JOB_ANSWERS_H

#include "serve/job/job.h"

/* Before the second exchange. Rank 0 listens; address [QY_NET_ADDRESS_BYTES] receives where. [setup] [alloc] */
QY_MUST enum qy_status qyi_job_answers_listen(struct qyi_job *job, char *address,
                                              struct qy_error *err);
/* After it: other workers connect to rank 0's address. [setup] [alloc] */
QY_MUST enum qy_status qyi_job_answers_connect(struct qyi_job *job, const char *address,
                                               struct qy_error *err);
/* Until all are connected. QY_ERR_TIMEOUT, QY_ERR_PEER: they are not, in time. [setup] */
QY_MUST enum qy_status qyi_job_answers_meet(struct qyi_job_answers *answers, struct qy_error *err);
void qyi_job_answers_close(struct qyi_job_answers *answers);

/* This process's, with its rank and the number of workers; NULL: it is alone, and nothing is written. */
struct qyi_job_answers *qyi_job_answers_of(const struct qyi_app *app, uint32_t *rank,
                                           uint32_t *n_workers);
/* The list has n prompts; on other ranks than 0 nothing is to do. [alloc] */
QY_MUST enum qy_status qyi_job_answers_expect(struct qyi_job_answers *answers, size_t n, int json,
                                              struct qy_error *err);
/* This worker's answer to a prompt, copied. QY_ERR_NOMEM; QY_ERR_NOT_FOUND: nobody reads stdout. [alloc] */
QY_MUST enum qy_status qyi_job_answers_give(struct qyi_job_answers *answers, size_t prompt,
                                            const char *bytes, size_t n);
/* Why this worker does not answer all of its prompts, for rank 0 to say. */
void qyi_job_answers_why(struct qyi_job_answers *answers, const char *why);
/* Sends and takes what can be; never waits. [owner] */
void qyi_job_answers_poll(struct qyi_job_answers *answers);
/* This worker has nothing more to give; code: its exit code. Rank 0 waits for all others, says what is missing,
 * and returns the worst of all codes; another waits until rank 0 has everything, and returns 0, or its code
 * where rank 0 does not know it. */
int qyi_job_answers_end(struct qyi_job_answers *answers, int code);

#endif
