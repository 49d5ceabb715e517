/* SPDX-License-Identifier: Apache-2.0 */
/* Pull or push: decisions worked out by hand, and what holds for all plans. */
#include "tests/support/test.h"

#include <math.h>
#include <string.h>

#include "offload/tier/plan.h"

enum { MOST = 9 };

/* Moving a row takes 4 * 1 + 6 = 10, a push 100 + 20 * 1 = 120 and 2 per row. */
#define COSTS .link_byte_ns = 1, .link_row_ns = 6, .push_ns = 100, .push_row_ns = 2

struct row {
    const char *what;
    enum qy_plan_mode mode;
    struct qyi_plan_costs costs;
    uint32_t n_items, n_miss[MOST];
    uint8_t push[MOST];
    double pull_ns, push_ns;
};

static const struct row table[] = {
    {"no items", QY_PLAN_AUTO, {COSTS, .link_copy_ns = 7}, 0, {0}, {0}, 0, 0},
    {"no misses", QY_PLAN_AUTO, {COSTS, .link_copy_ns = 7}, 3, {0, 0, 0}, {0, 0, 0}, 0, 0},
    {"no misses, push", QY_PLAN_PUSH, {COSTS, .link_copy_ns = 7}, 2, {0, 0}, {0, 0}, 0, 0},
    {"all pulled: 1 command",
     QY_PLAN_PULL,
     {COSTS, .link_copy_ns = 7},
     3,
     {5, 0, 20},
     {0, 0, 0},
     257,
     0},
    {"all pushed", QY_PLAN_PUSH, {COSTS, .link_copy_ns = 7}, 3, {5, 0, 20}, {1, 0, 1}, 0, 290},
    /* longer of both for 0, 1, 2, 3 pulls: 620, 480, 320, 1300 */
    {"the largest pushes", QY_PLAN_AUTO, {COSTS}, 4, {20, 100, 0, 10}, {0, 1, 0, 0}, 300, 320},
    /* 10: 100 or 140; 20: 200 or 160; 100: 1000 or 320 */
    {"shared: each its cheaper way",
     QY_PLAN_AUTO,
     {COSTS, .shared_threads = 1},
     4,
     {20, 100, 0, 10},
     {1, 1, 0, 0},
     100,
     480},
    {"shared: 150 either way",
     QY_PLAN_AUTO,
     {COSTS, .shared_threads = 1},
     3,
     {15, 16, 15},
     {0, 1, 0},
     300,
     152},
    /* 700 + 40 or 120 + 8 each; the copy is not worth 20 */
    {"shared: a copy for little",
     QY_PLAN_AUTO,
     {COSTS, .link_copy_ns = 700, .shared_threads = 1},
     2,
     {4, 4},
     {1, 1},
     0,
     256},
    {"shared: a copy for much",
     QY_PLAN_AUTO,
     {COSTS, .link_copy_ns = 170, .shared_threads = 1},
     2,
     {4, 4},
     {0, 0},
     250,
     0},
    /* 720, 540, 600, 900, 1200 */
    {"of equals the first pulls",
     QY_PLAN_AUTO,
     {COSTS},
     4,
     {30, 30, 30, 30},
     {0, 1, 1, 1},
     300,
     540},
    /* a pull counts half: 720, 540, 360, 450, 600; what it takes now does not change */
    {"reuse: half a move",
     QY_PLAN_AUTO,
     {COSTS, .reuse = 1},
     4,
     {30, 30, 30, 30},
     {0, 0, 1, 1},
     600,
     360},
    /* attending is paid each time: 5 + 5 per row, as without reuse */
    {"reuse: not of attention",
     QY_PLAN_AUTO,
     {COSTS, .reuse = 1, .pull_row_ns = 5},
     4,
     {30, 30, 30, 30},
     {0, 1, 1, 1},
     450,
     540},
    /* 47 or 128 */
    {"one short item", QY_PLAN_AUTO, {COSTS, .link_copy_ns = 7}, 1, {4}, {0}, 47, 0},
    {"one short item, dear copy", QY_PLAN_AUTO, {COSTS, .link_copy_ns = 500}, 1, {4}, {1}, 0, 128},
    /* 480, 300, 1200 */
    {"both sides alike", QY_PLAN_AUTO, {COSTS}, 2, {30, 90}, {0, 1}, 300, 300},
    {"a free link",
     QY_PLAN_AUTO,
     {.push_ns = 100, .push_row_ns = 2},
     3,
     {9, 1, 5},
     {0, 0, 0},
     0,
     0},
    {"a slow home",
     QY_PLAN_AUTO,
     {.link_row_ns = 1, .push_ns = 100, .push_row_ns = 2},
     3,
     {9, 1, 5},
     {0, 0, 0},
     15,
     0},
    {"a slow home, shared",
     QY_PLAN_AUTO,
     {.link_row_ns = 1, .push_ns = 100, .push_row_ns = 2, .shared_threads = 1},
     3,
     {9, 1, 5000},
     {0, 0, 0},
     5010,
     0},
};

