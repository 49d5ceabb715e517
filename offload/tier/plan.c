/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of one layer: which (sequence, KV head) pulls its missing rows and which pushes its query.
 *
 * With m rows missing, an item costs
 *
 *   pull   m * (row_bytes * link_byte_ns + link_row_ns) / (1 + reuse)   moving them
 *        + m * pull_row_ns                                              attending to them here
 *   push   push_ns + query_bytes * link_byte_ns + m * push_row_ns
 *
 * and the first pull of a layer costs one command, link_copy_ns. A row that is pulled will be found
 * `reuse` times more before it is evicted: what moving it costs is shared by all these uses. (The
 * command is not: it is paid by every layer that pulls anything.)
 *
 *   link and device   |== copy ==|= pull =|= pull =|
 *   home's threads    |===== push =====|== push ==|         the plan ends when the later one does
 *
 * Pulls grow with m from nothing, pushes from a fixed cost: pull / push grows with m. So the items
 * that gain most by a push are those that miss most, and a plan is a limit: below it pull, above it
 * push, of those at the limit the first few pull. The best of all such plans is found exactly, by
 * bisecting the limit to where pulls take as long as pushes; it is worse than the best of all plans
 * by less than one item. Where the threads are shared nothing is hidden behind a push: the limit is
 * where one item's pull costs what its push does, and that is the best of all plans.
 *
 * Sums are taken over counts of rows, so the order of the items changes nothing but which of the
 * items at the limit pull. No plan is longer than pulling all or pushing all.
 */
#include "offload/tier/plan.h"

/* chosen: the last 16 steps of a layer count for two thirds */
static const double reuse_weight = 1.0 / 16.0;
/* chosen: a hundred uses of a row are as good as any number */
static const double most_found = 0.99;

/* Items that miss something. */
struct share {
    uint64_t rows;
    uint32_t n;
};

/* Items below the limit pull, and the first `ties` of those at it. */
struct rule {
    uint32_t limit, ties;
};

/* What items with at most `most` misses have together. */
static struct share up_to(const struct qyi_plan_item *items, uint32_t n_items, uint32_t most)
{
    struct share s = {0, 0};

    for (uint32_t i = 0; i < n_items; i++) {
        if (items[i].n_miss > 0 && items[i].n_miss <= most) {
            s.rows += items[i].n_miss;
            s.n++;
        }
    }
    return s;
}

static struct share less(struct share all, struct share some)
{
    return (struct share){all.rows - some.rows, all.n - some.n};
}

static double move_row_ns(const struct qyi_plan_params *p)
{
    return p->row_bytes * p->costs.link_byte_ns + p->costs.link_row_ns;
}

/* Per missing row, as an item's pull is weighed against its push. */
static double pull_row_ns(const struct qyi_plan_params *p)
{
    return move_row_ns(p) / (1.0 + p->costs.reuse) + p->costs.pull_row_ns;
}

static double push_item_ns(const struct qyi_plan_params *p)
{
    return p->costs.push_ns + p->query_bytes * p->costs.link_byte_ns;
}

static double pull_ns(const struct qyi_plan_params *p, struct share s, double row_ns)
{
    return s.n == 0 ? 0.0 : (double)s.rows * row_ns + p->costs.link_copy_ns;
}

static double push_ns(const struct qyi_plan_params *p, struct share s)
{
    return s.n * push_item_ns(p) + (double)s.rows * p->costs.push_row_ns;
}

/* Nothing beside a push: each item by its own cost, as long as all that is gained pays the copy. */
static struct rule rule_of_sums(const struct qyi_plan_params *p, const struct qyi_plan_item *items,
                                uint32_t n_items)
{
    const double gain = pull_row_ns(p) - p->costs.push_row_ns; /* of a push, per row */
    const double even = gain > 0.0 ? push_item_ns(p) / gain : (double)UINT32_MAX;
    const struct rule rule = {even < (double)UINT32_MAX ? (uint32_t)even : UINT32_MAX, n_items};
    const struct share pulled = up_to(items, n_items, rule.limit);

    return pull_ns(p, pulled, pull_row_ns(p)) <= push_ns(p, pulled) ? rule : (struct rule){0, 0};
}

