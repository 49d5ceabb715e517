/* SPDX-License-Identifier: Apache-2.0 */
/* The bookkeeping of last lists: what is kept, forgotten, and copied. */
#include "tests/support/test.h"

#include <string.h>

#include "offload/step/last_lists.h"
#include "tests/support/fail_alloc.h"

enum { SEQUENCES = 3, LAYERS = 2, HEADS = 2, CAPACITY = 4 };

static const struct qyi_last_lists sizes = {
    .n_sequences = SEQUENCES, .n_layers = LAYERS, .n_heads = HEADS, .capacity = CAPACITY};

static struct qyi_last_lists open_lists(void)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qyi_last_lists lists = sizes;

    assert_int_equal(qyi_last_lists_open(&mem, &lists), QY_OK);
    return lists;
}

static void close_lists(struct qyi_last_lists *lists)
{
    const struct qy_allocator mem = qy_allocator_system();

    qyi_last_lists_close(&mem, lists);
    assert_null(lists->lists);
}

static void last_lists_are_one_per_sequence_layer_and_head(void **state)
{
    struct qyi_last_lists lists = open_lists();
    (void)state;

    for (uint32_t i = 0; i < SEQUENCES * LAYERS * HEADS; i++) {
        const uint32_t ids[CAPACITY] = {i, i + 100, i + 200, i + 300};
        struct qyi_last_list *list =
            qyi_last_list(&lists, i / (LAYERS * HEADS), i / HEADS % LAYERS, i % HEADS);

        assert_int_equal(list->n, 0);
        qyi_last_list_keep(list, 400 + i, 390 + i, ids, i % (CAPACITY + 1));
    }
    for (uint32_t i = 0; i < SEQUENCES * LAYERS * HEADS; i++) {
        const struct qyi_last_list *list =
            qyi_last_list(&lists, i / (LAYERS * HEADS), i / HEADS % LAYERS, i % HEADS);

        assert_int_equal(list->n, 400 + i);
        assert_int_equal(list->hi, 390 + i);
        assert_int_equal(list->n_ids, i % (CAPACITY + 1));
        for (uint32_t j = 0; j < list->n_ids; j++) {
            assert_int_equal(list->ids[j], i + 100 * j);
        }
    }
    close_lists(&lists);
}

static void last_lists_of_a_cut_sequence_are_forgotten(void **state)
{
    static const struct {
        uint32_t kept_at, cut, left;
    } cases[] = {{10, 10, 10}, {10, 11, 10}, {10, 9, 0}, {10, 0, 0}, {0, 5, 0}};
    const uint32_t ids[2] = {3, 5};
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qyi_last_lists lists = open_lists();

        for (uint32_t s = 0; s < SEQUENCES; s++) {
            qyi_last_list_keep(qyi_last_list(&lists, s, 1, 1), cases[i].kept_at, 8, ids, 2);
        }
        qyi_last_lists_forget(&lists, 1, cases[i].cut);
        assert_int_equal(qyi_last_list(&lists, 1, 1, 1)->n, cases[i].left);
        assert_int_equal(qyi_last_list(&lists, 0, 1, 1)->n, cases[i].kept_at);
        assert_int_equal(qyi_last_list(&lists, 2, 1, 1)->n, cases[i].kept_at);
        close_lists(&lists);
    }
}

static void last_lists_of_a_copy_are_its_own(void **state)
{
    const uint32_t ids[3] = {3, 5, 9};
    const uint32_t others[1] = {4};
    struct qyi_last_lists lists = open_lists();
    (void)state;

    qyi_last_list_keep(qyi_last_list(&lists, 0, 1, 0), 20, 12, ids, 3);
    qyi_last_list_keep(qyi_last_list(&lists, 2, 0, 0), 7, 6, others, 1);
    qyi_last_lists_copy(&lists, 2, 0);
    qyi_last_list_keep(qyi_last_list(&lists, 0, 1, 0), 21, 13, others, 1);
    const struct qyi_last_list *copy = qyi_last_list(&lists, 2, 1, 0);
    assert_int_equal(copy->n, 20);
    assert_int_equal(copy->hi, 12);
    assert_int_equal(copy->n_ids, 3);
    assert_memory_equal(copy->ids, ids, sizeof(ids));
    assert_int_equal(qyi_last_list(&lists, 2, 0, 0)->n, 0);
    close_lists(&lists);
}

/* No lists at all, as in a cache where nobody asks for them. */
static void last_lists_that_are_not_kept_can_be_forgotten(void **state)
{
    struct qyi_last_lists none = {0};
    (void)state;

    qyi_last_lists_forget(&none, 5, 0);
    qyi_last_lists_copy(&none, 1, 0);
    assert_int_equal(qyi_last_lists_bytes(&none), 0);
}

static void last_lists_survive_every_failed_allocation(void **state)
{
    (void)state;

    for (long n = 0;; n++) {
        struct fail_alloc f = {.fail_at = n};
        const struct qy_allocator mem = fail_alloc_make(&f);
        struct qyi_last_lists lists = sizes;
        const enum qy_status st = qyi_last_lists_open(&mem, &lists);

        qyi_last_lists_close(&mem, &lists);
        assert_int_equal(f.live, 0);
        if (st == QY_OK) {
            assert_int_equal(n, 2);
            return;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_lists_are_one_per_sequence_layer_and_head),
        cmocka_unit_test(last_lists_of_a_cut_sequence_are_forgotten),
        cmocka_unit_test(last_lists_of_a_copy_are_its_own),
        cmocka_unit_test(last_lists_that_are_not_kept_can_be_forgotten),
        cmocka_unit_test(last_lists_survive_every_failed_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
