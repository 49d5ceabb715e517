/* SPDX-License-Identifier: Apache-2.0 */
/* Which rows are on the device, and whose slot is given away: cases by hand. */
#include "tests/unit/offload/residency_bed.h"

#include <string.h>

enum { MOST = 64, FIRST = RESIDENCY_FIRST };

/* Asks set 0, head 0 for ids, in a step of their own when `begin`. Returns the number of misses. */
static uint32_t ask(struct qyi_residency *r, int begin, uint32_t n, const uint32_t *ids,
                    uint32_t *slots)
{
    uint32_t misses[MOST];

    if (begin) {
        qyi_residency_begin(r, 0);
    }
    const uint32_t n_misses = qyi_residency_find(r, 0, 0, ids, n, slots, misses);
    assert_int_equal(qyi_residency_take(r, 0, 0, ids, misses, n_misses, slots), QY_OK);
    assert_true(qyi_residency_sound(r));
    return n_misses;
}

#define ASK(...)                                                                                   \
    ask(r, 1, (uint32_t)(sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)),                    \
        (const uint32_t[]){__VA_ARGS__}, slots)

/* Is a row of set 0, head 0 resident? (The question pins it.) */
static int has(struct qyi_residency *r, uint32_t id)
{
    uint32_t slot, miss;

    return qyi_residency_find(r, 0, 0, &id, 1, &slot, &miss) == 0;
}

/* ---- cases by hand --------------------------------------------------------------------------- */

static void free_slots_go_first_and_in_order(void **state)
{
    (void)state;
    for (int e = QY_EVICT_LRU; e <= QY_EVICT_CLOCK; e++) {
        struct qyi_residency *r = residency_bed((enum qy_eviction)e, 1, 1, 32, 6);
        uint32_t slots[MOST];

        assert_int_equal(ASK(3, 4, 9), 3);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(slots[i], FIRST + i); /* neighbours */
        }
        assert_int_equal(qyi_residency_used(r, 0), 3);
        assert_int_equal(qyi_residency_takeable(r, 0), 3);
        assert_int_equal(ASK(9, 10), 1);
        assert_int_equal(slots[0], FIRST + 2);
        assert_int_equal(slots[1], FIRST + 3);
        assert_int_equal(qyi_residency_used(r, 0), 4);
        assert_int_equal(qyi_residency_takeable(r, 0), 4);
        assert_true(has(r, 3) && has(r, 4));
        assert_int_equal(qyi_residency_takeable(r, 0), 2); /* to ask is to pin */
        qyi_residency_close(r);
    }
}

static void lru_gives_away_what_was_not_asked_for_longest(void **state)
{
    struct qyi_residency *r = residency_bed(QY_EVICT_LRU, 1, 1, 32, 4);
    uint32_t slots[MOST];
    (void)state;

    assert_int_equal(ASK(1), 1);
    assert_int_equal(ASK(2, 3), 2); /* of equal age: the slot with the lower number goes first */
    assert_int_equal(ASK(4), 1);
    assert_int_equal(ASK(1), 0);
    assert_int_equal(ASK(5), 1);
    assert_int_equal(slots[0], FIRST + 1);
    assert_int_equal(ASK(6, 7), 2);
    assert_int_equal(slots[0], FIRST + 2);
    assert_int_equal(slots[1], FIRST + 3);
    qyi_residency_begin(r, 0);
    assert_true(has(r, 1) && has(r, 5) && has(r, 6) && has(r, 7));
    assert_false(has(r, 2) || has(r, 3) || has(r, 4));
    qyi_residency_close(r);
}

/* Ages end at 254: rows that are older fall together, and then the slot number decides. */
static void lru_lets_old_ages_fall_together(void **state)
{
    static const struct {
        int steps;
        uint32_t first; /* slot that goes first: 1 was asked for later than 2 */
    } cases[] = {{252, 1}, {253, 0}, {1000, 0}};
    (void)state;

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct qyi_residency *r = residency_bed(QY_EVICT_LRU, 1, 1, 32, 2);
        uint32_t slots[MOST];

        assert_int_equal(ASK(1, 2), 2);
        assert_int_equal(ASK(1), 0);
        for (int i = 0; i < cases[c].steps; i++) {
            qyi_residency_begin(r, 0);
        }
        assert_int_equal(ASK(3), 1);
        assert_int_equal(slots[0], FIRST + cases[c].first);
        qyi_residency_close(r);
    }
}

static void lfu_keeps_what_was_asked_for_often(void **state)
{
    struct qyi_residency *r = residency_bed(QY_EVICT_LFU, 1, 1, 64, 3);
    uint32_t slots[MOST];
    (void)state;

    assert_int_equal(ASK(1), 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ASK(1), 0);
    }
    assert_int_equal(ASK(2), 1);
    assert_int_equal(ASK(2), 0);
    for (uint32_t id = 10; id < 16; id++) { /* all take the place of the last of them */
        assert_int_equal(ASK(id), 1);
        assert_int_equal(slots[0], FIRST + 2);
    }
    qyi_residency_begin(r, 0);
    assert_true(has(r, 1) && has(r, 2));
    /* what was popular once goes when it is not asked for any more */
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(ASK(20, 21), i == 0 ? 2 : 0);
    }
    assert_int_equal(ASK(30, 20, 21), 1);
    qyi_residency_begin(r, 0);
    assert_false(has(r, 1) || has(r, 2));
    qyi_residency_close(r);
}

