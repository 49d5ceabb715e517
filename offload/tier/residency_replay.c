/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A residency cache fed with the selections of a run that is over: what would have been found, and
 * what finding and taking cost. One set per layer. A step finds the rows of all heads before any of
 * them gets a slot, so that a head's new rows do not drive out what another head is about to ask for.
 */
#include "offload/tier/residency.h"

struct replay {
    const struct qy_selection_trace *trace;
    struct qyi_residency *residency;
    uint32_t *slots, *misses; /* of the lists of one step, as they lie in trace->ids */
    uint32_t *n_misses;       /* [n_layers][n_kv_heads]                               */
    struct qy_replay_result sum;
};

/* Lists of a step, and where they begin. */
static uint32_t lists_of(const struct qy_selection_trace *t)
{
    return t->n_layers * t->n_kv_heads;
}

static const uint64_t *begins_of(const struct qy_selection_trace *t, uint32_t step)
{
    return t->begins + (size_t)step * lists_of(t);
}

static enum qy_status check_trace(const struct qy_selection_trace *t, uint64_t *longest,
                                  struct qy_error *err)
{
    *longest = 0;
    for (uint32_t step = 0; step < t->n_steps; step++) {
        const uint64_t *begins = begins_of(t, step);
        const uint64_t n = begins[lists_of(t)] - begins[0];

        for (uint32_t i = 0; i < lists_of(t); i++) {
            int bad = begins[i + 1] < begins[i];

            for (uint64_t at = begins[i]; !bad && at < begins[i + 1]; at++) {
                bad =
                    t->ids[at] >= t->max_tokens || (at > begins[i] && t->ids[at - 1] >= t->ids[at]);
            }
            if (bad) {
                return qy_error_set(err, QY_ERR_INVALID,
                                    "trace: list %u of step %u is not ascending below %u", i, step,
                                    t->max_tokens);
            }
        }
        *longest = n > *longest ? n : *longest;
    }
    return QY_OK;
}

static uint64_t begin_step(struct replay *r)
{
    const uint64_t begin = qy_clock_ns();

    for (uint32_t layer = 0; layer < r->trace->n_layers; layer++) {
        qyi_residency_begin(r->residency, layer);
    }
    return qy_clock_ns() - begin;
}

static uint64_t find_step(struct replay *r, uint32_t step)
{
    const struct qy_selection_trace *t = r->trace;
    const uint64_t *begins = begins_of(t, step);
    const uint64_t begin = qy_clock_ns();

    for (uint32_t i = 0, layer = 0; layer < t->n_layers; layer++) {
        for (uint32_t h = 0; h < t->n_kv_heads; h++, i++) {
            const size_t at = (size_t)(begins[i] - begins[0]);

            r->n_misses[i] = qyi_residency_find(r->residency, layer, h, t->ids + begins[i],
                                                (uint32_t)(begins[i + 1] - begins[i]),
                                                r->slots + at, r->misses + at);
        }
    }
    return qy_clock_ns() - begin;
}

/* Slots for what is missing, as far as there are any. Returns their number. */
static uint64_t take_step(struct replay *r, uint32_t step)
{
    const struct qy_selection_trace *t = r->trace;
    const uint64_t *begins = begins_of(t, step);
    uint64_t taken = 0;

    for (uint32_t i = 0, layer = 0; layer < t->n_layers; layer++) {
        for (uint32_t h = 0; h < t->n_kv_heads; h++, i++) {
            const size_t at = (size_t)(begins[i] - begins[0]);
            const uint32_t room = qyi_residency_takeable(r->residency, layer);
            const uint32_t n = r->n_misses[i] < room ? r->n_misses[i] : room;

            if (n > 0 && qyi_residency_take(r->residency, layer, h, t->ids + begins[i],
                                            r->misses + at, n, r->slots + at) == QY_OK) {
                taken += n;
            }
        }
    }
    return taken;
}

/* Counts rows and hits of a step, between finding and taking. */
static void count_step(struct replay *r, uint32_t step)
{
    const struct qy_selection_trace *t = r->trace;
    const uint64_t *begins = begins_of(t, step);
    const uint64_t n = begins[lists_of(t)] - begins[0];
    const uint64_t tokens = (uint64_t)t->n_tokens + step;

    for (uint64_t at = 0; at < n; at++) {
        const uint32_t id = t->ids[begins[0] + at];
        const int hit = r->slots[at] != QYI_NO_SLOT;
        const int chosen = id >= t->sinks && (uint64_t)id + t->window < tokens;

        r->sum.hits += (uint64_t)hit;
        r->sum.chosen_rows += (uint64_t)chosen;
        r->sum.chosen_hits += (uint64_t)(hit & chosen);
    }
    r->sum.rows += n;
}

static void run(struct replay *r, uint32_t warm_up)
{
    for (uint32_t step = 0; step < r->trace->n_steps; step++) {
        const int counted = step >= warm_up;
        const uint64_t begin_ns = begin_step(r);
        const uint64_t find_ns = find_step(r, step);

        if (counted) {
            count_step(r, step);
        }
        const uint64_t begin = qy_clock_ns();
        const uint64_t taken = take_step(r, step);

        if (counted) {
            r->sum.take_ns += qy_clock_ns() - begin;
            r->sum.begin_ns += begin_ns;
            r->sum.find_ns += find_ns;
            r->sum.taken += taken;
        }
    }
}

enum qy_status qy_residency_replay(const struct qy_allocator *mem,
                                   const struct qy_selection_trace *trace,
                                   const struct qy_replay_params *params,
                                   struct qy_replay_result *result, struct qy_error *err)
{
    const struct qyi_residency_params residency = {.n_sets = trace->n_layers,
                                                   .n_heads = trace->n_kv_heads,
                                                   .max_tokens = trace->max_tokens,
                                                   .slots_per_set = params->slots,
                                                   .eviction = params->eviction};
    struct replay r = {.trace = trace};
    uint64_t longest;
    enum qy_status st = check_trace(trace, &longest, err);

    if (st != QY_OK) {
        return st;
    }
    const size_t bytes = ((size_t)longest + 1) * sizeof(uint32_t);
    r.slots = qy_alloc_zero(mem, bytes);
    r.misses = qy_alloc_zero(mem, bytes);
    r.n_misses = qy_alloc_zero(mem, ((size_t)lists_of(trace) + 1) * sizeof(uint32_t));
    if (!r.slots || !r.misses || !r.n_misses) {
        st = qy_error_set(err, QY_ERR_NOMEM, "residency: out of memory for a step of %llu rows",
                          (unsigned long long)longest);
    } else {
        st = qyi_residency_open(mem, &residency, &r.residency, err);
    }
    if (st == QY_OK) {
        run(&r, params->warm_up);
        *result = r.sum;
    }
    qyi_residency_close(r.residency);
    qy_free(mem, r.n_misses);
    qy_free(mem, r.misses);
    qy_free(mem, r.slots);
    return st;
}
