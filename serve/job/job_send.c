/* SPDX-License-Identifier: Apache-2.0 */
/* Another worker's end of the way of answers: what it gives waits in a queue of parcels, of which one piece at
 * a time is under way. Rank 0 may take long to answer, and what was not answered is sent again. See
 * job_answers.h. */
#include <stdlib.h>
#include <string.h>

#include "serve/job/job_answers_internal.h"

static const uint64_t second_ns = 1000000000u;

/* As in job_collect.c. BEAT: well below what counts as silence. */
enum { MEET_S = 60, BEAT_S = 5, TOLD_S = 5 };

/* ---- parcels ----------------------------------------------------------------------------------------- */

static struct qyi_parcel *make(const struct qyi_job_answers *a, uint16_t op,
                               const struct qyi_answers_head *head, const char *bytes, size_t n)
{
    struct qyi_parcel *parcel = calloc(1, sizeof *parcel + n);
    if (parcel != NULL) {
        parcel->op = op;
        parcel->head = *head;
        parcel->head.rank = (uint32_t)a->job->rank;
        parcel->n = n;
        if (n > 0) {
            memcpy(parcel->bytes, bytes, n);
        }
    }
    return parcel;
}

enum qy_status qyi_send_give(struct qyi_job_answers *a, uint16_t op,
                             const struct qyi_answers_head *head, const char *bytes, size_t n)
{
    struct qyi_parcel *parcel = make(a, op, head, bytes, n);
    if (parcel == NULL) {
        return QY_ERR_NOMEM;
    }
    *a->parcels_end = parcel;
    a->parcels_end = &parcel->next;
    qyi_send_poll(a);
    return QY_OK;
}

static void drop_first(struct qyi_job_answers *a)
{
    struct qyi_parcel *parcel = a->parcels;
    a->parcels = parcel->next;
    if (a->parcels == NULL) {
        a->parcels_end = &a->parcels;
    }
    free(parcel);
}

void qyi_send_close(struct qyi_job_answers *a)
{
    while (a->parcels != NULL) {
        drop_first(a);
    }
    free(a->beat);
}

/* ---- one question at a time ---------------------------------------------------------------------------- */

static size_t piece_bytes(const struct qyi_parcel *parcel)
{
    const size_t left = parcel->n - (size_t)parcel->head.at;
    return left < QYI_ANSWERS_PIECE_BYTES ? left : QYI_ANSWERS_PIECE_BYTES;
}

/* What is under way is answered, or is not: then it stays first, and is sent again. */
static void settle(struct qyi_job_answers *a)
{
    struct qyi_parcel *parcel = a->sending;
    if (parcel == NULL || a->request.status == QY_PENDING) {
        return;
    }
    a->sending = NULL;
    if (a->request.status != QY_OK) {
        return;
    }
    a->heard_ns = qy_clock_ns();
    parcel->head.at += piece_bytes(parcel);
    if (parcel != a->beat &&
        (parcel->head.at == parcel->n || a->request.code != QYI_ANSWERS_TAKEN)) {
        drop_first(a);
    }
}

/* The next piece, or a sign of life; nothing while rank 0 is not there. */
static void post(struct qyi_job_answers *a)
{
    struct qyi_parcel *parcel = a->parcels;
    if (parcel == NULL && qy_clock_ns() - a->heard_ns >= BEAT_S * second_ns) {
        parcel = a->beat;
    }
    if (a->sending != NULL || parcel == NULL || qy_peer_state(a->first) != QY_PEER_UP) {
        return;
    }
    const size_t n = piece_bytes(parcel);
    memset(&a->request, 0, sizeof a->request);
    a->request.op = parcel->op;
    a->request.head_bytes = sizeof parcel->head;
    memcpy(a->request.head, &parcel->head, sizeof parcel->head);
    a->request.payload = n > 0 ? parcel->bytes + parcel->head.at : NULL;
    a->request.payload_bytes = n;
    if (qy_request_post(a->first, &a->request) == QY_OK) {
        a->sending = parcel;
    }
}

static uint32_t move(struct qyi_job_answers *a)
{
    const uint32_t n = qy_node_progress(a->node);
    settle(a);
    post(a);
    return n;
}

void qyi_send_poll(struct qyi_job_answers *a)
{
    (void)move(a);
}

/* ---- at the start and at the end ------------------------------------------------------------------------- */

enum qy_status qyi_send_meet(struct qyi_job_answers *a, struct qy_error *err)
{
    const struct qyi_answers_head nothing = {0};
    const uint64_t until = qy_clock_ns() + MEET_S * second_ns;
    enum qy_status st = qy_peer_wait(a->first, MEET_S * second_ns, err);
    if (st != QY_OK) {
        return st;
    }
    a->heard_ns = qy_clock_ns();
    a->beat = make(a, QYI_ANSWERS_BEAT, &nothing, NULL, 0);
    if (a->beat == NULL || qyi_send_give(a, QYI_ANSWERS_HELLO, &nothing, NULL, 0) != QY_OK) {
        return qy_error_set(err, QY_ERR_NOMEM, "job: out of memory for answers");
    }
    while (a->parcels != NULL) {
        if (qy_clock_ns() >= until) {
            return qy_error_set(err, QY_ERR_TIMEOUT, "rank 0 did not answer within %d s", MEET_S);
        }
        if (move(a) == 0) {
            qy_node_wait(a->node, qy_node_now(a->node) + second_ns / 10);
        }
    }
    return QY_OK;
}

int qyi_send_end(struct qyi_job_answers *a, int code)
{
    const struct qyi_answers_head head = {.code = code};
    const uint64_t began = qy_clock_ns();
    uint64_t now = began;
    int late = qyi_send_give(a, QYI_ANSWERS_END, &head, a->why, strlen(a->why)) != QY_OK;
    while (a->parcels != NULL && !late) {
        if (move(a) == 0) {
            qy_node_wait(a->node, qy_node_now(a->node) + second_ns / 10);
        }
        now = qy_clock_ns();
        late =
            now - (a->heard_ns > began ? a->heard_ns : began) >= QYI_ANSWERS_SILENT_S * second_ns ||
            qyi_answers_told(a, now, TOLD_S * second_ns);
    }
    if (!late) {
        return 0;
    }
    qy_log_write(&a->job->rt.log, QY_LOG_ERROR, "job",
                 "rank 0 did not take this worker's answers; it had given %s%s",
                 a->why[0] != '\0' ? "up: " : "all of them", a->why);
    return code != 0 ? code : 1;
}
