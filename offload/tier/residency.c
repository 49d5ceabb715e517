/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See residency.h. What decides is one byte per slot, its *order*: 0 is pinned, 255 is free, and of
 * the others the largest leaves first, ties by slot number. The policies differ in how a step's
 * beginning rewrites these bytes, a plain loop over bytes that the compiler vectorises:
 *
 *   lru    steps since the last use, up to OLDEST: older ones fall together
 *   lfu    OLDEST less the score. chosen: each step in which a row is asked for adds 1, and all
 *          scores are halved every HALVE_STEPS steps of the set, so that a row that was popular once
 *          does not stay for ever
 *   clock  1: asked for since the hand came by, 2: not. The hand turns a 1 into a 2 and takes a 2.
 *          chosen: a row that was just brought counts as asked for
 *
 * Measured (quarry bench residency, SmolLM2-135M, 4,096 tokens): share of the rows chosen by a2ats+
 * that are found, with slots for 1.5 / 2 / 3 times the rows of a step
 *
 *             text, fast          code, fast          text, faithful
 *   lru    .837 / .895 / .939  .804 / .873 / .935  .668 / .765 / .874
 *   lfu    .840 / .896 / .940  .812 / .881 / .940  .675 / .773 / .884
 *   clock  .834 / .892 / .935  .801 / .869 / .928  .666 / .761 / .870
 *
 * To find the next victim is to look for the byte `level` from a cursor on, and where there is none
 * to go on with the next lower byte that occurs. The cursor stays where it is until the next step:
 * until then bytes only fall to 0. What gives slots back in between starts it anew.
 *
 * Slots of a set are counted from 1 here, because 0 in the map says "not resident". Byte 0 belongs to
 * no slot and stays 0: find may look it up and write it as if it were a pinned one.
 */
#include "offload/tier/residency_state.h"

#include <string.h>

enum { CLOCK_USED = 1, CLOCK_UNUSED = 2, OLDEST = 254 };
enum { HALVE_STEPS = 16, SCORE_MAX = OLDEST - 1 };

/* ---- a step ---------------------------------------------------------------------------------- */

static void age(uint8_t *restrict order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        order[i] = (uint8_t)(order[i] + (order[i] < OLDEST));
    }
}

static void rate(uint8_t *restrict order, uint8_t *restrict score, uint32_t n, int halve)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t more = (uint8_t)((order[i] == QYI_ORDER_PINNED) & (score[i] < SCORE_MAX));
        const uint8_t sum = (uint8_t)(score[i] + more);

        score[i] = (uint8_t)(halve ? sum >> 1 : sum);
        order[i] = (uint8_t)(order[i] == QYI_ORDER_FREE ? QYI_ORDER_FREE : OLDEST - score[i]);
    }
}

static void unpin(uint8_t *restrict order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        order[i] = order[i] > CLOCK_USED ? order[i] : CLOCK_USED;
    }
}

/* What a guess pinned is as if used in the step before; lfu: by its score, so what a wrong guess brought
 * leaves first. */
static void unpin_guess(const struct qyi_residency *r, uint32_t set)
{
    const enum qy_eviction eviction = r->params.eviction;
    const uint8_t *score = r->score + set * r->bytes_stride + 1;
    uint8_t *order = r->order + set * r->bytes_stride + 1;

    for (uint32_t i = 0; i < r->params.slots_per_set; i++) {
        if (order[i] == QYI_ORDER_PINNED) {
            order[i] = (uint8_t)(eviction == QY_EVICT_LFU ? OLDEST - score[i] : CLOCK_USED);
        }
    }
}

static void new_step(struct qyi_residency *residency, uint32_t set)
{
    struct qyi_resident_set *s = &residency->sets[set];
    const uint32_t n = residency->params.slots_per_set;
    uint8_t *order = residency->order + set * residency->bytes_stride + 1;

    s->n_steps++;
    switch (residency->params.eviction) {
    case QY_EVICT_LRU:
        age(order, n);
        break;
    case QY_EVICT_LFU:
        rate(order, residency->score + set * residency->bytes_stride + 1, n,
             s->n_steps % HALVE_STEPS == 0);
        break;
    case QY_EVICT_CLOCK:
        unpin(order, n);
        break;
    }
}

void qyi_residency_begin(struct qyi_residency *residency, uint32_t set)
{
    struct qyi_resident_set *s = &residency->sets[set];

    if (s->is_ahead) {
        unpin_guess(residency, set);
    } else {
        new_step(residency, set);
    }
    s->is_ahead = 0;
    s->n_pinned = 0;
    qyi_residency_restart(s);
}

void qyi_residency_begin_ahead(struct qyi_residency *residency, uint32_t set)
{
    qyi_residency_begin(residency, set);
    residency->sets[set].is_ahead = 1;
}

/* Where one id of find lies, and what there is to write. */
struct find {
    const uint32_t *map;
    uint8_t *order;
    uint32_t before; /* number of the slot before the set's first */
    uint32_t n_misses, n_pinned;
};

static inline void find_one(struct find *f, const uint32_t *ids, uint32_t i, uint32_t *slots,
                            uint32_t *misses)
{
    const uint32_t slot = f->map[ids[i]];

    f->n_pinned += f->order[slot] != QYI_ORDER_PINNED;
    f->order[slot] = QYI_ORDER_PINNED;
    slots[i] = slot == 0 ? QYI_NO_SLOT : f->before + slot;
    misses[f->n_misses] = i;
    f->n_misses += slot == 0;
}