static void clock_gives_a_second_chance(void **state)
{
    struct qyi_residency *r = residency_bed(QY_EVICT_CLOCK, 1, 1, 64, 4);
    uint32_t slots[MOST];
    (void)state;

    assert_int_equal(ASK(1, 2, 3, 4), 4);
    assert_int_equal(ASK(5), 1); /* all were asked for: the hand goes round once */
    assert_int_equal(slots[0], FIRST + 0);
    assert_int_equal(ASK(2), 0); /* asked for again: passed over */
    assert_int_equal(ASK(6), 1);
    assert_int_equal(slots[0], FIRST + 2);
    assert_int_equal(ASK(7), 1);
    assert_int_equal(slots[0], FIRST + 3);
    assert_int_equal(ASK(8), 1); /* 5, 2, 6, 7 were asked for: once round to where it stands */
    assert_int_equal(slots[0], FIRST + 1);
    qyi_residency_close(r);
}

static void slots_that_run_out_change_nothing(void **state)
{
    (void)state;
    for (int e = QY_EVICT_LRU; e <= QY_EVICT_CLOCK; e++) {
        struct qyi_residency *r = residency_bed((enum qy_eviction)e, 1, 1, 32, 3);
        const uint32_t ids[] = {7, 8, 9};
        const uint32_t misses[] = {0, 1, 2};
        uint32_t slots[MOST];
        uint32_t given[3] = {1, 2, 3};

        assert_int_equal(ASK(5, 6), 2);
        qyi_residency_begin(r, 0);
        assert_true(has(r, 5));
        assert_int_equal(qyi_residency_take(r, 0, 0, ids, misses, 3, given), QY_AGAIN);
        assert_true(given[0] == 1 && given[1] == 2 && given[2] == 3);
        assert_true(qyi_residency_sound(r));
        assert_int_equal(qyi_residency_used(r, 0), 2);
        assert_int_equal(qyi_residency_takeable(r, 0), 2);
        assert_false(has(r, 7) || has(r, 8) || has(r, 9));
        assert_int_equal(qyi_residency_take(r, 0, 0, ids, misses, 2, given), QY_OK);
        assert_int_equal(given[0], FIRST + 2); /* the free one */
        assert_int_equal(given[1], FIRST + 1); /* that of 6 */
        assert_int_equal(qyi_residency_takeable(r, 0), 0);
        assert_int_equal(qyi_residency_take(r, 0, 0, ids, misses + 2, 1, given), QY_AGAIN);
        assert_int_equal(qyi_residency_take(r, 0, 0, ids, misses, 0, given), QY_OK);
        assert_true(qyi_residency_sound(r));
        qyi_residency_close(r);
    }
}

static void one_slot_is_enough(void **state)
{
    (void)state;
    for (int e = QY_EVICT_LRU; e <= QY_EVICT_CLOCK; e++) {
        struct qyi_residency *r = residency_bed((enum qy_eviction)e, 1, 1, 8, 1);
        uint32_t slots[MOST];

        for (uint32_t i = 0; i < 40; i++) {
            assert_int_equal(ASK(i / 2 % 8), i % 2 == 0);
            assert_int_equal(slots[0], FIRST);
        }
        qyi_residency_begin(r, 0);
        assert_int_equal(qyi_residency_find(r, 0, 0, NULL, 0, NULL, NULL), 0);
        assert_int_equal(qyi_residency_takeable(r, 0), 1);
        qyi_residency_close(r);
    }
}

static void what_is_given_back_is_free(void **state)
{
    struct qyi_residency *r = residency_bed(QY_EVICT_LRU, 1, 1, 32, 4);
    const uint32_t back[] = {2, 3, 30};
    uint32_t slots[MOST];
    (void)state;

    assert_int_equal(ASK(1, 2, 3, 4), 4);
    qyi_residency_drop(r, 0, 0, back, 3); /* 30 never was there */
    assert_true(qyi_residency_sound(r));
    assert_int_equal(qyi_residency_used(r, 0), 2);
    assert_int_equal(qyi_residency_takeable(r, 0), 2); /* in the same step */
    const uint32_t next[] = {8, 9};
    assert_int_equal(ask(r, 0, 2, next, slots), 2);
    assert_int_equal(slots[0], FIRST + 1);
    assert_int_equal(slots[1], FIRST + 2);
    qyi_residency_forget(r, 0, 5);
    assert_true(qyi_residency_sound(r));
    assert_int_equal(qyi_residency_used(r, 0), 2);
    assert_true(has(r, 1) && has(r, 4));
    assert_false(has(r, 8) || has(r, 9));
    qyi_residency_forget(r, 0, 0);
    assert_int_equal(qyi_residency_used(r, 0), 0);
    assert_int_equal(qyi_residency_takeable(r, 0), 4);
    assert_true(qyi_residency_sound(r));
    qyi_residency_close(r);
}

