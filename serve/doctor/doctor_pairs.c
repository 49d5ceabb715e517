/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How each rank reaches every other. Pairs that measure at the same time have no rank in common, and all wait for
 * the slowest of a round, so the time grows with the number of ranks and not with that of pairs.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "serve/doctor/doctor_ranks.h"

static const uint64_t second_ns = 1000000000u, look_ns = 1000000u;

/* chosen: trips until the least of them says something; bytes until they take long enough to be timed, beginning
 * with what the slowest link carries within a timeout. */
enum { TRIPS = 20, FIRST_BYTES = 64 << 10, MOST_PIECES = 64, TRIES = 3 };
static const uint64_t timed_ns = 25000000u;
/* chosen: a round in which a link is slow at everything ends before that */
static const uint64_t round_ns = 120000000000u;

/* ---- who meets whom ------------------------------------------------------------------------------ */

/* As on a round table: one stays, the others move on by a seat. With an odd number one seat is empty. */
int qyi_doctor_rounds(int count)
{
    return count < 2 ? 0 : count + count % 2 - 1;
}

int qyi_doctor_partner(int rank, int count, int round)
{
    const int rounds = qyi_doctor_rounds(count);
    int other;
    if (rank == rounds) { /* who stays: 2 other = round, and the inverse of 2 is (rounds + 1) / 2 */
        other = (int)((int64_t)round * (rounds + 1) / 2 % rounds);
    } else {
        other = (round - rank + rounds) % rounds;
        other = other == rank ? rounds : other;
    }
    return other < count ? other : -1;
}

/* ---- questions ----------------------------------------------------------------------------------- */

static void answer(void *ctx, struct qy_call *call)
{
    (void)ctx;
    qy_call_answer(call, 0, NULL, 0, NULL, 0);
}

const struct qy_service qyi_doctor_service = {.serve = answer};

struct pairs {
    struct qy_ranks *ranks;
    struct qy_node *node;
    uint64_t timeout_ns;
    const struct qyi_doctor_ranks *all;
    uint8_t *payload; /* [QYI_DOCTOR_PIECE] */
};

static struct qy_request *idle_one(struct qy_request *requests)
{
    for (int i = 0; i < QYI_DOCTOR_AT_ONCE; i++) {
        if (requests[i].status != QY_PENDING) {
            return &requests[i];
        }
    }
    return NULL;
}

/* n questions of so many bytes, a few at once; *ns: until the last was answered. */
static enum qy_status ask(const struct pairs *p, struct qy_peer *peer, size_t bytes, uint32_t n,
                          uint64_t *ns)
{
    struct qy_request requests[QYI_DOCTOR_AT_ONCE];
    struct qy_op op = {.status = QY_OK};
    const uint64_t begin = qy_node_now(p->node);
    enum qy_status st = QY_OK;
    memset(requests, 0, sizeof requests);
    for (uint32_t posted = 0; st == QY_OK && posted < n;) {
        struct qy_request *request = idle_one(requests);
        if (request == NULL) {
            if (qy_node_progress(p->node) == 0) {
                qy_node_wait(p->node, qy_node_now(p->node) + second_ns);
            }
            st = op.status;
            continue;
        }
        *request = (struct qy_request){
            .payload = bytes > 0 ? p->payload : NULL, .payload_bytes = bytes, .counts = &op};
        st = qy_request_post(peer, request);
        posted += st == QY_OK;
    }
    const enum qy_status last = qy_op_wait(p->node, &op); /* requests are this function's own */
    *ns = qy_node_now(p->node) - begin;
    return st != QY_OK ? st : last;
}

static enum qy_status measure_trip(const struct pairs *p, struct qy_peer *peer,
                                   struct qyi_doctor_link *link)
{
    const uint64_t until = qy_node_now(p->node) + p->timeout_ns;
    enum qy_status st = QY_OK;
    uint64_t least = UINT64_MAX;
    for (int i = 0; st == QY_OK && i < TRIPS && (i == 0 || qy_node_now(p->node) < until); i++) {
        uint64_t ns = 0;
        st = ask(p, peer, 0, 1, &ns);
        least = ns < least ? ns : least;
    }
    link->round_trip_ns = least;
    return st;
}

