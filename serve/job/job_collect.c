/* SPDX-License-Identifier: Apache-2.0 */
/* Rank 0's end of the way of answers: takes what the other workers send, and gives them up when they are gone.
 * See job_answers.h. */
#include <string.h>

#include "serve/job/job_answers_internal.h"

static const uint64_t second_ns = 1000000000u;

/* chosen: all workers have just left an exchange; a worker is heard between its steps, and a step may be a long
 * chunk of a prompt; memory ranks leave 10 s after a signal. */
enum { MEET_S = 60, TOLD_S = 5 };

/* ---- the service ----------------------------------------------------------------------------------- */

/* The sender of a question: of the rank that it says, always over the same session. */
static struct qyi_sender *sender_of(struct qyi_job_answers *a, struct qy_peer *peer, uint32_t rank)
{
    if (rank == 0 || rank >= a->list.n_workers) {
        return NULL;
    }
    struct qyi_sender *s = &a->senders[rank];
    const struct qyi_sender *before = qy_peer_user(peer);
    if (!s->came) {
        memcpy(s->session, qy_peer_session(peer), sizeof s->session);
    } else if (memcmp(s->session, qy_peer_session(peer), sizeof s->session) != 0) {
        return NULL;
    }
    if (before != NULL && before != s) {
        return NULL;
    }
    s->came = 1;
    s->peer = peer;
    qy_peer_set_user(peer, s);
    return s;
}

static void take_end(struct qyi_job_answers *a, uint32_t rank, int code, const struct qy_call *call)
{
    char why[sizeof a->why] = "";
    const size_t n = call->payload_bytes < sizeof why - 1 ? call->payload_bytes : sizeof why - 1;
    if (n > 0) {
        memcpy(why, call->payload, n);
    }
    qyi_answer_list_end(&a->list, rank, code, why);
}

static void serve(void *ctx, struct qy_call *call)
{
    struct qyi_job_answers *a = ctx;
    struct qyi_answers_head head;
    enum qy_status st = QY_OK;
    if (call->head_bytes != sizeof head) {
        qy_call_refuse(call, "a question without its head");
        return;
    }
    memcpy(&head, call->head, sizeof head);
    struct qyi_sender *s = sender_of(a, call->peer, head.rank);
    if (s == NULL) {
        qy_call_refuse(call, "a rank that is no worker, or another one's");
        return;
    }
    s->heard_ns = qy_clock_ns();
    if (call->op == QYI_ANSWERS_PIECE) {
        st = qyi_answer_list_put(&a->list, head.rank, (size_t)head.prompt, call->payload,
                                 call->payload_bytes, (size_t)head.at, (size_t)head.total);
    } else if (call->op == QYI_ANSWERS_END) {
        st = head.code >= 0 && head.code < 256 ? QY_OK : QY_ERR_INVALID;
        if (st == QY_OK) {
            take_end(a, head.rank, head.code, call);
        }
    } else if (call->op != QYI_ANSWERS_HELLO && call->op != QYI_ANSWERS_BEAT) {
        st = QY_ERR_INVALID;
    }
    if (st == QY_ERR_INVALID) {
        qy_call_refuse(call, "an answer that is none");
        return;
    }
    qy_call_answer(call, st == QY_OK ? QYI_ANSWERS_TAKEN : QYI_ANSWERS_NOT_WANTED, NULL, 0, NULL,
                   0);
}

static void left(void *ctx, struct qy_peer *peer, const char *why)
{
    struct qyi_sender *s = qy_peer_user(peer);
    (void)ctx;
    if (s != NULL && s->peer == peer) {
        s->peer = NULL;
        snprintf(s->left_why, sizeof s->left_why, "%s", why);
    }
}

void qyi_answers_service(struct qyi_job_answers *a)
{
    a->service = (struct qy_service){.ctx = a, .serve = serve, .left = left};
}

/* ---- at the start ---------------------------------------------------------------------------------- */

static uint32_t first_missing(const struct qyi_job_answers *a)
{
    for (uint32_t i = 1; i < a->list.n_workers; i++) {
        if (!a->senders[i].came) {
            return i;
        }
    }
    return 0;
}