struct plan {
    struct qyi_plan_params params;
    struct qyi_plan_item items[MOST];
    uint32_t n_items;
    uint8_t push[MOST + 1];
    struct qyi_plan_choice choice;
};

static void make(struct plan *p, enum qy_plan_mode mode)
{
    p->params.mode = mode;
    memset(p->push, 0xff, sizeof(p->push));
    p->choice = (struct qyi_plan_choice){.push = p->push};
    qyi_plan_layer(&p->params, p->items, p->n_items, &p->choice);
    assert_int_equal(p->push[p->n_items], 0xff);
}

static void plan_of_known_costs_is_as_by_hand(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const struct row *row = &table[i];
        struct plan p = {.params = {.costs = row->costs, .row_bytes = 4, .query_bytes = 20},
                         .n_items = row->n_items};
        uint32_t n[2] = {0, 0};
        uint64_t rows[2] = {0, 0};

        for (uint32_t j = 0; j < row->n_items; j++) {
            p.items[j] = (struct qyi_plan_item){row->n_miss[j] + 8, row->n_miss[j]};
            n[row->push[j]] += row->n_miss[j] > 0;
            rows[row->push[j]] += row->n_miss[j];
        }
        make(&p, row->mode);
        for (uint32_t j = 0; j < row->n_items; j++) {
            if (p.push[j] != row->push[j]) {
                fail_msg("%s: item %u", row->what, j);
            }
        }
        assert_int_equal(p.choice.n_pull, n[0]);
        assert_int_equal(p.choice.n_push, n[1]);
        assert_int_equal(p.choice.pull_rows, rows[0]);
        assert_int_equal(p.choice.push_rows, rows[1]);
        if (p.choice.pull_ns != row->pull_ns || p.choice.push_ns != row->push_ns) {
            fail_msg("%s: %g and %g", row->what, p.choice.pull_ns, p.choice.push_ns);
        }
    }
}

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)*seed * below >> 32);
}

/* What the items of a plan are weighed by, from the formulas alone. */
static double pull_of(const struct plan *p, uint32_t n_miss)
{
    const struct qyi_plan_costs *c = &p->params.costs;

    return n_miss * ((p->params.row_bytes * c->link_byte_ns + c->link_row_ns) / (1 + c->reuse) +
                     c->pull_row_ns);
}
static double push_of(const struct plan *p, uint32_t n_miss)
{
    const struct qyi_plan_costs *c = &p->params.costs;

    return n_miss == 0
               ? 0.0
               : c->push_ns + p->params.query_bytes * c->link_byte_ns + n_miss * c->push_row_ns;
}
static double weigh(const struct plan *p, const uint8_t *push)
{
    double sums[2] = {0.0, 0.0};
    int copy = 0;

    for (uint32_t i = 0; i < p->n_items; i++) {
        const uint32_t n_miss = p->items[i].n_miss;
        sums[push[i]] += push[i] ? push_of(p, n_miss) : pull_of(p, n_miss);
        copy |= !push[i] && n_miss > 0;
    }
    sums[0] += copy ? p->params.costs.link_copy_ns : 0.0;
    return p->params.costs.shared_threads ? sums[0] + sums[1] : fmax(sums[0], sums[1]);
}

/* The best of all 2^n plans. */
static double best_of(const struct plan *p)
{
    double best = INFINITY;

    for (uint32_t bits = 0; bits < 1U << p->n_items; bits++) {
        uint8_t push[MOST];
        for (uint32_t i = 0; i < p->n_items; i++) {
            push[i] = bits >> i & 1;
        }
        best = fmin(best, weigh(p, push));
    }
    return best;
}

static void draw_plan(struct plan *p, uint32_t *seed)
{
    const uint32_t most = 1U << draw(seed, 12);

    *p = (struct plan){.n_items = draw(seed, MOST + 1)};
    p->params =
        (struct qyi_plan_params){.costs = {.link_byte_ns = draw(seed, 100) * 0.01,
                                           .link_copy_ns = draw(seed, 2) * draw(seed, 20000),
                                           .link_row_ns = draw(seed, 100),
                                           .push_ns = draw(seed, 3) * draw(seed, 10000),
                                           .push_row_ns = draw(seed, 50),
                                           .pull_row_ns = draw(seed, 20),
                                           .reuse = draw(seed, 2) * draw(seed, 50) * 0.1,
                                           .shared_threads = (int)draw(seed, 2)},
                                 .row_bytes = 64U << draw(seed, 4),
                                 .query_bytes = draw(seed, 10000)};
    for (uint32_t i = 0; i < p->n_items; i++) {
        p->items[i].n_miss = draw(seed, most + 1);
        p->items[i].n = p->items[i].n_miss + draw(seed, 100);
    }
}

