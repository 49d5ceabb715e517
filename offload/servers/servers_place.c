/* SPDX-License-Identifier: Apache-2.0 */
/* Which server a block goes to, and which copy is read: no question is asked here. See servers.h. */
#include "offload/servers/servers_internal.h"

int qyi_server_takes(const struct qyi_servers *s, uint32_t server)
{
    const struct qyi_server *v = &s->servers[server];

    return v->incarnation != 0 && !v->draining && v->free_blocks > 0 &&
           qy_peer_state(v->peer) == QY_PEER_UP && qy_peer_incarnation(v->peer) == v->incarnation;
}

int qyi_copy_is_there(const struct qyi_servers *s, const struct qyi_copy *copy)
{
    return s->servers[copy->server].epoch == copy->epoch;
}

static int has_copy(const struct qyi_place *place, uint32_t server)
{
    for (uint32_t i = 0; i < place->n; i++) {
        if (place->copies[i].server == server) {
            return 1;
        }
    }
    return 0;
}

static int is_up(const struct qyi_server *v)
{
    return qy_peer_state(v->peer) == QY_PEER_UP && v->incarnation == qy_peer_incarnation(v->peer);
}

int qyi_place_answers(const struct qyi_servers *s, const struct qyi_place *place, uint32_t server)
{
    for (uint32_t i = 0; i < place->n; i++) {
        if (place->copies[i].server == server) {
            return qyi_copy_is_there(s, &place->copies[i]) && is_up(&s->servers[server]);
        }
    }
    return 0;
}

/* Where a sequence begins to deal its blocks out, so that short sequences do not all go to the first. */
static uint32_t first_server(const struct qyi_servers *s, const struct qyi_store_name *name)
{
    const uint64_t mixed = (name->serial * 31 + name->sequence + 1) * 0x9e3779b97f4a7c15u;

    return (uint32_t)((mixed >> 32) + name->block) % s->params.n;
}

uint32_t qyi_place_choose(const struct qyi_servers *s, const struct qyi_place *place,
                          uint64_t tried)
{
    const uint32_t n = s->params.n;
    const uint32_t first = first_server(s, &place->name);
    uint32_t in_turn = UINT32_MAX;
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t v = (first + i) % n;

        if ((tried >> v & 1) || has_copy(place, v) || !qyi_server_takes(s, v)) {
            continue;
        }
        in_turn = in_turn == UINT32_MAX ? v : in_turn;
        if (best == UINT32_MAX || s->servers[v].free_blocks > s->servers[best].free_blocks) {
            best = v;
        }
    }
    /* chosen: in turn, unless that server has less than half as much room as another */
    return in_turn == UINT32_MAX ||
                   s->servers[in_turn].free_blocks >= s->servers[best].free_blocks / 2
               ? in_turn
               : best;
}

/* Copies take the load in the order in which blocks were dealt out. */
uint32_t qyi_servers_where(const struct qyi_store *store, uint32_t slot)
{
    const struct qyi_servers *s = (const struct qyi_servers *)(const void *)store;
    const struct qyi_place *place = &s->places[slot];
    const uint32_t n = s->params.n;
    const uint32_t first = first_server(s, &place->name);

    for (uint32_t i = 0; i < n; i++) {
        if (qyi_place_answers(s, place, (first + i) % n)) {
            return (first + i) % n;
        }
    }
    return UINT32_MAX;
}

uint32_t qyi_place_readable(const struct qyi_servers *s, const struct qyi_place *place,
                            uint64_t tried, int *may_come)
{
    uint32_t best = UINT32_MAX;

    *may_come = 0;
    for (uint32_t i = 0; i < place->n; i++) {
        const struct qyi_copy *copy = &place->copies[i];
        const struct qyi_server *v = &s->servers[copy->server];
        const enum qy_peer_state state = qy_peer_state(v->peer);

        if (!qyi_copy_is_there(s, copy) || (tried >> copy->server & 1)) {
            continue;
        }
        if (is_up(v)) {
            /* the one that is less busy; of equals the first */
            if (best == UINT32_MAX ||
                v->under_way < s->servers[place->copies[best].server].under_way) {
                best = i;
            }
        } else if (!qyi_copy_is_gone(s, copy) || state == QY_PEER_UP) {
            *may_come = 1; /* UP: the session is being opened again */
        }
    }
    return best;
}
