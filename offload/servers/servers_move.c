/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that go from one memory server to another, through this process: how one goes. Which ones do, and when,
 * is servers_keep.c's.
 *
 *   read    from a server that has the block, into a frame of the mover's        (READ)
 *   put     to a server that takes it, and checks it as any block that it gets   (PUT)
 *
 * That goes on whenever the store is polled; that the block is there is told to its place between steps only. A
 * move that fails is forgotten: its block lies where it lay. Neither the servers nor the wire know of moves:
 * servers have no way to each other, nor a key for it, and what a worker reads and puts is checked on every way.
 */
#include "offload/servers/servers_internal.h"

/* chosen: what worker and network may have under way beside their steps, one block at least. */
static const uint64_t frame_bytes = (uint64_t)16 << 20;

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

int qyi_move_start(struct qyi_servers *s, struct qyi_move *move, uint32_t slot, uint32_t from,
                   uint32_t to)
{
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_MOVE_READ, from);

    if (m == NULL) {
        return 0;
    }
    move->state = QYI_MOVE_READ;
    move->slot = slot;
    move->to = to;
    move->name = s->places[slot].name;
    qyi_range_add(m, &move->name, 0, s->block_bytes);
    qyi_ranges_pack(m, 1);
    m->bytes = s->block_bytes;
    m->move = move;
    m->request.reply = move->frame;
    m->request.reply_capacity = s->block_bytes;
    qyi_message_send(s, m);
    s->servers[to].free_blocks--;
    s->mover.n_busy++;
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
