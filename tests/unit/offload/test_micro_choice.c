/* SPDX-License-Identifier: Apache-2.0 */
/* Which number of micro-batches is settled on, from made-up times of steps. */
#include "offload/step/micro_choice.h"
#include "tests/support/test.h"

/* What a step with n micro-batches takes, and how noise adds to the i-th. */
struct world {
    uint64_t ns[QY_MICRO_BATCHES];
    uint64_t (*noise)(uint32_t i);
};

static uint64_t none(uint32_t i)
{
    (void)i;
    return 0;
}

/* Most steps are held up, some numbers more often than others. */
static uint64_t heavy(uint32_t i)
{
    return i % 7 < 2 ? 0 : 500 + i * 37 % 900;
}

/* The device is empty at first. */
static uint64_t cold(uint32_t i)
{
    return i < 4 ? 10000 : 0;
}

/* What is settled on after at most 20 steps, and kept from then on. */
static uint32_t settled(const struct world *w, uint32_t n_slices)
{
    struct qyi_micro_choice c = {0};
    uint32_t n = 0;

    for (uint32_t i = 0; i < 60; i++) {
        const uint32_t next = qyi_micro_choice_next(&c, n_slices);

        assert_in_range(next, 1, n_slices < QY_MICRO_BATCHES ? n_slices : QY_MICRO_BATCHES);
        if (i == 20) {
            n = next;
        } else if (i > 20) {
            assert_int_equal(next, n);
        }
        qyi_micro_choice_learn(&c, w->ns[next - 1] + w->noise(i));
    }
    return n;
}

static void choice_settles_on_the_quickest(void **state)
{
    (void)state;

    assert_int_equal(settled(&(struct world){{900, 1000, 1100}, none}, 16), 1);
    assert_int_equal(settled(&(struct world){{1000, 900, 1100}, none}, 16), 2);
    assert_int_equal(settled(&(struct world){{1000, 900, 800}, none}, 16), 3);
    assert_int_equal(settled(&(struct world){{1000, 900, 800}, heavy}, 16), 3);
    assert_int_equal(settled(&(struct world){{800, 900, 1000}, heavy}, 16), 1);
    assert_int_equal(settled(&(struct world){{1000, 800, 900}, cold}, 16), 2);
}

static void choice_wants_a_gain_for_more(void **state)
{
    (void)state;

    assert_int_equal(settled(&(struct world){{1000, 980, 975}, none}, 16), 1);
    assert_int_equal(settled(&(struct world){{1000, 960, 940}, none}, 16), 2);
}

static void choice_has_no_more_parts_than_sequences(void **state)
{
    (void)state;

    assert_int_equal(settled(&(struct world){{1000, 900, 800}, none}, 1), 1);
    assert_int_equal(settled(&(struct world){{1000, 900, 800}, none}, 2), 2);
}

static void choice_begins_again(void **state)
{
    struct qyi_micro_choice c = {0};
    uint64_t first = 0;
    (void)state;

    for (uint32_t i = 0; i < 600; i++) { /* the world turns: after a while that is seen */
        const uint32_t n = qyi_micro_choice_next(&c, 8);

        first += i < 100 && n == 1;
        qyi_micro_choice_learn(&c, (i < 100) == (n == 1) ? 100 : 200);
    }
    assert_true(first > 80);
    assert_int_equal(qyi_micro_choice_next(&c, 8), 2);
    (void)qyi_micro_choice_next(&c, 7); /* another batch */
    assert_int_equal(c.chosen, 0);
    assert_int_equal(c.n_steps, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choice_settles_on_the_quickest),
        cmocka_unit_test(choice_wants_a_gain_for_more),
        cmocka_unit_test(choice_has_no_more_parts_than_sequences),
        cmocka_unit_test(choice_begins_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
