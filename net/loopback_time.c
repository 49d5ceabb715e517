/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens next on a fabric, and its time. One call of progress is a round: all that is due now and
 * was begun before the round, one event after the other in the fabric's order; then the nodes' own work.
 * What a round itself sets going waits for the next one, so a round ends.
 */
#include "net/loopback_internal.h"

/* An event that may be next. */
struct choice {
    struct qyi_link *link;
    struct qyi_flight *flight;
    int side; /* whose flight it is                                  */
    int near; /* its sender is to be told; else something at the far end */
    uint64_t ns, turn;
    uint64_t limit;   /* only events with a lower turn are due              */
    uint64_t next_ns; /* the earliest, due or not                            */
    uint32_t n_due;
};

/* Nothing gets through between the two places. */
static int held(const struct qyi_link *link)
{
    const struct qyi_place *a = link->places[0], *b = link->places[1];
    return a->cut || a->stopped || b->cut || b->stopped;
}

static int goes_before(struct qy_fabric *fabric, uint64_t ns, uint64_t turn, const struct choice *c)
{
    switch (fabric->order) {
    case QY_FABRIC_IN_ORDER:
        return ns < c->ns || (ns == c->ns && turn < c->turn);
    case QY_FABRIC_REVERSED:
        return turn > c->turn;
    case QY_FABRIC_RANDOM:
        return qyi_fabric_draw(fabric, c->n_due) == 0; /* the n-th of n: each is as likely */
    }
    return 0;
}

static void consider(struct choice *c, struct qyi_link *link, int side, struct qyi_flight *flight,
                     int near)
{
    uint64_t ns = near ? flight->near_ns : flight->far_ns;
    uint64_t turn = near ? flight->near_turn : flight->far_turn;
    if (ns < c->next_ns) {
        c->next_ns = ns;
    }
    if (ns > link->fabric->now_ns || turn >= c->limit) {
        return;
    }
    c->n_due++;
    if (c->n_due > 1 && !goes_before(link->fabric, ns, turn, c)) {
        return;
    }
    c->link = link;
    c->side = side;
    c->flight = flight;
    c->near = near;
    c->ns = ns;
    c->turn = turn;
}

static void consider_side(struct choice *c, struct qyi_link *link, int side)
{
    int open = !held(link);
    int earlier_began = 1;
    for (struct qyi_flight *f = link->first[side]; f != NULL; f = f->next) {
        if (f->message != NULL && f->near_ns != UINT64_MAX && !link->places[side]->stopped &&
            (open || !f->lent)) {
            consider(c, link, side, f, 1);
        }
        int began = f->stage == QYI_FLIGHT_BEGUN || f->stage == QYI_FLIGHT_OVER;
        if (open && f->stage != QYI_FLIGHT_OVER && (began || earlier_began)) {
            consider(c, link, side, f, 0);
        }
        earlier_began = earlier_began && began;
    }
}

/* What is next among the events with turns below limit: c->n_due is 0 when nothing is due. */
static struct choice look(struct qy_fabric *fabric, uint64_t limit)
{
    struct choice c = {.limit = limit, .next_ns = UINT64_MAX};
    for (struct qyi_link *link = fabric->links; link != NULL; link = link->after) {
        consider_side(&c, link, 0);
        consider_side(&c, link, 1);
    }
    return c;
}

uint64_t qyi_fabric_next(struct qy_fabric *fabric)
{
    return look(fabric, 0).next_ns;
}

static int works(const struct qyi_loop *loop)
{
    return !loop->dead && !loop->place->stopped;
}

static uint32_t work_all(struct qy_fabric *fabric)
{
    uint32_t n = fabric->n_loops, happened = 0;
    uint32_t first = 0;
    if (fabric->order == QY_FABRIC_RANDOM && n > 0) {
        first = (uint32_t)qyi_fabric_draw(fabric, n);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = fabric->order == QY_FABRIC_REVERSED ? n - 1 - i : (first + i) % n;
        struct qyi_loop *loop = fabric->loops[at];
        if (works(loop) && loop->sink.work != NULL) {
            happened += loop->sink.work(loop->sink.ctx);
        }
    }
    return happened;
}

uint32_t qyi_fabric_progress(struct qy_fabric *fabric)
{
    if (fabric->moving) {
        return 0;
    }
    fabric->moving = 1;
    uint32_t happened = 0;
    uint64_t limit = fabric->turns;
    for (struct choice c = look(fabric, limit); c.n_due > 0; c = look(fabric, limit)) {
        if (c.near) {
            qyi_flight_tell(c.link, c.side, c.flight);
        } else {
            qyi_flight_move(c.link, c.side, c.flight);
        }
        happened++;
    }
    happened += work_all(fabric);
    fabric->moving = 0;
    return happened;
}

void qyi_fabric_wait(struct qy_fabric *fabric, uint64_t until_ns)
{
    if (fabric->moving) {
        return;
    }
    uint64_t to = qyi_fabric_next(fabric);
    to = to < until_ns ? to : until_ns;
    for (uint32_t i = 0; i < fabric->n_loops; i++) {
        struct qyi_loop *loop = fabric->loops[i];
        if (works(loop) && loop->sink.due != NULL) {
            uint64_t due = loop->sink.due(loop->sink.ctx);
            to = due < to ? due : to;
        }
    }
    if (to != UINT64_MAX && to > fabric->now_ns) {
        fabric->now_ns = to;
    }
}
