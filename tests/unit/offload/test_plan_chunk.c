/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks, pull or push: decisions worked out by hand. */
#include "tests/support/test.h"

#include "offload/tier/plan_chunk.h"

/* A row takes 10 * 2 = 20 to come, a query and row 1 here and 2 there; a token 30 each way and server. */
#define COSTS                                                                                      \
    {                                                                                              \
        .byte_ns = 2, .pair_ns = 1, .token_ns = 30, .far_row_ns = 4, .far_pair_ns = 2              \
    }

struct row {
    const char *what;
    enum qy_plan_mode mode;
    struct qyi_chunk_costs costs;
    struct qyi_chunk_work work;
    int push;
    double pull_ns, push_ns;
};

static const struct row table[] = {
    {"nothing there", QY_PLAN_PUSH, COSTS, {4, 3, 50, 0, 0, 0, 0, 10}, 0, 600, 600},
    /* 100 * 20 + 12 * 150; 4 * 30 + 100 * (4 + 24) beside 12 * 50 */
    {"a server that is slow", QY_PLAN_AUTO, COSTS, {4, 3, 50, 100, 100, 1, 1, 10}, 1, 3800, 2920},
    {"pulled if it must be", QY_PLAN_PULL, COSTS, {4, 3, 50, 100, 100, 1, 1, 10}, 0, 3800, 2920},
    /* two questions; no query of theirs is in both */
    {"two runs", QY_PLAN_AUTO, COSTS, {4, 3, 50, 100, 100, 1, 2, 10}, 1, 3800, 3320},
    {"too many runs", QY_PLAN_AUTO, COSTS, {4, 3, 50, 100, 100, 1, 4, 10}, 0, 3800, 4120},
    {"too many, pushed if it must be",
     QY_PLAN_PUSH,
     COSTS,
     {4, 3, 50, 100, 100, 1, 4, 10},
     1,
     3800,
     4120},
    {"no question holds it", QY_PLAN_PUSH, COSTS, {4, 3, 50, 100, 100, 1, 0, 10}, 0, 3800, 2520},
    /* side by side: 2 * 4 * 30 + 50 * 28 */
    {"two servers", QY_PLAN_AUTO, COSTS, {4, 3, 50, 100, 50, 2, 1, 10}, 1, 3800, 1640},
    /* the bytes of queries: 100 tokens, 3,000 each; 300 queries: 300 * 60 + 200 or 3000 + 300 * 50 */
    {"many tokens, few rows", QY_PLAN_AUTO, COSTS, {100, 3, 50, 10, 10, 1, 1, 10}, 1, 18200, 18000},
    {"many tokens, two servers",
     QY_PLAN_AUTO,
     COSTS,
     {100, 3, 50, 10, 5, 2, 1, 10},
     0,
     18200,
     21000},
    /* what is here takes longer than what is there: 120 + 12 * 500, 2000 + 12 * 600 */
    {"hidden behind the device",
     QY_PLAN_AUTO,
     COSTS,
     {4, 3, 500, 100, 100, 1, 1, 10},
     1,
     9200,
     6120},
    {"nothing costs anything",
     QY_PLAN_AUTO,
     {.byte_ns = 0},
     {4, 3, 50, 100, 100, 1, 1, 10},
     0,
     0,
     0},
    {"and is pushed", QY_PLAN_PUSH, {.byte_ns = 0}, {4, 3, 50, 100, 100, 1, 1, 10}, 1, 0, 0},
    /* sums beyond 32 bits */
    {"long",
     QY_PLAN_AUTO,
     {.byte_ns = 1},
     {1 << 20, 64, 1, 1 << 30, 1 << 30, 1, 9, 8},
     1,
     0x1p33,
     0},
};

static void plans_of_chunks_are_those_worked_out_by_hand(void **state)
{
    (void)state;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const struct row *r = &table[i];
        const struct qyi_chunk_choice have = qyi_plan_chunk(r->mode, &r->costs, &r->work);

        if (have.push != r->push || have.pull_ns != r->pull_ns || have.push_ns != r->push_ns) {
            fail_msg("%s: %d, %g and %g ns; not %d, %g and %g", r->what, have.push, have.pull_ns,
                     have.push_ns, r->push, r->pull_ns, r->push_ns);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_of_chunks_are_those_worked_out_by_hand),
    };
    return cmocka_run_group_tests_name("unit.offload.plan_chunk", tests, NULL, NULL);
}
