/* SPDX-License-Identifier: Apache-2.0 */
/* What both ends of the way to rank 0 share: job_answers.c opens and dispatches, job_collect.c is rank 0's,
 * job_send.c everybody else's. */
#ifndef QYI_SERVE_JOB_ANSWERS_INTERNAL_H
#define QYI_SERVE_JOB_ANSWERS_INTERNAL_H

#include "serve/job/job_answers.h"
#include "serve/list/answer_list.h"

enum qyi_answers_op {
    QYI_ANSWERS_HELLO = 1, /* here I am                                             */
    QYI_ANSWERS_PIECE,     /* of an answer: the payload                             */
    QYI_ANSWERS_END,       /* nothing more comes; the payload says why not, if so   */
    QYI_ANSWERS_BEAT       /* still at it                                           */
};

/* The head of every question. All ranks run the same file, which was compared. */
struct qyi_answers_head {
    uint32_t rank;
    int32_t code; /* END: the worker's exit code */
    uint64_t prompt, at, total;
};
_Static_assert(sizeof(struct qyi_answers_head) == 32, "goes over the network as it is");

/* Codes of answers. */
enum { QYI_ANSWERS_TAKEN = 0, QYI_ANSWERS_NOT_WANTED };

/* chosen: of an answer in one question. SILENT_S: both ends are heard between their steps, and a step may be a
 * long chunk of a prompt; whoever is not heard for longer is given up. */
enum { QYI_ANSWERS_PIECE_BYTES = 64 << 10, QYI_ANSWERS_DEPTH = 2, QYI_ANSWERS_SILENT_S = 600 };

/* One that sends, as rank 0 knows it. */
struct qyi_sender {
    struct qy_peer *peer; /* NULL: not connected */
    int came;
    uint8_t session[QY_NET_SESSION_BYTES];
    uint64_t heard_ns;
    char left_why[160];
};

/* What waits to be sent. */
struct qyi_parcel {
    struct qyi_parcel *next;
    uint16_t op;
    struct qyi_answers_head head;
    size_t n; /* of bytes */
    char bytes[];
};

struct qyi_job_answers {
    struct qyi_job *job;
    struct qy_node *node;
    char why[320];    /* this worker does not answer all */
    uint64_t told_ns; /* an interrupt was seen; 0: none */
    /* rank 0 */
    struct qy_service service;
    struct qyi_answer_list list;
    struct qyi_sender senders[QYI_MAX_WORKERS];
    /* others */
    struct qy_peer *first; /* rank 0 */
    struct qyi_parcel *parcels, **parcels_end;
    struct qyi_parcel *beat;    /* kept */
    struct qyi_parcel *sending; /* of `request`; NULL: none is under way */
    struct qy_request request;
    uint64_t heard_ns; /* rank 0's last answer */
};

/* Whether an interrupt is longer ago than ns; looked for here. */
int qyi_answers_told(struct qyi_job_answers *answers, uint64_t now, uint64_t ns);

/* ---- job_collect.c ---- */
void qyi_answers_service(struct qyi_job_answers *answers); /* fills service */
QY_MUST enum qy_status qyi_collect_meet(struct qyi_job_answers *answers, struct qy_error *err);
void qyi_collect_poll(struct qyi_job_answers *answers);
int qyi_collect_end(struct qyi_job_answers *answers, int code);

/* ---- job_send.c ---- */
QY_MUST enum qy_status qyi_send_meet(struct qyi_job_answers *answers, struct qy_error *err);
QY_MUST enum qy_status qyi_send_give(struct qyi_job_answers *answers, uint16_t op,
                                     const struct qyi_answers_head *head, const char *bytes,
                                     size_t n);
void qyi_send_poll(struct qyi_job_answers *answers);
int qyi_send_end(struct qyi_job_answers *answers, int code);
void qyi_send_close(struct qyi_job_answers *answers); /* after the node */

#endif
