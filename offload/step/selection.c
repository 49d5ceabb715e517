/* SPDX-License-Identifier: Apache-2.0 */
/* See selection.h. */
#include "offload/step/selection.h"

struct qyi_selection qyi_selection_plan(const struct qyi_selection_rule *rule,
                                        enum qy_attend_mode mode, uint32_t n)
{
    struct qyi_selection s = {.reach = QYI_REACH_ALL, .n = n};

    s.lo = rule->sinks < n ? rule->sinks : n;
    s.hi = n > rule->window && n - rule->window > s.lo ? n - rule->window : s.lo;
    if (mode == QY_ATTEND_DENSE || rule->caps.dense || s.hi == s.lo || n < rule->min_tokens) {
        return s;
    }
    if (rule->caps.select_nothing) {
        s.reach = QYI_REACH_FRAME;
        return s;
    }
    const uint32_t k = qy_budget_tokens(&rule->budget, n);
    const uint32_t candidates = s.hi - s.lo;
    if (k >= candidates && !(rule->budget.mass > 0.0)) {
        return s;
    }
    s.reach = QYI_REACH_SELECT;
    s.k = k < candidates ? k : candidates;
    s.most = s.k;
    s.mass = (float)qy_budget_mass(&rule->budget, n);
    if (rule->caps.per_head) {
        s.most = (uint64_t)s.k * rule->group < candidates ? s.k * rule->group : candidates;
    }
    return s;
}

uint32_t qyi_selection_capacity(const struct qyi_selection_rule *rule, uint32_t max_tokens)
{
    const uint64_t frame = (uint64_t)rule->sinks + rule->window;
    uint64_t most = frame;

    if (rule->caps.dense) {
        return 0;
    }
    if (!rule->caps.select_nothing) {
        const uint32_t k = qy_budget_tokens(&rule->budget, max_tokens);

        if (k >= max_tokens && !(rule->budget.mass > 0.0)) {
            return 0; /* the budget covers every length: nothing is ever chosen */
        }
        if (rule->caps.per_head) { /* before equal ids are joined there may be more than tokens */
            most += (uint64_t)k * rule->group;
            return most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
        }
        most += k;
    }
    return most < max_tokens ? (uint32_t)most : max_tokens;
}

uint32_t qyi_selection_merge(const struct qyi_selection *s, uint32_t n_chosen, uint32_t *ids)
{
    uint32_t *const chosen = ids + s->lo;
    int bad = n_chosen > s->most;

    if (!bad && n_chosen > 0) {
        bad = chosen[0] < s->lo || chosen[n_chosen - 1] >= s->hi;
        for (uint32_t i = 1; i < n_chosen; i++) {
            bad |= chosen[i - 1] >= chosen[i];
        }
    }
    if (bad) {
        return 0;
    }
    for (uint32_t i = 0; i < s->lo; i++) {
        ids[i] = i;
    }
    uint32_t *const window = chosen + n_chosen;
    for (uint32_t i = s->hi; i < s->n; i++) {
        window[i - s->hi] = i;
    }
    return s->lo + n_chosen + (s->n - s->hi);
}

uint32_t qyi_selection_place(const uint32_t *ids, uint32_t n, uint32_t id)
{
    uint32_t lo = 0;

    while (lo < n) {
        const uint32_t mid = lo + (n - lo) / 2;

        if (ids[mid] < id) {
            lo = mid + 1;
        } else {
            n = mid;
        }
    }
    return lo;
}
