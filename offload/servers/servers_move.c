/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that go from one memory server to another, through this process: those of a server that is about
 * to end, and those that have fewer copies than they should, because a server is gone, or began anew.
 *
 *   look     at the slots, when anything has changed at the servers
 *   read     from a server that has the block, into a frame of the mover's        (READ)
 *   put      to a server that takes it, and checks it as any block that it gets   (PUT)
 *   switch   from now on it lies there; a server that is about to end is told so  (DROP)
 *
 * Blocks are looked at and switched between steps only (qyi_store_tend): where they lie does not change
 * within a step. Reads and puts go on whenever the store is polled. A move that fails is forgotten: its block
 * lies where it lay. Neither the servers nor the wire know of moves: servers have no way to each other, nor
 * a key for it, and what a worker reads and puts is checked on every way.
 */
#include "offload/servers/servers_internal.h"

#include <string.h>

/* chosen: what worker and network may have under way beside their steps, one block at least; slots looked at
 * in one go, some ten microseconds; and how long a server says nothing before it is asked how it is. */
static const uint64_t frame_bytes = (uint64_t)16 << 20;
enum { LOOKS = 1024 };
static const uint64_t silence_ns = 500000000u;

static uint32_t n_frames(uint32_t n_servers, size_t block_bytes)
{
    const uint64_t fit = frame_bytes / block_bytes;

    return n_servers < 2 ? 0 : fit == 0 ? 1 : fit < QYI_MOVES_MOST ? (uint32_t)fit : QYI_MOVES_MOST;
}

uint64_t qyi_servers_move_bytes(uint32_t n_servers, size_t block_bytes)
{
    return (uint64_t)n_frames(n_servers, block_bytes) * block_bytes;
}

int qyi_mover_open(struct qyi_servers *s)
{
    struct qyi_mover *mover = &s->mover;
    const size_t bytes = (size_t)qyi_servers_move_bytes(s->params.n, s->block_bytes);

    if (bytes == 0) {
        return 0;
    }
    mover->frames = s->mem->alloc(s->mem->ctx, bytes, QYI_SERVERS_GRANULE);
    if (mover->frames == NULL) {
        return 1;
    }
    mover->n = n_frames(s->params.n, s->block_bytes);
    for (uint32_t i = 0; i < mover->n; i++) {
        mover->moves[i].frame = mover->frames + i * s->block_bytes;
    }
    return 0;
}

/* ---- a move ----------------------------------------------------------------------------------- */

/* Its frame is free. */
static void end_move(struct qyi_servers *s, struct qyi_move *move, enum qyi_move_state state)
{
    move->state = state;
    if (--s->mover.n_busy == 0) {
        s->mover.ended_ns = qy_node_now(s->params.node);
    }
}

/* The next part of its way. 0: no message is free. */
static int start_read(struct qyi_servers *s, struct qyi_move *move, uint32_t from)
{
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_MOVE_READ, from);

    if (m == NULL) {
        return 0;
    }
    qyi_range_add(m, &move->name, 0, s->block_bytes);
    qyi_ranges_pack(m, 1);
    m->bytes = s->block_bytes;
    m->move = move;
    m->request.reply = move->frame;
    m->request.reply_capacity = s->block_bytes;
    move->state = QYI_MOVE_READ;
    qyi_message_send(s, m);
    return 1;
}

static void start_put(struct qyi_servers *s, struct qyi_move *move)
{
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_MOVE_PUT, move->to);

    if (m != NULL) {
        qyi_put_pack(m, &move->name, move->frame, s->block_bytes);
        m->move = move;
        move->state = QYI_MOVE_PUT;
        qyi_message_send(s, m);
    }
}

void qyi_move_was_read(struct qyi_servers *s, struct qyi_move *move, int good)
{
    if (good && move->slot != UINT32_MAX) {
        move->state = QYI_MOVE_HERE;
    } else {
        end_move(s, move, QYI_MOVE_FREE);
    }
}

void qyi_move_was_put(struct qyi_servers *s, struct qyi_move *move, uint32_t epoch, int good)
{
    move->epoch = epoch;
    if (good && move->slot == UINT32_MAX) {
        qyi_server_drop(s, move->to, &move->name, 0);
    }
    end_move(s, move, good && move->slot != UINT32_MAX ? QYI_MOVE_DONE : QYI_MOVE_FREE);
}

void qyi_moves_go_on(struct qyi_servers *s)
{
    for (uint32_t i = 0; i < s->mover.n; i++) {
        struct qyi_move *move = &s->mover.moves[i];

        if (move->state == QYI_MOVE_HERE && move->slot == UINT32_MAX) {
            end_move(s, move, QYI_MOVE_FREE);
        } else if (move->state == QYI_MOVE_HERE && !s->resetting) {
            start_put(s, move);
        }
    }
}

void qyi_moves_forget(struct qyi_servers *s, uint32_t slot)
{
    for (uint32_t i = 0; i < s->mover.n; i++) {
        struct qyi_move *move = &s->mover.moves[i];

        if (move->state == QYI_MOVE_FREE || move->slot != slot) {
            continue;
        }
        move->slot = UINT32_MAX;
        if (move->state == QYI_MOVE_DONE) {
            move->state = QYI_MOVE_FREE;
            if (s->servers[move->to].epoch == move->epoch) {
                qyi_server_drop(s, move->to, &move->name, 0);
            }
        }
    }
}

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
    move->slot = slot;
    move->to = to;
    move->name = place->name;
    if (!start_read(s, move, place->copies[source_of(s, place)].server)) {
        return 0;
    }
    s->servers[to].free_blocks--;
    s->mover.n_busy++;
    return 1;
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
