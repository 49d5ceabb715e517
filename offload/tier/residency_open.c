/* SPDX-License-Identifier: Apache-2.0 */
/* The residency cache: memory of it, what it holds, and whether that is consistent. */
#include "offload/tier/residency_state.h"

#include <string.h>

/* ---- open ------------------------------------------------------------------------------------ */

/* Where each part lies in the one allocation; saturates at UINT64_MAX. */
struct parts {
    uint64_t sets, map, order, score, token, head, bytes;
};

static uint64_t take_part(struct parts *p, uint64_t n, uint64_t size)
{
    const uint64_t at = p->bytes;

    if (at == UINT64_MAX || (n > 0 && size > (UINT64_MAX - at - QYI_RESIDENCY_LINE) / n)) {
        p->bytes = UINT64_MAX;
        return 0;
    }
    p->bytes = at + (n * size + QYI_RESIDENCY_LINE - 1) / QYI_RESIDENCY_LINE * QYI_RESIDENCY_LINE;
    return at;
}

static uint64_t stride_of(uint64_t slots, uint64_t size)
{
    const uint64_t per_line = QYI_RESIDENCY_LINE / size;

    return (slots + 1 + per_line - 1) / per_line * per_line;
}

static struct parts parts_of(const struct qyi_residency_params *p)
{
    struct parts parts = {0};
    const uint64_t words = stride_of(p->slots_per_set, sizeof(uint32_t)) * sizeof(uint32_t);
    const uint64_t bytes = stride_of(p->slots_per_set, 1);

    (void)take_part(&parts, 1, sizeof(struct qyi_residency));
    parts.sets = take_part(&parts, p->n_sets, sizeof(struct qyi_resident_set));
    parts.order = take_part(&parts, p->n_sets, bytes);
    parts.score = take_part(&parts, p->n_sets, bytes);
    parts.token = take_part(&parts, p->n_sets, words);
    parts.head = take_part(&parts, p->n_sets, words);
    parts.map =
        take_part(&parts, (uint64_t)p->n_sets * p->n_heads, p->max_tokens * sizeof(uint32_t));
    return parts;
}

uint64_t qyi_residency_bytes(const struct qyi_residency_params *params)
{
    return parts_of(params).bytes;
}

enum qy_status qyi_residency_open(const struct qy_allocator *mem,
                                  const struct qyi_residency_params *params,
                                  struct qyi_residency **residency, struct qy_error *err)
{
    const uint64_t slots = (uint64_t)params->n_sets * params->slots_per_set;
    const struct parts at = parts_of(params);

    if (params->slots_per_set == 0 || slots + params->first_slot >= QYI_NO_SLOT) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "residency: %u sets of %u slots from %u on; 1 to %u slots are accepted",
                            params->n_sets, params->slots_per_set, params->first_slot,
                            QYI_NO_SLOT - 1);
    }
    uint8_t *base = at.bytes < SIZE_MAX ? qy_alloc_zero(mem, (size_t)at.bytes) : NULL;
    if (!base) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "residency: out of memory for %llu bytes; lower the number of tokens "
                            "or sequences",
                            (unsigned long long)at.bytes);
    }
    struct qyi_residency *r = (void *)base;
    *r = (struct qyi_residency){
        .params = *params,
        .mem = *mem,
        .bytes_stride = stride_of(params->slots_per_set, 1),
        .words_stride = stride_of(params->slots_per_set, sizeof(uint32_t)),
        .sets = (void *)(base + at.sets),
        .map = (void *)(base + at.map),
        .order = base + at.order,
        .score = base + at.score,
        .token = (void *)(base + at.token),
        .head = (void *)(base + at.head),
    };
    for (uint32_t set = 0; set < params->n_sets; set++) {
        memset(r->order + set * r->bytes_stride + 1, QYI_ORDER_FREE, params->slots_per_set);
        r->sets[set].hand = 1;
        qyi_residency_restart(&r->sets[set]);
    }
    *residency = r;
    return QY_OK;
}

void qyi_residency_close(struct qyi_residency *residency)
{
    if (residency) {
        const struct qy_allocator mem = residency->mem;

        qy_free(&mem, residency);
    }
}

/* ---- what is there --------------------------------------------------------------------------- */

uint32_t qyi_residency_used(const struct qyi_residency *residency, uint32_t set)
{
    return residency->sets[set].n_used;
}

uint32_t qyi_residency_takeable(const struct qyi_residency *residency, uint32_t set)
{
    return residency->params.slots_per_set - residency->sets[set].n_pinned;
}

static int set_is_sound(const struct qyi_residency *r, uint32_t set)
{
    const struct qyi_residency_params *p = &r->params;
    const uint8_t *order = r->order + set * r->bytes_stride;
    uint32_t n_used = 0;
    uint32_t n_pinned = 0;
    uint32_t n_mapped = 0;

    for (uint32_t slot = 1; slot <= p->slots_per_set; slot++) {
        const size_t at = set * r->words_stride + slot;

        if (order[slot] == QYI_ORDER_FREE) {
            continue;
        }
        n_used++;
        n_pinned += order[slot] == QYI_ORDER_PINNED;
        if (r->head[at] >= p->n_heads || r->token[at] >= p->max_tokens ||
            qyi_residency_map(r, set, r->head[at])[r->token[at]] != slot) {
            return 0;
        }
    }
    for (uint32_t h = 0; h < p->n_heads; h++) { /* no entry but those that the slots name */
        for (uint32_t t = 0; t < p->max_tokens; t++) {
            n_mapped += qyi_residency_map(r, set, h)[t] != 0;
        }
    }
    return order[0] == QYI_ORDER_PINNED && n_used == r->sets[set].n_used &&
           n_pinned == r->sets[set].n_pinned && n_mapped == n_used;
}

int qyi_residency_sound(const struct qyi_residency *residency)
{
    for (uint32_t set = 0; set < residency->params.n_sets; set++) {
        if (!set_is_sound(residency, set)) {
            return 0;
        }
    }
    return 1;
}