/* Pulls beside pushes: the limit where both take as long. */
static struct rule rule_of_maxima(const struct qyi_plan_params *p,
                                  const struct qyi_plan_item *items, uint32_t n_items)
{
    const struct share all = up_to(items, n_items, UINT32_MAX);
    const double row_ns = pull_row_ns(p);
    uint32_t low = 0; /* up to here pulls are the shorter ones */
    uint32_t high = 1;

    for (uint32_t i = 0; i < n_items; i++) {
        high = items[i].n_miss > high ? items[i].n_miss : high;
    }
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        const struct share pulled = up_to(items, n_items, middle);

        if (pull_ns(p, pulled, row_ns) >= push_ns(p, less(all, pulled))) {
            high = middle;
        } else {
            low = middle;
        }
    }
    const uint32_t at_limit = up_to(items, n_items, high).n - up_to(items, n_items, high - 1).n;
    struct share pulled = up_to(items, n_items, high - 1);
    struct rule rule = {high, 0};
    double best = 0.0;
    for (uint32_t ties = 0; ties <= at_limit; ties++) {
        const double pull = pull_ns(p, pulled, row_ns);
        const double push = push_ns(p, less(all, pulled));
        const double longer = pull > push ? pull : push;

        if (ties == 0 || longer <= best) { /* as long: pulled rows stay */
            best = longer;
            rule.ties = ties;
        }
        pulled.rows += high;
        pulled.n++;
    }
    return rule;
}

static struct rule rule_for(const struct qyi_plan_params *p, const struct qyi_plan_item *items,
                            uint32_t n_items)
{
    switch (p->mode) {
    case QY_PLAN_PULL:
        return (struct rule){UINT32_MAX, n_items};
    case QY_PLAN_PUSH:
        return (struct rule){0, 0};
    default:
        return p->costs.shared_threads ? rule_of_sums(p, items, n_items)
                                       : rule_of_maxima(p, items, n_items);
    }
}

void qyi_plan_layer(const struct qyi_plan_params *params, const struct qyi_plan_item *items,
                    uint32_t n_items, struct qyi_plan_choice *choice)
{
    struct rule rule = rule_for(params, items, n_items);
    struct share pulled = {0, 0};
    struct share pushed = {0, 0};

    for (uint32_t i = 0; i < n_items; i++) {
        const uint32_t n_miss = items[i].n_miss;
        const int tie = n_miss == rule.limit && rule.ties > 0;
        const int push = n_miss > 0 && n_miss >= rule.limit && !tie;
        struct share *share = push ? &pushed : &pulled;

        rule.ties -= (uint32_t)tie;
        share->rows += n_miss;
        share->n += n_miss > 0;
        choice->push[i] = (uint8_t)push;
    }
    choice->n_pull = pulled.n;
    choice->n_push = pushed.n;
    choice->pull_rows = pulled.rows;
    choice->push_rows = pushed.rows;
    choice->pull_ns = pull_ns(params, pulled, move_row_ns(params) + params->costs.pull_row_ns);
    choice->push_ns = push_ns(params, pushed);
}

/*
 * Of the rows that were pulled now or before and are asked for now, the share that is found, is what
 * is averaged: reuse = found / (1 - found) follows from it. Unlike hits per row pulled, that has a
 * bound, and a value in a step that pulls nothing.
 */
void qyi_plan_reuse(struct qyi_plan_costs *costs, uint64_t pulled, uint64_t hits)
{
    const double asked = (double)pulled + (double)hits;
    double found = costs->reuse / (1.0 + costs->reuse);

    if (asked > 0.0) {
        found += reuse_weight * ((double)hits / asked - found);
        found = found < most_found ? found : most_found;
        costs->reuse = found / (1.0 - found);
    }
}