/* ---- open ------------------------------------------------------------------------------------ */

static void *give_nothing(void *ctx, size_t bytes, size_t align)
{
    (void)align;
    *(size_t *)ctx += bytes;
    return NULL;
}

static void impossible_sizes_are_refused(void **state)
{
    static const struct {
        struct qyi_residency_params params;
        enum qy_status status;
    } cases[] = {
        {{1, 1, 8, 0, 0, QY_EVICT_LRU}, QY_ERR_INVALID},
        {{1 << 20, 1, 8, 1 << 12, 0, QY_EVICT_LRU}, QY_ERR_INVALID},
        {{1, 1, 8, 2, UINT32_MAX - 2, QY_EVICT_LRU}, QY_ERR_INVALID},
        {{1 << 30, UINT32_MAX, UINT32_MAX, 1, 0, QY_EVICT_LRU}, QY_ERR_NOMEM},
        {{2, 3, 100, 50, 0, QY_EVICT_LRU}, QY_ERR_NOMEM}, /* of give_nothing */
    };
    size_t asked = 0;
    const struct qy_allocator mem = {.ctx = &asked, .alloc = give_nothing};
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qyi_residency *r = NULL;
        struct qy_error err = {0};

        assert_int_equal(qyi_residency_open(&mem, &cases[i].params, &r, &err), cases[i].status);
        assert_null(r);
        assert_true(strstr(err.text, "residency:") != NULL);
    }
    assert_int_equal(asked,
                     qyi_residency_bytes(&cases[4].params)); /* bytes are what open asks for */
    assert_true(asked > 2 * 3 * 100 * sizeof(uint32_t));
    qyi_residency_close(NULL);
}

/* A guess brings rows before the step's lists are known: what it named is pinned until then, and the
 * step is the same one: nothing ages twice. */
static void a_guess_is_part_of_the_step_that_follows(void **state)
{
    static const uint32_t guess[2] = {5, 6};
    (void)state;
    for (int e = QY_EVICT_LRU; e <= QY_EVICT_CLOCK; e++) {
        struct qyi_residency *r = residency_bed((enum qy_eviction)e, 1, 1, 32, 4);
        uint32_t slots[MOST];
        uint32_t misses[MOST];

        assert_int_equal(ASK(1, 2, 3, 4), 4);
        assert_int_equal(ASK(1, 2, 3), 0);
        qyi_residency_begin_ahead(r, 0);
        assert_int_equal(qyi_residency_takeable(r, 0), 4); /* the last step's pins are gone */
        assert_int_equal(qyi_residency_find(r, 0, 0, guess, 2, slots, misses), 2);
        assert_int_equal(qyi_residency_take(r, 0, 0, guess, misses, 2, slots), QY_OK);
        assert_int_equal(qyi_residency_takeable(r, 0), 2);
        assert_true(qyi_residency_sound(r));
        qyi_residency_begin(r, 0);
        assert_int_equal(qyi_residency_takeable(r, 0), 4); /* a guess pins nothing any more */
        assert_int_equal(ask(r, 0, 1, &guess[1], slots), 0);
        if (e != QY_EVICT_CLOCK) { /* what the step before did not ask for went first */
            assert_false(has(r, 4));
        }
        qyi_residency_close(r);
    }
}

/* What a wrong guess brought goes before what steps ask for often. */
static void lfu_gives_away_a_wrong_guess_first(void **state)
{
    static const uint32_t guess = 9;
    struct qyi_residency *r = residency_bed(QY_EVICT_LFU, 1, 1, 32, 3);
    uint32_t slots[MOST];
    uint32_t miss = 0;
    (void)state;

    for (int i = 0; i < 4; i++) {
        (void)ASK(1, 2);
    }
    qyi_residency_begin_ahead(r, 0);
    assert_int_equal(qyi_residency_find(r, 0, 0, &guess, 1, slots, &miss), 1);
    assert_int_equal(qyi_residency_take(r, 0, 0, &guess, &miss, 1, slots), QY_OK);
    assert_int_equal(ASK(1, 3), 1); /* the begin of this step is that of the guess */
    assert_true(has(r, 2));
    assert_false(has(r, 9));
    qyi_residency_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_slots_go_first_and_in_order),
        cmocka_unit_test(lru_gives_away_what_was_not_asked_for_longest),
        cmocka_unit_test(lru_lets_old_ages_fall_together),
        cmocka_unit_test(lfu_keeps_what_was_asked_for_often),
        cmocka_unit_test(clock_gives_a_second_chance),
        cmocka_unit_test(slots_that_run_out_change_nothing),
        cmocka_unit_test(one_slot_is_enough),
        cmocka_unit_test(what_is_given_back_is_free),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(a_guess_is_part_of_the_step_that_follows),
        cmocka_unit_test(lfu_gives_away_a_wrong_guess_first),
    };
    return cmocka_run_group_tests_name("offload.residency", tests, NULL, NULL);
}
