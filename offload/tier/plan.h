/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of one layer of a step: for each (sequence, KV head) whose chosen rows are not all on the
 * device, either *pull* (copy the missing rows, attend there) or *push* (send the query to the rows'
 * home, attend near the data, merge by log-sum-exp). A pure function: counts and measured costs in,
 * decisions and their estimates out. It touches no row.
 *
 * Two resources work side by side while the device computes: the link (pulls) and the home's threads
 * (pushes). A plan is as long as the busier of the two; see plan.c for how items are dealt out.
 */
#ifndef QYI_OFFLOAD_PLAN_H
#define QYI_OFFLOAD_PLAN_H

#include "offload/offload.h"

/* Where the time goes, measured at open and corrected while running. */
struct qyi_plan_costs {
    double link_byte_ns; /* of the link, per byte                                       */
    double link_copy_ns; /* of the link, per command (one per layer and part)           */
    double link_row_ns;  /* of the engine that gathers, per row                         */
    double push_ns;      /* of the home, per (sequence, KV head): query in, partial out */
    double push_row_ns;  /* of the home, per row attended                               */
    double pull_row_ns;  /* of the device, per pulled row attended                      */
    double reuse;        /* EWMA: how often a pulled row is asked for again before it is evicted */
    int shared_threads;  /* the home's threads are the device's own (a CPU that plays a device):
                            what a push costs is not hidden behind anything               */
};

/* One (sequence, KV head). */
struct qyi_plan_item {
    uint32_t n;      /* rows chosen, sinks and window included              */
    uint32_t n_miss; /* of them, rows that are not on the device            */
};

struct qyi_plan_choice {
    uint8_t *push; /* [n_items] written: 1 push, 0 pull (or nothing to do) */
    uint32_t n_pull, n_push;
    uint64_t pull_rows, push_rows;
    double pull_ns, push_ns; /* what the chosen items are expected to take   */
};

/* What was decided: of one plan, or of many together. */
struct qyi_plan_made {
    uint64_t plans, items; /* items that miss nothing included */
    uint64_t n_pull, n_push, pull_rows, push_rows;
    double pull_ns, push_ns; /* expected; 0 where costs were not measured */
};

struct qyi_plan_params {
    enum qy_plan_mode mode;
    struct qyi_plan_costs costs;
    uint32_t row_bytes;   /* as they cross the link                             */
    uint32_t query_bytes; /* of a push: queries of a group out, partials back   */
};

/* [noalloc] pure */
void qyi_plan_layer(const struct qyi_plan_params *params, const struct qyi_plan_item *items,
                    uint32_t n_items, struct qyi_plan_choice *choice);

/* A row that was pulled was found again (hits) or not: moves costs->reuse by one step of the layer.
 * pulled: rows pulled in it; hits: rows found that an earlier step had pulled. */
void qyi_plan_reuse(struct qyi_plan_costs *costs, uint64_t pulled, uint64_t hits);

static inline void qyi_plan_add(struct qyi_plan_made *sum, const struct qyi_plan_made *more)
{
    sum->plans += more->plans;
    sum->items += more->items;
    sum->n_pull += more->n_pull;
    sum->n_push += more->n_push;
    sum->pull_rows += more->pull_rows;
    sum->push_rows += more->push_rows;
    sum->pull_ns += more->pull_ns;
    sum->push_ns += more->push_ns;
}

#endif
