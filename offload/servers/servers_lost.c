/* SPDX-License-Identifier: Apache-2.0 */
/* Servers that are away: what was lost with them, and what may still be when they are back. See
 * servers.h. */
#include "offload/servers/servers_internal.h"

static const struct qyi_servers *servers_of(const struct qyi_store *store)
{
    return (const struct qyi_servers *)(const void *)store;
}

/* Is the session of ours there that the server had when it was last heard? */
static int has_session(const struct qyi_server *v)
{
    return v->incarnation != 0 && v->incarnation == qy_peer_incarnation(v->peer);
}

int qyi_place_may_take(const struct qyi_servers *s, uint64_t tried)
{
    for (uint32_t i = 0; i < s->params.n; i++) {
        const struct qyi_server *v = &s->servers[i];
        const enum qy_peer_state state = qy_peer_state(v->peer);

        if ((tried >> i & 1) || v->draining || v->free_blocks == 0) {
            continue;
        }
        if (state == QY_PEER_LOST || (state == QY_PEER_UP && !has_session(v))) {
            return 1;
        }
    }
    return 0;
}

int qyi_copy_is_gone(const struct qyi_servers *s, const struct qyi_copy *copy)
{
    const struct qyi_server *v = &s->servers[copy->server];
    const enum qy_peer_state state = qy_peer_state(v->peer);

    if (!qyi_copy_is_there(s, copy) || (state != QY_PEER_UP && state != QY_PEER_LOST)) {
        return 1;
    }
    return state == QY_PEER_UP ? !has_session(v) : qy_peer_has_ended(v->peer);
}

int qyi_servers_lost(const struct qyi_store *store, uint32_t slot, uint64_t *servers)
{
    const struct qyi_servers *s = servers_of(store);
    const struct qyi_place *place = &s->places[slot];
    uint32_t n_gone = 0;

    *servers = 0;
    for (uint32_t i = 0; i < place->n; i++) {
        *servers |= (uint64_t)1 << place->copies[i].server;
        n_gone += qyi_copy_is_gone(s, &place->copies[i]) ? 1 : 0;
    }
    return n_gone == place->n;
}

uint32_t qyi_servers_present(const struct qyi_store *store, uint64_t *room)
{
    const struct qyi_servers *s = servers_of(store);
    uint32_t n = 0;

    *room = 0;
    for (uint32_t i = 0; i < s->params.n; i++) {
        const struct qyi_server *v = &s->servers[i];

        if (qy_peer_state(v->peer) == QY_PEER_UP && has_session(v) && !v->draining) {
            n++;
            *room += v->free_blocks;
        }
    }
    return n;
}