enum qy_status qyi_collect_meet(struct qyi_job_answers *a, struct qy_error *err)
{
    const uint64_t until = qy_clock_ns() + MEET_S * second_ns;
    uint32_t missing;
    while ((missing = first_missing(a)) != 0) {
        if (qyi_interrupted()) {
            return qy_error_set(err, QY_ERR_PEER, "interrupted before all workers were connected");
        }
        if (qy_clock_ns() >= until) {
            return qy_error_set(err, QY_ERR_TIMEOUT,
                                "rank %u did not connect to rank 0 within %d s; see whether it "
                                "reaches %s",
                                missing, MEET_S, qy_node_address(a->node));
        }
        if (qy_node_progress(a->node) == 0) {
            qy_node_wait(a->node, qy_node_now(a->node) + second_ns / 10);
        }
    }
    return QY_OK;
}

/* ---- while rank 0 works, and after ------------------------------------------------------------------- */

/* What is missing now is said at once: where a rank died the launcher ends the job before long. */
static void say_missing(struct qyi_job_answers *a)
{
    struct qy_error err = {0};
    qyi_answer_list_write(&a->list);
    if (a->list.n > 0 && qyi_answer_list_missing(&a->list, 1, &err) != QY_OK) {
        (void)!qyi_fail(&err);
    }
}

static void give_up(struct qyi_job_answers *a, uint32_t rank, const char *why)
{
    if (!qyi_answer_list_has_ended(&a->list, rank)) {
        qyi_answer_list_end(&a->list, rank, 1, why);
        say_missing(a);
    }
}

/* A connection has no deadline that is shorter than what counts as silence, and a cable that is out breaks none:
 * one that broke was of a process that died. */
static void give_up_dead(struct qyi_job_answers *a)
{
    char why[200];
    for (uint32_t i = 1; i < a->list.n_workers; i++) {
        const struct qyi_sender *s = &a->senders[i];
        if (s->came && s->peer == NULL && !qyi_answer_list_has_ended(&a->list, i)) {
            snprintf(why, sizeof why, "gone: %s", s->left_why);
            give_up(a, i, why);
        }
    }
}

void qyi_collect_poll(struct qyi_job_answers *a)
{
    (void)qy_node_progress(a->node);
    give_up_dead(a);
    qyi_answer_list_write(&a->list);
}

/* Nothing comes at the moment: who is not waited for any longer? */
static void judge(struct qyi_job_answers *a, uint64_t began, uint64_t now)
{
    char why[80];
    give_up_dead(a);
    for (uint32_t i = 1; i < a->list.n_workers; i++) {
        const uint64_t heard = a->senders[i].heard_ns;
        if (qyi_answers_told(a, now, TOLD_S * second_ns)) {
            snprintf(why, sizeof why, "did not end within %d s of being told to", TOLD_S);
            give_up(a, i, why);
        } else if (now - (heard > began ? heard : began) >= QYI_ANSWERS_SILENT_S * second_ns) {
            snprintf(why, sizeof why, "silent for %d s", QYI_ANSWERS_SILENT_S);
            give_up(a, i, why);
        }
    }
}

static int all_ended(const struct qyi_job_answers *a)
{
    for (uint32_t i = 1; i < a->list.n_workers; i++) {
        if (!qyi_answer_list_has_ended(&a->list, i)) {
            return 0;
        }
    }
    return 1;
}

int qyi_collect_end(struct qyi_job_answers *a, int code)
{
    const uint64_t began = qy_clock_ns();
    qyi_answer_list_end(&a->list, 0, code, a->why);
    qyi_answer_list_write(&a->list);
    while (!all_ended(a)) {
        if (qy_node_progress(a->node) == 0) {
            judge(a, began, qy_clock_ns());
            qy_node_wait(a->node, qy_node_now(a->node) + second_ns / 10);
        }
        qyi_answer_list_write(&a->list);
    }
    say_missing(a);
    if (a->list.n == 0 && a->why[0] != '\0') { /* rank 0 failed before it knew the list */
        struct qy_error err = {0};
        (void)qy_error_set(&err, QY_ERR_PEER, "%s", a->why);
        (void)!qyi_fail(&err);
    } else if (qyi_answer_list_code(&a->list) == 0) {
        qyi_answer_list_print(&a->list, stderr);
    }
    return qyi_answer_list_code(&a->list);
}
