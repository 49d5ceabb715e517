/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where blocks should lie, and do not: on a server that is about to end; or, because a server is gone or began
 * anew, with fewer copies than there should be. They go to others (servers_move.c).
 *
 *   look     at the slots, when anything has changed at the servers
 *   move     as many blocks at a time as there are frames for, by half of the time
 *   switch   where a block was put it lies from now on; a server that is about to end is told so (DROP)
 *
 * All of it between steps (qyi_store_tend): where blocks lie does not change within one.
 */
#include "offload/servers/servers_internal.h"

/* chosen: slots looked at in one go, some ten microseconds; and how long a server says nothing before it is asked
 * how it is. */
enum { LOOKS = 1024 };
static const uint64_t silence_ns = 500000000u;

void qyi_moves_look(struct qyi_servers *s)
{
    s->mover.left = s->mover.n > 0 ? s->n_slots : 0;
}

/* ---- where copies are, and should be ---------------------------------------------------------- */

enum standing { STAYS, AWAY, LEAVES, GONE };

static enum standing standing_of(const struct qyi_servers *s, const struct qyi_copy *copy)
{
    if (qyi_copy_is_gone(s, copy)) {
        return GONE;
    }
    if (qy_peer_state(s->servers[copy->server].peer) != QY_PEER_UP) {
        return AWAY;
    }
    return s->servers[copy->server].draining ? LEAVES : STAYS;
}

static uint32_t count(const struct qyi_servers *s, const struct qyi_place *place,
                      enum standing standing)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < place->n; i++) {
        n += standing_of(s, &place->copies[i]) == standing ? 1 : 0;
    }
    return n;
}

static void take_off(struct qyi_servers *s, struct qyi_place *place, uint32_t i)
{
    if (qyi_copy_is_there(s, &place->copies[i])) {
        qyi_server_drop(s, place->copies[i].server, &place->name, 1);
    }
    place->copies[i] = place->copies[--place->n];
}

/* Copies at servers that began anew are none. One that may be read must be there, so that a block which
 * nobody has is still known by those who had it. */
static void forget_old(struct qyi_servers *s, struct qyi_place *place)
{
    for (uint32_t i = place->n; i-- > 0;) {
        if (!qyi_copy_is_there(s, &place->copies[i])) {
            take_off(s, place, i);
        }
    }
}

/* Copies at servers that are about to end: others have the block. How many. */
static uint32_t leave(struct qyi_servers *s, struct qyi_place *place)
{
    uint32_t n = 0;

    for (uint32_t i = place->n; i-- > 0;) {
        if (standing_of(s, &place->copies[i]) == LEAVES) {
            s->servers[place->copies[i].server].stats.moved++;
            take_off(s, place, i);
            n++;
        }
    }
    return n;
}

/* The copy that a move reads: one that leaves, for others are asked by steps. UINT32_MAX: none now. */
static uint32_t source_of(const struct qyi_servers *s, const struct qyi_place *place)
{
    uint32_t source = UINT32_MAX;

    for (uint32_t i = 0; i < place->n; i++) {
        const enum standing standing = standing_of(s, &place->copies[i]);

        if (standing == LEAVES) {
            return i;
        }
        source = standing == STAYS ? i : source;
    }
    return source;
}

/* A block that was put where it should be lies there from now on; unless its server is away, and then it
 * is seen whether that comes back. */
static void switch_over(struct qyi_servers *s, struct qyi_move *move)
{
    struct qyi_place *place = &s->places[move->slot];
    const struct qyi_copy copy = {.server = move->to, .epoch = move->epoch};
    const enum standing standing = standing_of(s, &copy);

    if (standing == AWAY) {
        return;
    }
    move->state = QYI_MOVE_FREE;
    if (standing != STAYS) { /* gone, or about to end as well: the block lies where it lay */
        qyi_moves_look(s);
        if (qyi_copy_is_there(s, &copy)) {
            qyi_server_drop(s, move->to, &place->name, 0);
        }
        return;
    }
    for (uint32_t i = place->n; place->n == QYI_COPIES_MOST && i-- > 0;) {
        if (standing_of(s, &place->copies[i]) == GONE) {
            take_off(s, place, i);
        }
    }
    /* in the place of one that leaves, if that must be */
    if (place->n == QYI_COPIES_MOST && leave(s, place) == 0) {
        qyi_server_drop(s, move->to, &place->name, 0); /* all came back meanwhile */
        return;
    }
    place->copies[place->n++] = copy;
    if (count(s, place, STAYS) + count(s, place, AWAY) < s->params.copies) {
        qyi_moves_look(s); /* one more is missing */
    } else if (leave(s, place) > 0) {
        return;
    }
    s->servers[move->to].stats.copied++;
}

