/* SPDX-License-Identifier: Apache-2.0 */
/* The residency cache against a plain model: random steps, rows given back, sequences cut. */
#include "tests/unit/offload/residency_bed.h"

#include <stdlib.h>
#include <string.h>

enum { SETS = 3, HEADS = 2, TOKENS = 48, SLOTS = 40, FIRST = RESIDENCY_FIRST, NONE = -1 };

static struct qyi_residency *open_with(enum qy_eviction eviction, uint32_t slots)
{
    return residency_bed(eviction, SETS, HEADS, TOKENS, slots);
}

/* One set, as the comments of residency.h and residency.c tell it: argmin by search. */
struct model {
    enum qy_eviction eviction;
    uint32_t n; /* slots */
    struct {
        int head, token; /* NONE: free */
        long last;       /* step of the last use */
        int score, passed;
    } slots[SLOTS];
    long step;
    uint32_t hand;
};

static int model_find(const struct model *m, int head, int token)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->slots[i].head == head && m->slots[i].token == token) {
            return (int)i;
        }
    }
    return NONE;
}

static void model_begin(struct model *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        m->slots[i].score += m->slots[i].head != NONE && m->slots[i].last == m->step;
        m->slots[i].score /= (m->step + 1) % 16 == 0 ? 2 : 1;
    }
    m->step++;
}

static uint32_t model_hand(struct model *m)
{
    for (;; m->hand = (m->hand + 1) % m->n) {
        const uint32_t i = m->hand;

        if (m->slots[i].last == m->step) {
            continue;
        }
        if (m->slots[i].passed) {
            m->hand = (i + 1) % m->n;
            return i;
        }
        m->slots[i].passed = 1;
    }
}

static uint32_t model_victim(struct model *m)
{
    const int free_slot = model_find(m, NONE, NONE);
    uint32_t best = UINT32_MAX;

    if (free_slot != NONE) {
        return (uint32_t)free_slot;
    }
    if (m->eviction == QY_EVICT_CLOCK) {
        return model_hand(m);
    }
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->slots[i].last == m->step) {
            continue;
        }
        if (best == UINT32_MAX ||
            (m->eviction == QY_EVICT_LRU ? m->slots[i].last < m->slots[best].last
                                         : m->slots[i].score < m->slots[best].score)) {
            best = i;
        }
    }
    return best;
}

static void model_free(struct model *m, uint32_t slot)
{
    m->slots[slot].head = m->slots[slot].token = NONE;
    m->slots[slot].last = -1;
}

static void model_forget(struct model *m, int n_tokens)
{
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->slots[i].token >= n_tokens) {
            model_free(m, i);
        }
    }
}

static uint32_t model_takeable(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n; i++) {
        n += m->slots[i].head == NONE || m->slots[i].last != m->step;
    }
    return n;
}

static uint32_t model_used(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n; i++) {
        n += m->slots[i].head != NONE;
    }
    return n;
}

struct world {
    struct qyi_residency *r;
    struct model models[SETS];
    uint64_t random;
};

static uint32_t draw(struct world *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(w->random >> 33) % below;
}

static void expect_same(const struct world *w)
{
    assert_true(qyi_residency_sound(w->r));
    for (uint32_t s = 0; s < SETS; s++) {
        assert_int_equal(qyi_residency_used(w->r, s), model_used(&w->models[s]));
        assert_int_equal(qyi_residency_takeable(w->r, s), model_takeable(&w->models[s]));
    }
}

/* Ascending ids, of which the low ones are popular. */
static uint32_t draw_ids(struct world *w, uint32_t *ids)
{
    const uint32_t density = 1 + draw(w, 30);
    uint32_t n = 0;

    for (uint32_t t = 0; t < TOKENS; t++) {
        if (draw(w, 100) < (t < 6 ? 60 : density)) {
            ids[n++] = t;
        }
    }
    return n;
}

/* What find says of a head: the model's slots, and their uses. */
static uint32_t find_both(struct world *w, uint32_t set, uint32_t head, const uint32_t *ids,
                          uint32_t n, uint32_t *slots, uint32_t *misses)
{
    struct model *m = &w->models[set];
    const uint32_t n_misses = qyi_residency_find(w->r, set, head, ids, n, slots, misses);
    uint32_t missed = 0;

    for (uint32_t i = 0; i < n; i++) {
        const int slot = model_find(m, (int)head, (int)ids[i]);

        if (slot == NONE) {
            assert_int_equal(slots[i], QYI_NO_SLOT);
            assert_int_equal(misses[missed++], i);
        } else {
            assert_int_equal(slots[i], FIRST + set * m->n + (uint32_t)slot);
            m->slots[slot].last = m->step;
            m->slots[slot].passed = 0;
        }
    }
    assert_int_equal(n_misses, missed);
    return n_misses;
}

