/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one new token attends to: the plan of a sequence in a step, and its list of ids. Pure.
 *
 *   0 ... lo | lo ... hi            | hi ... n
 *   sinks    | candidates: k chosen | window (the new token is its last)
 */
#ifndef QYI_OFFLOAD_SELECTION_H
#define QYI_OFFLOAD_SELECTION_H

#include "offload/offload.h"

enum qyi_reach {
    QYI_REACH_ALL,   /* rows 0 .. n - 1, no list      */
    QYI_REACH_FRAME, /* sinks and window              */
    QYI_REACH_SELECT /* these and k of the candidates */
};

struct qyi_selection {
    enum qyi_reach reach;
    uint32_t n, lo, hi;
    uint32_t k;    /* of the budget, as the policy gets it; 0 unless reach is QYI_REACH_SELECT */
    float mass;    /* of the budget at n tokens; 0: none */
    uint32_t most; /* ids that the policy may write: k, or those of every head of the group */
};

struct qyi_selection_rule {
    struct qy_policy_caps caps;
    struct qy_budget budget;
    uint32_t group; /* query heads of a KV head: lists with caps.per_head */
    uint32_t sinks, window;
    uint32_t min_tokens; /* below so many: QYI_REACH_ALL */
};

/* What a sequence of n tokens (the new one included, n > 0) attends to. When the budget covers
 * all candidates and no mass bounds it, or the sequence is too short for a choice to pay, nothing
 * is chosen: QYI_REACH_ALL. [noalloc] */
struct qyi_selection qyi_selection_plan(const struct qyi_selection_rule *rule,
                                        enum qy_attend_mode mode, uint32_t n);
/* Ids that a list may take for any sequence of up to max_tokens; 0: no list is ever made. With
 * caps.per_head there is room for the lists of all heads of a group, equal ids and all. */
uint32_t qyi_selection_capacity(const struct qyi_selection_rule *rule, uint32_t max_tokens);
/* Completes ids: the policy wrote n_chosen ids at ids + lo; writes sinks before and the window
 * behind. Returns the length of the list, or 0 when the chosen ids are not ascending in
 * [lo, hi). [noalloc] */
uint32_t qyi_selection_merge(const struct qyi_selection *s, uint32_t n_chosen, uint32_t *ids);

/* First place of ids [n] (ascending) that is at least id. [noalloc] */
uint32_t qyi_selection_place(const uint32_t *ids, uint32_t n, uint32_t id);

#endif