static void auto_is_near_the_best_of_all_plans(void **state)
{
    uint32_t seed = 1;
    uint32_t mixed = 0;
    (void)state;

    for (int round = 0; round < 3000; round++) {
        struct plan p;
        double largest = 0.0;

        draw_plan(&p, &seed);
        for (uint32_t i = 0; i < p.n_items; i++) {
            const uint32_t n_miss = p.items[i].n_miss;
            largest = fmax(largest, fmin(pull_of(&p, n_miss), push_of(&p, n_miss)));
        }
        make(&p, QY_PLAN_PULL);
        const double all_pull = weigh(&p, p.push);
        make(&p, QY_PLAN_PUSH);
        const double all_push = weigh(&p, p.push);
        make(&p, QY_PLAN_AUTO);
        const double got = weigh(&p, p.push);
        const double slack = 1e-9 * (got + 1.0);

        mixed += p.choice.n_pull > 0 && p.choice.n_push > 0;
        assert_true(got <= fmin(all_pull, all_push) + slack);
        assert_true(got <= best_of(&p) + (p.params.costs.shared_threads ? 0.0 : largest) + slack);
    }
    assert_true(mixed > 300); /* the costs that were drawn leave something to decide */
}

/* Items in another order: as many rows each way, and the same again for the same order. */
static void order_of_items_changes_no_sum(void **state)
{
    uint32_t seed = 2;
    (void)state;

    for (int round = 0; round < 500; round++) {
        struct plan p;
        draw_plan(&p, &seed);
        make(&p, QY_PLAN_AUTO);
        struct plan other = p;
        make(&other, QY_PLAN_AUTO);
        assert_memory_equal(other.push, p.push, sizeof(p.push));
        for (uint32_t i = 1; i < p.n_items; i++) {
            const uint32_t j = draw(&seed, i + 1);
            const struct qyi_plan_item item = other.items[i];
            other.items[i] = other.items[j];
            other.items[j] = item;
        }
        make(&other, QY_PLAN_AUTO);
        assert_int_equal(other.choice.n_pull, p.choice.n_pull);
        assert_int_equal(other.choice.n_push, p.choice.n_push);
        assert_int_equal(other.choice.pull_rows, p.choice.pull_rows);
        assert_int_equal(other.choice.push_rows, p.choice.push_rows);
        assert_true(other.choice.pull_ns == p.choice.pull_ns);
        assert_true(other.choice.push_ns == p.choice.push_ns);
    }
}

static void reuse_follows_what_is_found(void **state)
{
    struct qyi_plan_costs costs = {.reuse = 1.0};
    (void)state;

    qyi_plan_reuse(&costs, 0, 0);
    assert_true(costs.reuse == 1.0);
    qyi_plan_reuse(&costs, 4, 0); /* found: 1/2 - 1/32 = 15/32 */
    assert_true(fabs(costs.reuse - 15.0 / 17.0) < 1e-12);
    costs.reuse = 0.0;
    qyi_plan_reuse(&costs, 1, 3); /* 3/64 */
    assert_true(fabs(costs.reuse - 3.0 / 61.0) < 1e-12);
    for (int i = 0; i < 300; i++) {
        qyi_plan_reuse(&costs, 1, 3);
    }
    assert_true(fabs(costs.reuse - 3.0) < 1e-6); /* each pull is found three times */
    for (int i = 0; i < 300; i++) {
        qyi_plan_reuse(&costs, 0, UINT64_MAX);
    }
    assert_true(costs.reuse > 90.0 && costs.reuse < 100.0);
    for (int i = 0; i < 300; i++) {
        qyi_plan_reuse(&costs, UINT64_MAX, 0);
    }
    assert_true(costs.reuse >= 0.0 && costs.reuse < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_of_known_costs_is_as_by_hand),
        cmocka_unit_test(auto_is_near_the_best_of_all_plans),
        cmocka_unit_test(order_of_items_changes_no_sum),
        cmocka_unit_test(reuse_follows_what_is_found),
    };

    return cmocka_run_group_tests_name("unit.offload.plan", tests, NULL, NULL);
}
