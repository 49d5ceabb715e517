/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded selections through a residency cache: what is counted as a hit, and what is refused. */
#include "tests/support/test.h"

#include "offload/offload.h"

enum { STEPS = 4, LAYERS = 2, HEADS = 2, LISTS = STEPS * LAYERS * HEADS };

/* Layer 0 attends to all; layer 1: sinks 0, window of 2 (7 + step, 8 + step), and a chosen one. */
static const uint32_t ids[] = {0, 3, 7,  8,  0, 5, 7,  8,  /* step 0: nothing is there           */
                               0, 3, 8,  9,  0, 5, 8,  9,  /* 9 is new                            */
                               0, 4, 9,  10, 0, 5, 9,  10, /* 10 is new, and head 0's 4           */
                               0, 3, 10, 11, 0, 5, 10, 11}; /* 11 is new; 3 was in step 1        */

static void trace_of(struct qy_selection_trace *trace, uint64_t *begins)
{
    begins[0] = 0;
    for (uint32_t i = 0; i < LISTS; i++) {
        begins[i + 1] = begins[i] + (i / HEADS % LAYERS == 1 ? 4 : 0);
    }
    *trace = (struct qy_selection_trace){.n_steps = STEPS,
                                         .n_layers = LAYERS,
                                         .n_kv_heads = HEADS,
                                         .max_tokens = 12,
                                         .sinks = 1,
                                         .window = 2,
                                         .n_tokens = 9,
                                         .ids = ids,
                                         .begins = begins};
    assert_int_equal(begins[LISTS], sizeof(ids) / sizeof(ids[0]));
}

static enum qy_status replay(const struct qy_selection_trace *trace, enum qy_eviction eviction,
                             uint32_t slots, uint32_t warm_up, struct qy_replay_result *result)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_replay_params params = {eviction, slots, warm_up};

    return qy_residency_replay(&mem, trace, &params, result, NULL);
}

static void hits_are_counted_after_the_warm_up(void **state)
{
    static const struct {
        uint32_t slots, warm_up;
        uint64_t rows, hits, chosen_rows, chosen_hits, taken;
    } cases[] = {
        {32, 0, 32, 17, 8, 5, 15}, /* all rows stay: each misses once               */
        {32, 1, 24, 17, 6, 5, 7},  {32, 4, 0, 0, 0, 0, 0},
        {8, 1, 24, 16, 6, 4, 8}, /* just a step's rows: 3 is gone when it is asked for again */
        {1, 1, 24, 3, 6, 0, 0},  /* one slot: row 0 of head 0 is asked for in every step */
    };
    uint64_t begins[LISTS + 1];
    struct qy_selection_trace trace;
    (void)state;

    trace_of(&trace, begins);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_replay_result r;

        assert_int_equal(replay(&trace, QY_EVICT_LRU, cases[i].slots, cases[i].warm_up, &r), QY_OK);
        assert_int_equal(r.rows, cases[i].rows);
        assert_int_equal(r.chosen_rows, cases[i].chosen_rows);
        assert_int_equal(r.hits, cases[i].hits);
        assert_int_equal(r.chosen_hits, cases[i].chosen_hits);
        assert_int_equal(r.taken, cases[i].taken);
    }
}

static void lists_that_are_no_lists_are_refused(void **state)
{
    static const uint32_t unsorted[] = {3, 3}, far[] = {2, 12};
    uint64_t begins[LISTS + 1] = {0};
    struct qy_selection_trace trace;
    struct qy_replay_result r;
    (void)state;

    trace_of(&trace, begins);
    assert_int_equal(replay(&trace, QY_EVICT_LFU, 0, 0, &r), QY_ERR_INVALID); /* no slots */
    for (uint32_t i = 1; i <= LISTS; i++) {
        begins[i] = 2;
    }
    trace.ids = unsorted;
    assert_int_equal(replay(&trace, QY_EVICT_CLOCK, 4, 0, &r), QY_ERR_INVALID);
    trace.ids = far;
    assert_int_equal(replay(&trace, QY_EVICT_CLOCK, 4, 0, &r), QY_ERR_INVALID);
    trace.max_tokens = 13;
    assert_int_equal(replay(&trace, QY_EVICT_CLOCK, 4, 0, &r), QY_OK);
    begins[3] = 1;
    assert_int_equal(replay(&trace, QY_EVICT_CLOCK, 4, 0, &r), QY_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_counted_after_the_warm_up),
        cmocka_unit_test(lists_that_are_no_lists_are_refused),
    };
    return cmocka_run_group_tests_name("offload.residency_replay", tests, NULL, NULL);
}
