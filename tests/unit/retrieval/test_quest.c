/* SPDX-License-Identifier: Apache-2.0 */
/* Policy quest against an oracle in double precision: bounds of pages, softmax over all pages, mean
 * over the group, whole pages until the budget is full; and the parts of the heads in a union. */
#include "tests/unit/retrieval/token_bed.h"

#include <math.h>
#include <string.h>

enum { PAGE = 16, MAX_PAGES = BED_MAX_N / PAGE + 1 };

/* Bounds are stored as f16, rounded outward: a score may be that much above its exact value. */
static const double slack = 0.02;

static struct bed *quest_open(void)
{
    static const uint32_t lengths[BED_TEXTS] = {500, 800, 137, 38, 333};
    struct bed *bed = bed_new(1);

    for (uint32_t i = 0; i < BED_TEXTS; i++) {
        bed_text(bed, i, lengths[i], 0.3F);
    }
    bed->settings.quest_page = PAGE;
    return bed;
}

static void ask_all(struct bed *bed, uint32_t k)
{
    for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
        bed_item(bed, i, i / BED_KV, i % BED_KV, k);
    }
    bed_select(bed, BED_MAX_ITEMS);
}

static uint32_t count_pages(const struct bed *bed, uint32_t at)
{
    return (bed->items[at].n + PAGE - 1) / PAGE;
}

/* Quest, sec. 3.3: the most that q . k can be for a key within the bounds of the page. */
static double page_bound(const struct bed *bed, uint32_t at, uint32_t g, uint32_t page)
{
    const struct qy_select_item *it = &bed->items[at];
    const struct bed_text *text = &bed->texts[it->sequence];
    double sum = 0.0;

    for (uint32_t j = 0; j < BED_D; j++) {
        const double q = it->q[g * BED_D + j];
        double most = -INFINITY;

        for (uint32_t t = page * PAGE; t < it->n && t < (page + 1) * PAGE; t++) {
            most = fmax(most, q * (double)text->k[t][it->kv_head][j]);
        }
        sum += most;
    }
    return (double)bed->params.scale * sum;
}

/* Tokens of the page that may be chosen, and in *chosen those that were. */
static uint32_t page_tokens(const struct bed *bed, uint32_t at, uint32_t page, uint32_t *chosen)
{
    const struct qy_select_item *it = &bed->items[at];
    uint32_t n = 0;

    *chosen = 0;
    for (uint32_t t = page * PAGE; t < (page + 1) * PAGE; t++) {
        n += t >= it->lo && t < it->hi;
        *chosen += (uint32_t)bed_has(bed, at, t);
    }
    return n;
}

/* No page is left, in part or whole, that is surely better than one that was taken. */
static void expect_best_pages(const struct bed *bed, uint32_t at)
{
    const uint32_t n_pages = count_pages(bed, at);
    double pooled[MAX_PAGES] = {0.0};
    double best_left = 0.0;
    double worst_taken = INFINITY;

    for (uint32_t g = 0; g < BED_GROUP; g++) {
        double sum = 0.0;

        for (uint32_t p = 0; p < n_pages; p++) {
            sum += exp(page_bound(bed, at, g, p));
        }
        for (uint32_t p = 0; p < n_pages; p++) {
            pooled[p] += exp(page_bound(bed, at, g, p)) / sum / BED_GROUP;
        }
    }
    for (uint32_t p = 0; p < n_pages; p++) {
        uint32_t chosen;
        const uint32_t n = page_tokens(bed, at, p, &chosen);

        if (chosen < n) {
            best_left = fmax(best_left, pooled[p]);
        }
        if (chosen > 0) {
            worst_taken = fmin(worst_taken, pooled[p]);
        }
    }
    assert_true(best_left <= worst_taken * exp(2.0 * slack));
}

static void quest_takes_the_pages_of_the_largest_bounds(void **state)
{
    static const uint32_t budgets[] = {1, 16, 40, 77, 300, BED_MAX_N};
    struct bed *bed = quest_open();

    (void)state;
    bed_policy(bed, "quest", 100);
    for (size_t b = 0; b < sizeof(budgets) / sizeof(*budgets); b++) {
        ask_all(bed, budgets[b]);
        for (uint32_t at = 0; at < BED_MAX_ITEMS; at++) {
            assert_int_equal(bed->n_ids[at], bed->items[at].k);
            expect_best_pages(bed, at);
        }
    }
    bed_free(bed);
}

/* Is the page surely among the best `part` of one head at least? */
static int surely_of_a_head(const struct bed *bed, uint32_t at, uint32_t page, uint32_t part)
{
    const struct qy_select_item *it = &bed->items[at];

    for (uint32_t g = 0; g < BED_GROUP; g++) {
        const double bound = page_bound(bed, at, g, page);
        uint32_t not_less = 0;

        for (uint32_t p = it->lo / PAGE; p * PAGE < it->hi; p++) {
            not_less += p != page && page_bound(bed, at, g, p) > bound - slack;
        }
        if (not_less < part) {
            return 1;
        }
    }
    return 0;
}

/* Each head has an equal part of the budget's pages, and no part of the budget is left to nobody:
 * what is wanted and fits is taken. */
static void quest_union_shares_the_whole_budget(void **state)
{
    static const uint32_t budgets[] = {1, 16, 40, 77, 150};
    struct bed *bed = quest_open();

    (void)state;
    bed->settings.pooling = QY_POOLED_UNION;
    bed_policy(bed, "quest", 0);
    for (size_t b = 0; b < sizeof(budgets) / sizeof(*budgets); b++) {
        ask_all(bed, budgets[b]);
        for (uint32_t at = 0; at < BED_MAX_ITEMS; at++) {
            const struct qy_select_item *it = &bed->items[at];
            const uint32_t pages = (it->k + PAGE - 1) / PAGE;
            const uint32_t part = (pages + BED_GROUP - 1) / BED_GROUP;
            uint32_t wanted = 0;

            for (uint32_t p = 0; it->k > 0 && p < count_pages(bed, at); p++) {
                uint32_t chosen;
                const uint32_t n = page_tokens(bed, at, p, &chosen);

                wanted += n > 0 && surely_of_a_head(bed, at, p, part) ? n : 0;
            }
            assert_in_range(bed->n_ids[at], wanted < it->k ? wanted : it->k, it->k);
        }
    }
    bed_free(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quest_takes_the_pages_of_the_largest_bounds),
        cmocka_unit_test(quest_union_shares_the_whole_budget),
    };
    return cmocka_run_group_tests_name("retrieval.quest", tests, NULL, NULL);
}