/* Twice as much each time: a limited link lets the first of it pass at once, so a guess from that would be wrong. */
static enum qy_status measure_rate(const struct pairs *p, struct qy_peer *peer,
                                   struct qyi_doctor_link *link)
{
    size_t bytes = FIRST_BYTES;
    uint32_t n = 1;
    for (;;) {
        uint64_t ns = 0;
        const enum qy_status st = ask(p, peer, bytes, n, &ns);
        if (st != QY_OK) {
            return st;
        }
        link->gbps = (double)bytes * n / (double)(ns > 0 ? ns : 1);
        if (ns >= timed_ns || n >= MOST_PIECES) {
            return QY_OK;
        }
        if (bytes < QYI_DOCTOR_PIECE) {
            bytes *= 2;
        } else {
            n *= 2;
        }
    }
}

static enum qy_status measure(const struct pairs *p, struct qy_peer *peer,
                              struct qyi_doctor_link *link, struct qy_error *err)
{
    enum qy_status st = qy_peer_wait(peer, TRIES * p->timeout_ns, err);
    if (st != QY_OK) {
        return st;
    }
    const char *what = "a question";
    st = measure_trip(p, peer, link);
    if (st == QY_OK) {
        what = "a question with bytes";
        st = measure_rate(p, peer, link);
    }
    return st == QY_OK ? st
                       : qy_error_set(err, st, "it was reached, and then %s was not answered (%s)",
                                      what, qy_status_name(st));
}

static void ask_rank(const struct pairs *p, int other, struct qyi_doctor_link *link)
{
    const struct qyi_doctor_facts *facts = &p->all->facts[other];
    struct qy_error err = {0};
    struct qy_peer *peer = NULL;
    char name[32];
    enum qy_status st = QY_ERR_PEER;
    if (p->node == NULL || facts->address[0] == '\0') {
        qy_error_set(&err, st, "rank %d has no network: see what is said of it",
                     p->node == NULL ? qy_ranks_rank(p->ranks) : other);
    } else {
        snprintf(name, sizeof name, "rank %d", other);
        st = qy_peer_open(p->node, facts->address, name, &peer, &err);
        if (st == QY_OK) {
            st = measure(p, peer, link, &err);
        }
        qy_peer_close(peer);
    }
    link->status = (int32_t)st;
    /* What happened; what to do about it is the same for all links. */
    snprintf(link->why, sizeof link->why, "%.*s", (int)strcspn(err.text, ";"), err.text);
}

/* ---- rounds -------------------------------------------------------------------------------------- */

/* Answers the others until all ranks have done their part. */
static enum qy_status await_all(const struct pairs *p, struct qy_error *err)
{
    const struct timespec pause = {.tv_nsec = (long)look_ns};
    const uint64_t until = qy_clock_ns() + round_ns;
    enum qy_status st = qy_ranks_barrier_begin(p->ranks, err);
    while (st == QY_OK && (st = qy_ranks_barrier_test(p->ranks, err)) == QY_PENDING) {
        if (qy_clock_ns() >= until) {
            return qy_error_set(err, QY_ERR_TIMEOUT,
                                "doctor: not all ranks came to the end of a round within %llu s; "
                                "see whether every rank still runs",
                                (unsigned long long)(round_ns / second_ns));
        }
        st = QY_OK;
        if (p->node == NULL) {
            nanosleep(&pause, NULL);
        } else if (qy_node_progress(p->node) == 0) {
            qy_node_wait(p->node, qy_node_now(p->node) + look_ns);
        }
    }
    return st;
}

enum qy_status qyi_doctor_pairs(struct qy_ranks *ranks, struct qy_node *node, uint64_t timeout_ns,
                                const struct qyi_doctor_ranks *all, struct qyi_doctor_link *mine,
                                struct qy_error *err)
{
    const int me = qy_ranks_rank(ranks);
    struct pairs p = {.ranks = ranks, .node = node, .timeout_ns = timeout_ns, .all = all};
    enum qy_status st = QY_OK;
    for (int i = 0; i < all->count; i++) {
        mine[i].status = QY_PENDING;
    }
    p.payload = calloc(1, QYI_DOCTOR_PIECE);
    if (p.payload == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "doctor: out of memory for %d bytes",
                            QYI_DOCTOR_PIECE);
    }
    for (int turn = 0; st == QY_OK && turn < 2 * qyi_doctor_rounds(all->count); turn++) {
        const int other = qyi_doctor_partner(me, all->count, turn / 2);
        /* The lower rank of a pair asks first. */
        if (other >= 0 && (me < other) == (turn % 2 == 0) && !qyi_interrupted()) {
            ask_rank(&p, other, &mine[other]);
        }
        st = await_all(&p, err);
    }
    free(p.payload);
    return st;
}
