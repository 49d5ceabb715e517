/* SPDX-License-Identifier: Apache-2.0 */
/* See plan_chunk.h. */
#include "offload/tier/plan_chunk.h"

static double pull_ns(const struct qyi_chunk_costs *c, const struct qyi_chunk_work *w)
{
    const double queries = (double)w->n_tokens * w->n_heads;

    return (double)w->far_rows * w->row_bytes * c->byte_ns +
           queries * ((double)w->own_rows + w->far_rows) * c->pair_ns;
}

static double push_ns(const struct qyi_chunk_costs *c, const struct qyi_chunk_work *w)
{
    const double queries = (double)w->n_tokens * w->n_heads;
    const double here = queries * w->own_rows * c->pair_ns;
    const double there =
        (double)w->most_rows * (w->n_runs * c->far_row_ns + queries * c->far_pair_ns);

    return (double)w->n_tokens * w->n_places * c->token_ns + (here > there ? here : there);
}

struct qyi_chunk_choice qyi_plan_chunk(enum qy_plan_mode mode, const struct qyi_chunk_costs *costs,
                                       const struct qyi_chunk_work *work)
{
    struct qyi_chunk_choice choice = {.pull_ns = pull_ns(costs, work),
                                      .push_ns = push_ns(costs, work)};

    choice.push =
        work->far_rows > 0 && work->n_runs > 0 &&
        (mode == QY_PLAN_PUSH || (mode == QY_PLAN_AUTO && choice.push_ns < choice.pull_ns));
    return choice;
}