static int is_moving(const struct qyi_servers *s, uint32_t slot)
{
    for (uint32_t i = 0; i < s->mover.n; i++) {
        if (s->mover.moves[i].state != QYI_MOVE_FREE && s->mover.moves[i].slot == slot) {
            return 1;
        }
    }
    return 0;
}

/* Begins what is to be done about a slot. 0: no message is free, look at it again. */
static int look_at(struct qyi_servers *s, uint32_t slot, struct qyi_move *move)
{
    struct qyi_place *place = &s->places[slot];
    const uint32_t stays = count(s, place, STAYS);

    if (place->n == 0 || place->writing || is_moving(s, slot) ||
        (stays + count(s, place, AWAY) >= s->params.copies && count(s, place, LEAVES) == 0)) {
        return 1;
    }
    if (source_of(s, place) == UINT32_MAX) {
        return 1;
    }
    forget_old(s, place);
    const uint32_t to = stays + count(s, place, AWAY) < s->params.copies
                            ? qyi_place_choose(s, place, 0)
                            : UINT32_MAX;
    if (to == UINT32_MAX) {
        /* nobody has room, or nobody needs it: a server that ends need not wait for copies elsewhere */
        (void)(stays > 0 ? leave(s, place) : 0);
        return 1;
    }
    return qyi_move_start(s, move, slot, place->copies[source_of(s, place)].server, to);
}

/* ---- between steps ---------------------------------------------------------------------------- */

/* Of all that decides where blocks can be. */
static uint64_t fold_servers(const struct qyi_servers *s)
{
    uint64_t fold = 0;

    for (uint32_t i = 0; i < s->params.n; i++) {
        const struct qyi_server *v = &s->servers[i];
        const uint64_t takes = qyi_server_takes(s, i) != 0;
        const uint64_t drains = v->draining != 0;
        const uint64_t ended = qy_peer_has_ended(v->peer) != 0;

        fold = qyi_remote_fold(fold, (uint64_t)v->epoch << 8 | takes << 7 | drains << 6 |
                                         ended << 5 | (uint64_t)qy_peer_state(v->peer));
    }
    return fold;
}

/* A server that was not heard of late may be about to end. */
static void ask_silent(struct qyi_servers *s)
{
    const uint64_t now = qy_node_now(s->params.node);

    for (uint32_t i = 0; i < s->params.n; i++) {
        struct qyi_server *v = &s->servers[i];

        if (v->draining || v->incarnation == 0 || qy_peer_state(v->peer) != QY_PEER_UP ||
            now - v->heard_ns < silence_ns) {
            continue;
        }
        struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_STATE, i);
        if (m == NULL) {
            return;
        }
        v->heard_ns = now; /* once is enough */
        m->request.op = QYI_REMOTE_STATE;
        m->request.reply = m->reply;
        m->request.reply_capacity = s->params.answer_bytes;
        qyi_message_send(s, m);
    }
}

/* Blocks set out, as many as there are frames for. */
static void set_out(struct qyi_servers *s)
{
    struct qyi_mover *mover = &s->mover;
    uint32_t i = 0;

    for (uint32_t looks = 0; i < mover->n && mover->left > 0 && looks < LOOKS; looks++) {
        if (mover->moves[i].state != QYI_MOVE_FREE) {
            i++;
            continue;
        }
        if (!look_at(s, mover->at, &mover->moves[i])) {
            break;
        }
        mover->at = (mover->at + 1) % s->n_slots;
        mover->left--;
    }
    if (mover->n_busy > 0) {
        mover->began_ns = qy_node_now(s->params.node);
    }
}

/* chosen: half of the time. What moves takes what steps would have of the network. */
static uint64_t next_ns(const struct qyi_mover *mover)
{
    return mover->ended_ns + (mover->ended_ns - mover->began_ns);
}

int qyi_servers_tend(struct qyi_store *store)
{
    struct qyi_servers *s = (struct qyi_servers *)(void *)store;
    struct qyi_mover *mover = &s->mover;

    store->ops->poll(store);
    if (mover->n == 0 || s->resetting) {
        return 0;
    }
    ask_silent(s);
    for (uint32_t i = 0; i < mover->n; i++) {
        if (mover->moves[i].state == QYI_MOVE_DONE) {
            switch_over(s, &mover->moves[i]);
        }
    }
    const uint64_t seen = fold_servers(s);
    if (seen != mover->seen) {
        mover->seen = seen;
        qyi_moves_look(s);
    }
    if (mover->n_busy == 0 && mover->left > 0 && qy_node_now(s->params.node) >= next_ns(mover)) {
        set_out(s);
    }
    store->ops->poll(store); /* what set out goes */
    return mover->n_busy > 0 || mover->left > 0;
}