uint32_t qyi_residency_find(struct qyi_residency *residency, uint32_t set, uint32_t head,
                            const uint32_t *ids, uint32_t n, uint32_t *slots, uint32_t *misses)
{
    enum { AHEAD = 32 };
    const struct qyi_residency_params *p = &residency->params;
    struct find f = {.map = qyi_residency_map(residency, set, head),
                     .order = residency->order + set * residency->bytes_stride,
                     .before = p->first_slot + set * p->slots_per_set - 1};
    uint32_t i = 0;

    for (; i + AHEAD < n; i++) {
        __builtin_prefetch(f.map + ids[i + AHEAD]);
        find_one(&f, ids, i, slots, misses);
    }
    for (; i < n; i++) {
        find_one(&f, ids, i, slots, misses);
    }
    residency->sets[set].n_pinned += f.n_pinned;
    return f.n_misses;
}

/* The largest byte below `level`. */
static uint32_t highest_below(const uint8_t *order, uint32_t n, uint32_t level)
{
    uint8_t highest = 0;

    for (uint32_t i = 0; i < n; i++) {
        const uint8_t o = order[i] < level ? order[i] : 0;

        highest = o > highest ? o : highest;
    }
    return highest;
}

/* The next slot with the byte `level`; 0: there is none. */
static uint32_t next_of_level(struct qyi_resident_set *s, const uint8_t *order, uint32_t n)
{
    const uint8_t *at = memchr(order + s->cursor, (int)s->level, (size_t)n + 1 - s->cursor);

    if (!at) {
        return 0;
    }
    const uint32_t slot = (uint32_t)(at - order);
    s->cursor = slot + 1;
    return slot;
}

/* A free slot; if there is none, the one that the hand stops at. */
static uint32_t next_of_clock(struct qyi_resident_set *s, uint8_t *order, uint32_t n)
{
    if (s->level == QYI_ORDER_FREE) {
        const uint32_t slot = next_of_level(s, order, n);

        if (slot > 0) {
            return slot;
        }
        s->level = CLOCK_UNUSED;
    }
    for (;;) {
        const uint32_t slot = s->hand;

        s->hand = slot == n ? 1 : slot + 1;
        if (order[slot] == CLOCK_UNUSED) {
            return slot;
        }
        if (order[slot] == CLOCK_USED) {
            order[slot] = CLOCK_UNUSED;
        }
    }
}

/* A slot to give away. There is one that is not pinned. */
static uint32_t next_victim(const struct qyi_residency *r, struct qyi_resident_set *s,
                            uint8_t *order)
{
    const uint32_t n = r->params.slots_per_set;

    if (r->params.eviction == QY_EVICT_CLOCK) {
        return next_of_clock(s, order, n);
    }
    for (;;) {
        const uint32_t slot = next_of_level(s, order, n);

        if (slot > 0) {
            return slot;
        }
        s->level = highest_below(order + 1, n, s->level);
        s->cursor = 1;
    }
}

enum qy_status qyi_residency_take(struct qyi_residency *residency, uint32_t set, uint32_t head,
                                  const uint32_t *ids, const uint32_t *misses, uint32_t n_misses,
                                  uint32_t *slots)
{
    const struct qyi_residency_params *p = &residency->params;
    struct qyi_resident_set *s = &residency->sets[set];
    uint8_t *order = residency->order + set * residency->bytes_stride;
    uint8_t *score = residency->score + set * residency->bytes_stride;
    uint32_t *tokens = residency->token + set * residency->words_stride;
    uint32_t *heads = residency->head + set * residency->words_stride;
    uint32_t *map = qyi_residency_map(residency, set, head);

    if (n_misses > p->slots_per_set - s->n_pinned) {
        return QY_AGAIN;
    }
    for (uint32_t j = 0; j < n_misses; j++) {
        const uint32_t id = ids[misses[j]];
        const uint32_t slot = next_victim(residency, s, order);

        if (order[slot] == QYI_ORDER_FREE) {
            s->n_used++;
        } else {
            qyi_residency_map(residency, set, heads[slot])[tokens[slot]] = 0;
        }
        tokens[slot] = id;
        heads[slot] = head;
        map[id] = slot;
        score[slot] = 0;
        order[slot] = QYI_ORDER_PINNED;
        slots[misses[j]] = p->first_slot + set * p->slots_per_set - 1 + slot;
    }
    s->n_pinned += n_misses;
    return QY_OK;
}

/* ---- giving back ----------------------------------------------------------------------------- */

static void release(struct qyi_residency *r, uint32_t set, uint32_t slot)
{
    struct qyi_resident_set *s = &r->sets[set];
    uint8_t *order = r->order + set * r->bytes_stride + slot;
    const size_t at = set * r->words_stride + slot;

    qyi_residency_map(r, set, r->head[at])[r->token[at]] = 0;
    s->n_pinned -= *order == QYI_ORDER_PINNED;
    s->n_used--;
    *order = QYI_ORDER_FREE;
    qyi_residency_restart(s);
}

void qyi_residency_drop(struct qyi_residency *residency, uint32_t set, uint32_t head,
                        const uint32_t *ids, uint32_t n)
{
    const uint32_t *map = qyi_residency_map(residency, set, head);

    for (uint32_t i = 0; i < n; i++) {
        if (map[ids[i]] != 0) {
            release(residency, set, map[ids[i]]);
        }
    }
}

void qyi_residency_forget(struct qyi_residency *residency, uint32_t set, uint32_t n_tokens)
{
    const uint8_t *order = residency->order + set * residency->bytes_stride;
    const uint32_t *tokens = residency->token + set * residency->words_stride;

    for (uint32_t slot = 1; slot <= residency->params.slots_per_set; slot++) {
        if (order[slot] != QYI_ORDER_FREE && tokens[slot] >= n_tokens) {
            release(residency, set, slot);
        }
    }
}