static void take_both(struct world *w, uint32_t set, uint32_t head, const uint32_t *ids,
                      const uint32_t *misses, uint32_t n, uint32_t *slots)
{
    struct model *m = &w->models[set];
    const uint32_t room = model_takeable(m);

    if (n > room) {
        uint32_t before[TOKENS];

        memcpy(before, slots, sizeof(before));
        assert_int_equal(qyi_residency_take(w->r, set, head, ids, misses, n, slots), QY_AGAIN);
        assert_memory_equal(before, slots, sizeof(before));
        expect_same(w);
        n = room;
    }
    assert_int_equal(qyi_residency_take(w->r, set, head, ids, misses, n, slots), QY_OK);
    for (uint32_t j = 0; j < n; j++) {
        const uint32_t slot = model_victim(m);

        assert_true(slot < m->n);
        assert_int_equal(slots[misses[j]], FIRST + set * m->n + slot);
        m->slots[slot].head = (int)head;
        m->slots[slot].token = (int)ids[misses[j]];
        m->slots[slot].last = m->step;
        m->slots[slot].score = m->slots[slot].passed = 0;
    }
    if (n > 0 && draw(w, 6) == 0) { /* some never arrive */
        const uint32_t first = draw(w, n);

        for (uint32_t j = first; j < n; j++) {
            qyi_residency_drop(w->r, set, head, &ids[misses[j]], 1);
            model_free(m, (uint32_t)model_find(m, (int)head, (int)ids[misses[j]]));
        }
    }
}

/* A step of a set: heads one by one, or all of them found before any is given slots. */
static void step_both(struct world *w, uint32_t set)
{
    uint32_t ids[HEADS][TOKENS], misses[HEADS][TOKENS], slots[HEADS][TOKENS];
    uint32_t n_misses[HEADS];
    const int together = draw(w, 2) == 0;

    memset(slots, 0, sizeof(slots));
    qyi_residency_begin(w->r, set);
    model_begin(&w->models[set]);
    for (uint32_t h = 0; h < HEADS; h++) {
        n_misses[h] = find_both(w, set, h, ids[h], draw_ids(w, ids[h]), slots[h], misses[h]);
        if (!together) {
            take_both(w, set, h, ids[h], misses[h], n_misses[h], slots[h]);
        }
    }
    for (uint32_t h = 0; together && h < HEADS; h++) {
        take_both(w, set, h, ids[h], misses[h], n_misses[h], slots[h]);
    }
}

static void random_steps_are_those_of_the_model(void **state)
{
    (void)state;
    for (uint32_t run = 0; run < 60; run++) {
        const enum qy_eviction eviction = (enum qy_eviction)(run % 3);
        struct world w = {.random = run * 77 + 1};
        const uint32_t slots = 1 + draw(&w, SLOTS);

        w.r = open_with(eviction, slots);
        for (uint32_t s = 0; s < SETS; s++) {
            w.models[s] = (struct model){.eviction = eviction, .n = slots};
            model_forget(&w.models[s], -1);
        }
        for (int i = 0; i < 150; i++) {
            const uint32_t set = draw(&w, SETS);

            if (draw(&w, 25) == 0) {
                const uint32_t keep = draw(&w, 3) == 0 ? 0 : draw(&w, TOKENS);

                qyi_residency_forget(w.r, set, keep);
                model_forget(&w.models[set], (int)keep);
            } else {
                step_both(&w, set);
            }
            expect_same(&w);
        }
        for (uint32_t s = 0; s < SETS; s++) {
            qyi_residency_forget(w.r, s, 0);
            model_forget(&w.models[s], 0);
        }
        expect_same(&w);
        qyi_residency_close(w.r);
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

/* Steps of one set, by one thread. Each row counts how often it was missing. */
static void walk(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct qyi_residency *r = arg;

    for (uint32_t step = 0; step < 200; step++) {
        for (uint32_t set = thread; set < SETS; set += n_threads) {
            uint32_t ids[8], slots[8], misses[8];

            for (uint32_t i = 0; i < 8; i++) {
                ids[i] = 6 * i + (step * (set + 1) + i) % 6;
            }
            qyi_residency_begin(r, set);
            const uint32_t n = qyi_residency_find(r, set, 1, ids, 8, slots, misses);
            if (qyi_residency_take(r, set, 1, ids, misses, n, slots) != QY_OK) {
                abort();
            }
        }
    }
}

static void sets_may_be_used_by_different_threads(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_team_params params = {.n_threads = SETS};
    struct qyi_residency *alone = open_with(QY_EVICT_LRU, 12);
    struct qyi_residency *r = open_with(QY_EVICT_LRU, 12);
    struct qy_team *team = NULL;
    (void)state;

    assert_int_equal(qy_team_open(&mem, &params, &team, NULL), QY_OK);
    qy_team_run(team, walk, r);
    qy_team_close(team);
    walk(alone, 0, 1);
    assert_true(qyi_residency_sound(r));
    for (uint32_t set = 0; set < SETS; set++) {
        uint32_t ids[TOKENS], a[TOKENS], b[TOKENS], misses[TOKENS];

        for (uint32_t t = 0; t < TOKENS; t++) {
            ids[t] = t;
        }
        (void)qyi_residency_find(alone, set, 1, ids, TOKENS, a, misses);
        (void)qyi_residency_find(r, set, 1, ids, TOKENS, b, misses);
        assert_memory_equal(a, b, sizeof(a));
    }
    qyi_residency_close(r);
    qyi_residency_close(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps_are_those_of_the_model),
        cmocka_unit_test(sets_may_be_used_by_different_threads),
    };
    return cmocka_run_group_tests_name("offload.residency_model", tests, NULL, NULL);
}
