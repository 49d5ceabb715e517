/* SPDX-License-Identifier: Apache-2.0 */
/* The fabric itself: its places, the rules for messages, and what happens to nodes. */
#include "net/loopback_internal.h"

#include <assert.h>
#include <string.h>

enum qy_status qy_fabric_open(const struct qy_fabric_params *params, struct qy_fabric **fabric,
                              struct qy_error *err)
{
    if (params == NULL || params->mem == NULL || fabric == NULL ||
        !(params->gbps >= 0 && params->gbps <= 1e6)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "fabric: bad parameters; memory is needed, and gbps from 0 to 1e6");
    }
    struct qy_fabric *made = qy_alloc_zero(params->mem, sizeof(*made));
    if (made == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "fabric: no memory for it; close something");
    }
    made->mem = params->mem;
    made->order = params->order;
    made->latency_ns = params->latency_ns;
    made->gbps = params->gbps;
    made->random = params->seed;
    *fabric = made;
    return QY_OK;
}

void qy_fabric_close(struct qy_fabric *fabric)
{
    if (fabric == NULL) {
        return;
    }
    assert(fabric->n_loops == 0 && fabric->links == NULL);
    while (fabric->places != NULL) {
        struct qyi_place *place = fabric->places;
        fabric->places = place->next;
        qy_free(fabric->mem, place);
    }
    qy_free(fabric->mem, fabric->loops);
    qy_free(fabric->mem, fabric->rules);
    qy_free(fabric->mem, fabric);
}

uint64_t qy_fabric_now(const struct qy_fabric *fabric)
{
    return fabric->now_ns;
}

/* splitmix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators". */
uint64_t qyi_fabric_draw(struct qy_fabric *fabric, uint64_t n)
{
    uint64_t z = fabric->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

static struct qyi_place *find(struct qy_fabric *fabric, const char *address)
{
    for (struct qyi_place *place = fabric->places; place != NULL; place = place->next) {
        if (address[0] != '\0' && strcmp(place->address, address) == 0) {
            return place;
        }
    }
    return NULL;
}

struct qyi_place *qyi_fabric_place(struct qy_fabric *fabric, const char *address)
{
    assert(strlen(address) < QY_NET_ADDRESS_BYTES);
    struct qyi_place *place = find(fabric, address);
    if (place == NULL) {
        place = qy_alloc_zero(fabric->mem, sizeof(*place));
        if (place != NULL) {
            strcpy(place->address, address);
            place->next = fabric->places;
            fabric->places = place;
        }
    }
    return place;
}

int qyi_fabric_grow(struct qy_fabric *fabric, void **array, uint32_t n, uint32_t *room,
                    size_t bytes)
{
    if (n < *room) {
        return 1;
    }
    uint32_t wanted = *room == 0 ? 8 : 2 * *room;
    void *larger = qy_alloc_zero(fabric->mem, wanted * bytes);
    if (larger == NULL) {
        return 0;
    }
    if (n > 0) {
        memcpy(larger, *array, n * bytes);
    }
    qy_free(fabric->mem, *array);
    *array = larger;
    *room = wanted;
    return 1;
}

/* ---- rules --------------------------------------------------------------------------------- */

static int copy_address(const char *address, char *to, int *any)
{
    *any = address == NULL;
    if (address == NULL) {
        return 1;
    }
    if (strlen(address) >= QY_NET_ADDRESS_BYTES) {
        return 0;
    }
    strcpy(to, address);
    return 1;
}

enum qy_status qy_fabric_inject(struct qy_fabric *fabric, const struct qy_fabric_rule *rule)
{
    struct qyi_rule made = {.fault = rule->fault, .after = rule->after, .ns = rule->ns};
    made.last = rule->count == UINT32_MAX ? UINT64_MAX : made.after + rule->count;
    if (!copy_address(rule->from, made.from, &made.from_any) ||
        !copy_address(rule->to, made.to, &made.to_any) || rule->fault < QY_FABRIC_DROP ||
        rule->fault > QY_FABRIC_GARBLE) {
        return QY_ERR_INVALID;
    }
    void *rules = fabric->rules;
    if (!qyi_fabric_grow(fabric, &rules, fabric->n_rules, &fabric->rules_room, sizeof(made))) {
        return QY_ERR_NOMEM;
    }
    fabric->rules = rules;
    fabric->rules[fabric->n_rules++] = made;
    return QY_OK;
}

void qy_fabric_heal(struct qy_fabric *fabric)
{
    fabric->n_rules = 0;
}

struct qyi_faults qyi_fabric_meet(struct qy_fabric *fabric, const struct qyi_place *from,
                                  const struct qyi_place *to)
{
    struct qyi_faults faults = {0};
    for (uint32_t i = 0; i < fabric->n_rules; i++) {
        struct qyi_rule *r = &fabric->rules[i];
        if ((!r->from_any && strcmp(r->from, from->address) != 0) ||
            (!r->to_any && strcmp(r->to, to->address) != 0)) {
            continue;
        }
        r->seen++;
        if (r->seen <= r->after || r->seen > r->last) {
            continue;
        }
        switch (r->fault) {
        case QY_FABRIC_DROP:
            faults.drop = 1;
            break;
        case QY_FABRIC_DELAY:
            faults.delay_ns += r->ns;
            break;
        case QY_FABRIC_DUPLICATE:
            faults.duplicate = 1;
            break;
        case QY_FABRIC_CORRUPT:
            faults.corrupt = 1;
            break;
        case QY_FABRIC_GARBLE:
            faults.garble = 1;
            break;
        }
    }
    return faults;
}

/* ---- events -------------------------------------------------------------------------------- */

static void kill_node(struct qy_fabric *fabric, struct qyi_place *place)
{
    struct qyi_loop *loop = place->loop;
    loop->dead = 1;
    place->loop = NULL;
    place->stopped = 0;
    for (struct qyi_link *link = fabric->links; link != NULL; link = link->after) {
        for (int side = 0; side < 2; side++) {
            if (link->ends[side].state == QYI_END_OPEN && link->ends[side].loop == loop) {
                qyi_link_leave(link, side, "connection reset by remote peer");
            }
        }
    }
}

enum qy_status qy_fabric_happens(struct qy_fabric *fabric, const char *address,
                                 enum qy_fabric_event event)
{
    if (fabric->moving) {
        return QY_AGAIN;
    }
    struct qyi_place *place = find(fabric, address);
    if (place == NULL) {
        return QY_ERR_NOT_FOUND;
    }
    switch (event) {
    case QY_FABRIC_KILL:
        if (place->loop == NULL) {
            return QY_ERR_NOT_FOUND;
        }
        kill_node(fabric, place);
        return QY_OK;
    case QY_FABRIC_STOP:
        if (place->loop == NULL) {
            return QY_ERR_NOT_FOUND;
        }
        place->stopped = 1;
        return QY_OK;
    case QY_FABRIC_CUT:
        place->cut = 1;
        return QY_OK;
    case QY_FABRIC_RESUME:
        place->stopped = 0;
        place->cut = 0;
        return QY_OK;
    }
    return QY_ERR_INVALID;
}
